//! A loopback server that plays Keystone, Nova, Cinder, Glance and Neutron, and sessions with it.
#![allow(dead_code, reason = "each test uses a part of it")]

#[path = "../common/tls.rs"]
pub mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Value, json};
use vmmigration::{
    controller::context::Settings,
    migration::{decide::Limits, names::Identity},
    net::EndpointPolicy,
    openstack::{Cloud, CloudError, Credentials, Timeouts},
};

pub const PROJECT: &str = "0123456789abcdef0123456789abcdef";
pub const SECRET: &str = "s3cr3t-of-the-credential";

/// A request that reached the server.
#[derive(Clone, Debug)]
pub struct Seen {
    pub line: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Seen {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

pub type Answer = Arc<dyn Fn(&Seen) -> Response + Send + Sync>;

/// The fake cloud: rules by request line ("GET /path?query"), everything else is 404.
pub struct Fake {
    pub address: SocketAddr,
    pub rules: Mutex<BTreeMap<String, Answer>>,
    pub log: Mutex<Vec<Seen>>,
    /// Number of tokens issued; only the last one is good.
    pub tokens: AtomicUsize,
    pub catalog: Mutex<Value>,
    /// What Keystone answers instead of tokens.
    pub identity: Mutex<Option<fn() -> Response>>,
}

pub fn answer(status: u16, body: Value) -> Response {
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .header("x-openstack-request-id", "req-8f")
        .body(body)
        .unwrap()
}

impl Fake {
    pub async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            rules: Mutex::default(),
            log: Mutex::default(),
            tokens: AtomicUsize::new(0),
            catalog: Mutex::default(),
            identity: Mutex::default(),
        });
        fake.service("compute", "/compute/v2.1");
        fake.service("volumev3", &format!("/volume/v3/{PROJECT}"));
        fake.service("image", "/image");
        fake.service("network", "/network");
        fake.discovery();
        let router = Router::new().fallback(serve).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        fake
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn service(&self, kind: &str, path: &str) {
        let url = if path.starts_with('/') { self.url(path) } else { path.to_string() };
        let mut catalog = self.catalog.lock().unwrap();
        if !catalog.is_object() {
            *catalog = json!({});
        }
        catalog[kind] = json!([
            {"id": "1", "interface": "internal", "region": "R", "url": "http://192.0.2.1/internal"},
            {"id": "2", "interface": "public", "region": "R", "url": url},
        ]);
    }

    pub fn discovery(&self) {
        let version = |id: &str, path: &str, min: &str, max: &str| {
            json!({"id": id, "status": "CURRENT", "version": max, "min_version": min,
                   "links": [{"rel": "self", "href": self.url(path)}]})
        };
        self.on(
            "GET /compute/v2.1/",
            200,
            json!({"version": version("v2.1", "/compute/v2.1/", "2.1", "2.93")}),
        );
        self.on("GET /volume/v3/", 200, json!({"versions": [version("v3.0", "/volume/v3/", "3.0", "3.70")]}));
        let image = |id: &str| json!({"id": id, "status": "SUPPORTED", "links": [{"rel": "self", "href": self.url("/image/v2/")}]});
        self.on("GET /image/", 300, json!({"versions": [image("v2.16"), image("v2.15"), image("v2.0")]}));
        let network = json!({"id": "v2.0", "status": "CURRENT", "links": [{"rel": "self", "href": self.url("/network/v2.0/")}]});
        self.on("GET /network/", 200, json!({"versions": [network]}));
    }

    pub fn on(&self, line: &str, status: u16, body: Value) {
        self.with(line, move |_| answer(status, body.clone()));
    }

    pub fn with(&self, line: &str, f: impl Fn(&Seen) -> Response + Send + Sync + 'static) {
        self.rules.lock().unwrap().insert(line.to_string(), Arc::new(f));
    }

    /// Makes the token in use invalid.
    pub fn expire(&self) {
        self.tokens.fetch_add(1, Ordering::SeqCst);
    }

    pub fn seen(&self, prefix: &str) -> Vec<Seen> {
        self.log.lock().unwrap().iter().filter(|s| s.line.starts_with(prefix)).cloned().collect()
    }

    pub fn last(&self, prefix: &str) -> Seen {
        self.seen(prefix).pop().unwrap_or_else(|| panic!("no {prefix} among {:?}", self.log.lock().unwrap()))
    }

