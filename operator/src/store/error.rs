//! What went wrong with the store, sorted by what can be done about it.

use std::{error::Error, io};

use reqwest::StatusCode;

use super::{clock::Ahead, xml};
use crate::net::RefusedAddress;

/// A failed call to the store. No text in it holds a signed URL or a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The keys are wrong or may not do this.
    #[error("{what}: the store refused the keys ({answer}); check the credentials Secret and what it may do")]
    Unauthorized {
        /// The call and the object.
        what: String,
        /// Status, and the store's own code and message.
        answer: String,
    },
    /// The object is not there.
    #[error("{what}: no such object")]
    NotFound {
        /// The call and the object.
        what: String,
    },
    /// The bucket or container is not there.
    #[error("{what}: no such bucket or container; create it or correct the location")]
    NoBucket {
        /// The call and the object.
        what: String,
    },
    /// No connection.
    #[error("{what}: the store cannot be reached ({cause})")]
    Unreachable {
        /// The call and the object.
        what: String,
        /// What the connection said.
        cause: String,
    },
    /// The server's certificate is not trusted.
    #[error(
        "{what}: the store's certificate is not trusted ({cause}); give the CA as cacert in the credentials Secret"
    )]
    TlsUntrusted {
        /// The call and the object.
        what: String,
        /// What the TLS library said.
        cause: String,
    },
    /// The policy forbids the address.
    #[error("{what}: the store's address is refused: {cause}")]
    EndpointRefused {
        /// The call and the object.
        what: String,
        /// Which address and why.
        cause: String,
    },
    /// The store has no room, or its quota is used up.
    #[error("{what}: the store is full ({answer}); make room there, or raise its quota")]
    Full {
        /// The call and the object.
        what: String,
        /// Status, and the store's own code and message.
        answer: String,
    },
    /// Signatures must name another region.
    #[error(
        "{what}: the store is in region {expected}, not in the one of the credentials Secret ({answer}); correct AWS_DEFAULT_REGION there, or leave it out"
    )]
    WrongRegion {
        /// The call and the object.
        what: String,
        /// Status, and the store's own code and message.
        answer: String,
        /// What the store wants to see.
        expected: String,
    },
    /// The store has no such call.
    #[error("{what}: the store does not do this ({answer})")]
    Unsupported {
        /// The call and the object.
        what: String,
        /// Status, and the store's own code and message.
        answer: String,
    },
    /// The store's clock and ours differ too much for signatures.
    #[error("{what}: {answer}; signatures need clocks that agree, so set the one that is wrong")]
    ClockSkew {
        /// The call and the object.
        what: String,
        /// Status, and the store's own code and message.
        answer: String,
    },
    /// Worth another try: 429, 5xx, a cut connection.
    #[error("{what}: {answer}")]
    Transient {
        /// The call and the object.
        what: String,
        /// What was answered.
        answer: String,
    },
    /// Anything else the store said no to, and answers that make no sense.
    #[error("{what}: unexpected answer: {answer}")]
    Refused {
        /// The call and the object.
        what: String,
        /// What was answered.
        answer: String,
    },
    /// Keys, CA or location that cannot be used at all.
    #[error("the store's settings cannot be used: {0}")]
    Invalid(String),
}

