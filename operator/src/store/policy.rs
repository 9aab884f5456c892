//! Which addresses the store may have: never this machine or the local link, after DNS too.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Says whether an address may be connected to; the text says why not.
pub type AddressCheck = Arc<dyn Fn(IpAddr) -> Result<(), String> + Send + Sync>;

/// An address that the policy forbids; found again at the end of the HTTP client's chain of causes.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct RefusedAddress(pub String);

/// The usual policy: no loopback (unless allowed), link-local, unspecified or multicast address, nothing in `denied`.
pub fn refuse_local(allow_loopback: bool, denied: Vec<IpNet>) -> AddressCheck {
    Arc::new(move |address| check(address.to_canonical(), allow_loopback, &denied))
}

fn check(address: IpAddr, allow_loopback: bool, denied: &[IpNet]) -> Result<(), String> {
    let link_local = match address {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let what = if address.is_loopback() && !allow_loopback {
        "a loopback address"
    } else if link_local {
        "a link-local address"
    } else if address.is_unspecified() || address.is_multicast() {
        "no address of a server"
    } else if denied.iter().any(|net| net.contains(&address)) {
        "in a network that the platform denies"
    } else {
        return Ok(());
    };
    Err(format!("address {address} is {what}"))
}

/// Resolves names for the HTTP client and refuses what the policy refuses, so that no second look-up can differ.
struct PolicyResolver(AddressCheck);

/// A resolver for an HTTP client that obeys the policy.
pub(crate) fn policy_resolver(check: AddressCheck) -> impl Resolve + 'static {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = refuse_local(false, vec!["10.9.0.0/16".parse().unwrap()]);
        for refused in [
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "10.9.1.1",
        ] {
            assert!(check(refused.parse().unwrap()).is_err(), "{refused}");
        }
        for taken in ["192.0.2.1", "10.8.0.1", "2001:db8::1"] {
            assert!(check(taken.parse().unwrap()).is_ok(), "{taken}");
        }
        assert!(refuse_local(true, Vec::new())("127.0.0.1".parse().unwrap()).is_ok());
    }
}
