//! One cloud of the test bed: the product's adapter as the tenant, and plain calls as tenant and as administrator.

use crate::Rest;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::time::Duration;
use vmmigration::{
    net::EndpointPolicy,
    openstack::{Cloud, Credentials, Timeouts},
};

/// One cloud.
#[derive(Clone, Debug)]
pub struct Site {
    /// `site-a` or `site-b`.
    pub name: String,
    /// As the tenant.
    pub cloud: Cloud,
    /// As the tenant.
    pub rest: Rest,
    /// The entry of `clouds.yaml`, without paths.
    pub entry: Value,
    /// What the test bed tells of this cloud: ids by name.
    pub facts: Value,
}

impl Site {
    /// Connects to `site-a` or `site-b`.
    pub async fn connect(name: &str) -> Result<Self> {
        let entry = entry(name)?;
        let yaml = clouds_yaml(name, &entry);
        let credentials = Credentials::parse(yaml.as_bytes(), None, Some(&ca()?))?;
        let timeouts = Timeouts { control: Duration::from_secs(60), ..Timeouts::default() };
        let cloud = Cloud::connect(&credentials, &EndpointPolicy::default(), name, timeouts).await?;
        let rest = Rest::connect(&entry, http()?).await?;
        let variable = format!("TESTBED_{}", name.to_uppercase().replace('-', "_"));
        let facts = serde_json::from_slice(&std::fs::read(setting(&variable)?)?)?;
        Ok(Self { name: name.into(), cloud, rest, entry, facts })
    }

    /// Plain calls as the cloud's administrator.
    pub async fn admin(&self) -> Result<Rest> {
        Rest::connect(&entry(&format!("{}-admin", self.name))?, http()?).await
    }

    /// An id that the test bed tells, such as `["flavors", "tiny"]`.
    pub fn id(&self, path: &[&str]) -> Result<String> {
        let found = path.iter().fold(&self.facts, |value, key| &value[*key]);
        Ok(found.as_str().with_context(|| format!("the test bed tells no {path:?}"))?.to_string())
    }
}

/// What `testbed exec` sets.
pub fn setting(name: &str) -> Result<String> {
    std::env::var(name)
        .with_context(|| format!("{name} is not set: tests run by tests/e2e/run, inside the test bed"))
}

/// The private CA of cloud B and of the store, PEM.
pub fn ca() -> Result<Vec<u8>> {
    Ok(std::fs::read(setting("TESTBED_CA")?)?)
}

/// A `clouds.yaml` with one entry.
pub fn clouds_yaml(name: &str, entry: &Value) -> String {
    json!({"clouds": {name: entry}}).to_string()
}

fn entry(name: &str) -> Result<Value> {
    let file: Value = serde_saphyr::from_slice(&std::fs::read(setting("OS_CLIENT_CONFIG_FILE")?)?)?;
    let mut entry = file["clouds"][name].clone();
    entry.as_object_mut().with_context(|| format!("no cloud {name}"))?.remove("cacert");
    Ok(entry)
}

/// A client that trusts the test bed's CA.
pub fn http() -> Result<reqwest::Client> {
    let ca = reqwest::Certificate::from_pem(&ca()?)?;
    Ok(reqwest::Client::builder()
        .no_proxy()
        .add_root_certificate(ca)
        .timeout(Duration::from_secs(60))
        // Each call on its own connection: none on one that the other side is just closing.
        .pool_max_idle_per_host(0)
        .build()?)
}
