//! What `docs/clouds.md` says of `clouds.yaml`, row by row; and clouds as people have met them: catalogs, version
//! documents, certificates, limits.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod openstack_support;

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use openstack_support::{
    Fake, PROJECT, SECRET, answer, by_credential, by_password, connect_with, connected, loopback,
    tls::{Tls, behind_tls},
};
use serde_json::{Map, Value, json};
use vmmigration::controller::clouds::CloudCache;
use vmmigration::openstack::{CloudError, Credentials, ErrorKind};

fn page() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/clouds.md");
    std::fs::read_to_string(path).unwrap()
}

/// What the rows below a heading have in their first column.
fn rows(page: &str, heading: &str) -> Vec<(String, String)> {
    let part = page.split(&format!("### {heading}\n")).nth(1).unwrap();
    let part = part.split("\n#").next().unwrap();
    let rows = part.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    rows.map(|(written, says)| (written.into(), says.trim_end_matches(" |").into())).collect()
}

/// The page's first entry with these keys more.
fn entry_with(page: &str, written: &str) -> Value {
    let yaml = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let file: Value = serde_saphyr::from_str(yaml).unwrap();
    let mut entry = file["clouds"]["by-password"].as_object().unwrap().clone();
    let more: Value = serde_saphyr::from_str(written).unwrap();
    merge(&mut entry, more.as_object().unwrap());
    entry.into()
}

fn merge(all: &mut Map<String, Value>, more: &Map<String, Value>) {
    for (key, value) in more {
        // Two regions are a case of their own.
        if key.contains("region") && !more.contains_key("region_name") {
            all.remove("region_name");
        }
        match (all.get_mut(key), value) {
            (Some(Value::Object(all)), Value::Object(more)) => merge(all, more),
            _ => drop(all.insert(key.clone(), value.clone())),
        }
    }
}

fn parse(entry: &Value) -> Result<Credentials, String> {
    let yaml = json!({"clouds": {"a": entry}}).to_string();
    Credentials::parse(yaml.as_bytes(), None, None).map_err(|e| e.to_string())
}

/// The innermost key of what is written.
fn key(written: &str) -> String {
    let more: Value = serde_saphyr::from_str(written).unwrap();
    let (key, value) = more.as_object().unwrap().iter().next_back().unwrap();
    value.as_object().and_then(|inner| inner.keys().next()).unwrap_or(key).clone()
}

#[test]
fn the_page_says_what_is_accepted_and_what_is_refused() {
    let page = page();
    let (accepted, refused) = (rows(&page, "Accepted"), rows(&page, "Refused"));
    assert!(accepted.len() >= 20 && refused.len() >= 25, "{} and {}", accepted.len(), refused.len());
    for (written, _) in accepted {
        parse(&entry_with(&page, &written)).unwrap_or_else(|why| panic!("{written}: {why}"));
    }
    for (written, says) in refused {
        let why =
            parse(&entry_with(&page, &written)).err().unwrap_or_else(|| panic!("{written} is accepted"));
        assert!(why.contains(&key(&written)), "{written}: {why}");
        assert!(!says.is_empty(), "{written}: what is to be written?");
    }
}

#[test]
fn endpoint_type_means_interface() {
    for (keys, expected) in [
        (json!({"endpoint_type": "internal"}), json!("internal")),
        (json!({"interface": "internalURL"}), json!("internal")),
        (json!({"interface": "publicURL"}), json!("public")),
        (json!({"interface": ["internal", "public"]}), json!(["internal", "public"])),
        (json!({"region_name": ""}), Value::Null),
    ] {
        let read = parse(&entry_with(&page(), &keys.to_string())).unwrap();
        let kept: Value = serde_saphyr::from_str(&read.to_single_clouds_yaml()).unwrap();
        let kept = &kept["clouds"]["a"];
        assert_eq!(kept.get("interface").cloned().unwrap_or_default(), expected, "{keys}");
        assert!(kept.get("endpoint_type").is_none());
    }
    let named = parse(&entry_with(&page(), "region_name: ''")).unwrap();
    assert_eq!(named.region(), None);
}

