//! As much of S3 as restic and our own client speak, in memory.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::HttpBody;
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    response::Response,
};
use http::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use tokio::runtime::Runtime;

use super::versions::{self, Versions};

pub const ACCESS_KEY: &str = "store-key-id";
/// Small, so that every listing has pages.
pub(super) const PAGE: usize = 3;

pub(super) type Objects = BTreeMap<String, Bytes>;

#[derive(Clone)]
pub struct FakeS3 {
    pub url: String,
    objects: Arc<Mutex<Objects>>,
    trouble: Arc<Mutex<Trouble>>,
    manners: Arc<Mutex<Manners>>,
    versions: Arc<Mutex<Versions>>,
    server: Arc<Mutex<Server>>,
}

/// Where it runs: with this its connections end, too.
#[derive(Default)]
struct Server(Option<Runtime>);

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn listen(address: &str) -> (std::net::TcpListener, std::net::SocketAddr) {
    let listener = std::net::TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// How the store treats packs, which hold a disk's bytes.
#[derive(Default)]
struct Trouble {
    /// How many more uploads are refused with 503.
    refused: usize,
    /// How many more uploads break in the middle of the request.
    broken: usize,
    /// How long each upload takes.
    delay: Duration,
    /// Bytes that were taken.
    written: usize,
    /// Bytes that were given.
    read: usize,
    /// How it says that there is no room any more.
    full: Option<Full>,
    /// How many more calls of any kind are refused with 503.
    refused_calls: usize,
}

/// How stores say that there is no room.
#[derive(Debug, Clone, Copy)]
pub enum Full {
    Minio,
    Ceph,
    /// Swift's S3 API.
    Swift,
}

/// What kind of store it is, where stores differ.
#[derive(Clone, Default)]
pub struct Manners {
    /// Whether it keeps what is overwritten or deleted.
    pub versions: bool,
    /// Whether, and how, versions are locked.
    pub lock: Option<Lock>,
    /// How it answers who wants to see versions.
    pub sight: Sight,
    /// Uploads that nobody ended; `None`: it does not tell of them.
    pub uploads: Option<Vec<(String, String)>>,
    /// It makes a bucket for whoever writes into it.
    pub makes_buckets: bool,
    /// Those it made so.
    pub buckets: Vec<String>,
    /// The region that a signature must name.
    pub region: Option<String>,
    /// How much its clock is ahead, in seconds.
    pub ahead: i64,
}

/// Object lock, of versions that were written so many days ago at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lock {
    /// Each version says until when.
    Versions(i64),
    /// Only the bucket's rule says how long.
    Bucket(i64),
}

/// Who may see versions.
#[derive(Clone, Copy, Default, PartialEq)]
pub enum Sight {
    #[default]
    Everybody,
    /// These keys may not.
    Denied,
    /// The store has no such call.
    Unknown,
}

impl Manners {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(Timestamp::now().as_second() + self.ahead).unwrap()
    }
}

/// Signatures are of a region and of a time. Those in a URL are good until they expire, however early they come.
fn refused_signature(
    manners: &Manners,
    query: &HashMap<String, String>,
    headers: &HeaderMap,
    now: Timestamp,
) -> Option<Response> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let of = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let in_query = !of("X-Amz-Credential").is_empty();
    let scope = if in_query { of("X-Amz-Credential") } else { header("authorization") };
    let region = scope.split('/').nth(2).unwrap_or_default();
    if let Some(expected) = manners.region.as_deref().filter(|expected| *expected != region) {
        let wrong = format!("the region &#34;{region}&#34; is wrong; expecting &#34;{expected}&#34;");
        let (code, named) = match in_query {
            true => ("AuthorizationQueryParametersError", String::new()),
            false => ("AuthorizationHeaderMalformed", format!("<Region>{expected}</Region>")),
        };
        let body = format!("<Error><Code>{code}</Code><Message>{wrong}</Message>{named}</Error>");
        return Some(reply(StatusCode::BAD_REQUEST, &body));
    }
    let date = if in_query { of("X-Amz-Date") } else { header("x-amz-date") };
    let signed = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date).unwrap();
    let age = now.as_second() - signed.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().as_second();
    if in_query && age > of("X-Amz-Expires").parse().unwrap() {
        return Some(error(StatusCode::FORBIDDEN, "AccessDenied", "Request has expired."));
    }
    if !in_query && age.abs() > 900 {
        let message = "The difference between the request time and the server's time is too large.";
        return Some(error(StatusCode::FORBIDDEN, "RequestTimeTooSkewed", message));
    }
    None
}

