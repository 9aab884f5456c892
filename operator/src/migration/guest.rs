//! What cloud-init will do to the moved guest, and what it is told: host name, config drive, user data. Pure.

use super::{observed::DestinationInventory, preflight::Preflight};
use crate::{
    cloud::{Server, Subnet},
    crd::v1alpha1::*,
};

/// The most that Nova takes, in base64, as characters.
const ENCODED: usize = 65535;
/// The most user data that fits into that.
pub const USER_DATA_BYTES: usize = ENCODED / 4 * 3;

/// Tells cloud-init, in the destination, to keep what it can. What `preserve_hostname` forbids has happened by the time that
/// user data are read for the first time; so it is for later boots.
pub const KEEP_GUEST: &str = "#cloud-config
# From the VmMigration that moved this server: what is in the guest stays as it is.
users: []
disable_root: false
allow_public_ssh_keys: false
ssh_deletekeys: false
preserve_hostname: true
";

/// What to do before the stop, for messages.
const BEFORE_THE_STOP: &str = "before the stop, write a file in /etc/cloud/cloud.cfg.d with ssh_deletekeys: false, \
    allow_public_ssh_keys: false, disable_root: false, users: [], preserve_hostname: true (the hook of \
    config/samples/migration-cloud-init.yaml does it); or touch /etc/cloud/cloud-init.disabled; see docs/cloud-init.md";

/// User data that are ready-made.
pub fn ready_made(preset: UserDataPreset) -> &'static str {
    match preset {
        UserDataPreset::KeepGuest => KEEP_GUEST,
    }
}

/// Where user data are from, for status and messages.
pub fn origin(user_data: &UserData) -> Option<String> {
    let secret = user_data.secret_ref.as_ref().map(|r| format!("Secret {}, key {}", r.name, r.key));
    secret.or_else(|| user_data.preset.map(|preset| format!("preset {preset}")))
}

/// What the guest is told and what becomes of it. After the ports are planned.
pub(super) fn plan(
    p: &mut Preflight,
    spec: &VmMigrationSpec,
    server: &Server,
    target: &DestinationInventory,
) {
    plan_user_data(p, spec);
    plan_hostname(p, spec, server, target);
    plan_config_drive(p, spec, server, target);
    p.add(
        Severity::Warning,
        "guest-is-a-new-instance",
        "cloud-init, if the guest has it, takes the new server for a new instance and goes back to its image's defaults: \
         new SSH host keys, a default user with sudo and the key pair's key (or its password locked), root's login by \
         that key turned off, host name and network written anew, scripts per instance run again",
        BEFORE_THE_STOP,
    );
}

fn plan_user_data(p: &mut Preflight, spec: &VmMigrationSpec) {
    p.plan.user_data = spec.destination.user_data.as_ref().and_then(origin);
    let why = match &p.plan.user_data {
        Some(origin) => format!("those of {origin}: cloud-init does all that they say, as in a new instance"),
        None => "the source's are not shown by its cloud and not given again; cloud-init, if the guest has it, takes the \
                 guest for a new instance and follows its image's defaults"
            .into(),
    };
    p.row("user data", Fate::Changed, why);
}

