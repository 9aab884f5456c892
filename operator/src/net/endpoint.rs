//! Which network addresses a cloud's endpoints may have: checked on URLs and again at every name resolution.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use thiserror::Error;
use url::{Host, Url};

/// Addresses that endpoints of a cloud must not have. Tenants write `auth_url`, and a cloud writes its catalog:
/// without this, either could make the operator send requests to the node's metadata service or to the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// Loopback addresses are accepted: for tests, and for what a user names on the machine that it is for.
    pub allow_loopback: bool,
    /// Networks that the platform refuses, e.g. those of the cluster's pods and services.
    pub denied: Vec<IpNet>,
}

/// An endpoint that [`EndpointPolicy`] does not accept. It names the host, never the rest of the URL.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("endpoint {host} is refused: {reason}")]
pub struct EndpointRefused {
    /// Host name or address as in the URL.
    pub host: String,
    /// Why, in words.
    pub reason: String,
}

impl EndpointRefused {
    fn new(host: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { host: host.into(), reason: reason.into() }
    }
}

impl EndpointPolicy {
    /// Checks what can be told without a name server: scheme, absence of user information, literal addresses.
    /// Names are checked when they are resolved for a connection, so that a changed answer does not slip in.
    pub fn check_url(&self, url: &Url) -> Result<(), EndpointRefused> {
        let host = url.host_str().unwrap_or_default().to_string();
        if !matches!(url.scheme(), "http" | "https") {
            return Err(EndpointRefused::new(host, "only http and https are accepted"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EndpointRefused::new(host, "a URL must not contain a user or password"));
        }
        let refused = match url.host() {
            Some(Host::Ipv4(ip)) => self.refusal(IpAddr::V4(ip)),
            Some(Host::Ipv6(ip)) => self.refusal(IpAddr::V6(ip)),
            Some(Host::Domain(_)) => None,
            None => Some("it has no host".to_string()),
        };
        refused.map_or(Ok(()), |reason| Err(EndpointRefused::new(host, reason)))
    }

    /// Why this address is refused, or `None` when it is fine.
    pub fn refusal(&self, address: IpAddr) -> Option<String> {
        let ip = effective(address);
        if ip.is_loopback() {
            return (!self.allow_loopback).then(|| format!("{ip} is a loopback address"));
        }
        if is_link_local(ip) {
            return Some(format!("{ip} is a link-local address"));
        }
        if is_unspecified(ip) || ip.is_multicast() {
            return Some(format!("{ip} is not the address of one host"));
        }
        let net = self.denied.iter().find(|net| net.contains(&ip) || net.contains(&address))?;
        Some(format!("{ip} is in {net}, which the platform refuses"))
    }

    fn accept(&self, host: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, EndpointRefused> {
        // One refused address refuses the name: a mix of good and bad answers is an attack, not a service.
        match found.iter().find_map(|a| self.refusal(a.ip())) {
            Some(reason) => Err(EndpointRefused::new(host, reason)),
            None => Ok(found),
        }
    }
}

/// The IPv4 address inside an IPv4-mapped or NAT64 (`64:ff9b::/96`, RFC 6052) one, which is where packets go.
fn effective(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    if let [0x64, 0xff9b, 0, 0, 0, 0, high, low] = v6.segments() {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        return IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    }
    ip.to_canonical()
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        // fd00:ec2::254 is the metadata service of some providers over IPv6.
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local() || v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
        }
    }
}

fn is_unspecified(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified(),
    }
}

/// Name resolution of the HTTP clients: the system's, minus what the policy refuses. The check sits where the
/// connection takes its address from, so a name that answers differently the second time gains nothing.
#[derive(Clone, Debug)]
pub struct GuardedResolver(pub EndpointPolicy);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let accepted = policy.accept(name.as_str(), found)?;
            Ok(Box::new(accepted.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_a_cloud() {
        let policy = EndpointPolicy { allow_loopback: false, denied: vec!["10.96.0.0/12".parse().unwrap()] };
        let cases = [
            ("https://cloud.example:5000/v3", true),
            ("http://192.0.2.7/identity", true),
            ("http://127.0.0.1:5000", false),
            ("http://127.8.8.8", false),
            ("http://2130706433/", false), // 127.0.0.1 written as one number
            ("http://[::1]:5000", false),
            ("http://[::ffff:127.0.0.1]", false),
            ("http://169.254.169.254/latest", false),
            ("http://[::ffff:169.254.169.254]", false),
            ("http://[64:ff9b::a9fe:a9fe]", false),
            ("http://[fe80::1]", false),
            ("http://[fd00:ec2::254]", false),
            ("http://0.0.0.0", false),
            ("http://[::]", false),
            ("http://10.97.3.4", false),
            ("http://10.95.3.4", true),
            ("http://[::ffff:10.97.3.4]", false),
            ("file:///etc/passwd", false),
            ("https://user:pw@cloud.example", false),
        ];
        for (url, accepted) in cases {
            let checked = policy.check_url(&Url::parse(url).unwrap());
            assert_eq!(checked.is_ok(), accepted, "{url}: {checked:?}");
        }
    }

    #[test]
    fn loopback_is_for_tests_and_one_bad_address_spoils_a_name() {
        let tests = EndpointPolicy { allow_loopback: true, denied: vec![] };
        assert_eq!(tests.refusal("127.0.0.1".parse().unwrap()), None);
        assert!(tests.refusal("169.254.169.254".parse().unwrap()).is_some());
        let mixed = vec!["192.0.2.1:0".parse().unwrap(), "169.254.169.254:0".parse().unwrap()];
        let refused = tests.accept("rebind.example", mixed).unwrap_err();
        assert_eq!(refused.host, "rebind.example");
    }

    #[tokio::test]
    async fn names_are_checked_at_resolution() {
        let client = reqwest::Client::builder()
            .no_proxy()
            .dns_resolver(GuardedResolver(EndpointPolicy::default()))
            .build()
            .unwrap();
        let error = client.get("http://localhost:9/").send().await.unwrap_err();
        assert!(format!("{error:?}").contains("loopback"), "{error:?}");
    }
}
