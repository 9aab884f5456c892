//! What looks like absence: a gateway's 404, a credential that was deleted, a cell of Nova that is down, a list that is cut.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod openstack_support;

use axum::body::Body;
use axum::response::Response;
use openstack_support::{Fake, PROJECT, SECRET, answer, by_credential, connect_with, connected};
use serde_json::{Value, json};
use vmmigration::openstack::{Cloud, CloudError, ErrorKind, Proof, Sighting};

const SERVER: &str = "/compute/v2.1/servers/a1";
const SERVERS: &str = "GET /compute/v2.1/servers/detail";

/// What Nova gives of a server whose cell is down, from 2.69 on.
fn half(id: &str) -> Value {
    json!({"id": id, "status": "UNKNOWN", "tenant_id": PROJECT, "created": "2026-11-01T10:00:00Z", "links": []})
}

fn whole(id: &str) -> Value {
    json!({"id": id, "name": id, "status": "ACTIVE", "metadata": {}})
}

fn page(status: u16, kind: &str, body: &'static str) -> Response {
    Response::builder().status(status).header("content-type", kind).body(Body::from(body)).unwrap()
}

/// How every read and every removal of one object ends.
async fn reads(cloud: &Cloud) -> Vec<Result<bool, CloudError>> {
    vec![
        cloud.get_server("x").await.map(|o| o.is_some()),
        cloud.get_volume("x").await.map(|o| o.is_some()),
        cloud.get_snapshot("x").await.map(|o| o.is_some()),
        cloud.get_image("x").await.map(|o| o.is_some()),
        cloud.get_port("x").await.map(|o| o.is_some()),
        cloud.delete_server("x").await.map(|()| false),
        cloud.delete_server_metadata_key("x", "k").await.map(|()| false),
        cloud.delete_volume("x").await.map(|()| false),
        cloud.delete_snapshot("x").await.map(|()| false),
        cloud.delete_image("x").await.map(|()| false),
        cloud.delete_port("x").await.map(|()| false),
    ]
}

/// All requests that `reads` makes, answered so.
fn everything(fake: &Fake, gives: fn() -> Response) {
    let volume = format!("/volume/v3/{PROJECT}");
    let paths = [
        "/compute/v2.1/servers/x".to_string(),
        "/compute/v2.1/servers/x/metadata/k".into(),
        format!("{volume}/volumes/x"),
        format!("{volume}/snapshots/x"),
        "/image/v2/images/x".into(),
        "/network/v2.0/ports/x".into(),
    ];
    for path in paths {
        for method in ["GET", "DELETE"] {
            fake.with(&format!("{method} {path}"), move |_| gives());
        }
    }
}

#[tokio::test]
async fn a_gateways_404_is_no_absence() {
    let gateways: [fn() -> Response; 4] = [
        || page(404, "text/plain", "default backend - 404"),
        || page(404, "text/html", "<html><body><h1>404 Not Found</h1></body></html>"),
        || page(404, "application/json", r#"{"message":"no Route matched with those values"}"#),
        || page(404, "text/plain", ""),
    ];
    for gateway in gateways {
        let (fake, cloud) = connected().await;
        everything(&fake, gateway);
        for outcome in reads(&cloud).await {
            let error = outcome.unwrap_err();
            assert!(error.kind == ErrorKind::Transient && error.is_transient(), "{error:?}");
            assert!(error.message.contains("a proxy or gateway answered"), "{error}");
        }
    }
    // The service's own is.
    let (_, cloud) = connected().await;
    assert!(reads(&cloud).await.into_iter().all(|o| o == Ok(false)));
}

#[tokio::test]
async fn a_credential_that_was_deleted_makes_nothing_gone() {
    let fake = Fake::start().await;
    let cloud = connect_with(&by_credential(&fake, SECRET)).await.unwrap();
    fake.expire();
    *fake.identity.lock().unwrap() = Some(|| {
        answer(
            404,
            json!({"error": {"code": 404, "title": "Not Found",
            "message": "Could not find Application Credential: 818a."}}),
        )
    });
    for outcome in reads(&cloud).await {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unauthorized, "{error:?}");
        assert!(error.message.contains("Application Credential"), "{error}");
    }
    let error = connect_with(&by_credential(&fake, SECRET)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unauthorized);
    *fake.identity.lock().unwrap() = Some(|| page(404, "text/plain", "default backend - 404"));
    let error = connect_with(&by_credential(&fake, SECRET)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Transient, "{error:?}");
}

