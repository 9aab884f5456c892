//! Sessions with clouds, kept by a hash of their credentials.

use crate::{
    net::EndpointPolicy,
    openstack::{Cloud, CloudError, Credentials, Timeouts},
};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// How long a session is kept; it renews its token by itself meanwhile.
const KEEP: Duration = Duration::from_secs(3600);

/// Sessions by credentials. An entry that is not used any more ends with its hour.
#[derive(Default)]
pub struct CloudCache {
    sessions: Mutex<HashMap<(String, String), (Instant, Cloud)>>,
}

impl CloudCache {
    /// A session; made if there is none.
    pub async fn session(
        &self,
        credentials: &Credentials,
        policy: &EndpointPolicy,
        name: &str,
    ) -> Result<Cloud, CloudError> {
        let key = key(credentials, name);
        {
            let mut sessions = self.sessions.lock().await;
            sessions.retain(|_, (made, _)| made.elapsed() < KEEP);
            if let Some((_, cloud)) = sessions.get(&key) {
                return Ok(cloud.clone());
            }
        }
        let timeouts = Timeouts { control: Duration::from_secs(60), ..Timeouts::default() };
        let cloud = Cloud::connect(credentials, policy, name, timeouts).await?;
        self.sessions.lock().await.insert(key, (Instant::now(), cloud.clone()));
        Ok(cloud)
    }

    /// Forgets sessions whose credentials were refused, by whichever CA they trust.
    pub async fn forget(&self, credentials: &Credentials, name: &str) {
        let (refused, _) = key(credentials, name);
        self.sessions.lock().await.retain(|(entry, _), _| *entry != refused);
    }
}

/// Hashes of the entry under its name, and of the CA.
fn key(credentials: &Credentials, name: &str) -> (String, String) {
    let entry = Sha256::new().chain_update(credentials.to_single_clouds_yaml()).chain_update(name);
    let ca = Sha256::digest(credentials.cacert().unwrap_or_default());
    (hex::encode(entry.finalize()), hex::encode(ca))
}
