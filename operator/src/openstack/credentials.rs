//! One entry of a `clouds.yaml` from a Secret: inline data only, checked before anything is sent anywhere.

use std::fmt;

use openstack_sdk::config::CloudConfig;
use serde_json::{Map, Value, json};
use thiserror::Error;
use url::Url;

use super::auth::{self, Method};
use super::entry::{self, OVERRIDE, Refusal, refuse};

/// Why a `clouds.yaml` was not accepted. No variant carries a value from the file except names of clouds, of
/// keys and of authentication types.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CredentialsError {
    /// The file is no YAML, or has no `clouds` map.
    #[error("clouds.yaml cannot be read: {0}")]
    Malformed(String),
    /// The named cloud is not in the file, or none was named and there is more than one.
    #[error("{problem}; clouds.yaml has: {names}")]
    Choice {
        /// What is wrong with the choice.
        problem: String,
        /// Comma separated names of all clouds in the file.
        names: String,
    },
    /// A key that would need a local file, switch off a check, or cannot work.
    #[error("cloud {cloud}: {key}: {reason}")]
    Refused {
        /// Name of the entry.
        cloud: String,
        /// Key below the entry, with dots.
        key: String,
        /// What to do instead.
        reason: String,
    },
    /// The separate CA bundle is not usable.
    #[error("key cacert of the Secret holds no PEM certificate")]
    CaCert,
}

/// Keys that name files of the machine that reads them; only data in the Secret count.
const FILE_KEYS: [&str; 4] = ["cacert", "cert", "key", "ca_cert"];

/// Credentials for one project in one cloud. Clones are cheap enough to pass around; `Debug` shows no secret.
#[derive(Clone)]
pub struct Credentials {
    cloud_name: String,
    entry: Map<String, Value>,
    method: Method,
    interfaces: Vec<String>,
    auth_url: Url,
    cacert: Option<Vec<u8>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("cloud_name", &self.cloud_name)
            .field("auth_url", &self.auth_url.as_str())
            .field("region", &self.region())
            .field("auth_type", &self.method)
            .field("cacert", &self.cacert.is_some())
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the entry `cloud_name` (may be left out when there is exactly one) of a `clouds.yaml`, with an
    /// optional PEM bundle of CA certificates that are trusted in addition to the public ones.
    pub fn parse(
        clouds_yaml: &[u8],
        cloud_name: Option<&str>,
        cacert: Option<&[u8]>,
    ) -> Result<Self, CredentialsError> {
        let clouds = read_clouds(clouds_yaml)?;
        let cloud_name = choose(&clouds, cloud_name)?;
        let Some(Value::Object(entry)) = clouds.get(&cloud_name) else {
            return Err(CredentialsError::Malformed(format!("cloud {cloud_name} is not a map")));
        };
        let mut entry = entry.clone();
        let refused = |(key, reason): (String, String)| CredentialsError::Refused {
            cloud: cloud_name.clone(),
            key,
            reason,
        };
        entry::normalise(&mut entry).map_err(refused)?;
        check_machine(&entry).map_err(refused)?;
        let (method, auth_url) = auth::normalise(&mut entry).map_err(refused)?;
        let interfaces = interfaces(&entry);
        let cacert = cacert.filter(|pem| !pem.trim_ascii().is_empty()).map(check_cacert).transpose()?;
        Ok(Self { cloud_name, entry, method, interfaces, auth_url, cacert })
    }

    /// A `clouds.yaml` with this entry alone, under its own name, for the Secret of one migration. The CA bundle
    /// is not in it; see [`Credentials::cacert`].
    pub fn to_single_clouds_yaml(&self) -> String {
        // JSON is YAML 1.2, and leaves no doubt about which scalars are strings.
        let document = json!({ "clouds": { &self.cloud_name: Value::Object(self.entry.clone()) } });
        format!("{document:#}\n")
    }

    /// Address of the identity service as written in the file.
    pub fn auth_url(&self) -> &Url {
        &self.auth_url
    }

    /// Region whose endpoints are used; `None`: the only one that the catalog has.
    pub fn region(&self) -> Option<&str> {
        self.entry.get("region_name").and_then(Value::as_str)
    }

    /// The same with this region, where the entry names none.
    pub fn in_region(mut self, region: &str) -> Self {
        self.entry.entry("region_name").or_insert_with(|| region.into());
        self
    }

    /// Interfaces whose endpoints are used, each where the ones before it are not in the catalog.
    pub(super) fn interfaces(&self) -> &[String] {
        &self.interfaces
    }

    /// Keys that put an address in the place of the catalog's.
    pub fn overrides(&self) -> Vec<&str> {
        self.entry.keys().map(String::as_str).filter(|key| key.ends_with(OVERRIDE)).collect()
    }

    /// The same with these CA certificates in place of those that came with the file.
    pub fn trusting(self, cacert: Option<Vec<u8>>) -> Self {
        Self { cacert, ..self }
    }

    /// Name of the entry in the file.
    pub fn cloud_name(&self) -> &str {
        &self.cloud_name
    }

