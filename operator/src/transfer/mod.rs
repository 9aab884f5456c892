//! What the two movers of a disk agree on, without any I/O: segments, digests, manifests and patches.

pub mod first_bytes;
pub mod layout;
pub mod manifest;
pub mod runs;
pub mod table;
pub mod tags;

pub use first_bytes::FIRST_BYTES;
pub use layout::{BLOCK, Layout};
pub use manifest::{Content, ImageHash, Manifest, Patch, Segment};
pub use runs::Runs;
pub use table::Table;
