//! The HTTP side of the store: signed requests, bounded answers, paged listings.

use std::{
    collections::HashSet,
    fmt,
    time::{Duration, Instant},
};

use bytes::Bytes;
use reqwest::{Certificate, Client, Response, header, redirect};
use rusty_s3::{
    Bucket, Credentials, S3Action, UrlStyle,
    actions::{DeleteObjectsResponse, ListObjectsV2, ObjectIdentifier},
};
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::{
    error::StoreError,
    location::ObjectStoreLocation,
    policy::{AddressCheck, policy_resolver},
};

/// How long a signature stays valid: one request, with room for clocks that differ.
const SIGNATURE: Duration = Duration::from_secs(300);
/// Answers to our own small calls are never larger.
const MAX_ANSWER: usize = 8 << 20;
/// What S3 takes in one DeleteObjects call.
const DELETE_BATCH: usize = 1000;
/// Names of the objects that a probe writes begin so.
pub(crate) const PROBE_PREFIX: &str = ".probe-";

/// The keys to the store. Debug output shows none of them.
#[derive(Clone)]
pub struct StoreKeys {
    /// `AWS_ACCESS_KEY_ID`
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`
    pub secret_access_key: String,
    /// `AWS_SESSION_TOKEN`
    pub session_token: Option<String>,
    /// `AWS_DEFAULT_REGION`
    pub region: Option<String>,
}

impl StoreKeys {
    /// The region to sign for; most stores but Amazon's ignore it.
    pub fn region(&self) -> &str {
        self.region.as_deref().unwrap_or("us-east-1")
    }
}

impl fmt::Debug for StoreKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreKeys").field("region", &self.region).finish_non_exhaustive()
    }
}

/// What a client needs besides location and keys.
#[derive(Clone)]
pub struct StoreOptions {
    /// The store's CA (PEM). When given, no other CA is trusted, as with restic's `--cacert`.
    pub ca_pem: Option<Vec<u8>>,
    /// Which addresses may be connected to.
    pub address_check: AddressCheck,
    /// For one whole request.
    pub timeout: Duration,
}

impl StoreOptions {
    /// The usual timeout with the given policy and no CA of its own.
    pub fn new(address_check: AddressCheck) -> Self {
        Self { ca_pem: None, address_check, timeout: Duration::from_secs(60) }
    }
}

/// How long the three calls of a probe took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeTimes {
    /// Milliseconds for the write.
    pub write_ms: u64,
    /// Milliseconds for reading it back.
    pub read_ms: u64,
    /// Milliseconds for the deletion.
    pub delete_ms: u64,
}

/// One place in an object store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    location: ObjectStoreLocation,
    bucket: Bucket,
    credentials: Credentials,
    client: Client,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("location", &self.location).finish_non_exhaustive()
    }
}

impl Store {
    /// A client for one location. Connects to nothing yet.
    pub fn new(
        location: &ObjectStoreLocation,
        keys: &StoreKeys,
        options: &StoreOptions,
    ) -> Result<Self, StoreError> {
        refuse_literal(location, &options.address_check)?;
        let invalid = |error: &dyn fmt::Display| StoreError::Invalid(error.to_string());
        let endpoint = location.endpoint().clone();
        let bucket =
            Bucket::new(endpoint, UrlStyle::Path, location.bucket().to_owned(), keys.region().to_owned())
                .map_err(|error| invalid(&error))?;
        let credentials = match &keys.session_token {
            Some(token) => Credentials::new_with_token(&keys.access_key_id, &keys.secret_access_key, token),
            None => Credentials::new(&keys.access_key_id, &keys.secret_access_key),
        };
        Ok(Self { location: location.clone(), bucket, credentials, client: client(location, options)? })
    }

    /// Where this is.
    pub fn location(&self) -> &ObjectStoreLocation {
        &self.location
    }

    /// Writes one object.
    pub async fn put(&self, key: &str, body: impl Into<Bytes>) -> Result<(), StoreError> {
        let key = self.full_key(key)?;
        let url = self.bucket.put_object(Some(&self.credentials), &key).sign(SIGNATURE);
        self.send(format!("PUT {key}"), self.client.put(url).body(body.into())).await.map(drop)
    }

    /// Reads one object of at most `limit` bytes.
    pub async fn get(&self, key: &str, limit: usize) -> Result<Bytes, StoreError> {
        let key = self.full_key(key)?;
        let url = self.bucket.get_object(Some(&self.credentials), &key).sign(SIGNATURE);
        let what = format!("GET {key}");
        let response = self.send(what.clone(), self.client.get(url)).await?;
        bounded_body(response, limit, &what).await
    }

    /// Deletes one object; one that is not there is fine.
    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let key = self.full_key(key)?;
        let url = self.bucket.delete_object(Some(&self.credentials), &key).sign(SIGNATURE);
        match self.send(format!("DELETE {key}"), self.client.delete(url)).await {
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The keys of all objects below `under` (empty: the whole prefix), relative to the prefix.
    pub async fn list_all(&self, under: &str) -> Result<Vec<String>, StoreError> {
        let base = self.base();
        let prefix = format!("{base}{under}");
        let mut keys = Vec::new();
        let mut seen_tokens = HashSet::new();
        let mut token: Option<String> = None;
        loop {
            let page = self.list_page(&prefix, token.as_deref()).await?;
            for object in page.contents {
                let foreign = || refused(&format!("LIST {prefix}"), "a key outside of the prefix was listed");
                if !object.key.starts_with(&prefix) {
                    return Err(foreign());
                }
                keys.push(object.key.strip_prefix(&base).ok_or_else(foreign)?.to_owned());
            }
            match page.next_continuation_token {
                None => return Ok(keys),
                // A store that answers the same token again would keep us here for ever.
                Some(next) if !seen_tokens.insert(next.clone()) => {
                    return Err(refused(&format!("LIST {prefix}"), "the listing goes round in circles"));
                }
                Some(next) => token = Some(next),
            }
        }
    }

    async fn list_page(
        &self,
        prefix: &str,
        token: Option<&str>,
    ) -> Result<rusty_s3::actions::ListObjectsV2Response, StoreError> {
        let what = format!("LIST {prefix}");
        let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
        action.with_prefix(prefix.to_owned());
        if let Some(token) = token {
            action.with_continuation_token(token.to_owned());
        }
        let response = self.send(what.clone(), self.client.get(action.sign(SIGNATURE))).await?;
        let body = bounded_body(response, MAX_ANSWER, &what).await?;
        ListObjectsV2::parse_response(&with_namespace(&body, "ListBucketResult"))
            .map_err(|error| refused(&what, &error.to_string()))
    }

    /// Deletes objects, up to a thousand a call; any that the store did not delete is an error.
    pub async fn delete_many(&self, keys: &[String]) -> Result<(), StoreError> {
        for batch in keys.chunks(DELETE_BATCH) {
            self.delete_batch(batch).await?;
        }
        Ok(())
    }

    async fn delete_batch(&self, keys: &[String]) -> Result<(), StoreError> {
        let objects = keys
            .iter()
            .map(|key| self.full_key(key).map(ObjectIdentifier::new))
            .collect::<Result<Vec<_>, _>>()?;
        let what = format!("DELETE {} objects below {}", objects.len(), self.base());
        let mut action = self.bucket.delete_objects(Some(&self.credentials), objects.iter());
        action.set_quiet(true);
        let url = action.sign(SIGNATURE);
        let (body, md5) = action.body_with_md5();
        let request = self
            .client
            .post(url)
            .header("content-md5", md5)
            .header(header::CONTENT_TYPE, "application/xml")
            .body(body);
        let response = self.send(what.clone(), request).await?;
        let body = bounded_body(response, MAX_ANSWER, &what).await?;
        let answer = DeleteObjectsResponse::parse(&with_namespace(&body, "DeleteResult"))
            .map_err(|error| refused(&what, &error.to_string()))?;
        match answer.errors.first() {
            None => Ok(()),
            Some(first) => {
                let first = format!(
                    "{} of them failed, first {}: {} {}",
                    answer.errors.len(),
                    first.key,
                    first.code,
                    first.message
                );
                Err(refused(&what, &first))
            }
        }
    }

    /// Writes a small random object, reads it back, deletes it, and sees that it is gone.
    pub async fn probe(&self) -> Result<ProbeTimes, StoreError> {
        let key = format!("{PROBE_PREFIX}{:032x}", rand::random::<u128>());
        let content = Bytes::from(rand::random::<[u8; 32]>().to_vec());
        let start = Instant::now();
        self.put(&key, content.clone()).await?;
        let write_ms = millis(start);
        let start = Instant::now();
        let read = self.get(&key, 1024).await;
        let read_ms = millis(start);
        let start = Instant::now();
        // Deleted before the reading is judged, so that nothing stays behind.
        self.delete(&key).await?;
        let delete_ms = millis(start);
        if read? != content {
            return Err(refused(&format!("GET {key}"), "other bytes came back than were written"));
        }
        Ok(ProbeTimes { write_ms, read_ms, delete_ms })
    }

    fn base(&self) -> String {
        match self.location.prefix() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        }
    }

    fn full_key(&self, key: &str) -> Result<String, StoreError> {
        if key.is_empty() || key.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(StoreError::Invalid(format!("{key:?} is no object key")));
        }
        Ok(format!("{}{key}", self.base()))
    }

    async fn send(&self, what: String, request: reqwest::RequestBuilder) -> Result<Response, StoreError> {
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(StoreError::from_client(what, error)),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = bounded_body(response, 64 << 10, &what).await.unwrap_or_default();
        Err(StoreError::from_answer(what, status, &String::from_utf8_lossy(&body)))
    }
}

fn client(location: &ObjectStoreLocation, options: &StoreOptions) -> Result<Client, StoreError> {
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .https_only(location.endpoint().scheme() == "https")
        .connect_timeout(Duration::from_secs(10))
        .timeout(options.timeout)
        .dns_resolver(policy_resolver(options.address_check.clone()));
    if let Some(pem) = &options.ca_pem {
        let invalid = |error: reqwest::Error| {
            StoreError::Invalid(format!("store-cacert is no PEM certificate: {error}"))
        };
        let certificates = Certificate::from_pem_bundle(pem).map_err(invalid)?;
        if certificates.is_empty() {
            return Err(StoreError::Invalid("store-cacert holds no certificate".to_owned()));
        }
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|error| StoreError::Invalid(error.to_string()))
}

/// Addresses in the URL itself never pass the resolver, so they are looked at here.
fn refuse_literal(location: &ObjectStoreLocation, check: &AddressCheck) -> Result<(), StoreError> {
    let ip = match Url::host(location.endpoint()) {
        Some(Host::Ipv4(ip)) => ip.into(),
        Some(Host::Ipv6(ip)) => ip.into(),
        _ => return Ok(()),
    };
    check(ip).map_err(|cause| StoreError::EndpointRefused { what: location.to_string(), cause })
}

async fn bounded_body(mut response: Response, limit: usize, what: &str) -> Result<Bytes, StoreError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(body.into()),
            Ok(Some(chunk)) if body.len() + chunk.len() > limit => {
                return Err(refused(what, &format!("more than {limit} bytes were answered")));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Err(error) => return Err(StoreError::from_client(what.to_owned(), error)),
        }
    }
}

/// Some stores (versitygw for one) leave S3's namespace out of their answers; the parser wants it.
fn with_namespace(body: &[u8], root: &str) -> String {
    let text = String::from_utf8_lossy(body);
    let bare = format!("<{root}>");
    text.replacen(&bare, &format!("<{root} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"), 1)
}

fn refused(what: &str, answer: &str) -> StoreError {
    StoreError::Refused { what: what.to_owned(), answer: answer.chars().take(256).collect() }
}

fn millis(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}
