//! What every connection to the outside obeys: which addresses may be used, checked again at each name resolution.

mod address;
mod endpoint;

pub use address::{AddressCheck, RefusedAddress, address_check, policy_resolver};
pub use endpoint::{EndpointPolicy, EndpointRefused, GuardedResolver};
