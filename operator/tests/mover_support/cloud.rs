//! Keystone and Glance, as much as the mover calls, with ways to misbehave.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    response::Response,
};
use futures::{StreamExt, stream};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha512};

pub const PROJECT: &str = "11111111111111111111111111111111";
pub const TOKEN: &str = "gAAAA-token-of-the-test";

/// How a download or an upload goes wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mischief {
    #[default]
    None,
    /// Nothing behind the middle arrives, and no length was announced.
    EndsEarly,
    /// Announces the length, then breaks the connection in the middle.
    Breaks,
    /// Breaks the connection after each half MiB.
    BreaksOften,
    /// Sends the whole image whatever range was asked for.
    IgnoresRanges,
    /// The store behind the image service cannot do ranges.
    RefusesRanges,
    /// One byte is another.
    FlipsAByte,
    /// Sends half, then nothing.
    Stalls,
    /// Refuses the upload in the middle.
    RefusesUpload,
    /// Keeps other bytes than were sent.
    StoresOther,
    /// Refuses the content of every upload, after its last byte, as Glance of 2025.1 and later does.
    RefusesContent,
    /// As Ceph does behind Glance: no ranges; and each connection breaks, 2 MiB later than the one before.
    BreaksWithoutRanges,
}

#[derive(Clone, Default)]
pub struct Image {
    pub status: String,
    pub content: Bytes,
    pub hash: Option<String>,
}

#[derive(Default)]
struct Inner {
    images: HashMap<String, Image>,
    mischief: Mischief,
    /// How many downloads of a whole image were begun.
    downloads: usize,
    /// How many uploads were begun.
    uploads: usize,
}

#[derive(Clone)]
pub struct FakeCloud {
    pub url: String,
    inner: Arc<Mutex<Inner>>,
}

impl FakeCloud {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let cloud = Self { url, inner: Arc::default() };
        let app = Router::new().fallback(answer).with_state(cloud.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        cloud
    }

    pub fn add_active(&self, id: &str, content: Vec<u8>) {
        let hash = Some(hex::encode(Sha512::digest(&content)));
        self.set(id, Image { status: "active".into(), content: content.into(), hash });
    }

    pub fn add_queued(&self, id: &str) {
        self.set(id, Image { status: "queued".into(), ..Image::default() });
    }

    pub fn set(&self, id: &str, image: Image) {
        self.inner.lock().unwrap().images.insert(id.to_owned(), image);
    }

    pub fn image(&self, id: &str) -> Image {
        self.inner.lock().unwrap().images.get(id).cloned().unwrap()
    }

    /// How many uploads were begun.
    pub fn uploads(&self) -> usize {
        self.inner.lock().unwrap().uploads
    }

    pub fn misbehave(&self, mischief: Mischief) {
        self.inner.lock().unwrap().mischief = mischief;
    }
}

async fn answer(State(cloud): State<FakeCloud>, request: Request) -> Response {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    if path == "/v3/auth/tokens" && request.method() == Method::POST {
        let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
        return token(&cloud.url, &String::from_utf8_lossy(&body));
    }
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (request.method().clone(), parts.as_slice()) {
        (Method::GET, [service @ ("compute" | "volume" | "image" | "network"), ..]) if parts.len() < 3 => {
            versions(&cloud.url, service)
        }
        (Method::GET, ["image", "v2", "images", id]) => record(&cloud, id),
        (Method::GET, ["image", "v2", "images", id, "file"]) => {
            let range =
                request.headers().get("range").and_then(|range| range.to_str().ok()).map(str::to_owned);
            download(&cloud, id, range.as_deref())
        }
        (Method::PUT, ["image", "v2", "images", id, "file"]) => {
            let accept = request.headers().get("accept").and_then(|accept| accept.to_str().ok());
            let json = accept.is_some_and(|accept| accept.contains("application/json"));
            upload(&cloud, id, json, request.into_body()).await
        }
        _ => no_image(),
    }
}

