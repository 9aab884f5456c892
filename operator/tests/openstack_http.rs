//! The OpenStack adapter against a loopback server that plays Keystone, Nova, Cinder, Glance and Neutron.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod openstack_support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::StatusCode;
use openstack_support::{
    Fake, PROJECT, SECRET, Seen, answer, by_credential, by_password, connect_with, connected,
};
use serde_json::{Value, json};
use vmmigration::{
    net::EndpointPolicy,
    openstack::{Cloud, CloudError, Credentials, ErrorKind, Quota, Timeouts},
};

#[tokio::test]
async fn connects_with_both_methods() {
    let fake = Fake::start().await;
    for credentials in [by_credential(&fake, SECRET), by_password(&fake)] {
        let cloud = connect_with(&credentials).await.unwrap();
        assert_eq!((cloud.name(), cloud.project_id().as_str()), ("site-a", PROJECT));
        let versions = cloud.versions();
        let found: Vec<(&str, Option<&str>)> =
            versions.iter().map(|v| (v.service.as_str(), v.microversion.as_deref())).collect();
        assert_eq!(found[..2], [("compute", Some("2.93")), ("block-storage", Some("3.70"))]);
        assert_eq!((versions[2].version.as_str(), versions.len()), ("2.16", 4));
        assert!(!format!("{cloud:?}").contains("token"));
    }
    let password = fake.last("POST /identity").json();
    assert_eq!(password["auth"]["scope"]["project"]["name"], "p");
    let credential = fake.seen("POST /identity")[0].json();
    assert_eq!(credential["auth"]["identity"]["methods"], json!(["application_credential"]));
    assert!(credential["auth"].get("scope").is_none());
}

#[tokio::test]
async fn application_credentials_by_name() {
    let fake = Fake::start().await;
    let yaml = json!({"clouds": {"a": {"auth_type": "v3applicationcredential", "auth": {
        "auth_url": fake.url("/identity"), "application_credential_name": "mover", "username": "u",
        "user_domain_name": "Default", "application_credential_secret": SECRET}}}});
    let credentials = Credentials::parse(yaml.to_string().as_bytes(), None, None).unwrap();
    connect_with(&credentials).await.unwrap();
    let sent = fake.last("POST /identity").json();
    assert_eq!(sent["auth"]["identity"]["application_credential"]["name"], "mover");
}

#[tokio::test]
async fn a_wrong_secret_is_unauthorized_and_not_repeated() {
    let fake = Fake::start().await;
    let error = connect_with(&by_credential(&fake, "wrong-s3cr3t")).await.unwrap_err();
    assert_eq!((error.kind, error.status), (ErrorKind::Unauthorized, Some(401)));
    assert_eq!(
        error.to_string(),
        "site-a: authenticate failed: 401 The request you have made requires authentication."
    );
    assert!(!format!("{error:?}").contains("wrong-s3cr3t"));
    assert_eq!(fake.seen("POST /identity").len(), 1);
}

#[tokio::test]
async fn a_missing_service_or_version_is_named() {
    let fake = Fake::start().await;
    fake.catalog.lock().unwrap().as_object_mut().unwrap().remove("volumev3");
    let error = connect_with(&by_credential(&fake, SECRET)).await.unwrap_err().to_string();
    assert!(error.contains("block-storage") && error.contains("region R"), "{error}");

    // Another service answers at the root: it must not be taken for the network service.
    let fake = Fake::start().await;
    fake.service("network", "/nothing/here");
    let volume =
        json!({"id": "v3.0", "status": "CURRENT", "links": [{"rel": "self", "href": fake.url("/v3/")}]});
    fake.on("GET /", 200, json!({"versions": [volume]}));
    let error = connect_with(&by_credential(&fake, SECRET)).await.unwrap_err().to_string();
    assert!(error.contains("network") && error.contains("version 2"), "{error}");
}

/// A cloud with two regions, listed in another order for each service: in `other` there is nothing that answers.
async fn two_regions() -> std::sync::Arc<Fake> {
    let fake = Fake::start().await;
    let mut catalog = fake.catalog.lock().unwrap();
    for (n, endpoints) in catalog.as_object_mut().unwrap().values_mut().enumerate() {
        let endpoints = endpoints.as_array_mut().unwrap();
        for interface in ["public", "internal"] {
            let url = "http://192.0.2.1/other";
            let other = json!({"id": "3", "interface": interface, "region": "GRA5", "url": url});
            endpoints.insert(n % 2 * endpoints.len(), other);
        }
    }
    drop(catalog);
    fake
}

/// Credentials with these keys in the entry.
fn with_keys(fake: &Fake, keys: Value) -> Credentials {
    let auth = json!({"auth_url": fake.url("/identity"), "username": "u", "password": SECRET, "project_name": "p",
        "user_domain_name": "Default", "project_domain_name": "Default"});
    let mut entry = json!({"auth": auth});
    entry.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    Credentials::parse(json!({"clouds": {"a": entry}}).to_string().as_bytes(), None, None).unwrap()
}

#[tokio::test]
async fn a_region_is_needed_where_there_are_two() {
    let fake = two_regions().await;
    for none in [json!({}), json!({"region_name": ""})] {
        let error = connect_with(&with_keys(&fake, none)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Ambiguous);
        assert!(
            error.message.contains("region_name is needed") && error.message.contains("GRA5, R"),
            "{error}"
        );
    }
    assert!(fake.seen("GET").is_empty(), "no service is asked before");
    for chosen in [json!({"region_name": "R"}), json!({"regions": ["R", "GRA5"]})] {
        let cloud = connect_with(&with_keys(&fake, chosen)).await.unwrap();
        assert_eq!((cloud.region(), cloud.versions().len()), (Some("R"), 4));
    }
    let recorded = with_keys(&fake, json!({})).in_region("R");
    assert_eq!(connect_with(&recorded).await.unwrap().region(), Some("R"));

    // A region of services that are not needed does not count, and one region needs no name.
    let fake = Fake::start().await;
    let store = json!([{"id": "1", "interface": "public", "region": "GRA5", "url": "http://192.0.2.1/"}]);
    fake.catalog.lock().unwrap()["object-store"] = store;
    assert_eq!(connect_with(&by_password(&fake)).await.unwrap().region(), Some("R"));
}

