//! What the model's passes decide, as one number for each test and for each seed of the explorer: a change of form changes
//! none of them.
//!
//! `decisions.golden` has a line for each: how many worlds and passes, and a hash over what every pass was given (spec,
//! status, which views there were, the time) and what it decided (steps, when to look again, the status, which is what the
//! next pass is given). Messages are left out, since they may be worded better at any time: the value of every `message`,
//! and every text in status that has a space in it. Arguments of Jobs and names of steps are not messages and stay. Of a
//! test that makes very many passes the first ones count, and of the seeds every fifth: all of them would take minutes.
//!
//! `make golden` writes the file anew. `DECISIONS=<directory>` writes the passes themselves, one file for each test: those
//! of two commits are compared by `diff -r`.

use super::{Decision, Input};
use crate::{
    crd::v1alpha1::{Phase, VmMigrationStatus},
    migration::step::Step,
};
use sha2::{Digest, Sha256};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::Write as _,
    sync::{LazyLock, Mutex},
};

/// Where the lines are.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/migration/decide/decisions.golden");
/// Where each edge between phases has a line, with a test that takes it.
const EDGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/migration/decide/edges.golden");

/// Names that were changed, new and old: what is hashed has the old ones.
const RENAMES: &[(&str, &str)] = &[];

/// Values that took the place of prose, as they stand in what is hashed: they are left out of it.
const ADDITIONS: &[&str] = &[];

/// Conditions that came later. They are derived from the rest of the status, and left out of what is hashed.
const LATER_CONDITIONS: &[&str] = &["Finished"];

/// One line.
#[derive(Clone, Debug, Default, PartialEq)]
struct Line {
    worlds: u32,
    passes: u32,
    hash: String,
}

/// Of the seeds each one of so many.
const EVERY: u64 = 5;
/// So many passes of a test are hashed.
const MOST: u32 = 400;

thread_local! {
    /// Each test has a thread of its own: its name, its worlds until now, and the edges that they took.
    static NOW: RefCell<(String, Line, BTreeSet<String>)> = RefCell::default();
    /// The edges of this pass.
    static TOOK: RefCell<BTreeSet<String>> = RefCell::default();
}

/// The test that takes each edge, by the edge.
static TAKEN: LazyLock<Mutex<BTreeMap<String, String>>> = LazyLock::new(|| {
    let text = std::fs::read_to_string(EDGES).unwrap_or_default();
    let line = |l: &str| l.rsplit_once(' ').map(|(edge, test)| (edge.to_string(), test.to_string()));
    Mutex::new(text.lines().filter(|l| !l.starts_with('#')).filter_map(line).collect())
});

/// The edges that a test takes, by what `edges.golden` says.
pub(super) fn taken() -> BTreeMap<String, String> {
    TAKEN.lock().unwrap_or_else(|e| e.into_inner()).clone()
}

/// What the file says; with `make golden` what is written to it.
static LINES: LazyLock<Mutex<BTreeMap<String, Line>>> = LazyLock::new(|| {
    let text = std::fs::read_to_string(GOLDEN).unwrap_or_default();
    let line = |l: &str| {
        let parts: Vec<&str> = l.split(' ').collect();
        let [name, worlds, passes, hash] = parts[..] else { panic!("{GOLDEN}: {l:?}") };
        let (worlds, passes) = (worlds.parse().unwrap(), passes.parse().unwrap());
        (name.to_string(), Line { worlds, passes, hash: hash.into() })
    };
    Mutex::new(text.lines().filter(|l| !l.starts_with('#')).map(line).collect())
});

/// What is not recorded.
const UNNAMED: &str = "main";

/// An edge between phases was taken in this thread.
pub(super) fn took(from: Option<Phase>, to: Phase) {
    let from = from.unwrap_or_default();
    if from != to {
        TOOK.with_borrow_mut(|edges| edges.insert(edge(from, to)));
    }
}

/// How an edge is called.
pub(super) fn edge(from: Phase, to: Phase) -> String {
    format!("{from:?} {to:?}")
}

/// The passes of one world.
pub(super) struct Trace {
    /// The test or the seed.
    name: String,
    passes: u32,
    hash: Sha256,
    edges: BTreeSet<String>,
}

impl Trace {
    /// Of the test that runs in this thread. With one thread for all tests their names are not known.
    pub(super) fn of_this_test() -> Self {
        let name =
            std::thread::current().name().and_then(|n| n.rsplit("::").next()).unwrap_or(UNNAMED).into();
        Trace::named(name)
    }

