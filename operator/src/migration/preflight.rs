//! Preflight: can this server be moved, and what will be made? Pure; every blocker is found in one look.

use super::{
    guest,
    names::{Identity, MARK_CLAIM, MARK_MIGRATION, MARK_ROLE, MARK_SOURCE, without_marks},
    observed::{DestinationInventory, Inventory, SourceInventory},
};
use crate::{
    cloud::{FixedIp as PortAddress, Network, Port, Server, Volume, VolumeAttachment},
    crd::v1alpha1::*,
};
use ipnet::IpNet;
use std::{collections::BTreeMap, net::IpAddr};

/// What preflight found and what it would make.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preflight {
    /// All that was found.
    pub findings: Vec<Finding>,
    /// What will be made; complete only without blockers.
    pub plan: Plan,
    /// The disks in order, the root disk first.
    pub disks: Vec<DiskStatus>,
    /// What is kept, changed, dropped.
    pub fidelity: Vec<FidelityRow>,
    /// The server, when there is exactly one.
    pub server: Option<Server>,
    /// Snapshots of the stopped server's volumes cannot be deleted until it runs again or is gone.
    pub keeps_snapshots: bool,
}

impl Preflight {
    /// Something is in the way.
    pub fn blocked(&self) -> bool {
        self.findings.iter().any(|f| f.severity == Severity::Blocker)
    }

    pub(super) fn add(
        &mut self,
        severity: Severity,
        id: &str,
        message: impl Into<String>,
        suggestion: impl Into<String>,
    ) {
        let suggestion = Some(suggestion.into()).filter(|s| !s.is_empty());
        self.findings.push(Finding { id: id.into(), severity, message: message.into(), suggestion });
    }

    pub(super) fn block(&mut self, id: &str, message: impl Into<String>, suggestion: impl Into<String>) {
        self.add(Severity::Blocker, id, message, suggestion);
    }

    pub(super) fn row(&mut self, attribute: impl Into<String>, fate: Fate, why: impl Into<String>) {
        self.fidelity.push(FidelityRow { attribute: attribute.into(), fate, why: why.into() });
    }
}

/// Looks at everything.
pub fn preflight(
    me: &Identity,
    spec: &VmMigrationSpec,
    destination_project: &str,
    inventory: &Inventory,
) -> Preflight {
    let mut p = Preflight::default();
    let Some(server) = the_server(&mut p, spec, &inventory.candidates) else { return p };
    let (source, target) = (&inventory.source, &inventory.destination);
    identity(&mut p, me, spec, &server, target);
    state(&mut p, &server, source);
    plan_server(&mut p, spec, &server, target);
    plan_flavor(&mut p, spec, &server, target);
    plan_disks(&mut p, spec, &server, source, target);
    for (n, port) in source.ports.iter().enumerate() {
        plan_port(&mut p, n, port, &Ports { spec, project: destination_project, source, target });
    }
    guest::plan(&mut p, spec, &server, target);
    if source.ports.is_empty() {
        p.add(
            Severity::Warning,
            "no-ports",
            format!("server {} has no port", server.name),
            "it arrives without a network",
        );
    }
    if spec.verification.as_ref().is_none_or(|v| v.checks.is_empty()) {
        p.add(
            Severity::Warning,
            "nothing-proves-the-application",
            "no verification.checks: ACTIVE proves nothing of the application",
            "add a check that the application must pass: tcp, http, console or ssh",
        );
    }
    if spec.strategy == Some(Strategy::Warm) {
        plan_passes(&mut p, &server);
    }
    p.server = Some(server);
    p
}

/// What `strategy: Warm` will do, and what it cannot.
fn plan_passes(p: &mut Preflight, server: &Server) {
    let volumes = p.disks.iter().filter(|d| d.kind == DiskKind::Volume).count();
    if server.status == "SHUTOFF" {
        let text = format!("server {} is stopped: it is copied as with strategy Cold", server.name);
        p.add(Severity::Info, "warm-stopped", text, "");
        return;
    }
    if p.disks.iter().any(|d| d.kind == DiskKind::Image) {
        let text =
            "the local root disk travels after the stop only: an image of it is made as a whole each time";
        p.add(Severity::Info, "warm-local-root", text, "");
    }
    let text = match volumes {
        0 => "strategy Warm copies volumes while the server runs, and it has none: it is as with Cold".into(),
        n => format!(
            "{n} volumes are copied in passes while the server runs, each from a snapshot; after the stop only what \
             changed since is sent"
        ),
    };
    p.add(Severity::Info, "warm-passes", text, "");
}

fn the_server(p: &mut Preflight, spec: &VmMigrationSpec, candidates: &[Server]) -> Option<Server> {
    let (cloud, name) = (&spec.source.cloud, &spec.source.server);
    match candidates {
        [one] => Some(one.clone()),
        [] => {
            p.block(
                "server-not-found",
                format!("no server named or with id {name:?} in {cloud}"),
                "correct spec.source.server; while Blocked it may be changed",
            );
            None
        }
        many => {
            let ids: Vec<_> = many.iter().map(|s| s.id.as_str()).collect();
            p.block(
                "server-ambiguous",
                format!("{} servers in {cloud} are named {name:?}", many.len()),
                format!("give the id of the one: {}", ids.join(", ")),
            );
            None
        }
    }
}