#[tokio::test]
async fn half_a_server_is_not_seen() {
    let (fake, cloud) = connected().await;
    let mut nameless = whole("a1");
    nameless.as_object_mut().unwrap().remove("metadata");
    for server in [half("a1"), nameless] {
        fake.on(&format!("GET {SERVER}"), 200, json!({"server": server}));
        for error in
            [cloud.get_server("a1").await.unwrap_err(), cloud.look_for_server("a1").await.unwrap_err()]
        {
            assert!(error.is_transient() && error.message.contains("does not reach the cell"), "{error}");
        }
    }
    fake.on(SERVERS, 200, json!({"servers": [half("a1"), whole("b2")]}));
    let list = cloud.list_servers().await.unwrap();
    assert_eq!((list.len(), list.unread.len(), list.whole()), (1, 1, false));
    // A name that is not found may be that of one which has none now.
    assert!(cloud.find_servers("web").await.unwrap_err().is_transient());
    assert_eq!(cloud.find_servers("b2").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_server_is_gone_when_its_history_or_a_whole_list_says_so_too() {
    let actions = |names: &[&str]| {
        let rows: Vec<_> =
            names.iter().map(|a| json!({"action": a, "request_id": "r", "start_time": "t"})).collect();
        (200, json!({"instanceActions": rows}))
    };
    let none = (404, json!({"itemNotFound": {"message": "gone"}}));
    let broken = (503, Value::Null);
    let gone = |proof| Some(Sighting::Gone(proof));
    let table = [
        (actions(&["delete", "stop", "create"]), json!([whole("b2")]), gone(Proof::Deleted)),
        (none.clone(), json!([whole("b2")]), gone(Proof::NotListed { others: 1 })),
        (none.clone(), json!([]), gone(Proof::NotListed { others: 0 })),
        (actions(&[]), json!([whole("b2")]), gone(Proof::NotListed { others: 1 })),
        // Nova knows it, and knows of no deletion.
        (actions(&["stop", "create"]), json!([]), None),
        (broken, json!([]), None),
        (none.clone(), json!([whole("b2"), half("c3")]), None),
        (none.clone(), json!([whole("b2"), 7]), None),
        (none, json!([whole("a1")]), None),
    ];
    for ((status, history), servers, wanted) in table {
        let (fake, cloud) = connected().await;
        fake.on(&format!("GET {SERVER}/os-instance-actions"), status, history.clone());
        fake.on(SERVERS, 200, json!({"servers": servers}));
        let told = cloud.look_for_server("a1").await;
        assert!(wanted.is_some() || told.as_ref().is_err_and(CloudError::is_transient), "{told:?}");
        assert_eq!(told.ok(), wanted, "{history} {servers}");
        let seen = fake.last(&format!("GET {SERVER}/os-instance-actions"));
        assert_eq!(
            seen.header("openstack-api-version"),
            "compute 2.21",
            "the first that tells of deleted ones"
        );
    }
    let (fake, cloud) = connected().await;
    fake.on(&format!("GET {SERVER}"), 200, json!({"server": whole("a1")}));
    assert!(matches!(cloud.look_for_server("a1").await, Ok(Sighting::Found(s)) if s.name == "a1"));
}

#[tokio::test]
async fn what_cannot_be_read_hides_nothing_and_is_told() {
    let (fake, cloud) = connected().await;
    let volumes = format!("GET /volume/v3/{PROJECT}/volumes/detail");
    let next = json!([{"rel": "next", "href": "http://elsewhere.invalid/"}]);
    fake.on(&volumes, 200, json!({"volumes": [{"id": "a", "size": "large"}, {"id": "b"}, null]}));
    let list = cloud.list_volumes().await.unwrap();
    assert_eq!((list[0].id.as_str(), list.len(), list.unread.len()), ("b", 1, 2));
    // There is more, and it is not given.
    for cut in [json!([]), json!([{"name": "without an id"}])] {
        fake.on(&volumes, 200, json!({"volumes": cut, "volumes_links": next}));
        let list = cloud.list_volumes().await.unwrap();
        assert!(list.cut && !list.whole(), "{list:?}");
    }
    for half in [json!({}), json!({"volumes": null}), Value::Null] {
        fake.on(&volumes, 200, half);
        assert_eq!(cloud.list_volumes().await.unwrap_err().kind, ErrorKind::Unexpected);
    }
}

#[tokio::test]
async fn a_list_of_several_pages_is_whole_only_if_no_cell_went_down_meanwhile() {
    let (fake, cloud) = connected().await;
    let next = json!([{"rel": "next", "href": "http://elsewhere.invalid/"}]);
    let first = json!({"servers": [whole("a1")], "servers_links": next});
    let reads = std::sync::atomic::AtomicUsize::new(0);
    fake.on(&format!("{SERVERS}?marker=a1"), 200, json!({"servers": [whole("b2")]}));
    fake.on(SERVERS, 200, first.clone());
    assert!(cloud.list_servers().await.unwrap().whole());
    // With a marker Nova leaves servers of such a cell out; without one it tells of them.
    fake.with(SERVERS, move |_| {
        let again = reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0;
        let servers = if again { json!([whole("a1"), half("c3")]) } else { json!([whole("a1")]) };
        answer(200, json!({"servers": servers, "servers_links": next}))
    });
    let list = cloud.list_servers().await.unwrap();
    assert!(list.len() == 2 && !list.whole());
}
