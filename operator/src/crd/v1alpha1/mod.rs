//! Version v1alpha1 of all resources.

mod object_store;
mod open_stack_cloud;
mod report;
mod status;
mod vm_migration;

pub use object_store::*;
pub use open_stack_cloud::*;
pub use report::*;
pub use status::*;
pub use vm_migration::*;