    /// Of one of the explorer's seeds.
    pub(super) fn of_seed(seed: u64) -> Self {
        let name = if seed.is_multiple_of(EVERY) { format!("seed-{seed:03}") } else { UNNAMED.into() };
        Trace::named(name)
    }

    /// Of worlds that are not recorded.
    pub(super) fn of_nothing() -> Self {
        Trace::named(UNNAMED.into())
    }

    fn named(name: String) -> Self {
        Trace { name, passes: 0, hash: Sha256::new(), edges: BTreeSet::new() }
    }

    /// Adds one pass.
    pub(super) fn pass(&mut self, input: Input<'_>, decision: &Decision) {
        self.edges.append(&mut TOOK.take());
        let before = NOW.with_borrow(|(name, line, _)| if *name == self.name { line.passes } else { 0 });
        if self.name == UNNAMED || before + self.passes >= MOST {
            return;
        }
        self.passes += 1;
        let text = text(input, decision);
        self.hash.update(text.as_bytes());
        if let Some(directory) = std::env::var_os("DECISIONS") {
            let file = std::path::Path::new(&directory).join(&self.name);
            let mut file = std::fs::File::options().create(true).append(true).open(file).unwrap();
            writeln!(file, "pass {}\n{text}", self.passes).unwrap();
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if self.name == UNNAMED || self.passes == 0 || std::thread::panicking() {
            return;
        }
        let (line, edges) = NOW.with_borrow_mut(|(name, line, edges)| {
            if *name != self.name {
                (*name, *line, *edges) = (self.name.clone(), Line::default(), BTreeSet::new());
            }
            edges.append(&mut self.edges);
            let before = line.hash.clone();
            let hash = Sha256::new().chain_update(before).chain_update(self.hash.clone().finalize());
            line.worlds += 1;
            line.passes += self.passes;
            line.hash = hex::encode(&hash.finalize()[..8]);
            (line.clone(), edges.clone())
        });
        if std::env::var_os("GOLDEN").is_some() {
            write(&self.name, line);
            write_edges(&self.name, &edges);
        } else {
            compare(&self.name, &line, &edges);
        }
    }
}

/// A world that is not the test's last one is compared with the last. Without the file nothing is.
fn compare(name: &str, line: &Line, edges: &BTreeSet<String>) {
    let lines = LINES.lock().unwrap_or_else(|e| e.into_inner());
    match lines.get(name) {
        Some(golden) if line.worlds < golden.worlds => {}
        Some(golden) => {
            assert_eq!(line, golden, "{name} decides otherwise than {GOLDEN} says; {HELP}");
            for (edge, _) in taken().iter().filter(|(_, test)| *test == name) {
                assert!(
                    edges.contains(edge),
                    "{name} does not take {edge}, as {EDGES} says: delete the line; {HELP}"
                );
            }
        }
        // More seeds than are recorded may be explored.
        None => assert!(name.starts_with("seed-") || lines.is_empty(), "{name} is not in {GOLDEN}; {HELP}"),
    }
}

const HELP: &str = "if that is meant: `make golden`";

fn write(name: &str, line: Line) {
    let mut lines = LINES.lock().unwrap_or_else(|e| e.into_inner());
    lines.insert(name.into(), line);
    let mut text =
        String::from("# Written by `make golden`: test or seed, worlds, passes, hash. See trace.rs.\n");
    for (name, line) in lines.iter() {
        writeln!(text, "{name} {} {} {}", line.worlds, line.passes, line.hash).unwrap();
    }
    std::fs::write(GOLDEN, text).unwrap();
}

/// The first test by its name stands for an edge.
fn write_edges(name: &str, edges: &BTreeSet<String>) {
    let mut taken = TAKEN.lock().unwrap_or_else(|e| e.into_inner());
    for edge in edges {
        let test = taken.entry(edge.clone()).or_insert_with(|| name.into());
        *test = std::mem::take(test).min(name.into());
    }
    let mut text = String::from(
        "# Written by `make golden`: an edge between phases, and a test that takes it. See edges.rs.\n",
    );
    for (edge, test) in taken.iter() {
        writeln!(text, "{edge} {test}").unwrap();
    }
    std::fs::write(EDGES, text).unwrap();
}

/// All of a pass but its messages.
fn text(input: Input<'_>, decision: &Decision) -> String {
    let json = |status: &VmMigrationStatus| {
        let mut status = status.clone();
        status.conditions.retain(|c| !LATER_CONDITIONS.contains(&c.type_.as_str()));
        without_messages(&serde_json::to_string(&status).unwrap())
    };
    let mut text = String::new();
    let Input { spec, generation, deleting, abandoned, annotations, status, seen, now, .. } = input;
    let views = [seen.source.view().is_some(), seen.destination.view().is_some(), seen.inventory.is_some()];
    writeln!(text, "at {now} generation {generation:?} deleting {deleting} abandoned {abandoned}").unwrap();
    writeln!(text, "spec {} {annotations:?}", serde_json::to_string(spec).unwrap()).unwrap();
    writeln!(text, "status {}", json(status)).unwrap();
    writeln!(text, "seen {views:?}").unwrap();
    for step in &decision.steps {
        writeln!(text, "step {}", of_step(step)).unwrap();
    }
    let phase = decision.status.phase;
    writeln!(text, "{phase:?} again {:?} release {}", decision.recheck, decision.release).unwrap();
    for addition in ADDITIONS {
        text = text.replace(addition, "");
    }
    if RENAMES.is_empty() {
        text
    } else {
        words(&text, |word| RENAMES.iter().find(|(new, _)| *new == word).map(|r| r.1))
    }
}

/// A Job by what it is asked to do, in whatever form the decision has that.
fn of_step(step: &Step) -> String {
    match step {
        Step::CreateJob(j) => format!(
            "CreateJob {} {} {} {:?} {} {:?} {:?} {}",
            j.side,
            j.purpose,
            j.attempt,
            j.task.command_line(&[]),
            j.credentials,
            j.device,
            j.keys,
            j.deadline_seconds
        ),
        other => format!("{other:?}"),
    }
}

/// Empties the texts in JSON that are words for people.
fn without_messages(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find('"') {
        kept.push_str(&rest[..=begin]);
        rest = &rest[begin + 1..];
        let (said, after) = rest.split_at(end_of_text(rest));
        if !kept.ends_with("\"message\":\"") && !said.contains(' ') {
            kept.push_str(said);
        }
        let closed = after.len().min(1);
        kept.push_str(&after[..closed]);
        rest = &after[closed..];
    }
    kept + rest
}

/// Where the quote is that ends a text.
fn end_of_text(text: &str) -> usize {
    let mut from = 0;
    while let Some(quote) = text[from..].find('"').map(|at| from + at) {
        let slashes = text[..quote].len() - text[..quote].trim_end_matches('\\').len();
        if slashes.is_multiple_of(2) {
            return quote;
        }
        from = quote + 1;
    }
    text.len()
}

/// Puts other words in place of words.
fn words<'a>(text: &str, other: impl Fn(&str) -> Option<&'a str>) -> String {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find(part) {
        let (before, from) = rest.split_at(begin);
        let (word, after) = from.split_at(from.find(|c| !part(c)).unwrap_or(from.len()));
        out.push_str(before);
        out.push_str(other(word).unwrap_or(word));
        rest = after;
    }
    out + rest
}

