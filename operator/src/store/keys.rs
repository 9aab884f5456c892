//! The keys to a store, under the names that restic reads them from its environment.

use std::{collections::BTreeMap, fmt};

use super::{
    error::StoreError,
    location::{ObjectStoreLocation, Place},
};

pub(super) const ACCESS_KEY_ID: &str = "AWS_ACCESS_KEY_ID";
pub(super) const SECRET_ACCESS_KEY: &str = "AWS_SECRET_ACCESS_KEY";
pub(super) const SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";
pub(super) const REGION: &str = "AWS_DEFAULT_REGION";
pub(super) const REST_USERNAME: &str = "RESTIC_REST_USERNAME";
pub(super) const REST_PASSWORD: &str = "RESTIC_REST_PASSWORD";
pub(super) const AUTH_URL: &str = "OS_AUTH_URL";
pub(super) const REGION_NAME: &str = "OS_REGION_NAME";
pub(super) const CREDENTIAL_ID: &str = "OS_APPLICATION_CREDENTIAL_ID";
pub(super) const CREDENTIAL_SECRET: &str = "OS_APPLICATION_CREDENTIAL_SECRET";
pub(super) const USERNAME: &str = "OS_USERNAME";
pub(super) const PASSWORD: &str = "OS_PASSWORD";
pub(super) const USER_DOMAIN: &str = "OS_USER_DOMAIN_NAME";
pub(super) const PROJECT: &str = "OS_PROJECT_NAME";
pub(super) const PROJECT_DOMAIN: &str = "OS_PROJECT_DOMAIN_NAME";

const S3: &[&str] = &[ACCESS_KEY_ID, SECRET_ACCESS_KEY, SESSION_TOKEN, REGION];
const REST: &[&str] = &[REST_USERNAME, REST_PASSWORD];
const SWIFT: &[&str] = &[
    AUTH_URL,
    REGION_NAME,
    CREDENTIAL_ID,
    CREDENTIAL_SECRET,
    USERNAME,
    PASSWORD,
    USER_DOMAIN,
    PROJECT,
    PROJECT_DOMAIN,
];
const SECRETS: [&str; 5] = [SECRET_ACCESS_KEY, SESSION_TOKEN, REST_PASSWORD, CREDENTIAL_SECRET, PASSWORD];

/// The keys to the store. Debug output shows none of them.
#[derive(Clone)]
pub struct StoreKeys(BTreeMap<&'static str, String>);

impl StoreKeys {
    /// The names that a store's Secret may have keys under, for all kinds.
    pub fn names() -> impl Iterator<Item = &'static str> {
        [S3, REST, SWIFT].into_iter().flatten().copied()
    }

    /// Those of them whose values must never be shown.
    pub fn secret_names() -> impl Iterator<Item = &'static str> {
        SECRETS.into_iter()
    }

    /// Takes what this kind of store needs.
    pub fn find<E: From<StoreError>>(
        location: &ObjectStoreLocation,
        mut value: impl FnMut(&'static str) -> Result<Option<String>, E>,
    ) -> Result<Self, E> {
        let names = match location.place() {
            Place::S3 { .. } => S3,
            Place::Rest { .. } => REST,
            Place::Swift { .. } => SWIFT,
        };
        let mut keys = BTreeMap::new();
        for name in names {
            if let Some(value) = value(name)?.filter(|value| !value.is_empty()) {
                keys.insert(*name, value);
            }
        }
        Ok(Self(keys).completed(location.place())?)
    }

    /// One key.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All of them, as restic's environment.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }

    fn completed(mut self, place: &Place) -> Result<Self, StoreError> {
        match place {
            // A region that is not given is found, by restic and by us.
            Place::S3 { .. } => self.require(&[ACCESS_KEY_ID, SECRET_ACCESS_KEY]),
            Place::Rest { .. } if self.get(REST_USERNAME).is_some() => self.require(&[REST_PASSWORD]),
            Place::Rest { .. } => Ok(self),
            Place::Swift { .. } if self.get(CREDENTIAL_ID).is_some() => {
                self.versioned_auth_url();
                self.require(&[AUTH_URL, CREDENTIAL_SECRET])
            }
            Place::Swift { .. } => {
                self.default(USER_DOMAIN, "Default");
                self.default(PROJECT_DOMAIN, "Default");
                self.versioned_auth_url();
                self.require(&[AUTH_URL, USERNAME, PASSWORD, PROJECT])
            }
        }
    }

    fn default(&mut self, name: &'static str, value: &str) {
        self.0.entry(name).or_insert_with(|| value.to_owned());
    }

    /// restic wants to see the version of the identity API in its URL.
    fn versioned_auth_url(&mut self) {
        if let Some(url) = self.0.get_mut(AUTH_URL) {
            *url = url.trim_end_matches('/').to_owned();
            if !url.ends_with("/v3") {
                url.push_str("/v3");
            }
        }
    }

    fn require(self, names: &[&str]) -> Result<Self, StoreError> {
        match names.iter().find(|name| self.get(name).is_none()) {
            None => Ok(self),
            Some(name) => Err(StoreError::Invalid(format!("the Secret has no key {name}, or an empty one"))),
        }
    }
}

impl fmt::Debug for StoreKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(location: &str, has: &[(&str, &str)]) -> Result<StoreKeys, StoreError> {
        let value =
            |name: &str| has.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        StoreKeys::find(&ObjectStoreLocation::parse(location).unwrap(), |name| Ok(value(name)))
    }

    #[test]
    fn each_kind_has_its_keys() {
        let (s3, rest, swift) = ("s3:https://h/b", "rest:https://h/", "swift:c:/p");
        let aws = [("AWS_ACCESS_KEY_ID", "i"), ("AWS_SECRET_ACCESS_KEY", "s"), ("OS_PASSWORD", "other")];
        let keys = find(s3, &aws).unwrap();
        assert_eq!((keys.get(REGION), keys.get(PASSWORD)), (None, None));
        assert!(!format!("{keys:?}").contains("\"s\""));
        assert!(find(s3, &aws[..1]).unwrap_err().to_string().contains("AWS_SECRET_ACCESS_KEY"));
        assert_eq!(find(rest, &aws).unwrap().environment().count(), 0);
        assert!(find(rest, &[("RESTIC_REST_USERNAME", "u")]).is_err());
        let credential = [
            ("OS_AUTH_URL", "https://k/identity/"),
            ("OS_APPLICATION_CREDENTIAL_ID", "i"),
            ("OS_APPLICATION_CREDENTIAL_SECRET", "s"),
        ];
        let keys = find(swift, &credential).unwrap();
        assert_eq!((keys.get(AUTH_URL), keys.get(USER_DOMAIN)), (Some("https://k/identity/v3"), None));
        assert!(find(swift, &credential[..2]).is_err() && find(swift, &credential[1..]).is_err());
        let password = [
            ("OS_AUTH_URL", "https://k/v3"),
            ("OS_USERNAME", "u"),
            ("OS_PASSWORD", "p"),
            ("OS_PROJECT_NAME", "x"),
        ];
        let keys = find(swift, &password).unwrap();
        assert_eq!((keys.get(AUTH_URL), keys.get(USER_DOMAIN)), (Some("https://k/v3"), Some("Default")));
        assert!(find(swift, &password[..3]).is_err());
    }
}
