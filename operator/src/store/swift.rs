//! OpenStack's object store: a token and an address from Keystone, then plain HTTP; listings come in pages.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use reqwest::{Client, Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use url::Url;

use super::{
    error::{StoreError, shown},
    http::{MAX_ANSWER, StoreOptions, bounded_body, client, refuse_literal, refused, send},
    keys::{self, StoreKeys},
    location::is_loopback,
};
use crate::net::AddressCheck;

const TOKEN_HEADER: &str = "x-auth-token";

/// One container.
#[derive(Clone)]
pub(super) struct Swift {
    container: String,
    auth_url: Url,
    region: Option<String>,
    login: Value,
    client: Client,
    address_check: AddressCheck,
    session: Arc<Mutex<Option<Session>>>,
}

#[derive(Clone)]
struct Session {
    token: String,
    storage: Url,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Token,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    catalog: Vec<Service>,
}

#[derive(Deserialize)]
struct Service {
    #[serde(rename = "type")]
    kind: String,
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    interface: String,
    region: Option<String>,
    url: String,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    /// Only where the cluster can keep versions.
    version_id: Option<String>,
}

/// A name, and its version where there are any.
pub(super) type NamedVersion = (String, Option<String>);

impl Swift {
    pub fn new(container: &str, keys: &StoreKeys, options: &StoreOptions) -> Result<Self, StoreError> {
        let text = keys.get(keys::AUTH_URL).unwrap_or_default();
        let auth_url = Url::parse(text)
            .map_err(|error| StoreError::Invalid(format!("{} is no URL: {error}", keys::AUTH_URL)))?;
        // Loopback itself is refused by the policy, unless this is a test.
        if auth_url.scheme() != "https" && !is_loopback(&auth_url) {
            return Err(StoreError::Invalid(format!("{} must be an https URL", keys::AUTH_URL)));
        }
        Ok(Self {
            container: container.to_owned(),
            client: client(&auth_url, options)?,
            auth_url,
            region: keys.get(keys::REGION_NAME).map(str::to_owned),
            login: login(keys),
            address_check: options.address_check.clone(),
            session: Arc::default(),
        })
    }

    /// The container's name.
    pub fn name(&self) -> &str {
        &self.container
    }

    /// Sees that the container is there: restic makes one that is not. Where what is deleted there is copied to, if it is.
    pub async fn look(&self) -> Result<Option<String>, StoreError> {
        let response = match self.call(Method::HEAD, "", &[], Bytes::new()).await {
            Err(StoreError::NotFound { what }) => return Err(StoreError::NoBucket { what }),
            answer => answer?,
        };
        let of = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        Ok(of("x-history-location").or_else(|| of("x-versions-location")).map(shown))
    }

    /// Writes an object; gives the version that it became.
    pub async fn put(&self, key: &str, body: Bytes) -> Result<Option<String>, StoreError> {
        let response = match self.call(Method::PUT, key, &[], body).await {
            Err(StoreError::NotFound { what }) => return Err(StoreError::NoBucket { what }),
            answer => answer?,
        };
        let version = response.headers().get("x-object-version-id").and_then(|value| value.to_str().ok());
        Ok(version.map(str::to_owned))
    }

    pub async fn get(&self, key: &str, limit: usize) -> Result<Bytes, StoreError> {
        let response = self.call(Method::GET, key, &[], Bytes::new()).await?;
        bounded_body(response, limit, &format!("GET {key}")).await
    }

