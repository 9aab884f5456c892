//! What operator and mover must agree on. Plain types and rules: neither side's clients, no clock.

mod host_keys;
mod image_checks;
mod kept;
mod pattern;
mod snapshot_id;

pub use host_keys::{host_key, host_keys_from_console};
pub use image_checks::ImageChecks;
pub use kept::Kept;
pub use pattern::pattern;
pub use snapshot_id::SnapshotId;