impl StoreError {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient { .. } | Self::Unreachable { .. } | Self::Full { .. })
    }

    /// Whether the store answered, but only with trouble: worth asking again at once, within bounds.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Transient { .. })
    }

    /// Sorts an answer that is no success. `ahead`: the store's clock, if the answer has a date.
    pub(super) fn from_answer(what: String, status: StatusCode, ahead: Option<Ahead>, body: &str) -> Self {
        let said = Said::of(body);
        let answer = said.beside(status);
        let skewed = |ahead: Ahead| format!("{ahead} ({answer})");
        match (said.code.as_str(), status.as_u16()) {
            _ if matches!(status.as_u16(), 413 | 507) || says_full(&answer) => Self::Full { what, answer },
            ("NoSuchBucket", _) => Self::NoBucket { what },
            ("RequestTimeTooSkewed", _) => {
                Self::ClockSkew { what, answer: ahead.map_or_else(|| answer.clone(), skewed) }
            }
            // A URL that was signed by a clock that is late has expired when it arrives.
            (code, 401 | 403) if !code.is_empty() && ahead.is_some_and(Ahead::is_suspect) => {
                Self::ClockSkew { what, answer: ahead.map_or_else(String::new, skewed) }
            }
            (code, _) if REGION_CODES.contains(&code) && said.region.is_some() => {
                Self::WrongRegion { what, answer, expected: said.region.unwrap_or_default() }
            }
            ("NotImplemented" | "MethodNotAllowed", _) | ("", 405 | 501) => {
                Self::Unsupported { what, answer }
            }
            ("RequestTimeout" | "SlowDown" | "InternalError" | "ServiceUnavailable", _)
            | (_, 408 | 429 | 500..) => Self::Transient { what, answer },
            // Another call was in the way: S3's own `OperationAborted`, or versitygw's 409 to a new key while the last
            // one beside it is deleted.
            (_, 409) => Self::Transient { what, answer },
            // Session tokens that have run out answer 400.
            ("ExpiredToken" | "InvalidToken" | "InvalidTokenId" | "TokenRefreshRequired", _)
            | (_, 401 | 403) => Self::Unauthorized { what, answer },
            ("" | "NoSuchKey" | "NotFound", 404) => Self::NotFound { what },
            _ => Self::Refused { what, answer },
        }
    }

    /// Sorts a call that got no answer.
    pub(super) fn from_client(what: String, error: reqwest::Error) -> Self {
        // The URL holds the signature: it never goes into a message.
        let error = error.without_url();
        if let Some(refused) = find::<RefusedAddress>(&error) {
            return Self::EndpointRefused { what, cause: refused.0.clone() };
        }
        let cause = root_cause(&error);
        if matches!(find::<rustls::Error>(&error), Some(rustls::Error::InvalidCertificate(_))) {
            Self::TlsUntrusted { what, cause }
        } else if error.is_connect() || error.is_timeout() {
            Self::Unreachable { what, cause }
        } else {
            Self::Transient { what, answer: cause }
        }
    }
}

/// How S3 says that a signature names the wrong region.
const REGION_CODES: [&str; 3] =
    ["AuthorizationHeaderMalformed", "AuthorizationQueryParametersError", "InvalidRegion"];

/// What stands in S3's error document, or in plain words.
#[derive(Default)]
struct Said {
    code: String,
    message: String,
    region: Option<String>,
}

impl Said {
    fn of(body: &str) -> Self {
        let read = xml::read(body.as_bytes(), "Error", |root| {
            let of = |name| xml::text(root, name).map(|text| shown(&text)).unwrap_or_default();
            let message = of("Message");
            let named = Some(of("Region")).filter(|name| !name.is_empty());
            let region = named.or_else(|| expected_region(&message)).filter(|name| is_region(name));
            Ok(Self { code: of("Code"), message, region })
        });
        read.unwrap_or_else(|_| Self { message: plain(body).unwrap_or_default(), ..Self::default() })
    }

    fn beside(&self, status: StatusCode) -> String {
        match (self.code.is_empty(), self.message.is_empty()) {
            (true, true) => status.to_string(),
            (true, false) => format!("{status}: {}", self.message),
            (false, true) => format!("{status}, {}", self.code),
            (false, false) => format!("{status}, {}: {}", self.code, self.message),
        }
    }
}

/// Some stores name the region in words only: `... is wrong; expecting "eu-north-7"`.
fn expected_region(message: &str) -> Option<String> {
    let quote = |c: char| matches!(c, '"' | '\'');
    let (_, named) = message.split_once("expecting ")?;
    let (name, _) = named.strip_prefix(quote)?.split_once(quote)?;
    Some(name.to_owned())
}

fn is_region(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

/// What stores say when there is no room: MinIO, Ceph, Swift and its S3 API, quotas of rest-server, a server's own
/// disk. What we write by ourselves is tiny, and restic's packs are small: nothing of it is too large by itself.
pub fn says_full(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    [
        "minimum free drive threshold",
        "storagefull",
        "quotaexceeded",
        "quota exceeded",
        "exceeds quota",
        "entitytoolarge",
        "too large object",
        "insufficient storage",
        "request entity too large",
        "no space left on device",
    ]
    .iter()
    .any(|words| text.contains(words))
}

/// The first line of an answer that is neither XML nor HTML.
fn plain(body: &str) -> Option<String> {
    let line = body.lines().next()?.trim();
    let text = shown(line);
    (!text.is_empty() && !body.contains('<')).then_some(text)
}

/// What a person may see of a text from elsewhere: the beginning, and nothing that a terminal would obey.
pub fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(256).collect()
}

/// Looks for an error of one type among the causes, also inside of I/O errors, which hide theirs.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref::<E>() {
            return Some(found);
        }
        let inner = current.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| find::<E>(inner)) {
            return Some(found);
        }
        next = current.source();
    }
    None
}

