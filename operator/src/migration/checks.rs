//! Checks of the application: what can be said of them before anybody is asked.

use crate::{
    contract::{host_key, host_keys_from_console, pattern},
    crd::v1alpha1::*,
    migration::names::Side,
};

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

/// Does a hook want the host keys that the source's guest printed on its console?
pub fn want_the_sources_console(spec: &VmMigrationSpec) -> bool {
    spec.hooks.iter().any(|h| of_source(h) && keyless(h) && before_the_start(h.phase))
}

/// What can be said before the stop of the host keys that hooks over SSH will find. `console` is the source's; hooks that
/// have begun have found theirs.
pub fn host_keys(
    spec: &VmMigrationSpec,
    rows: &[HookRow],
    console: Option<&Result<String, String>>,
) -> Vec<Finding> {
    let begun = |h: &&Hook| rows.iter().any(|r| r.name == h.name && r.attempts > 0);
    let hooks = spec.hooks.iter().filter(|h| !begun(h));
    let of_hooks = hooks.filter_map(|h| {
        let given = h.ssh.as_ref()?.host_key.is_some();
        match given {
            true if of_destination(h) => Some(may_be_new(&format!("hook {}", h.name))),
            false if of_source(h) && before_the_start(h.phase) => not_on_the_console(h, console?),
            false if of_source(h) && at_the_end(h.phase) => Some(after_the_stop(h)),
            _ => None,
        }
    });
    let checks = spec.verification.iter().flat_map(|v| &v.checks);
    let given = checks.filter(|c| c.ssh.as_ref().is_some_and(|s| s.host_key.is_some()));
    given.map(|c| may_be_new(&format!("check {}", c.name))).chain(of_hooks).collect()
}

fn keyless(hook: &Hook) -> bool {
    hook.ssh.as_ref().is_some_and(|s| s.host_key.is_none())
}

/// It runs, or may run, in the source.
fn of_source(hook: &Hook) -> bool {
    let side = hook.ssh.as_ref().and_then(|s| s.side);
    let moved = matches!(hook.phase, HookPhase::AfterStart | HookPhase::AfterVerification);
    side.map_or(!moved, |side| side == HookSide::Source)
}

/// It runs, or may run, in the destination.
fn of_destination(hook: &Hook) -> bool {
    let side = hook.ssh.as_ref().and_then(|s| s.side);
    side.map_or(!of_source(hook) || hook.phase == HookPhase::Finally, |side| side == HookSide::Destination)
}

/// Until the new server starts, the source's console is what preflight sees.
fn before_the_start(phase: HookPhase) -> bool {
    matches!(phase, HookPhase::BeforeStop | HookPhase::AfterStop | HookPhase::BeforeCreate)
}

fn at_the_end(phase: HookPhase) -> bool {
    matches!(phase, HookPhase::OnFailure | HookPhase::Finally)
}

fn may_be_new(whose: &str) -> Finding {
    Finding {
        id: "host-key-may-be-new".into(),
        severity: Severity::Warning,
        message: format!(
            "{whose}: hostKey is a second possibility only: cloud-init makes new host keys for a new instance, so what the \
             new server prints on its console is trusted first"
        ),
        suggestion: Some(
            "leave hostKey out if the guest prints its keys; or have cloud-init keep them (docs/cloud-init.md)"
                .into(),
        ),
    }
}

/// The hook would wait for all of its time, and fail.
fn not_on_the_console(hook: &Hook, console: &Result<String, String>) -> Option<Finding> {
    let why = match console {
        Ok(text) if !host_keys_from_console(text).is_empty() => return None,
        Ok(_) => "shows none: cloud-init prints them once, and a stop and start begins a new log".to_string(),
        Err(why) => format!("cannot be read: {why}"),
    };
    let goes_on = hook.on_error == Some(OnError::Continue);
    Some(Finding {
        id: "hook-host-key-unknown".into(),
        severity: if goes_on { Severity::Warning } else { Severity::Blocker },
        message: format!(
            "hook {} ({}) has no hostKey, and the source's console {why}",
            hook.name, hook.phase
        ),
        suggestion: Some(
            "delete this VmMigration and create one with ssh.hostKey, a line of the guest's \
             /etc/ssh/ssh_host_ed25519_key.pub; or, in the guest, as root: cloud-init single --name \
             keys-to-console --frequency always"
                .into(),
        ),
    })
}

