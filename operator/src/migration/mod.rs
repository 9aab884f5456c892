//! The pure core: what is known of a migration, and what to do next. No client, no clock, no randomness.

pub mod block_storage;
pub mod bodies;
pub mod checks;
pub mod decide;
pub mod guest;
pub mod hook_context;
pub mod image_checks;
pub mod looks;
pub mod names;
pub mod observed;
pub mod place;
pub mod preflight;
pub mod present;
pub mod report;
pub mod step;