impl FakeS3 {
    /// Refuses the next uploads of packs, and breaks the connection of others.
    pub fn trouble(&self, refused: usize, broken: usize) {
        let mut trouble = self.trouble.lock().unwrap();
        (trouble.refused, trouble.broken) = (refused, broken);
    }

    /// Makes uploads of packs slow.
    pub fn slow(&self, delay: Duration) {
        self.trouble.lock().unwrap().delay = delay;
    }

    /// Bytes of packs that were taken so far.
    pub fn written(&self) -> usize {
        self.trouble.lock().unwrap().written
    }

    /// Bytes of packs that were given so far.
    pub fn read(&self) -> usize {
        self.trouble.lock().unwrap().read
    }

    /// Takes no pack any more, or again.
    pub fn fill_up(&self, full: bool) {
        self.fill_up_as(full.then_some(Full::Minio));
    }

    /// The same, said as another store says it.
    pub fn fill_up_as(&self, full: Option<Full>) {
        self.trouble.lock().unwrap().full = full;
    }

    /// Changes what kind of store it is.
    pub fn behave(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.manners.lock().unwrap());
    }

    /// Every version and every marker of a deletion below a prefix.
    pub fn versions(&self, prefix: &str) -> usize {
        self.versions.lock().unwrap().below(prefix).count()
    }

    /// Refuses the next calls, whatever they are.
    pub fn refuse_all(&self, calls: usize) {
        self.trouble.lock().unwrap().refused_calls = calls;
    }

    fn refuses(&self) -> bool {
        let mut trouble = self.trouble.lock().unwrap();
        let refused = trouble.refused_calls > 0;
        trouble.refused_calls = trouble.refused_calls.saturating_sub(1);
        refused
    }

    /// What happens to the upload of a pack.
    async fn treat(&self, bytes: usize) -> Option<Response> {
        let delay = {
            let mut trouble = self.trouble.lock().unwrap();
            if let Some(full) = trouble.full {
                return Some(no_room(full));
            }
            if trouble.refused > 0 {
                trouble.refused -= 1;
                return Some(slow_down());
            }
            if trouble.broken > 0 {
                trouble.broken -= 1;
                // An answer that ends before its length was reached.
                let cut = futures::stream::iter([Ok(Bytes::new()), Err(std::io::Error::other("cut"))]);
                return Some(
                    Response::builder().header("content-length", 10).body(Body::from_stream(cut)).unwrap(),
                );
            }
            trouble.written += bytes;
            trouble.delay
        };
        tokio::time::sleep(delay).await;
        None
    }

    pub async fn start() -> Self {
        let (listener, address) = listen("127.0.0.1:0");
        let url = format!("http://{address}");
        let s3 = Self {
            url,
            objects: Arc::default(),
            trouble: Arc::default(),
            manners: Arc::default(),
            versions: Arc::default(),
            server: Arc::default(),
        };
        s3.serve(listener);
        s3
    }

    fn serve(&self, listener: std::net::TcpListener) {
        // Not the server itself: it would hold what it is to end with.
        let state = Self { server: Arc::default(), ..self.clone() };
        let app = Router::new().fallback(answer).with_state(state);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(
            async move { axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), app).await },
        );
        *self.server.lock().unwrap() = Server(Some(runtime));
    }

    /// The store is switched off: connections break, new ones are refused.
    pub fn leave(&self) {
        *self.server.lock().unwrap() = Server::default();
    }

    /// It is there again, at the same address.
    pub fn come_back(&self) {
        self.serve(listen(self.url.trim_start_matches("http://")).0);
    }

    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.objects.lock().unwrap().keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }

    pub fn get(&self, key: &str) -> Option<Bytes> {
        self.objects.lock().unwrap().get(key).cloned()
    }

    pub fn put(&self, key: &str, content: &str) {
        self.objects.lock().unwrap().insert(key.to_owned(), Bytes::from(content.to_owned()));
    }

    pub fn remove(&self, key: &str) {
        self.objects.lock().unwrap().remove(key);
    }
}

async fn answer(State(s3): State<FakeS3>, request: Request) -> Response {
    let now = s3.manners.lock().unwrap().now();
    let mut response = answer_at(&s3, request, now).await;
    let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    response.headers_mut().insert("date", date.parse().unwrap());
    response
}

