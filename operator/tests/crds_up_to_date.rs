//! The generated definitions in `crds/`, the chart's copy of them and `docs/reference.md` say what the code says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests; clippy.toml speaks of #[test] only"
)]

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::Value;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn names_in(directory: &PathBuf) -> BTreeSet<String> {
    fs::read_dir(directory)
        .unwrap_or_else(|e| panic!("{}: {e}: run `make crds`", directory.display()))
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn crds_are_what_the_code_says() {
    let directory = repository().join("crds");
    let mut expected = BTreeSet::new();
    for crd in vmmigration::crd::all() {
        let name = vmmigration::crd::file_name(&crd);
        let path = directory.join(&name);
        let text =
            fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}: run `make crds`", path.display()));
        let file: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(file, serde_json::to_value(&crd).unwrap(), "crds/{name} is out of date: run `make crds`");
        expected.insert(name);
    }
    assert_eq!(
        names_in(&directory),
        expected,
        "crds/ holds other files than the code makes: run `make crds`"
    );
}

#[test]
fn the_reference_is_what_the_code_says() {
    let page = fs::read_to_string(repository().join("docs/reference.md")).unwrap_or_default();
    let same = page == vmmigration::reference::markdown(&vmmigration::crd::all());
    assert!(same, "docs/reference.md is out of date: run `make crds`");
}

#[test]
fn chart_carries_the_same_crds() {
    let (ours, charts) =
        (repository().join("crds"), repository().join("charts/vmmigration-operator/files/crds"));
    assert_eq!(names_in(&ours), names_in(&charts), "the chart's copy is out of date: run `make crds`");
    for name in names_in(&ours) {
        let same = fs::read(ours.join(&name)).unwrap() == fs::read(charts.join(&name)).unwrap();
        assert!(same, "the chart's copy of {name} is out of date: run `make crds`");
    }
}

/// Helm must not take the definitions, and with them every migration, away on uninstall.
#[test]
fn crds_are_kept_on_uninstall() {
    for crd in vmmigration::crd::all() {
        let policy = crd.metadata.annotations.unwrap_or_default().remove("helm.sh/resource-policy");
        assert_eq!(policy.as_deref(), Some("keep"), "{:?}", crd.metadata.name);
    }
}
