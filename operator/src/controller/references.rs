//! Follows the references of a `VmMigration`: clouds, store, Secrets. What the tenant's objects do not give any
//! more comes from the vault, so that clean-up works in a namespace that is being deleted.

use super::{Error, context::Context};
use crate::{
    build::secret::{Files, digest, of_side, vault},
    contract::paths,
    crd::{
        conditions::reason,
        stored::Stored,
        v1alpha1::{
            KeyRef, ObjectStore, OpenStackCloud, Transfer, UserData, VmMigration, VmMigrationSpec,
            VmMigrationStatus,
        },
    },
    migration::{
        guest::{self, USER_DATA_BYTES},
        names::{Identity, LABEL_HOOK, Side},
        observed::{Problem, StoreView},
        place::settled,
    },
    openstack::Credentials,
    store::{ObjectStoreLocation, StoreError, StoreKeys},
};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt};
use std::collections::BTreeMap;

/// One side, resolved.
#[derive(Clone)]
pub struct SideRef {
    /// What messages call it: the name of the `OpenStackCloud`.
    pub name: String,
    /// The registered cluster near it.
    pub cluster: Option<String>,
    /// Its credentials.
    pub credentials: Credentials,
    /// How disks are to leave or enter it.
    pub transfer: Option<Transfer>,
}

/// Why what a Secret holds cannot be used.
pub enum Unusable {
    /// There is no such Secret; it may come later.
    Missing(String),
    /// What is in it has to be corrected.
    Wrong(String),
}

impl Unusable {
    fn missing(name: &str, namespace: &str) -> Self {
        Unusable::Missing(format!("there is no Secret {name:?} in namespace {namespace}"))
    }

    /// What is told of it.
    pub fn message(self) -> String {
        match self {
            Unusable::Missing(message) | Unusable::Wrong(message) => message,
        }
    }

    /// The same with the reason for conditions.
    pub fn told(self) -> (&'static str, String) {
        let why = match self {
            Unusable::Missing(_) => reason::REFERENCE_NOT_FOUND,
            Unusable::Wrong(_) => reason::INVALID_CONFIGURATION,
        };
        (why, self.message())
    }
}

/// What the references of a migration lead to.
pub struct References {
    /// The source.
    pub source: Result<SideRef, Problem>,
    /// The destination.
    pub destination: Result<SideRef, Problem>,
    /// Store, and the keys and CA that movers get.
    pub store: Result<(StoreView, Files), Problem>,
    /// The operator's own copy.
    pub vault: Option<Files>,
}

impl References {
    /// One side.
    pub fn side(&self, side: Side) -> &Result<SideRef, Problem> {
        match side {
            Side::Source => &self.source,
            Side::Destination => &self.destination,
        }
    }
}

impl References {
    /// What the vault is to hold, as of now; the password, if there is one.
    pub fn copies(&self) -> Result<Files, Problem> {
        let mut kept = self.vault.clone().unwrap_or_default();
        let (_, store) = self.store.as_ref().map_err(Clone::clone)?;
        // A key that is not given any more, such as a session token, must not be found here later.
        kept.retain(|name, _| !is_of_store(name));
        kept.extend(store.clone());
        for side in [Side::Source, Side::Destination] {
            let r = self.side(side).as_ref().map_err(Clone::clone)?;
            let clouds = r.credentials.to_single_clouds_yaml().into_bytes();
            kept.insert(format!("{side}-{}", vault::CLOUDS), clouds);
            let ca_key = format!("{side}-{}", vault::CACERT);
            match r.credentials.cacert() {
                Some(ca) => kept.insert(ca_key, ca.to_vec()),
                None => kept.remove(&ca_key),
            };
            let cluster = r.cluster.clone().unwrap_or_default().into_bytes();
            kept.insert(format!("{side}-{}", vault::CLUSTER), cluster);
        }
        Ok(kept)
    }

    /// What one side's anchor is to hold, as its digest; `None`: it cannot be told.
    pub fn copied(&self, side: Side) -> Option<String> {
        let kept = self.copies().ok().filter(|kept| kept.contains_key(vault::PASSWORD))?;
        let (_, store) = self.store.as_ref().ok()?;
        Some(digest(&of_side(&kept, store, side)))
    }
}

/// Is it one of the store's files?
fn is_of_store(name: &str) -> bool {
    name == paths::STORE_CACERT || StoreKeys::names().any(|key| key == name)
}

