//! One line of a mover's log about every two seconds: how far a copy is.

use serde::{Deserialize, Serialize};

/// One line of a mover's stdout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgressLine {
    /// How far it is.
    pub progress: Progress,
    /// What was said of the store since the last byte, while no byte moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_up: Option<String>,
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes done.
    pub bytes: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bytes a second over the last seconds.
    pub rate: u64,
}

impl ProgressLine {
    /// As it is printed.
    pub fn line(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// The newest one in the end of a log.
    pub fn newest(log: &str) -> Option<Self> {
        log.lines().rev().find_map(|line| serde_json::from_str(line).ok())
    }
}