    /// Deletes an object, or one version of it.
    pub async fn delete(&self, key: &str, version: Option<&str>) -> Result<(), StoreError> {
        let query: Vec<_> = version.map(|version| ("version-id", version)).into_iter().collect();
        self.call(Method::DELETE, key, &query, Bytes::new()).await.map(drop)
    }

    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut names: Vec<String> = Vec::new();
        loop {
            let marker = names.last().cloned().unwrap_or_default();
            let page = self.page(prefix, &[("marker", &marker)], |body| parse_page(body, &marker)).await?;
            if page.is_empty() {
                return Ok(names);
            }
            names.extend(page);
        }
    }

    /// Every version and every marker below a prefix; where there are none, each object.
    pub async fn versions(&self, prefix: &str) -> Result<Vec<NamedVersion>, StoreError> {
        let mut rows: Vec<NamedVersion> = Vec::new();
        let mut seen = HashSet::new();
        loop {
            let (marker, version) = rows.last().cloned().unwrap_or_default();
            let mut query = vec![("versions", "true"), ("marker", marker.as_str())];
            query.extend(version.as_deref().map(|version| ("version_marker", version)));
            query.retain(|(_, value)| !value.is_empty());
            let page = self.page(prefix, &query, parse_versions).await?;
            if page.is_empty() {
                return Ok(rows);
            }
            if !page.iter().all(|row| seen.insert(row.clone())) {
                return Err(refused(&format!("LIST {prefix}"), "the listing goes round in circles"));
            }
            rows.extend(page);
        }
    }

    /// As many rows as the cluster gives at once: a limit above its own would be refused.
    async fn page<T>(
        &self,
        prefix: &str,
        query: &[(&str, &str)],
        parse: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<T, StoreError> {
        let what = format!("LIST {prefix}");
        let query = [&[("format", "json"), ("prefix", prefix)][..], query].concat();
        let response = match self.call(Method::GET, "", &query, Bytes::new()).await {
            Err(StoreError::NotFound { what }) => return Err(StoreError::NoBucket { what }),
            answer => answer?,
        };
        let body = bounded_body(response, MAX_ANSWER, &what).await?;
        parse(&body).map_err(|why| refused(&what, &why))
    }

    /// One call; with a new token when the old one is not good any more.
    async fn call(
        &self,
        method: Method,
        key: &str,
        query: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response, StoreError> {
        let what = format!("{method} {}/{key}", self.container);
        let mut renewed = false;
        loop {
            let session = self.session(renewed).await?;
            let mut url = session.storage;
            if let Ok(mut path) = url.path_segments_mut() {
                path.pop_if_empty()
                    .push(&self.container)
                    .extend(key.split('/').filter(|part| !part.is_empty()));
            }
            if !query.is_empty() {
                url.query_pairs_mut().extend_pairs(query);
            }
            let request = self.client.request(method.clone(), url).header(TOKEN_HEADER, session.token);
            match send(&what, request.body(body.clone())).await {
                Err(StoreError::Unauthorized { answer, .. })
                    if !renewed && answer.starts_with(StatusCode::UNAUTHORIZED.as_str()) =>
                {
                    renewed = true;
                }
                ended => return ended,
            }
        }
    }

    async fn session(&self, renew: bool) -> Result<Session, StoreError> {
        let mut kept = self.session.lock().await;
        if let Some(session) = kept.as_ref().filter(|_| !renew) {
            return Ok(session.clone());
        }
        let session = self.log_in().await?;
        *kept = Some(session.clone());
        Ok(session)
    }

    async fn log_in(&self) -> Result<Session, StoreError> {
        let mut url = self.auth_url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["auth", "tokens"]);
        }
        let what = format!("POST {url}");
        let response = match send(&what, self.client.post(url).json(&self.login)).await {
            // Nothing is said of any object by this.
            Err(StoreError::NotFound { what }) => {
                let why = format!("{}: {what}: 404 Not Found: there is no Keystone", keys::AUTH_URL);
                return Err(StoreError::Invalid(why));
            }
            answer => answer?,
        };
        let token = response.headers().get("x-subject-token").and_then(|value| value.to_str().ok());
        let token = token.map(str::to_owned).ok_or_else(|| refused(&what, "no token came back"))?;
        let body = bounded_body(response, MAX_ANSWER, &what).await?;
        let storage = parse_catalog(&body, self.region.as_deref()).map_err(|why| refused(&what, &why))?;
        refuse_literal(&storage, &self.address_check)?;
        Ok(Session { token, storage })
    }
}

