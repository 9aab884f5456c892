//! No command of the documentation is only text: the client's are what its command line understands, targets of make
//! exist, and everything else is run on the test bed by `tests/e2e/tests/e2e/docs.rs`, word for word.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests; clippy.toml speaks of #[test] only"
)]

#[path = "common/pages.rs"]
mod pages;

use clap::Parser;
use pages::{PAGES, commands, commands_of, is_command};
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
        ["kubectl get vmm", "kubectl patch vmm x --type merge", "make a", "kubectl b    c"]
    );
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

#[test]
fn every_command_is_run_by_a_test() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let test = fs::read_to_string(root().join("tests/e2e/tests/e2e/docs.rs")).unwrap();
    for command in commands(&root()).unwrap() {
        if let Some(target) = command.strip_prefix("make ") {
            assert!(makefile.contains(&format!("\n{target}: ")), "there is no target {target}");
        } else {
            let quoted = [format!("\"{command}\""), format!("r#\"{command}\"#")];
            let run = quoted.iter().any(|q| test.contains(q));
            assert!(run, "tests/e2e/tests/e2e/docs.rs does not run: {command}");
        }
    }
}