#[tokio::test]
async fn the_interface_that_is_asked_for_is_used() {
    for (keys, interfaces) in [
        (json!({"endpoint_type": "internal"}), &["internal"][..]),
        (json!({"interface": "internalURL"}), &["internal"]),
        (json!({"interface": ["admin", "internal"]}), &["internal"]),
        (json!({"interface": "publicURL"}), &["public"]),
        (json!({"interface": ["admin", "public"]}), &["public"]),
    ] {
        let fake = Fake::start().await;
        // What is not asked for leads nowhere.
        for endpoints in fake.catalog.lock().unwrap().as_object_mut().unwrap().values_mut() {
            let url = endpoints[1]["url"].clone();
            for endpoint in endpoints.as_array_mut().unwrap() {
                let wanted = interfaces.contains(&endpoint["interface"].as_str().unwrap());
                endpoint["url"] = if wanted { url.clone() } else { json!("http://192.0.2.1/") };
            }
        }
        connect_with(&with_keys(&fake, keys.clone())).await.unwrap_or_else(|e| panic!("{keys}: {e}"));
    }
    let fake = Fake::start().await;
    let error = connect_with(&with_keys(&fake, json!({"interface": "admin"}))).await.unwrap_err();
    assert!(error.message.contains("interface admin"), "{error}");
}

#[tokio::test]
async fn a_cloud_is_known_by_its_own_address_of_the_identity_service() {
    let fake = Fake::start().await;
    let used = fake.url("/identity/v3/");
    assert_eq!(connect_with(&by_password(&fake)).await.unwrap().identities(), std::slice::from_ref(&used));
    let endpoint = |interface: &str, region: &str, url: &str| json!({"id": "1", "interface": interface, "region": region, "url": url});
    fake.catalog.lock().unwrap()["identity"] = json!([
        endpoint("internal", "R", "http://10.0.0.1:5000"),
        endpoint("public", "Q", "https://q.example/v3"),
        endpoint("public", "R", "https://r.example:443/identity/v3/"),
    ]);
    let known = connect_with(&by_credential(&fake, SECRET)).await.unwrap();
    let identities =
        ["https://r.example/identity/v3/", "https://q.example/v3/", "http://10.0.0.1:5000/v3/", &used];
    assert_eq!(known.identities(), identities);
}

#[tokio::test]
async fn an_unreachable_cloud_says_why() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_address = silent.local_addr().unwrap();
    let cases = [
        (format!("http://{gone}"), "cannot connect"),
        (format!("http://{silent_address}"), "no answer in time"),
        ("http://no-such-host.invalid".to_string(), "cannot be resolved"),
    ];
    for (url, expected) in cases {
        let yaml = json!({"clouds": {"a": {"auth": {"auth_url": url, "application_credential_id": "x",
            "application_credential_secret": SECRET}}}});
        let credentials = Credentials::parse(yaml.to_string().as_bytes(), None, None).unwrap();
        let error = connect_with(&credentials).await.unwrap_err();
        assert!(error.kind == ErrorKind::Unreachable && error.is_transient(), "{error:?}");
        assert!(error.message.contains(expected), "{error}");
        assert!(!error.to_string().contains("http://"), "{error}");
    }
}

#[tokio::test]
async fn the_endpoint_policy_holds_for_auth_url_catalog_and_names() {
    let fake = Fake::start().await;
    let strict = EndpointPolicy::default();
    let refused = async |fake: &Fake, policy: &EndpointPolicy| {
        Cloud::connect(&by_credential(fake, SECRET), policy, "site-a", Timeouts::default()).await.unwrap_err()
    };
    let error = refused(&fake, &strict).await;
    assert_eq!(error.kind, ErrorKind::Refused);
    assert!(error.message.contains("loopback"), "{error}");
    assert!(fake.seen("").is_empty());

    for (url, expected) in [
        ("http://169.254.169.254/latest", "link-local"),
        ("http://[::ffff:169.254.169.254]/", "link-local"),
        ("http://192.0.2.77/", "the platform refuses"),
    ] {
        let fake = Fake::start().await;
        fake.service("image", url);
        let policy = EndpointPolicy { allow_loopback: true, denied: vec!["192.0.2.0/24".parse().unwrap()] };
        let error = refused(&fake, &policy).await;
        assert_eq!(error.kind, ErrorKind::Refused);
        assert!(error.message.contains(expected), "{error}");
    }

    // A name that resolves to loopback is refused when it is connected to.
    let yaml = json!({"clouds": {"a": {"auth": {"auth_url": format!("http://localhost:{}/", fake.address.port()),
        "application_credential_id": "x", "application_credential_secret": SECRET}}}});
    let credentials = Credentials::parse(yaml.to_string().as_bytes(), None, None).unwrap();
    let error = Cloud::connect(&credentials, &strict, "site-a", Timeouts::default()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (fake, cloud) = connected().await;
    let trap = Fake::start().await;
    let target = trap.url("/latest/meta-data");
    fake.with("GET /volume/v3/".to_string().as_str(), |_| answer(200, json!({})));
    let to = target.clone();
    fake.with(&format!("GET /volume/v3/{PROJECT}/volumes/v1"), move |_| {
        Response::builder().status(302).header("location", &to).body(Body::empty()).unwrap()
    });
    let error = cloud.get_volume("v1").await.unwrap_err();
    assert!(error.message.contains("redirect"), "{error}");
    let to = target.clone();
    fake.with("GET /image/v2/images/i1/file", move |_| {
        Response::builder().status(307).header("location", &to).body(Body::empty()).unwrap()
    });
    let error = cloud.download_image("i1").await.unwrap_err();
    assert!(error.message.contains("redirect") && !error.to_string().contains("meta-data"), "{error}");
    assert!(trap.seen("").is_empty());
}

#[tokio::test]
async fn an_identity_service_that_redirects_gets_no_credentials_sent_on() {
    let trap = Fake::start().await;
    let to = trap.url("/identity/v3/auth/tokens");
    let redirecting = Router::new().fallback(move || async move {
        Response::builder().status(307).header("location", to).body(Body::empty()).unwrap()
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, redirecting).await.unwrap() });
    let yaml = json!({"clouds": {"a": {"auth": {"auth_url": format!("http://{address}"),
        "application_credential_id": "x", "application_credential_secret": SECRET}}}});
    let credentials = Credentials::parse(yaml.to_string().as_bytes(), None, None).unwrap();
    let error = connect_with(&credentials).await.unwrap_err();
    assert!(error.message.contains("redirect"), "{error}");
    assert!(trap.seen("").is_empty());
}

