//! What a store says that somebody has to know: it is full, or it does not let go of what was removed.

use super::tests::{World, ask, settle};
use crate::{
    crd::{
        conditions::{kind, reason},
        v1alpha1::*,
    },
    migration::present::present,
};
use serde_json::json;

fn reason_of(w: &World, kind: &str) -> Option<String> {
    let mut status = w.status.clone();
    present(&mut status, None, w.now);
    status.conditions.iter().find(|c| c.type_ == kind).map(|c| c.reason.clone())
}

#[test]
fn a_store_that_is_full_from_the_start_is_the_reason() {
    let mut w = World::new();
    (w.failing, w.failing_for) = (Some(("init", true)), "StoreFull");
    w.run(600, |w| w.phase() == Some(Phase::Failed), || false);
    let failure = w.status.failure.clone().unwrap();
    let store = &w.status.store.as_ref().unwrap().name;
    assert_eq!(failure.reason, "StoreFull", "{failure:?}");
    assert!(failure.message.starts_with(&format!("ObjectStore {store}: Job ")), "{failure:?}");
    for kind in [kind::SUCCEEDED, kind::STALLED, kind::DATA_TRANSFERRED] {
        assert_eq!(reason_of(&w, kind).as_deref(), Some("StoreFull"), "{kind}");
    }
    w.assert_given_back();
}

#[test]
fn what_the_store_does_not_let_go_of_is_retained_for_good() {
    let mut w = World::new();
    let message = "object lock of bucket b keeps them, encrypted, until 2027-01-01T00:00:00Z";
    w.purged = json!({"deletedObjects": 3, "kept": {"objects": 41, "until": "2027-01-01T00:00:00Z", "message": message}});
    settle(&mut w, Phase::Succeeded);
    let told = |w: &World| {
        let rows = w.status.retained.iter().filter(|row| row.why == message);
        let whats: Vec<_> = rows.map(|row| row.what.as_str()).collect();
        assert!(
            whats.len() == 1 && whats[0].starts_with("41 objects or versions"),
            "{:?}",
            w.status.retained
        );
    };
    told(&w);
    assert_eq!(reason_of(&w, kind::CLEANED_UP).as_deref(), Some(reason::RETAINED));
    // Clean-up looks again after the retirement, and the repository is not purged twice.
    ask(&mut w, json!({"requests": {"retire": "now"}}));
    settle(&mut w, Phase::Retired);
    told(&w);
}