/// One source, one migration.
fn identity(
    p: &mut Preflight,
    me: &Identity,
    spec: &VmMigrationSpec,
    server: &Server,
    target: &DestinationInventory,
) {
    if let Some(other) = server.metadata.get(MARK_CLAIM).filter(|uid| **uid != me.uid) {
        p.block(
            "claimed-elsewhere",
            format!("ClaimedElsewhere: server {} is claimed by migration {other}", server.name),
            "delete that VmMigration; if it is gone, remove the server's metadata key vmmigration.io:claimed-by",
        );
    }
    if target.unread_servers > 0 {
        p.block(
            "destination-servers-unseen",
            format!(
                "{} servers in {} cannot be seen now (Nova does not reach their cell); one of them may be made from \
                 this server",
                target.unread_servers, spec.destination.cloud
            ),
            "it is looked at again; the cloud's operator sees the cell with nova-manage cell_v2 list_cells",
        );
    }
    let taken = target.servers.iter().find(|s| {
        s.metadata.get(MARK_SOURCE) == Some(&server.id)
            && s.metadata.get(MARK_ROLE).map(String::as_str) == Some("server")
            && s.metadata.get(MARK_MIGRATION) != Some(&me.uid)
    });
    if let Some(copy) = taken {
        p.block(
            "already-migrated",
            format!(
                "AlreadyMigrated: server {} ({}) in {} was made from this server",
                copy.name, copy.id, spec.destination.cloud
            ),
            "nothing is migrated twice; delete that server if it is not wanted",
        );
    }
}

/// What this version does not carry is refused, never lost silently.
fn state(p: &mut Preflight, server: &Server, source: &SourceInventory) {
    let name = &server.name;
    match server.status.as_str() {
        "ACTIVE" | "SHUTOFF" => {}
        other => p.block(
            &format!("server-{}", other.to_lowercase().replace('_', "-")),
            format!("server {name} is {other}; only ACTIVE and SHUTOFF servers are moved"),
            "bring it to ACTIVE or SHUTOFF",
        ),
    }
    if let Some(task) = &server.task_state {
        p.block("server-busy", format!("server {name} is busy: {task}"), "it is looked at again by itself");
    }
    if server.flavor.ephemeral > 0 {
        p.block(
            "ephemeral-disk",
            format!(
                "server {name} has a local ephemeral disk of {} GiB, which is not carried",
                server.flavor.ephemeral
            ),
            "move its data to a volume and resize to a flavor without ephemeral disk",
        );
    }
    if server.flavor.swap > 0 {
        p.block(
            "swap-disk",
            format!(
                "server {name} has a local swap disk of {} MiB, which is not carried",
                server.flavor.swap
            ),
            "resize it to a flavor without swap",
        );
    }
    for port in source.ports.iter().filter(|port| port.trunk_details.is_some()) {
        p.block(
            "trunk-port",
            format!("port {} of server {name} is the parent of a trunk, which is not carried", port.id),
            "remove the trunk",
        );
    }
}

/// What a port has that this version does not carry.
fn port_extras(p: &mut Preflight, what: &str, port: &Port) {
    if let Some(kind) = port.vnic_type.as_ref().filter(|k| *k != "normal") {
        p.block(
            "vnic-type",
            format!("{what} ({}) is of type {kind}, which is not carried", port.id),
            "use a normal port",
        );
    }
    if !port.extra_dhcp_opts.is_empty() {
        p.row(format!("{what} DHCP options"), Fate::Dropped, "not carried yet");
    }
    if let Some(policy) = &port.qos_policy_id {
        p.row(format!("{what} QoS policy"), Fate::Dropped, format!("{policy} is a policy of the source"));
    }
}

fn names<'a>(all: impl Iterator<Item = &'a str>) -> String {
    let mut list: Vec<&str> = all.collect();
    list.sort_unstable();
    list.dedup();
    match list.len() {
        0 => "there is none".into(),
        n if n > 20 => format!("there are {n}, such as: {}", list[..20].join(", ")),
        _ => format!("there are: {}", list.join(", ")),
    }
}

fn plan_server(p: &mut Preflight, spec: &VmMigrationSpec, server: &Server, target: &DestinationInventory) {
    let to = &spec.destination;
    p.plan.server_name = to.server_name.clone().unwrap_or_else(|| server.name.clone());
    if p.plan.server_name == server.name {
        p.row("name", Fate::Kept, server.name.clone());
    } else {
        p.row("name", Fate::Changed, format!("{} -> {}, as asked for", server.name, p.plan.server_name));
    }
    p.plan.description = server.description.clone().filter(|d| !d.is_empty());
    p.plan.tags = server.tags.clone();
    p.plan.metadata = without_marks(&server.metadata);
    p.plan.metadata.extend(without_marks(&to.metadata));
    p.row("metadata, tags, description", Fate::Kept, "copied, without this operator's own marks");
    if !server.server_groups.is_empty() {
        p.row("server group", Fate::Dropped, "server groups are not carried yet");
    }
    for floating in server.addresses.iter().filter(|a| !a.fixed) {
        p.row(
            "floating address",
            Fate::Dropped,
            format!("{} stays with the server in the source", floating.address),
        );
        let message = format!("floating address {} is not moved", floating.address);
        p.add(Severity::Warning, "floating-address", message, "give the new server one yourself");
    }
    plan_keypair(p, spec, server, target);
    if let Some(zone) = &to.availability_zone {
        if target.zones.contains(zone) {
            p.plan.availability_zone = Some(zone.clone());
        } else {
            let there = names(target.zones.iter().map(String::as_str));
            p.block("zone-not-found", format!("no availability zone {zone:?} in {}", to.cloud), there);
        }
    }
}

