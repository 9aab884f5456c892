//! Servers of a test: made in cloud A with volumes, watched and acted on in both clouds.

use crate::{Guest, Site, fatal, until_seldom};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use vmmigration::openstack::{Server, Volume};

/// What disks a server gets.
#[derive(Clone, Copy, Debug)]
pub struct Disks {
    /// The root disk is a volume; otherwise it is local, made from the image.
    pub root_volume: bool,
    /// How many data volumes.
    pub data: usize,
}

impl Disks {
    /// A local root disk only: quickest to make.
    pub const LOCAL: Disks = Disks { root_volume: false, data: 0 };
    /// One volume.
    pub const ROOT: Disks = Disks { root_volume: true, data: 0 };
    /// A root volume and a data volume.
    pub const ROOT_AND_DATA: Disks = Disks { root_volume: true, data: 1 };
}

/// A server that a test made.
#[derive(Clone, Debug)]
pub struct MadeServer {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Its first address.
    pub address: String,
    /// Its data volumes, in the order in which they were attached.
    pub data: Vec<String>,
}

impl MadeServer {
    /// Its guest.
    pub fn guest(&self) -> Result<Guest> {
        Guest::at(&self.address)
    }
}

/// Where the guest mounts its data disks, in the order of devices.
pub const MOUNTS: [&str; 3] = ["/data", "/datac", "/datad"];

impl Site {
    /// Makes a server and waits until it is ACTIVE; data volumes are attached one after the other.
    pub async fn make_server(&self, name: &str, disks: Disks) -> Result<MadeServer> {
        self.make_server_with(name, disks, json!({})).await
    }

    /// As [`Site::make_server`], with more of the request's attributes.
    pub async fn make_server_with(&self, name: &str, disks: Disks, more: Value) -> Result<MadeServer> {
        let mut body = json!({
            "name": name,
            "flavorRef": self.id(&["flavors", if disks.root_volume { "tiny-bfv" } else { "tiny" }])?,
            "key_name": "testbed",
            "config_drive": true,
            "networks": [{"uuid": self.id(&["networks", "provider", "id"])?}],
        });
        if disks.root_volume {
            let image = self.id(&["images", "guest"])?;
            let root =
                json!({"name": format!("{name}-root"), "size": 1, "imageRef": image, "volume_type": "nfs"});
            let root = self.make_volume(root).await?;
            body["block_device_mapping_v2"] = json!([{"boot_index": 0, "uuid": root,
                "source_type": "volume", "destination_type": "volume"}]);
        } else {
            body["imageRef"] = json!(self.id(&["images", "guest"])?);
        }
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let mut volumes = vec![];
        for n in 0..disks.data {
            let volume = json!({"name": format!("{name}-data-{n}"), "size": 1, "volume_type": "nfs"});
            volumes.push(self.make_volume(volume).await?);
        }
        let id = self.cloud.create_server(&json!({"server": body})).await?;
        let server = self.wait_server(&id, "ACTIVE").await?;
        let address = server.addresses.first().context("no address")?.address.clone();
        for (n, volume) in volumes.iter().enumerate() {
            self.attach(&id, volume).await?;
            // A guest that still boots names what came meanwhile in any order: which disk is which would be luck.
            if volumes.len() > 1 {
                Guest::at(&address)?.wait(&MOUNTS[..=n]).await?;
            }
        }
        Ok(MadeServer { name: name.into(), id, address, data: volumes })
    }

    /// Makes a volume and waits until it is available; gives its id.
    pub async fn make_volume(&self, body: Value) -> Result<String> {
        let id = self.cloud.create_volume(&json!({"volume": body})).await?.id;
        self.wait_volume(&id, "available").await?;
        Ok(id)
    }

    /// Waits for a state of a volume.
    pub async fn wait_volume(&self, id: &str, status: &str) -> Result<()> {
        until_seldom(&format!("volume {id} in {} to be {status}", self.name), 240, || async {
            let volume = self.cloud.get_volume(id).await?.context("it is gone")?;
            if volume.status.starts_with("error") {
                return Err(fatal(format!("volume {id} is {}", volume.status)));
            }
            Ok((volume.status == status).then_some(()))
        })
        .await
    }

    /// Attaches a volume and waits for it.
    pub async fn attach(&self, server: &str, volume: &str) -> Result<()> {
        let body = json!({"volumeAttachment": {"volumeId": volume}});
        self.rest.post("compute", &format!("/servers/{server}/os-volume_attachments"), body).await?;
        self.wait_volume(volume, "in-use").await
    }

    /// Detaches a volume and waits for it.
    pub async fn detach(&self, server: &str, volume: &str) -> Result<()> {
        self.rest.delete("compute", &format!("/servers/{server}/os-volume_attachments/{volume}")).await?;
        self.wait_volume(volume, "available").await
    }

    /// Waits for a state of a server in which nothing is being done to it.
    pub async fn wait_server(&self, id: &str, status: &str) -> Result<Server> {
        until_seldom(&format!("server {id} in {} to be {status}", self.name), 240, || async {
            let server = self.cloud.get_server(id).await?.context("it is gone")?;
            if server.status == "ERROR" && status != "ERROR" {
                return Err(fatal(format!("server {id} is in ERROR: {:?}", server.fault)));
            }
            Ok((server.status == status && server.task_state.is_none()).then_some(server))
        })
        .await
    }

    /// A server that must be there.
    pub async fn server(&self, id: &str) -> Result<Server> {
        let found = self.cloud.get_server(id).await?;
        found.with_context(|| format!("server {id} in {} is gone", self.name))
    }

    /// All that the cloud tells of a server's volumes, in the server's order.
    pub async fn volumes(&self, server: &Server) -> Result<Vec<Volume>> {
        let all = server.volumes_attached.iter().map(|id| async move {
            let found = self.cloud.get_volume(id).await?;
            found.with_context(|| format!("volume {id} in {} is gone", self.name))
        });
        futures::future::try_join_all(all).await
    }

    /// Waits until a server is as its owner had it: in that state, unlocked, without our claim.
    pub async fn wait_given_back(&self, made: &MadeServer, status: &str, seconds: u64) -> Result<()> {
        until_seldom(&format!("{} to be given back", made.name), seconds, || async {
            let server = self.server(&made.id).await?;
            let marked = server.metadata.keys().any(|k| k.starts_with("vmmigration.io"));
            Ok((server.status == status && !server.locked && !marked).then_some(()))
        })
        .await
    }

    /// The server runs and answers as before a migration: unlocked, without our claim.
    pub async fn runs_as_before(&self, made: &MadeServer) -> Result<()> {
        let server = self.server(&made.id).await?;
        ensure!(server.status == "ACTIVE", "{} is {}", made.name, server.status);
        ensure!(!server.locked, "{} is locked", made.name);
        let marks: Vec<_> = server.metadata.keys().filter(|k| k.starts_with("vmmigration.io")).collect();
        ensure!(marks.is_empty(), "{} has marks: {marks:?}", made.name);
        made.guest()?.wait(&MOUNTS[..made.data.len().min(3)]).await
    }
}