#[tokio::test]
async fn every_class_of_error_carries_its_request_id() {
    let (fake, cloud) = connected().await;
    let line = format!("POST /volume/v3/{PROJECT}/volumes");
    let cases = [
        (400, json!({"badRequest": {"message": "Invalid input"}}), ErrorKind::Invalid),
        (403, json!({"forbidden": {"message": "Policy doesn't allow it"}}), ErrorKind::Forbidden),
        (404, json!({"itemNotFound": {"message": "no such type"}}), ErrorKind::NotFound),
        (409, json!({"conflictingRequest": {"message": "busy"}}), ErrorKind::Conflict),
        (
            413,
            json!({"overLimit": {"message": "VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded"}}),
            ErrorKind::Quota,
        ),
        (429, Value::Null, ErrorKind::Transient),
        (500, json!({"computeFault": {"message": "Unexpected API Error."}}), ErrorKind::Transient),
        (503, Value::Null, ErrorKind::Transient),
    ];
    for (status, body, kind) in cases {
        fake.on(&line, status, body);
        let error = cloud.create_volume(&json!({"volume": {}})).await.unwrap_err();
        assert_eq!((error.kind, error.status), (kind, Some(status)), "{error}");
        assert_eq!(error.request_id.as_deref(), Some("req-8f"));
        assert!(error.to_string().starts_with(&format!("site-a: create volume failed: {status}")), "{error}");
        assert!(!error.to_string().contains("127.0.0.1"), "{error}");
    }
    fake.on(&line, 202, json!({"surprise": 1}));
    let error = cloud.create_volume(&json!({"volume": {}})).await.unwrap_err();
    assert_eq!((error.kind, error.status), (ErrorKind::Unexpected, Some(202)));
    fake.with(&line, |_| {
        Response::builder().status(502).body(Body::from("<html>token-1 secret</html>")).unwrap()
    });
    let error = cloud.create_volume(&json!({"volume": {}})).await.unwrap_err();
    assert_eq!(error.to_string(), "site-a: create volume failed: 502 Bad Gateway");
}

#[tokio::test]
async fn actions_with_empty_answers_give_the_request_id() {
    let (fake, cloud) = connected().await;
    fake.on("POST /compute/v2.1/servers/s1/action", 202, Value::Null);
    let action = || fake.last("POST /compute/v2.1/servers/s1/action");
    assert_eq!(cloud.stop_server("s1").await.unwrap(), "req-8f");
    assert_eq!(
        (action().json(), action().header("openstack-api-version").to_string()),
        (json!({"os-stop": null}), "compute 2.1".into())
    );
    cloud.start_server("s1").await.unwrap();
    assert_eq!(action().json(), json!({"os-start": null}));
    cloud.lock_server("s1", "moved by x").await.unwrap();
    assert_eq!(action().json(), json!({"lock": {"locked_reason": "moved by x"}}));
    assert_eq!(action().header("openstack-api-version"), "compute 2.73");
    cloud.unlock_server("s1").await.unwrap();
    assert_eq!(action().json(), json!({"unlock": null}));
    fake.on("POST /compute/v2.1/servers/s1/action", 202, json!({"image_id": "i9"}));
    let metadata = BTreeMap::from([("vmmigration.io:role".to_string(), "root".to_string())]);
    let made = cloud.create_server_image("s1", "vmm-x-root-0", &metadata).await.unwrap();
    assert_eq!(made, ("i9".to_string(), "req-8f".to_string()));
    assert_eq!(action().json()["createImage"]["metadata"]["vmmigration.io:role"], "root");
    assert_eq!(action().header("openstack-api-version"), "compute 2.45");
    fake.on("POST /compute/v2.1/servers/s1/action", 200, json!({"output": "login:"}));
    assert_eq!(cloud.console_output("s1", 50).await.unwrap(), "login:");
}

/// What answers is whatever a tenant's Secret names: it must not fill the operator's memory.
#[tokio::test]
async fn answers_and_lists_have_a_bound() {
    let fake = Fake::start().await;
    let timeouts = Timeouts { control: Duration::from_secs(120), data: Duration::from_secs(20) };
    let credentials = by_credential(&fake, SECRET);
    let policy = EndpointPolicy { allow_loopback: true, denied: vec![] };
    let cloud = Cloud::connect(&credentials, &policy, "site-a", timeouts).await.unwrap();
    let servers = "GET /compute/v2.1/servers/detail";
    for status in [200, 500] {
        fake.with("GET /compute/v2.1/servers/x", move |_| {
            let flood = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1 << 20])));
            Response::builder().status(status).body(Body::from_stream(flood)).unwrap()
        });
        let error = cloud.get_server("x").await.unwrap_err();
        assert!(
            error.kind == ErrorKind::Unexpected && error.message.contains("longer than 32 MiB"),
            "{error}"
        );
    }
    // Each page is in bounds, and there is always another one.
    let endless = move |line: &str| {
        let marker = line.split("marker=").nth(1).unwrap_or("0").parse::<u64>().unwrap() + 1;
        let server = json!({"id": marker.to_string(), "name": "s", "status": "ACTIVE", "padding": "x".repeat(1 << 20)});
        answer(200, json!({"servers": [server], "servers_links": [{"rel": "next", "href": "x"}]}))
    };
    fake.with(servers, move |seen| endless(&seen.line));
    for marker in 1..140 {
        fake.with(&format!("{servers}?marker={marker}"), move |seen| endless(&seen.line));
    }
    let error = cloud.list_servers().await.unwrap_err();
    assert!(error.message.contains("does not end"), "{error}");
    assert!(fake.seen(servers).len() < 135, "more than 128 MiB were read");
}

#[tokio::test]
async fn lists_are_followed_to_the_end() {
    let (fake, cloud) = connected().await;
    let page = |ids: &[&str]| ids.iter().map(|id| json!({"id": id, "name": id})).collect::<Vec<_>>();
    let next = json!([{"rel": "next", "href": "http://elsewhere.invalid/?marker=b"}]);
    let volumes = format!("GET /volume/v3/{PROJECT}/volumes/detail");
    fake.on(&volumes, 200, json!({"volumes": page(&["a", "b"]), "volumes_links": next}));
    fake.on(&format!("{volumes}?marker=b"), 200, json!({"volumes": page(&["c"])}));
    let found: Vec<String> = cloud.list_volumes().await.unwrap().into_iter().map(|v| v.id).collect();
    assert_eq!(found, ["a", "b", "c"]);

    let images = format!("GET /image/v2/images?owner={PROJECT}&limit=1000");
    fake.on(&images, 200, json!({"images": page(&["a"]), "next": "/v2/images?marker=a"}));
    fake.on(&format!("{images}&marker=a"), 200, json!({"images": page(&["b"])}));
    assert_eq!(cloud.list_images().await.unwrap().len(), 2);

    let pair = |name: &str| json!({"keypair": {"name": name}});
    fake.on("GET /compute/v2.1/os-keypairs", 200, json!({"keypairs": [pair("k 1")], "keypairs_links": next}));
    fake.on("GET /compute/v2.1/os-keypairs?marker=k+1", 200, json!({"keypairs": [pair("k2")]}));
    assert_eq!(cloud.list_keypairs().await.unwrap(), ["k 1", "k2"]);

    let types = format!("GET /volume/v3/{PROJECT}/types");
    fake.on(&types, 200, json!({"volume_types": page(&["t1"]), "volume_type_links": next}));
    fake.on(
        &format!("{types}?marker=t1"),
        200,
        json!({"volume_types": page(&["t1"]), "volume_type_links": next}),
    );
    // A service that gives the same page for ever does not hang us.
    assert_eq!(cloud.list_volume_types().await.unwrap().len(), 2);
}

