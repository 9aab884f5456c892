//! Other people's code is what `deny.toml` lets in: licences, sources, what is banned, and what is there twice. This is
//! the quick half, by `cargo metadata`; `make deny` has cargo-deny say the same for all platforms.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests; clippy.toml speaks of #[test] only"
)]

use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    env::consts::ARCH,
    path::PathBuf,
    process::Command,
    sync::LazyLock,
};

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    /// None: it is of this repository.
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

impl Metadata {
    /// What is compiled on this platform, tests included.
    fn compiled(&self) -> impl Iterator<Item = &Package> {
        let ids: BTreeSet<_> = self.resolve.nodes.iter().map(|n| &n.id).collect();
        self.packages.iter().filter(move |p| ids.contains(&p.id))
    }

    fn others(&self) -> impl Iterator<Item = &Package> {
        self.compiled().filter(|p| p.source.is_some())
    }

    fn users_of(&self, package: &Package) -> BTreeSet<&str> {
        let users = self.resolve.nodes.iter().filter(|n| n.dependencies.contains(&package.id)).map(|n| &n.id);
        let users: BTreeSet<_> = users.collect();
        self.packages.iter().filter(|p| users.contains(&p.id)).map(|p| p.name.as_str()).collect()
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

static METADATA: LazyLock<Metadata> = LazyLock::new(|| {
    let platform = format!("{ARCH}-unknown-linux-gnu");
    let arguments =
        ["metadata", "--format-version=1", "--locked", "--features=vmmigration/cel", "--filter-platform"];
    let cargo =
        Command::new(env!("CARGO")).args(arguments).arg(platform).current_dir(root()).output().unwrap();
    assert!(cargo.status.success(), "{}", String::from_utf8_lossy(&cargo.stderr));
    serde_json::from_slice(&cargo.stdout).unwrap()
});

/// The entries of a list of `deny.toml`: of each line what is in quotes.
fn list(name: &str) -> Vec<Vec<String>> {
    let rules = std::fs::read_to_string(root().join("deny.toml")).unwrap();
    let after = rules
        .split_once(&format!("\n{name} = [\n"))
        .unwrap_or_else(|| panic!("no list {name} in deny.toml"))
        .1;
    let lines =
        after.lines().take_while(|line| *line != "]").filter(|line| !line.trim_start().starts_with('#'));
    lines.map(|line| line.split('"').skip(1).step_by(2).map(String::from).collect()).collect()
}

/// Whether an SPDX expression is satisfied by what is allowed. AND binds closer than OR; an old `/` is an OR.
fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
    fn any<'a>(
        words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
        allowed: &BTreeSet<String>,
    ) -> bool {
        let mut result = all(words, allowed);
        while words.next_if_eq(&"OR").is_some() {
            result |= all(words, allowed);
        }
        result
    }
    fn all<'a>(
        words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
        allowed: &BTreeSet<String>,
    ) -> bool {
        let mut result = one(words, allowed);
        while words.next_if_eq(&"AND").is_some() {
            result &= one(words, allowed);
        }
        result
    }
    fn one<'a>(
        words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
        allowed: &BTreeSet<String>,
    ) -> bool {
        let mut name = words.next().expect("a licence").to_string();
        if name == "(" {
            let result = any(words, allowed);
            assert_eq!(words.next(), Some(")"));
            return result;
        }
        if words.next_if_eq(&"WITH").is_some() {
            name = format!("{name} WITH {}", words.next().expect("an exception"));
        }
        allowed.contains(&name)
    }
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let result = any(&mut words, allowed);
    assert_eq!(words.next(), None, "{expression}");
    result
}

#[test]
fn expressions_of_licences_are_understood() {
    let allowed: BTreeSet<_> = ["MIT", "A WITH B"].map(String::from).into();
    for (expression, expected) in [
        ("MIT", true),
        ("GPL", false),
        ("GPL/MIT", true),
        ("A", false),
        ("A WITH B", true),
        ("MIT AND GPL", false),
        ("MIT AND GPL OR MIT", true),
        ("MIT AND (GPL OR MIT)", true),
        ("(MIT OR GPL) AND GPL", false),
    ] {
        assert_eq!(satisfied(expression, &allowed), expected, "{expression}");
    }
}

#[test]
fn licences_are_known() {
    let allowed: BTreeSet<String> = list("allow").into_iter().flatten().collect();
    let exceptions: BTreeMap<String, Vec<String>> =
        list("exceptions").into_iter().map(|line| (line[0].clone(), line[1..].to_vec())).collect();
    for package in METADATA.others() {
        let besides = exceptions.get(&package.name).into_iter().flatten().cloned();
        let allowed = allowed.iter().cloned().chain(besides).collect();
        let licence = package.license.as_deref().unwrap_or("none");
        let (name, version) = (&package.name, &package.version);
        assert!(satisfied(licence, &allowed), "{name} {version} has licence {licence}: see deny.toml");
    }
}

#[test]
fn what_is_banned_is_not_compiled() {
    for line in list("deny") {
        let (reason, rest) = line.split_last().unwrap();
        let (banned, wrappers) = rest.split_first().unwrap();
        for package in METADATA.others().filter(|p| p.name == *banned) {
            let users = METADATA.users_of(package);
            let strangers: Vec<_> = users.iter().filter(|u| !wrappers.iter().any(|w| w == *u)).collect();
            assert!(strangers.is_empty(), "{banned} is banned ({reason}); {strangers:?} bring it");
        }
    }
}

#[test]
fn nothing_is_there_twice_without_a_reason() {
    let skipped: Vec<(String, String)> = list("skip")
        .iter()
        .map(|line| {
            line[0].split_once('@').map(|(name, version)| (name.into(), format!("{version}."))).unwrap()
        })
        .collect();
    let is_skipped =
        |p: &Package| skipped.iter().any(|(name, version)| p.name == *name && p.version.starts_with(version));
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in METADATA.others().filter(|p| !is_skipped(p)) {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    assert_eq!(versions, BTreeMap::new(), "take one of them, or say in deny.toml who holds on to the other");
}

#[test]
fn everything_comes_from_crates_io() {
    for package in METADATA.others() {
        let source = package.source.as_deref().unwrap();
        assert_eq!(source, "registry+https://github.com/rust-lang/crates.io-index", "{}", package.name);
    }
}
