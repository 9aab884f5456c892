//! The Job's files: the keys of one mounted Secret.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};

use super::error::MoverError;
use crate::{
    contract::{
        FailureReason,
        paths::{CLOUD_CACERT, CLOUDS_YAML, RESTIC_PASSWORD, STORE_CACERT},
    },
    store::{ObjectStoreLocation, StoreKeys},
};

/// No file of the Secret is larger.
const MAX_FILE: u64 = 1 << 20;

/// The directory that the Secret is mounted at.
#[derive(Debug, Clone)]
pub struct ConfigDir(PathBuf);

impl ConfigDir {
    /// Nothing is read yet.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file that must be there and not be empty.
    pub fn required(&self, key: &str) -> Result<Vec<u8>, MoverError> {
        match self.optional(key)? {
            Some(content) if !content.is_empty() => Ok(content),
            _ => Err(invalid(format!("the Secret has no key {}, or an empty one", given(key)))),
        }
    }

    /// A file that need not be there.
    pub fn optional(&self, key: &str) -> Result<Option<Vec<u8>>, MoverError> {
        let unreadable = |error: std::io::Error| invalid(format!("{} cannot be read: {error}", given(key)));
        let file = match File::open(self.0.join(key)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let mut content = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut content).map_err(unreadable)?;
        if content.len() as u64 > MAX_FILE {
            return Err(invalid(format!("{} is larger than {MAX_FILE} bytes", given(key))));
        }
        Ok(Some(content))
    }

    /// The path of a file, if it is there.
    pub fn existing_path(&self, key: &str) -> Option<PathBuf> {
        let path = self.0.join(key);
        path.is_file().then_some(path)
    }

    /// The keys that a store needs.
    pub fn store_keys(&self, location: &ObjectStoreLocation) -> Result<StoreKeys, MoverError> {
        StoreKeys::find(location, |name| self.text(name))
    }

    /// The repository's password, as restic reads it.
    pub fn password(&self) -> Result<String, MoverError> {
        self.text(RESTIC_PASSWORD)?
            .ok_or_else(|| invalid(format!("the Job's Secret has no key {RESTIC_PASSWORD}, or an empty one")))
    }

    /// Values that must never appear in a message or a log line.
    pub fn secrets(&self) -> Vec<String> {
        let keys = StoreKeys::secret_names().chain([RESTIC_PASSWORD]);
        let mut secrets: Vec<String> = keys.filter_map(|key| self.text(key).ok().flatten()).collect();
        let clouds = self.optional(CLOUDS_YAML).ok().flatten().unwrap_or_default();
        secrets.extend(yaml_secrets(&String::from_utf8_lossy(&clouds)));
        // Short values would tear holes into ordinary words.
        secrets.retain(|secret| secret.len() >= 6);
        secrets
    }

    /// A one-line value without the newline that editors add.
    fn text(&self, key: &str) -> Result<Option<String>, MoverError> {
        let Some(content) = self.optional(key)? else { return Ok(None) };
        let text = String::from_utf8(content).map_err(|_| invalid(format!("{} is no text", given(key))))?;
        let text = text.trim();
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }
}

/// Values of `password`, `application_credential_secret` and the like, found line by line: good enough to mask.
fn yaml_secrets(yaml: &str) -> impl Iterator<Item = String> {
    let secret =
        |name: &str| ["password", "secret", "token", "passcode"].iter().any(|word| name.ends_with(word));
    yaml.split(['\n', ',', '{', '}']).filter_map(move |line| {
        let (name, value) = line.split_once(':')?;
        let name = name.trim().trim_matches(['"', '\'']).to_ascii_lowercase();
        secret(&name).then(|| value.trim().trim_matches(['"', '\'']).to_owned())
    })
}

/// Replaces every secret in a text.
pub fn mask(text: &str, secrets: &[String]) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"))
}

/// What a person calls a key: under this name it stands in the Secret of the cloud or of the store.
fn given(key: &str) -> &str {
    match key {
        CLOUD_CACERT => "cacert of the cloud's Secret",
        STORE_CACERT => "cacert of the store's Secret",
        key => key,
    }
}

fn invalid(message: String) -> MoverError {
    MoverError::terminal(FailureReason::InvalidConfiguration, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_masks() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| std::fs::write(directory.path().join(name), content).unwrap();
        let config = ConfigDir::new(directory.path());
        let location = ObjectStoreLocation::parse("s3:https://h/b").unwrap();
        assert_eq!(config.store_keys(&location).unwrap_err().reason, FailureReason::InvalidConfiguration);
        write("AWS_ACCESS_KEY_ID", "id\n");
        write("AWS_SECRET_ACCESS_KEY", "very-secret\n");
        write("restic-password", "pass-word");
        write("clouds.yaml", "clouds: {a: {auth: {password: 'hunter22', username: someone}}}");
        let keys = config.store_keys(&location).unwrap();
        assert_eq!((keys.get("AWS_ACCESS_KEY_ID"), keys.get("AWS_SESSION_TOKEN")), (Some("id"), None));
        assert_eq!(config.password().unwrap(), "pass-word");
        let masked = mask("a very-secret pass-word hunter22 someone", &config.secrets());
        assert_eq!(masked, "a *** *** *** someone");
        assert!(config.required("nothing").is_err());
    }
}
