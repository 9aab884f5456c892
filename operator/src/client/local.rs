//! The clouds of the user's own `clouds.yaml`, if there is one: to look at a live server. Nothing of it goes anywhere
//! but to the clouds that it names.

use crate::{
    net::EndpointPolicy,
    openstack::{Cloud, Credentials, Timeouts},
};
use serde_json::{Value, json};
use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where OpenStack's own clients look, in their order.
fn places() -> Vec<PathBuf> {
    if let Some(file) = env::var_os("OS_CLIENT_CONFIG_FILE").filter(|f| !f.is_empty()) {
        return vec![file.into()];
    }
    let home = env::var_os("HOME").map(PathBuf::from);
    let mut places = vec![PathBuf::from("clouds.yaml")];
    places.extend(home.map(|h| h.join(".config/openstack/clouds.yaml")));
    places.push("/etc/openstack/clouds.yaml".into());
    places
}

/// The user's clouds.
pub struct LocalClouds {
    /// The file.
    pub path: PathBuf,
    clouds: Value,
}

/// The first `clouds.yaml` that there is; `None`: there is none. An error names the file.
pub fn find() -> Result<Option<LocalClouds>, String> {
    match places().into_iter().find(|p| p.is_file()) {
        Some(path) => read(&path).map(Some),
        None => Ok(None),
    }
}

fn read(path: &Path) -> Result<LocalClouds, String> {
    let fail = |why: &str| format!("{}: {why}", path.display());
    let bytes = std::fs::read(path).map_err(|e| fail(&e.to_string()))?;
    // The parser's own message would quote the file, secrets included.
    let file: Value = serde_saphyr::from_slice(&bytes).map_err(|_| fail("not valid YAML"))?;
    let clouds = file.get("clouds").cloned().unwrap_or_else(|| json!({}));
    Ok(LocalClouds { path: path.into(), clouds })
}

impl LocalClouds {
    /// Is there an entry of this name?
    pub fn has(&self, name: &str) -> bool {
        self.clouds.get(name).is_some()
    }

    /// The credentials of an entry. A CA in a file, which a Secret could not have, is read here.
    pub fn credentials(&self, name: &str) -> Result<Credentials, String> {
        let mut entry = self.clouds.get(name).cloned().ok_or_else(|| format!("no cloud {name}"))?;
        let named = entry.as_object_mut().and_then(|e| e.remove("cacert"));
        let file = named.as_ref().and_then(Value::as_str).map(PathBuf::from);
        let file = file.or_else(|| env::var_os("OS_CACERT").map(PathBuf::from));
        let cacert = match file.filter(|f| !f.as_os_str().is_empty()) {
            Some(file) => Some(std::fs::read(&file).map_err(|e| format!("{}: {e}", file.display()))?),
            None => None,
        };
        let yaml = json!({"clouds": {name: entry}}).to_string();
        Credentials::parse(yaml.as_bytes(), Some(name), cacert.as_deref()).map_err(|e| e.to_string())
    }

    /// A connection to the cloud of an entry.
    pub async fn connect(&self, name: &str) -> Result<Cloud, String> {
        let credentials = self.credentials(name)?;
        let timeouts = Timeouts { control: Duration::from_secs(30), ..Timeouts::default() };
        Cloud::connect(&credentials, &EndpointPolicy::default(), name, timeouts)
            .await
            .map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_with_a_ca_in_a_file_is_understood() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("clouds.yaml");
        std::fs::write(
            &path,
            "clouds:\n  a:\n    auth: {auth_url: 'https://a/v3', username: u, password: p, project_name: x}\n    cacert: /nowhere.pem\n",
        )
        .unwrap();
        let clouds = read(&path).unwrap();
        assert!(clouds.has("a") && !clouds.has("b"));
        assert!(clouds.credentials("a").unwrap_err().starts_with("/nowhere.pem: "));
        std::fs::write(&path, "clouds: [\n password: secret").unwrap();
        assert!(!read(&path).err().unwrap().contains("secret"));
    }
}
