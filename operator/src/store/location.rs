//! Where a repository lies, in restic's form: `s3:`, `rest:` or `swift:`, parsed and put together.

use std::{fmt, str::FromStr};

use url::{Host, Url};

/// Why a location was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Another backend of restic's, or none.
    #[error(
        "location {0:?} is not supported: it must look like s3:https://host[:port]/bucket/prefix, \
         rest:https://host[:port]/prefix or swift:container:/prefix"
    )]
    Unsupported(String),
    /// The part after the kind is no URL.
    #[error("the URL of the location cannot be parsed: {0}")]
    Url(String),
    /// Anything but https.
    #[error("the location must use https, not {0}")]
    NotHttps(String),
    /// Credentials inside of the location.
    #[error("the location must not hold a user or a password: put the keys into the credentials Secret")]
    UserInfo,
    /// A query or a fragment.
    #[error("the location must not hold a query or a fragment")]
    Query,
    /// No bucket or container.
    #[error(
        "the location names no bucket or container: s3:https://host/bucket/prefix, swift:container:/prefix"
    )]
    NoBucket,
    /// The name of a bucket or container, or one part of the prefix.
    #[error(
        "{what} {value:?} of the location is not allowed: use letters, digits, '.', '_', '-', no empty part"
    )]
    Segment {
        /// Bucket, container, prefix part, namespace or uid.
        what: &'static str,
        /// What was given.
        value: String,
    },
}

/// One place in a store. Its text form is the one that restic reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectStoreLocation {
    place: Place,
    /// Parts joined by '/', neither at the start nor at the end one; may be empty.
    prefix: String,
}

/// A store of one of the three kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// S3.
    S3 {
        /// Its address, without a path.
        endpoint: Url,
        /// The bucket.
        bucket: String,
    },
    /// restic's REST protocol.
    Rest {
        /// Its address, without a path.
        endpoint: Url,
    },
    /// Swift; where it is, its keys say.
    Swift {
        /// The container.
        container: String,
    },
}

impl ObjectStoreLocation {
    /// Parses restic's form. Only https; plain http is taken for a loopback address when `allow_loopback` is set.
    pub fn parse_with(text: &str, allow_loopback: bool) -> Result<Self, LocationError> {
        let (kind, rest) = text.split_once(':').unwrap_or_default();
        match kind {
            "s3" if rest.contains("://") => {
                let (endpoint, path) = address(rest, allow_loopback)?;
                let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
                if bucket.is_empty() {
                    return Err(LocationError::NoBucket);
                }
                segment("bucket", bucket)?;
                Self::new(Place::S3 { endpoint, bucket: bucket.to_owned() }, prefix)
            }
            "rest" if rest.contains("://") => {
                let (endpoint, prefix) = address(rest, allow_loopback)?;
                Self::new(Place::Rest { endpoint }, prefix)
            }
            "swift" => {
                let (container, path) = rest.split_once(":/").ok_or(LocationError::NoBucket)?;
                segment("container", container)?;
                Self::new(Place::Swift { container: container.to_owned() }, without_last_slash(path))
            }
            // Only the kind is repeated: a refused location may hold a password.
            kind => Err(LocationError::Unsupported(kind.chars().take(16).collect())),
        }
    }

    fn new(place: Place, prefix: &str) -> Result<Self, LocationError> {
        if !prefix.is_empty() {
            prefix.split('/').try_for_each(|part| segment("prefix part", part))?;
        }
        Ok(Self { place, prefix: prefix.to_owned() })
    }

    /// Parses restic's form; https only.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        Self::parse_with(text, false)
    }

    /// The place of one migration's repository below this one. Without the namespace where folders are counted:
    /// rest-server has two of them, and a uid is nobody else's anyhow.
    pub fn repository(&self, namespace: &str, uid: &str) -> Result<Self, LocationError> {
        segment("namespace", namespace)?;
        segment("uid", uid)?;
        let namespace = if matches!(self.place, Place::Rest { .. }) { "" } else { namespace };
        let prefix = [self.prefix.as_str(), namespace, uid];
        let prefix = prefix.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/");
        Ok(Self { prefix, ..self.clone() })
    }

    /// The store.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The prefix without a slash at either end; empty for the whole store.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The last part of the prefix: in a migration's repository, its uid.
    pub fn last_part(&self) -> &str {
        self.prefix.rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for ObjectStoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::S3 { endpoint, bucket } if self.prefix.is_empty() => write!(f, "s3:{endpoint}{bucket}"),
            Place::S3 { endpoint, bucket } => write!(f, "s3:{endpoint}{bucket}/{}", self.prefix),
            Place::Rest { endpoint } => write!(f, "rest:{endpoint}{}", self.prefix),
            Place::Swift { container } => write!(f, "swift:{container}:/{}", self.prefix),
        }
    }
}

impl FromStr for ObjectStoreLocation {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        Self::parse(text)
    }
}

/// The store's address, and the path behind it.
fn address(text: &str, allow_loopback: bool) -> Result<(Url, &str), LocationError> {
    let mut url = Url::parse(text).map_err(|error| LocationError::Url(error.to_string()))?;
    refuse_extras(&url)?;
    match url.scheme() {
        "https" => {}
        "http" if allow_loopback && is_loopback(&url) => {}
        other => return Err(LocationError::NotHttps(other.to_owned())),
    }
    url.set_path("/");
    // Taken from the text, because the parser resolves `..` silently.
    let path = text.splitn(4, '/').nth(3).unwrap_or_default();
    Ok((url, without_last_slash(path)))
}

