//! As much of Keystone and Swift as restic and our own client speak, in memory.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    response::Response,
};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::s3::send;

pub const ID: &str = "credential-id";
pub const SECRET: &str = "swift-secret-word";
/// Small, so that each of our own listings has pages; restic takes a page below its limit for the last one.
const PAGE: usize = 3;
/// After so many calls a token is good no more.
const CALLS: usize = 50;

#[derive(Clone)]
pub struct FakeSwift {
    pub url: String,
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
    calls: Arc<AtomicUsize>,
    /// Name, id and whether it is a marker of a deletion, of each version.
    past: Arc<Mutex<Vec<(String, String, bool)>>>,
    manners: Arc<Mutex<Manners>>,
}

/// What kind of cluster it is, where clusters differ.
#[derive(Clone)]
pub struct Manners {
    /// Over its quota.
    pub full: bool,
    /// As many names as a page may have.
    pub limit: usize,
    /// The containers that are there. Whoever asks may make one more.
    pub containers: Vec<String>,
    /// Whether the container keeps what is overwritten or deleted.
    pub versions: bool,
    /// The container that another one keeps them in.
    pub archive: Option<String>,
}

impl FakeSwift {
    /// With one container, `moves`.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let manners = Manners {
            full: false,
            limit: 1000,
            containers: vec!["moves".into()],
            versions: false,
            archive: None,
        };
        let manners = Arc::new(Mutex::new(manners));
        let swift =
            Self { url, objects: Arc::default(), calls: Arc::default(), past: Arc::default(), manners };
        let app = Router::new().fallback(answer).with_state(swift.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        swift
    }

    pub fn names(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }

    pub fn put(&self, name: &str, content: &str) {
        self.objects.lock().unwrap().insert(name.to_owned(), Bytes::from(content.to_owned()));
    }

    /// Changes what kind of cluster it is.
    pub fn behave(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.manners.lock().unwrap());
    }

    /// How many versions and markers are there.
    pub fn versions(&self) -> usize {
        self.past.lock().unwrap().len()
    }

    pub fn containers(&self) -> Vec<String> {
        self.manners.lock().unwrap().containers.clone()
    }

    /// A new version, or the marker of a deletion.
    fn add_version(&self, name: &str, marker: bool) -> String {
        let mut past = self.past.lock().unwrap();
        let id =
            format!("{:.5}", 1_700_000_000.0 + past.len() as f64 + f64::from(rand::random::<u16>()) / 1e5);
        past.push((name.to_owned(), id.clone(), marker));
        id
    }

    fn token(&self) -> String {
        format!("token-{}", self.calls.load(Ordering::SeqCst) / CALLS)
    }
}

fn log_in(swift: &FakeSwift, body: &[u8]) -> Response {
    let request: Value = serde_json::from_slice(body).unwrap();
    let identity = &request["auth"]["identity"];
    let credential = &identity["application_credential"];
    let user = &identity["password"]["user"];
    let known = (credential["id"] == ID && credential["secret"] == SECRET)
        || (user["name"] == ID && user["password"] == SECRET && user["domain"]["name"] == "Default");
    if !known {
        return reply(StatusCode::UNAUTHORIZED, "");
    }
    let endpoint = json!({"interface": "public", "region": "r", "url": format!("{}/v1/AUTH_x", swift.url)});
    let catalog = json!([{"type": "object-store", "name": "swift", "endpoints": [endpoint]}]);
    let token = json!({"token": {"catalog": catalog, "expires_at": "2099-01-01T00:00:00.000000Z"}});
    let response = Response::builder().status(StatusCode::CREATED).header("x-subject-token", swift.token());
    response.body(Body::from(token.to_string())).unwrap()
}

