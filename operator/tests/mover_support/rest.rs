//! As much of rest-server as restic and our own client speak, in memory.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    response::Response,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Method, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::s3::send;

pub const USER: &str = "store-user";
pub const PASSWORD: &str = "rest-pass-word";
/// rest-server's own limit.
const FOLDERS: usize = 2;

#[derive(Clone)]
pub struct FakeRest {
    pub address: SocketAddr,
    pub url: String,
    objects: Arc<Mutex<BTreeMap<String, Bytes>>>,
    full: Arc<AtomicBool>,
}

impl FakeRest {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let rest =
            Self { address, url: format!("http://{address}"), objects: Arc::default(), full: Arc::default() };
        let app = Router::new().fallback(answer).with_state(rest.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        rest
    }

    pub fn names(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }

    pub fn put(&self, name: &str, content: &str) {
        self.objects.lock().unwrap().insert(name.to_owned(), Bytes::from(content.to_owned()));
    }

    /// Its disk, or its quota, is full; or not any more.
    pub fn fill_up(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    pub fn remove(&self, name: &str) {
        self.objects.lock().unwrap().remove(name);
    }
}

/// The path of a repository, and what is asked of it: nothing else is served.
fn split(path: &str) -> Option<(Vec<&str>, &str, &str)> {
    let mut parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let name = parts.pop()?;
    if name == "config" || (name.is_empty() && !parts.last().is_some_and(|kind| is_kind(kind))) {
        return Some((parts, name, ""));
    }
    let kind = parts.pop().filter(|kind| is_kind(kind))?;
    let hex = name.len() == 64 && name.bytes().all(|c| c.is_ascii_hexdigit());
    (name.is_empty() || hex).then_some((parts, kind, name))
}

fn is_kind(text: &str) -> bool {
    ["data", "index", "keys", "locks", "snapshots"].contains(&text)
}

async fn answer(State(rest): State<FakeRest>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let header =
        |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if header("authorization") != format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}"))) {
        return reply(StatusCode::UNAUTHORIZED, "Unauthorized\n");
    }
    let content = to_bytes(body, usize::MAX).await.unwrap();
    let path = parts.uri.path();
    let Some((folders, kind, name)) = split(path).filter(|(folders, ..)| folders.len() <= FOLDERS) else {
        return reply(StatusCode::NOT_FOUND, "Not Found\n");
    };
    let mut objects = rest.objects.lock().unwrap();
    if kind.is_empty() {
        let created = parts.method == Method::POST && parts.uri.query() == Some("create=true");
        return reply(if created { StatusCode::OK } else { StatusCode::METHOD_NOT_ALLOWED }, "");
    }
    if kind != "config" && name.is_empty() {
        let prefix =
            format!("/{}", folders.iter().chain([&kind]).map(|part| format!("{part}/")).collect::<String>());
        let names =
            objects.iter().filter_map(|(key, object)| Some((key.strip_prefix(&prefix)?, object.len())));
        let list: Vec<_> = names.map(|(name, size)| json!({"name": name, "size": size})).collect();
        let list = if list.is_empty() { "null".to_owned() } else { json!(list).to_string() };
        let mut response = reply(StatusCode::OK, &list);
        response.headers_mut().insert("content-type", "application/vnd.x.restic.rest.v2".parse().unwrap());
        return response;
    }
    match parts.method {
        Method::POST if objects.contains_key(path) => reply(StatusCode::FORBIDDEN, "Forbidden\n"),
        Method::POST if kind != "config" && hex::encode(Sha256::digest(&content)) != name => {
            reply(StatusCode::BAD_REQUEST, "Bad Request\n")
        }
        Method::POST if rest.full.load(Ordering::SeqCst) => {
            reply(StatusCode::INSUFFICIENT_STORAGE, "Insufficient Storage\n")
        }
        Method::POST => {
            objects.insert(path.to_owned(), content);
            reply(StatusCode::OK, "")
        }
        Method::DELETE => match objects.remove(path) {
            Some(_) => reply(StatusCode::OK, ""),
            None => reply(StatusCode::NOT_FOUND, "Not Found\n"),
        },
        _ => match objects.get(path) {
            Some(object) => send(object, header("range"), parts.method == Method::HEAD),
            None => reply(StatusCode::NOT_FOUND, "Not Found\n"),
        },
    }
}

fn reply(status: StatusCode, body: &str) -> Response {
    Response::builder().status(status).body(Body::from(body.to_owned())).unwrap()
}
