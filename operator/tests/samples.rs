//! Every sample, and every YAML block of the documentation, is what the code understands.
//!
//! Each document is read into its type and written again: a field that got lost on the way is a field that does not
//! exist. Our own kinds must pass the rules that the API server checks, too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests; clippy.toml speaks of #[test] only"
)]

mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use common::{repository, typed};
use k8s_openapi::api::{
    core::v1::{LimitRange, Namespace, ResourceQuota, ResourceRequirements, Secret},
    rbac::v1::RoleBinding,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use vmmigration::crd::v1alpha1::{ObjectStore, OpenStackCloud, VmMigration};

fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(repository().join(directory))
        .unwrap_or_else(|e| panic!("{directory}: {e}"))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    found.sort();
    found
}

/// A kind of Kubernetes, which has no rules that could be checked here.
fn known<T: DeserializeOwned + Serialize, E>(document: &Value, origin: &str) -> Result<(), E> {
    typed::<T>(document, origin);
    Ok(())
}

/// Reads all documents of one text; how many are of our own kinds.
fn check(text: &str, origin: &str) -> usize {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|e| panic!("{origin}: {e}"));
    let mut ours = 0;
    for document in documents.iter().filter(|d| !d.is_null()) {
        let kind = document["kind"].as_str().unwrap_or_else(|| panic!("{origin}: no kind: {document:#}"));
        let rules = match kind {
            "OpenStackCloud" => typed::<OpenStackCloud>(document, origin).validate_cel(),
            "ObjectStore" => typed::<ObjectStore>(document, origin).validate_cel(),
            "VmMigration" => typed::<VmMigration>(document, origin).validate_cel(),
            "Namespace" => known::<Namespace, _>(document, origin),
            "ResourceQuota" => known::<ResourceQuota, _>(document, origin),
            "LimitRange" => known::<LimitRange, _>(document, origin),
            "RoleBinding" => known::<RoleBinding, _>(document, origin),
            "Secret" => {
                let secret: Secret = typed(document, origin);
                // YAML within YAML is where indentation goes wrong.
                for (key, text) in secret.string_data.unwrap_or_default() {
                    if key == "clouds.yaml" || key == "kubeconfig" {
                        serde_saphyr::from_str::<Value>(&text)
                            .unwrap_or_else(|e| panic!("{origin}: {key}: {e}"));
                    }
                }
                Ok(())
            }
            other => panic!("{origin}: kind {other} is not known to this test"),
        };
        rules.unwrap_or_else(|e| panic!("{origin}: {kind} is refused: {e:?}"));
        ours += usize::from(document["apiVersion"] == "vmmigration.io/v1alpha1");
    }
    ours
}

#[test]
fn samples_are_valid() {
    let files = files("config/samples", "yaml");
    let ours: usize = files
        .iter()
        .map(|path| check(&fs::read_to_string(path).unwrap(), path.file_name().unwrap().to_str().unwrap()))
        .sum();
    assert!(ours >= 7, "only {ours} documents of our kinds in {files:?}");
}

#[test]
fn yaml_in_the_documentation_is_valid() {
    let mut pages = files("docs", "md");
    pages.push(repository().join("README.md"));
    let mut ours = 0;
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for (n, block) in text.split("```yaml\n").skip(1).enumerate() {
            let block = block.split("```").next().unwrap();
            // Values of the chart and parts of objects are shown as well.
            if block.contains("kind:") {
                ours += check(block, &format!("{}, YAML block {}", page.display(), n + 1));
            }
        }
    }
    assert!(ours > 0, "no object in README.md and docs/");
}

/// The README shows the sample, not something like it.
#[test]
fn readme_shows_the_minimal_sample() {
    let sample = fs::read_to_string(repository().join("config/samples/migration-minimal.yaml")).unwrap();
    let (comment, sample) = sample.split_once('\n').unwrap();
    assert!(comment.starts_with("# "));
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    assert!(readme.contains(&format!("```yaml\n{sample}```")), "README.md must show:\n{sample}");
}

/// Bytes, or thousandths of a core.
fn amount(quantity: &str) -> f64 {
    let at = quantity.find(|c: char| !c.is_ascii_digit()).unwrap_or(quantity.len());
    let (number, unit) = quantity.split_at(at);
    let factor = match unit {
        "m" => 1.0,
        "" => 1e3,
        "Mi" => 2f64.powi(20),
        "Gi" => 2f64.powi(30),
        other => panic!("unit {other} is not known to this test"),
    };
    number.parse::<f64>().unwrap() * factor
}

