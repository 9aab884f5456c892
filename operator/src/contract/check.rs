//! Checks of an application, as the operator asks for them.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Unique within the list.
    pub name: String,
    /// How long it is asked; unset: as long as all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
    /// What is tried.
    #[serde(flatten)]
    pub kind: CheckKind,
}

/// What a check tries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CheckKind {
    /// A connection is accepted.
    Tcp {
        /// Name or address.
        address: String,
        /// Port.
        port: u16,
    },
    /// A GET is answered. Redirects are answers, and are not followed.
    Http {
        /// http or https; certificates are verified.
        url: String,
        /// The status that must come.
        #[serde(default = "status_ok")]
        status: u16,
        /// A text that must be in the first 256 KiB of the body.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        contains: Option<String>,
        /// A regular expression that must match somewhere in these.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pattern: Option<String>,
        /// A header that must come.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        header: Option<Header>,
    },
    /// A command in the guest ends with exit code 0.
    #[serde(rename_all = "camelCase")]
    Ssh {
        /// Who logs in.
        user: String,
        /// Name or address.
        address: String,
        /// Port.
        port: u16,
        /// The private key.
        key_file: PathBuf,
        /// Public host keys; one of them must be the server's.
        host_keys: Vec<String>,
        /// The command, for the guest's `sh`.
        command: String,
    },
}

/// A header that must come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// A regular expression that must match its value; unset: any value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
}

fn status_ok() -> u16 {
    200
}
