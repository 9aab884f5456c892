//! The table of edges: each is taken by a test, and the diagram in `docs/how-it-works.md` is what it says.

use super::{
    edges::{EDGES, Edge, GAVE_UP, UNDER_WAY},
    tests::{Mirage, World, ask, settle},
    trace::{edge, taken},
};
use crate::{cloud::Proof, crd::v1alpha1::*};
use serde_json::json;
use std::{collections::BTreeSet, fmt::Write as _};

/// The page with the diagram.
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/how-it-works.md");
const BEGIN: &str = "```mermaid\n";
const END: &str = "```\n";

/// Phases that the diagram draws as one where an edge leaves all of them.
const GROUPS: [(&[Phase], &str, &str); 2] =
    [(UNDER_WAY, "UnderWay", "under way"), (GAVE_UP, "GaveUp", "ended without success")];

fn is_inside(edge: &Edge, group: &[Phase]) -> bool {
    group.contains(&edge.to) && edge.from.iter().all(|from| group.contains(from))
}

fn draw(text: &mut String, indent: &str, edge: &Edge) {
    let group = GROUPS.iter().find(|(phases, ..)| *phases == edge.from);
    let from = match group {
        Some((_, name, _)) => vec![(*name).to_string()],
        None => edge.from.iter().map(|from| format!("{from:?}")).collect(),
    };
    for from in from {
        writeln!(text, "{indent}{from} --> {:?}: {}", edge.to, edge.when).unwrap();
    }
}

/// The table as a diagram.
fn diagram() -> String {
    let mut text = String::from("stateDiagram-v2\n    [*] --> Pending\n");
    for (phases, name, title) in GROUPS {
        writeln!(text, "    state \"{title}\" as {name} {{").unwrap();
        phases.iter().for_each(|phase| writeln!(text, "        {phase:?}").unwrap());
        EDGES.iter().filter(|e| is_inside(e, phases)).for_each(|e| draw(&mut text, "        ", e));
        text.push_str("    }\n");
    }
    let inside = |e: &&Edge| GROUPS.iter().any(|(phases, ..)| is_inside(e, phases));
    EDGES.iter().filter(|e| !inside(e)).for_each(|e| draw(&mut text, "    ", e));
    text
}

#[test]
fn the_page_has_the_diagram_of_the_table() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let begin = page.find(BEGIN).map(|at| at + BEGIN.len()).expect("the page has a diagram");
    let end = begin + page[begin..].find(END).expect("it ends");
    if std::env::var_os("GOLDEN").is_some() {
        std::fs::write(PAGE, [&page[..begin], &diagram(), &page[end..]].concat()).unwrap();
    } else {
        assert_eq!(page[begin..end], diagram(), "docs/how-it-works.md: if that is meant: `make golden`");
    }
}

#[test]
fn every_edge_is_taken_by_a_test_and_no_other_one() {
    let pairs = EDGES.iter().flat_map(|e| e.from.iter().map(|from| edge(*from, e.to)));
    let table: BTreeSet<String> = pairs.collect();
    let taken: BTreeSet<String> = taken().into_keys().collect();
    if std::env::var_os("GOLDEN").is_none() {
        assert_eq!(taken, table, "edges.golden and the table in edges.rs: if that is meant: `make golden`");
    }
}

fn suspended() -> World {
    let mut w = World::new();
    ask(&mut w, json!({"suspend": true}));
    w.pass(false);
    assert_eq!(w.phase(), Some(Phase::Pending));
    w
}

#[test]
fn what_was_never_looked_at_is_given_up() {
    let mut w = suspended();
    ask(&mut w, json!({"requests": {"cancel": "now"}}));
    w.run(100, |w| w.phase() == Some(Phase::Cancelled) && w.clean(), || false);
}

#[test]
fn what_was_never_looked_at_is_deleted_with_its_secrets() {
    let mut w = suspended();
    // One of us made them, and what it recorded is lost.
    (w.vault, w.anchors, w.deleting) = (true, true, true);
    w.run(100, |w| w.released, || false);
    assert!(!w.vault && !w.anchors);
}

/// Given up by request after the stop, in this way.
fn given_up(w: &mut World, verb: &str) {
    w.run(400, |w| w.phase() == Some(Phase::Transferring), || false);
    ask(w, json!({"requests": {verb: "1"}}));
}

#[test]
fn however_it_was_given_up_a_source_that_comes_back_is_given_back() {
    for (verb, end) in [("cancel", Phase::Cancelled), ("rollback", Phase::RolledBack)] {
        let mut w = World::new();
        given_up(&mut w, verb);
        w.mirage_in_a = Some(Mirage::Gone(Proof::Deleted));
        settle(&mut w, end);
        assert!(w.source.locked, "{verb}: it was not seen");
        w.mirage_in_a = None;
        w.run(10, |w| w.phase() == Some(Phase::RollingBack), || false);
        settle(&mut w, end);
        w.assert_given_back();
        w.assert_nothing_left();
    }
}

#[test]
fn what_was_rolled_back_before_success_may_be_tried_again() {
    let mut w = World::new();
    given_up(&mut w, "rollback");
    settle(&mut w, Phase::RolledBack);
    ask(&mut w, json!({"requests": {"retry": "2"}}));
    settle(&mut w, Phase::Succeeded);
    assert_eq!(w.status.attempts, 2);
}