/// What Nova takes as a host name (2.90): no domain, at least two characters.
fn is_hostname(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (2..=63).contains(&text.len())
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn plan_hostname(p: &mut Preflight, spec: &VmMigrationSpec, server: &Server, target: &DestinationInventory) {
    let (asked, source) = (spec.destination.hostname.as_ref(), server.hostname.as_ref());
    let too_old = "needs compute microversion 2.90 (Xena)";
    let of_the_name = "Nova makes one of the server's name";
    match (asked, source.filter(|name| !name.is_empty())) {
        (Some(_), _) if !target.takes_hostname => p.block(
            "hostname-not-taken",
            format!("destination.hostname {too_old}, which {} does not offer", spec.destination.cloud),
            "leave it out and choose destination.serverName so that it gives the host name",
        ),
        (Some(asked), Some(source)) if asked == source => keep_hostname(p, source),
        (Some(asked), source) => {
            let from = source.map_or("unknown", String::as_str);
            p.row("host name", Fate::Changed, format!("{from} -> {asked}, as asked for"));
            p.plan.hostname = Some(asked.clone());
        }
        (None, None) => {
            p.row("host name", Fate::Changed, format!("the source's cloud does not show it; {of_the_name}"))
        }
        (None, Some(source)) if !target.takes_hostname => {
            p.row(
                "host name",
                Fate::Changed,
                format!("to give {source:?} {too_old} in the destination; {of_the_name}"),
            );
        }
        (None, Some(source)) if !is_hostname(source) => {
            p.row("host name", Fate::Changed, format!("{source:?} is none that may be given; {of_the_name}"));
        }
        (None, Some(source)) => keep_hostname(p, source),
    }
}

fn keep_hostname(p: &mut Preflight, name: &str) {
    let why =
        format!("{name}, without the domain, which the destination's cloud adds to it by its own settings");
    p.row("host name", Fate::Kept, why);
    p.plan.hostname = Some(name.into());
}

fn plan_config_drive(
    p: &mut Preflight,
    spec: &VmMigrationSpec,
    server: &Server,
    target: &DestinationInventory,
) {
    let say = |has: bool| if has { "it has one" } else { "it has none" };
    let drive = spec.destination.config_drive.unwrap_or(server.config_drive);
    if drive == server.config_drive {
        p.row("config drive", Fate::Kept, say(drive));
    } else {
        let why = format!("{} -> {}, as asked for", say(server.config_drive), say(drive));
        p.row("config drive", Fate::Changed, why);
    }
    p.plan.config_drive = drive;
    if drive || p.plan.ports.is_empty() || p.plan.ports.iter().any(|port| has_dhcp(port, target)) {
        return;
    }
    p.add(
        Severity::Warning,
        "guest-finds-no-metadata",
        "the new server has no config drive, and none of its subnets has DHCP: cloud-init finds neither, takes that for a \
         third instance, and waits for DHCP on every interface",
        "set destination.configDrive: true, or enable DHCP on a subnet",
    );
}

/// Is there DHCP on a subnet that the port is, or may be, on?
fn has_dhcp(port: &PlannedPort, target: &DestinationInventory) -> bool {
    let chosen = |s: &&Subnet| {
        port.fixed_ips.is_empty() || port.fixed_ips.iter().any(|address| address.subnet_id == s.id)
    };
    let subnets = target.subnets.iter().filter(|s| s.network_id == port.network_id);
    subnets.filter(chosen).any(|s| s.enable_dhcp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The plan for one server, with what was asked for in the destination.
    fn planned(server: Value, destination: Value, takes_hostname: bool, dhcp: bool) -> Preflight {
        let mut to = json!({"cloud": "b"});
        to.as_object_mut().unwrap().extend(destination.as_object().unwrap().clone());
        let spec =
            json!({"source": {"cloud": "a", "server": "web"}, "destination": to, "cutover": {"mode": "Now"}});
        let subnet = json!({"id": "s", "network_id": "n", "enable_dhcp": dhcp});
        let target = DestinationInventory {
            takes_hostname,
            subnets: vec![serde_json::from_value(subnet).unwrap()],
            ..Default::default()
        };
        let mut p = Preflight::default();
        p.plan.ports = vec![PlannedPort { network_id: "n".into(), ..Default::default() }];
        plan(
            &mut p,
            &serde_json::from_value(spec).unwrap(),
            &serde_json::from_value(server).unwrap(),
            &target,
        );
        p
    }

    fn row<'p>(p: &'p Preflight, attribute: &str) -> &'p FidelityRow {
        p.fidelity.iter().find(|r| r.attribute == attribute).unwrap()
    }

    fn finding<'p>(p: &'p Preflight, id: &str) -> Option<&'p Finding> {
        p.findings.iter().find(|f| f.id == id)
    }

    #[test]
    fn a_move_says_that_cloud_init_takes_it_for_a_new_instance() {
        let p = planned(json!({}), json!({}), true, true);
        let warning = finding(&p, "guest-is-a-new-instance").unwrap();
        assert_eq!(warning.severity, Severity::Warning);
        let todo = warning.suggestion.as_deref().unwrap();
        for line in KEEP_GUEST.lines().skip(2) {
            assert!(todo.contains(line), "{line}: {todo}");
        }
        assert!(todo.contains("/etc/cloud/cloud.cfg.d") && todo.contains("cloud-init.disabled"), "{todo}");
        let row = row(&p, "user data");
        assert_eq!(row.fate, Fate::Changed);
        assert!(row.why.contains("new instance") && !row.why.contains("has run"), "{}", row.why);
    }

    #[test]
    fn a_hosts_name_is_the_sources_where_that_is_known_and_taken() {
        let of = |name: &str| json!({"OS-EXT-SRV-ATTR:hostname": name});
        let asked = json!({"hostname": "web-2"});
        for (source, to, takes, planned_name, fate) in [
            (of("web-1"), json!({}), true, Some("web-1"), Fate::Kept),
            (of("web-1"), asked.clone(), true, Some("web-2"), Fate::Changed),
            (of("web-2"), asked.clone(), true, Some("web-2"), Fate::Kept),
            (json!({}), asked.clone(), true, Some("web-2"), Fate::Changed),
            (json!({}), json!({}), true, None, Fate::Changed),
            (of("web-1"), json!({}), false, None, Fate::Changed),
            // Nova would answer 400 to these, after the stop.
            (of("web.example.com"), json!({}), true, None, Fate::Changed),
            (of("a"), json!({}), true, None, Fate::Changed),
            (of("web-"), json!({}), true, None, Fate::Changed),
        ] {
            let p = planned(source.clone(), to, takes, true);
            assert_eq!(p.plan.hostname.as_deref(), planned_name, "{source}");
            assert_eq!(row(&p, "host name").fate, fate, "{source}");
            assert!(!p.blocked());
        }
        let p = planned(of("web-1"), asked, false, true);
        assert_eq!(finding(&p, "hostname-not-taken").map(|f| f.severity), Some(Severity::Blocker));
    }

    #[test]
    fn a_config_drive_is_the_sources_or_what_was_asked_for() {
        let of = |has: &str| json!({"config_drive": has});
        for (source, to, has, fate) in [
            (of("True"), json!({}), true, Fate::Kept),
            (of(""), json!({}), false, Fate::Kept),
            (of(""), json!({"configDrive": true}), true, Fate::Changed),
            (of("True"), json!({"configDrive": false}), false, Fate::Changed),
        ] {
            let p = planned(source.clone(), to, true, true);
            assert_eq!((p.plan.config_drive, row(&p, "config drive").fate), (has, fate), "{source}");
        }
    }

    #[test]
    fn a_guest_that_would_find_no_metadata_is_warned_of() {
        let warned = |server: Value, to: Value, dhcp: bool| {
            finding(&planned(server, to, true, dhcp), "guest-finds-no-metadata").is_some()
        };
        assert!(warned(json!({}), json!({}), false));
        assert!(!warned(json!({}), json!({}), true), "the agent or the router answers it");
        assert!(!warned(json!({"config_drive": "True"}), json!({}), false));
        assert!(!warned(json!({}), json!({"configDrive": true}), false));
        assert!(warned(json!({"config_drive": "True"}), json!({"configDrive": false}), false));
    }

    #[test]
    fn user_data_are_named_and_never_shown() {
        let secret = json!({"userData": {"secretRef": {"name": "web", "key": "user-data"}}});
        let p = planned(json!({}), secret, true, true);
        assert_eq!(p.plan.user_data.as_deref(), Some("Secret web, key user-data"));
        assert!(row(&p, "user data").why.contains("Secret web, key user-data"));
        let p = planned(json!({}), json!({"userData": {"preset": "KeepGuest"}}), true, true);
        assert_eq!(p.plan.user_data.as_deref(), Some("preset KeepGuest"));
        assert_eq!(planned(json!({}), json!({}), true, true).plan.user_data, None);
    }

    #[test]
    fn the_ready_made_user_data_are_cloud_config_and_small() {
        let text = ready_made(UserDataPreset::KeepGuest);
        assert!(text.starts_with("#cloud-config\n"));
        let read: Value = serde_saphyr::from_str(text).unwrap();
        assert_eq!((&read["users"], &read["ssh_deletekeys"]), (&json!([]), &json!(false)));
        assert!(text.len() < USER_DATA_BYTES);
        // One byte more would be one character more than Nova takes.
        let encoded = |bytes: usize| bytes.div_ceil(3) * 4;
        assert!(encoded(USER_DATA_BYTES) <= ENCODED && encoded(USER_DATA_BYTES + 1) > ENCODED);
    }
}
