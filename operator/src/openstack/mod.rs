//! One cloud as a project member sees it: typed calls over openstack_sdk.
//!
//! What comes from the SDK: the `clouds.yaml` types, the authentication methods, the service catalog, version
//! discovery, addresses of requests and negotiation of microversions. What does not: the HTTP transport. The
//! SDK's `AsyncOpenStack` builds its own HTTP client, which follows redirects, resolves names anywhere, forgets
//! the discovered versions after a 401, and neither checks the status of a download nor lets it run for longer
//! than one timeout for everything. [`Cloud`] therefore implements the SDK's `AsyncClient` over a client of its
//! own, and every call is one short function that pins the lowest microversion with the fields it needs.
//!
//! ```no_run
//! # async fn example(yaml: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
//! use vmmigration::net::EndpointPolicy;
//! use vmmigration::openstack::{Cloud, Credentials, Timeouts};
//! let credentials = Credentials::parse(yaml, None, None)?;
//! let cloud = Cloud::connect(&credentials, &EndpointPolicy::default(), "site-a", Timeouts::default()).await?;
//! for server in cloud.find_servers("web-1").await? {
//!     println!("{} {}", server.id, server.status);
//! }
//! # Ok(())
//! # }
//! ```

mod auth;
mod bounded;
mod cluster_cloud;
mod compute;
mod credentials;
mod discovery;
mod endpoint;
mod entry;
mod error;
mod image;
mod machine;
mod network;
mod presence;
mod session;
mod volume;

pub use crate::cloud::*;
pub use cluster_cloud::ClusterCloud;
pub use credentials::{Credentials, CredentialsError};
pub use error::{CloudError, ErrorKind};
pub use image::ImageDownload;
pub use machine::Machine;
pub use session::{Cloud, Timeouts};
