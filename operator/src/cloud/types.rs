//! What the services answer, reduced to the fields that a migration needs. Unknown fields are ignored; missing
//! ones take their empty value, since clouds of different ages leave out different ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A quota or limit by name: `-1` is unlimited, as the services write it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Most that is allowed; -1 is unlimited.
    pub limit: i64,
    /// In use, including reserved.
    pub used: i64,
}

impl Quota {
    /// How many more fit; `None` when there is no limit.
    pub fn free(&self) -> Option<i64> {
        (self.limit >= 0).then(|| (self.limit - self.used).max(0))
    }
}

/// A service as found by version discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceVersion {
    /// Official service type, e.g. `block-storage`.
    pub service: String,
    /// Version of the API, e.g. `3.0` or `2.16`.
    pub version: String,
    /// Highest microversion that the cloud accepts; `None` for services without microversions.
    pub microversion: Option<String>,
}

/// `null` as the type's empty value: serde's `default` covers only absent keys.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// A boolean that some services write as a string ("True", "true", "").
fn loose_bool<'de, D: Deserializer<'de>>(d: D) -> Result<bool, D::Error> {
    Ok(match Value::deserialize(d)? {
        Value::Bool(b) => b,
        Value::String(s) => s.eq_ignore_ascii_case("true"),
        _ => false,
    })
}

/// A number that Nova writes as an empty string when it is zero (`swap` before 2.75).
fn loose_number<'de, D: Deserializer<'de>>(d: D) -> Result<i64, D::Error> {
    Ok(Value::deserialize(d)?.as_i64().unwrap_or_default())
}

fn strings<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<String, String>, D::Error> {
    let map: Option<BTreeMap<String, Value>> = Option::deserialize(d)?;
    let text = |v: Value| if let Value::String(s) = v { s } else { v.to_string() };
    Ok(map.unwrap_or_default().into_iter().map(|(k, v)| (k, text(v))).collect())
}

/// A server (Nova, microversion 2.73).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Server {
    /// UUID.
    pub id: String,
    /// Name, not unique.
    pub name: String,
    /// `ACTIVE`, `SHUTOFF`, `ERROR`, ...
    pub status: String,
    /// What is being done to it; `None` when nothing is.
    #[serde(rename = "OS-EXT-STS:task_state")]
    pub task_state: Option<String>,
    /// `active`, `stopped`, ...
    #[serde(rename = "OS-EXT-STS:vm_state", deserialize_with = "nullable")]
    pub vm_state: String,
    /// 1 is running, 4 is shut down (Nova's `power_state.py`).
    #[serde(rename = "OS-EXT-STS:power_state", deserialize_with = "nullable")]
    pub power_state: i64,
    /// Whether it is locked.
    #[serde(deserialize_with = "nullable")]
    pub locked: bool,
    /// Who locked it why, as given with the lock.
    pub locked_reason: Option<String>,
    /// The image it was booted from; `None` for a volume.
    #[serde(rename = "image", deserialize_with = "image_id")]
    pub image_id: Option<String>,
    /// Its size, as it was when the server was made.
    pub flavor: EmbeddedFlavor,
    /// Name of the key pair.
    pub key_name: Option<String>,
    /// Metadata.
    #[serde(deserialize_with = "nullable")]
    pub metadata: BTreeMap<String, String>,
    /// Tags.
    #[serde(deserialize_with = "nullable")]
    pub tags: Vec<String>,
    /// Free text.
    pub description: Option<String>,
    /// Whether it has a configuration drive.
    #[serde(deserialize_with = "loose_bool")]
    pub config_drive: bool,
    /// Availability zone it is in.
    #[serde(rename = "OS-EXT-AZ:availability_zone")]
    pub availability_zone: Option<String>,
    /// Host name inside; shown to a member from 2.90 on.
    #[serde(rename = "OS-EXT-SRV-ATTR:hostname")]
    pub hostname: Option<String>,
    /// Ids of its server groups.
    #[serde(deserialize_with = "nullable")]
    pub server_groups: Vec<String>,
    /// Addresses of all ports, floating ones too.
    #[serde(deserialize_with = "addresses")]
    pub addresses: Vec<ServerAddress>,
    /// Names of the security groups, each once.
    #[serde(deserialize_with = "group_names")]
    pub security_groups: Vec<String>,
    /// Nova's message when the status is `ERROR`.
    #[serde(deserialize_with = "fault")]
    pub fault: Option<String>,
    /// When it was asked for, RFC 3339.
    #[serde(deserialize_with = "nullable")]
    pub created: String,
    /// When it first ran.
    #[serde(rename = "OS-SRV-USG:launched_at")]
    pub launched_at: Option<String>,
    /// User who made it.
    #[serde(deserialize_with = "nullable")]
    pub user_id: String,
    /// Project it belongs to.
    #[serde(rename = "tenant_id", deserialize_with = "nullable")]
    pub project_id: String,
    /// Ids of the attached volumes.
    #[serde(rename = "os-extended-volumes:volumes_attached", deserialize_with = "attached")]
    pub volumes_attached: Vec<String>,
}