#[test]
fn messages_are_left_out_and_nothing_else() {
    let json = r#"{"message":"one","why":"two words","phase":"Failed","what":"lost-node","a":"x \" y"}"#;
    assert_eq!(
        without_messages(json),
        r#"{"message":"","why":"","phase":"Failed","what":"lost-node","a":""}"#
    );
    assert_eq!(without_messages(r#"{"a":"\\","b":"c \\"}"#), r#"{"a":"\\","b":""}"#);
}

#[test]
fn new_names_are_hashed_as_the_old_ones() {
    let old = |word: &str| (word == "Observation").then_some("Seen");
    assert_eq!(words("Observation { a: \"Observations\" }, 1", old), "Seen { a: \"Observations\" }, 1");
}

/// A line of a test that is gone would prove nothing.
#[test]
fn every_line_is_of_a_test() {
    let lines = LINES.lock().unwrap_or_else(|e| e.into_inner()).clone();
    let decide = concat!(env!("CARGO_MANIFEST_DIR"), "/src/migration/decide");
    let directories = [decide.to_string(), format!("{decide}/tests")];
    let files = directories.iter().flat_map(|d| std::fs::read_dir(d).unwrap().map(|f| f.unwrap().path()));
    let rust = files.filter(|f| f.extension().is_some_and(|e| e == "rs"));
    let all: String = rust.map(|f| std::fs::read_to_string(f).unwrap()).collect();
    let seeds = lines.keys().filter(|name| name.starts_with("seed-")).count() as u64;
    assert!(lines.is_empty() || seeds == super::explore::SEEDS.div_ceil(EVERY), "{HELP}");
    for name in lines.keys().filter(|name| !name.starts_with("seed-")) {
        assert!(all.contains(&format!("fn {name}(")), "{name}: {HELP}");
    }
}
