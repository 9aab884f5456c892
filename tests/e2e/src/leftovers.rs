//! What must not be left when a test is over, and the removal of what the test itself made.

use crate::{Lab, Site, Stays, until_seldom};
use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Secret},
};
use kube::{Api, Client, ResourceExt, api::ListParams};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use vmmigration::{
    cloud::Port,
    migration::names::{Identity, Role},
};

/// An object of a cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub kind: &'static str,
    pub id: String,
    pub name: String,
    /// What a migration with this UID made it for.
    roles: BTreeMap<String, String>,
    /// All that is known of it.
    pub text: String,
}

/// All objects of a cloud's tenant that mention one of the words in any attribute.
pub(crate) async fn mentioning(site: &Site, words: &[String]) -> Result<Vec<Found>> {
    let c = &site.cloud;
    let (servers, volumes, snapshots, images, ports) = futures::try_join!(
        c.list_servers(),
        c.list_volumes(),
        c.list_snapshots(),
        c.list_images(),
        c.list_ports()
    )?;
    // Neutron's own: it becomes ACTIVE a moment after its server does.
    let ports: Vec<_> = ports.iter().map(|p| Port { status: String::new(), ..p.clone() }).collect();
    let mut all = vec![];
    macro_rules! take {
        ($list:ident, $kind:literal, $me:ident, $o:ident, $role:expr) => {
            for $o in &$list {
                let text = format!("{:?}", $o);
                let roles = words.iter().filter_map(|uid| {
                    let $me = Identity { uid: uid.clone(), ..Default::default() };
                    let role: Option<Role> = $role;
                    Some((uid.clone(), role?.to_string()))
                });
                if words.iter().any(|w| text.contains(w.as_str())) {
                    let (id, name) = ($o.id.clone(), $o.name.clone());
                    all.push(Found { kind: $kind, id, name, roles: roles.collect(), text });
                }
            }
        };
    }
    take!(servers, "server", me, o, me.server(o).map(|t| t.role));
    take!(volumes, "volume", me, o, me.volume(o, std::slice::from_ref(&o.id)).map(|t| t.role));
    take!(snapshots, "snapshot", me, o, me.snapshot(o, std::slice::from_ref(&o.id)).map(|t| t.role));
    take!(images, "image", me, o, me.image(o).map(|t| t.role));
    take!(ports, "port", me, o, me.port(o, std::slice::from_ref(&o.id)).map(|t| t.role));
    Ok(all)
}

impl Lab {
    /// Everything in both clouds that mentions the test or one of its migrations, to be compared.
    pub async fn footprint(&self) -> Result<BTreeMap<String, String>> {
        let mut words: Vec<String> = self.remembered().into_keys().collect();
        words.push(self.name.clone());
        let mut all = BTreeMap::new();
        for site in [&self.a, &self.b] {
            for found in mentioning(site, &words).await? {
                all.insert(format!("{} {} {}", site.name, found.kind, found.id), found.text);
            }
        }
        Ok(all)
    }

    /// A migration has left nothing behind but what may stay.
    pub async fn left_only(&self, uid: &str, may_stay: Stays) -> Result<()> {
        let left = self.leftovers(uid, may_stay).await?;
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    }

    /// What a migration has left that should not be there any more.
    pub async fn leftovers(&self, uid: &str, may_stay: Stays) -> Result<Vec<String>> {
        let words = [uid.to_string()];
        let mut wrong = vec![];
        for site in [&self.a, &self.b] {
            for found in mentioning(site, &words).await? {
                if !stays(&found, uid, may_stay, site.name == "site-a") {
                    wrong.push(format!("{}: {} {} {:?}", site.name, found.kind, found.id, found.name));
                }
            }
        }
        for (client, cluster) in [(&self.kube, "site-a"), (&self.kube_b, "site-b")] {
            wrong.extend(in_cluster(client, cluster, uid).await?);
        }
        let keys = self.store()?.list_all("").await?;
        wrong.extend(keys.iter().filter(|k| k.contains(uid)).take(3).map(|k| format!("store: {k}")));
        Ok(wrong)
    }
}

/// May this object stay?
fn stays(found: &Found, uid: &str, may_stay: Stays, in_a: bool) -> bool {
    let role = found.roles.get(uid).map(String::as_str);
    match (may_stay, in_a, found.kind, role) {
        (Stays::Moved, true, "server", None) | (Stays::Moved, true, "snapshot", Some("snapshot")) => true,
        (Stays::Moved | Stays::ServerInB, false, kind, Some(role)) => {
            [("server", "server"), ("volume", "volume"), ("port", "port"), ("image", "root-image")]
                .contains(&(kind, role))
        }
        _ => false,
    }
}

/// In all namespaces: hooks run in their tenant's.
async fn names<K>(client: &Client, uid: &str) -> Result<Vec<String>>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
    K::DynamicType: Default,
{
    let all = Api::<K>::all(client.clone()).list(&ListParams::default()).await?;
    let ours = |o: &K| o.name_any().contains(uid) || o.labels().values().any(|v| v == uid);
    Ok(all.iter().filter(|o| ours(o)).map(ResourceExt::name_any).collect())
}