fn problem(id: &str, message: String, suggestion: &str) -> Problem {
    Problem {
        id: id.into(),
        message,
        suggestion: Some(suggestion.to_string()).filter(|s| !s.is_empty()),
        transient: false,
    }
}

/// Data of a Secret by key.
pub fn files(secret: Secret) -> Files {
    secret.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)).collect()
}

/// Follows all references.
pub async fn resolve(ctx: &Context, me: &Identity, object: &VmMigration) -> Result<References, Error> {
    let own = ctx.clusters.own();
    let vaults: Api<Secret> = Api::namespaced(own.client, &own.namespace);
    let vault = vaults.get_opt(&me.vault()).await.map_err(Error::kube("read the vault"))?.map(files);
    let namespace = object.namespace().unwrap_or_default();
    let spec: &VmMigrationSpec = &object.spec;
    let mut refs = References {
        source: side(ctx, &namespace, &spec.source.cloud, Side::Source).await?,
        destination: side(ctx, &namespace, &spec.destination.cloud, Side::Destination).await?,
        store: store(ctx, me, &namespace, spec.store.as_deref()).await?,
        vault,
    };
    if let Some(kept) = &refs.vault {
        let fall_back = |now: Result<SideRef, Problem>, side, name: &str| {
            now.or_else(|p| from_vault(kept, side, name).ok_or(p))
        };
        refs.source = fall_back(refs.source, Side::Source, &spec.source.cloud);
        refs.destination = fall_back(refs.destination, Side::Destination, &spec.destination.cloud);
        let pinned = object.status.as_ref().and_then(|s| s.store.clone());
        refs.store = match (refs.store, pinned) {
            (Ok(found), _) => Ok(found),
            (Err(_), Some(pinned)) => {
                let keys = kept.iter().filter(|(k, _)| is_of_store(k));
                let keys = keys.map(|(k, v)| (k.clone(), v.clone())).collect();
                Ok((
                    StoreView { name: pinned.name, repository: pinned.repository, ..StoreView::default() },
                    keys,
                ))
            }
            (Err(p), None) => Err(p),
        };
    }
    if let Some(status) = &object.status {
        refs.source = refs.source.map(|found| in_recorded_region(found, status, Side::Source));
        refs.destination = refs.destination.map(|found| in_recorded_region(found, status, Side::Destination));
    }
    Ok(refs)
}

/// Credentials without a region go on in the recorded one, also when the cloud gets a second one meanwhile.
fn in_recorded_region(found: SideRef, status: &VmMigrationStatus, side: Side) -> SideRef {
    match settled(status, side).and_then(|recorded| recorded.region) {
        Some(region) => SideRef { credentials: found.credentials.in_region(region), ..found },
        None => found,
    }
}

fn from_vault(kept: &Files, side: Side, name: &str) -> Option<SideRef> {
    let key = |k: &str| kept.get(&format!("{side}-{k}"));
    let yaml = key(vault::CLOUDS)?;
    let credentials = Credentials::parse(yaml, None, key(vault::CACERT).map(Vec::as_slice)).ok()?;
    let cluster =
        key(vault::CLUSTER).and_then(|c| String::from_utf8(c.clone()).ok()).filter(|c| !c.is_empty());
    // How disks travel was decided long ago.
    Some(SideRef { name: name.into(), cluster, credentials, transfer: None })
}

async fn side(
    ctx: &Context,
    namespace: &str,
    name: &str,
    side: Side,
) -> Result<Result<SideRef, Problem>, Error> {
    let api: Api<Stored<OpenStackCloud>> = Api::namespaced(ctx.client.clone(), namespace);
    let cloud = match api.get_opt(name).await.map_err(Error::kube("read an OpenStackCloud"))? {
        Some(Stored(Ok(cloud))) => cloud,
        Some(Stored(Err(why))) => {
            let message = format!("OpenStackCloud {name} cannot be read: {why}");
            return Ok(Err(problem(&format!("{side}-cloud-unreadable"), message, "correct it")));
        }
        None => {
            let message = format!("there is no OpenStackCloud {name:?} in namespace {namespace}");
            let id = format!("{side}-cloud-missing");
            return Ok(Err(problem(&id, message, "create it, or correct the name")));
        }
    };
    let found = credentials(ctx, namespace, &cloud).await?;
    let id = format!("{side}-credentials");
    Ok(found
        .map(|credentials| SideRef {
            name: name.into(),
            cluster: cloud.spec.cluster.clone(),
            credentials,
            transfer: cloud.spec.transfer,
        })
        .map_err(|why| {
            problem(&id, format!("OpenStackCloud {name}: {}", why.message()), "correct the Secret")
        }))
}

