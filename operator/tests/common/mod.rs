//! Shared by tests that read YAML files of the repository.

use std::path::PathBuf;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The repository's root.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The document as a `T`. A field that is lost on the way does not exist, or is at a wrong place: that is an error.
pub fn typed<T: DeserializeOwned + Serialize>(document: &Value, origin: &str) -> T {
    let object: T =
        serde_json::from_value(document.clone()).unwrap_or_else(|e| panic!("{origin}: {e}: {document:#}"));
    if let Some(field) = lost(document, &serde_json::to_value(&object).unwrap(), "") {
        panic!("{origin}: there is no field {field}: {document:#}");
    }
    object
}

/// The first field of `given` that `read` does not have.
fn lost(given: &Value, read: &Value, at: &str) -> Option<String> {
    match (given, read) {
        (Value::Object(given), Value::Object(read)) => given.iter().find_map(|(key, value)| {
            let at = format!("{at}.{key}");
            match read.get(key) {
                Some(read) => lost(value, read, &at),
                None if value.is_null() => None,
                None => Some(at),
            }
        }),
        (Value::Array(given), Value::Array(read)) => {
            given.iter().zip(read).find_map(|(value, read)| lost(value, read, &format!("{at}[]")))
        }
        _ => None,
    }
}