fn token(url: &str, body: &str) -> Response {
    if !body.contains(super::CLOUD_PASSWORD) {
        let error =
            json!({"error": {"code": 401, "message": "The request you have made requires authentication."}});
        return reply(StatusCode::UNAUTHORIZED, &error);
    }
    let service = |kind: &str, path: &str| {
        json!({"type": kind, "name": kind, "id": kind, "endpoints": [{"id": kind, "interface": "public",
            "region": "r", "region_id": "r", "url": format!("{url}/{path}")}]})
    };
    let catalog = [
        service("compute", "compute/v2.1"),
        service("block-storage", "volume/v3"),
        service("image", "image"),
        service("network", "network"),
    ];
    let domain = json!({"id": "default", "name": "Default"});
    let token = json!({"token": {"methods": ["password"], "expires_at": "2099-01-01T00:00:00.000000Z",
        "issued_at": "2026-08-01T00:00:00.000000Z", "audit_ids": ["a"], "catalog": catalog, "roles": [{"id": "m", "name": "member"}],
        "user": {"id": "u", "name": "u", "domain": domain, "password_expires_at": null},
        "project": {"id": PROJECT, "name": "p", "domain": domain}}});
    let mut response = reply(StatusCode::CREATED, &token);
    response.headers_mut().insert("x-subject-token", TOKEN.parse().unwrap());
    response
}

fn versions(url: &str, service: &str) -> Response {
    let (id, path) = match service {
        "compute" => ("v2.1", "compute/v2.1/"),
        "volume" => ("v3.0", "volume/v3/"),
        "image" => ("v2.16", "image/v2/"),
        _ => ("v2.0", "network/v2.0/"),
    };
    let links = [json!({"rel": "self", "href": format!("{url}/{path}")})];
    reply(
        StatusCode::OK,
        &json!({"versions": [{"id": id, "status": "CURRENT", "links": links, "version": "", "min_version": ""}]}),
    )
}

fn record(cloud: &FakeCloud, id: &str) -> Response {
    let inner = cloud.inner.lock().unwrap();
    let Some(image) = inner.images.get(id) else { return no_image() };
    let size = (image.status == "active").then_some(image.content.len());
    let algorithm = image.hash.as_ref().map(|_| "sha512");
    let record = json!({"id": id, "name": "n", "status": image.status, "size": size, "os_hash_algo": algorithm,
        "os_hash_value": image.hash, "disk_format": "raw", "container_format": "bare"});
    reply(StatusCode::OK, &record)
}

fn download(cloud: &FakeCloud, id: &str, range: Option<&str>) -> Response {
    let mut inner = cloud.inner.lock().unwrap();
    inner.downloads += usize::from(range.is_none());
    let downloads = inner.downloads;
    let Some(image) = inner.images.get(id) else { return no_image() };
    let (mut content, mischief) = (image.content.clone(), inner.mischief);
    if mischief == Mischief::FlipsAByte {
        let mut bytes = content.to_vec();
        bytes[content.len() / 3] ^= 1;
        content = bytes.into();
    }
    let (mut from, mut to) = (0, content.len());
    let mut response = Response::builder().header("content-type", "application/octet-stream");
    if let Some(range) = range.filter(|_| mischief != Mischief::IgnoresRanges) {
        if matches!(mischief, Mischief::RefusesRanges | Mischief::BreaksWithoutRanges) {
            let why = "Getting images randomly from this store is not supported. Offset: 0, length: 1";
            return refusal(StatusCode::BAD_REQUEST, why, false);
        }
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        (from, to) = (first.parse().unwrap(), last.parse::<usize>().unwrap() + 1);
        let content_range = format!("bytes {from}-{}/{}", to - 1, content.len());
        response = response.status(StatusCode::PARTIAL_CONTENT).header("content-range", content_range);
    }
    let first_half = content.slice(from..to.min(content.len() / 2).max(from));
    match mischief {
        Mischief::EndsEarly => {
            let body = stream::iter([Ok::<_, Infallible>(first_half)]);
            response.body(Body::from_stream(body)).unwrap()
        }
        Mischief::Breaks | Mischief::BreaksOften | Mischief::BreaksWithoutRanges => {
            let sent = match mischief {
                Mischief::BreaksWithoutRanges => content.slice(..to.min(downloads * (2 << 20))),
                Mischief::BreaksOften => content.slice(from..to.min(from + (512 << 10))),
                _ => first_half,
            };
            let cut = (sent.len() < to - from).then(|| Err(std::io::Error::other("cut")));
            let body = stream::iter([Ok(sent)].into_iter().chain(cut));
            response.header("content-length", to - from).body(Body::from_stream(body)).unwrap()
        }
        Mischief::Stalls if first_half.len() < to - from => {
            let wait = stream::once(async {
                tokio::time::sleep(Duration::from_secs(600)).await;
                Ok::<_, Infallible>(Bytes::new())
            });
            let body = stream::iter([Ok(first_half)]).chain(wait);
            response.header("content-length", to - from).body(Body::from_stream(body)).unwrap()
        }
        _ => response.header("content-length", to - from).body(Body::from(content.slice(from..to))).unwrap(),
    }
}

