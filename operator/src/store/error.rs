//! What went wrong with the store, sorted by what can be done about it.

use std::{error::Error, io};

use reqwest::StatusCode;

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
    #[error("{what}: the store's certificate is not trusted ({cause}); give the CA in store-cacert")]
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
    /// The store's clock and ours differ too much for signatures.
    #[error("{what}: the store says that our clock is wrong ({answer})")]
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
        matches!(self, Self::Transient { .. } | Self::Unreachable { .. })
    }

    /// Whether the store answered, but only with trouble: worth asking again at once, within bounds.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Transient { .. })
    }

    /// Sorts an answer that is no success.
    pub fn from_answer(what: String, status: StatusCode, body: &str) -> Self {
        let code = element(body, "Code").unwrap_or_default();
        let message = element(body, "Message").unwrap_or_default();
        let answer = match (code.is_empty(), message.is_empty()) {
            (true, _) => plain(body).map_or_else(|| status.to_string(), |text| format!("{status}: {text}")),
            (false, true) => format!("{status}, {code}"),
            (false, false) => format!("{status}, {code}: {message}"),
        };
        match (code.as_str(), status.as_u16()) {
            ("NoSuchBucket", _) => Self::NoBucket { what },
            ("RequestTimeTooSkewed", _) => Self::ClockSkew { what, answer },
            ("RequestTimeout" | "SlowDown" | "InternalError" | "ServiceUnavailable", _)
            | (_, 408 | 429 | 500..) => Self::Transient { what, answer },
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

/// The first line of an answer that is neither XML nor HTML.
fn plain(body: &str) -> Option<String> {
    let line = body.lines().next()?.trim();
    let text = shown(line);
    (!text.is_empty() && !body.contains('<')).then_some(text)
}

/// The text of an element of S3's flat error document, bounded.
fn element(body: &str, name: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    Some(shown(text))
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
        StoreError::from_answer("GET x".to_owned(), StatusCode::from_u16(status).unwrap(), body)
    }

    #[test]
    fn answers_are_sorted() {
        let xml = |code: &str| {
            format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>words</Message></Error>")
        };
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
        assert!(matches!(sorted(301, &xml("PermanentRedirect")), StoreError::Refused { .. }));
        assert!(
            sorted(507, "quota exceeded\n").to_string().ends_with("507 Insufficient Storage: quota exceeded")
        );
        assert!(sorted(403, &xml("AccessDenied")).to_string().contains("AccessDenied: words"));
    }
}