/// The credentials of an `OpenStackCloud`, or what is wrong with them.
pub async fn credentials(
    ctx: &Context,
    namespace: &str,
    cloud: &OpenStackCloud,
) -> Result<Result<Credentials, Unusable>, Error> {
    let r = &cloud.spec.credentials_ref;
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    let Some(secret) = secrets.get_opt(&r.secret_name).await.map_err(Error::kube("read a Secret"))? else {
        return Ok(Err(Unusable::missing(&r.secret_name, namespace)));
    };
    let data = files(secret);
    let Some(yaml) = data.get("clouds.yaml") else {
        return Ok(Err(Unusable::Wrong(format!("Secret {} has no key clouds.yaml", r.secret_name))));
    };
    let parsed = Credentials::parse(yaml, r.cloud_name.as_deref(), data.get("cacert").map(Vec::as_slice));
    Ok(parsed.map_err(|e| Unusable::Wrong(format!("Secret {}: {e}", r.secret_name))))
}

/// The user data that the new server is to get, or what is wrong with what they refer to. Read in preflight and again
/// when the server is asked for; kept nowhere.
pub async fn user_data(
    client: &Client,
    namespace: &str,
    wanted: &UserData,
) -> Result<Result<Vec<u8>, Problem>, kube::Error> {
    let Some(r) = &wanted.secret_ref else {
        return Ok(Ok(wanted.preset.map(guest::ready_made).unwrap_or_default().into()));
    };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    Ok(user_data_in(secrets.get_opt(&r.name).await?, namespace, r))
}

/// The guest sees what is in there, and so does whoever may log in to it: the Secret's owner has to agree, as for hooks.
fn user_data_in(secret: Option<Secret>, namespace: &str, r: &KeyRef) -> Result<Vec<u8>, Problem> {
    let name = &r.name;
    let wrong = |what: &str, why: String, todo: String| {
        problem(&format!("user-data-{what}"), format!("destination.userData: {why}"), &todo)
    };
    let Some(secret) = secret else {
        let why = format!("there is no Secret {name:?} in namespace {namespace}");
        return Err(wrong("secret-missing", why, format!("create it, with the label {LABEL_HOOK}=true")));
    };
    if secret.labels().get(LABEL_HOOK).map(String::as_str) != Some("true") {
        let todo = format!("kubectl label secret {name} -n {namespace} {LABEL_HOOK}=true");
        return Err(wrong("secret-not-allowed", format!("Secret {name} may not be given to a server"), todo));
    }
    let Some(data) = files(secret).remove(&r.key) else {
        let why = format!("Secret {name} has no key {:?}", r.key);
        return Err(wrong("secret-key-missing", why, "add the user data under that key".into()));
    };
    match data.len() {
        0 => Err(wrong(
            "empty",
            format!("key {} of Secret {name} is empty", r.key),
            "leave userData out for none".into(),
        )),
        bytes if bytes > USER_DATA_BYTES => Err(wrong(
            "too-large",
            format!(
                "key {} of Secret {name} has {bytes} bytes; Nova takes {USER_DATA_BYTES}, which are 64 KiB in base64",
                r.key
            ),
            "compress it with gzip, which cloud-init reads, or have it fetch the rest (#include)".into(),
        )),
        _ => Ok(data),
    }
}