fn image_id<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    // An empty string stands for "from a volume".
    Ok(Value::deserialize(d)?.get("id").and_then(Value::as_str).map(str::to_string))
}

fn fault<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    Ok(Value::deserialize(d)?.get("message").and_then(Value::as_str).map(str::to_string))
}

fn members<'de, D: Deserializer<'de>>(d: D, key: &str) -> Result<Vec<String>, D::Error> {
    let items: Option<Vec<Value>> = Option::deserialize(d)?;
    let text = |v: &Value| v.get(key)?.as_str().map(str::to_string);
    Ok(items.unwrap_or_default().iter().filter_map(text).collect())
}

fn group_names<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    // Nova lists a group once for each port that has it.
    let mut names = members(d, "name")?;
    names.sort();
    names.dedup();
    Ok(names)
}

fn attached<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    members(d, "id")
}

fn addresses<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<ServerAddress>, D::Error> {
    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Wire {
        addr: String,
        version: u8,
        #[serde(rename = "OS-EXT-IPS-MAC:mac_addr")]
        mac: String,
        #[serde(rename = "OS-EXT-IPS:type")]
        kind: String,
    }
    let networks: Option<BTreeMap<String, Vec<Wire>>> = Option::deserialize(d)?;
    let flat = |(network, list): (String, Vec<Wire>)| {
        list.into_iter().map(move |w| ServerAddress {
            network: network.clone(),
            address: w.addr,
            mac: w.mac,
            fixed: w.kind != "floating",
            version: w.version,
        })
    };
    Ok(networks.unwrap_or_default().into_iter().flat_map(flat).collect())
}

/// An address of a server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerAddress {
    /// Name of the network.
    pub network: String,
    /// IPv4 or IPv6 address.
    pub address: String,
    /// MAC address of the port.
    pub mac: String,
    /// False for a floating address.
    pub fixed: bool,
    /// 4 or 6.
    pub version: u8,
}

/// The flavor as a server carries it (2.47): no id, since the flavor may have been replaced.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EmbeddedFlavor {
    /// Name of the flavor at that time.
    pub original_name: String,
    /// Memory in MiB.
    pub ram: i64,
    /// Number of virtual processors.
    pub vcpus: i64,
    /// Root disk in GiB; 0 for volume-backed flavors.
    pub disk: i64,
    /// Ephemeral disks in GiB.
    pub ephemeral: i64,
    /// Swap disk in MiB.
    #[serde(deserialize_with = "loose_number")]
    pub swap: i64,
    /// Extra specs; empty when the policy hides them.
    #[serde(deserialize_with = "nullable")]
    pub extra_specs: BTreeMap<String, String>,
}

/// A flavor (2.61).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Flavor {
    /// Id, any string.
    pub id: String,
    /// Name.
    pub name: String,
    /// Memory in MiB.
    pub ram: i64,
    /// Number of virtual processors.
    pub vcpus: i64,
    /// Root disk in GiB.
    pub disk: i64,
    /// Ephemeral disks in GiB.
    #[serde(rename = "OS-FLV-EXT-DATA:ephemeral")]
    pub ephemeral: i64,
    /// Swap disk in MiB.
    #[serde(deserialize_with = "loose_number")]
    pub swap: i64,
    /// Extra specs; empty when the policy hides them.
    #[serde(deserialize_with = "nullable")]
    pub extra_specs: BTreeMap<String, String>,
}

