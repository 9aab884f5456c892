//! The object store: write, read, list and delete under one prefix.
//!
//! Requests are signed by `rusty-s3` and sent by our own HTTP client, so that the endpoint policy, the CA and
//! "no redirects" hold for every byte. Keys are always relative to the location's prefix: nothing here can
//! name an object outside of it.

mod client;
mod error;
mod location;
mod policy;

pub(crate) use client::PROBE_PREFIX;
pub use client::{ProbeTimes, Store, StoreKeys, StoreOptions};
pub use error::StoreError;
pub use location::{LocationError, ObjectStoreLocation};
pub(crate) use policy::policy_resolver;
pub use policy::{AddressCheck, RefusedAddress, address_check};