async fn in_cluster(client: &Client, cluster: &str, uid: &str) -> Result<Vec<String>> {
    let (secrets, jobs, pods) = futures::try_join!(
        names::<Secret>(client, uid),
        names::<Job>(client, uid),
        names::<Pod>(client, uid)
    )?;
    let say = |kind: &'static str, names: Vec<String>| {
        names.into_iter().map(move |n| format!("cluster {cluster}: {kind} {n}"))
    };
    let claims = names::<PersistentVolumeClaim>(client, uid).await?;
    let volumes = Api::<PersistentVolume>::all(client.clone()).list(&ListParams::default()).await?;
    let volumes = volumes.iter().map(ResourceExt::name_any).filter(|name| name.contains(uid)).collect();
    let devices = say("PersistentVolumeClaim", claims).chain(say("PersistentVolume", volumes));
    Ok(say("Secret", secrets).chain(say("Job", jobs)).chain(say("pod", pods)).chain(devices).collect())
}

/// What all migrations of a test have left, after their objects are gone.
pub(crate) async fn of_test(lab: &Lab) -> Result<Vec<String>> {
    let mut wrong = vec![];
    let uids = lab.remembered();
    for (uid, may_stay) in &uids {
        wrong.extend(lab.leftovers(uid, *may_stay).await?);
    }
    if let Err(e) = store_is_empty(lab).await {
        wrong.push(format!("{e:#}"));
    }
    if uids.values().all(|s| *s == Stays::Nothing) {
        let found = mentioning(&lab.b, std::slice::from_ref(&lab.name)).await?;
        wrong.extend(found.iter().map(|f| format!("site-b: {} {} {:?}", f.kind, f.id, f.name)));
    }
    Ok(wrong)
}

/// The operator may be in the middle of its probe of an `ObjectStore`, which is over in a moment.
async fn store_is_empty(lab: &Lab) -> Result<()> {
    until_seldom("an empty store", 30, || async {
        let keys = lab.store()?.list_all("").await?;
        ensure!(keys.is_empty(), "{:?}", &keys[..keys.len().min(3)]);
        Ok(Some(()))
    })
    .await
}

/// Removes what is the test's own in one cloud: servers, then snapshots one at a time, then volumes.
pub(crate) async fn remove(lab: &Lab, site: &Site) -> Result<()> {
    let mut words: Vec<String> = lab.remembered().into_keys().collect();
    words.push(lab.name.clone());
    let all = mentioning(site, &words).await?;
    let ids = |kind: &str| all.iter().filter(|f| f.kind == kind).map(|f| f.id.clone()).collect::<Vec<_>>();
    let mut volumes: BTreeSet<String> = ids("volume").into_iter().collect();
    let mut ports: BTreeSet<String> = ids("port").into_iter().collect();
    for id in ids("server") {
        if let Some(server) = site.cloud.get_server(&id).await? {
            volumes.extend(server.volumes_attached);
            ports.extend(site.cloud.ports_of_device(&id).await?.into_iter().map(|p| p.id));
        }
        let _ = site.cloud.unlock_server(&id).await;
        site.cloud.delete_server(&id).await?;
    }
    for id in ids("server") {
        until_seldom(&format!("the end of server {id}"), 120, || async {
            Ok(site.cloud.get_server(&id).await?.is_none().then_some(()))
        })
        .await?;
    }
    for id in ports {
        site.cloud.delete_port(&id).await?;
    }
    for id in ids("image") {
        site.cloud.delete_image(&id).await?;
    }
    remove_volumes(site, &volumes).await
}

async fn remove_volumes(site: &Site, volumes: &BTreeSet<String>) -> Result<()> {
    let snapshots = site.cloud.list_snapshots().await?;
    for snapshot in snapshots.iter().filter(|s| volumes.contains(&s.volume_id)) {
        site.cloud.delete_snapshot(&snapshot.id).await?;
        until_seldom(&format!("the end of snapshot {}", snapshot.id), 120, || async {
            match site.cloud.get_snapshot(&snapshot.id).await? {
                None => Ok(Some(())),
                Some(s) => bail!("it is {}", s.status),
            }
        })
        .await?;
    }
    for id in volumes {
        until_seldom(&format!("volume {id} to be detached"), 120, || async {
            let Some(volume) = site.cloud.get_volume(id).await? else { return Ok(Some(())) };
            if !["available", "error"].contains(&volume.status.as_str()) {
                bail!("it is {}", volume.status);
            }
            site.cloud.delete_volume(id).await.context("delete it")?;
            Ok(Some(()))
        })
        .await?;
    }
    for id in volumes {
        until_seldom(&format!("the end of volume {id}"), 120, || async {
            Ok(site.cloud.get_volume(id).await?.is_none().then_some(()))
        })
        .await?;
    }
    Ok(())
}