#[tokio::test]
async fn servers_by_id_or_exact_name() {
    let (fake, cloud) = connected().await;
    let id = "8d1a1d4c-0a3c-4b07-9f53-1f3f4c0c8d7e";
    let servers = json!([{"id": id, "name": "web", "metadata": {}}, {"id": "2", "name": "web", "metadata": {}},
            {"id": "3", "name": "web-2", "metadata": {}}]);
    fake.on("GET /compute/v2.1/servers/detail", 200, json!({"servers": servers}));
    fake.on(&format!("GET /compute/v2.1/servers/{id}"), 200, json!({"server": servers[0]}));
    assert_eq!(cloud.find_servers("web").await.unwrap().len(), 2);
    assert_eq!(cloud.find_servers("we").await.unwrap().len(), 0);
    assert_eq!(cloud.find_servers(id).await.unwrap()[0].name, "web");
    assert_eq!(fake.last("GET /compute/v2.1/servers").header("openstack-api-version"), "compute 2.90");
    assert_eq!(cloud.get_server("nope").await.unwrap(), None);
    assert_eq!(cloud.get_server("../flavors").await.unwrap(), None);
    assert_eq!(fake.last("GET /compute").line, "GET /compute/v2.1/servers/..%2Fflavors");
}

#[tokio::test]
async fn a_microversion_the_cloud_lacks_is_not_sent() {
    let fake = Fake::start().await;
    let old = json!({"version": {"id": "v2.1", "status": "CURRENT", "version": "2.60", "min_version": "2.1",
        "links": [{"rel": "self", "href": fake.url("/compute/v2.1/")}]}});
    fake.on("GET /compute/v2.1/", 200, old);
    let cloud = connect_with(&by_credential(&fake, SECRET)).await.unwrap();
    let error = cloud.list_servers().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unexpected);
    assert!(error.message.contains("2.73") && error.message.contains("2.60"), "{error}");
    assert!(fake.seen("GET /compute/v2.1/servers").is_empty());
}

#[tokio::test]
async fn deleting_what_is_gone_is_done() {
    let (fake, cloud) = connected().await;
    cloud.delete_server("x").await.unwrap();
    cloud.delete_server_metadata_key("x", "k").await.unwrap();
    cloud.delete_volume("x").await.unwrap();
    cloud.delete_snapshot("x").await.unwrap();
    cloud.delete_image("x").await.unwrap();
    cloud.delete_port("x").await.unwrap();
    assert_eq!(fake.seen("DELETE").len(), 6);
    fake.on("DELETE /compute/v2.1/servers/x", 409, json!({"conflictingRequest": {"message": "locked"}}));
    assert_eq!(cloud.delete_server("x").await.unwrap_err().kind, ErrorKind::Conflict);
}

#[tokio::test]
async fn a_get_whose_connection_breaks_is_sent_once_more() {
    let (fake, cloud) = connected().await;
    let breaks = |line: &str, times: usize| {
        let left = AtomicUsize::new(times);
        fake.with(line, move |_| {
            if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
                // Ends the task that serves the connection, as a proxy does that has lost its service.
                std::panic::resume_unwind(Box::new(()));
            }
            answer(200, json!({"ports": []}))
        });
    };
    breaks("GET /network/v2.0/ports", 1);
    cloud.list_ports().await.unwrap();
    assert_eq!(fake.seen("GET /network/v2.0/ports").len(), 2);
    breaks("GET /network/v2.0/ports", 9);
    let error = cloud.list_ports().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert_eq!(fake.seen("GET /network/v2.0/ports").len(), 4, "retries have a bound");
    // Nobody knows whether this one was carried out.
    breaks("DELETE /network/v2.0/ports/x", 1);
    cloud.delete_port("x").await.unwrap_err();
    assert_eq!(fake.seen("DELETE").len(), 1);
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_for_everybody_and_addresses_stay() {
    let (fake, cloud) = connected().await;
    fake.on("GET /network/v2.0/ports", 200, json!({"ports": []}));
    fake.on("GET /image/v2/images/i1", 200, json!({"id": "i1"}));
    fake.expire();
    let calls = (0..8).map(|_| cloud.list_ports());
    for result in futures::future::join_all(calls).await {
        result.unwrap();
    }
    assert_eq!(fake.seen("POST /identity").len(), 2);
    // Versioned addresses survive the renewal.
    assert_eq!(cloud.get_image("i1").await.unwrap().unwrap().id, "i1");
    // A second 401 in a row is final: a missing access rule must not loop.
    fake.on("GET /network/v2.0/ports", 401, json!({"error": {"message": "no access rule"}}));
    let error = cloud.list_ports().await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Unauthorized, "no access rule"));
    assert_eq!(fake.seen("POST /identity").len(), 3);
}

async fn collect(download: vmmigration::openstack::ImageDownload) -> (usize, Option<CloudError>) {
    let mut bytes = 0;
    let mut stream = download.stream;
    while let Some(item) = stream.next().await {
        match item {
            Ok(chunk) => bytes += chunk.len(),
            Err(error) => return (bytes, Some(error)),
        }
    }
    (bytes, None)
}

/// So many chunks of 1000 bytes; then the connection breaks, if asked for, once they have been sent.
fn chunks(count: usize, broken: bool) -> Body {
    let good = stream::iter((0..count).map(|_| Ok(Bytes::from(vec![7u8; 1000]))));
    let cut = stream::once(async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Err(std::io::Error::other("cut"))
    });
    Body::from_stream(good.chain(cut.take(usize::from(broken))))
}

#[tokio::test]
async fn downloads_are_whole_or_an_error() {
    let (fake, cloud) = connected().await;
    let line = "GET /image/v2/images/i1/file";
    let with_length = |body: fn() -> Body| {
        move |_: &Seen| Response::builder().header("content-length", "5000").body(body()).unwrap()
    };
    fake.with(line, with_length(|| chunks(5, false)));
    let download = cloud.download_image("i1").await.unwrap();
    assert_eq!(download.content_length, Some(5000));
    assert_eq!(collect(download).await, (5000, None));

    fake.with(line, with_length(|| chunks(3, true)));
    let (bytes, error) = collect(cloud.download_image("i1").await.unwrap()).await;
    assert!(bytes <= 3000 && error.as_ref().is_some_and(CloudError::is_transient), "{bytes} {error:?}");

    // Without a length, a cut is seen from the missing end of the chunked body.
    fake.with(line, |_| Response::new(chunks(3, true)));
    let download = cloud.download_image("i1").await.unwrap();
    assert_eq!(download.content_length, None);
    let (_, error) = collect(download).await;
    assert!(error.is_some());

    // The token expires between two downloads.
    fake.with(line, with_length(|| chunks(5, false)));
    fake.expire();
    assert_eq!(collect(cloud.download_image("i1").await.unwrap()).await.0, 5000);

    fake.on(line, 404, json!({"itemNotFound": {"message": "No image found"}}));
    assert_eq!(cloud.download_image("i1").await.unwrap_err().kind, ErrorKind::NotFound);
    fake.on(line, 204, Value::Null);
    assert_eq!(cloud.download_image("i1").await.unwrap_err().kind, ErrorKind::Conflict);
}