async fn answer(State(swift): State<FakeSwift>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let content = to_bytes(body, usize::MAX).await.unwrap();
    if parts.uri.path() == "/identity/v3/auth/tokens" {
        return log_in(&swift, &content);
    }
    if parts.uri.path().ends_with("/auth/tokens") {
        return reply(StatusCode::NOT_FOUND, "<html><h1>Not Found</h1></html>");
    }
    let header =
        |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if header("x-auth-token") != swift.token() {
        return reply(StatusCode::UNAUTHORIZED, "Unauthorized");
    }
    swift.calls.fetch_add(1, Ordering::SeqCst);
    let Some(path) = parts.uri.path().strip_prefix("/v1/AUTH_x/") else {
        return reply(StatusCode::NOT_FOUND, "");
    };
    let (container, key) = path.split_once('/').unwrap_or((path, ""));
    let manners = swift.manners.lock().unwrap().clone();
    if !manners.containers.iter().any(|there| there == container) {
        if parts.method == Method::PUT && key.is_empty() {
            swift.behave(|manners| manners.containers.push(container.to_owned()));
            return reply(StatusCode::CREATED, "");
        }
        return reply(StatusCode::NOT_FOUND, "<html><h1>Not Found</h1></html>");
    }
    let query: HashMap<String, String> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    if key.is_empty() {
        let mut response = match parts.method {
            Method::GET => swift.list(&manners, &query, header("user-agent").is_empty()),
            _ => reply(StatusCode::NO_CONTENT, ""),
        };
        for name in ["x-container-object-count", "x-container-bytes-used"] {
            response.headers_mut().insert(name, "0".parse().unwrap());
        }
        if let Some(archive) = &manners.archive {
            response.headers_mut().insert("x-history-location", archive.parse().unwrap());
        }
        return response;
    }
    let mut objects = swift.objects.lock().unwrap();
    match parts.method {
        // As its quotas say it.
        Method::PUT if manners.full => reply(StatusCode::PAYLOAD_TOO_LARGE, "Upload exceeds quota."),
        Method::PUT => {
            objects.insert(path.to_owned(), content);
            let mut response = Response::builder().status(StatusCode::CREATED).header("etag", header("etag"));
            if manners.versions {
                response = response.header("x-object-version-id", swift.add_version(path, false));
            }
            response.body(Body::empty()).unwrap()
        }
        Method::DELETE if query.contains_key("version-id") => {
            swift.delete_version(&mut objects, path, &query["version-id"])
        }
        Method::DELETE => match objects.remove(path) {
            Some(_) => {
                if manners.versions {
                    swift.add_version(path, true);
                }
                reply(StatusCode::NO_CONTENT, "")
            }
            None => reply(StatusCode::NOT_FOUND, ""),
        },
        _ => match objects.get(path) {
            Some(object) => send(object, header("range"), parts.method == Method::HEAD),
            None => reply(StatusCode::NOT_FOUND, ""),
        },
    }
}

impl FakeSwift {
    /// The newest of what is left becomes the object.
    fn delete_version(&self, objects: &mut BTreeMap<String, Bytes>, path: &str, id: &str) -> Response {
        let mut past = self.past.lock().unwrap();
        let before = past.len();
        past.retain(|(name, version, _)| name != path || version != id);
        if id == "null"
            || past.iter().rev().find(|(name, ..)| name == path).is_none_or(|(.., marker)| *marker)
        {
            objects.remove(path);
        }
        let gone = id == "null" || past.len() < before;
        reply(if gone { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }, "")
    }

    /// Pages for our own client are small, so that there are some; restic takes a page below its limit for the last.
    fn list(&self, manners: &Manners, query: &HashMap<String, String>, ours: bool) -> Response {
        let of = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
        if of("limit").parse().is_ok_and(|limit: usize| limit > manners.limit) {
            let message = format!("Maximum limit is {}", manners.limit);
            return reply(StatusCode::PRECONDITION_FAILED, &message);
        }
        let objects = self.objects.lock().unwrap();
        let past = self.past.lock().unwrap();
        // Name, version, marker; by name, the newest version first.
        let mut rows: Vec<(String, String, bool)> =
            objects.keys().map(|name| (name.clone(), "null".to_owned(), false)).collect();
        if query.contains_key("versions") {
            rows.retain(|(name, ..)| !past.iter().any(|(other, ..)| other == name));
            rows.extend(past.iter().rev().cloned());
            rows.sort_by(|one, other| one.0.cmp(&other.0));
        }
        let marker = (of("marker"), of("version_marker"));
        let name_of =
            |row: &(String, String, bool)| row.0.strip_prefix("moves/").unwrap_or_default().to_owned();
        let begin = match marker {
            ("", _) => 0,
            (name, "") => rows.iter().position(|row| name_of(row).as_str() > name).unwrap_or(rows.len()),
            (name, id) => {
                rows.iter().position(|row| name_of(row) == name && row.1 == id).map_or(0, |at| at + 1)
            }
        };
        let limit = if ours { PAGE } else { usize::MAX };
        let page = rows[begin..].iter().filter(|row| name_of(row).starts_with(of("prefix"))).take(limit);
        let page: Vec<_> = page
            .map(|row| {
                let bytes = objects.get(&row.0).map_or(0, Bytes::len);
                let mut entry = json!({"name": name_of(row), "bytes": bytes, "hash": "e",
                    "last_modified": "2026-08-01T00:00:00.000000", "content_type": "application/octet-stream"});
                if query.contains_key("versions") {
                    entry["version_id"] = json!(row.1);
                    entry["is_latest"] = json!(false);
                }
                entry
            })
            .collect();
        let mut response = reply(StatusCode::OK, &json!(page).to_string());
        response.headers_mut().insert("content-type", "application/json".parse().unwrap());
        response
    }
}

fn reply(status: StatusCode, body: &str) -> Response {
    Response::builder().status(status).body(Body::from(body.to_owned())).unwrap()
}
