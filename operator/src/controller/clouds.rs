//! Sessions with clouds, kept by a hash of their credentials; and logins that were refused, which are not tried again
//! before minutes have passed: clouds lock accounts that are tried too often.

use crate::{
    net::EndpointPolicy,
    openstack::{Cloud, CloudError, Credentials, ErrorKind, Timeouts},
};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// How long a session is kept; it renews its token by itself meanwhile.
const KEEP: Duration = Duration::from_secs(3600);
/// A login that was refused is tried again after this, twice this, and so on.
const FIRST_PAUSE: Duration = Duration::from_secs(120);
/// The longest of these pauses.
const LAST_PAUSE: Duration = Duration::from_secs(900);

/// Sessions by credentials. An entry that is not used any more ends with its hour.
#[derive(Default)]
pub struct CloudCache {
    sessions: Mutex<HashMap<(String, String), (Instant, Cloud)>>,
    /// By a hash of what is said to the identity service. Held while it is asked: one at a time for each login.
    logins: Mutex<HashMap<String, Arc<Mutex<Login>>>>,
}

/// What became of the last attempt.
#[derive(Default)]
struct Login {
    failed: Option<Failure>,
}

struct Failure {
    at: Instant,
    /// How often it was refused, one time after the other.
    refused: u32,
    error: CloudError,
}

impl Login {
    fn is_recent(&self) -> bool {
        self.failed.as_ref().is_some_and(|failure| failure.at.elapsed() < KEEP)
    }

    /// Why it is not tried now: somebody just did while this one waited, or it was refused and the pause is not over.
    fn outcome(&self, waiting_since: Instant, now: Instant) -> Option<&CloudError> {
        let failure = self.failed.as_ref()?;
        let refused = failure.error.kind == ErrorKind::Unauthorized
            && now.saturating_duration_since(failure.at) < pause(failure.refused);
        (failure.at > waiting_since || refused).then_some(&failure.error)
    }

    fn fail(&mut self, mut error: CloudError, now: Instant) -> CloudError {
        let mut refused = self.failed.as_ref().map_or(0, |failure| failure.refused);
        if error.kind == ErrorKind::Unauthorized {
            refused += 1;
            let minutes = pause(refused).as_secs() / 60;
            error.message +=
                &format!(" (tried again after {minutes} minutes, at once when the Secret changes)");
        }
        self.failed = Some(Failure { at: now, refused, error: error.clone() });
        error
    }
}

fn pause(refused: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << refused.saturating_sub(1).min(8)).min(LAST_PAUSE)
}

impl CloudCache {
    /// A session; made if there is none.
    pub async fn session(
        &self,
        credentials: &Credentials,
        policy: &EndpointPolicy,
        name: &str,
    ) -> Result<Cloud, CloudError> {
        let (key, since) = (key(credentials, name), Instant::now());
        if let Some(cloud) = self.kept(&key).await {
            return Ok(cloud);
        }
        let login = self.login(credentials).await;
        let mut login = login.lock().await;
        if let Some(error) = login.outcome(since, Instant::now()) {
            return Err(CloudError { cloud: name.into(), ..error.clone() });
        }
        if let Some(cloud) = self.kept(&key).await {
            return Ok(cloud);
        }
        let timeouts = Timeouts { control: Duration::from_secs(60), ..Timeouts::default() };
        let made = Cloud::connect(credentials, policy, name, timeouts).await;
        let cloud = made.map_err(|error| login.fail(error, Instant::now()))?;
        login.failed = None;
        self.sessions.lock().await.insert(key, (Instant::now(), cloud.clone()));
        Ok(cloud)
    }

    async fn kept(&self, key: &(String, String)) -> Option<Cloud> {
        let mut sessions = self.sessions.lock().await;
        sessions.retain(|_, (made, _)| made.elapsed() < KEEP);
        sessions.get(key).map(|(_, cloud)| cloud.clone())
    }

    async fn login(&self, credentials: &Credentials) -> Arc<Mutex<Login>> {
        let mut logins = self.logins.lock().await;
        // Those that are in use cannot be locked.
        logins.retain(|_, login| login.try_lock().map_or(true, |login| login.is_recent()));
        logins.entry(hex::encode(Sha256::digest(credentials.login()))).or_default().clone()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ErrorKind) -> CloudError {
        let (cloud, action) = ("a".to_string(), "authenticate".to_string());
        CloudError { cloud, action, kind, status: Some(401), message: "no".into(), request_id: None }
    }

    #[test]
    fn a_refused_login_is_left_alone_for_minutes_and_longer_each_time() {
        let start = Instant::now();
        let after = |minutes: u64| start + Duration::from_secs(60 * minutes);
        let mut login = Login::default();
        assert!(login.outcome(start, start).is_none());
        let (mut at, mut asked) = (0, vec![]);
        for minute in 0..60 {
            if login.outcome(after(minute), after(minute)).is_none() {
                asked.push(minute - at);
                at = minute;
                login.fail(error(ErrorKind::Unauthorized), after(minute));
            }
        }
        assert_eq!(asked, [0, 2, 4, 8, 15, 15, 15], "minutes between attempts");
        let told = login.fail(error(ErrorKind::Unauthorized), after(60));
        assert_eq!(told.message, "no (tried again after 15 minutes, at once when the Secret changes)");
    }

    #[test]
    fn a_cloud_that_cannot_be_reached_is_tried_again_at_once() {
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        let mut login = Login::default();
        assert_eq!(login.fail(error(ErrorKind::Unreachable), start).message, "no");
        assert!(login.outcome(later, later).is_none());
        // Those who waited for this attempt do not each wait for one of their own.
        assert!(login.outcome(start.checked_sub(Duration::from_secs(1)).unwrap(), later).is_some());
        // The pauses go on growing over it.
        login.fail(error(ErrorKind::Unauthorized), start);
        login.fail(error(ErrorKind::Unreachable), start);
        login.fail(error(ErrorKind::Unauthorized), start);
        assert!(login.outcome(later, start + Duration::from_secs(239)).is_some());
    }
}