fn plan_keypair(p: &mut Preflight, spec: &VmMigrationSpec, server: &Server, target: &DestinationInventory) {
    let to = &spec.destination;
    let Some(wanted) = to.keypair.clone().or_else(|| server.key_name.clone()) else { return };
    if target.keypairs.contains(&wanted) {
        p.row("key pair", Fate::Kept, wanted.clone());
        p.plan.keypair = Some(wanted);
    } else {
        let there = names(target.keypairs.iter().map(String::as_str));
        p.block(
            "keypair-not-found",
            format!("no key pair {wanted:?} in {}", to.cloud),
            format!("import it, or set destination.keypair; {there}"),
        );
    }
}

fn plan_flavor(p: &mut Preflight, spec: &VmMigrationSpec, server: &Server, target: &DestinationInventory) {
    let to = &spec.destination;
    let wanted = to.flavor.as_ref().unwrap_or(&server.flavor.original_name);
    let Some(flavor) = target.flavors.iter().find(|f| f.id == *wanted || f.name == *wanted) else {
        let there: Vec<_> = target
            .flavors
            .iter()
            .map(|f| format!("{} ({} vCPU, {} MiB, {} GiB)", f.name, f.vcpus, f.ram, f.disk))
            .collect();
        p.block(
            "flavor-not-found",
            format!("no flavor {wanted:?} in {}", to.cloud),
            format!("set destination.flavor; {}", names(there.iter().map(String::as_str))),
        );
        return;
    };
    if server.image_id.is_some() && flavor.disk < server.flavor.disk {
        p.block(
            "flavor-disk-too-small",
            format!(
                "flavor {} has a disk of {} GiB; the server's root disk has {} GiB",
                flavor.name, flavor.disk, server.flavor.disk
            ),
            "set destination.flavor to one with a larger disk",
        );
    }
    if flavor.ephemeral > 0 || flavor.swap > 0 {
        p.add(
            Severity::Warning,
            "flavor-adds-disks",
            format!("flavor {} adds an ephemeral or swap disk", flavor.name),
            "",
        );
    }
    let old = &server.flavor;
    let same = (flavor.vcpus, flavor.ram, flavor.disk) == (old.vcpus, old.ram, old.disk);
    let sizes = format!(
        "{} ({} vCPU, {} MiB, {} GiB) -> {} ({} vCPU, {} MiB, {} GiB)",
        old.original_name, old.vcpus, old.ram, old.disk, flavor.name, flavor.vcpus, flavor.ram, flavor.disk
    );
    p.row("flavor", if same { Fate::Kept } else { Fate::Changed }, sizes);
    p.plan.flavor_id = flavor.id.clone();
    p.plan.flavor_name = flavor.name.clone();
}

/// `/dev/vda` before `/dev/vdb` before `/dev/vdaa`.
fn device_order(device: &str) -> (usize, String) {
    (device.len(), device.to_string())
}

/// Drivers that keep snapshots in files and need the running server to delete one.
const FILE_DRIVERS: [&str; 5] = ["nfs", "glusterfs", "quobyte", "smbfs", "vzstorage"];

fn plan_disks(
    p: &mut Preflight,
    spec: &VmMigrationSpec,
    server: &Server,
    source: &SourceInventory,
    target: &DestinationInventory,
) {
    let mut disks = vec![];
    if server.image_id.is_some() {
        disks.push(DiskStatus { kind: DiskKind::Image, size_gib: server.flavor.disk, ..Default::default() });
    }
    let mut attachments: Vec<&VolumeAttachment> = source.attachments.iter().collect();
    attachments.sort_by_key(|a| device_order(&a.device));
    if server.image_id.is_none() {
        root_first(p, &mut attachments, source);
    }
    for attachment in attachments {
        let Some(volume) = source.volumes.iter().find(|v| v.id == attachment.volume_id) else {
            p.block(
                "volume-not-visible",
                format!("volume {} is attached to the server but cannot be seen", attachment.volume_id),
                "it may belong to another project",
            );
            continue;
        };
        refuse_volume(p, volume);
        let to_type = map_volume_type(p, spec, volume, target);
        // Where the driver cannot be seen it may be one of those.
        p.keeps_snapshots |=
            source.drivers.get(&volume.id).is_none_or(|d| FILE_DRIVERS.contains(&d.as_str()));
        disks.push(volume_disk(attachment, volume, to_type));
    }
    if disks.is_empty() {
        p.block("no-disk", format!("server {} has neither a local root disk nor a volume", server.name), "");
    }
    for (disk, n) in disks.iter_mut().zip(0..) {
        disk.index = n;
        disk.stage = "Waiting".into();
    }
    p.disks = disks;
}

