//! What lies in a store, down to the versions that it keeps, and what stays there after a removal.

use jiff::Timestamp;

use crate::contract::Kept;

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

impl Stored {
    /// An object of which nothing but its key is known, or matters.
    pub fn plain(key: impl Into<String>) -> Self {
        Self { key: key.into(), version: None, written: None }
    }
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
