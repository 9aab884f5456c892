//! S3: requests are signed by `rusty-s3`; listings come in pages.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use jiff::Timestamp;
use md5::{Digest, Md5};
use reqwest::{Client, RequestBuilder, Response, header};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle, actions::ObjectIdentifier};
use url::Url;

use super::{
    clock::Ahead,
    error::StoreError,
    http::{MAX_ANSWER, StoreOptions, bounded_body, client, refused, send},
    keys::{self, StoreKeys},
    s3_answers::{Deletion, Page, parse_deletion, parse_list, parse_lock, parse_uploads, parse_versions},
    stored::Stored,
};

/// How long a signature stays valid: one request, with room for clocks that differ.
const SIGNATURE: Duration = Duration::from_secs(300);
/// What is tried when nobody names a region, as restic does. Most stores but Amazon's take any.
const FIRST_REGION: &str = "us-east-1";
/// What S3 takes in one DeleteObjects call.
pub(super) const DELETE_BATCH: usize = 1000;
const CONTENT_MD5: &str = "content-md5";

/// One bucket.
#[derive(Clone)]
pub(super) struct S3 {
    /// In the region that the store wants to see in signatures, as far as it is known.
    bucket: Arc<RwLock<Arc<Bucket>>>,
    region_given: bool,
    credentials: Credentials,
    client: Client,
}

/// What holds a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    Until(Timestamp),
    /// A legal hold, which has no end.
    Legal,
}

impl S3 {
    pub fn new(
        endpoint: &Url,
        bucket: &str,
        keys: &StoreKeys,
        options: &StoreOptions,
    ) -> Result<Self, StoreError> {
        let of = |name| keys.get(name).unwrap_or_default().to_owned();
        let region = keys.get(keys::REGION);
        let bucket = Bucket::new(
            endpoint.clone(),
            UrlStyle::Path,
            bucket.to_owned(),
            region.unwrap_or(FIRST_REGION).to_owned(),
        )
        .map_err(|error| invalid(&error))?;
        let (id, secret) = (of(keys::ACCESS_KEY_ID), of(keys::SECRET_ACCESS_KEY));
        let credentials = match keys.get(keys::SESSION_TOKEN) {
            Some(token) => Credentials::new_with_token(id, secret, token),
            None => Credentials::new(id, secret),
        };
        let bucket = Arc::new(RwLock::new(Arc::new(bucket)));
        Ok(Self { bucket, region_given: region.is_some(), credentials, client: client(endpoint, options)? })
    }

    /// The bucket's name.
    pub fn name(&self) -> String {
        self.bucket().name().to_owned()
    }

    /// Sees that the bucket is there: some stores make one for whoever writes into it.
    pub async fn look(&self, prefix: &str) -> Result<(), StoreError> {
        let what = format!("LIST {}/{prefix}", self.name());
        let query = [("list-type", "2"), ("max-keys", "1"), ("prefix", prefix)];
        let response = self.send(&what, |bucket| self.client.get(self.in_bucket(bucket, &query))).await?;
        require_clock(&what, &response)
    }

    /// Writes an object, with a digest, which object lock asks for; gives the version that it became.
    pub async fn put(&self, key: &str, body: Bytes) -> Result<Option<String>, StoreError> {
        let what = format!("PUT {key}");
        let md5 = STANDARD.encode(Md5::digest(&body));
        let request = |bucket: &Bucket| {
            let url = bucket.put_object(Some(&self.credentials), key).sign(SIGNATURE);
            self.client.put(url).header(CONTENT_MD5, &md5).body(body.clone())
        };
        let response = self.send(&what, request).await?;
        require_clock(&what, &response)?;
        let version = response.headers().get("x-amz-version-id").and_then(|value| value.to_str().ok());
        Ok(version.filter(|version| *version != "null").map(str::to_owned))
    }