/// The tenant sees no boot index. The one bootable volume is the root disk; of several, the first device.
fn root_first(p: &mut Preflight, attachments: &mut Vec<&VolumeAttachment>, source: &SourceInventory) {
    let bootable = |a: &&VolumeAttachment| source.volumes.iter().any(|v| v.id == a.volume_id && v.bootable);
    let found: Vec<usize> = (0..attachments.len()).filter(|i| bootable(&attachments[*i])).collect();
    let Some(first) = found.first() else {
        if let Some(a) = attachments.first() {
            let message =
                format!("no attached volume is marked bootable; {} is taken for the root disk", a.device);
            p.add(
                Severity::Warning,
                "no-bootable-volume",
                message,
                "set the bootable flag of the root volume",
            );
        }
        return;
    };
    let root = attachments.remove(*first);
    attachments.insert(0, root);
}

fn refuse_volume(p: &mut Preflight, v: &Volume) {
    if v.encrypted {
        p.block(
            "encrypted-volume",
            format!("volume {} is encrypted, which is not carried", v.id),
            "retype it to an unencrypted type",
        );
    }
    if v.multiattach || v.attachments.len() > 1 {
        p.block(
            "multiattach-volume",
            format!("volume {} can be attached to several servers, which is not carried", v.id),
            "",
        );
    }
    if v.status != "in-use" {
        p.block("volume-state", format!("volume {} is {}, not in-use", v.id, v.status), "bring it to in-use");
    }
}

fn map_volume_type(
    p: &mut Preflight,
    spec: &VmMigrationSpec,
    v: &Volume,
    target: &DestinationInventory,
) -> Option<String> {
    let from = v.volume_type.as_ref()?;
    let mapped = spec.destination.volume_types.iter().find(|m| m.from == *from).map(|m| &m.to);
    let wanted = mapped.unwrap_or(from);
    if target.volume_types.contains(wanted) {
        let fate = if wanted == from { Fate::Kept } else { Fate::Changed };
        p.row(format!("volume type of {}", v.id), fate, format!("{from} -> {wanted}"));
        return Some(wanted.clone());
    }
    let there = names(target.volume_types.iter().map(String::as_str));
    let id =
        format!("no volume type {wanted:?} in {} (volume {} has {from:?})", spec.destination.cloud, v.id);
    p.block(
        "volume-type-not-found",
        id,
        format!("add destination.volumeTypes {{from: {from}, to: …}}; {there}"),
    );
    None
}

fn volume_disk(a: &VolumeAttachment, v: &Volume, to_volume_type: Option<String>) -> DiskStatus {
    DiskStatus {
        kind: DiskKind::Volume,
        size_gib: v.size,
        source_volume_id: Some(v.id.clone()),
        attributes: Some(DiskAttributes {
            name: v.name.clone(),
            description: v.description.clone().unwrap_or_default(),
            device: Some(a.device.clone()),
            tag: a.tag.clone(),
            delete_on_termination: a.delete_on_termination,
            bootable: v.bootable,
            volume_type: v.volume_type.clone(),
            to_volume_type,
            metadata: without_marks(&v.metadata),
            image_metadata: v.volume_image_metadata.clone(),
        }),
        ..Default::default()
    }
}

struct Ports<'a> {
    spec: &'a VmMigrationSpec,
    project: &'a str,
    source: &'a SourceInventory,
    target: &'a DestinationInventory,
}

fn plan_port(p: &mut Preflight, n: usize, port: &Port, all: &Ports<'_>) {
    let what = format!("port {n}");
    port_extras(p, &what, port);
    let from = all.source.networks.iter().find(|net| net.id == port.network_id);
    let from_name = from.map_or(port.network_id.as_str(), |net| net.name.as_str());
    let mapping =
        all.spec.destination.networks.iter().find(|m| m.from == from_name || m.from == port.network_id);
    let Some(network) = find_network(p, from_name, mapping, all) else { return };
    let owner = network.project_id == all.project;
    let mut planned = PlannedPort {
        source_port_id: port.id.clone(),
        name: port.name.clone(),
        network_id: network.id.clone(),
        network_name: network.name.clone(),
        tags: port.tags.iter().filter(|t| !t.starts_with("vmmigration.io:")).cloned().collect(),
        ..Default::default()
    };
    planned.mac = plan_mac(p, &what, port, mapping, network, owner, all);
    planned.fixed_ips = plan_addresses(p, &what, port, mapping, network, owner, all);
    plan_port_security(p, &what, port, &mut planned, owner, all);
    p.plan.ports.push(planned);
}

fn find_network<'a>(
    p: &mut Preflight,
    from: &str,
    mapping: Option<&NetworkMapping>,
    all: &Ports<'a>,
) -> Option<&'a Network> {
    let wanted = mapping.map_or(from, |m| m.to.as_str());
    let cloud = &all.spec.destination.cloud;
    let found: Vec<&Network> =
        all.target.networks.iter().filter(|n| n.id == wanted || n.name == wanted).collect();
    match found[..] {
        [one] => Some(one),
        [] => {
            let there = names(all.target.networks.iter().filter(|n| !n.external).map(|n| n.name.as_str()));
            p.block(
                "network-not-found",
                format!("no network {wanted:?} in {cloud}"),
                format!("add destination.networks {{from: {from}, to: …}}; {there}"),
            );
            None
        }
        _ => {
            let ids: Vec<_> = found.iter().map(|n| n.id.as_str()).collect();
            p.block(
                "network-ambiguous",
                format!("{} networks in {cloud} are named {wanted:?}", found.len()),
                format!("give the id of the one in destination.networks: {}", ids.join(", ")),
            );
            None
        }
    }
}

