//! What a cloud answered when it refused, and whether trying again helps.

use std::error::Error as StdError;
use std::fmt;

use http::{HeaderMap, StatusCode};
use openstack_sdk::RestError;
use openstack_sdk::api::ApiError;
use openstack_sdk::auth::AuthError;
use serde_json::Value;
use thiserror::Error;

use crate::net::EndpointRefused;

/// Longest message that is taken over from a cloud, in characters.
const MESSAGE_LIMIT: usize = 256;

/// Sorts errors by what to do about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// 404, 410 by the service itself: the object is not there, or not visible to this project.
    NotFound,
    /// 409: the object is in a state that does not allow it.
    Conflict,
    /// The project's quota is used up (Cinder 413, Nova 403, Neutron 409).
    Quota,
    /// 401: the credential is wrong, expired or lacks an access rule.
    Unauthorized,
    /// 403: the policy of the cloud does not allow it to this user.
    Forbidden,
    /// 400, 422: the cloud does not accept the request as it is.
    Invalid,
    /// 413 that is no quota: the request or object is larger than allowed.
    TooLarge,
    /// 408, 429, 413 of a service that is asked too often, 5xx except 501, and a 404 that is not the service's own:
    /// trying later may help.
    Transient,
    /// No answer: name resolution, connection, TLS or timeout. The message says which.
    Unreachable,
    /// An address that the endpoint policy refuses.
    Refused,
    /// `clouds.yaml` leaves open what is meant, such as the region.
    Ambiguous,
    /// Anything else, e.g. an answer that cannot be understood or an API that is too old.
    Unexpected,
}

/// A call that did not work. `Display` is fit for a status message: it has no URI, no token and no unknown text.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub struct CloudError {
    /// Name of the cloud, as given to `Cloud::connect`.
    pub cloud: String,
    /// What was tried, e.g. `create volume`.
    pub action: String,
    /// What to make of it.
    pub kind: ErrorKind,
    /// HTTP status, when there was an answer.
    pub status: Option<u16>,
    /// At most 256 characters, from recognised fields of the answer only.
    pub message: String,
    /// `x-openstack-request-id` of the answer, for the cloud's operator.
    pub request_id: Option<String>,
}

impl fmt::Display for CloudError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} failed", self.cloud, self.action)?;
        match (self.status, self.message.is_empty()) {
            (Some(status), false) => write!(f, ": {status} {}", self.message)?,
            (Some(status), true) => write!(f, ": {status}")?,
            (None, false) => write!(f, ": {}", self.message)?,
            (None, true) => {}
        }
        self.request_id.as_ref().map_or(Ok(()), |id| write!(f, " ({id})"))
    }
}