#[tokio::test]
async fn regions_in_another_order() {
    let fake = Fake::start().await;
    let order = [
        ("compute", ["UK1", "GRA5"]),
        ("volumev3", ["GRA5", "UK1"]),
        ("image", ["UK1", "GRA5"]),
        ("network", ["GRA5", "UK1"]),
    ];
    for (service, regions) in order {
        let endpoint = |region: &str| json!({"id": region, "interface": "public", "region": region, "url": "http://192.0.2.1/"});
        fake.catalog.lock().unwrap()[service] = regions.map(endpoint).into_iter().collect();
    }
    let error = connect_with(&by_password(&fake)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Ambiguous);
    assert!(
        error.message.contains("region_name is needed") && error.message.contains("GRA5, UK1"),
        "{error}"
    );
    assert!(fake.seen("GET").is_empty(), "nothing is asked before");
}

/// A cloud whose compute service has this address in the catalog, and answers a list of servers there.
async fn nova_at(path: &str) -> Arc<Fake> {
    let fake = Fake::start().await;
    fake.rules.lock().unwrap().retain(|line, _| !line.contains("/compute/"));
    fake.service("compute", path);
    let path = path.trim_end_matches('/');
    fake.with(&format!("GET {path}/servers/detail"), |_| {
        let mut list = answer(200, json!({"servers": []}));
        list.headers_mut().insert("openstack-api-version", "compute 2.73".parse().unwrap());
        list
    });
    fake
}

fn web_page() -> Response {
    let page = "<!doctype html><title>Dashboard</title>";
    Response::builder().status(200).header("content-type", "text/html").body(Body::from(page)).unwrap()
}

#[tokio::test]
async fn a_version_document_that_is_a_web_page() {
    let catalog = format!("/nova/v2.1/{PROJECT}/");
    let fake = nova_at(&catalog).await;
    let missing = json!({"itemNotFound": {"code": 404, "message": "The resource could not be found."}});
    fake.on(&format!("GET {catalog}"), 404, missing);
    for page in ["GET /nova/v2.1/", "GET /nova/", "GET /"] {
        fake.with(page, |_| web_page());
    }
    let cloud = connect_with(&by_credential(&fake, SECRET)).await.unwrap();
    assert_eq!(cloud.list_servers().await.unwrap().len(), 0);
    let asked = fake.last(&format!("GET {catalog}servers/detail"));
    assert_eq!(asked.header("openstack-api-version"), "compute 2.73");
    assert_eq!(cloud.versions()[0].microversion, None);
    // The service says it when it does not have it.
    let message = "Version 2.73 is not supported by the API. Minimum is 2.1 and maximum is 2.60.";
    fake.on(
        &format!("GET {catalog}servers/detail"),
        406,
        json!({"computeFault": {"code": 406, "message": message}}),
    );
    let error = cloud.list_servers().await.unwrap_err();
    assert!(error.message.contains("maximum is 2.60") && !error.is_transient(), "{error}");
}

#[tokio::test]
async fn a_gateway_at_the_address_of_the_version_document() {
    // A 404 of a gateway may pass where an object is asked for; where nobody said that there is a document it is none.
    let fake = nova_at("/compute/v2.1").await;
    for line in ["GET /compute/v2.1/", "GET /compute/", "GET /"] {
        fake.with(line, |_| {
            Response::builder().status(404).body(Body::from("default backend - 404")).unwrap()
        });
    }
    let cloud = connect_with(&by_credential(&fake, SECRET)).await.unwrap();
    cloud.list_servers().await.unwrap();
    // One that does not work may work later.
    fake.with("GET /compute/v2.1/", |_| Response::builder().status(502).body(Body::empty()).unwrap());
    assert!(connect_with(&by_credential(&fake, SECRET)).await.unwrap_err().is_transient());
}

