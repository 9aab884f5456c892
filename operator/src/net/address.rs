//! Which addresses may be connected to: never this machine or the local link, after DNS too.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::endpoint::EndpointPolicy;

/// Says whether an address may be connected to; the text says why not.
pub type AddressCheck = Arc<dyn Fn(IpAddr) -> Result<(), String> + Send + Sync>;

/// An address that the policy forbids; found again at the end of the HTTP client's chain of causes.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct RefusedAddress(pub String);

/// The clouds' policy, for the store and the checks as well.
pub fn address_check(policy: EndpointPolicy) -> AddressCheck {
    Arc::new(move |address| policy.refusal(address).map_or(Ok(()), Err))
}

/// Resolves names for the HTTP client and refuses what the policy refuses, so that no second look-up can differ.
struct PolicyResolver(AddressCheck);

/// A resolver for an HTTP client that obeys the policy.
pub fn policy_resolver(check: AddressCheck) -> impl Resolve + 'static {
    PolicyResolver(check)
}

impl Resolve for PolicyResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let check = Arc::clone(&self.0);
        Box::pin(async move {
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            for address in &addresses {
                check(address.ip()).map_err(|why| RefusedAddress(format!("{}: {why}", name.as_str())))?;
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