impl CloudError {
    /// Whether the same call may work later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, ErrorKind::Transient | ErrorKind::Unreachable)
    }

    /// An error without an answer of the cloud.
    pub(super) fn local(cloud: &str, action: &str, kind: ErrorKind, message: impl AsRef<str>) -> Self {
        let message = shorten(message.as_ref());
        Self { cloud: cloud.into(), action: action.into(), kind, status: None, message, request_id: None }
    }

    /// From an answer whose status is not a success.
    pub(super) fn from_answer(
        cloud: &str,
        action: &str,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Self {
        let parsed: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let found = Extract::from(&parsed);
        let message = match (&found.class, &found.message) {
            _ if status.is_redirection() && status != StatusCode::MULTIPLE_CHOICES => {
                "it answered with a redirect, which is not followed; use the final address".to_string()
            }
            _ if says_not_found(status) && !is_the_services_own(&parsed) => {
                let reason = status.canonical_reason().unwrap_or_default();
                format!("{reason}: a proxy or gateway answered, not the service")
            }
            // Neutron names the class of the error beside the message.
            (Some(class), Some(message)) => format!("{class}: {message}"),
            (_, Some(message)) => message.clone(),
            _ => text_of_page(status, body)
                .unwrap_or_else(|| status.canonical_reason().unwrap_or_default().to_string()),
        };
        Self {
            cloud: cloud.into(),
            action: action.into(),
            kind: if asks_to_wait(status, headers, &found) {
                ErrorKind::Transient
            } else {
                classify(status, &found, is_the_services_own(&parsed))
            },
            status: Some(status.as_u16()),
            message: shorten(&message),
            request_id: request_id(headers),
        }
    }

    /// From an error of the SDK's request path.
    pub(super) fn from_sdk(cloud: &str, action: &str, error: &ApiError<RestError>) -> Self {
        match error {
            ApiError::Client { source: RestError::AuthError { source } } => {
                Self::from_auth(cloud, action, source)
            }
            ApiError::Client { source: RestError::Communication { source } } => {
                Self::from_reqwest(cloud, action, source)
            }
            ApiError::MicroversionIncompatible { required_major, required_minor, cloud_max, .. } => {
                let offered = cloud_max.as_deref().unwrap_or("none");
                let message =
                    format!("needs API version {required_major}.{required_minor}, the cloud has {offered}");
                Self::local(cloud, action, ErrorKind::Unexpected, message)
            }
            ApiError::Catalog { .. } => {
                Self::local(cloud, action, ErrorKind::Unexpected, "the catalog has no usable endpoint")
            }
            // The remaining variants print URIs.
            _ => Self::local(cloud, action, ErrorKind::Unexpected, "the request could not be made"),
        }
    }

    /// From a failed authentication. Keystone's message is kept ("The request you have made requires
    /// authentication."), unknown bodies are not.
    pub(super) fn from_auth(cloud: &str, action: &str, error: &AuthError) -> Self {
        let (code, message) = match error {
            AuthError::Identity(identity) => {
                (u16::try_from(identity.code).unwrap_or_default(), Some(identity.message.clone()))
            }
            AuthError::UnknownAuth { code, .. } => (*code, None),
            AuthError::AuthReceipt(_) => (401, Some("the user needs a second factor".to_string())),
            AuthError::Reqwest { source } => return Self::from_reqwest(cloud, action, source),
            AuthError::Plugin { source } => {
                return Self::local(cloud, action, ErrorKind::Unauthorized, source.to_string());
            }
            _ => {
                let message = "the identity service's answer has no token";
                return Self::local(cloud, action, ErrorKind::Unexpected, message);
            }
        };
        let status = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY);
        if let Some(message) = message.as_ref().filter(|_| status == StatusCode::NOT_FOUND) {
            // An application credential that was deleted; nothing that was asked for is gone for that.
            let error = Self::local(cloud, action, ErrorKind::Unauthorized, message);
            return Self { status: Some(code), ..error };
        }
        let body = message.map(|m| serde_json::json!({"message": m}).to_string()).unwrap_or_default();
        Self::from_answer(cloud, action, status, &HeaderMap::new(), body.as_bytes())
    }

    /// From an error of the HTTP client: says whether it was the name, the connection, TLS or time.
    pub(super) fn from_reqwest(cloud: &str, action: &str, error: &reqwest::Error) -> Self {
        if let Some(refused) = find::<EndpointRefused>(error) {
            return Self::local(cloud, action, ErrorKind::Refused, refused.to_string());
        }
        let cause = root_cause(error);
        let message = if let Some(tls) = find::<rustls::Error>(error) {
            tls_message(tls)
        } else if error.is_timeout() {
            "no answer in time".to_string()
        } else if error.is_connect() && chain(error).any(|e| e.to_string().contains("dns error")) {
            format!("the host name cannot be resolved: {cause}")
        } else if error.is_connect() {
            format!("cannot connect: {cause}")
        } else if find::<serde_json::Error>(error).is_some() {
            // reqwest calls a body that ends early a decoding error, too: that one is no answer.
            return Self::local(cloud, action, ErrorKind::Unexpected, "the answer cannot be understood");
        } else if error.is_builder() {
            return Self::local(cloud, action, ErrorKind::Unexpected, "the request could not be made");
        } else {
            format!("the connection broke: {cause}")
        };
        Self::local(cloud, action, ErrorKind::Unreachable, message)
    }
}

/// Whether a connection that was there ended before the answer was complete.
pub(super) fn connection_broke(error: &reqwest::Error) -> bool {
    let other = error.is_timeout() || error.is_connect() || error.is_builder();
    !other && find::<EndpointRefused>(error).is_none() && find::<rustls::Error>(error).is_none()
}

