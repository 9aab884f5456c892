//! What GitOps tools make of objects as they really are, in every phase: kstatus by its own library, Argo CD by the health
//! scripts that are shipped. The table in docs/gitops.md is what is expected.

use super::tests::{World, ask};
use crate::{
    crd::{
        conditions::{reason, set_outcome},
        v1alpha1::*,
    },
    migration::present::present,
};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::Write,
    process::{Command, Stdio},
};
use strum::IntoEnumIterator;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Objects by where they stand, as the table calls it.
type Objects = BTreeMap<String, Value>;

fn object(kind: &str, spec: Value, status: Value, generation: i64) -> Value {
    json!({"apiVersion": "vmmigration.io/v1alpha1", "kind": kind, "spec": spec, "status": status,
        "metadata": {"name": "web-1", "namespace": "team", "uid": "u", "generation": generation}})
}

/// As the API server has it after the operator's write.
fn written(w: &World) -> Value {
    let mut status = w.status.clone();
    let generation = status.observed_generation;
    present(&mut status, generation, w.now);
    object("VmMigration", json!(w.spec), json!(status), w.generation)
}

/// Goes on until it is there, and takes the first object of each phase on the way.
fn go(mut w: World, all: &mut Objects, there: impl Fn(&World) -> bool) -> World {
    for _ in 0..1000 {
        w.pass(false);
        all.entry(w.phase().unwrap_or_default().to_string()).or_insert_with(|| written(&w));
        if there(&w) {
            return w;
        }
    }
    panic!("not reached: {:?} {:?}", w.phase(), w.status.message)
}

fn asked(change: Value) -> World {
    let mut w = World::new();
    ask(&mut w, change);
    w
}

fn settled(phase: Phase) -> impl Fn(&World) -> bool {
    move |w| w.phase() == Some(phase) && w.clean()
}

fn at(phase: Phase) -> impl Fn(&World) -> bool {
    move |w| w.phase() == Some(phase)
}

/// An object of every phase.
fn phases() -> Objects {
    let mut all = Objects::new();
    let mut w = go(World::new(), &mut all, settled(Phase::Succeeded));
    ask(&mut w, json!({"requests": {"retire": "1"}}));
    go(w, &mut all, settled(Phase::Retired));
    go(
        asked(json!({"strategy": "Warm", "cutover": {"mode": "Manual"}})),
        &mut all,
        at(Phase::AwaitingCutover),
    );
    let mut paused = World::new();
    paused.source.status = "PAUSED".into();
    go(paused, &mut all, at(Phase::Blocked));
    for (request, end) in [("cancel", Phase::Cancelled), ("rollback", Phase::RolledBack)] {
        let mut w = go(World::new(), &mut all, at(Phase::Transferring));
        ask(&mut w, json!({"requests": {request: "1"}}));
        go(w, &mut all, settled(end));
    }
    let mut w = go(World::new(), &mut all, at(Phase::Transferring));
    w.source.locked = false;
    w.act("unlock");
    w.source.status = "ACTIVE".into();
    w.act("start");
    go(w, &mut all, at(Phase::Held));
    let mut w = go(World::new(), &mut all, at(Phase::Transferring));
    w.deleting = true;
    go(w, &mut all, at(Phase::Deleting));
    let mut w = World::new();
    w.broken = Some("create-server");
    go(w, &mut all, settled(Phase::Failed));
    let pending = VmMigrationStatus { observed_generation: Some(1), ..Default::default() };
    let mut w = World::new();
    (w.status, w.generation) = (pending, 1);
    all.insert("Pending".into(), written(&w));
    let named: Vec<_> =
        Phase::iter().map(|phase| phase.to_string()).filter(|p| !all.contains_key(p)).collect();
    assert!(named.is_empty(), "no object of {named:?}");
    all
}