/// The innermost cause, which is the one that says something.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    shown(&current.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(status: u16, body: &str) -> StoreError {
        sorted_at(status, None, body)
    }

    fn sorted_at(status: u16, ahead: Option<i64>, body: &str) -> StoreError {
        let status = StatusCode::from_u16(status).unwrap();
        StoreError::from_answer("GET x".to_owned(), status, ahead.map(Ahead), body)
    }

    fn xml(code: &str, message: &str) -> String {
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>")
    }

    #[test]
    fn answers_are_sorted() {
        let xml = |code: &str| xml(code, "words");
        assert!(matches!(sorted(404, &xml("NoSuchBucket")), StoreError::NoBucket { .. }));
        assert!(matches!(sorted(404, &xml("NoSuchKey")), StoreError::NotFound { .. }));
        assert!(matches!(sorted(404, ""), StoreError::NotFound { .. }));
        assert!(matches!(sorted(403, &xml("InvalidAccessKeyId")), StoreError::Unauthorized { .. }));
        for code in ["ExpiredToken", "InvalidToken", "TokenRefreshRequired"] {
            assert!(matches!(sorted(400, &xml(code)), StoreError::Unauthorized { .. }), "{code}");
        }
        assert!(matches!(sorted(403, &xml("RequestTimeTooSkewed")), StoreError::ClockSkew { .. }));
        assert!(matches!(sorted(503, &xml("SlowDown")), StoreError::Transient { .. }));
        assert!(matches!(sorted(500, "<html>"), StoreError::Transient { .. }));
        for code in ["OperationAborted", "ExistingObjectIsDirectory"] {
            assert!(matches!(sorted(409, &xml(code)), StoreError::Transient { .. }), "{code}");
        }
        assert!(matches!(sorted(501, &xml("NotImplemented")), StoreError::Unsupported { .. }));
        assert!(matches!(sorted(301, &xml("PermanentRedirect")), StoreError::Refused { .. }));
        assert!(sorted(403, &xml("AccessDenied")).to_string().contains("AccessDenied: words"));
    }

    #[test]
    fn a_full_store_is_full_however_it_says_so() {
        for (status, body) in [
            (507, "quota exceeded\n".to_owned()),
            (507, xml("XMinioStorageFull", "Storage backend has reached its minimum free drive threshold.")),
            (403, "<Error><Code>QuotaExceeded</Code><BucketName>b</BucketName></Error>".to_owned()),
            (400, xml("EntityTooLarge", "Upload exceeds quota.")),
            (413, "Upload exceeds quota.".to_owned()),
            (413, "<html><h1>Request Entity Too Large</h1></html>".to_owned()),
            (500, xml("InternalError", "write /data/x: no space left on device")),
        ] {
            let error = sorted(status, &body);
            assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
            assert!(error.is_transient() && !error.is_busy(), "nobody makes room within a second");
        }
        assert!(
            sorted(507, "quota exceeded\n").to_string().contains("507 Insufficient Storage: quota exceeded")
        );
    }

    #[test]
    fn a_refusal_by_clocks_that_differ_says_by_how_much() {
        let told = sorted_at(403, Some(-1200), &xml("AccessDenied", "Request has expired.")).to_string();
        assert!(
            told.contains("20 minutes behind ours (403 Forbidden, AccessDenied: Request has expired.)"),
            "{told}"
        );
        assert!(matches!(
            sorted_at(403, Some(-60), &xml("AccessDenied", "no")),
            StoreError::Unauthorized { .. }
        ));
        // Neither Swift nor rest-server looks at a clock.
        assert!(matches!(sorted_at(403, Some(-1200), "Forbidden"), StoreError::Unauthorized { .. }));
    }

    #[test]
    fn the_region_that_is_wanted_is_found() {
        let words = "the region &#34;us-east-1&#34; is wrong; expecting &#34;eu-north-7&#34;";
        let named = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>no</Message><Region>eu-north-7</Region></Error>";
        for body in [xml("AuthorizationQueryParametersError", words), named.to_owned()] {
            let error = sorted(400, &body);
            assert!(
                matches!(&error, StoreError::WrongRegion { expected, .. } if expected == "eu-north-7"),
                "{error:?}"
            );
            assert!(error.to_string().contains("AWS_DEFAULT_REGION"));
        }
        let other = sorted(400, &xml("AuthorizationQueryParametersError", "X-Amz-Expires is missing"));
        assert!(matches!(other, StoreError::Refused { .. }));
        let odd = sorted(400, &xml("InvalidRegion", "expecting 'a/../b'"));
        assert!(matches!(odd, StoreError::Refused { .. }));
    }

    #[test]
    fn messages_name_the_keys_that_the_user_gave() {
        let untrusted = StoreError::TlsUntrusted { what: "GET x".to_owned(), cause: "unknown".to_owned() };
        assert!(untrusted.to_string().ends_with("give the CA as cacert in the credentials Secret"));
    }
}