    pub async fn get(&self, key: &str, limit: usize) -> Result<Bytes, StoreError> {
        let what = format!("GET {key}");
        let request = |bucket: &Bucket| {
            self.client.get(bucket.get_object(Some(&self.credentials), key).sign(SIGNATURE))
        };
        bounded_body(self.send(&what, request).await?, limit, &what).await
    }

    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let request = |bucket: &Bucket| {
            self.client.delete(bucket.delete_object(Some(&self.credentials), key).sign(SIGNATURE))
        };
        self.send(&format!("DELETE {key}"), request).await.map(drop)
    }

    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let what = format!("LIST {prefix}");
        self.pages(&what, parse_list, |token: Option<&String>| {
            let token = token.map(|token| ("continuation-token", token.clone()));
            [("list-type", "2".to_owned()), ("prefix", prefix.to_owned())].into_iter().chain(token).collect()
        })
        .await
    }

    /// Every version and every marker below a prefix; in a bucket without versions each object, too.
    pub async fn versions(&self, prefix: &str) -> Result<Vec<Stored>, StoreError> {
        let what = format!("LIST versions of {prefix}");
        self.pages(&what, parse_versions, |next: Option<&(String, String)>| {
            let mut query = vec![("versions", String::new()), ("prefix", prefix.to_owned())];
            if let Some((key, version)) = next {
                query.push(("key-marker", key.clone()));
                query.push(("version-id-marker", version.clone()));
            }
            query.retain(|(name, value)| *name == "versions" || !value.is_empty());
            query
        })
        .await
    }

    /// All rows of a listing. A store that answers the same page again would keep us here for ever.
    async fn pages<T, N: Clone + Eq + std::hash::Hash>(
        &self,
        what: &str,
        parse: impl Fn(&[u8]) -> Result<Page<T, N>, String>,
        query: impl Fn(Option<&N>) -> Vec<(&'static str, String)>,
    ) -> Result<Vec<T>, StoreError> {
        let (mut rows, mut seen, mut next) = (Vec::new(), HashSet::new(), None);
        loop {
            let query = query(next.as_ref());
            let query: Vec<_> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let page = parse(&self.ask(what, &query).await?).map_err(|why| refused(what, &why))?;
            rows.extend(page.rows);
            let Some(following) = page.next else { return Ok(rows) };
            if !seen.insert(following.clone()) {
                return Err(refused(what, "the listing goes round in circles"));
            }
            next = Some(following);
        }
    }

    /// Deletes up to a thousand objects or versions, and tells which of them are still there.
    pub async fn delete_batch(&self, objects: &[Stored]) -> Result<Deletion, StoreError> {
        let what = format!("DELETE {} objects", objects.len());
        let objects: Vec<_> = objects
            .iter()
            .map(|object| ObjectIdentifier { key: object.key.clone(), version_id: object.version.clone() })
            .collect();
        let request = |bucket: &Bucket| {
            // Not quietly: what became a marker only is told so.
            let action = bucket.delete_objects(Some(&self.credentials), objects.iter());
            let url = action.sign(SIGNATURE);
            let (body, md5) = action.body_with_md5();
            let request = self.client.post(url).header(CONTENT_MD5, md5);
            request.header(header::CONTENT_TYPE, "application/xml").body(body)
        };
        let body = bounded_body(self.send(&what, request).await?, MAX_ANSWER, &what).await?;
        parse_deletion(&body).map_err(|why| refused(&what, &why))
    }

    /// What holds a version by itself.
    pub async fn hold(&self, key: &str, version: &str) -> Result<Option<Hold>, StoreError> {
        let request = |bucket: &Bucket| {
            let mut action = bucket.head_object(Some(&self.credentials), key);
            action.query_mut().insert("versionId", version);
            self.client.head(action.sign(SIGNATURE))
        };
        let response = self.send(&format!("HEAD {key}"), request).await?;
        let of = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        if of("x-amz-object-lock-legal-hold").is_some_and(|hold| hold.eq_ignore_ascii_case("on")) {
            return Ok(Some(Hold::Legal));
        }
        Ok(of("x-amz-object-lock-retain-until-date").and_then(|date| date.parse().ok()).map(Hold::Until))
    }

    /// How long the bucket's own rule holds what is written.
    pub async fn rule(&self) -> Result<Option<jiff::SignedDuration>, StoreError> {
        let what = "GET object-lock";
        match self.ask(what, &[("object-lock", "")]).await {
            Ok(body) => parse_lock(&body).map_err(|why| refused(what, &why)),
            Err(error) if error.is_transient() => Err(error),
            // There is none, or these keys may not know.
            Err(_) => Ok(None),
        }
    }

    /// Ends uploads that nobody ended. Not every store tells of them, and restic begins none.
    pub async fn abort_uploads(&self, prefix: &str) -> Result<(), StoreError> {
        let what = format!("LIST uploads of {prefix}");
        let body = match self.ask(&what, &[("uploads", ""), ("prefix", prefix)]).await {
            Ok(body) => body,
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                tracing::info!("whether uploads were broken off is not told: {error}");
                return Ok(());
            }
        };
        let uploads = parse_uploads(&body).map_err(|why| refused(&what, &why))?;
        for (key, id) in uploads.iter().filter(|(key, _)| key.starts_with(prefix)) {
            let request = |bucket: &Bucket| {
                let action = bucket.abort_multipart_upload(Some(&self.credentials), key, id);
                self.client.delete(action.sign(SIGNATURE))
            };
            match self.send(&format!("DELETE upload of {key}"), request).await {
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The answer to a question about the bucket.
    async fn ask(&self, what: &str, query: &[(&str, &str)]) -> Result<Bytes, StoreError> {
        let response = self.send(what, |bucket| self.client.get(self.in_bucket(bucket, query))).await?;
        bounded_body(response, MAX_ANSWER, what).await
    }

    fn in_bucket(&self, bucket: &Bucket, query: &[(&str, &str)]) -> Url {
        let mut action = bucket.get_object(Some(&self.credentials), "");
        for (name, value) in query {
            action.query_mut().insert((*name).to_owned(), (*value).to_owned());
        }
        action.sign(SIGNATURE)
    }

    /// One call; in another region if the store asks for it and nobody has said otherwise.
    async fn send(
        &self,
        what: &str,
        request: impl Fn(&Bucket) -> RequestBuilder,
    ) -> Result<Response, StoreError> {
        let bucket = self.bucket();
        match send(what, request(&bucket)).await {
            Err(StoreError::WrongRegion { expected, .. })
                if !self.region_given && expected != bucket.region() =>
            {
                let moved = self.move_to(&bucket, expected)?;
                send(what, request(&moved)).await
            }
            ended => ended,
        }
    }

    fn bucket(&self) -> Arc<Bucket> {
        Arc::clone(&self.bucket.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn move_to(&self, bucket: &Bucket, region: String) -> Result<Arc<Bucket>, StoreError> {
        tracing::info!(region, "the store named its region");
        let mut endpoint = bucket.base_url().clone();
        endpoint.set_path("/");
        let moved = Bucket::new(endpoint, UrlStyle::Path, bucket.name().to_owned(), region);
        let moved = Arc::new(moved.map_err(|error| invalid(&error))?);
        *self.bucket.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&moved);
        Ok(moved)
    }
}

fn invalid(error: &dyn fmt::Display) -> StoreError {
    StoreError::Invalid(error.to_string())
}

/// Our own signatures, in URLs, may pass where restic's do not.
fn require_clock(what: &str, response: &Response) -> Result<(), StoreError> {
    match Ahead::of(response.headers()).filter(|ahead| ahead.is_refused()) {
        Some(ahead) => Err(StoreError::ClockSkew { what: what.to_owned(), answer: ahead.to_string() }),
        None => Ok(()),
    }
}
