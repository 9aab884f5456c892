//! What every connection to the outside obeys: which addresses may be used, checked again at each name resolution, and
//! whom TLS trusts.

mod address;
mod endpoint;
mod tls;

pub use address::{AddressCheck, RefusedAddress, address_check, policy_resolver};
pub use endpoint::{EndpointPolicy, EndpointRefused, GuardedResolver};
pub use tls::{Trust, certificates, trusting};
