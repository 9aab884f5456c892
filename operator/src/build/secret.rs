//! Secrets of one migration: an anchor per cluster for its Jobs, and the operator's own vault for clean-up.

use crate::contract::paths;
use crate::migration::names::{Identity, LABEL_MIGRATION, Side};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// What a mover needs of one side, by file name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Keys of a vault.
pub mod vault {
    /// `clouds.yaml` of a side: `<side>-clouds.yaml`.
    pub const CLOUDS: &str = "clouds.yaml";
    /// CA of a side: `<side>-cloud-cacert`.
    pub const CACERT: &str = "cloud-cacert";
    /// Registered cluster of a side: `<side>-cluster`; empty: the operator's own.
    pub const CLUSTER: &str = "cluster";
    /// Password of the repository.
    pub const PASSWORD: &str = "restic-password";
}

/// The annotation of an anchor that tells what it holds: a digest, which is no way to the keys, since the random password
/// of the repository is among what is hashed.
pub const ANNOTATION_COPIED: &str = "vmmigration.io/copied";

/// What Jobs of one side get, of all that the vault holds: its cloud, the store's keys, the password.
pub fn of_side(kept: &Files, store: &Files, side: Side) -> Files {
    let mut files = store.clone();
    for (from, to) in [(vault::CLOUDS, paths::CLOUDS_YAML), (vault::CACERT, paths::CLOUD_CACERT)] {
        if let Some(value) = kept.get(&format!("{side}-{from}")) {
            files.insert(to.into(), value.clone());
        }
    }
    if let Some(password) = kept.get(vault::PASSWORD) {
        files.insert(paths::RESTIC_PASSWORD.into(), password.clone());
    }
    files
}

/// A digest of what an anchor holds.
pub fn digest(files: &Files) -> String {
    let mut hash = Sha256::new();
    for (name, content) in files {
        for part in [name.as_bytes(), content] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    hex::encode(hash.finalize())
}

fn labels(me: &Identity) -> BTreeMap<String, String> {
    BTreeMap::from([
        (LABEL_MIGRATION.into(), me.uid.clone()),
        ("app.kubernetes.io/managed-by".into(), "vmmigration".into()),
    ])
}

fn secret(me: &Identity, name: String, data: Files) -> Secret {
    let annotations =
        BTreeMap::from([("vmmigration.io/object".into(), format!("{}/{}", me.namespace, me.name))]);
    Secret {
        metadata: ObjectMeta {
            name: Some(name),
            labels: Some(labels(me)),
            annotations: Some(annotations),
            ..Default::default()
        },
        data: Some(data.into_iter().map(|(k, v)| (k, ByteString(v))).collect()),
        ..Default::default()
    }
}

/// The anchor of one side: everything that its Jobs may use, and their owner.
pub fn anchor(me: &Identity, side: Side, files: Files) -> Secret {
    let digest = digest(&files);
    let mut anchor = secret(me, me.anchor(side), files);
    anchor.metadata.annotations.get_or_insert_default().insert(ANNOTATION_COPIED.into(), digest);
    anchor
}

/// The operator's own copy of both sides, so that clean-up needs no object of the tenant any more.
pub fn vault(me: &Identity, files: Files) -> Secret {
    secret(me, me.vault(), files)
}