    /// PEM bundle that came with the file.
    pub fn cacert(&self) -> Option<&[u8]> {
        self.cacert.as_deref()
    }

    /// What Keystone is asked for a token with.
    pub(super) fn token_request(&self) -> Value {
        let nothing = Map::new();
        auth::request(self.entry.get("auth").and_then(Value::as_object).unwrap_or(&nothing), self.method)
    }

    /// What is said to which identity service, secrets included: to tell logins apart, hashed.
    pub fn login(&self) -> String {
        format!("{} {}", self.auth_url, self.token_request())
    }

    /// What the SDK's catalog is to know: the addresses that replace its own, which may have a place for the project.
    pub(super) fn overriding(&self, project: &str) -> CloudConfig {
        let address = |key| {
            let url = self.entry.get(key)?.as_str()?;
            Some(PROJECT.iter().fold(url.to_string(), |url, place| url.replace(place, project)))
        };
        let keys = self.overrides().into_iter();
        let options = keys.filter_map(|key| Some((key.into(), address(key)?.into()))).collect();
        CloudConfig { options, ..Default::default() }
    }
}

/// How keystoneauth lets addresses leave a place for the project's id.
const PROJECT: [&str; 4] = ["%(project_id)s", "%(tenant_id)s", "$(project_id)s", "$(tenant_id)s"];

fn read_clouds(bytes: &[u8]) -> Result<Map<String, Value>, CredentialsError> {
    // The parser's own message quotes the file, secrets included: only its place is passed on.
    let file: Value = serde_saphyr::from_slice(bytes).map_err(|error| {
        let place = error.location().map(|at| format!(" at line {}", at.line())).unwrap_or_default();
        CredentialsError::Malformed(format!("not valid YAML{place}"))
    })?;
    match file.get("clouds") {
        Some(Value::Object(clouds)) if !clouds.is_empty() => Ok(clouds.clone()),
        _ => Err(CredentialsError::Malformed("it has no entry below the key clouds".into())),
    }
}

fn choose(clouds: &Map<String, Value>, wanted: Option<&str>) -> Result<String, CredentialsError> {
    let names: Vec<&str> = clouds.keys().map(String::as_str).collect();
    let problem = match (wanted, names.as_slice()) {
        (Some(name), _) if clouds.contains_key(name) => return Ok(name.to_string()),
        (None, [only]) => return Ok((*only).to_string()),
        (Some(name), _) => format!("there is no cloud {name:?}"),
        (None, _) => "cloudName is needed because there is more than one cloud".to_string(),
    };
    Err(CredentialsError::Choice { problem, names: names.join(", ") })
}

/// Refuses what only the machine of a user may say: files of its own, and checks that are switched off.
fn check_machine(entry: &Map<String, Value>) -> Result<(), Refusal> {
    if let Some(key) = FILE_KEYS.into_iter().find(|key| entry.contains_key(*key)) {
        let reason = match key {
            "cacert" | "ca_cert" => "is a file path; put the PEM text into the key cacert of the Secret",
            _ => "client certificate files are not supported",
        };
        return Err(refuse(key, reason));
    }
    // `cloud` is its old name.
    if let Some(key) = ["profile", "cloud"].into_iter().find(|key| entry.contains_key(*key)) {
        return Err(refuse(key, "vendor profiles are files; write the values into this entry"));
    }
    if let Some(verify) = entry.get("verify").filter(|verify| !is_true(verify)) {
        let is_path = verify.as_str().is_some_and(|text| text.contains(['/', '.']));
        let reason = if is_path {
            "is a file path; put the PEM text into the key cacert of the Secret"
        } else {
            SWITCHED_OFF
        };
        return Err(refuse("verify", reason));
    }
    if entry.get("insecure").is_some_and(is_true) {
        return Err(refuse("insecure", SWITCHED_OFF));
    }
    Ok(())
}

const SWITCHED_OFF: &str =
    "TLS verification cannot be switched off; give the CA in the key cacert of the Secret";

fn is_true(value: &Value) -> bool {
    match value {
        Value::Bool(b) => *b,
        Value::String(s) => matches!(s.to_ascii_lowercase().as_str(), "true" | "yes" | "on" | "1"),
        Value::Number(n) => n.as_i64() == Some(1),
        _ => false,
    }
}

/// As they were normalised.
fn interfaces(entry: &Map<String, Value>) -> Vec<String> {
    match entry.get("interface") {
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).map(String::from).collect(),
        Some(Value::String(one)) => vec![one.clone()],
        _ => vec!["public".into()],
    }
}