fn plan_mac(
    p: &mut Preflight,
    what: &str,
    port: &Port,
    mapping: Option<&NetworkMapping>,
    network: &Network,
    owner: bool,
    all: &Ports<'_>,
) -> Option<String> {
    let mode = mapping.and_then(|m| m.mac);
    let taken =
        all.target.ports.iter().any(|o| o.network_id == network.id && o.mac_address == port.mac_address);
    let why_not = match (mode, owner, taken) {
        (Some(MacMode::Auto), ..) => "mac: Auto".to_string(),
        (_, false, _) => {
            format!("network {} belongs to another project, only its owner may choose", network.name)
        }
        (_, _, true) => format!("{} is taken in network {}", port.mac_address, network.name),
        _ => {
            p.row(format!("{what} MAC address"), Fate::Kept, port.mac_address.clone());
            return Some(port.mac_address.clone());
        }
    };
    if mode == Some(MacMode::Preserve) {
        p.block(
            "mac-not-kept",
            format!("{what}: MAC address {} cannot be kept: {why_not}", port.mac_address),
            "use mac: Auto",
        );
    }
    p.row(format!("{what} MAC address"), Fate::Changed, why_not);
    None
}

fn plan_addresses(
    p: &mut Preflight,
    what: &str,
    port: &Port,
    mapping: Option<&NetworkMapping>,
    network: &Network,
    owner: bool,
    all: &Ports<'_>,
) -> Vec<PlannedAddress> {
    let fixed = mapping.and_then(|m| m.fixed_ip.as_ref());
    let mode = fixed.map(|f| f.mode);
    if let Some(address) = fixed.and_then(|f| f.address.clone()) {
        let set = PortAddress { ip_address: address, ..Default::default() };
        return plan_address(p, what, &set, Some(FixedIpMode::Preserve), network, owner, all)
            .into_iter()
            .collect();
    }
    port.fixed_ips.iter().filter_map(|ip| plan_address(p, what, ip, mode, network, owner, all)).collect()
}

fn plan_address(
    p: &mut Preflight,
    what: &str,
    ip: &PortAddress,
    mode: Option<FixedIpMode>,
    network: &Network,
    owner: bool,
    all: &Ports<'_>,
) -> Option<PlannedAddress> {
    let address = &ip.ip_address;
    let parsed: Option<IpAddr> = address.parse().ok();
    let subnets: Vec<_> = all.target.subnets.iter().filter(|s| s.network_id == network.id).collect();
    let fits = subnets
        .iter()
        .find(|s| parsed.is_some_and(|a| s.cidr.parse::<IpNet>().is_ok_and(|net| net.contains(&a))));
    let taken = all
        .target
        .ports
        .iter()
        .any(|o| o.network_id == network.id && o.fixed_ips.iter().any(|f| f.ip_address == *address));
    let why_not = match (mode, fits) {
        (Some(FixedIpMode::Auto), _) => "fixedIP mode Auto".to_string(),
        (_, None) => format!("{address} is in no subnet of network {}", network.name),
        _ if !owner => {
            format!("network {} belongs to another project, only its owner may choose", network.name)
        }
        _ if taken => format!("{address} is taken in network {}", network.name),
        (_, Some(subnet)) => {
            p.row(format!("{what} address"), Fate::Kept, address.clone());
            return Some(PlannedAddress { subnet_id: subnet.id.clone(), ip_address: Some(address.clone()) });
        }
    };
    if mode == Some(FixedIpMode::Preserve) {
        p.block(
            "address-not-kept",
            format!("{what}: address {address} cannot be used: {why_not}"),
            "use fixedIP mode Auto, or another address",
        );
    }
    p.row(format!("{what} address"), Fate::Changed, format!("{address} -> chosen by the cloud: {why_not}"));
    let version: u8 = parsed.map_or(4, |a| if a.is_ipv4() { 4 } else { 6 });
    let any = subnets.iter().find(|s| s.ip_version == version)?;
    // Only a network's owner may name a subnet; for others the cloud chooses.
    owner.then(|| PlannedAddress { subnet_id: any.id.clone(), ip_address: None })
}