async fn store(
    ctx: &Context,
    me: &Identity,
    namespace: &str,
    name: Option<&str>,
) -> Result<Result<(StoreView, Files), Problem>, Error> {
    let api: Api<Stored<ObjectStore>> = Api::namespaced(ctx.client.clone(), namespace);
    let all = api.list(&Default::default()).await.map_err(Error::kube("list ObjectStores"))?.items;
    let names: Vec<String> = all.iter().map(ResourceExt::name_any).collect();
    let found = match name {
        Some(name) => all.into_iter().find(|s| s.name_any() == name),
        None if all.len() == 1 => all.into_iter().next(),
        None => None,
    };
    let Some(found) = found else {
        let there = if names.is_empty() {
            "there is none".to_string()
        } else {
            format!("there are: {}", names.join(", "))
        };
        let message = match name {
            Some(name) => format!("there is no ObjectStore {name:?} in namespace {namespace}"),
            None if names.is_empty() => format!("there is no ObjectStore in namespace {namespace}"),
            None => {
                format!("namespace {namespace} has {} ObjectStores and spec.store names none", names.len())
            }
        };
        return Ok(Err(problem("store-missing", message, &there)));
    };
    let found = match found {
        Stored(Ok(store)) => store,
        Stored(Err(why)) => {
            let name = why.metadata.name.clone().unwrap_or_default();
            let message = format!("ObjectStore {name} cannot be read: {why}");
            return Ok(Err(problem("store-unreadable", message, "correct it")));
        }
    };
    let keys = match store_files(ctx, namespace, &found).await? {
        Ok(keys) => keys,
        Err(why) => return Ok(Err(problem("store-credentials", why.message(), "correct the Secret"))),
    };
    let repository =
        ObjectStoreLocation::parse(&found.spec.location).and_then(|l| l.repository(namespace, &me.uid));
    Ok(match repository {
        Ok(r) => {
            let bandwidth = found.spec.bandwidth.clone().unwrap_or_default();
            Ok((StoreView { name: found.name_any(), repository: r.to_string(), bandwidth }, keys))
        }
        Err(e) => Err(problem(
            "store-location",
            format!("ObjectStore {}: {e}", found.name_any()),
            "correct spec.location",
        )),
    })
}

/// Keys and CA of a store under the names that movers expect, or what is wrong with them.
pub async fn store_files(
    ctx: &Context,
    namespace: &str,
    store: &ObjectStore,
) -> Result<Result<Files, Unusable>, Error> {
    Ok(store_secret(ctx, namespace, store).await?.map(|(files, _)| files))
}

/// The same, with the version of the Secret that they are of.
pub async fn store_secret(
    ctx: &Context,
    namespace: &str,
    store: &ObjectStore,
) -> Result<Result<(Files, Option<String>), Unusable>, Error> {
    let name = &store.spec.credentials_secret_ref.name;
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    let Some(secret) = secrets.get_opt(name).await.map_err(Error::kube("read a Secret"))? else {
        return Ok(Err(Unusable::missing(name, namespace)));
    };
    let version = secret.metadata.resource_version.clone();
    let data = files(secret);
    let mut out: Files = BTreeMap::new();
    for key in StoreKeys::names() {
        if let Some(value) = data.get(key) {
            out.insert(key.into(), value.clone());
        }
    }
    // A location that cannot be read is told by who reads it.
    if let Ok(location) = ObjectStoreLocation::parse(&store.spec.location)
        && let Err(e) = keys(&location, &out)
    {
        return Ok(Err(Unusable::Wrong(format!("Secret {name}: {e}"))));
    }
    if let Some(ca) = data.get("cacert") {
        out.insert(paths::STORE_CACERT.into(), ca.clone());
    }
    Ok(Ok((out, version)))
}

/// What a store of this kind needs of them.
pub fn keys(location: &ObjectStoreLocation, files: &Files) -> Result<StoreKeys, StoreError> {
    let text = |key: &str| files.get(key).and_then(|v| String::from_utf8(v.clone()).ok());
    StoreKeys::find(location, |key| Ok(text(key).map(|v| v.trim().to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn user_data_are_in_a_secret_that_may_be_used_and_not_too_large() {
        let secret = |label: &str, key: &str, bytes: usize| -> Option<Secret> {
            let data = k8s_openapi::ByteString(vec![b'x'; bytes]);
            let metadata = json!({"name": "web", "labels": {LABEL_HOOK: label}});
            let mut secret: Secret = serde_json::from_value(json!({"metadata": metadata})).unwrap();
            secret.data = Some(BTreeMap::from([(key.to_string(), data)]));
            Some(secret)
        };
        let r = KeyRef { name: "web".into(), key: "user-data".into() };
        let of = |secret| user_data_in(secret, "team", &r);
        for (secret, id) in [
            (None, "user-data-secret-missing"),
            (secret("false", "user-data", 1), "user-data-secret-not-allowed"),
            (secret("true", "other", 1), "user-data-secret-key-missing"),
            (secret("true", "user-data", 0), "user-data-empty"),
            (secret("true", "user-data", USER_DATA_BYTES + 1), "user-data-too-large"),
        ] {
            let found = of(secret).unwrap_err();
            assert_eq!((found.id.as_str(), found.transient), (id, false));
            assert!(!format!("{found:?}").contains("xx"), "what is in it is not told");
        }
        assert_eq!(of(secret("true", "user-data", USER_DATA_BYTES)).unwrap().len(), USER_DATA_BYTES);
    }
}