/// A volume as attached to a server (2.79).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct VolumeAttachment {
    /// Volume's id.
    #[serde(rename = "volumeId")]
    pub volume_id: String,
    /// Path as Nova sees it, e.g. `/dev/vda`.
    #[serde(deserialize_with = "nullable")]
    pub device: String,
    /// Device tag.
    pub tag: Option<String>,
    /// Whether deleting the server deletes the volume.
    #[serde(deserialize_with = "nullable")]
    pub delete_on_termination: bool,
}

/// Something that was done to a server (`os-instance-actions`).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct InstanceAction {
    /// `create`, `stop`, `start`, `lock`, ...
    pub action: String,
    /// Request id of the call; equal to the one that the call's answer carried.
    pub request_id: String,
    /// When, as Nova writes it (UTC, microseconds, no zone).
    pub start_time: String,
    /// Who.
    #[serde(deserialize_with = "nullable")]
    pub user_id: String,
    /// In which project.
    #[serde(deserialize_with = "nullable")]
    pub project_id: String,
    /// `Error`, or nothing.
    pub message: Option<String>,
}

/// Something that was done to a server, in detail.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ActionDetails {
    /// `Error`, or nothing.
    pub message: Option<String>,
    /// Its steps, the newest first.
    #[serde(deserialize_with = "nullable")]
    pub events: Vec<ActionEvent>,
}

/// A step of what was done to a server.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ActionEvent {
    /// Such as `compute_snapshot_instance`.
    pub event: String,
    /// `Success`, `Error`, or nothing while it lasts.
    pub result: Option<String>,
    /// What went wrong.
    pub details: Option<String>,
}

/// What the block storage service tells a user of a failure.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct FailureMessage {
    /// UUID.
    pub id: String,
    /// The volume or snapshot that it is about.
    #[serde(deserialize_with = "nullable")]
    pub resource_uuid: String,
    /// The request that failed.
    pub request_id: Option<String>,
    /// What failed and, as far as users may know, why.
    #[serde(deserialize_with = "nullable")]
    pub user_message: String,
    /// When (UTC, no zone).
    #[serde(deserialize_with = "nullable")]
    pub created_at: String,
}

/// A volume.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// UUID.
    pub id: String,
    /// Name, may be empty.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// `available`, `in-use`, `error`, ...
    pub status: String,
    /// Size in GiB.
    pub size: i64,
    /// Name of the type.
    pub volume_type: Option<String>,
    /// Whether a server may boot from it.
    #[serde(deserialize_with = "loose_bool")]
    pub bootable: bool,
    /// Whether Cinder encrypts it.
    #[serde(deserialize_with = "loose_bool")]
    pub encrypted: bool,
    /// Whether several servers may have it at once.
    #[serde(deserialize_with = "loose_bool")]
    pub multiattach: bool,
    /// Metadata.
    #[serde(deserialize_with = "strings")]
    pub metadata: BTreeMap<String, String>,
    /// Image properties that a server booted from it gets.
    #[serde(deserialize_with = "strings")]
    pub volume_image_metadata: BTreeMap<String, String>,
    /// Servers that have it.
    #[serde(deserialize_with = "nullable")]
    pub attachments: Vec<AttachedTo>,
    /// Snapshot it was made from.
    pub snapshot_id: Option<String>,
    /// Volume it was made from.
    pub source_volid: Option<String>,
    /// Availability zone.
    pub availability_zone: Option<String>,
    /// When it was made (UTC, no zone).
    #[serde(deserialize_with = "nullable")]
    pub created_at: String,
}

/// A server that has a volume.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AttachedTo {
    /// Server's id.
    #[serde(deserialize_with = "nullable")]
    pub server_id: String,
    /// Path as Nova sees it.
    pub device: Option<String>,
    /// Cinder's id of the attachment.
    #[serde(deserialize_with = "nullable")]
    pub attachment_id: String,
}

/// A snapshot of a volume.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Snapshot {
    /// UUID.
    pub id: String,
    /// Name.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// `available`, `creating`, `error_deleting`, ...
    pub status: String,
    /// Volume it is of.
    pub volume_id: String,
    /// Size in GiB.
    pub size: i64,
    /// Metadata.
    #[serde(deserialize_with = "strings")]
    pub metadata: BTreeMap<String, String>,
    /// When it was made (UTC, no zone).
    #[serde(deserialize_with = "nullable")]
    pub created_at: String,
}

