//! An object as the API server keeps it: one that cannot be read must not hide the others of its list.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned, ser::Error as _};
use serde_json::Value;
use std::borrow::Cow;

/// An object, or why it cannot be read. Lists and watches of these never fail because of one object.
///
/// Like kube's `DeserializeGuard`, but metadata that cannot be read are borne as well, and the conditions are kept, so
/// that the object can be told of it.
#[derive(Clone, Debug)]
pub struct Stored<K>(pub Result<K, Unreadable>);

/// What is known of an object that cannot be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{why}")]
pub struct Unreadable {
    /// What was found wrong first.
    pub why: String,
    /// Its metadata, as far as they can be read.
    pub metadata: ObjectMeta,
    /// The conditions in its status, as far as they can be read.
    pub conditions: Vec<Condition>,
}

impl<K> Stored<K> {
    /// The objects that can be read, and the others.
    pub fn split(all: Vec<Self>) -> (Vec<K>, Vec<Unreadable>) {
        let (mut read, mut unreadable) = (vec![], vec![]);
        for one in all {
            match one.0 {
                Ok(object) => read.push(object),
                Err(why) => unreadable.push(why),
            }
        }
        (read, unreadable)
    }
}

impl Unreadable {
    fn new<K: DeserializeOwned>(object: &Value, why: &serde_json::Error) -> Self {
        let culprit = culprit::<K>(object).map_or(String::new(), |place| format!("{place}: "));
        let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
        let conditions = conditions.into_iter().flatten().filter_map(|c| Condition::deserialize(c).ok());
        Unreadable {
            why: format!("{culprit}{why}"),
            metadata: metadata(&object["metadata"]),
            conditions: conditions.collect(),
        }
    }
}

/// So many members are tried to find the one that cannot be read.
const SUSPECTS: usize = 256;

/// The member without which the object could be read, with its value; what reads dates does not name them.
fn culprit<K: DeserializeOwned>(object: &Value) -> Option<String> {
    let mut members = vec![];
    for part in ["spec", "status"] {
        leaves(&format!("/{part}"), &object[part], &mut members);
    }
    members.into_iter().take(SUSPECTS).find_map(|pointer| {
        let mut without = object.clone();
        let (parent, member) = pointer.rsplit_once('/')?;
        let value = without.pointer_mut(parent)?.as_object_mut()?.remove(member)?;
        let value: String = value.to_string().chars().take(64).collect();
        let place = pointer.trim_start_matches('/').replace('/', ".");
        K::deserialize(&without).ok().map(|_| format!("{place} is {value}"))
    })
}

/// Pointers to all that holds nothing else.
fn leaves(pointer: &str, value: &Value, found: &mut Vec<String>) {
    let escaped = |name: &String| name.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(n, v)| leaves(&format!("{pointer}/{}", escaped(n)), v, found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, v)| leaves(&format!("{pointer}/{n}"), v, found));
        }
        _ => found.push(pointer.into()),
    }
}

/// As a whole, or what names the object and its version.
fn metadata(found: &Value) -> ObjectMeta {
    let text = |key: &str| found[key].as_str().map(String::from);
    ObjectMeta::deserialize(found).unwrap_or_else(|_| ObjectMeta {
        name: text("name"),
        namespace: text("namespace"),
        uid: text("uid"),
        resource_version: text("resourceVersion"),
        generation: found["generation"].as_i64(),
        ..Default::default()
    })
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Stored<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Value::deserialize(deserializer)?;
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            // Nobody here asks who set a field, and whoever may write an object may write any date into them.
            metadata.remove("managedFields");
        }
        Ok(Stored(K::deserialize(&object).map_err(|why| Unreadable::new::<K>(&object, &why))))
    }
}

impl<K: Serialize> Serialize for Stored<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<K: Resource> Resource for Stored<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &K::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &K::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &K::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &K::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|unreadable| &unreadable.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|unreadable| &mut unreadable.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::v1alpha1::VmMigration;
    use kube::{ResourceExt, core::ObjectList};
    use serde_json::json;

    fn migration(name: &str, at: &str) -> Value {
        json!({"apiVersion": "vmmigration.io/v1alpha1", "kind": "VmMigration",
            "metadata": {"name": name, "namespace": "team", "uid": "u", "resourceVersion": "7", "generation": 3},
            "spec": {"source": {"cloud": "a", "server": "s"}, "destination": {"cloud": "b"},
                "cutover": {"mode": "At", "at": at}}})
    }

    fn read(items: &Value) -> Vec<Stored<VmMigration>> {
        let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items});
        serde_json::from_value::<ObjectList<Stored<VmMigration>>>(list).unwrap().items
    }

    /// Dates that the API server has let through.
    #[test]
    fn one_unreadable_object_hides_no_other() {
        for at in ["9999-12-31T00:00:00Z", "2030-01-01T00:00:00+99:99", "2030-01-01T00:00:00x5Z"] {
            let all = read(&json!([migration("bad", at), migration("good", "2030-01-01T00:00:00Z")]));
            assert_eq!((all[0].name_any(), all[0].meta().generation), ("bad".into(), Some(3)));
            let (read, unreadable) = Stored::split(all);
            assert_eq!(read[0].name_any(), "good");
            assert_eq!(unreadable[0].metadata.resource_version.as_deref(), Some("7"));
            let named = format!("spec.cutover.at is \"{at}\": ");
            assert!(unreadable[0].why.starts_with(&named), "{}", unreadable[0].why);
        }
    }

    #[test]
    fn metadata_hide_nothing_either() {
        let mut object = migration("bad", "2030-01-01T00:00:00Z");
        object["metadata"]["managedFields"] = json!([{"time": "9999-12-31T00:00:00Z"}]);
        assert!(read(&json!([object])).remove(0).0.is_ok(), "they are not looked at");
        object["metadata"]["creationTimestamp"] = json!("9999-12-31T00:00:00Z");
        let found = read(&json!([object])).remove(0);
        assert_eq!((found.namespace().as_deref(), found.uid().as_deref()), (Some("team"), Some("u")));
    }

    #[test]
    fn what_was_said_of_it_before_is_kept() {
        let mut object = migration("bad", "9999-12-31T00:00:00Z");
        let good = json!({"type": "Succeeded", "status": "True", "reason": "Success", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        object["status"] = json!({"conditions": [good, {"type": "Odd"}]});
        let (_, unreadable) = Stored::split(read(&json!([object])));
        let kinds: Vec<_> = unreadable[0].conditions.iter().map(|c| c.type_.as_str()).collect();
        assert_eq!(kinds, ["Succeeded"]);
    }
}