#[tokio::test]
async fn a_version_document_with_an_inner_port() {
    let variants: [fn(String) -> String; 5] = [
        |_| "http://nova-api.inner.example:8774/compute/v2.1/".into(),
        |host| format!("http://{host}:8774/compute/v2.1/"),
        |host| format!("http://{host}/compute/v2.1/"),
        |_| "https://nova-api.inner.example/v2.1/".into(),
        |_| "".into(),
    ];
    for variant in variants {
        let fake = nova_at("/compute/v2.1").await;
        let href = variant(fake.address.ip().to_string());
        let version = json!({"id": "v2.1", "status": "CURRENT", "version": "2.93", "min_version": "2.1",
            "links": [{"rel": "self", "href": href}]});
        fake.on("GET /compute/v2.1/", 200, json!({"version": version}));
        let cloud = connect_with(&by_credential(&fake, SECRET)).await.unwrap();
        cloud.list_servers().await.unwrap_or_else(|e| panic!("{href}: {e}"));
        assert_eq!(cloud.versions()[0].microversion.as_deref(), Some("2.93"), "{href}");
    }
    // A catalog that names no version: the link gives its name, and neither port nor prefix.
    for href in ["http://glance-api.inner.example:9292/v2/", "http://glance-api.inner.example:9292/inner/v2/"]
    {
        let fake = Fake::start().await;
        let v2 = json!({"id": "v2.9", "status": "CURRENT", "links": [{"rel": "self", "href": href}]});
        fake.on("GET /image/", 300, json!({"versions": [v2]}));
        fake.on("GET /image/v2/images/i", 200, json!({"id": "i", "status": "active"}));
        let cloud = connect_with(&by_credential(&fake, SECRET)).await.unwrap();
        assert!(cloud.get_image("i").await.unwrap().is_some(), "{href}");
    }
}

#[tokio::test]
async fn an_api_that_is_not_found_names_the_way_out() {
    let fake = Fake::start().await;
    fake.with("GET /image/", |_| web_page());
    let error = connect_with(&by_credential(&fake, SECRET)).await.unwrap_err();
    assert!(error.message.contains("image_endpoint_override"), "{error}");
    let yaml = json!({"clouds": {"a": {"region_name": "R", "image_endpoint_override": fake.url("/image/v2"), "auth": {
        "auth_url": fake.url("/identity"), "application_credential_id": "ac", "application_credential_secret": SECRET}}}});
    let credentials = Credentials::parse(yaml.to_string().as_bytes(), None, None).unwrap();
    fake.on("GET /image/v2/images/i", 200, json!({"id": "i", "status": "active"}));
    assert!(connect_with(&credentials).await.unwrap().get_image("i").await.unwrap().is_some());
}

#[tokio::test]
async fn an_address_that_replaces_the_catalogs_may_leave_out_the_project_or_its_id() {
    for path in ["/other/v3", "/other/v3/%(project_id)s", "/other/v3/$(tenant_id)s/"] {
        let fake = Fake::start().await;
        let keys = json!({"region_name": "R", "volume_endpoint_override": fake.url(path), "auth": {
            "auth_url": fake.url("/identity"), "application_credential_id": "ac",
            "application_credential_secret": SECRET}});
        fake.on(
            &format!("GET /other/v3/{PROJECT}/volumes/v"),
            200,
            json!({"volume": {"id": "v", "status": "available"}}),
        );
        let cloud = connect_with(&parse(&keys).unwrap()).await.unwrap();
        assert!(cloud.get_volume("v").await.unwrap().is_some(), "{path}");
    }
}

