//! Every command that the pages of the documentation show, and what proves that it works. Used by `docs_commands` and by
//! the end-to-end tests that run them.
#![allow(dead_code, reason = "each test uses its part")]

use std::{collections::BTreeSet, path::Path};

/// Pages whose commands are run by a test or by CI.
pub const PAGES: [&str; 8] = [
    "README.md",
    "docs/checks.md",
    "docs/client.md",
    "docs/cloud-init.md",
    "docs/getting-started.md",
    "docs/gitops.md",
    "docs/hooks.md",
    "docs/operations.md",
];

/// What a command begins with.
pub const PROGRAMS: [&str; 11] = [
    "cargo ",
    "curl ",
    "docker ",
    "helm ",
    "install ",
    "kubectl ",
    "make ",
    "openstack ",
    "restic ",
    "tests/",
    "vmmigration ",
];

/// The end-to-end tests that run the commands word for word: each has those it runs as strings.
pub const TESTS: [&str; 2] = ["tests/e2e/tests/e2e/docs.rs", "tests/e2e/tests/e2e/alone/helm.rs"];

/// What happens with a command that none of [`TESTS`] runs.
pub enum Instead {
    /// This script of CI has it, as this.
    Ci(&'static str, &'static str),
    /// Nothing can run it where the tests run: why.
    Nothing(&'static str),
}

/// All commands that none of [`TESTS`] runs.
pub const ELSEWHERE: [(&str, Instead); 11] = [
    ("make client", Instead::Ci("tests/e2e/pages", "make client")),
    ("make demo", Instead::Ci("Makefile", "make demo")),
    ("make demo-client", Instead::Ci("Makefile", "make demo-client")),
    (
        "make demo MODES=\"Image Volume\"",
        Instead::Nothing("takes minutes more: `make test-long` runs all modes"),
    ),
    ("make test", Instead::Ci(".ci/run", "make test")),
    ("make test-e2e", Instead::Ci(".ci/run", "make test-e2e")),
    // An hour: its smallest form.
    ("make bench", Instead::Ci("tests/e2e/pages", "BENCH_SCALE=64 make bench")),
    ("make testbed-down", Instead::Ci("tests/e2e/pages", "make testbed-down")),
    (
        "make image IMAGE=registry.example.com/vmmigration:0.1.0",
        Instead::Nothing("needs a container engine, and a registry for what the image begins with"),
    ),
    (
        "kubectl -n argocd patch configmap argocd-cm --patch-file config/argocd/argocd-cm.yaml",
        Instead::Nothing("needs Argo CD; the scripts in the file are run by `decide/gitops_tests.rs`"),
    ),
    ("docker push registry.example.com/vmmigration:0.1.0", Instead::Nothing("needs a registry")),
];

/// All commands of [`PAGES`] below `root`, as they are written there, without comments.
pub fn commands(root: &Path) -> std::io::Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for page in PAGES {
        all.extend(commands_of(&std::fs::read_to_string(root.join(page))?));
    }
    Ok(all)
}

/// The commands of one page: lines of blocks of `sh`, or the whole block where its lines need each other; and code within
/// a sentence that is more than a command's name.
pub fn commands_of(page: &str) -> Vec<String> {
    let mut found = vec![];
    for (n, part) in page.split("```").enumerate() {
        if n % 2 == 0 {
            // Code may be broken over two lines of a paragraph.
            let spans = part.split('`').skip(1).step_by(2);
            let spans = spans.map(|s| s.split_whitespace().collect::<Vec<_>>().join(" "));
            let whole = |s: &String| s.starts_with("make ") || s.split(' ').count() > 2;
            found.extend(spans.filter(|s| is_command(s) && whole(s)));
        } else if let Some(block) = part.strip_prefix("sh\n") {
            found.extend(commands_of_block(block));
        }
    }
    found
}

fn commands_of_block(block: &str) -> Vec<String> {
    if block.lines().any(|line| is_assignment(line) || line.contains("<<")) {
        return vec![block.trim_end().to_string()];
    }
    let mut joined = vec![String::new()];
    for line in block.lines() {
        let line = line.split("  #").next().unwrap_or(line).trim();
        let (text, goes_on) = line.strip_suffix('\\').map_or((line, false), |text| (text.trim_end(), true));
        if let Some(last) = joined.last_mut() {
            last.push_str(if last.is_empty() { "" } else { " " });
            last.push_str(text);
        }
        if !goes_on {
            joined.push(String::new());
        }
    }
    joined.retain(|line| !line.is_empty());
    joined
}

/// `name=value`, which later lines use.
fn is_assignment(line: &str) -> bool {
    let name = line.split_once('=').map_or("", |(name, _)| name);
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Does it begin as a command does?
pub fn is_command(text: &str) -> bool {
    PROGRAMS.iter().any(|p| text.starts_with(p))
}

/// Does the source of a test have the command as a string?
pub fn has(source: &str, command: &str) -> bool {
    [format!("\"{command}\""), format!("r#\"{command}\"#")].iter().any(|quoted| source.contains(quoted))
}

/// Does a script run this, comments aside?
pub fn runs(script: &str, line: &str) -> bool {
    let lines = script.lines().map(str::trim).filter(|l| !l.starts_with('#'));
    let ends = |rest: &str| rest.is_empty() || rest.starts_with([' ', ';', ')', '"']);
    lines.into_iter().any(|l| l.match_indices(line).any(|(at, _)| ends(&l[at + line.len()..])))
}
