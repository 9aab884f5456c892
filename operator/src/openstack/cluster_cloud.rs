//! The cloud that a cluster's nodes are servers of, as the platform states it, and which credentials are for that cloud.
//!
//! A cluster attaches volumes with the platform's rights, whatever id a cloud tells. Credentials are a tenant's: their
//! cloud may be one that the tenant plays, and tells ids of other people's volumes. So they count for as much as the
//! platform has said: this identity service, by the platform's trust, and what its catalog leads to.

use url::Url;

use super::credentials::Credentials;
use super::session::{Cloud, identity_v3};

/// The cloud that a cluster's nodes are servers of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterCloud {
    identity: Url,
    region: String,
    ca: Option<Vec<u8>>,
    nodes_are_servers: bool,
}

impl ClusterCloud {
    /// From `identityURL`, `region`, `ca` (PEM; without it public authorities count) and `nodesAreServers`; or why the
    /// cluster is bound to no cloud.
    pub fn parse(value: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let value = |key: &str| value(key).map(|v| v.trim().to_string()).filter(|v| !v.is_empty());
        let url =
            value("identityURL").ok_or("the platform has not said which cloud that is (identityURL)")?;
        let identity = Url::parse(&url).ok().filter(|url| url.host().is_some());
        let identity = identity.filter(|url| matches!(url.scheme(), "https" | "http"));
        let identity =
            identity_v3(&identity.ok_or("the platform's identityURL is no https:// or http:// URL")?);
        let region = value("region").ok_or("the platform has not said which region of that cloud")?;
        let ca = value("ca").map(String::into_bytes);
        let is_pem = |pem: &[u8]| reqwest::Certificate::from_pem_bundle(pem).is_ok_and(|all| !all.is_empty());
        if ca.as_ref().is_some_and(|pem| !is_pem(pem)) {
            return Err("the platform's ca holds no PEM certificate".into());
        }
        let nodes_are_servers = match value("nodesAreServers").as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err("the platform's nodesAreServers is neither true nor false".into()),
        };
        Ok(Self { identity, region, ca, nodes_are_servers })
    }

    /// The platform states that the nodes are servers of this cloud; nobody needs to see them.
    pub fn nodes_are_servers(&self) -> bool {
        self.nodes_are_servers
    }

    /// The region that the nodes are in.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The credentials with the platform's trust in place of the tenant's, if they are for this cloud and nothing in
    /// them leads elsewhere. A session with them is with this cloud.
    pub fn admit(&self, credentials: &Credentials) -> Result<Credentials, String> {
        if let Some(key) = credentials.overrides().first() {
            return Err(format!("{key} in clouds.yaml replaces an address of the cloud's own catalog"));
        }
        let identity = identity_v3(credentials.auth_url());
        if identity != self.identity {
            let bound = &self.identity;
            return Err(format!("clouds.yaml is for {identity}, the platform bound the cluster to {bound}"));
        }
        match credentials.region() {
            Some(region) if region != self.region => Err(self.another(region)),
            _ => Ok(credentials.clone().trusting(self.ca.clone())),
        }
    }

    /// Is the session in the region that the cluster is in?
    pub fn check_region(&self, cloud: &Cloud) -> Result<(), String> {
        match cloud.region() {
            Some(region) if region == self.region => Ok(()),
            other => Err(self.another(other.unwrap_or("none"))),
        }
    }

    fn another(&self, region: &str) -> String {
        format!("the credentials lead to region {region}, the platform bound the cluster to {}", self.region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn bound(values: Value) -> Result<ClusterCloud, String> {
        ClusterCloud::parse(|key| values.get(key).and_then(Value::as_str).map(String::from))
    }

    fn credentials(auth_url: &str, more: Value) -> Credentials {
        let mut entry =
            json!({"auth": {"auth_url": auth_url, "user_id": "u", "password": "p", "project_id": "x"}});
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Credentials::parse(json!({"clouds": {"a": entry}}).to_string().as_bytes(), None, None).unwrap()
    }

    #[test]
    fn what_the_platform_says_must_be_whole() {
        let url = "https://id.example:5000/v3";
        bound(json!({"identityURL": url, "region": "R", "ca": " ", "nodesAreServers": "true"})).unwrap();
        for (values, complaint) in [
            (json!({}), "identityURL"),
            (json!({"identityURL": "  ", "region": "R"}), "identityURL"),
            (json!({"identityURL": "id.example", "region": "R"}), "https://"),
            (json!({"identityURL": "ldap://id.example", "region": "R"}), "https://"),
            (json!({"identityURL": url}), "region"),
            (json!({"identityURL": url, "region": "R", "ca": "none"}), "PEM"),
            (json!({"identityURL": url, "region": "R", "nodesAreServers": "yes"}), "nodesAreServers"),
        ] {
            let why = bound(values.clone()).unwrap_err();
            assert!(why.contains(complaint), "{values}: {why}");
        }
    }

    #[test]
    fn only_credentials_for_that_cloud_are_admitted() {
        let here = bound(json!({"identityURL": "https://id.example:5000/v3", "region": "R"})).unwrap();
        let table = [
            ("https://id.example:5000/v3", json!({}), ""),
            ("https://ID.example:5000", json!({"region_name": "R"}), ""),
            ("https://id.example:5000/v3/", json!({"interface": "internal"}), ""),
            ("https://id.example:5000", json!({"region_name": "S"}), "region S"),
            ("http://id.example:5000", json!({}), "http://id.example:5000/v3/"),
            ("https://id.example/v3", json!({}), "https://id.example/v3/"),
            ("https://id.example:5000/other/v3", json!({}), "/other/v3/"),
            ("https://id.example.evil:5000/v3", json!({}), "evil"),
            (
                "https://id.example:5000",
                json!({"compute_endpoint_override": "https://x"}),
                "compute_endpoint",
            ),
            (
                "https://id.example:5000",
                json!({"volume-endpoint-override": "https://x"}),
                "block_storage_endpoint",
            ),
            (
                "https://id.example:5000",
                json!({"identity_endpoint_override": "https://x"}),
                "identity_endpoint",
            ),
            (
                "https://id.example:5000",
                json!({"regions": [{"name": "R", "values": {"image_endpoint_override":
                "https://x"}}]}),
                "image_endpoint",
            ),
        ];
        for (auth_url, more, complaint) in table {
            let admitted = here.admit(&credentials(auth_url, more.clone()));
            let why = admitted.as_ref().err().cloned().unwrap_or_default();
            assert_eq!(admitted.is_ok(), complaint.is_empty(), "{auth_url} {more}: {why}");
            assert!(why.contains(complaint), "{auth_url} {more}: {why}");
        }
    }
}