#[tokio::test]
async fn an_old_nova_and_a_cloud_without_cinder_are_told() {
    // The API before microversions, which ignores the header that asks for one.
    let fake = nova_at(&format!("/compute/v2/{PROJECT}")).await;
    let v2 = json!({"id": "v2.0", "status": "SUPPORTED", "version": "", "min_version": "", "links": []});
    fake.on("GET /compute/v2/", 200, json!({"version": v2}));
    let cloud = connect_with(&by_credential(&fake, SECRET)).await.unwrap();
    let error = cloud.list_servers().await.unwrap_err();
    assert!(error.message.contains("2.73") && error.message.contains("has 2.0"), "{error}");
    assert!(fake.seen("GET /compute/v2/0123456789abcdef0123456789abcdef/servers").is_empty());

    let fake = Fake::start().await;
    fake.catalog.lock().unwrap().as_object_mut().unwrap().remove("volumev3");
    let error = connect_with(&by_credential(&fake, SECRET)).await.unwrap_err().to_string();
    assert!(
        error.contains("no block storage (Cinder)") && error.contains("every migration needs"),
        "{error}"
    );
    // A region or an interface that was mistyped is another thing.
    let fake = Fake::start().await;
    let with = |keys: Value| {
        let mut entry = json!({"auth": {"auth_url": fake.url("/identity"), "application_credential_id": "ac",
            "application_credential_secret": SECRET}});
        entry.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        parse(&entry).unwrap()
    };
    let error = connect_with(&with(json!({"region_name": "r"}))).await.unwrap_err().to_string();
    assert!(error.contains("in region r ") && error.contains("there it is in region R"), "{error}");
    let error = connect_with(&with(json!({"interface": "admin"}))).await.unwrap_err().to_string();
    assert!(
        error.contains("interface admin") && error.contains("there it is with interface public"),
        "{error}"
    );
}

#[tokio::test]
async fn a_limit_of_requests_passes_and_a_quota_does_not() {
    let (fake, cloud) = connected().await;
    let line = format!("POST /volume/v3/{PROJECT}/volumes");
    let limited = json!({"overLimit": {"code": 413, "message": "This request was rate-limited.",
        "details": "Only 10 POST request(s) can be made to * every minute."}});
    let quota = json!({"overLimit": {"code": 413, "message": "VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded"}});
    for (after, body, kind) in [
        (Some("30"), limited.clone(), ErrorKind::Transient),
        (None, limited, ErrorKind::Transient),
        (Some("30"), Value::Null, ErrorKind::Transient),
        (Some("Wed, 21 Oct 2026 07:28:00 GMT"), Value::Null, ErrorKind::Transient),
        (Some("0"), quota.clone(), ErrorKind::Quota),
        (Some("30"), quota, ErrorKind::Quota),
        (None, Value::Null, ErrorKind::TooLarge),
    ] {
        let told = format!("{after:?} {body}");
        fake.with(&line, move |_| {
            let mut limit = answer(413, body.clone());
            if let Some(after) = after {
                limit.headers_mut().insert("retry-after", after.parse().unwrap());
            }
            limit
        });
        assert_eq!(cloud.create_volume(&json!({"volume": {}})).await.unwrap_err().kind, kind, "{told}");
    }
}

#[tokio::test]
async fn every_request_asks_for_json_and_a_reason_is_shown() {
    let (fake, cloud) = connected().await;
    fake.on("GET /image/v2/images/i", 200, json!({"id": "i", "status": "queued"}));
    let reason = json!({"code": "415 Unsupported Media Type", "title": "Unsupported Media Type",
        "message": "The request media type application/octet-stream is not supported by this server.<br /><br />\nImage failed safety checks\n\n"});
    // As webob does it: a web page unless JSON is asked for.
    fake.with("PUT /image/v2/images/i/file", move |seen| {
        if seen.header("accept").starts_with("application/json") {
            answer(415, reason.clone())
        } else {
            web_page()
        }
    });
    let bytes = futures::stream::iter([Ok(bytes::Bytes::from_static(b"LUKS"))]);
    let error = cloud.upload_image("i", bytes).await.unwrap_err();
    assert_eq!(error.status, Some(415));
    assert!(error.message.ends_with("Image failed safety checks"), "{error}");
    let _ = cloud.download_image("i").await;
    let _ = cloud.delete_image("i").await;
    for seen in fake.seen("") {
        assert!(seen.header("accept").starts_with("application/json"), "{}: {:?}", seen.line, seen.headers);
    }
    assert!(!fake.seen("POST /identity").is_empty());
}