#[tokio::test]
async fn uploads_stream_with_a_fresh_token() {
    let (fake, cloud) = connected().await;
    fake.on("GET /image/v2/images/i1", 200, json!({"id": "i1"}));
    fake.on("PUT /image/v2/images/i1/file", 204, Value::Null);
    let body = || stream::iter((0..50).map(|_| Ok(Bytes::from(vec![1u8; 100_000]))));
    fake.expire();
    cloud.upload_image("i1", body()).await.unwrap();
    let seen = fake.last("PUT /image");
    assert_eq!((seen.body.len(), seen.header("transfer-encoding")), (5_000_000, "chunked"));
    assert_eq!(seen.header("content-type"), "application/octet-stream");
    assert_eq!(seen.header("x-auth-token"), "token-3");

    fake.on("PUT /image/v2/images/i1/file", 409, json!({"conflict": {"message": "wrong state"}}));
    assert_eq!(cloud.upload_image("i1", body()).await.unwrap_err().kind, ErrorKind::Conflict);
    let broken = stream::iter([Ok(Bytes::from_static(b"x")), Err(std::io::Error::other("disk gone"))]);
    let error = cloud.upload_image("i1", broken).await.unwrap_err();
    assert!(error.message.contains("disk gone"), "{error}");
}

#[tokio::test]
async fn bodies_and_paths_of_the_remaining_calls() {
    let (fake, cloud) = connected().await;
    let volume = format!("/volume/v3/{PROJECT}");
    fake.on("PUT /compute/v2.1/servers/s1/metadata/vmmigration.io%3Aclaimed-by", 200, json!({"meta": {}}));
    cloud.set_server_metadata("s1", "vmmigration.io:claimed-by", "u1").await.unwrap();
    assert_eq!(fake.last("PUT").json(), json!({"meta": {"vmmigration.io:claimed-by": "u1"}}));
    fake.on("PUT /compute/v2.1/servers/s1/tags", 200, json!({"tags": ["a"]}));
    cloud.set_server_tags("s1", &["a".into()]).await.unwrap();
    fake.on("POST /compute/v2.1/servers", 202, json!({"server": {"id": "s9", "adminPass": "x"}}));
    assert_eq!(cloud.create_server(&json!({"server": {"name": "n"}})).await.unwrap(), "s9");
    assert_eq!(fake.last("POST /compute").header("openstack-api-version"), "compute 2.67");
    // Older ones refuse the field.
    assert!(cloud.takes_hostname());
    cloud.create_server(&json!({"server": {"name": "n", "hostname": "n"}})).await.unwrap();
    assert_eq!(fake.last("POST /compute").header("openstack-api-version"), "compute 2.90");
    fake.on("GET /compute/v2.1/servers/s1/os-volume_attachments", 200,
        json!({"volumeAttachments": [{"volumeId": "v1", "device": "/dev/vda", "tag": null, "delete_on_termination": true}]}));
    assert!(cloud.volume_attachments("s1").await.unwrap()[0].delete_on_termination);
    fake.on("GET /compute/v2.1/servers/s1/os-instance-actions", 200,
        json!({"instanceActions": [{"action": "stop", "request_id": "req-1", "start_time": "t", "message": null, "user_id": null}]}));
    assert_eq!(cloud.server_actions("s1").await.unwrap()[0].request_id, "req-1");
    fake.on(
        "GET /compute/v2.1/limits",
        200,
        json!({"limits": {"rate": [], "absolute": {"maxTotalCores": -1}}}),
    );
    assert_eq!(cloud.compute_limits().await.unwrap()["maxTotalCores"], -1);
    let zones = json!({"availabilityZoneInfo": [
        {"zoneName": "nova", "zoneState": {"available": true}, "hosts": null},
        {"zoneName": "old", "zoneState": {"available": false}}]});
    fake.on("GET /compute/v2.1/os-availability-zone", 200, zones.clone());
    fake.on(&format!("GET {volume}/os-availability-zone"), 200, zones);
    assert_eq!(cloud.availability_zones().await.unwrap(), cloud.volume_availability_zones().await.unwrap());

    fake.on(
        &format!("POST {volume}/snapshots"),
        202,
        json!({"snapshot": {"id": "n1", "status": "creating"}}),
    );
    let marks = BTreeMap::from([("k".to_string(), "v".to_string())]);
    assert_eq!(cloud.create_snapshot("v1", "n", &marks, true).await.unwrap().id, "n1");
    assert_eq!(fake.last(&format!("POST {volume}/snapshots")).json()["snapshot"]["force"], true);
    fake.on(
        &format!("POST {volume}/volumes/v1/action"),
        202,
        json!({"os-volume_upload_image": {"image_id": "i7"}}),
    );
    assert_eq!(cloud.upload_volume_to_image("v1", "n", false).await.unwrap(), "i7");
    fake.on(&format!("POST {volume}/volumes/v1/action"), 200, Value::Null);
    cloud.set_bootable("v1", false).await.unwrap();
    cloud.set_volume_image_metadata("v1", &marks).await.unwrap();
    assert_eq!(fake.last("POST").json(), json!({"os-set_image_metadata": {"metadata": {"k": "v"}}}));
    cloud.unset_volume_image_metadata("v1", "k").await.unwrap();
    assert_eq!(fake.last("POST").json(), json!({"os-unset_image_metadata": {"key": "k"}}));
    // A key that is not there is 404.
    cloud.unset_volume_image_metadata("v0", "k").await.unwrap();
    fake.on(
        &format!("GET {volume}/attachments/detail?volume_id=v1"),
        200,
        json!({"attachments": [
        {"id": "a0", "volume_id": "v2", "connection_info": {"driver_volume_type": "nfs"}},
        {"id": "a1", "volume_id": "v1", "connection_info": {"driver_volume_type": "rbd"}}]}),
    );
    assert_eq!(cloud.volume_driver_types("v1").await.unwrap().as_deref(), Some("rbd"));
    fake.on(
        &format!("GET {volume}/os-quota-sets/{PROJECT}?usage=True"),
        200,
        json!({"quota_set": {"id": PROJECT, "volumes": {"limit": 10, "in_use": 3, "reserved": 1}}}),
    );
    assert_eq!(
        cloud.volume_quotas().await.unwrap(),
        BTreeMap::from([("volumes".into(), Quota { limit: 10, used: 4 })])
    );

    fake.on("PATCH /image/v2/images/i1", 200, json!({"id": "i1", "name": "n"}));
    cloud.update_image("i1", &[json!({"op": "replace", "path": "/name", "value": "n"})]).await.unwrap();
    assert_eq!(fake.last("PATCH").header("content-type"), "application/openstack-images-v2.1-json-patch");
    fake.on("PUT /image/v2/images/i1/tags/vmmigration.io%3Amigration%3Du", 204, Value::Null);
    cloud.add_image_tag("i1", "vmmigration.io:migration=u").await.unwrap();
    fake.on("GET /image/v2/images/i1", 200, json!({"id": "i1", "tags": ["a"]}));
    cloud.add_image_tag("i1", "vmmigration.io:object=ns/n").await.unwrap();
    assert_eq!(fake.last("PATCH").json()[0]["value"], json!(["a", "vmmigration.io:object=ns/n"]));

    fake.on(
        "GET /network/v2.0/ports?device_id=s1",
        200,
        json!({"ports": [{"id": "p1", "binding:vnic_type": "normal"}]}),
    );
    assert_eq!(cloud.ports_of_device("s1").await.unwrap()[0].vnic_type.as_deref(), Some("normal"));
    fake.on("PUT /network/v2.0/ports/p1/tags", 200, json!({"tags": []}));
    cloud.set_port_tags("p1", &[]).await.unwrap();
    fake.on(
        &format!("GET /network/v2.0/quotas/{PROJECT}/details"),
        200,
        json!({"quota": {"port": {"limit": 500, "used": 2, "reserved": 0}}}),
    );
    assert_eq!(cloud.network_quotas().await.unwrap()["port"].free(), Some(498));
    assert!(cloud.list_trunks().await.unwrap().is_empty());
    fake.on("GET /network/v2.0/extensions/trunk", 200, json!({"extension": {"alias": "trunk"}}));
    fake.on("GET /network/v2.0/trunks", 200, json!({"trunks": [{"id": "t", "port_id": "p1"}]}));
    assert_eq!(cloud.list_trunks().await.unwrap()[0].port_id, "p1");
}