fn tls_message(error: &rustls::Error) -> String {
    use rustls::CertificateError as Why;
    match error {
        rustls::Error::InvalidCertificate(why) => match why {
            Why::NotValidForName | Why::NotValidForNameContext { .. } => {
                format!(
                    "the TLS certificate is not for this name ({why}): correct the address or the certificate"
                )
            }
            Why::Expired | Why::ExpiredContext { .. } | Why::NotValidYet | Why::NotValidYetContext { .. } => {
                format!(
                    "the TLS certificate is not good now ({why}): it needs to be renewed, or a clock is wrong"
                )
            }
            _ => format!(
                "the TLS certificate is not trusted ({why}): the CA is missing or wrong (key cacert of the Secret)"
            ),
        },
        other => format!("TLS does not work: {other}"),
    }
}

/// The error and its causes. `io::Error::source` skips the error inside it, hence the look at `get_ref`.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&e| match e.downcast_ref::<std::io::Error>() {
        Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
        None => e.source(),
    })
}

fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    chain(error).find_map(|e| e.downcast_ref())
}

/// Text of the innermost cause; the outer ones of reqwest print the URL.
fn root_cause(error: &reqwest::Error) -> String {
    match chain(error).last() {
        Some(last) if last.downcast_ref::<reqwest::Error>().is_none() => last.to_string(),
        _ => "no further detail".to_string(),
    }
}

/// Request id of an answer; Neutron and newer services use the same header as Nova.
pub(super) fn request_id(headers: &HeaderMap) -> Option<String> {
    ["x-openstack-request-id", "x-compute-request-id"]
        .iter()
        .find_map(|name| headers.get(*name)?.to_str().ok())
        .map(|id| id.chars().take(64).collect())
}

/// What an error body says. Shapes seen: `{"itemNotFound": {"code", "message"}}` (Nova, Cinder),
/// `{"NeutronError": {"type", "message"}}`, `{"error": {"code", "title", "message"}}` (Keystone),
/// `{"message": ...}` and `{"code", "title"}` (Glance, mostly HTML otherwise).
struct Extract {
    key: Option<String>,
    class: Option<String>,
    message: Option<String>,
}

impl From<&Value> for Extract {
    fn from(body: &Value) -> Self {
        let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).map(str::to_string);
        if let Some(message) = text(body, "message") {
            return Self { key: None, class: None, message: Some(message) };
        }
        let inner = body.as_object().and_then(|map| map.iter().find(|(_, v)| v.get("message").is_some()));
        match inner {
            Some((key, v)) => {
                Self { key: Some(key.clone()), class: text(v, "type"), message: text(v, "message") }
            }
            None => Self { key: None, class: None, message: text(body, "title") },
        }
    }
}

/// What a page says that WebOb made, as Glance's are: `<h1>`, the status, `</h1>`, the reason, `</body>`. Any other page is
/// not quoted.
fn text_of_page(status: StatusCode, body: &[u8]) -> Option<String> {
    let page = std::str::from_utf8(body).ok()?;
    let heading = format!("<h1>{} {}</h1>", status.as_u16(), status.canonical_reason()?);
    let (text, _) = page.split_once(&heading)?.1.split_once("</body>")?;
    let text = text.replace("<br />", " ").trim().to_string();
    let entities = [("&quot;", "\""), ("&#x27;", "'"), ("&#39;", "'"), ("&amp;", "&")];
    let plain = |text: String| entities.iter().fold(text, |text, (entity, sign)| text.replace(entity, sign));
    (!text.is_empty() && !text.contains('<')).then(|| plain(text))
}

fn says_not_found(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE)
}

/// Does this body show that the service itself says that something is not there? Whatever stands in front of it answers
/// 404, too, with a web page, a line of text or a document of its own. Nova and Cinder have `itemNotFound`, Neutron
/// `NeutronError`, Glance the code beside the message.
fn is_the_services_own(body: &Value) -> bool {
    let says = |key: &str| body.get(key).and_then(|v| v.get("message")).is_some_and(Value::is_string);
    let code = body.get("code").and_then(Value::as_str).unwrap_or_default();
    let glance = code.starts_with("404") || code.starts_with("410");
    says("itemNotFound")
        || says("NeutronError")
        || glance && body.get("message").is_some_and(Value::is_string)
}