fn without_last_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

fn refuse_extras(url: &Url) -> Result<(), LocationError> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err(LocationError::UserInfo);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(LocationError::Query);
    }
    if url.host().is_none() {
        return Err(LocationError::Url("no host".to_owned()));
    }
    Ok(())
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Characters that restic, the signature and every store spell the same way.
fn segment(what: &'static str, value: &str) -> Result<(), LocationError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if value.is_empty() || value == "." || value == ".." || value.len() > 253 || !value.chars().all(allowed) {
        return Err(LocationError::Segment { what, value: value.chars().take(64).collect() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_locations() {
        let table = [
            ("s3:https://s3.example.com/b", "b", "", "s3:https://s3.example.com/b"),
            ("s3:https://s3.example.com/b/", "b", "", "s3:https://s3.example.com/b"),
            ("s3:https://s3.example.com:8443/b/p", "b", "p", "s3:https://s3.example.com:8443/b/p"),
            (
                "s3:https://h/my.bucket/a/b_c/d-e/",
                "my.bucket",
                "a/b_c/d-e",
                "s3:https://h/my.bucket/a/b_c/d-e",
            ),
            ("s3:https://[2001:db8::1]:9000/b/p", "b", "p", "s3:https://[2001:db8::1]:9000/b/p"),
            ("rest:https://h:8000", "", "", "rest:https://h:8000/"),
            ("rest:https://h/p/q/", "", "p/q", "rest:https://h/p/q"),
            ("swift:c:/", "c", "", "swift:c:/"),
            ("swift:c_1:/p/q/", "c_1", "p/q", "swift:c_1:/p/q"),
        ];
        for (text, bucket, prefix, shown) in table {
            let got = ObjectStoreLocation::parse(text).unwrap();
            let store = match got.place() {
                Place::S3 { bucket, .. } => bucket,
                Place::Rest { .. } => "",
                Place::Swift { container } => container,
            };
            assert_eq!((store, got.prefix(), got.to_string().as_str()), (bucket, prefix, shown), "{text}");
            assert_eq!(ObjectStoreLocation::parse(shown), Ok(got), "{text}");
        }
    }

    #[test]
    fn refused_locations() {
        for text in [
            "",
            "s3:",
            "s3:host/bucket",
            "rest:h/b",
            "rest:http://h/b",
            "rest:https://u:p@h/",
            "rest:https://h//p",
            "rest:https://h/..",
            "swift:c",
            "swift::/p",
            "swift:c:p",
            "swift:c:/p//q",
            "swift:a/b:/p",
            "swift:u@c:/p",
            "b2:bucket:/p",
            "https://h/b/p",
            "s3:http://h/b",
            "s3:ftp://h/b",
            "s3:http://127.0.0.1/b",
            "s3:https://u:p@h/b",
            "s3:https://u@h/b",
            "s3:https://h",
            "s3:https://h/",
            "s3:https://h//p",
            "s3:https://h/b//p",
            "s3:https://h/b/../c",
            "s3:https://h/b/./c",
            "s3:https://h/b/p?x=1",
            "s3:https://h/b/p#f",
            "s3:https://h/b/%2e%2e",
            "s3:https://h/b/a b",
            "s3:https://h/b/a\\b",
        ] {
            assert!(ObjectStoreLocation::parse(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn loopback_http_only_when_allowed() {
        assert!(ObjectStoreLocation::parse_with("s3:http://127.0.0.1:9000/b/p", true).is_ok());
        assert!(ObjectStoreLocation::parse_with("s3:http://localhost:9000/b/p", true).is_ok());
        assert!(ObjectStoreLocation::parse_with("s3:http://10.0.0.1:9000/b/p", true).is_err());
    }

    #[test]
    fn a_password_is_not_repeated() {
        let error = ObjectStoreLocation::parse("rest:https://user:hunter2@h/b").unwrap_err();
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn repositories() {
        let base = ObjectStoreLocation::parse("s3:https://h/b/p").unwrap();
        let repository = base.repository("team-a", "0f5c").unwrap();
        assert_eq!(repository.to_string(), "s3:https://h/b/p/team-a/0f5c");
        assert_eq!(repository.last_part(), "0f5c");
        let bare = ObjectStoreLocation::parse("s3:https://h/b").unwrap();
        assert_eq!(bare.repository("n", "u").unwrap().to_string(), "s3:https://h/b/n/u");
        let of =
            |text: &str| ObjectStoreLocation::parse(text).unwrap().repository("n", "u").unwrap().to_string();
        assert_eq!(of("rest:https://h/p"), "rest:https://h/p/u");
        assert_eq!(of("swift:c:/"), "swift:c:/n/u");
        for (namespace, uid) in [("", "u"), ("n", ""), ("..", "u"), ("n/m", "u"), ("n", "u/../..")] {
            assert!(base.repository(namespace, uid).is_err(), "{namespace:?} {uid:?}");
        }
    }
}