/// Whether it will be there then nobody can say.
fn after_the_stop(hook: &Hook) -> Finding {
    Finding {
        id: "hook-host-key-after-stop".into(),
        severity: Severity::Warning,
        message: format!(
            "hook {} ({}) has no hostKey: in the source it may run after a stop and start, when the console shows no host \
             keys any more",
            hook.name, hook.phase
        ),
        suggestion: Some("give it ssh.hostKey, which in the destination is a second possibility".into()),
    }
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

/// The host keys that a hook trusts in a guest: `given` by the spec, or `printed` on the console. `None`: there are none
/// yet. In the source the given one alone counts. In the destination cloud-init may have made new ones, so what the guest
/// printed comes first, and the given one alone is trusted only when the console is not waited for any more.
pub fn trusted(side: Side, given: Option<&str>, printed: Vec<String>, waits: bool) -> Option<Vec<String>> {
    let given: Vec<String> = given.map(String::from).into_iter().collect();
    match side {
        Side::Source if !given.is_empty() => Some(given),
        Side::Destination if printed.is_empty() && waits => None,
        _ => Some([printed, given].concat()).filter(|keys| !keys.is_empty()),
    }
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

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHxVNrdUMyEeQmxaOXLMud0uwgOFNu0sqwMoly0uKS0C";

    /// What is said of one hook over SSH; `console` is the source's, `more` goes into the hook or its `ssh`.
    fn said_of(phase: &str, ssh: Value, more: Value, console: Result<&str, &str>) -> Vec<(String, Severity)> {
        let mut hook = json!({"name": "h", "phase": phase, "ssh": {"user": "u", "script": "true",
            "privateKeySecretRef": {"name": "s", "key": "k"}}});
        hook["ssh"].as_object_mut().unwrap().extend(ssh.as_object().unwrap().clone());
        hook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let spec = json!({"source": {"cloud": "a", "server": "s"}, "destination": {"cloud": "b"},
            "cutover": {"mode": "Now"}, "hooks": [hook]});
        let spec = serde_json::from_value(spec).unwrap();
        let console = console.map(String::from).map_err(String::from);
        let console = want_the_sources_console(&spec).then_some(console);
        let found = host_keys(&spec, &[], console.as_ref());
        found.into_iter().map(|f| (f.id, f.severity)).collect()
    }

    /// A hook waited for all of its time, and the move failed after the go.
    #[test]
    fn a_hook_that_will_find_no_host_key_in_the_source_is_known_before_the_stop() {
        let block = format!("-----BEGIN SSH HOST KEY KEYS-----\n{KEY}\n-----END SSH HOST KEY KEYS-----\n");
        let unknown = |severity| vec![("hook-host-key-unknown".to_string(), severity)];
        let (none, goes_on) = (json!({}), json!({"onError": "Continue"}));
        for phase in ["BeforeStop", "AfterStop", "BeforeCreate"] {
            let of = |ssh: Value, more: &Value, console| said_of(phase, ssh, more.clone(), console);
            assert_eq!(of(json!({}), &none, Ok(&block)), []);
            assert_eq!(of(json!({}), &none, Ok("login:")), unknown(Severity::Blocker), "{phase}");
            assert_eq!(of(json!({}), &none, Err("403: no")), unknown(Severity::Blocker), "{phase}");
            assert_eq!(of(json!({}), &goes_on, Ok("")), unknown(Severity::Warning), "{phase}");
            assert_eq!(of(json!({"hostKey": KEY}), &none, Err("403: no")), [], "{phase}");
        }
        for phase in ["OnFailure", "Finally"] {
            let said = said_of(phase, json!({}), json!({}), Ok(&block));
            assert_eq!(said, [("hook-host-key-after-stop".to_string(), Severity::Warning)], "{phase}");
        }
        assert_eq!(said_of("BeforePreflight", json!({}), json!({}), Err("no")), [], "it has run");
        assert_eq!(said_of("AfterStart", json!({}), json!({}), Err("no")), []);
        // The host keys of a hook that has begun were there.
        let spec: VmMigrationSpec = serde_json::from_value(json!({"source": {"cloud": "a", "server": "s"},
            "destination": {"cloud": "b"}, "cutover": {"mode": "Now"}, "hooks": [{"name": "h", "phase": "BeforeStop",
            "ssh": {"user": "u", "script": "true", "privateKeySecretRef": {"name": "s", "key": "k"}}}]}))
        .unwrap();
        let begun = HookRow { name: "h".into(), attempts: 1, ..Default::default() };
        assert_eq!(host_keys(&spec, &[begun], Some(&Ok(String::new()))), []);
    }

    #[test]
    fn a_host_key_for_the_destination_is_warned_of() {
        let warned = vec![("host-key-may-be-new".to_string(), Severity::Warning)];
        for (phase, side, wanted) in [
            ("AfterStart", None, true),
            ("AfterVerification", None, true),
            ("Finally", None, true),
            ("Finally", Some("Source"), false),
            ("BeforeStop", None, false),
            ("BeforeStop", Some("Destination"), true),
        ] {
            let ssh = json!({"hostKey": KEY, "side": side});
            let said = said_of(phase, ssh, json!({}), Ok(""));
            assert_eq!(said, if wanted { warned.clone() } else { vec![] }, "{phase} {side:?}");
        }
        let spec = json!({"source": {"cloud": "a", "server": "s"}, "destination": {"cloud": "b"},
            "cutover": {"mode": "Now"}, "verification": {"checks": [{"name": "up", "ssh": {"user": "u",
            "command": "true", "hostKey": KEY, "privateKeySecretRef": {"name": "s", "key": "k"}}}]}});
        let found = host_keys(&serde_json::from_value(spec).unwrap(), &[], None);
        assert_eq!(found.len(), 1);
        assert!(found[0].message.starts_with("check up: hostKey is a second"), "{found:?}");
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

    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK0wmN/Cr3JXqmLW7u+g9pTh+wyqDHpSQEIQczXkVx9i";

    /// One that was read in the source made a good move fail: the guest had a new one.
    #[test]
    fn in_the_destination_the_console_comes_before_the_given_key() {
        let of = |side, given, printed: &[&str], waits| {
            trusted(side, given, printed.iter().map(|k| k.to_string()).collect(), waits)
        };
        let all = |keys: &[&str]| Some(keys.iter().map(|k| k.to_string()).collect::<Vec<_>>());
        let (given, a, b) = (Some(KEY), Side::Source, Side::Destination);
        for waits in [true, false] {
            assert_eq!(of(a, given, &[], waits), all(&[KEY]));
            assert_eq!(of(a, None, &[OTHER], waits), all(&[OTHER]));
            assert_eq!(of(a, None, &[], waits), None);
            assert_eq!(of(b, given, &[OTHER], waits), all(&[OTHER, KEY]));
            assert_eq!(of(b, None, &[OTHER], waits), all(&[OTHER]));
            assert_eq!(of(b, None, &[], waits), None);
        }
        assert_eq!(of(b, given, &[], true), None, "the console may show others soon");
        assert_eq!(of(b, given, &[], false), all(&[KEY]));
    }
}
