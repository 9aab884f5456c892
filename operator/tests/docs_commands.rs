//! No command of the documentation is only text: the client's are what its command line understands, targets of make
//! exist, and each command is run word for word on the test bed, by an end-to-end test or by CI. What cannot be run is in
//! one list, with the reason: `pages::ELSEWHERE`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests; clippy.toml speaks of #[test] only"
)]

#[path = "common/pages.rs"]
mod pages;

use clap::Parser;
use pages::{ELSEWHERE, Instead, PAGES, TESTS, commands, commands_of, has, is_command, runs};
use std::{fs, path::PathBuf};
use vmmigration::client::cli::Cli;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn commands_are_found() {
    let page = "A `kubectl get vmm` and\n`kubectl patch vmm x\n--type merge`, `kubectl vmmigration`.\n\
                ```sh\nmake a  # why\n\nkubectl b \\\n  c\n```\n```\nnot this\n```\n```yaml\nor: that\n```\n";
    assert_eq!(
        commands_of(page),
        ["kubectl get vmm", "kubectl patch vmm x --type merge", "make a", "kubectl b c"]
    );
    // Lines that need each other are one command.
    let script = "ns=a\nkubectl -n $ns get vmm <<EOF\nnot a command\nEOF";
    assert_eq!(commands_of(&format!("`make down`\n```sh\n{script}\n```\n")), ["make down", script]);
}

#[test]
fn only_what_a_script_runs_counts() {
    assert!(runs("set -e\n  make demo || exit 1\n", "make demo") && runs("make demo", "make demo"));
    assert!(!runs("# make demo\nmake demo-client\nmake demos\n", "make demo"));
}

#[test]
fn commands_are_in_blocks_that_say_so() {
    for page in PAGES {
        let text = fs::read_to_string(root().join(page)).unwrap();
        for block in text.split("```").skip(1).step_by(2).filter(|b| b.starts_with('\n')) {
            let hidden: Vec<_> = block.lines().filter(|l| is_command(l)).collect();
            assert!(hidden.is_empty(), "{page}: commands in a block that is not marked sh: {hidden:?}");
        }
    }
}

#[test]
fn the_clients_commands_are_what_it_understands() {
    let scripts = tempfile::tempdir().unwrap();
    for name in ["stop-app.sh", "ask.sh"] {
        fs::write(scripts.path().join(name), "true\n").unwrap();
    }
    let all = commands(&root()).unwrap();
    let ours: Vec<_> = all.iter().filter(|c| c.starts_with("kubectl vmmigration ")).collect();
    assert!(ours.len() > 15, "only {ours:?}");
    for command in ours {
        let here = command.split('>').next().unwrap();
        let here = here.replace("./", &format!("{}/", scripts.path().display()));
        let words = shell_words::split(&here).unwrap();
        let read = Cli::try_parse_from(words.into_iter().skip(1));
        // Help is an error with exit code 0.
        assert!(read.as_ref().map_or_else(|e| e.exit_code() == 0, |_| true), "{command}: {read:?}");
    }
}

/// What proves commands: the sources of the tests that run them, and the scripts of CI.
struct Proofs {
    tests: Vec<String>,
    makefile: String,
}

impl Proofs {
    fn read() -> Self {
        let read = |file: &str| fs::read_to_string(root().join(file)).unwrap();
        Proofs { tests: TESTS.iter().map(|file| read(file)).collect(), makefile: read("Makefile") }
    }

    /// What is missing for the command; `None`: it is run.
    fn missing(&self, command: &str) -> Option<String> {
        if let Some(target) = command.strip_prefix("make ") {
            let target = target.split(' ').next().unwrap();
            if !self.makefile.contains(&format!("\n{target}: ")) {
                return Some(format!("there is no target {target}"));
            }
        }
        if self.tests.iter().any(|source| has(source, command)) {
            return None;
        }
        match ELSEWHERE.iter().find(|(known, _)| *known == command) {
            None => Some(format!("neither a test of {TESTS:?} nor CI runs: {command}")),
            Some((_, Instead::Nothing(_))) => None,
            Some((_, Instead::Ci(file, line))) => {
                let script = fs::read_to_string(root().join(file)).unwrap_or_default();
                (!runs(&script, line)).then(|| format!("{file} does not run: {line}"))
            }
        }
    }
}

#[test]
fn every_command_is_run_by_a_test_or_by_ci() {
    let proofs = Proofs::read();
    let missing: Vec<_> = commands(&root()).unwrap().iter().filter_map(|c| proofs.missing(c)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn a_command_that_nothing_runs_is_refused() {
    let proofs = Proofs::read();
    let missing = |page: &str| -> Vec<String> {
        commands_of(page).iter().filter_map(|command| proofs.missing(command)).collect()
    };
    for refused in [
        "Then `make nothing`.",
        "`make crds` is a target, and CI does not run it.",
        "```sh\nmake demo TWICE=1\n```",
        "```sh\nhelm rollback vmmigration\n```",
        "```sh\nkubectl get vmms\n```",
        "```sh\ndocker push registry.example.com/other:1\n```",
        "```sh\nns=other\nkubectl get vmm\n```",
    ] {
        assert_eq!(missing(refused).len(), 1, "{refused}: {:?}", missing(refused));
    }
    assert_eq!(missing("`make demo`, and\n```sh\nkubectl get vmm  # all\n```\n"), Vec::<String>::new());
}

#[test]
fn what_is_not_on_a_page_any_more_is_not_in_the_list() {
    let all = commands(&root()).unwrap();
    let stale: Vec<_> = ELSEWHERE.iter().map(|(command, _)| *command).filter(|c| !all.contains(*c)).collect();
    assert!(stale.is_empty(), "{stale:?}");
}