/// Older services limit how often they are asked by a 413, and say when to come back; a quota that is used up is 413, too,
/// and there the time is 0.
fn asks_to_wait(status: StatusCode, headers: &HeaderMap, found: &Extract) -> bool {
    let after = headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok()).unwrap_or("0");
    let message = found.message.as_deref().unwrap_or_default();
    status == StatusCode::PAYLOAD_TOO_LARGE
        && !says_quota(message)
        && (message.contains("rate-limited") || after.trim() != "0")
}

fn says_quota(message: &str) -> bool {
    message.contains("Quota exceeded")
        || message.contains("LimitExceeded")
        || message.contains("quota") && message.contains("exceed")
}

fn classify(status: StatusCode, found: &Extract, own: bool) -> ErrorKind {
    let message = found.message.as_deref().unwrap_or_default();
    let says_quota = says_quota(message);
    match status.as_u16() {
        413 if found.key.as_deref() == Some("overLimit") => ErrorKind::Quota,
        403 | 413 if says_quota => ErrorKind::Quota,
        409 if found.class.as_deref() == Some("OverQuota") => ErrorKind::Quota,
        404 | 410 if own => ErrorKind::NotFound,
        404 | 410 => ErrorKind::Transient,
        409 => ErrorKind::Conflict,
        401 => ErrorKind::Unauthorized,
        403 => ErrorKind::Forbidden,
        400 | 422 => ErrorKind::Invalid,
        413 => ErrorKind::TooLarge,
        408 | 429 => ErrorKind::Transient,
        501 | 505 => ErrorKind::Unexpected,
        500..=599 => ErrorKind::Transient,
        _ => ErrorKind::Unexpected,
    }
}