#[tokio::test]
async fn status_codes_are_those_of_http() {
    // Guards the fake itself: an unknown path is 404, a request without the token 401.
    let (fake, cloud) = connected().await;
    assert_eq!(cloud.get_volume("nope").await.unwrap(), None);
    let bare = reqwest::Client::builder().no_proxy().build().unwrap();
    let status = bare.get(fake.url("/network/v2.0/ports")).send().await.unwrap().status();
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

/// Every call against real clouds, one after the other. Run inside the test bed:
/// `testbed exec <this test binary> --ignored --nocapture --test-threads=1 real_`.
mod real {
    use super::*;
    use sha2::{Digest, Sha512};
    use vmmigration::openstack::{Image, Server};

    fn credentials(name: &str, with_ca: bool) -> Credentials {
        let file = std::env::var("OS_CLIENT_CONFIG_FILE").unwrap();
        let mut yaml: Value = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let entry = yaml["clouds"][name].as_object_mut().unwrap();
        // A path in this file; the operator gets the PEM text beside it.
        let ca = entry.remove("cacert").and_then(|p| std::fs::read(p.as_str()?).ok());
        Credentials::parse(yaml.to_string().as_bytes(), Some(name), ca.as_deref().filter(|_| with_ca))
            .unwrap()
    }

    async fn connect(name: &str) -> Cloud {
        Cloud::connect(&credentials(name, true), &EndpointPolicy::default(), name, Timeouts::default())
            .await
            .unwrap()
    }

    async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut poll: impl FnMut() -> F) -> T {
        let started = std::time::Instant::now();
        loop {
            if let Some(found) = poll().await {
                println!("  {what}: {:.1} s", started.elapsed().as_secs_f32());
                return found;
            }
            assert!(started.elapsed() < Duration::from_secs(180), "{what} takes too long");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn volume_is(cloud: &Cloud, id: &str, status: &str) {
        until(&format!("volume {status}"), async || {
            cloud.get_volume(id).await.unwrap().filter(|v| v.status == status)
        })
        .await;
    }

    async fn server_is(cloud: &Cloud, id: &str, status: &str) -> Server {
        until(&format!("server {status}"), async || {
            let server = cloud.get_server(id).await.unwrap().unwrap();
            assert_ne!(server.status, "ERROR", "{:?}", server.fault);
            (server.status == status && server.task_state.is_none()).then_some(server)
        })
        .await
    }

    async fn image_is_active(cloud: &Cloud, id: &str) -> Image {
        until("image active", async || cloud.get_image(id).await.unwrap().filter(|i| i.status == "active"))
            .await
    }

    async fn hash_of(cloud: &Cloud, id: &str) -> (u64, String) {
        let mut download = cloud.download_image(id).await.unwrap();
        let (mut hash, mut count) = (Sha512::new(), 0);
        while let Some(chunk) = download.stream.next().await {
            let chunk = chunk.unwrap();
            count += chunk.len() as u64;
            hash.update(&chunk);
        }
        assert_eq!(download.content_length, Some(count));
        (count, hex::encode(hash.finalize()))
    }

    async fn reads(cloud: &Cloud) {
        println!("{} {:?}", cloud.name(), cloud.versions());
        println!("  flavors {:?}", cloud.list_flavors().await.unwrap());
        println!("  key pairs {:?}", cloud.list_keypairs().await.unwrap());
        println!(
            "  zones {:?} {:?}",
            cloud.availability_zones().await.unwrap(),
            cloud.volume_availability_zones().await.unwrap()
        );
        println!("  compute {:?}", cloud.compute_limits().await.unwrap());
        println!("  volume {:?}", cloud.volume_limits().await.unwrap());
        println!("  volume quotas {:?}", cloud.volume_quotas().await.unwrap());
        println!("  network quotas {:?}", cloud.network_quotas().await.unwrap());
        println!("  types {:?}", cloud.list_volume_types().await.unwrap());
        println!("  networks {:?}", cloud.list_networks().await.unwrap());
        println!("  subnets {:?}", cloud.list_subnets().await.unwrap());
        println!("  groups {:?}", cloud.list_security_groups().await.unwrap());
        println!("  trunks {:?}", cloud.list_trunks().await.unwrap());
        println!(
            "  {} ports, {} servers, {} volumes, {} snapshots",
            cloud.list_ports().await.unwrap().len(),
            cloud.list_servers().await.unwrap().len(),
            cloud.list_volumes().await.unwrap().len(),
            cloud.list_snapshots().await.unwrap().len()
        );
        assert_eq!(cloud.get_server("00000000-0000-0000-0000-000000000000").await.unwrap(), None);
        assert_eq!(cloud.get_volume("no-such").await.unwrap(), None);
        assert_eq!(cloud.get_snapshot("no-such").await.unwrap(), None);
        assert_eq!(cloud.get_image("no-such").await.unwrap(), None);
        assert_eq!(cloud.get_port("no-such").await.unwrap(), None);
        assert_eq!(cloud.get_server("..").await.unwrap(), None);
        cloud.delete_volume("00000000-0000-0000-0000-000000000000").await.unwrap();
    }

    async fn images(cloud: &Cloud, name: &str) {
        let guest = cloud.list_images().await.unwrap().into_iter().find(|i| i.name == "guest").unwrap();
        let (count, hash) = hash_of(cloud, &guest.id).await;
        assert_eq!((guest.size, guest.os_hash_value), (Some(count as i64), Some(hash)));
        let record = json!({"name": name, "disk_format": "raw", "container_format": "bare", "visibility": "private", "x_test": "1"});
        let made = cloud.create_image(&record).await.unwrap();
        println!("  download of a queued image: {}", cloud.download_image(&made.id).await.unwrap_err());
        let body = stream::iter((0..64u8).map(|i| Ok(Bytes::from(vec![i; 1 << 20]))));
        cloud.upload_image(&made.id, body).await.unwrap();
        let mark = format!("vmmigration.io:migration={}", "00000000-0000-0000-0000-000000000000");
        cloud.add_image_tag(&made.id, &mark).await.unwrap();
        cloud.add_image_tag(&made.id, "vmmigration.io:object=ns/name").await.unwrap();
        let renamed = [json!({"op": "replace", "path": "/name", "value": format!("{name}-2")})];
        assert_eq!(cloud.update_image(&made.id, &renamed).await.unwrap().name, format!("{name}-2"));
        let record = image_is_active(cloud, &made.id).await;
        assert!(record.tags.contains(&mark), "{:?}", record.tags);
        assert_eq!(record.properties["x_test"], "1");
        assert_eq!(hash_of(cloud, &made.id).await, (64 << 20, record.os_hash_value.unwrap()));
        let again = cloud.upload_image(&made.id, stream::iter([Ok(Bytes::from_static(b"x"))])).await;
        println!("  second upload: {}", again.unwrap_err());
        cloud.delete_image(&made.id).await.unwrap();
        cloud.delete_image(&made.id).await.unwrap();
    }

    async fn ports(cloud: &Cloud, name: &str) -> String {
        let networks = cloud.list_networks().await.unwrap();
        let network = &networks.iter().find(|n| n.name == "provider").unwrap().id;
        let port = cloud.create_port(&json!({"port": {"network_id": network, "name": name}})).await.unwrap();
        let mark = format!("vmmigration.io:migration={}", "00000000-0000-0000-0000-000000000000");
        for length in [60, 61, 64, 128, 255, 256, 300] {
            let tag = format!("{mark:x<length$}").chars().take(length).collect::<String>();
            let result = cloud.set_port_tags(&port.id, std::slice::from_ref(&tag)).await;
            let kept = cloud.get_port(&port.id).await.unwrap().unwrap().tags == [tag];
            println!(
                "  port tag of {length} characters: {:?}, kept {kept}",
                result.map_err(|e| e.to_string())
            );
        }
        cloud.set_port_tags(&port.id, std::slice::from_ref(&mark)).await.unwrap();
        cloud.update_port(&port.id, &json!({"port": {"admin_state_up": false}})).await.unwrap();
        let read = cloud.get_port(&port.id).await.unwrap().unwrap();
        assert_eq!((read.admin_state_up, &read.tags), (false, &vec![mark]));
        cloud.update_port(&port.id, &json!({"port": {"admin_state_up": true}})).await.unwrap();
        port.id
    }

    async fn volume(cloud: &Cloud, name: &str) -> String {
        let guest = cloud.list_images().await.unwrap().into_iter().find(|i| i.name == "guest").unwrap();
        let marks = BTreeMap::from([("vmmigration.io:migration".to_string(), "u".to_string())]);
        let body = json!({"volume": {"size": 1, "name": name, "imageRef": guest.id, "metadata": marks}});
        let made = cloud.create_volume(&body).await.unwrap();
        volume_is(cloud, &made.id, "available").await;
        cloud.set_bootable(&made.id, false).await.unwrap();
        cloud.set_bootable(&made.id, true).await.unwrap();
        cloud
            .set_volume_image_metadata(&made.id, &BTreeMap::from([("hw_x".into(), "1".into())]))
            .await
            .unwrap();
        cloud.update_volume(&made.id, &json!({"volume": {"description": "d"}})).await.unwrap();
        let read = cloud.get_volume(&made.id).await.unwrap().unwrap();
        assert!(
            read.bootable && read.volume_image_metadata["hw_x"] == "1" && read.metadata == marks,
            "{read:?}"
        );
        let image =
            cloud.upload_volume_to_image(&made.id, &format!("vmm-{name}-copy-0"), false).await.unwrap();
        let copy = image_is_active(cloud, &image).await;
        println!("  volume as image: {:?} {:?}", copy.size, copy.os_hash_algo);
        volume_is(cloud, &made.id, "available").await;
        cloud.delete_image(&image).await.unwrap();
        let snapshot = cloud.create_snapshot(&made.id, name, &marks, true).await.unwrap();
        until("snapshot available", async || {
            cloud.get_snapshot(&snapshot.id).await.unwrap().filter(|s| s.status == "available")
        })
        .await;
        assert_eq!(cloud.delete_volume(&made.id).await.unwrap_err().kind, ErrorKind::Invalid);
        cloud.delete_snapshot(&snapshot.id).await.unwrap();
        until("snapshot gone", async || {
            cloud.get_snapshot(&snapshot.id).await.unwrap().is_none().then_some(())
        })
        .await;
        made.id
    }

    async fn server(cloud: &Cloud, name: &str, volume: &str, port: &str) -> String {
        let flavors = cloud.list_flavors().await.unwrap();
        let flavor = &flavors.iter().find(|f| f.name == "tiny-bfv").unwrap().id;
        let id = cloud.create_server(&json!({"server": {
            "name": name, "flavorRef": flavor, "networks": [{"port": port}], "metadata": {"vmmigration.io:role": "server"},
            "block_device_mapping_v2": [{"uuid": volume, "source_type": "volume", "destination_type": "volume",
                "boot_index": 0, "delete_on_termination": false}]}})).await.unwrap();
        let active = server_is(cloud, &id, "ACTIVE").await;
        println!("  {active:?}");
        assert_eq!(cloud.find_servers(name).await.unwrap()[0].id, id);
        assert_eq!(cloud.find_servers(&id).await.unwrap()[0].name, name);
        println!("  {:?}", cloud.volume_attachments(&id).await.unwrap());
        println!("  driver {:?}", cloud.volume_driver_types(volume).await.unwrap());
        assert_eq!(cloud.ports_of_device(&id).await.unwrap()[0].id, port);
        println!("  console: {} bytes", cloud.console_output(&id, 50).await.unwrap().len());
        cloud.set_server_metadata(&id, "vmmigration.io:claimed-by", "u").await.unwrap();
        cloud.set_server_tags(&id, &["a".into()]).await.unwrap();
        let read = cloud.get_server(&id).await.unwrap().unwrap();
        assert!(read.tags == ["a"] && read.metadata["vmmigration.io:claimed-by"] == "u", "{read:?}");
        cloud.delete_server_metadata_key(&id, "vmmigration.io:claimed-by").await.unwrap();
        cloud.delete_server_metadata_key(&id, "vmmigration.io:claimed-by").await.unwrap();
        let (image, request) = cloud.create_server_image(&id, name, &BTreeMap::new()).await.unwrap();
        println!("  server image under {request}");
        image_is_active(cloud, &image).await;
        server_is(cloud, &id, "ACTIVE").await;
        cloud.delete_image(&image).await.unwrap();
        for snapshot in cloud.list_snapshots().await.unwrap().iter().filter(|s| s.volume_id == volume) {
            // The image of a server on volumes is active at once; its snapshots are not.
            until("snapshot of the image", async || {
                cloud.get_snapshot(&snapshot.id).await.unwrap().filter(|s| s.status == "available")
            })
            .await;
            cloud.delete_snapshot(&snapshot.id).await.unwrap();
            until("snapshot gone", async || {
                cloud.get_snapshot(&snapshot.id).await.unwrap().is_none().then_some(())
            })
            .await;
        }
        id
    }

    async fn stop_and_lock(cloud: &Cloud, id: &str) {
        let stop = cloud.stop_server(id).await.unwrap();
        server_is(cloud, id, "SHUTOFF").await;
        let lock = cloud.lock_server(id, "by the test").await.unwrap();
        let locked = cloud.get_server(id).await.unwrap().unwrap();
        assert_eq!((locked.locked, locked.locked_reason.as_deref()), (true, Some("by the test")));
        let refused = cloud.start_server(id).await.unwrap_err();
        println!("  start of a locked server: {refused}");
        assert_eq!(refused.kind, ErrorKind::Conflict);
        let actions = cloud.server_actions(id).await.unwrap();
        let find =
            |request: &str| actions.iter().find(|a| a.request_id == request).map(|a| a.action.as_str());
        assert_eq!((find(&stop), find(&lock)), (Some("stop"), Some("lock")), "{actions:?}");
        println!("  {:?}", &actions[..2]);
        cloud.unlock_server(id).await.unwrap();
        cloud.start_server(id).await.unwrap();
        server_is(cloud, id, "ACTIVE").await;
    }

    /// What an earlier run left behind when it failed.
    async fn clean(cloud: &Cloud) {
        let ours = |name: &str| name.contains("adapter-"); // Nova names snapshots "snapshot for <image>"
        for server in cloud.list_servers().await.unwrap().iter().filter(|s| ours(&s.name)) {
            cloud.unlock_server(&server.id).await.unwrap();
            cloud.delete_server(&server.id).await.unwrap();
            until("server gone", async || {
                cloud.get_server(&server.id).await.unwrap().is_none().then_some(())
            })
            .await;
        }
        for port in cloud.list_ports().await.unwrap().iter().filter(|p| ours(&p.name)) {
            cloud.delete_port(&port.id).await.unwrap();
        }
        for image in cloud.list_images().await.unwrap().iter().filter(|i| ours(&i.name)) {
            cloud.delete_image(&image.id).await.unwrap();
        }
        for snapshot in cloud.list_snapshots().await.unwrap().iter().filter(|s| ours(&s.name)) {
            cloud.delete_snapshot(&snapshot.id).await.unwrap();
            until("snapshot gone", async || {
                cloud.get_snapshot(&snapshot.id).await.unwrap().is_none().then_some(())
            })
            .await;
        }
        for volume in cloud.list_volumes().await.unwrap().iter().filter(|v| ours(&v.name)) {
            cloud.delete_volume(&volume.id).await.unwrap();
        }
    }

    async fn everything(site: &str) {
        let cloud = connect(site).await;
        clean(&cloud).await;
        let name = format!("adapter-{}", std::process::id());
        reads(&cloud).await;
        images(&cloud, &name).await;
        let port = ports(&cloud, &name).await;
        let disk = volume(&cloud, &name).await;
        let id = server(&cloud, &name, &disk, &port).await;
        stop_and_lock(&cloud, &id).await;
        cloud.delete_server(&id).await.unwrap();
        until("server gone", async || cloud.get_server(&id).await.unwrap().is_none().then_some(())).await;
        cloud.delete_port(&port).await.unwrap();
        cloud.delete_port(&port).await.unwrap();
        volume_is(&cloud, &disk, "available").await;
        cloud.delete_volume(&disk).await.unwrap();
        until("volume gone", async || cloud.get_volume(&disk).await.unwrap().is_none().then_some(())).await;
    }

    #[tokio::test]
    #[ignore = "needs the test bed"]
    async fn real_site_a() {
        everything("site-a").await;
    }

    #[tokio::test]
    #[ignore = "needs the test bed"]
    async fn real_site_b() {
        everything("site-b").await;
    }

    #[tokio::test]
    #[ignore = "needs the test bed"]
    async fn real_other_ways_to_connect() {
        for name in ["site-a-tenant", "site-b-tenant", "site-a-rules", "site-b-member-reader"] {
            println!("{name}: {} servers", connect(name).await.list_servers().await.unwrap().len());
        }
        let policy = EndpointPolicy::default();
        let no_ca = Cloud::connect(&credentials("site-b", false), &policy, "site-b", Timeouts::default())
            .await
            .unwrap_err();
        println!("without the CA: {no_ca}");
        assert!(no_ca.kind == ErrorKind::Unreachable && no_ca.message.contains("key cacert"), "{no_ca}");
        let denied = EndpointPolicy { allow_loopback: false, denied: vec!["10.99.0.0/24".parse().unwrap()] };
        let refused = Cloud::connect(&credentials("site-a", true), &denied, "site-a", Timeouts::default())
            .await
            .unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Refused, "{refused}");
    }
}