async fn upload(cloud: &FakeCloud, id: &str, json: bool, body: Body) -> Response {
    let mischief = {
        let mut inner = cloud.inner.lock().unwrap();
        inner.uploads += 1;
        let mischief = inner.mischief;
        match inner.images.get_mut(id) {
            // Its content was refused before.
            Some(image) if image.status == "queued" && image.hash.is_some() => {
                let why =
                    "The server has either erred or is incapable of performing the requested operation.";
                return refusal(StatusCode::INTERNAL_SERVER_ERROR, why, json);
            }
            Some(image) if image.status == "queued" => image.status = "saving".into(),
            _ => return reply(StatusCode::CONFLICT, &json!({})),
        }
        mischief
    };
    let mut content = Vec::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let Ok(chunk) = chunk else {
            cloud.set(id, Image { status: "killed".into(), ..Image::default() });
            return reply(StatusCode::BAD_REQUEST, &json!({}));
        };
        content.extend_from_slice(&chunk);
        if mischief == Mischief::RefusesUpload && content.len() > 1 << 20 {
            cloud.set(id, Image { status: "queued".into(), ..Image::default() });
            return reply(StatusCode::PAYLOAD_TOO_LARGE, &json!({"message": "quota for images is used up"}));
        }
    }
    if mischief == Mischief::RefusesContent {
        let hash = Some(hex::encode(Sha512::digest(&content)));
        cloud.set(id, Image { status: "queued".into(), hash, ..Image::default() });
        let why = "The request media type application/octet-stream is not supported by this server.<br /><br />\nImage failed \
                   safety checks\n\n";
        return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, why, json);
    }
    if mischief == Mischief::StoresOther {
        content[0] ^= 1;
    }
    cloud.add_active(id, content);
    reply(StatusCode::NO_CONTENT, &Value::Null)
}

/// As Glance refuses: a page of WebOb's, and JSON to whoever asks for it.
fn refusal(status: StatusCode, why: &str, json: bool) -> Response {
    if json {
        let title = status.canonical_reason();
        return reply(status, &json!({"message": why, "code": status.to_string(), "title": title}));
    }
    let page = format!(
        "<html>\n <head>\n  <title>{status}</title>\n </head>\n <body>\n  <h1>{status}</h1>\n  {why}\n\n\n </body>\n</html>"
    );
    let response = Response::builder().status(status).header("content-type", "text/html; charset=UTF-8");
    response.body(Body::from(page)).unwrap()
}

/// As Glance says it to whoever asks for JSON.
fn no_image() -> Response {
    let body =
        json!({"message": "No image found with this ID", "code": "404 Not Found", "title": "Not Found"});
    reply(StatusCode::NOT_FOUND, &body)
}

fn reply(status: StatusCode, body: &Value) -> Response {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Body::from(body))
        .unwrap()
}