/// What is seen within a phase, and of other kinds.
fn others(all: &mut Objects) {
    let mut unused = Objects::new();
    // As the definition has it by default.
    let unseen = || json!({"observedGeneration": -1});
    all.insert("not looked at yet".into(), object("VmMigration", json!({}), unseen(), 1));
    let mut changed = go(World::new(), &mut unused, at(Phase::Transferring));
    changed.generation += 1;
    all.insert("changed, and not looked at since".into(), written(&changed));
    let mut w = go(World::new(), &mut unused, at(Phase::Transferring));
    ask(&mut w, json!({"suspend": true}));
    let w = go(w, &mut unused, |w| w.status.suspended_since.is_some());
    all.insert("suspended".into(), written(&w));
    let hook = json!({"hooks": [{"name": "c", "phase": "BeforeStop", "client": {}}]});
    let waits = |w: &World| w.status.hooks.iter().any(|h| h.state == HookState::Waiting);
    all.insert("a client's hook waits".into(), written(&go(asked(hook), &mut unused, waits)));
    let mut w = go(World::new(), &mut unused, at(Phase::Verifying));
    w.unreachable = true;
    ask(&mut w, json!({"requests": {"rollback": "1"}}));
    let stuck = |w: &World| w.status.way_back.as_ref().is_some_and(|b| b.stalled_since.is_some());
    all.insert("the way back is stuck".into(), written(&go(w, &mut unused, stuck)));
    let mut w = World::new();
    w.broken = Some("create-server");
    let mut w = go(w, &mut unused, settled(Phase::Failed));
    ask(&mut w, json!({"requests": {"retry": "1"}}));
    w.pass(false);
    if w.status.retry_requested_at.is_some() {
        all.insert("a new try was asked for".into(), written(&w));
    }
    for kind in ["OpenStackCloud", "ObjectStore"] {
        let told = |outcome| {
            let mut conditions = vec![];
            set_outcome(&mut conditions, outcome, "good", Some(1), Timestamp::UNIX_EPOCH);
            object(kind, json!({}), json!({"observedGeneration": 1, "conditions": conditions}), 1)
        };
        let err = |why| Err((why, "why".to_string()));
        for (name, of) in [
            ("not looked at yet", object(kind, json!({}), unseen(), 1)),
            ("ready", told(Ok(()))),
            ("no Secret yet", told(err(reason::REFERENCE_NOT_FOUND))),
            ("does not answer", told(err(reason::TRANSIENT_ERROR))),
            ("to be corrected", told(err(reason::INVALID_CONFIGURATION))),
        ] {
            all.insert(format!("{kind}: {name}"), of);
        }
    }
}

/// Rows of the page: where it stands, kstatus, Argo CD.
fn expected() -> BTreeMap<String, [String; 2]> {
    let page = std::fs::read_to_string(format!("{ROOT}/docs/gitops.md")).unwrap();
    let rows = page.lines().skip_while(|l| !l.starts_with("| where it stands |")).skip(2);
    let mut all = BTreeMap::new();
    for row in rows.take_while(|l| l.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [names, kstatus, argo] = cells[..] else { panic!("{row}") };
        for name in names.split("; ").map(|n| n.replace('`', "")) {
            all.insert(name, [kstatus.to_string(), argo.to_string()]);
        }
    }
    all
}

/// What the tools say of each.
fn judged(objects: &Objects) -> BTreeMap<String, [String; 2]> {
    let mut judge = Command::new("go")
        .args(["run", ".", "../../config/argocd/argocd-cm.yaml"])
        .current_dir(format!("{ROOT}/tests/gitops"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Go is needed, as for the test bed");
    let input = json!(objects.values().collect::<Vec<_>>()).to_string();
    judge.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = judge.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let verdicts: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(verdicts.len(), objects.len());
    let text = |v: &Value, key: &str| v[key].as_str().unwrap().to_string();
    let verdict = |v: &Value| [text(v, "kstatus"), text(v, "argo")];
    objects.keys().cloned().zip(verdicts.iter().map(verdict)).collect()
}

#[test]
fn gitops_tools_see_every_phase_as_the_page_says() {
    // In a thread without a name: decisions are recorded for the tests that are about them.
    let objects = std::thread::spawn(|| {
        let mut all = phases();
        others(&mut all);
        all
    });
    let objects = objects.join().unwrap();
    assert_eq!(judged(&objects), expected());
}

/// Self-heal would take back what people and the client write in the middle; all that may change after creation by a
/// person's hand is left to them, and is a field.
#[test]
fn the_sample_of_an_application_leaves_to_people_what_is_theirs() {
    let text = std::fs::read_to_string(format!("{ROOT}/config/argocd/application.yaml")).unwrap();
    let sample: Value = serde_saphyr::from_str(&text).unwrap();
    let ignored = &sample["spec"]["ignoreDifferences"][0];
    assert_eq!((&ignored["group"], &ignored["kind"]), (&json!(crate::crd::GROUP), &json!("VmMigration")));
    let definition = json!(crate::crd::all());
    let fields = definition.as_array().unwrap().iter().find(|d| d["spec"]["names"]["kind"] == "VmMigration");
    let fields = &fields.unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    for field in ["cutover", "suspend", "requests"] {
        assert!(ignored["jsonPointers"].as_array().unwrap().contains(&json!(format!("/spec/{field}"))));
        assert!(fields["properties"][field].is_object(), "there is no spec.{field}");
    }
}