fn plan_port_security(
    p: &mut Preflight,
    what: &str,
    port: &Port,
    planned: &mut PlannedPort,
    owner: bool,
    all: &Ports<'_>,
) {
    if port.port_security_enabled == Some(false) {
        if owner {
            planned.port_security_enabled = Some(false);
            planned.security_group_ids = Some(vec![]);
            p.row(format!("{what} port security"), Fate::Kept, "off");
            return;
        }
        p.row(
            format!("{what} port security"),
            Fate::Changed,
            "off -> on: the network belongs to another project",
        );
    }
    let wanted: BTreeMap<&str, &str> =
        all.spec.destination.security_groups.iter().map(|m| (m.from.as_str(), m.to.as_str())).collect();
    let mut ids = vec![];
    for id in &port.security_groups {
        let group = all.source.security_groups.iter().find(|g| g.id == *id);
        let from = group.map_or(id.as_str(), |g| g.name.as_str());
        let to = wanted.get(from).copied().unwrap_or(from);
        match all.target.security_groups.iter().find(|g| g.id == to || g.name == to) {
            Some(g) => ids.push(g.id.clone()),
            None => {
                let there = names(all.target.security_groups.iter().map(|g| g.name.as_str()));
                p.block(
                    "security-group-not-found",
                    format!("{what}: no security group {to:?} in {}", all.spec.destination.cloud),
                    format!("create it, or add destination.securityGroups {{from: {from}, to: …}}; {there}"),
                );
            }
        }
    }
    planned.security_group_ids = Some(ids);
    plan_pairs(p, what, port, planned, owner);
}

