//! Takes secrets out of what is handed on: by name where a document has names, by shape everywhere. It is a net, no
//! wall: what is known to hold secrets is left out altogether.

use regex::Regex;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// What stands in a secret's place.
const MASK: &str = "(masked)";

/// Shapes of secrets and what is put there.
static SHAPES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let shapes = [
        (r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(-----END [A-Z ]*PRIVATE KEY-----|\z)", "(masked)"),
        (r"://[^/\s:@]*:[^/\s@]+@", "://(masked)@"),
        (r"(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{8,}", "$1 (masked)"),
        (
            r#"(?i)([\w.-]*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key)[\w.-]*\\?["']?\s*[:=]\s*\\?["']?)([^\s"',}\\]+)"#,
            "${1}(masked)",
        ),
        // Tokens of Keystone, JSON web tokens, keys of S3.
        (r"gAAAA[A-Za-z0-9_-]{20,}=*", "(masked)"),
        (r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*", "(masked)"),
        (r"\b(AKIA|ASIA)[0-9A-Z]{16}\b", "(masked)"),
    ];
    shapes.iter().filter_map(|(shape, mask)| Some((Regex::new(shape).ok()?, *mask))).collect()
});

/// A text without what looks like a secret.
pub fn text(text: &str) -> String {
    SHAPES.iter().fold(text.to_string(), |text, (shape, mask)| shape.replace_all(&text, *mask).into_owned())
}

/// An object without what is or looks like a secret: no scripts, no output of hooks, nothing that was applied before.
pub fn object(value: &mut Value) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        for (key, note) in
            metadata.get_mut("annotations").and_then(Value::as_object_mut).into_iter().flatten()
        {
            if key.ends_with("last-applied-configuration") || key.starts_with("client-hooks.") {
                leave_out(note);
            }
        }
    }
    inside(value);
}

fn inside(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                match member {
                    Value::String(_) if holds_text_of_users(key) => leave_out(member),
                    Value::String(secret) if is_secret(key) => *secret = MASK.into(),
                    other => inside(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(inside),
        Value::String(s) => *s = text(s),
        _ => {}
    }
}

/// Scripts and what they print.
fn holds_text_of_users(key: &str) -> bool {
    matches!(key, "script" | "output")
}

/// A member whose name says that it is a secret, and not where one is.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let secret = [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "apikey",
        "api_key",
        "privatekey",
        "private_key",
    ];
    secret.iter().any(|s| key.contains(s)) && !key.ends_with("name") && !key.ends_with("ref")
}

fn leave_out(value: &mut Value) {
    let length = value.as_str().map_or(0, str::len);
    *value = json!(format!("(left out: {length} bytes)"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_a_regular_expression() {
        assert_eq!(SHAPES.len(), 7);
    }

    #[test]
    fn what_looks_like_a_secret_is_masked() {
        for (found, wanted) in [
            ("password=hunter2 x", "password=(masked) x"),
            ("\"OS_PASSWORD\": \"hunter2\", a", "\"OS_PASSWORD\": \"(masked)\", a"),
            ("{\\\"auth_token\\\":\\\"hunter2\\\"}", "{\\\"auth_token\\\":\\\"(masked)\\\"}"),
            ("AWS_SECRET_ACCESS_KEY: hunter2", "AWS_SECRET_ACCESS_KEY: (masked)"),
            ("X-Auth-Token: hunter2", "X-Auth-Token: (masked)"),
            ("https://me:hunter2@host/x", "https://(masked)@host/x"),
            ("Authorization: Bearer hunter2hunter2", "Authorization: Bearer (masked)"),
            ("a gAAAAABhunter2hunter2hunter2hunter2 b", "a (masked) b"),
            ("k AKIAIOSFODNN7EXAMPLE.", "k (masked)."),
            (
                "x -----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n-----END OPENSSH PRIVATE KEY----- y",
                "x (masked) y",
            ),
        ] {
            assert_eq!(text(found), wanted);
        }
    }

    #[test]
    fn what_helps_stays() {
        for plain in [
            "web-1 runs in site-b at 10.231.12.110, proven",
            "req-8f0a: no valid host",
            "s3:https://host:9000/bucket/prefix",
            "2026-08-29T20:00:00Z",
        ] {
            assert_eq!(text(plain), plain);
        }
    }

    #[test]
    fn objects_lose_scripts_outputs_and_secrets() {
        let mut value = json!({
            "metadata": {"name": "web", "managedFields": [1], "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": "hunter2",
                "client-hooks.vmmigration.io/x": "hunter2"}},
            "spec": {"credentialsRef": {"secretName": "site-a"}, "credentialsSecretRef": {"name": "transfer"},
                "hooks": [{"job": {"script": "echo hunter2", "image": "i"}}],
                "destination": {"metadata": {"db_password": "hunter2", "app": "shop"}}},
            "status": {"hooks": [{"output": "hunter2"}], "message": "https://me:hunter2@host failed"},
        });
        object(&mut value);
        let text = value.to_string();
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(value["spec"]["credentialsRef"]["secretName"], "site-a");
        assert_eq!(value["spec"]["destination"]["metadata"]["app"], "shop");
        assert_eq!(value["spec"]["hooks"][0]["job"]["script"], "(left out: 12 bytes)");
        assert_eq!(value["metadata"].get("managedFields"), None);
    }
}
