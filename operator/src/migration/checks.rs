//! Checks of the application: what can be said of them before anybody is asked.

use crate::{
    contract::{host_key, pattern},
    crd::v1alpha1::*,
};

/// Where the private keys of checks are mounted.
pub const KEYS: &str = "/etc/vmmigration-check";

/// What is wrong with the checks, and with the host keys of hooks, whatever the clouds look like.
pub fn findings(spec: &VmMigrationSpec) -> Vec<Finding> {
    let checks = spec.verification.iter().flat_map(|v| &v.checks);
    let of_checks = checks.flat_map(|c| patterns(c).into_iter().chain(key_of_check(c)));
    let of_hooks = spec.hooks.iter().filter_map(|h| {
        let key = h.ssh.as_ref()?.host_key.as_ref()?;
        host_key_finding(&format!("hook {}", h.name), key)
    });
    of_checks.chain(of_hooks).collect()
}

fn patterns(check: &Check) -> Vec<Finding> {
    let http = check.http.as_ref();
    let all = [
        check.console.as_ref().map(|c| &c.pattern),
        http.and_then(|h| h.pattern.as_ref()),
        http.and_then(|h| h.header.as_ref()?.pattern.as_ref()),
    ];
    let bad = all.into_iter().flatten().filter_map(|text| Some((text, pattern(text).err()?)));
    bad.map(|(text, why)| Finding {
        id: "check-pattern-invalid".into(),
        severity: Severity::Blocker,
        message: format!("check {}: pattern {text:?} cannot be read: {why}", check.name),
        suggestion: Some(
            "delete this VmMigration and create one with a regular expression in RE2's syntax".into(),
        ),
    })
    .collect()
}

fn key_of_check(check: &Check) -> Option<Finding> {
    host_key_finding(&format!("check {}", check.name), check.ssh.as_ref()?.host_key.as_ref()?)
}

fn host_key_finding(whose: &str, key: &str) -> Option<Finding> {
    let why = host_key(key).err()?;
    Some(Finding {
        id: "host-key-invalid".into(),
        severity: Severity::Blocker,
        message: format!("{whose}: hostKey: {why}"),
        suggestion: Some(
            "delete this VmMigration and create one with a line of the guest's /etc/ssh/ssh_host_*_key.pub"
                .into(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn found(check: Value) -> Vec<(String, String)> {
        let spec = json!({"source": {"cloud": "a", "server": "s"}, "destination": {"cloud": "b"},
            "cutover": {"mode": "Now"}, "verification": {"checks": [check]}});
        let spec = serde_json::from_value(spec).unwrap();
        findings(&spec).into_iter().map(|f| (f.id, f.message)).collect()
    }

    #[test]
    fn what_cannot_be_read_is_a_blocker() {
        let header = json!({"name": "h", "http": {"pattern": "[", "header": {"name": "x", "pattern": "*"}}});
        assert_eq!(found(header).len(), 2);
        let console = found(json!({"name": "boot", "console": {"pattern": "a(?=b)"}}));
        assert_eq!(console[0].0, "check-pattern-invalid");
        assert!(console[0].1.starts_with("check boot: pattern \"a(?=b)\""), "{console:?}");
        let ssh = |key: &str| {
            json!({"name": "up", "ssh": {"user": "u", "command": "true", "hostKey": key,
            "privateKeySecretRef": {"name": "s", "key": "k"}}})
        };
        assert_eq!(found(ssh("ssh-ed25519 AAAA no key"))[0].0, "host-key-invalid");
        let good = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHxVNrdUMyEeQmxaOXLMud0uwgOFNu0sqwMoly0uKS0C";
        assert!(found(ssh(good)).is_empty());
        assert!(
            found(json!({"name": "p", "http": {"pattern": "o[kn]", "header": {"name": "x"}}})).is_empty()
        );
    }
}
