//! restic's REST protocol, as rest-server and `rclone serve restic` speak it: a store for repositories only.

use bytes::Bytes;
use reqwest::{Client, Method, RequestBuilder, header};
use serde::Deserialize;
use url::Url;

use super::{
    error::StoreError,
    http::{StoreOptions, bounded_body, client, refused, send},
    keys::{self, StoreKeys},
};

const TYPES: [&str; 5] = ["data", "index", "keys", "locks", "snapshots"];
const CONFIG: &str = "config";
/// Names with their sizes.
const LIST_V2: &str = "application/vnd.x.restic.rest.v2";
/// A listing has no pages: half a million names.
const MAX_LIST: usize = 64 << 20;

/// One server.
#[derive(Clone)]
pub(super) struct Rest {
    endpoint: Url,
    login: Option<(String, String)>,
    client: Client,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
}

impl Rest {
    pub fn new(endpoint: &Url, keys: &StoreKeys, options: &StoreOptions) -> Result<Self, StoreError> {
        let of = |name| keys.get(name).map(str::to_owned);
        Ok(Self {
            endpoint: endpoint.clone(),
            login: of(keys::REST_USERNAME).zip(of(keys::REST_PASSWORD)),
            client: client(endpoint, options)?,
        })
    }

    pub async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        match send(&format!("POST {key}"), self.request(Method::POST, key)?.body(body.clone())).await {
            // So answered when it is there already: when the answer to the call before was lost.
            Err(error @ StoreError::Unauthorized { .. }) => match self.get(key, body.len()).await {
                Ok(there) if there == body => Ok(()),
                _ => Err(error),
            },
            // A place that is not there cannot be written to.
            Err(StoreError::NotFound { what }) => {
                Err(refused(&what, "404 Not Found; rest-server takes no more than two folders"))
            }
            sent => sent.map(drop),
        }
    }

    pub async fn get(&self, key: &str, limit: usize) -> Result<Bytes, StoreError> {
        let what = format!("GET {key}");
        bounded_body(send(&what, self.request(Method::GET, key)?).await?, limit, &what).await
    }

    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        send(&format!("DELETE {key}"), self.request(Method::DELETE, key)?).await.map(drop)
    }

    /// Sees that the server answers, and takes our login.
    pub async fn look(&self, base: &str) -> Result<(), StoreError> {
        self.has_config(base).await.map(drop)
    }

    /// Everything that restic's layout has below `base` and begins with `under`.
    pub async fn list(&self, base: &str, under: &str) -> Result<Vec<String>, StoreError> {
        let mut keys = Vec::new();
        for kind in TYPES.into_iter().filter(|kind| format!("{kind}/").starts_with(under)) {
            keys.extend(self.names(base, kind).await?.into_iter().map(|name| format!("{base}{kind}/{name}")));
        }
        if CONFIG.starts_with(under) && self.has_config(base).await? {
            keys.push(format!("{base}{CONFIG}"));
        }
        Ok(keys)
    }

    async fn names(&self, base: &str, kind: &str) -> Result<Vec<String>, StoreError> {
        let what = format!("LIST {base}{kind}");
        let request = self.request(Method::GET, &format!("{base}{kind}/"))?.header(header::ACCEPT, LIST_V2);
        match send(&what, request).await {
            Ok(response) => {
                let body = bounded_body(response, MAX_LIST, &what).await?;
                parse_names(&body).map_err(|why| refused(&what, &why))
            }
            Err(StoreError::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn has_config(&self, base: &str) -> Result<bool, StoreError> {
        let what = format!("HEAD {base}{CONFIG}");
        match send(&what, self.request(Method::HEAD, &format!("{base}{CONFIG}"))?).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn request(&self, method: Method, key: &str) -> Result<RequestBuilder, StoreError> {
        let url = self.endpoint.join(key).map_err(|error| StoreError::Invalid(error.to_string()))?;
        let request = self.client.request(method, url);
        Ok(match &self.login {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        })
    }
}

/// The names in a listing of restic's REST protocol.
pub fn parse_names(body: &[u8]) -> Result<Vec<String>, String> {
    let entries: Option<Vec<Entry>> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let names = entries.unwrap_or_default().into_iter().map(|entry| entry.name);
    let hex = |name: &str| name.len() == 64 && name.bytes().all(|c| c.is_ascii_hexdigit());
    names
        .map(|name| if hex(&name) { Ok(name) } else { Err(format!("{name:?} is no name of restic's")) })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names() {
        let name = "0a".repeat(32);
        assert_eq!(parse_names(format!(r#"[{{"name":"{name}","size":3}}]"#).as_bytes()), Ok(vec![name]));
        assert_eq!(parse_names(b"null"), Ok(vec![]));
        for bad in ["", "{}", r#"[{"name":"../config"}]"#, r#"["v1"]"#] {
            assert!(parse_names(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_names_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_names(&bytes).is_ok();
        }
    }
}