/// An image.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Image {
    /// UUID.
    pub id: String,
    /// Name.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// `queued`, `saving`, `active`, `killed`, ...
    pub status: String,
    /// Bytes stored; `None` until there are some.
    pub size: Option<i64>,
    /// Bytes of the disk inside.
    pub virtual_size: Option<i64>,
    /// Smallest disk in GiB.
    #[serde(deserialize_with = "nullable")]
    pub min_disk: i64,
    /// Smallest memory in MiB.
    #[serde(deserialize_with = "nullable")]
    pub min_ram: i64,
    /// `raw`, `qcow2`, ...
    pub disk_format: Option<String>,
    /// `bare` mostly.
    pub container_format: Option<String>,
    /// MD5, hexadecimal.
    pub checksum: Option<String>,
    /// Algorithm of `os_hash_value`, mostly `sha512`.
    pub os_hash_algo: Option<String>,
    /// Hash of the bytes, hexadecimal.
    pub os_hash_value: Option<String>,
    /// Tags.
    #[serde(deserialize_with = "nullable")]
    pub tags: Vec<String>,
    /// `private`, `shared`, `public`, `community`.
    #[serde(deserialize_with = "nullable")]
    pub visibility: String,
    /// Project it belongs to.
    pub owner: Option<String>,
    /// When it was made, RFC 3339.
    #[serde(deserialize_with = "nullable")]
    pub created_at: String,
    /// Everything else: properties as users and Nova set them, and Glance's own remaining fields.
    #[serde(flatten)]
    pub properties: BTreeMap<String, Value>,
}

/// A network.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Network {
    /// UUID.
    pub id: String,
    /// Name.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Project it belongs to.
    #[serde(deserialize_with = "nullable")]
    pub project_id: String,
    /// Whether floating addresses come from it.
    #[serde(rename = "router:external", deserialize_with = "nullable")]
    pub external: bool,
    /// Whether other projects may use it.
    #[serde(deserialize_with = "nullable")]
    pub shared: bool,
    /// Ids of its subnets.
    #[serde(deserialize_with = "nullable")]
    pub subnets: Vec<String>,
    /// `ACTIVE`, ...
    #[serde(deserialize_with = "nullable")]
    pub status: String,
    /// Largest packet in bytes.
    pub mtu: Option<i64>,
}

/// A subnet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Subnet {
    /// UUID.
    pub id: String,
    /// Name.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Network it is of.
    pub network_id: String,
    /// Addresses, e.g. `10.0.0.0/24`.
    pub cidr: String,
    /// Gateway.
    pub gateway_ip: Option<String>,
    /// 4 or 6.
    pub ip_version: u8,
    /// Ranges that automatic addresses come from.
    #[serde(deserialize_with = "nullable")]
    pub allocation_pools: Vec<AllocationPool>,
    /// Whether addresses are handed out by DHCP.
    #[serde(deserialize_with = "nullable")]
    pub enable_dhcp: bool,
}

/// A range of addresses, both ends included.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AllocationPool {
    /// First.
    pub start: String,
    /// Last.
    pub end: String,
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Port {
    /// UUID.
    pub id: String,
    /// Name, often empty.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Free text.
    #[serde(deserialize_with = "nullable")]
    pub description: String,
    /// Network it is on.
    pub network_id: String,
    /// Server it belongs to; empty when free.
    #[serde(deserialize_with = "nullable")]
    pub device_id: String,
    /// `compute:<zone>` for a server's.
    #[serde(deserialize_with = "nullable")]
    pub device_owner: String,
    /// MAC address.
    #[serde(deserialize_with = "nullable")]
    pub mac_address: String,
    /// Addresses.
    #[serde(deserialize_with = "nullable")]
    pub fixed_ips: Vec<FixedIp>,
    /// Whether it may carry packets.
    #[serde(deserialize_with = "nullable")]
    pub admin_state_up: bool,
    /// `ACTIVE`, `DOWN`, ...
    #[serde(deserialize_with = "nullable")]
    pub status: String,
    /// Tags.
    #[serde(deserialize_with = "nullable")]
    pub tags: Vec<String>,
    /// Ids of the security groups.
    #[serde(deserialize_with = "nullable")]
    pub security_groups: Vec<String>,
    /// Further addresses it may send from, as Neutron writes them.
    #[serde(deserialize_with = "nullable")]
    pub allowed_address_pairs: Vec<Value>,
    /// DHCP options, as Neutron writes them.
    #[serde(deserialize_with = "nullable")]
    pub extra_dhcp_opts: Vec<Value>,
    /// Whether addresses are checked; `None` where the extension is missing.
    pub port_security_enabled: Option<bool>,
    /// `normal`, `direct`, ...
    #[serde(rename = "binding:vnic_type")]
    pub vnic_type: Option<String>,
    /// Name for DNS integration.
    pub dns_name: Option<String>,
    /// Trunk with its sub-ports, when it is the parent of one.
    pub trunk_details: Option<Value>,
    /// QoS policy.
    pub qos_policy_id: Option<String>,
    /// Project it belongs to.
    #[serde(deserialize_with = "nullable")]
    pub project_id: String,
}

