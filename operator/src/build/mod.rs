//! What is wanted, as values: requests to clouds, Kubernetes objects. No client, no clock, no randomness.

pub mod cloud;
pub mod hook;
pub mod job;
pub mod report;
pub mod secret;
pub mod volume;
