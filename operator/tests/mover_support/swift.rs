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
}

impl FakeSwift {
    /// With one container, `moves`.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let swift = Self { url, objects: Arc::default(), calls: Arc::default() };
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
    if container != "moves" {
        return reply(StatusCode::NOT_FOUND, "<html><h1>Not Found</h1></html>");
    }
    let mut objects = swift.objects.lock().unwrap();
    if key.is_empty() {
        let query: HashMap<String, String> =
            url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        return match parts.method {
            Method::GET => {
                let limit = if header("user-agent").is_empty() { PAGE } else { usize::MAX };
                list(&objects, &query, limit)
            }
            _ => Response::builder()
                .status(StatusCode::NO_CONTENT)
                .header("x-container-object-count", "0")
                .header("x-container-bytes-used", "0")
                .body(Body::empty())
                .unwrap(),
        };
    }
    match parts.method {
        Method::PUT => {
            objects.insert(path.to_owned(), content);
            let response = Response::builder().status(StatusCode::CREATED).header("etag", header("etag"));
            response.body(Body::empty()).unwrap()
        }
        Method::DELETE => match objects.remove(path) {
            Some(_) => reply(StatusCode::NO_CONTENT, ""),
            None => reply(StatusCode::NOT_FOUND, ""),
        },
        _ => match objects.get(path) {
            Some(object) => send(object, header("range"), parts.method == Method::HEAD),
            None => reply(StatusCode::NOT_FOUND, ""),
        },
    }
}

fn list(objects: &BTreeMap<String, Bytes>, query: &HashMap<String, String>, limit: usize) -> Response {
    let of = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let names = objects.iter().filter_map(|(key, object)| Some((key.strip_prefix("moves/")?, object.len())));
    let page = names.filter(|(name, _)| name.starts_with(of("prefix")) && *name > of("marker")).take(limit);
    let page: Vec<_> = page
        .map(|(name, bytes)| {
            json!({"name": name, "bytes": bytes, "hash": "e", "last_modified": "2026-08-01T00:00:00.000000",
                   "content_type": "application/octet-stream"})
        })
        .collect();
    let mut response = reply(StatusCode::OK, &json!(page).to_string());
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}

fn reply(status: StatusCode, body: &str) -> Response {
    Response::builder().status(status).body(Body::from(body.to_owned())).unwrap()
}