/// An address of a port.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct FixedIp {
    /// Subnet.
    pub subnet_id: String,
    /// Address.
    pub ip_address: String,
}

/// A security group; its rules stay with the cloud.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct SecurityGroup {
    /// UUID.
    pub id: String,
    /// Name.
    pub name: String,
    /// Project it belongs to.
    #[serde(deserialize_with = "nullable")]
    pub project_id: String,
}

/// A volume type.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct VolumeType {
    /// UUID.
    pub id: String,
    /// Name.
    pub name: String,
}

/// A trunk port's trunk.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Trunk {
    /// UUID.
    pub id: String,
    /// Parent port.
    pub port_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_server_from_a_volume_and_one_from_an_image() {
        let server: Server = serde_json::from_value(json!({
            "id": "s1", "name": "web", "status": "ERROR", "image": "", "config_drive": "True",
            "OS-EXT-STS:task_state": null, "OS-EXT-STS:power_state": 4, "locked": true, "locked_reason": "why",
            "flavor": {"original_name": "m1", "ram": 512, "vcpus": 1, "disk": 0, "ephemeral": 0, "swap": "",
                       "extra_specs": {"hw:x": "1"}},
            "security_groups": [{"name": "default"}, {"name": "default"}, {"name": "web"}],
            "addresses": {"net": [
                {"addr": "10.0.0.5", "version": 4, "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:0:0:1", "OS-EXT-IPS:type": "fixed"},
                {"addr": "192.0.2.5", "version": 4, "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:0:0:1", "OS-EXT-IPS:type": "floating"}]},
            "fault": {"code": 500, "message": "No valid host"}, "tenant_id": "p1", "metadata": {"k": "v"},
            "os-extended-volumes:volumes_attached": [{"id": "v1", "delete_on_termination": false}],
        }))
        .unwrap();
        assert_eq!((server.image_id, server.config_drive, server.flavor.swap), (None, true, 0));
        assert_eq!(server.security_groups, ["default", "web"]);
        assert_eq!(server.fault.as_deref(), Some("No valid host"));
        assert_eq!(server.addresses.iter().map(|a| a.fixed).collect::<Vec<_>>(), [true, false]);
        assert_eq!((server.project_id.as_str(), server.volumes_attached), ("p1", vec!["v1".to_string()]));
        let from_image: Server = serde_json::from_value(json!({"id": "s2", "image": {"id": "i1"}})).unwrap();
        assert_eq!(from_image.image_id.as_deref(), Some("i1"));
    }

    #[test]
    fn strings_that_are_booleans_and_properties_that_are_anything() {
        let volume: Volume = serde_json::from_value(json!({
            "id": "v", "name": null, "size": 1, "bootable": "true", "encrypted": false,
            "volume_image_metadata": {"min_disk": 0, "os_type": "linux"},
        }))
        .unwrap();
        assert!(volume.bootable && volume.name.is_empty());
        assert_eq!(volume.volume_image_metadata["min_disk"], "0");
        let image: Image = serde_json::from_value(json!({
            "id": "i", "name": null, "status": "active", "size": 7, "hw_disk_bus": "scsi", "locations": [],
        }))
        .unwrap();
        assert_eq!(image.properties["hw_disk_bus"], "scsi");
        assert!(!image.properties.contains_key("size"));
    }

    #[test]
    fn quotas_know_what_is_free() {
        assert_eq!(Quota { limit: 10, used: 4 }.free(), Some(6));
        assert_eq!(Quota { limit: 3, used: 4 }.free(), Some(0));
        assert_eq!(Quota { limit: -1, used: 4 }.free(), None);
    }
}