fn plan_pairs(p: &mut Preflight, what: &str, port: &Port, planned: &mut PlannedPort, owner: bool) {
    if port.allowed_address_pairs.is_empty() {
        return;
    }
    if !owner {
        p.row(
            format!("{what} allowed address pairs"),
            Fate::Dropped,
            "the network belongs to another project",
        );
        return;
    }
    planned.allowed_address_pairs = port
        .allowed_address_pairs
        .iter()
        .filter_map(|pair| {
            let ip = pair.get("ip_address")?.as_str()?;
            let mac = pair.get("mac_address").and_then(|m| m.as_str()).filter(|m| *m != port.mac_address);
            Some(mac.map_or(ip.to_string(), |m| format!("{ip} {m}")))
        })
        .collect();
    p.row(format!("{what} allowed address pairs"), Fate::Kept, planned.allowed_address_pairs.join(", "));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn me() -> Identity {
        Identity { uid: "u-1".into(), namespace: "team".into(), name: "web".into() }
    }

    /// A server that can be moved, as JSON of what both clouds answer, so that a row of a table can change any of it.
    fn world() -> Value {
        json!({
            "server": {"id": "s", "name": "web", "status": "ACTIVE", "image": "", "key_name": "k",
                "flavor": {"original_name": "tiny", "ram": 128, "vcpus": 1, "disk": 0}, "metadata": {}, "addresses": {}},
            "attachments": [{"volumeId": "v0", "device": "/dev/vda"}, {"volumeId": "v1", "device": "/dev/vdb"}],
            "volumes": [
                {"id": "v0", "status": "in-use", "size": 1, "bootable": "true", "volume_type": "nfs"},
                {"id": "v1", "status": "in-use", "size": 2, "bootable": "false", "volume_type": "nfs"}],
            "port": {"id": "p0", "network_id": "na", "mac_address": "fa:16:3e:00:00:01", "security_groups": ["ga"],
                "fixed_ips": [{"subnet_id": "sa", "ip_address": "10.0.0.5"}]},
            "flavors": [{"id": "f", "name": "tiny", "ram": 128, "vcpus": 1, "disk": 0}],
            "network": {"id": "nb", "name": "net", "project_id": "pb"},
            "subnet": {"id": "sb", "network_id": "nb", "cidr": "10.0.0.0/24", "ip_version": 4},
            "keypairs": ["k"], "types": ["nfs"], "groups": [{"id": "gb", "name": "default"}],
            "ports": [], "servers": [], "destination": {"cloud": "site-b"},
        })
    }

    fn of<T: serde::de::DeserializeOwned>(v: &Value) -> T {
        serde_json::from_value(v.clone()).unwrap()
    }

    fn look(w: &Value) -> Preflight {
        let spec = json!({"source": {"cloud": "site-a", "server": "web"}, "destination": w["destination"], "cutover": {"mode": "Now"},
            "strategy": w["strategy"]});
        let inventory = Inventory {
            candidates: vec![of(&w["server"])],
            source: SourceInventory {
                attachments: of(&w["attachments"]),
                volumes: of(&w["volumes"]),
                drivers: BTreeMap::from([("v0".into(), "rbd".into()), ("v1".into(), "rbd".into())]),
                ports: vec![of(&w["port"])],
                networks: vec![of(&json!({"id": "na", "name": "net"}))],
                security_groups: vec![of(&json!({"id": "ga", "name": "default"}))],
                ..Default::default()
            },
            destination: DestinationInventory {
                unread_servers: usize::try_from(w["unread"].as_u64().unwrap_or(0)).unwrap(),
                flavors: of(&w["flavors"]),
                networks: vec![of(&w["network"])],
                subnets: vec![of(&w["subnet"])],
                keypairs: of(&w["keypairs"]),
                volume_types: of(&w["types"]),
                security_groups: of(&w["groups"]),
                ports: of(&w["ports"]),
                servers: of(&w["servers"]),
                zones: vec!["nova".into()],
                takes_hostname: w["takesHostname"].as_bool().unwrap_or(true),
            },
        };
        preflight(&me(), &of(&spec), "pb", &inventory)
    }

    fn blockers(p: &Preflight) -> Vec<&str> {
        p.findings.iter().filter(|f| f.severity == Severity::Blocker).map(|f| f.id.as_str()).collect()
    }

    #[test]
    fn a_destination_whose_servers_cannot_all_be_seen_is_not_believed_to_have_none_of_this_source() {
        let mut w = world();
        w["unread"] = json!(2);
        let p = look(&w);
        assert_eq!(blockers(&p), ["destination-servers-unseen"]);
        assert!(p.findings[0].message.contains("2 servers in site-b"), "{:?}", p.findings);
    }

    #[test]
    fn a_plain_server_keeps_what_it_has() {
        let p = look(&world());
        assert_eq!(blockers(&p), Vec::<&str>::new(), "{:?}", p.findings);
        let port = &p.plan.ports[0];
        assert_eq!(port.mac.as_deref(), Some("fa:16:3e:00:00:01"));
        assert_eq!(port.fixed_ips[0].ip_address.as_deref(), Some("10.0.0.5"));
        assert_eq!(port.security_group_ids, Some(vec!["gb".to_string()]));
        assert_eq!((p.plan.flavor_id.as_str(), p.plan.keypair.as_deref()), ("f", Some("k")));
        assert_eq!(p.disks.iter().map(|d| d.size_gib).collect::<Vec<_>>(), [1, 2]);
        assert!(!p.keeps_snapshots);
    }

    #[test]
    fn what_is_not_carried_is_refused() {
        let table: Vec<(&str, &str, Value)> = vec![
            ("server-paused", "/server/status", json!("PAUSED")),
            ("server-suspended", "/server/status", json!("SUSPENDED")),
            ("server-shelved-offloaded", "/server/status", json!("SHELVED_OFFLOADED")),
            ("server-rescue", "/server/status", json!("RESCUE")),
            ("server-verify-resize", "/server/status", json!("VERIFY_RESIZE")),
            ("server-error", "/server/status", json!("ERROR")),
            ("ephemeral-disk", "/server/flavor/ephemeral", json!(10)),
            ("swap-disk", "/server/flavor/swap", json!(512)),
            ("encrypted-volume", "/volumes/1/encrypted", json!(true)),
            ("multiattach-volume", "/volumes/1/multiattach", json!(true)),
            ("volume-state", "/volumes/1/status", json!("error")),
            ("trunk-port", "/port/trunk_details", json!({"trunk_id": "t"})),
            ("vnic-type", "/port/binding:vnic_type", json!("direct")),
            ("claimed-elsewhere", "/server/metadata", json!({"vmmigration.io:claimed-by": "another"})),
            ("flavor-not-found", "/flavors/0/name", json!("other")),
            ("network-not-found", "/network/name", json!("other")),
            ("volume-type-not-found", "/types", json!(["fast-b"])),
            ("keypair-not-found", "/keypairs", json!([])),
            ("security-group-not-found", "/groups", json!([])),
            ("zone-not-found", "/destination/availabilityZone", json!("elsewhere")),
            ("no-disk", "/attachments", json!([])),
            ("server-busy", "/server/OS-EXT-STS:task_state", json!("rebooting")),
            ("volume-not-visible", "/volumes", json!([])),
            ("multiattach-volume", "/volumes/1/attachments", json!([{"server_id": "s"}, {"server_id": "t"}])),
        ];
        for (id, place, value) in table {
            let mut w = world();
            let (parent, key) = place.rsplit_once('/').unwrap();
            w.pointer_mut(parent).unwrap()[key] = value;
            let p = look(&w);
            assert!(blockers(&p).contains(&id), "{id}: {:?}", p.findings);
        }
    }

    #[test]
    fn a_local_root_disk_must_fit_into_the_flavor() {
        let mut w = world();
        w["server"]["image"] = json!({"id": "i"});
        w["server"]["flavor"]["disk"] = json!(2);
        w["flavors"][0]["disk"] = json!(1);
        assert_eq!(blockers(&look(&w)), ["flavor-disk-too-small"]);
        w["flavors"][0]["disk"] = json!(2);
        let p = look(&w);
        assert_eq!((blockers(&p), p.disks[0].kind), (vec![], DiskKind::Image));
    }

    #[test]
    fn a_name_must_fit_exactly_one() {
        let spec = of(
            &json!({"source": {"cloud": "site-a", "server": "web"}, "destination": {"cloud": "site-b"}, "cutover": {"mode": "Now"}}),
        );
        let among = |ids: &[&str]| {
            let candidates = ids.iter().map(|id| of(&json!({"id": id, "name": "web"}))).collect();
            preflight(&me(), &spec, "pb", &Inventory { candidates, ..Default::default() })
        };
        assert_eq!(blockers(&among(&[])), ["server-not-found"]);
        let several = among(&["s1", "s2"]);
        assert_eq!(blockers(&several), ["server-ambiguous"]);
        assert!(several.findings[0].suggestion.as_deref().unwrap_or_default().contains("s1, s2"));
        assert!(several.server.is_none() && several.disks.is_empty(), "nothing is planned");
    }

    #[test]
    fn two_networks_of_one_name_are_told_apart_by_id() {
        let mut inventory = Inventory::default();
        let network = |id: &str| of(&json!({"id": id, "name": "net"}));
        inventory.destination.networks = vec![network("n1"), network("n2")];
        inventory.source.networks = vec![network("na")];
        inventory.source.ports = vec![of(&world()["port"])];
        inventory.candidates = vec![of(&world()["server"])];
        let look = |to: Value| {
            let spec = json!({"source": {"cloud": "site-a", "server": "web"}, "destination": to, "cutover": {"mode": "Now"}});
            preflight(&me(), &of(&spec), "pb", &inventory)
        };
        assert!(blockers(&look(json!({"cloud": "site-b"}))).contains(&"network-ambiguous"));
        let mapped = json!({"cloud": "site-b", "networks": [{"from": "net", "to": "n2"}]});
        assert!(!blockers(&look(mapped)).contains(&"network-ambiguous"));
    }

    #[test]
    fn a_source_is_migrated_once() {
        let mut w = world();
        let marks = |uid: &str| json!({"vmmigration.io:source": "s", "vmmigration.io:role": "server", "vmmigration.io:migration": uid});
        w["servers"] = json!([{"id": "copy", "name": "web", "metadata": marks("another")}]);
        assert_eq!(blockers(&look(&w)), ["already-migrated"]);
        w["servers"] = json!([{"id": "copy", "name": "web", "metadata": marks("u-1")}]);
        assert_eq!(blockers(&look(&w)), Vec::<&str>::new(), "our own is no obstacle");
    }

    #[test]
    fn maps_take_the_place_of_names() {
        let mut w = world();
        w["types"] = json!(["fast-b"]);
        w["network"]["name"] = json!("net-b");
        w["flavors"][0]["name"] = json!("b1");
        w["destination"] = json!({"cloud": "site-b", "flavor": "b1", "networks": [{"from": "net", "to": "net-b"}],
            "volumeTypes": [{"from": "nfs", "to": "fast-b"}]});
        let p = look(&w);
        assert_eq!(blockers(&p), Vec::<&str>::new(), "{:?}", p.findings);
        let types: Vec<_> = p.disks.iter().filter_map(|d| d.attributes.clone()?.to_volume_type).collect();
        assert_eq!(types, ["fast-b", "fast-b"]);
    }

    #[test]
    fn an_address_that_does_not_fit_is_chosen_by_the_cloud_or_refused() {
        let mut w = world();
        w["subnet"]["cidr"] = json!("192.168.0.0/24");
        let p = look(&w);
        assert_eq!(blockers(&p), Vec::<&str>::new());
        assert_eq!(p.plan.ports[0].fixed_ips[0].ip_address, None);
        assert!(p.fidelity.iter().any(|r| r.attribute == "port 0 address" && r.fate == Fate::Changed));
        w["destination"]["networks"] = json!([{"from": "net", "to": "net", "fixedIP": {"mode": "Preserve"}}]);
        assert_eq!(blockers(&look(&w)), ["address-not-kept"]);
        w["destination"]["networks"] =
            json!([{"from": "net", "to": "net", "fixedIP": {"mode": "Set", "address": "192.168.0.9"}}]);
        assert_eq!(look(&w).plan.ports[0].fixed_ips[0].ip_address.as_deref(), Some("192.168.0.9"));
    }

    #[test]
    fn only_an_owner_chooses_addresses() {
        let mut w = world();
        w["network"]["project_id"] = json!("somebody");
        let p = look(&w);
        assert_eq!((p.plan.ports[0].mac.clone(), p.plan.ports[0].fixed_ips.clone()), (None, vec![]));
        w["destination"]["networks"] = json!([{"from": "net", "to": "net", "mac": "Preserve"}]);
        assert_eq!(blockers(&look(&w)), ["mac-not-kept"]);
    }

    #[test]
    fn disks_come_in_the_order_of_devices_with_the_bootable_one_first() {
        let mut w = world();
        w["attachments"] = json!([{"volumeId": "v1", "device": "/dev/vda"}, {"volumeId": "v2", "device": "/dev/vdaa"},
            {"volumeId": "v0", "device": "/dev/vdc"}, {"volumeId": "v3", "device": "/dev/vdb"}]);
        w["volumes"] = json!([{"id": "v0", "status": "in-use", "bootable": "true"}, {"id": "v1", "status": "in-use"},
            {"id": "v2", "status": "in-use"}, {"id": "v3", "status": "in-use"}]);
        let order: Vec<_> = look(&w).disks.into_iter().filter_map(|d| d.source_volume_id).collect();
        assert_eq!(order, ["v0", "v1", "v3", "v2"]);
    }

    #[test]
    fn a_warm_plan_says_what_passes_do_and_what_they_cannot() {
        let told = |w: &Value| -> Vec<String> {
            let found = look(w).findings.into_iter().filter(|f| f.id.starts_with("warm"));
            found.map(|f| f.id).collect()
        };
        let mut w = world();
        assert!(told(&w).is_empty(), "Cold");
        w["strategy"] = json!("Warm");
        assert_eq!(told(&w), ["warm-passes"]);
        w["server"]["status"] = json!("SHUTOFF");
        assert_eq!(told(&w), ["warm-stopped"]);
    }

    #[test]
    fn an_unknown_or_file_driver_keeps_snapshots() {
        let mut w = world();
        w["volumes"][0]["id"] = json!("other");
        w["attachments"][0]["volumeId"] = json!("other");
        assert!(look(&w).keeps_snapshots);
    }
}
