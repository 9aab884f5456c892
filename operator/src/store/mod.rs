//! The object store: write, read, list and delete under one prefix.
//!
//! Three kinds: S3, restic's REST protocol, Swift. All are spoken to by our own HTTP client, so that the endpoint
//! policy, the CA and "no redirects" hold for every byte. Keys are always relative to the location's prefix: nothing
//! here can name an object outside of it.

#[doc(hidden)]
pub mod answers;
mod client;
mod clock;
mod error;
mod http;
mod keys;
mod location;
mod removal;
mod rest;
mod s3;
mod s3_answers;
mod stored;
mod swift;
mod xml;

pub use client::{Probed, Store};
pub use error::{StoreError, says_full, shown};
pub use http::StoreOptions;
pub use keys::StoreKeys;
pub use location::{LocationError, ObjectStoreLocation};
pub use stored::{Removed, Stored};