    pub fn authenticate(&self, seen: &Seen) -> Response {
        let identity = &seen.json()["auth"]["identity"];
        let good =
            [identity.pointer("/application_credential/secret"), identity.pointer("/password/user/password")];
        if !good.contains(&Some(&json!(SECRET))) {
            return answer(
                401,
                json!({"error": {"code": 401, "title": "Unauthorized",
                "message": "The request you have made requires authentication."}}),
            );
        }
        let number = self.tokens.fetch_add(1, Ordering::SeqCst) + 1;
        let catalog: Vec<Value> = self
            .catalog
            .lock()
            .unwrap()
            .as_object()
            .unwrap()
            .iter()
            .map(|(kind, endpoints)| json!({"type": kind, "name": kind, "endpoints": endpoints}))
            .collect();
        let token = json!({"token": {
            "expires_at": "2099-01-01T00:00:00.000000Z", "catalog": catalog,
            "project": {"id": PROJECT, "name": "p", "domain": {"id": "default", "name": "Default"}},
            "user": {"id": "u1", "name": "u", "domain": {"id": "default", "name": "Default"}},
        }});
        let mut response = answer(201, token);
        response.headers_mut().insert("x-subject-token", format!("token-{number}").parse().unwrap());
        response
    }
}

pub async fn serve(State(fake): State<Arc<Fake>>, request: Request) -> Response {
    let line = format!("{} {}", request.method(), request.uri());
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let seen = Seen { line: line.clone(), headers: parts.headers, body };
    fake.log.lock().unwrap().push(seen.clone());
    if line == "POST /identity/v3/auth/tokens" {
        if let Some(instead) = *fake.identity.lock().unwrap() {
            return instead();
        }
        return fake.authenticate(&seen);
    }
    if seen.header("x-auth-token") != format!("token-{}", fake.tokens.load(Ordering::SeqCst)) {
        return answer(
            401,
            json!({"error": {"code": 401, "message": "The request you have made requires authentication."}}),
        );
    }
    let rule = fake.rules.lock().unwrap().get(&line).cloned();
    match rule {
        Some(rule) => rule(&seen),
        None => answer(404, json!({"itemNotFound": {"code": 404, "message": "not here"}})),
    }
}

pub fn by_credential(fake: &Fake, secret: &str) -> Credentials {
    let yaml = json!({"clouds": {"a": {"auth_type": "application_credential", "region_name": "R", "auth": {
        "auth_url": fake.url("/identity"), "application_credential_id": "ac", "application_credential_secret": secret}}}});
    Credentials::parse(yaml.to_string().as_bytes(), None, None).unwrap()
}

pub fn by_password(fake: &Fake) -> Credentials {
    let yaml = json!({"clouds": {"a": {"auth": {
        "auth_url": fake.url("/identity/v3"), "username": "u", "password": SECRET, "user_domain_name": "Default",
        "project_name": "p", "project_domain_name": "Default"}}}});
    Credentials::parse(yaml.to_string().as_bytes(), None, None).unwrap()
}

pub fn loopback() -> EndpointPolicy {
    EndpointPolicy { allow_loopback: true, denied: vec![] }
}

pub async fn connect_with(credentials: &Credentials) -> Result<Cloud, CloudError> {
    let timeouts = Timeouts { control: Duration::from_secs(2), data: Duration::from_secs(20) };
    Cloud::connect(credentials, &loopback(), "site-a", timeouts).await
}

pub async fn connected() -> (Arc<Fake>, Cloud) {
    let fake = Fake::start().await;
    let cloud = connect_with(&by_credential(&fake, SECRET)).await.unwrap();
    (fake, cloud)
}

/// A migration.
pub fn me() -> Identity {
    Identity {
        uid: "11111111-2222-4333-8444-555555555555".into(),
        namespace: "team".into(),
        name: "web-1".into(),
    }
}

/// A platform that has decided nothing.
pub fn settings() -> Settings {
    Settings {
        namespace: "system".into(),
        movers_namespace: "movers".into(),
        own_cluster: None,
        image: Default::default(),
        hook_images: vec![],
        denied: vec![],
        concurrency: 1,
        limits: Limits::default(),
    }
}
