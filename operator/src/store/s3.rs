//! S3: requests are signed by `rusty-s3`; listings come in pages.

use std::{collections::HashSet, fmt, time::Duration};

use bytes::Bytes;
use reqwest::{Client, header};
use rusty_s3::{
    Bucket, Credentials, S3Action, UrlStyle,
    actions::{DeleteObjectsResponse, ListObjectsV2, ListObjectsV2Response, ObjectIdentifier},
};
use url::Url;

use super::{
    error::StoreError,
    http::{MAX_ANSWER, StoreOptions, bounded_body, client, refused, send},
    keys::{self, StoreKeys},
};

/// How long a signature stays valid: one request, with room for clocks that differ.
const SIGNATURE: Duration = Duration::from_secs(300);
/// What S3 takes in one DeleteObjects call.
const DELETE_BATCH: usize = 1000;

/// One bucket.
#[derive(Clone)]
pub(super) struct S3 {
    bucket: Bucket,
    credentials: Credentials,
    client: Client,
}

impl S3 {
    pub fn new(
        endpoint: &Url,
        bucket: &str,
        keys: &StoreKeys,
        options: &StoreOptions,
    ) -> Result<Self, StoreError> {
        let invalid = |error: &dyn fmt::Display| StoreError::Invalid(error.to_string());
        let of = |name| keys.get(name).unwrap_or_default().to_owned();
        let bucket = Bucket::new(endpoint.clone(), UrlStyle::Path, bucket.to_owned(), of(keys::REGION))
            .map_err(|error| invalid(&error))?;
        let (id, secret) = (of(keys::ACCESS_KEY_ID), of(keys::SECRET_ACCESS_KEY));
        let credentials = match keys.get(keys::SESSION_TOKEN) {
            Some(token) => Credentials::new_with_token(id, secret, token),
            None => Credentials::new(id, secret),
        };
        Ok(Self { bucket, credentials, client: client(endpoint, options)? })
    }

    pub async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        let url = self.bucket.put_object(Some(&self.credentials), key).sign(SIGNATURE);
        send(&format!("PUT {key}"), self.client.put(url).body(body)).await.map(drop)
    }

    pub async fn get(&self, key: &str, limit: usize) -> Result<Bytes, StoreError> {
        let url = self.bucket.get_object(Some(&self.credentials), key).sign(SIGNATURE);
        let what = format!("GET {key}");
        bounded_body(send(&what, self.client.get(url)).await?, limit, &what).await
    }

    pub async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let url = self.bucket.delete_object(Some(&self.credentials), key).sign(SIGNATURE);
        send(&format!("DELETE {key}"), self.client.delete(url)).await.map(drop)
    }

    pub async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut keys = Vec::new();
        let mut seen_tokens = HashSet::new();
        let mut token: Option<String> = None;
        loop {
            let page = self.list_page(prefix, token.as_deref()).await?;
            keys.extend(page.contents.into_iter().map(|object| object.key));
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
    ) -> Result<ListObjectsV2Response, StoreError> {
        let what = format!("LIST {prefix}");
        let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
        action.with_prefix(prefix.to_owned());
        if let Some(token) = token {
            action.with_continuation_token(token.to_owned());
        }
        let response = send(&what, self.client.get(action.sign(SIGNATURE))).await?;
        let body = bounded_body(response, MAX_ANSWER, &what).await?;
        parse_list(&body).map_err(|why| refused(&what, &why))
    }

    /// Deletes objects, up to a thousand a call; any that the store did not delete is an error.
    pub async fn delete_many(&self, keys: &[String]) -> Result<(), StoreError> {
        for batch in keys.chunks(DELETE_BATCH) {
            self.delete_batch(batch).await?;
        }
        Ok(())
    }

    async fn delete_batch(&self, keys: &[String]) -> Result<(), StoreError> {
        let objects: Vec<_> = keys.iter().cloned().map(ObjectIdentifier::new).collect();
        let what = format!("DELETE {} objects", objects.len());
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
        let response = send(&what, request).await?;
        let body = bounded_body(response, MAX_ANSWER, &what).await?;
        all_deleted(&body).map_err(|why| refused(&what, &why))
    }
}

/// One page of a listing.
pub fn parse_list(body: &[u8]) -> Result<ListObjectsV2Response, String> {
    ListObjectsV2::parse_response(&with_namespace(body, "ListBucketResult"))
        .map_err(|error| error.to_string())
}

/// Whether all of a batch was deleted; if not, why.
pub fn all_deleted(body: &[u8]) -> Result<(), String> {
    let answer = DeleteObjectsResponse::parse(&with_namespace(body, "DeleteResult"))
        .map_err(|error| error.to_string())?;
    let Some(first) = answer.errors.first() else { return Ok(()) };
    let failed = answer.errors.len();
    Err(format!("{failed} of them failed, first {}: {} {}", first.key, first.code, first.message))
}

/// Some stores (versitygw for one) leave S3's namespace out of their answers; the parser wants it.
fn with_namespace(body: &[u8], root: &str) -> String {
    let text = String::from_utf8_lossy(body);
    let bare = format!("<{root}>");
    text.replacen(&bare, &format!("<{root} xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"), 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIST: &str = "<ListBucketResult><Name>b</Name><MaxKeys>3</MaxKeys><IsTruncated>true</IsTruncated>\
        <NextContinuationToken>t</NextContinuationToken><Contents><Key>a/b</Key>\
        <LastModified>2026-08-01T00:00:00.000Z</LastModified><ETag>\"e\"</ETag><Size>1</Size>\
        <StorageClass>STANDARD</StorageClass></Contents></ListBucketResult>";

    #[test]
    fn a_list_without_its_namespace() {
        let page = parse_list(LIST.as_bytes()).unwrap();
        assert_eq!(
            (page.contents[0].key.as_str(), page.next_continuation_token.as_deref()),
            ("a/b", Some("t"))
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = (parse_list(&bytes).is_ok(), all_deleted(&bytes).is_ok());
        }

        #[test]
        fn a_damaged_list_is_an_answer_or_an_error(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut text = LIST.as_bytes().to_vec();
            let at = at.index(text.len());
            text[at] = byte;
            let _ = parse_list(&text).is_ok();
        }
    }
}
