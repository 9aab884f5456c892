//! What lies in a store, down to the versions that it keeps, and what stays there after a removal.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One object; where a store keeps versions, one of them, or the marker of a deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its key below the location's prefix.
    pub key: String,
    /// Its version's id.
    pub version: Option<String>,
    /// When it was written, where the listing says so.
    pub written: Option<Timestamp>,
}

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

/// How a removal ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many are gone.
    pub deleted: u64,
    /// What is not.
    pub kept: Option<Kept>,
}

impl Removed {
    /// Two parts of one removal.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let kept = match (self.kept, other.kept) {
            (Some(one), Some(other)) => Some(Kept {
                objects: one.objects + other.objects,
                until: one.until.max(other.until),
                message: one.message,
            }),
            (one, other) => one.or(other),
        };
        Self { deleted: self.deleted + other.deleted, kept }
    }
}