/// What Keystone wants to know: an application credential, or a password and a project.
fn login(keys: &StoreKeys) -> Value {
    let of = |name| keys.get(name).unwrap_or_default();
    if let Some(id) = keys.get(keys::CREDENTIAL_ID) {
        let credential = json!({"id": id, "secret": of(keys::CREDENTIAL_SECRET)});
        let identity = json!({"methods": ["application_credential"], "application_credential": credential});
        return json!({"auth": {"identity": identity}});
    }
    let named = |name, domain| json!({"name": of(name), "domain": {"name": of(domain)}});
    let mut user = named(keys::USERNAME, keys::USER_DOMAIN);
    user["password"] = of(keys::PASSWORD).into();
    let identity = json!({"methods": ["password"], "password": {"user": user}});
    let project = named(keys::PROJECT, keys::PROJECT_DOMAIN);
    json!({"auth": {"identity": identity, "scope": {"project": project}}})
}

/// The public address of the object store.
pub fn parse_catalog(body: &[u8], region: Option<&str>) -> Result<Url, String> {
    let answer: TokenAnswer = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let stores = answer.token.catalog.into_iter().filter(|service| service.kind == "object-store");
    let here = |endpoint: &Endpoint| {
        endpoint.interface == "public"
            && region.is_none_or(|region| endpoint.region.as_deref() == Some(region))
    };
    let found = stores.flat_map(|service| service.endpoints).find(here);
    let found = found.ok_or_else(|| {
        let region = region.map_or_else(String::new, |region| format!(" in region {region}"));
        format!("the catalog has no public object-store{region}")
    })?;
    Url::parse(&found.url).map_err(|error| format!("the object store's address: {error}"))
}

/// One page, all of it behind the marker: a listing that does not go on would keep us here for ever.
pub fn parse_page(body: &[u8], marker: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = entries(body)?.into_iter().map(|entry| entry.name).collect();
    let begins = names.first().is_none_or(|first| first.as_str() > marker);
    if !begins || !names.is_sorted_by(|one, next| one < next) {
        return Err("the listing goes round in circles".to_owned());
    }
    Ok(names)
}

/// The same of versions, of which one object has some.
pub fn parse_versions(body: &[u8]) -> Result<Vec<NamedVersion>, String> {
    let rows: Vec<_> = entries(body)?.into_iter().map(|entry| (entry.name, entry.version_id)).collect();
    if !rows.is_sorted_by(|one, next| one.0 <= next.0) {
        return Err("the listing is in no order".to_owned());
    }
    Ok(rows)
}

fn entries(body: &[u8]) -> Result<Vec<Entry>, String> {
    // An empty container is answered without a body by some.
    if body.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_slice(body).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_catalog() {
        let endpoint = |interface: &str, region: &str, url: &str| json!({"interface": interface, "region": region, "url": url});
        let endpoints = [
            endpoint("internal", "a", "https://i/"),
            endpoint("public", "a", "https://a/v1/AUTH_x"),
            endpoint("public", "b", "https://b/v1/AUTH_x"),
        ];
        let body = json!({"token": {"catalog": [{"type": "image", "endpoints": []},
            {"type": "object-store", "endpoints": endpoints}]}})
        .to_string();
        let find = |region| parse_catalog(body.as_bytes(), region).map(|url| url.to_string());
        assert_eq!(find(None).as_deref(), Ok("https://a/v1/AUTH_x"));
        assert_eq!(find(Some("b")).as_deref(), Ok("https://b/v1/AUTH_x"));
        assert!(find(Some("c")).unwrap_err().contains("region c"));
        assert!(parse_catalog(b"{}", None).is_err());
    }

    #[test]
    fn pages_go_on() {
        let page = |names: &[&str]| {
            json!(names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()).to_string()
        };
        assert_eq!(parse_page(page(&["b", "c"]).as_bytes(), "a"), Ok(vec!["b".into(), "c".into()]));
        assert_eq!(parse_page(b"", "a"), Ok(vec![]));
        assert!(parse_page(page(&["a"]).as_bytes(), "a").is_err());
        assert!(parse_page(page(&["c", "b"]).as_bytes(), "a").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (parse_page(&bytes, "").is_ok(), parse_catalog(&bytes, None).is_ok());
        }
    }
}