fn check_cacert(pem: &[u8]) -> Result<Vec<u8>, CredentialsError> {
    match reqwest::Certificate::from_pem_bundle(pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(pem.to_vec()),
        _ => Err(CredentialsError::CaCert),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"
clouds:
  site-a:
    auth_type: application_credential
    region_name: RegionOne
    auth:
      auth_url: https://a.example:5000/v3
      application_credential_id: "0123"
      application_credential_secret: s3cr3t-value
"#;

    fn password(extra: &str) -> String {
        format!(
            "clouds:\n  b:\n{extra}    auth:\n      auth_url: http://b.example/identity\n      username: u\n      \
             password: hunter2-secret\n      user_domain_name: Default\n      project_name: p\n      \
             project_domain_name: Default\n"
        )
    }

    #[test]
    fn reads_the_only_cloud_and_normalises_its_type() {
        let read = Credentials::parse(ONE.as_bytes(), None, None).unwrap();
        assert_eq!((read.cloud_name(), read.region()), ("site-a", Some("RegionOne")));
        assert_eq!(read.auth_url().as_str(), "https://a.example:5000/v3");
        assert_eq!(read.method, Method::ApplicationCredential);
        for written in ["password", "v3password"] {
            let yaml = password(&format!("    auth_type: {written}\n"));
            let read = Credentials::parse(yaml.as_bytes(), Some("b"), None).unwrap();
            assert_eq!(read.method, Method::Password, "{written}");
        }
        let absent = Credentials::parse(password("").as_bytes(), None, None).unwrap();
        assert_eq!(absent.method, Method::Password);
    }

    #[test]
    fn a_single_entry_survives_the_round_trip_and_the_others_stay_behind() {
        let two = format!("{ONE}  other:\n    auth: {{auth_url: 'https://x', password: other-secret}}\n");
        let read = Credentials::parse(two.as_bytes(), Some("site-a"), None).unwrap();
        let single = read.to_single_clouds_yaml();
        assert!(!single.contains("other-secret"), "{single}");
        let again = Credentials::parse(single.as_bytes(), None, None).unwrap();
        assert_eq!(again.to_single_clouds_yaml(), single);
        assert!(single.contains("\"0123\"") && single.contains("s3cr3t-value"));
    }

    #[test]
    fn secrets_are_not_in_debug_output_or_errors() {
        let read = Credentials::parse(ONE.as_bytes(), None, None).unwrap();
        assert!(!format!("{read:?}").contains("s3cr3t"), "{read:?}");
        for broken in [
            "clouds: {a: {auth: {password: hunter2-secret",
            "clouds:\n  a: [hunter2-secret]\n",
            "\u{1}hunter2-secret",
        ] {
            let error = Credentials::parse(broken.as_bytes(), None, None).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn a_missing_or_ambiguous_choice_lists_the_names() {
        let two = format!("{ONE}  other:\n    auth: {{auth_url: 'https://x'}}\n");
        let error = Credentials::parse(two.as_bytes(), None, None).unwrap_err();
        assert!(error.to_string().contains("site-a") && error.to_string().contains("other"), "{error}");
        let error = Credentials::parse(ONE.as_bytes(), Some("nope"), None).unwrap_err();
        assert!(error.to_string().contains("site-a"), "{error}");
        assert!(Credentials::parse(b"clouds: {}", None, None).is_err());
        assert!(Credentials::parse(b"", None, None).is_err());
    }

    #[test]
    fn refuses_files_switched_off_checks_and_other_methods() {
        let cases = [
            ("    verify: false\n", "TLS verification"),
            ("    insecure: true\n", "TLS verification"),
            ("    verify: \"false\"\n", "TLS verification"),
            ("    cacert: /etc/ssl/ca.pem\n", "key cacert"),
            ("    cert: /etc/ssl/c.pem\n", "client certificate"),
            ("    key: /etc/ssl/k.pem\n", "client certificate"),
            ("    profile: vexxhost\n", "profile"),
            ("    auth_type: v3token\n", "not supported"),
            ("    auth_type: websso\n", "not supported"),
            ("    auth_type: v3oidcpassword\n", "not supported"),
        ];
        for (extra, expected) in cases {
            let error = Credentials::parse(password(extra).as_bytes(), None, None).unwrap_err().to_string();
            assert!(error.contains(expected), "{extra:?}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        Credentials::parse(password("    verify: true\n    cacert: ''\n").as_bytes(), None, None).unwrap();
    }

    #[test]
    fn refuses_an_unusable_auth_section() {
        let cases = [
            ("username: u", "", "user_id"),
            ("auth_url: http://b.example/identity", "", "auth_url"),
            ("auth_url: http://b.example/identity", "auth_url: b.example:5000", "https://"),
            (
                "auth_url: http://b.example/identity",
                "auth_url: http://u:hunter2-secret@b",
                "must not contain",
            ),
            ("auth_url: http://b.example/identity", "auth_url: http://b/v2.0", "v3"),
            ("password: hunter2-secret", "password: 0123", "quotes"),
            ("password: hunter2-secret", "", "password"),
            ("project_name: p", "", "project_id"),
        ];
        for (from, to, expected) in cases {
            let yaml = password("").replace(from, to);
            let error = Credentials::parse(yaml.as_bytes(), None, None).unwrap_err().to_string();
            assert!(error.contains(expected), "{from:?} -> {to:?}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_ca_that_is_no_certificate_is_refused() {
        let parse = |pem: &[u8]| Credentials::parse(ONE.as_bytes(), None, Some(pem));
        assert_eq!(parse(b"not a certificate").unwrap_err(), CredentialsError::CaCert);
        assert!(parse(b" \n").unwrap().cacert().is_none());
    }
}