/// The platform's sample lets hooks in: their pods run in the team's namespace, with the chart's resources.
#[test]
fn the_platforms_sample_has_room_for_hooks() {
    let read = |path: &str| fs::read_to_string(repository().join(path)).unwrap();
    let values: Value = serde_saphyr::from_str(&read("charts/vmmigration-operator/values.yaml")).unwrap();
    let pod: ResourceRequirements = typed(&values["movers"]["resources"], "movers.resources");
    let (requests, limits) = (pod.requests.unwrap(), pod.limits.unwrap());
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&read("config/samples/platform-tenant.yaml")).unwrap();
    let of = |kind: &str| documents.iter().find(|d| d["kind"] == kind).cloned().unwrap();

    let quota: ResourceQuota = typed(&of("ResourceQuota"), "quota");
    let range: LimitRange = typed(&of("LimitRange"), "limits");
    let range = range.spec.unwrap().limits.remove(0);
    for (name, hard) in quota.spec.unwrap().hard.unwrap() {
        let asked = match name.split_once('.') {
            Some(("requests", kind)) => requests.get(kind),
            Some(("limits", kind)) => limits.get(kind),
            _ => continue,
        };
        // What a quota counts must be said by every pod: one that says nothing is refused.
        let asked = asked.unwrap_or_else(|| panic!("a hook's pod says no {name}, and would be refused"));
        assert!(amount(&asked.0) * 10.0 <= amount(&hard.0), "{name}: no room for ten pods of hooks");
    }
    for (kind, max) in range.max.unwrap() {
        assert!(amount(&limits[&kind].0) <= amount(&max.0), "a hook's pod is larger in {kind}");
    }
    // Where the LimitRange sets a limit, it would be set on hooks that have none, too.
    assert!(range.default.unwrap().keys().all(|kind| limits.contains_key(kind)));
    assert_eq!(of("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
}

/// The hook that tells cloud-init what to keep, as the sample has it.
fn keep_guest() -> String {
    let path = repository().join("config/samples/migration-cloud-init.yaml");
    let sample: VmMigration = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    sample.spec.hooks[0].ssh.clone().unwrap().script.unwrap()
}

/// Runs it in a guest that is a directory, as somebody who needs `sudo` unless the test is run by root.
fn run_in(guest: &Path, script: &str) -> String {
    let bin = guest.join("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::write(bin.join("sudo"), "#!/bin/sh\n[ \"$1\" = -n ] && shift && exec \"$@\"\n").unwrap();
    fs::set_permissions(bin.join("sudo"), fs::Permissions::from_mode(0o755)).unwrap();
    let script = script.replace("/etc/cloud", &guest.join("etc/cloud").to_string_lossy());
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let ended = Command::new("sh").args(["-c", "eval \"$0\"", &script]).env("PATH", path).output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    String::from_utf8(ended.stdout).unwrap()
}

#[test]
fn the_hook_for_cloud_init_writes_one_file_however_often_it_runs() {
    let (guest, script) = (tempfile::tempdir().unwrap(), keep_guest());
    let configuration = guest.path().join("etc/cloud/cloud.cfg.d");
    fs::create_dir_all(configuration.parent().unwrap()).unwrap();
    let mut texts = vec![];
    for _ in 0..2 {
        assert_eq!(run_in(guest.path(), &script), "");
        let files: Vec<_> = fs::read_dir(&configuration).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(files, [configuration.join("99-vmmigration.cfg")], "nothing is left beside it");
        assert_eq!(fs::metadata(&files[0]).unwrap().permissions().mode() & 0o777, 0o644);
        texts.push(fs::read_to_string(&files[0]).unwrap());
    }
    assert_eq!(texts[0], texts[1]);
    // What the page, the preset and the plan say is what the hook writes.
    let read = |text: &str| -> Value { serde_saphyr::from_str(text).unwrap() };
    assert_eq!(read(&texts[0]), read(vmmigration::migration::guest::KEEP_GUEST));
    let page = fs::read_to_string(repository().join("docs/cloud-init.md")).unwrap();
    let shown = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(read(&texts[0]), read(shown));
}

#[test]
fn the_hook_for_cloud_init_leaves_a_guest_without_it_alone() {
    let guest = tempfile::tempdir().unwrap();
    assert!(run_in(guest.path(), &keep_guest()).contains("no cloud-init"));
    assert!(!guest.path().join("etc").exists());
}