async fn answer_at(s3: &FakeS3, request: Request, now: Timestamp) -> Response {
    let (parts, body) = request.into_parts();
    let query: HashMap<String, String> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let header =
        |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let credential = query.get("X-Amz-Credential").map(String::as_str).unwrap_or_default();
    if !credential.starts_with(ACCESS_KEY)
        && !header("authorization").contains(&format!("Credential={ACCESS_KEY}/"))
    {
        return error(
            StatusCode::FORBIDDEN,
            "InvalidAccessKeyId",
            "The Access Key Id you provided does not exist",
        );
    }
    if s3.refuses() {
        return slow_down();
    }
    if let Some(refused) = refused_signature(&s3.manners.lock().unwrap(), &query, &parts.headers, now) {
        return refused;
    }
    let mut content = to_bytes(body, usize::MAX).await.unwrap();
    if header("x-amz-content-sha256").starts_with("STREAMING-") {
        content = unchunk(&content);
    }
    let path = parts.uri.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let manners = s3.manners.lock().unwrap().clone();
    if bucket != "bucket" && !manners.buckets.iter().any(|made| made == bucket) {
        if manners.makes_buckets && parts.method == Method::PUT {
            s3.behave(|manners| manners.buckets.push(bucket.to_owned()));
            return reply(StatusCode::OK, "");
        }
        return error(StatusCode::NOT_FOUND, "NoSuchBucket", "The specified bucket does not exist");
    }
    let checked = ["content-md5", "x-amz-sdk-checksum-algorithm", "x-amz-trailer"];
    if parts.method == Method::PUT && manners.lock.is_some() && checked.iter().all(|h| header(h).is_empty()) {
        let message = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters";
        return error(StatusCode::BAD_REQUEST, "InvalidRequest", message);
    }
    if parts.method == Method::PUT
        && key.contains("/data/")
        && let Some(answer) = s3.treat(content.len()).await
    {
        return answer;
    }
    let mut objects = s3.objects.lock().unwrap();
    let mut versions = s3.versions.lock().unwrap();
    if key.is_empty() {
        return match parts.method {
            Method::HEAD => reply(StatusCode::OK, ""),
            Method::POST if query.contains_key("delete") => {
                versions::delete_many(&manners, &mut versions, &mut objects, &content)
            }
            Method::GET if query.contains_key("versions") => {
                versions::list(&manners, &versions, &objects, &query)
            }
            Method::GET if query.contains_key("object-lock") => versions::lock(&manners),
            Method::GET if query.contains_key("uploads") => versions::uploads(&manners),
            Method::GET if query.contains_key("location") => {
                let region = manners.region.unwrap_or_default();
                reply(StatusCode::OK, &format!("<LocationConstraint>{region}</LocationConstraint>"))
            }
            Method::GET if query.contains_key("list-type") => list(&objects, &query),
            _ => error(StatusCode::NOT_IMPLEMENTED, "NotImplemented", "bucket"),
        };
    }
    match parts.method {
        Method::PUT => {
            let id = versions::put(&manners, &mut versions, &mut objects, key, content);
            let full = s3.trouble.lock().unwrap().full;
            if let Some(full) = full.filter(|_| key.contains("/.probe-")) {
                // Some stores keep an empty object of what they said no to.
                return no_room(full);
            }
            let mut response = reply(StatusCode::OK, "");
            if let Some(id) = id {
                response.headers_mut().insert("x-amz-version-id", id.parse().unwrap());
            }
            response
        }
        Method::DELETE if query.contains_key("uploadId") => {
            let upload = (key.to_owned(), query["uploadId"].clone());
            s3.behave(|manners| manners.uploads.iter_mut().for_each(|all| all.retain(|one| *one != upload)));
            reply(StatusCode::NO_CONTENT, "")
        }
        Method::DELETE => {
            let id = query.get("versionId").map(String::as_str);
            match versions::delete(&manners, &mut versions, &mut objects, key, id) {
                Ok(_) => reply(StatusCode::NO_CONTENT, ""),
                Err(why) => error(StatusCode::FORBIDDEN, "AccessDenied", why),
            }
        }
        Method::HEAD if query.contains_key("versionId") => {
            versions::head(&manners, &versions, key, &query["versionId"])
        }
        Method::GET | Method::HEAD => match objects.get(key) {
            None => error(StatusCode::NOT_FOUND, "NoSuchKey", "The specified key does not exist."),
            Some(object) => {
                let head = parts.method == Method::HEAD;
                let response = send(object, header("range"), head);
                if !head && key.contains("/data/") {
                    s3.trouble.lock().unwrap().read +=
                        response.body().size_hint().exact().unwrap_or(0) as usize;
                }
                response
            }
        },
        _ => error(StatusCode::NOT_IMPLEMENTED, "NotImplemented", "object"),
    }
}

