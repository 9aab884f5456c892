//! Networks, ports and security groups (Neutron, which has no microversions).

use std::collections::BTreeMap;

use http::Method;
use openstack_sdk::types::ServiceType;
use serde_json::{Value, json};

use super::endpoint::{Call, path};
use super::error::CloudError;
use super::session::Cloud;
use super::volume::quota;
use crate::cloud::{Listed, Network, Port, Quota, SecurityGroup, Subnet, Trunk};

fn call(method: Method, segments: &[&str]) -> Call {
    Call::new(ServiceType::Network, method, path(segments))
}

impl Cloud {
    /// All networks that the project sees, shared and external ones too.
    pub async fn list_networks(&self) -> Result<Vec<Network>, CloudError> {
        self.list("list networks", "networks", "id", call(Method::GET, &["networks"])).await
    }

    /// All subnets that the project sees.
    pub async fn list_subnets(&self) -> Result<Vec<Subnet>, CloudError> {
        self.list("list subnets", "subnets", "id", call(Method::GET, &["subnets"])).await
    }

    /// The ports of a server.
    pub async fn ports_of_device(&self, server_id: &str) -> Result<Vec<Port>, CloudError> {
        let call = call(Method::GET, &["ports"]).query("device_id", server_id);
        self.list("list ports of server", "ports", "id", call).await
    }

    /// All ports that the project sees.
    pub async fn list_ports(&self) -> Result<Listed<Port>, CloudError> {
        self.listed("list ports", "ports", "id", call(Method::GET, &["ports"])).await
    }

    /// One port; `None` when there is none with this id.
    pub async fn get_port(&self, id: &str) -> Result<Option<Port>, CloudError> {
        self.fetch_optional("get port", "port", call(Method::GET, &["ports", id])).await
    }

    /// Makes a port; `body` is `{"port": {...}}`. A fixed address or MAC on a network of another project is
    /// refused (403).
    pub async fn create_port(&self, body: &Value) -> Result<Port, CloudError> {
        self.fetch("create port", "port", call(Method::POST, &["ports"]).json(body.clone())).await
    }

    /// Changes a port; `body` is `{"port": {...}}`.
    pub async fn update_port(&self, id: &str, body: &Value) -> Result<Port, CloudError> {
        let call = call(Method::PUT, &["ports", id]).json(body.clone());
        self.fetch("update port", "port", call).await
    }

    /// Replaces all tags of a port.
    pub async fn set_port_tags(&self, id: &str, tags: &[String]) -> Result<(), CloudError> {
        let call = call(Method::PUT, &["ports", id, "tags"]).json(json!({"tags": tags}));
        self.send("set port tags", call).await.map(drop)
    }

    /// Deletes a port; done when it is not there.
    pub async fn delete_port(&self, id: &str) -> Result<(), CloudError> {
        self.remove("delete port", call(Method::DELETE, &["ports", id])).await
    }

    /// Security groups that the project sees.
    pub async fn list_security_groups(&self) -> Result<Vec<SecurityGroup>, CloudError> {
        let call = call(Method::GET, &["security-groups"]);
        self.list("list security groups", "security_groups", "id", call).await
    }

    /// The project's quotas and use by resource (`port`, `network`, `security_group`, ...).
    pub async fn network_quotas(&self) -> Result<BTreeMap<String, Quota>, CloudError> {
        let project = self.project_id();
        let call = call(Method::GET, &["quotas", &project, "details"]);
        let set: BTreeMap<String, Value> = self.fetch("get network quotas", "quota", call).await?;
        Ok(set.into_iter().filter_map(|(name, v)| Some((name, quota(&v, "used")?))).collect())
    }

    /// Whether the cloud has an API extension, e.g. `trunk`.
    pub async fn has_extension(&self, alias: &str) -> Result<bool, CloudError> {
        let call = call(Method::GET, &["extensions", alias]);
        let found: Option<Value> = self.fetch_optional("get network extension", "extension", call).await?;
        Ok(found.is_some())
    }

    /// Trunks of the project; none where the extension is missing.
    pub async fn list_trunks(&self) -> Result<Vec<Trunk>, CloudError> {
        if !self.has_extension("trunk").await? {
            return Ok(Vec::new());
        }
        self.list("list trunks", "trunks", "id", call(Method::GET, &["trunks"])).await
    }
}
