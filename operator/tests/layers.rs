//! Which room of the code may use which: the table that docs/architecture.md draws, compared with what files import.
#![allow(clippy::unwrap_used, reason = "helpers of tests; clippy.toml speaks of #[test] only")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A room (a folder or file below `src/`), and the rooms that it uses. Those that use none are not listed.
const USES: &[(&str, &[&str])] = &[
    ("build", &["contract", "crd", "migration"]),
    ("cli", &["build", "controller", "migration", "mover", "openstack"]),
    ("client", &["crd", "migration", "net", "openstack", "signals"]),
    (
        "controller",
        &["build", "contract", "crd", "metrics", "migration", "net", "openstack", "store", "watches"],
    ),
    ("definitions", &["cli", "crd", "reference"]),
    ("fuzz", &["contract", "crd", "migration", "mover", "restic", "store", "transfer"]),
    ("migration", &["cloud", "contract", "crd"]),
    ("mover", &["contract", "net", "openstack", "restic", "signals", "store", "transfer"]),
    ("openstack", &["cloud", "net"]),
    ("operator", &["cli", "controller", "crd", "server", "signals"]),
    ("restic", &["contract", "store"]),
    ("server", &["metrics", "watches"]),
    ("store", &["contract", "net"]),
    ("transfer", &["contract"]),
];

/// Rooms that only compute.
const PURE: &[&str] = &["crd", "contract", "cloud", "migration", "transfer"];

/// What whoever only computes does not name.
const IMPURE: &[&str] =
    &["kube::Client", "reqwest::", "tokio::", "Instant::now", "SystemTime::now", "Timestamp::now", "rand::"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.into_iter().flat_map(|p| if p.is_dir() { sources(&p) } else { vec![p] }).collect()
}

fn is_test(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_string_lossy();
    name.ends_with("_tests")
        || path.iter().any(|part| part == "tests")
        || name == "tests"
        || name == "explore"
}

/// The code of each room, without comments and unit tests.
fn rooms() -> BTreeMap<String, Vec<(PathBuf, String)>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut rooms = BTreeMap::<_, Vec<_>>::new();
    for path in sources(&src).into_iter().filter(|p| p.extension().is_some_and(|e| e == "rs") && !is_test(p))
    {
        let inner = path.strip_prefix(&src).unwrap().to_path_buf();
        let room = inner.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_string();
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("\nmod tests {").next().unwrap();
        let code: String =
            code.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        rooms.entry(room).or_default().push((inner, code));
    }
    rooms
}

/// The first names behind `crate::`, also of `crate::{a::b, c}`.
fn used(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let Some(list) = rest.strip_prefix('{') else {
            found.insert(word(rest));
            continue;
        };
        let (mut depth, mut begins) = (0, true);
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => begins = true,
                c if begins && !c.is_whitespace() => {
                    found.insert(word(&list[at..]));
                    begins = false;
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn a_room_uses_what_the_table_says_and_all_of_it() {
    let table: BTreeMap<_, BTreeSet<_>> =
        USES.iter().map(|(room, uses)| (*room, uses.iter().map(ToString::to_string).collect())).collect();
    for (room, files) in rooms() {
        let mut uses: BTreeSet<String> = files.iter().flat_map(|(_, code)| used(code)).collect();
        uses.remove(&room);
        let wanted = table.get(room.as_str()).cloned().unwrap_or_default();
        if let Some(more) = uses.difference(&wanted).next() {
            let names = |code: &str| used(code).contains(more);
            let files: Vec<_> = files.iter().filter(|(_, code)| names(code)).map(|(path, _)| path).collect();
            panic!(
                "{room} uses {more} in {files:?}: is that meant? The table is in operator/tests/layers.rs"
            );
        }
        let fewer: Vec<_> = wanted.difference(&uses).collect();
        assert!(fewer.is_empty(), "{room} does not use {fewer:?} any more: take it out of the table");
    }
}

#[test]
fn pure_rooms_use_pure_rooms_and_name_no_client_runtime_or_clock() {
    let rooms = rooms();
    for room in PURE {
        let impure =
            USES.iter().find(|(r, _)| r == room).map(|(_, uses)| uses.iter().filter(|u| !PURE.contains(u)));
        assert_eq!(impure.map_or(0, Iterator::count), 0, "{room}");
        for (path, code) in &rooms[*room] {
            let named: Vec<_> = IMPURE.iter().filter(|name| code.contains(**name)).collect();
            assert!(named.is_empty(), "{} names {named:?}", path.display());
        }
    }
}
