//! Request bodies for the clouds. Every POST carries our marks, or a name that only we give.

use crate::{
    cloud::Image,
    crd::v1alpha1::{DiskAttributes, DiskKind, DiskStatus, Plan, PlannedPort},
    migration::names::{Identity, MARK_PREFIX, MARK_SOURCE, Role},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Temporary volume from a snapshot.
pub fn export_volume(me: &Identity, disk: &DiskStatus, attempt: i32, snapshot_id: &str) -> Value {
    json!({"volume": {
        "name": me.object_name(Role::ExportVolume, disk.index, attempt),
        "size": disk.size_gib,
        "snapshot_id": snapshot_id,
        "metadata": me.marks_of(Role::ExportVolume, disk.index, attempt),
    }})
}

/// A disk in the destination, made of an image or blank. Its name says whose it is until its id is recorded and it is
/// proven; then it gets its own.
pub fn volume(me: &Identity, disk: &DiskStatus, plan: &Plan, image_id: Option<&str>) -> Value {
    let a = disk.attributes.clone().unwrap_or_default();
    let mut metadata = a.metadata;
    metadata.extend(me.marks(Role::Volume, disk.index));
    let mut body = json!({
        "name": me.object_name(Role::Volume, disk.index, 1),
        "description": a.description,
        "size": disk.size_gib,
        "metadata": metadata,
    });
    if let Some(image) = image_id {
        body["imageRef"] = json!(image);
    }
    if let Some(kind) = a.to_volume_type {
        body["volume_type"] = json!(kind);
    }
    if let Some(zone) = &plan.availability_zone {
        body["availability_zone"] = json!(zone);
    }
    json!({"volume": body})
}

/// What Cinder takes over from the image that a volume is made of: it is not the source volume's.
const OF_THE_IMAGE: [&str; 8] =
    ["image_id", "image_name", "checksum", "container_format", "disk_format", "size", "min_disk", "min_ram"];

/// Does this key of a finished volume's image metadata tell of our temporary image?
pub fn tells_of_our_image(key: &str) -> bool {
    ["image_id", "image_name", "checksum", "size"].contains(&key) || key.starts_with(MARK_PREFIX)
}

/// The image metadata that a volume gets in the destination: those of the source's, without what is of its image.
pub fn image_metadata(wanted: &DiskAttributes) -> BTreeMap<String, String> {
    let of_the_volume = |key: &str, value: &str| {
        let foreign = key.starts_with(MARK_PREFIX) || key.starts_with("owner_");
        !foreign && !OF_THE_IMAGE.contains(&key) && !value.is_empty()
    };
    let all = wanted.image_metadata.clone().into_iter();
    all.filter(|(key, value)| of_the_volume(key, value)).collect()
}

/// Image properties that speak of the source cloud only, or that the image service sets itself.
const NOT_COPIED: [&str; 10] = [
    "base_image_ref",
    "instance_uuid",
    "user_id",
    "image_type",
    "boot_roles",
    "block_device_mapping",
    "bdm_v2",
    "root_device_name",
    "image_location",
    "image_state",
];

/// Fields of an image record that are no properties.
const RECORD: [&str; 12] = [
    "schema",
    "self",
    "file",
    "id",
    "status",
    "updated_at",
    "direct_url",
    "locations",
    "os_hidden",
    "protected",
    "stores",
    "size",
];

/// An image that a restore Job will fill. The root image of an image-backed server keeps its properties. It has no marks:
/// volumes made of it would inherit them, and so would images and snapshots that are made of those later. Its name tells
/// whose it is, and so does a tag, for people; tags are not inherited.
pub fn import_image(me: &Identity, disk: &DiskStatus, attempt: i32, like: Option<&Image>) -> Value {
    let role = if disk.kind == DiskKind::Image { Role::RootImage } else { Role::ImportImage };
    let mut body = Map::new();
    if let Some(source) = like.filter(|_| disk.kind == DiskKind::Image) {
        for (key, value) in &source.properties {
            let foreign = key.starts_with("owner_")
                || key.starts_with("vmmigration.io")
                || key.starts_with("os_glance");
            if !foreign
                && !NOT_COPIED.contains(&key.as_str())
                && !RECORD.contains(&key.as_str())
                && value.is_string()
            {
                body.insert(key.clone(), value.clone());
            }
        }
        body.insert("min_disk".into(), json!(source.min_disk));
        body.insert("min_ram".into(), json!(source.min_ram));
    }
    let format = like.and_then(|i| i.disk_format.clone()).unwrap_or_else(|| "raw".into());
    body.insert("name".into(), json!(me.object_name(role, disk.index, attempt)));
    body.insert("disk_format".into(), json!(format));
    body.insert("container_format".into(), json!("bare"));
    body.insert("visibility".into(), json!("private"));
    body.insert("tags".into(), json!([me.tag()]));
    Value::Object(body)
}

/// A port, under a name that carries the identity.
pub fn port(me: &Identity, index: i32, port: &PlannedPort, up: bool) -> Value {
    let mut body = json!({
        "name": me.object_name(Role::Port, index, 1),
        "network_id": port.network_id,
        "admin_state_up": up,
    });
    if let Some(mac) = &port.mac {
        body["mac_address"] = json!(mac);
    }
    if !port.fixed_ips.is_empty() {
        let one = |a: &crate::crd::v1alpha1::PlannedAddress| match &a.ip_address {
            Some(ip) => json!({"subnet_id": a.subnet_id, "ip_address": ip}),
            None => json!({"subnet_id": a.subnet_id}),
        };
        body["fixed_ips"] = port.fixed_ips.iter().map(one).collect();
    }
    if let Some(groups) = &port.security_group_ids {
        body["security_groups"] = json!(groups);
    }
    if let Some(enabled) = port.port_security_enabled {
        body["port_security_enabled"] = json!(enabled);
    }
    if !port.allowed_address_pairs.is_empty() {
        body["allowed_address_pairs"] = port.allowed_address_pairs.iter().map(|p| pair(p)).collect();
    }
    json!({"port": body})
}

fn pair(text: &str) -> Value {
    match text.split_once(' ') {
        Some((ip, mac)) => json!({"ip_address": ip, "mac_address": mac}),
        None => json!({"ip_address": text}),
    }
}

/// The new server: its ports and disks in the source's order, our marks in the POST itself.
pub fn server(
    me: &Identity,
    plan: &Plan,
    disks: &[DiskStatus],
    port_ids: &[String],
    source_server: &str,
) -> Value {
    let mut metadata: BTreeMap<String, String> = plan.metadata.clone();
    metadata.extend(me.marks(Role::Server, 0));
    metadata.insert(MARK_SOURCE.into(), source_server.into());
    let networks: Value = if port_ids.is_empty() {
        json!("none")
    } else {
        port_ids.iter().map(|id| json!({"port": id})).collect()
    };
    let mut body = json!({
        "name": plan.server_name,
        "flavorRef": plan.flavor_id,
        "metadata": metadata,
        "networks": networks,
        "config_drive": plan.config_drive,
        "block_device_mapping_v2": disks.iter().map(block_device).collect::<Vec<_>>(),
    });
    let root_image =
        disks.first().filter(|d| d.kind == DiskKind::Image).and_then(|d| d.import.image_id.clone());
    let optional = [
        ("imageRef", root_image),
        ("key_name", plan.keypair.clone()),
        ("description", plan.description.clone()),
        ("hostname", plan.hostname.clone()),
        ("availability_zone", plan.availability_zone.clone()),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            body[key] = json!(value);
        }
    }
    if !plan.tags.is_empty() {
        body["tags"] = json!(plan.tags);
    }
    json!({"server": body})
}

