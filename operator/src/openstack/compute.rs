//! Servers and what belongs to them (Nova). Microversions: 2.73 (lock reasons) is Train, the oldest supported.

use std::collections::BTreeMap;

use http::Method;
use openstack_sdk::types::ServiceType;
use serde::Deserialize;
use serde_json::{Value, json};

use super::endpoint::{Call, path};
use super::error::CloudError;
use super::presence::whole_server;
use super::session::Cloud;
use crate::cloud::{ActionDetails, Flavor, InstanceAction, Server, VolumeAttachment};

pub(super) fn call(method: Method, segments: &[&str]) -> Call {
    Call::new(ServiceType::Compute, method, path(segments)).version((2, 1))
}

/// An entry of `os-availability-zone`, the same in Nova and Cinder.
#[derive(Deserialize)]
pub(super) struct Zone {
    #[serde(rename = "zoneName")]
    name: String,
    #[serde(rename = "zoneState")]
    state: ZoneState,
}

#[derive(Deserialize)]
struct ZoneState {
    available: bool,
}

/// Names of the zones that take new objects.
pub(super) fn available(zones: Vec<Zone>) -> Vec<String> {
    zones.into_iter().filter(|z| z.state.available).map(|z| z.name).collect()
}

fn looks_like_id(text: &str) -> bool {
    (32..=36).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

impl Cloud {
    /// 2.73 has tags, description and the lock's reason; from 2.90 on a member also sees the host name.
    pub(super) fn server_version(&self) -> (u8, u8) {
        if self.takes_hostname() { (2, 90) } else { (2, 73) }
    }

    /// Can a server be given a host name (2.90)?
    pub fn takes_hostname(&self) -> bool {
        self.offers(&ServiceType::Compute, (2, 90))
    }

    /// The server with this id, or all servers with exactly this name. Names are not unique: the caller decides
    /// what more than one means.
    pub async fn find_servers(&self, name_or_id: &str) -> Result<Vec<Server>, CloudError> {
        if looks_like_id(name_or_id)
            && let Some(server) = self.get_server(name_or_id).await?
        {
            return Ok(vec![server]);
        }
        let all = self.list_servers().await?;
        let found: Vec<_> = all.iter().filter(|s| s.name == name_or_id).cloned().collect();
        if found.is_empty() {
            // It may be one of those that have no name now.
            self.whole_list_of_servers(&all)?;
        }
        Ok(found)
    }

    /// One server; `None` when Nova itself says that there is none with this id, which alone is no proof (see
    /// [`Cloud::look_for_server`]). Half a record is an error that may pass.
    pub async fn get_server(&self, id: &str) -> Result<Option<Server>, CloudError> {
        let (action, call) =
            ("get server", call(Method::GET, &["servers", id]).version(self.server_version()));
        let Some(item) = self.fetch_optional::<Value>(action, "server", call).await? else { return Ok(None) };
        let half = || self.not_seen(action, format!("Nova does not reach the cell of server {id}"));
        whole_server(&item).ok_or_else(half).map(Some)
    }

    /// Asks for a server and gives its id. `body` is the whole document, `{"server": {...}}` and, if wanted,
    /// scheduler hints. Sent at 2.67 (volume types of block devices), or 2.90 if it sets a host name.
    pub async fn create_server(&self, body: &Value) -> Result<String, CloudError> {
        let version = if body.pointer("/server/hostname").is_some() { (2, 90) } else { (2, 67) };
        let call = call(Method::POST, &["servers"]).version(version).json(body.clone());
        let created: Server = self.fetch("create server", "server", call).await?;
        Ok(created.id)
    }

    /// Deletes a server; done when it is not there.
    pub async fn delete_server(&self, id: &str) -> Result<(), CloudError> {
        self.remove("delete server", call(Method::DELETE, &["servers", id])).await
    }

    async fn server_action(
        &self,
        action: &str,
        id: &str,
        version: (u8, u8),
        body: Value,
    ) -> Result<String, CloudError> {
        let call = call(Method::POST, &["servers", id, "action"]).version(version).json(body);
        Ok(self.send(action, call).await?.request_id())
    }

    /// Asks the server to shut down; gives the request id under which the action appears in its history.
    pub async fn stop_server(&self, id: &str) -> Result<String, CloudError> {
        self.server_action("stop server", id, (2, 1), json!({"os-stop": null})).await
    }

    /// Starts the server; gives the request id.
    pub async fn start_server(&self, id: &str) -> Result<String, CloudError> {
        self.server_action("start server", id, (2, 1), json!({"os-start": null})).await
    }

    /// Locks the server against changes, with a reason of at most 255 characters; gives the request id.
    pub async fn lock_server(&self, id: &str, reason: &str) -> Result<String, CloudError> {
        let reason: String = reason.chars().take(255).collect();
        self.server_action("lock server", id, (2, 73), json!({"lock": {"locked_reason": reason}})).await
    }

    /// Takes the lock away; gives the request id.
    pub async fn unlock_server(&self, id: &str) -> Result<String, CloudError> {
        self.server_action("unlock server", id, (2, 1), json!({"unlock": null})).await
    }

    /// Sets one metadata key and leaves the others. A locked server refuses it (409).
    pub async fn set_server_metadata(&self, id: &str, key: &str, value: &str) -> Result<(), CloudError> {
        let call = call(Method::PUT, &["servers", id, "metadata", key]).json(json!({"meta": {key: value}}));
        self.send("set server metadata", call).await.map(drop)
    }

    /// Deletes one metadata key; done when it is not there.
    pub async fn delete_server_metadata_key(&self, id: &str, key: &str) -> Result<(), CloudError> {
        let call = call(Method::DELETE, &["servers", id, "metadata", key]);
        self.remove("delete server metadata", call).await
    }

    /// Replaces all tags.
    pub async fn set_server_tags(&self, id: &str, tags: &[String]) -> Result<(), CloudError> {
        let call = call(Method::PUT, &["servers", id, "tags"]).version((2, 26)).json(json!({"tags": tags}));
        self.send("set server tags", call).await.map(drop)
    }

    /// Makes an image of the server's root disk. Gives the image's id and the request id. 2.45 is the first
    /// version with the id in the body.
    pub async fn create_server_image(
        &self,
        id: &str,
        name: &str,
        metadata: &BTreeMap<String, String>,
    ) -> Result<(String, String), CloudError> {
        let action = "create server image";
        let body = json!({"createImage": {"name": name, "metadata": metadata}});
        let call = call(Method::POST, &["servers", id, "action"]).version((2, 45)).json(body);
        let reply = self.send(action, call).await?;
        let image = reply.get("image_id").ok_or_else(|| self.unreadable(action, &reply))?;
        Ok((image, reply.request_id()))
    }

    /// What was done to the server, newest first, for as long as Nova keeps it; from 2.21 on also after its deletion.
    pub async fn server_actions(&self, id: &str) -> Result<Vec<InstanceAction>, CloudError> {
        let call = call(Method::GET, &["servers", id, "os-instance-actions"]).version((2, 21));
        self.fetch("list server actions", "instanceActions", call).await
    }

    /// One of these with its events. They are shown to a member from 2.51 on, with an error's text from 2.84 on.
    pub async fn server_action_details(&self, id: &str, request: &str) -> Result<ActionDetails, CloudError> {
        let version = if self.offers(&ServiceType::Compute, (2, 84)) { (2, 84) } else { (2, 51) };
        let call = call(Method::GET, &["servers", id, "os-instance-actions", request]).version(version);
        self.fetch("get server action", "instanceAction", call).await
    }

    /// Volumes of the server, in the order in which Nova lists them. 2.79 is the first version that says whether
    /// they go with the server.
    pub async fn volume_attachments(&self, id: &str) -> Result<Vec<VolumeAttachment>, CloudError> {
        let call = call(Method::GET, &["servers", id, "os-volume_attachments"]).version((2, 79));
        self.fetch("list volume attachments", "volumeAttachments", call).await
    }

    /// All flavors that the project may use, with extra specs (2.61).
    pub async fn list_flavors(&self) -> Result<Vec<Flavor>, CloudError> {
        let call = call(Method::GET, &["flavors", "detail"]).version((2, 61));
        self.list("list flavors", "flavors", "id", call).await
    }

    /// Names of the user's key pairs (not the project's).
    pub async fn list_keypairs(&self) -> Result<Vec<String>, CloudError> {
        #[derive(Deserialize)]
        struct Item {
            keypair: Name,
        }
        #[derive(Deserialize)]
        struct Name {
            name: String,
        }
        let call = call(Method::GET, &["os-keypairs"]).version((2, 35));
        let items: Vec<Item> = self.list("list key pairs", "keypairs", "keypair.name", call).await?;
        Ok(items.into_iter().map(|item| item.keypair.name).collect())
    }

    /// The project's limits and use by Nova's names, e.g. `maxTotalInstances`, `totalInstancesUsed`; -1 is
    /// unlimited.
    pub async fn compute_limits(&self) -> Result<BTreeMap<String, i64>, CloudError> {
        self.absolute_limits("get compute limits", call(Method::GET, &["limits"])).await
    }

    pub(super) async fn absolute_limits(
        &self,
        action: &str,
        call: Call,
    ) -> Result<BTreeMap<String, i64>, CloudError> {
        #[derive(Deserialize)]
        struct Limits {
            absolute: BTreeMap<String, Value>,
        }
        let limits: Limits = self.fetch(action, "limits", call).await?;
        Ok(limits.absolute.into_iter().filter_map(|(k, v)| Some((k, v.as_i64()?))).collect())
    }

    /// Names of the compute zones that take new servers.
    pub async fn availability_zones(&self) -> Result<Vec<String>, CloudError> {
        let call = call(Method::GET, &["os-availability-zone"]);
        Ok(available(self.fetch("list availability zones", "availabilityZoneInfo", call).await?))
    }

    /// The last lines of the serial console.
    pub async fn console_output(&self, id: &str, lines: u32) -> Result<String, CloudError> {
        let body = json!({"os-getConsoleOutput": {"length": lines}});
        let call = call(Method::POST, &["servers", id, "action"]).json(body);
        self.fetch("get console output", "output", call).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_are_asked_for_by_id() {
        assert!(looks_like_id("8d1a1d4c-0a3c-4b07-9f53-1f3f4c0c8d7e"));
        assert!(looks_like_id("8d1a1d4c0a3c4b079f531f3f4c0c8d7e"));
        for name in ["web-1", "", "../flavors", "8d1a1d4c-0a3c-4b07-9f53-1f3f4c0c8d7x"] {
            assert!(!looks_like_id(name), "{name}");
        }
    }
}
