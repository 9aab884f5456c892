//! Kubernetes objects that are wanted, as values. No client, no clock, no randomness.

pub mod hook;
pub mod job;
pub mod secret;
pub mod volume;