/// Connects by this front, with the certificate of another, or of the same, as CA.
async fn connect_by(front: &Tls, ca: Option<&Tls>) -> Result<(), CloudError> {
    let url = format!("{}/identity", front.address);
    let yaml = json!({"clouds": {"a": {"region_name": "R", "auth": {"auth_url": url, "application_credential_id": "ac",
        "application_credential_secret": SECRET}}}});
    let ca = ca.map(|ca| ca.certificate.as_bytes());
    let credentials = Credentials::parse(yaml.to_string().as_bytes(), None, ca).unwrap();
    connect_with(&credentials).await.map(drop)
}

#[tokio::test]
async fn a_self_signed_certificate_is_its_own_ca() {
    let fake = Fake::start().await;
    let here = "-addext subjectAltName=IP:127.0.0.1";
    // OpenSSL's default may sign others.
    let signing = behind_tls(fake.address, here).await;
    connect_by(&signing, Some(&signing)).await.unwrap();
    let leaf = behind_tls(fake.address, &format!("{here} -addext basicConstraints=critical,CA:FALSE")).await;
    connect_by(&leaf, Some(&leaf)).await.unwrap();
    for (front, ca, told) in [
        (&signing, None, "the CA is missing or wrong"),
        (&signing, Some(&leaf), "the CA is missing or wrong"),
        (&leaf, Some(&signing), "the CA is missing or wrong"),
    ] {
        let error = connect_by(front, ca).await.unwrap_err();
        assert!(error.kind == ErrorKind::Unreachable && error.message.contains(told), "{error}");
    }
    // It counts for its own names only.
    let elsewhere = behind_tls(fake.address, "-addext subjectAltName=DNS:elsewhere.example").await;
    let error = connect_by(&elsewhere, Some(&elsewhere)).await.unwrap_err();
    assert!(error.message.contains("is not for this name"), "{error}");
}

#[tokio::test]
async fn a_refused_login_is_not_tried_again_before_the_secret_changes() {
    let fake = Fake::start().await;
    let clouds = CloudCache::default();
    let attempts = || fake.seen("POST /identity").len();
    let wrong = by_credential(&fake, "wrong");
    for name in ["site-a", "site-a", "the-same-cloud-of-another-team"] {
        let error = clouds.session(&wrong, &loopback(), name).await.unwrap_err();
        assert_eq!((error.kind, error.cloud.as_str()), (ErrorKind::Unauthorized, name));
        assert!(
            error.message.contains("tried again after 2 minutes, at once when the Secret changes"),
            "{error}"
        );
        clouds.forget(&wrong, name).await;
    }
    assert_eq!(attempts(), 1);
    clouds.session(&by_credential(&fake, SECRET), &loopback(), "site-a").await.unwrap();
    assert_eq!(attempts(), 2);
    // Many at once are one.
    let other = by_credential(&fake, "wrong, too");
    let policy = loopback();
    let many = futures::future::join_all((0..8).map(|_| clouds.session(&other, &policy, "site-a"))).await;
    assert!(many.iter().all(|one| one.as_ref().is_err_and(|e| e.kind == ErrorKind::Unauthorized)));
    assert_eq!(attempts(), 3);
}

#[tokio::test]
async fn a_session_whose_login_is_refused_asks_once() {
    let (fake, cloud) = connected().await;
    fake.expire();
    *fake.identity.lock().unwrap() = Some(|| {
        answer(
            401,
            json!({"error": {"code": 401, "title": "Unauthorized", "message": "The account is locked."}}),
        )
    });
    for _ in 0..5 {
        let error = cloud.get_volume("v").await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unauthorized);
        assert!(error.message.contains("The account is locked."), "{error}");
    }
    assert_eq!(fake.seen("POST /identity").len(), 2, "one to begin with, one that was refused");
}
