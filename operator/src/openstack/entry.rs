//! What an entry of a `clouds.yaml` says of regions, interfaces and addresses, brought into one form: as openstacksdk
//! reads it, or refused by name. A key that were ignored here would lead to another endpoint than the user meant.

use serde_json::{Map, Value};
use url::Url;

/// The key below the entry, with dots, and what to do instead.
pub(super) type Refusal = (String, String);

pub(super) fn refuse(key: &str, reason: &str) -> Refusal {
    (key.to_string(), reason.to_string())
}

/// What the keys of the services that are needed begin with; the aliases of block storage in openstacksdk's order.
const SERVICES: [&str; 8] =
    ["block_storage", "volumev3", "volumev2", "volume", "block_store", "compute", "image", "network"];
/// How many of them are block storage, the first of which is its own name.
const BLOCK_STORAGE: usize = 5;
/// Keys that openstacksdk takes for one service alone.
const FOR_ONE: [&str; 3] = ["interface", "endpoint_type", "region_name"];
/// What the key of an address that replaces the catalog's ends in.
pub(super) const OVERRIDE: &str = "_endpoint_override";

/// Brings the entry into one form: `region_name` is a string, or is not there; `interface` is `public`,
/// `internal` or `admin`, or a list of them, or is not there; an override of block storage has the service's own name.
pub(super) fn normalise(entry: &mut Map<String, Value>) -> Result<(), Refusal> {
    *entry = tidy(entry)?;
    take_region(entry)?;
    if let Some(key) = entry.keys().find(|key| is_for_one_service(key)) {
        return Err(refuse(key, "is not supported for one service alone; all services use the same"));
    }
    take_interfaces(entry)?;
    take_overrides(entry)
}

/// Without empty values, which templates leave behind, and with underscores in keys.
pub(super) fn tidy(map: &Map<String, Value>) -> Result<Map<String, Value>, Refusal> {
    let mut tidy = Map::new();
    for (key, value) in map.iter().filter(|(_, v)| !v.is_null() && v.as_str() != Some("")) {
        if tidy.insert(key.replace('-', "_"), value.clone()).is_some() {
            return Err(refuse(key, "is there twice, with - and with _"));
        }
    }
    Ok(tidy)
}

fn is_for_one_service(key: &str) -> bool {
    let rest = SERVICES.iter().find_map(|service| key.strip_prefix(service)?.strip_prefix('_'));
    rest.is_some_and(|rest| FOR_ONE.contains(&rest))
}

/// `region_name`, or the first of `regions`; what is said of that region alone is said of the entry.
fn take_region(entry: &mut Map<String, Value>) -> Result<(), Refusal> {
    if entry.get("region_name").is_some_and(|name| !name.is_string()) {
        return Err(refuse("region_name", "must be one name; put it in quotes"));
    }
    let first = match entry.remove("regions") {
        None => return Ok(()),
        Some(Value::Array(regions)) if !regions.is_empty() => regions.into_iter().next(),
        Some(_) => None,
    };
    let (name, values) = match first {
        Some(Value::String(name)) if !name.is_empty() => (name, Map::new()),
        Some(Value::Object(mut region)) => match (region.remove("name"), region.remove("values")) {
            (Some(Value::String(name)), Some(Value::Object(values))) => (name, tidy(&values)?),
            (Some(Value::String(name)), None) => (name, Map::new()),
            _ => return Err(refuse("regions", "needs name, and values as a map")),
        },
        _ => return Err(refuse("regions", "must be a list of names")),
    };
    let named = entry.get("region_name").and_then(Value::as_str);
    if named.is_some_and(|named| named != name) {
        let reason =
            format!("begins with {name:?}, and region_name is another one; leave one of the two out");
        return Err(("regions".into(), reason));
    }
    for (key, value) in values {
        match (entry.get_mut(&key), value) {
            (Some(Value::Object(there)), Value::Object(more)) if key == "auth" => there.extend(more),
            (_, value) => drop(entry.insert(key, value)),
        }
    }
    entry.insert("region_name".into(), name.into());
    Ok(())
}

/// `endpoint_type` is the old name of `interface`, and wins; several are tried in their order.
fn take_interfaces(entry: &mut Map<String, Value>) -> Result<(), Refusal> {
    let (old, new) = (entry.remove("endpoint_type"), entry.remove("interface"));
    let key = if old.is_some() { "endpoint_type" } else { "interface" };
    let Some(value) = old.or(new) else { return Ok(()) };
    let several = match value {
        Value::Array(several) if !several.is_empty() => several,
        one => vec![one],
    };
    let known = |value: &Value| {
        let name = value.as_str()?;
        let name = name.strip_suffix("URL").unwrap_or(name);
        ["public", "internal", "admin"].contains(&name).then(|| Value::from(name))
    };
    let interfaces: Option<Vec<Value>> = several.iter().map(known).collect();
    let interfaces =
        interfaces.ok_or_else(|| refuse(key, "must be public, internal or admin, or a list of them"))?;
    let interfaces = match &interfaces[..] {
        [one] => one.clone(),
        several => several.into(),
    };
    entry.insert("interface".into(), interfaces);
    Ok(())
}