/// One line of at most 256 characters.
fn shorten(message: &str) -> String {
    // Glance's messages are from HTML pages.
    let line: String = message.replace("<br />", " ").split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MESSAGE_LIMIT {
        return line;
    }
    line.chars().take(MESSAGE_LIMIT - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> CloudError {
        let mut headers = HeaderMap::new();
        headers.insert("x-openstack-request-id", "req-8f".parse().unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        CloudError::from_answer("site-b", "create volume", status, &headers, body.as_bytes())
    }

    #[test]
    fn every_service_s_shape_is_understood() {
        let cases: &[(u16, &str, ErrorKind, &str)] = &[
            (
                413,
                r#"{"overLimit":{"code":413,"message":"VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded"}}"#,
                ErrorKind::Quota,
                "VolumeLimitExceeded: Maximum",
            ),
            (
                403,
                r#"{"forbidden":{"code":403,"message":"Quota exceeded for instances: Requested 1, but already used 10 of 10 instances"}}"#,
                ErrorKind::Quota,
                "Quota exceeded",
            ),
            (
                409,
                r#"{"NeutronError":{"type":"OverQuota","message":"Quota exceeded for resources: ['port'].","detail":""}}"#,
                ErrorKind::Quota,
                "OverQuota: Quota",
            ),
            (
                409,
                r#"{"conflictingRequest":{"code":409,"message":"Instance is locked"}}"#,
                ErrorKind::Conflict,
                "Instance is locked",
            ),
            (
                409,
                r#"{"NeutronError":{"type":"IpAddressAlreadyAllocated","message":"in use"}}"#,
                ErrorKind::Conflict,
                "IpAddressAlreadyAllocated: in use",
            ),
            (
                404,
                r#"{"itemNotFound":{"code":404,"message":"Volume x could not be found."}}"#,
                ErrorKind::NotFound,
                "could not be found",
            ),
            (
                401,
                r#"{"error":{"code":401,"title":"Unauthorized","message":"The request you have made requires authentication."}}"#,
                ErrorKind::Unauthorized,
                "requires authentication",
            ),
            (
                403,
                r#"{"forbidden":{"code":403,"message":"Policy doesn't allow it"}}"#,
                ErrorKind::Forbidden,
                "Policy",
            ),
            (
                400,
                r#"{"badRequest":{"code":400,"message":"Invalid volume"}}"#,
                ErrorKind::Invalid,
                "Invalid volume",
            ),
            (422, "{}", ErrorKind::Invalid, "Unprocessable"),
            (413, "<html>", ErrorKind::TooLarge, ""),
            (429, "", ErrorKind::Transient, "Too Many Requests"),
            (408, "", ErrorKind::Transient, ""),
            (503, "<html><h1>secret stack trace</h1>", ErrorKind::Transient, "Service Unavailable"),
            (501, "", ErrorKind::Unexpected, ""),
            (
                404,
                r#"{"message":"No such image.<br /><br />\n\n","code":"404 Not Found"}"#,
                ErrorKind::NotFound,
                "No such image.",
            ),
            (302, "", ErrorKind::Unexpected, "redirect"),
            (
                415,
                "<html>\n <head>\n  <title>415 Unsupported Media Type</title>\n </head>\n <body>\n  <h1>415 Unsupported Media \
                 Type</h1>\n  The request media type application/octet-stream is not supported by this server.<br /><br />\n\
                 Image failed safety checks\n\n\n </body>\n</html>",
                ErrorKind::Unexpected,
                "by this server. Image failed safety checks",
            ),
            (
                400,
                "<html>\n <head>\n  <title>400 Bad Request</title>\n </head>\n <body>\n  <h1>400 Bad Request</h1>\n  Getting \
                 images randomly from this store is not supported. Offset: 0, length: 1<br /><br />\n\n\n\n </body>\n</html>",
                ErrorKind::Invalid,
                "Getting images randomly from this store is not supported. Offset: 0, length: 1",
            ),
            (
                409,
                "<h1>409 Conflict</h1> Image &#x27;x&#x27; is in use </body>",
                ErrorKind::Conflict,
                "Image 'x' is in use",
            ),
            (
                503,
                "<h1>503 Service Unavailable</h1><p>stack trace</p></body>",
                ErrorKind::Transient,
                "Service Unavailable",
            ),
        ];
        for (status, body, kind, part) in cases {
            let error = answer(*status, body);
            assert_eq!(error.kind, *kind, "{status} {body}");
            assert!(error.message.contains(part), "{error}");
            assert!(!error.message.contains("stack trace") && !error.message.contains('<'), "{error}");
            assert_eq!(error.is_transient(), *kind == ErrorKind::Transient);
        }
    }

    #[test]
    fn only_the_service_itself_says_that_something_is_not_there() {
        let own = [
            r#"{"itemNotFound":{"code":404,"message":"Instance x could not be found."}}"#,
            r#"{"NeutronError":{"type":"PortNotFound","message":"Port x could not be found.","detail":""}}"#,
            r#"{"message":"No image found with ID x","code":"404 Not Found","title":"Not Found"}"#,
        ];
        for body in own {
            assert_eq!(answer(404, body).kind, ErrorKind::NotFound, "{body}");
        }
        let others = [
            "default backend - 404",
            "<html><body><h1>404 Not Found</h1></body></html>",
            "",
            "{}",
            "[]",
            "null",
            r#"{"message":"no Route matched with those values"}"#,
            r#"{"error":{"code":404,"title":"Not Found","message":"Could not find Application Credential"}}"#,
            r#"{"itemNotFound":"yes"}"#,
        ];
        for body in others {
            for status in [404, 410] {
                let error = answer(status, body);
                assert_eq!(error.kind, ErrorKind::Transient, "{body}");
                assert!(error.message.contains("a proxy or gateway answered"), "{error}");
            }
        }
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_told_apart() {
        use rustls::CertificateError as Why;
        for (why, told) in [
            (Why::Expired, "is not good now"),
            (Why::NotValidYet, "is not good now"),
            (Why::NotValidForName, "is not for this name"),
            (Why::UnknownIssuer, "the CA is missing or wrong (key cacert of the Secret)"),
        ] {
            let message = tls_message(&rustls::Error::InvalidCertificate(why));
            assert!(message.contains(told), "{message}");
        }
    }

    #[test]
    fn display_is_one_line_with_the_request_id() {
        let error = answer(413, r#"{"overLimit":{"message":"VolumeLimitExceeded: Maximum\n number"}}"#);
        let expected = "site-b: create volume failed: 413 VolumeLimitExceeded: Maximum number (req-8f)";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn long_messages_are_cut() {
        let error = answer(400, &format!(r#"{{"badRequest":{{"message":"{}"}}}}"#, "ä".repeat(500)));
        assert_eq!(error.message.chars().count(), MESSAGE_LIMIT);
    }
}
