//! Version v1alpha1 of all resources.

mod hook;
mod object_store;
mod open_stack_cloud;
mod period;
mod proof;
mod report;
mod status;
mod vm_migration;

pub use hook::*;
pub use object_store::*;
pub use open_stack_cloud::*;
pub use period::*;
pub use proof::*;
pub use report::*;
pub use status::*;
pub use vm_migration::*;
