//! One request of the adapter: method, path, pinned microversion, body; and the whole answer to it.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use openstack_sdk::api::{BodyError, RestEndpoint};
use openstack_sdk::types::{ApiVersion, ServiceType};
use openstack_sdk_core::api::QueryParams;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A request, in the form that the SDK takes. The SDK adds the service's address and the microversion header.
#[derive(Clone, Debug)]
pub(super) struct Call {
    service: ServiceType,
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    version: Option<ApiVersion>,
    content_type: &'static str,
    body: Option<Value>,
}

impl Call {
    /// `path` is relative to the service's versioned address; its segments are encoded by [`path`].
    pub(super) fn new(service: ServiceType, method: Method, path: impl Into<String>) -> Self {
        Self {
            service,
            method,
            path: path.into(),
            query: Vec::new(),
            version: None,
            content_type: "application/json",
            body: None,
        }
    }

    /// Pins the microversion, e.g. `(2, 73)`; a cloud that does not have it is an error before anything is sent.
    pub(super) fn version(mut self, version: (u8, u8)) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Adds a JSON body.
    pub(super) fn json(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Content type of the body when it is not plain JSON.
    pub(super) fn content_type(mut self, content_type: &'static str) -> Self {
        self.content_type = content_type;
        self
    }

    /// Adds a query parameter, or replaces the one of that name.
    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.retain(|(n, _)| *n != name);
        self.query.push((name, value.into()));
        self
    }
}

impl RestEndpoint for Call {
    fn method(&self) -> Method {
        self.method.clone()
    }

    fn endpoint(&self) -> Cow<'static, str> {
        Cow::Owned(self.path.clone())
    }

    fn service_type(&self) -> ServiceType {
        self.service.clone()
    }

    fn parameters(&self) -> QueryParams<'_> {
        let mut params = QueryParams::default();
        for (name, value) in &self.query {
            params.push(*name, value);
        }
        params
    }

    fn body(&self) -> Result<Option<(&'static str, Vec<u8>)>, BodyError> {
        Ok(self.body.as_ref().map(|body| (self.content_type, body.to_string().into_bytes())))
    }

    /// The address was chosen once at connect; a path like `v2/...` must not be taken for a version.
    fn api_version(&self) -> Option<ApiVersion> {
        None
    }

    fn min_version(&self) -> Option<ApiVersion> {
        self.version
    }
}

/// Joins path segments, encoding each one, so that an id or key from a user cannot change the path.
pub(super) fn path(segments: &[&str]) -> String {
    segments.iter().map(|s| encode(s)).collect::<Vec<_>>().join("/")
}

fn encode(segment: &str) -> String {
    // "." and ".." are removed by URL parsers even when encoded; "_" in their place finds nothing.
    if segment.is_empty() || segment.chars().all(|c| c == '.') {
        return "_".repeat(segment.len().max(1));
    }
    let mut out = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// An answer whose status was a success.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    /// The body's member `key` (or the whole body, for an empty key) as `T`; `None` when it does not fit.
    pub(super) fn get<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let mut body: Value = serde_json::from_slice(&self.body).ok()?;
        let part = if key.is_empty() { body } else { body.get_mut(key)?.take() };
        serde_json::from_value(part).ok()
    }

    /// The request id, or an empty string from a service that sends none.
    pub(super) fn request_id(&self) -> String {
        super::error::request_id(&self.headers).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cannot_leave_their_place() {
        let cases = [
            ("../../flavors", "servers/..%2F..%2Fflavors"),
            ("..", "servers/__"),
            ("", "servers/_"),
            ("a?b#c", "servers/a%3Fb%23c"),
            ("vmmigration.io:claimed-by", "servers/vmmigration.io%3Aclaimed-by"),
            ("über", "servers/%C3%BCber"),
        ];
        for (segment, expected) in cases {
            assert_eq!(path(&["servers", segment]), expected);
        }
    }
}