/// The new server with user data, in base64 as Nova takes them.
pub fn with_user_data(mut server: Value, user_data: &[u8]) -> Value {
    server["server"]["user_data"] = json!(BASE64.encode(user_data));
    server
}

/// So many characters of base64 tell that a text repeats user data.
const TELLTALE: usize = 16;

/// What a cloud answered, without user data: Nova repeats what it refuses, and answers are shown.
pub fn without_user_data(answer: &str, user_data: &[u8]) -> String {
    let encoded = BASE64.encode(user_data);
    let Some(beginning) = encoded.get(..TELLTALE.min(encoded.len())).filter(|b| !b.is_empty()) else {
        return answer.into();
    };
    let of_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=…".contains(c);
    let mut parts = answer.split(beginning);
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |told, rest| told + "(not shown)" + rest.trim_start_matches(of_base64))
}

fn block_device(disk: &DiskStatus) -> Value {
    let boot_index = if disk.index == 0 { 0 } else { -1 };
    if disk.kind == DiskKind::Image {
        return json!({
            "boot_index": 0, "uuid": disk.import.image_id, "source_type": "image",
            "destination_type": "local", "delete_on_termination": true,
        });
    }
    let a = disk.attributes.clone().unwrap_or_default();
    let mut device = json!({
        "boot_index": boot_index,
        "uuid": disk.import.volume_id,
        "source_type": "volume",
        "destination_type": "volume",
        "delete_on_termination": a.delete_on_termination,
    });
    if let Some(tag) = a.tag {
        device["tag"] = json!(tag);
    }
    device
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crd::v1alpha1::{ImportStatus, PlannedAddress},
        migration::names::MARK_MIGRATION,
    };

    fn me() -> Identity {
        Identity { uid: "u-1".into(), namespace: "team".into(), name: "web".into() }
    }

    fn disk(index: i32, kind: DiskKind) -> DiskStatus {
        let attributes = DiskAttributes {
            delete_on_termination: index == 1,
            tag: (index == 1).then(|| "data".into()),
            metadata: BTreeMap::from([("app".into(), "db".into())]),
            to_volume_type: Some("fast-b".into()),
            ..Default::default()
        };
        let import = ImportStatus {
            volume_id: Some(format!("vol-{index}")),
            image_id: Some("img".into()),
            ..Default::default()
        };
        DiskStatus { index, kind, size_gib: 2, attributes: Some(attributes), import, ..Default::default() }
    }

    #[test]
    fn the_identity_is_in_every_post() {
        let plan = Plan::default();
        let d = disk(1, DiskKind::Volume);
        for body in [
            export_volume(&me(), &d, 1, "s")["volume"].clone(),
            volume(&me(), &d, &plan, Some("i"))["volume"].clone(),
            server(&me(), &plan, std::slice::from_ref(&d), &[], "src")["server"].clone(),
        ] {
            assert_eq!(body["metadata"][MARK_MIGRATION], "u-1", "{body}");
        }
        assert_eq!(volume(&me(), &d, &plan, Some("i"))["volume"]["name"], "vmm-u-1-volume-1");
        for kind in [DiskKind::Volume, DiskKind::Image] {
            let image = import_image(&me(), &disk(1, kind), 2, None);
            let role = if kind == DiskKind::Volume { "import-image" } else { "root-image" };
            assert_eq!(image["name"], format!("vmm-u-1-{role}-1-2"));
            // What is a property would be inherited by what users make of it.
            let marks = image.as_object().unwrap().keys().filter(|k| k.starts_with(MARK_PREFIX)).count();
            assert_eq!((marks, &image["tags"]), (0, &json!(["vmmigration.io:migration=u-1"])));
        }
        assert_eq!(port(&me(), 0, &PlannedPort::default(), true)["port"]["name"], "vmm-u-1-port-0");
    }

    #[test]
    fn a_finished_volumes_image_metadata_are_the_sources_and_nothing_of_our_image() {
        let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
        };
        let (mark, foreign) = ("vmmigration.io:migration", "owner_specified.openstack.md5");
        let source = text(&[
            ("hw_machine_type", "q35"),
            ("image_id", "base"),
            ("min_disk", "0"),
            (foreign, "x"),
            (mark, "u-0"),
            ("os_type", ""),
        ]);
        let wanted = DiskAttributes { image_metadata: source, ..Default::default() };
        assert_eq!(image_metadata(&wanted), text(&[("hw_machine_type", "q35")]));
        for key in ["image_id", "image_name", "checksum", "size", mark, "vmmigration.io:role"] {
            assert!(tells_of_our_image(key), "{key}");
        }
        for key in ["hw_disk_bus", "disk_format", "container_format", "min_disk", "min_ram"] {
            assert!(!tells_of_our_image(key), "{key}");
        }
    }

    #[test]
    fn disks_keep_order_tag_and_delete_on_termination() {
        let body = server(
            &me(),
            &Plan::default(),
            &[disk(0, DiskKind::Volume), disk(1, DiskKind::Volume)],
            &["p0".into()],
            "src",
        );
        let devices = &body["server"]["block_device_mapping_v2"];
        assert_eq!((&devices[0]["uuid"], &devices[0]["boot_index"]), (&json!("vol-0"), &json!(0)));
        assert_eq!(
            (&devices[1]["tag"], &devices[1]["delete_on_termination"]),
            (&json!("data"), &json!(true))
        );
        assert_eq!(devices[0]["delete_on_termination"], false);
        assert_eq!(body["server"]["metadata"][MARK_SOURCE], "src");
    }

    #[test]
    fn a_host_name_and_user_data_are_told_where_they_are_planned() {
        let plan = Plan { hostname: Some("web-1".into()), config_drive: true, ..Default::default() };
        let body = server(&me(), &plan, &[], &[], "src");
        let told = |body: &Value, key: &str| body["server"].get(key).cloned();
        assert_eq!(told(&body, "hostname"), Some(json!("web-1")));
        assert_eq!(told(&body, "config_drive"), Some(json!(true)));
        assert_eq!(told(&body, "user_data"), None);
        let body = with_user_data(body, b"#cloud-config\n");
        assert_eq!(told(&body, "user_data"), Some(json!("I2Nsb3VkLWNvbmZpZwo=")));
        let body = server(&me(), &Plan::default(), &[], &[], "src");
        assert_eq!(told(&body, "hostname"), None, "Nova before 2.90 knows no such field");
    }

    #[test]
    fn what_a_cloud_repeats_of_user_data_is_not_shown() {
        let secret = b"#cloud-config\nchpasswd: {list: 'root:geheim'}\n";
        let encoded = BASE64.encode(secret);
        let answer = format!("Invalid input for user_data. Value: {encoded}. '{encoded}' is too long");
        let told = without_user_data(&answer, secret);
        assert_eq!(told, "Invalid input for user_data. Value: (not shown). '(not shown)' is too long");
        let cut = format!("Value: {}…", &encoded[..40]);
        assert_eq!(without_user_data(&cut, secret), "Value: (not shown)");
        assert_eq!(without_user_data("Quota exceeded", secret), "Quota exceeded");
        assert_eq!(without_user_data("Value: YQ==.", b"a"), "Value: (not shown).");
        assert_eq!(without_user_data("nothing", b""), "nothing");
    }

    #[test]
    fn an_image_backed_server_stays_image_backed() {
        let body = server(
            &me(),
            &Plan::default(),
            &[disk(0, DiskKind::Image), disk(1, DiskKind::Volume)],
            &[],
            "src",
        );
        assert_eq!(body["server"]["imageRef"], "img");
        assert_eq!(body["server"]["block_device_mapping_v2"][0]["destination_type"], "local");
        let source = Image {
            disk_format: Some("qcow2".into()),
            properties: BTreeMap::from([
                ("hw_machine_type".into(), json!("q35")),
                ("instance_uuid".into(), json!("x")),
                ("owner_id".into(), json!("y")),
            ]),
            ..Default::default()
        };
        let image = import_image(&me(), &disk(0, DiskKind::Image), 1, Some(&source));
        assert_eq!((&image["disk_format"], &image["hw_machine_type"]), (&json!("qcow2"), &json!("q35")));
        assert!(image.get("instance_uuid").is_none() && image.get("owner_id").is_none());
    }

    #[test]
    fn ports_ask_for_mac_and_addresses() {
        let planned = PlannedPort {
            mac: Some("fa:16:3e:00:00:01".into()),
            fixed_ips: vec![PlannedAddress { subnet_id: "s".into(), ip_address: Some("10.0.0.5".into()) }],
            allowed_address_pairs: vec!["10.0.0.9 fa:16:3e:00:00:09".into()],
            ..Default::default()
        };
        let body = port(&me(), 0, &planned, false);
        assert_eq!(body["port"]["fixed_ips"][0]["ip_address"], "10.0.0.5");
        assert_eq!(body["port"]["allowed_address_pairs"][0]["mac_address"], "fa:16:3e:00:00:09");
        assert_eq!(body["port"]["admin_state_up"], false);
    }
}
