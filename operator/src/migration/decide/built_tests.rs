//! Every Job of a mover as it is built, from the decision to the last field: `jobs.json` has them. `make golden` writes it
//! anew, and the difference is what a change does.

use super::tests::{HOST_KEY, World, ask};
use crate::{
    build::job::{MoverImage, job},
    crd::v1alpha1::*,
    migration::names::Side,
};
use serde_json::{Map, Value, json};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/migration/decide/jobs.json");

fn warm(a: bool, b: bool) -> World {
    let mut w = World::new().by_volume(a, b);
    ask(&mut w, json!({"strategy": "Warm"}));
    w
}

fn with_local_root() -> World {
    let mut w = World::new();
    w.local_root = true;
    w
}

/// Checks of every kind that a Job asks.
fn with_checks() -> World {
    let mut w = World::new();
    let ssh = json!({"user": "u", "command": "test -e /ready", "hostKey": HOST_KEY, "privateKeySecretRef": {"name": "s", "key": "k"}});
    let checks = json!([
        {"name": "page", "http": {"scheme": "https", "path": "/x?y", "contains": "a b", "header": {"name": "c", "pattern": "d"}}},
        {"name": "port", "tcp": {"port": 22, "address": "db.example"}, "timeoutSeconds": 7},
        {"name": "db", "ssh": ssh},
    ]);
    ask(&mut w, json!({"verification": {"checks": checks}}));
    w.checked = json!({"ok": true, "result": {"checks": [
        {"name": "page", "ok": true, "message": "200"}, {"name": "port", "ok": true, "message": "open"},
        {"name": "db", "ok": true, "message": "0"}]}});
    w
}

/// Both are asked once more: the source after a rollback, the destination before the source is deleted.
fn then(mut w: World, change: Value, end: Phase) -> World {
    w.run(400, |w| w.phase() == Some(Phase::Succeeded), || false);
    ask(&mut w, change);
    w.run(800, |w| w.phase() == Some(end) && w.clean(), || false);
    w
}

fn whole(mut w: World) -> World {
    w.run(800, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Succeeded), "{:?}", w.status.failure);
    w
}

/// Of the first disk, and of what is there once. The whole Job, or only in what it differs from another one.
fn jobs(w: &World, entirely: bool) -> Value {
    let image = MoverImage {
        name: "registry.example/vmmigration:1".into(),
        pull_policy: Some("IfNotPresent".into()),
        denied_cidrs: vec!["10.99.0.0/16".into()],
        ..Default::default()
    };
    let me = super::tests::me();
    let mut all = Map::new();
    for request in w.requests.iter().filter(|r| !r.purpose.ends_with("-1")) {
        let built = json!(job(&me, request, &image, "uid-of-the-anchor"));
        let pod = &built["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let part = json!({"args": container["args"], "devices": container["volumeDevices"],
            "seconds": built["spec"]["activeDeadlineSeconds"], "side": request.side.to_string(),
            "volumes": pod["volumes"].as_array().map(|v| v.iter().map(|v| v["name"].clone()).collect::<Vec<_>>())});
        let name = built["metadata"]["name"].as_str().unwrap().to_string();
        assert_eq!(
            request.side == Side::Destination,
            built["metadata"]["ownerReferences"][0]["name"] == me.anchor(Side::Destination)
        );
        all.insert(name, if entirely { built } else { part });
    }
    json!(all)
}

#[test]
fn jobs_of_every_way() {
    let rollback = || json!({"requests": {"rollback": "1"}});
    let built = json!({
        "images": jobs(&whole(World::new()), true),
        "block devices": jobs(&whole(World::new().by_volume(true, true)), false),
        "warm, images": jobs(&whole(warm(false, false)), false),
        "warm, block devices": jobs(&whole(warm(true, true)), false),
        "local root disk": jobs(&whole(with_local_root()), false),
        "checks": jobs(&whole(with_checks()), false),
        "rolled back": jobs(&then(World::new(), rollback(), Phase::RolledBack), false),
        "retired": jobs(&then(World::new(), json!({"requests": {"retire": "1"}}), Phase::Retired), false),
    });
    let text = format!("{built:#}\n");
    if std::env::var_os("GOLDEN").is_some() {
        return std::fs::write(GOLDEN, text).unwrap();
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap_or_default();
    assert_eq!(text, golden, "{GOLDEN} is not what is built; if that is meant: `make golden`");
}