fn take_overrides(entry: &mut Map<String, Value>) -> Result<(), Refusal> {
    let aliases = SERVICES.iter().take(BLOCK_STORAGE).map(|service| format!("{service}{OVERRIDE}"));
    let overrides: Vec<Value> = aliases.filter_map(|key| entry.remove(&key)).collect();
    if let Some(first) = overrides.into_iter().next() {
        entry.insert(format!("{}{OVERRIDE}", SERVICES[0]), first);
    }
    let overrides = SERVICES.iter().map(|service| format!("{service}{OVERRIDE}"));
    for key in overrides {
        let url = |value: &Value| value.as_str().and_then(|text| Url::parse(text).ok());
        if entry.get(&key).is_some_and(|value| url(value).is_none_or(|url| url.host().is_none())) {
            return Err(refuse(&key, "is no URL"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The entry as it is after that, or the key that was refused.
    fn read(entry: Value) -> Result<Value, String> {
        let Value::Object(mut entry) = entry else { unreachable!("an entry is a map") };
        normalise(&mut entry).map_err(|(key, _)| key)?;
        Ok(entry.into())
    }

    #[test]
    fn interfaces_are_read_as_openstacksdk_reads_them() {
        let internal = json!({"interface": "internal"});
        for (written, read_as) in [
            (json!({"interface": "internal"}), &internal),
            (json!({"interface": "internalURL"}), &internal),
            (json!({"endpoint_type": "internal"}), &internal),
            (json!({"endpoint-type": "internalURL"}), &internal),
            (json!({"interface": "public", "endpoint_type": "internal"}), &internal),
            (json!({"interface": ["publicURL"]}), &json!({"interface": "public"})),
            (json!({"interface": ["internal", "publicURL"]}), &json!({"interface": ["internal", "public"]})),
            (json!({"interface": "", "endpoint_type": null}), &json!({})),
        ] {
            assert_eq!(read(written.clone()).as_ref(), Ok(read_as), "{written}");
        }
    }

    #[test]
    fn regions_are_read_as_openstacksdk_reads_them() {
        let one = json!({"region_name": "R1"});
        for (written, read_as) in [
            (json!({"region_name": "R1"}), &one),
            (json!({"region-name": "R1"}), &one),
            (json!({"region_name": ""}), &json!({})),
            (json!({"regions": ["R1", "R2"]}), &one),
            (json!({"regions": ["R1", "R2"], "region_name": "R1"}), &one),
            (json!({"regions": [{"name": "R1"}, "R2"]}), &one),
            (
                json!({"regions": [{"name": "R1", "values": {"interface": "internal", "auth": {"b": "2"}}}],
                    "interface": "public", "auth": {"a": "1"}}),
                &json!({"region_name": "R1", "interface": "internal", "auth": {"a": "1", "b": "2"}}),
            ),
        ] {
            assert_eq!(read(written.clone()).as_ref(), Ok(read_as), "{written}");
        }
    }

    #[test]
    fn addresses_of_block_storage_have_many_names() {
        let url = "https://volumes.example/v3";
        for key in ["block_storage", "volume", "volumev3", "volumev2", "block_store", "block-storage"] {
            let found = read(json!({format!("{key}_endpoint_override"): url}));
            assert_eq!(found, Ok(json!({"block_storage_endpoint_override": url})), "{key}");
        }
        let both = json!({"volume_endpoint_override": "https://x", "volumev3_endpoint_override": url});
        assert_eq!(read(both), Ok(json!({"block_storage_endpoint_override": url})));
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (written, key) in [
            (json!({"interface": "Internal"}), "interface"),
            (json!({"interface": []}), "interface"),
            (json!({"endpoint_type": ["internal", 1]}), "endpoint_type"),
            (json!({"region_name": 1}), "region_name"),
            (json!({"region_name": ["R1"]}), "region_name"),
            (json!({"regions": "R1"}), "regions"),
            (json!({"regions": []}), "regions"),
            (json!({"regions": [1]}), "regions"),
            (json!({"regions": [{"values": {}}]}), "regions"),
            (json!({"regions": ["R1"], "region_name": "R2"}), "regions"),
            (
                json!({"regions": [{"name": "R1", "values": {"compute_interface": "internal"}}]}),
                "compute_interface",
            ),
            (json!({"compute_interface": "internal"}), "compute_interface"),
            (json!({"volume_endpoint_type": "internal"}), "volume_endpoint_type"),
            (json!({"volumev3-region-name": "R2"}), "volumev3_region_name"),
            (json!({"image_endpoint_override": "glance"}), "image_endpoint_override"),
            (json!({"region-name": "R1", "region_name": "R1"}), "region_name"),
        ] {
            assert_eq!(read(written.clone()), Err(key.to_string()), "{written}");
        }
        // Of services that are not used nothing is asked.
        read(json!({"identity_interface": "admin", "object_store_endpoint_override": "x"})).unwrap();
    }
}