fn no_room(full: Full) -> Response {
    match full {
        Full::Minio => error(
            StatusCode::INSUFFICIENT_STORAGE,
            "XMinioStorageFull",
            "Storage backend has reached its minimum free drive threshold. Please delete a few objects to proceed.",
        ),
        // Without a message.
        Full::Ceph => reply(
            StatusCode::FORBIDDEN,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>QuotaExceeded</Code><BucketName>bucket</BucketName></Error>",
        ),
        Full::Swift => error(StatusCode::BAD_REQUEST, "EntityTooLarge", "Upload exceeds quota."),
    }
}

pub fn send(object: &Bytes, range: &str, head: bool) -> Response {
    let response =
        Response::builder().header("etag", "\"e\"").header("last-modified", "Sat, 01 Aug 2026 00:00:00 GMT");
    if head {
        return response.header("content-length", object.len()).body(Body::empty()).unwrap();
    }
    let Some((from, to)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return response.body(Body::from(object.clone())).unwrap();
    };
    let from: usize = from.parse().unwrap();
    if from >= object.len() {
        return error(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "InvalidRange",
            "The requested range is not satisfiable",
        );
    }
    let to = to.parse::<usize>().map_or(object.len(), |to| (to + 1).min(object.len()));
    let content_range = format!("bytes {from}-{}/{}", to - 1, object.len());
    let response = response.status(StatusCode::PARTIAL_CONTENT).header("content-range", content_range);
    response.body(Body::from(object.slice(from..to))).unwrap()
}

fn list(objects: &Objects, query: &HashMap<String, String>) -> Response {
    let of = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let (prefix, delimiter, after) = (of("prefix"), of("delimiter"), of("continuation-token"));
    let (mut contents, mut prefixes, mut next, mut count) = (String::new(), Vec::new(), None, 0);
    for (key, object) in objects.iter().filter(|(key, _)| key.starts_with(prefix) && key.as_str() > after) {
        if count == PAGE {
            next = Some(());
            break;
        }
        let inner = &key[prefix.len()..];
        if let Some((first, _)) = inner.split_once('/').filter(|_| delimiter == "/") {
            let common = format!("<CommonPrefixes><Prefix>{prefix}{first}/</Prefix></CommonPrefixes>");
            if !prefixes.contains(&common) {
                prefixes.push(common);
            }
            continue;
        }
        count += 1;
        let size = object.len();
        write!(
            contents,
            "<Contents><Key>{key}</Key><LastModified>2026-08-01T00:00:00.000Z</LastModified>\
            <ETag>\"e\"</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        )
        .unwrap();
    }
    let token = next.map(|()| {
        let last = contents.rsplit_once("<Key>").and_then(|(_, rest)| rest.split_once("</Key>")).unwrap().0;
        format!("<NextContinuationToken>{last}</NextContinuationToken>")
    });
    let truncated = token.is_some();
    let xml = format!(
        "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>bucket</Name><MaxKeys>{PAGE}</MaxKeys>\
        <IsTruncated>{truncated}</IsTruncated>{}{contents}{}</ListBucketResult>",
        token.unwrap_or_default(),
        prefixes.concat()
    );
    reply(StatusCode::OK, &xml)
}

/// Undoes the signed chunks that S3 clients use without TLS.
fn unchunk(mut rest: &[u8]) -> Bytes {
    let mut content = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").unwrap();
        let line = std::str::from_utf8(&rest[..end]).unwrap();
        let length = usize::from_str_radix(line.split(';').next().unwrap(), 16).unwrap();
        if length == 0 {
            return content.into();
        }
        content.extend_from_slice(&rest[end + 2..end + 2 + length]);
        rest = &rest[end + 4 + length..];
    }
}

fn slow_down() -> Response {
    error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown", "Please reduce your request rate.")
}

pub(super) fn reply(status: StatusCode, body: &str) -> Response {
    Response::builder().status(status).header("etag", "\"e\"").body(Body::from(body.to_owned())).unwrap()
}

pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response {
    reply(
        status,
        &format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"),
    )
}
