//! One version everywhere: program, chart, documentation, changelog (RELEASE.md).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests; clippy.toml speaks of #[test] only"
)]

use serde_json::Value;
use std::path::PathBuf;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn the_chart_is_of_the_programs_version() {
    let chart: Value = serde_saphyr::from_str(&read("charts/vmmigration-operator/Chart.yaml")).unwrap();
    assert_eq!((chart["version"].as_str(), chart["appVersion"].as_str()), (Some(VERSION), Some(VERSION)));
}

#[test]
fn the_documentation_names_this_version() {
    let page = read("docs/getting-started.md");
    let tags = page.split("vmmigration:").skip(1).chain(page.split("image.tag=").skip(1));
    let versions: Vec<_> = tags.map(|rest| rest.split([' ', '\n', '`']).next().unwrap()).collect();
    assert!(!versions.is_empty() && versions.iter().all(|v| *v == VERSION), "{versions:?}");
}

#[test]
fn the_changelog_begins_with_what_is_not_released() {
    let page = read("CHANGELOG.md");
    let first = page.lines().find_map(|line| line.strip_prefix("## "));
    assert_eq!(first, Some("[Unreleased]"));
}
