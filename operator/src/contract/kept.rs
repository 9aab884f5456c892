//! What stays in a store after a removal, as a mover tells it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a store did not let go of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// How many objects or versions.
    pub objects: u64,
    /// Until when, as far as the store says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Why, and what can be done.
    pub message: String,
}
