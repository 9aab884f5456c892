//! The proxy on the way to the cluster, chosen as kubectl does: `proxy-url` of the kubeconfig for everything, or else that
//! of the environment, except for what `NO_PROXY` lists. kube's own choice compares `NO_PROXY` with the proxy's address
//! in place of the cluster's.

use ipnet::IpNet;
use kube::config::Kubeconfig;
use std::net::IpAddr;

/// An address.
type Uri = http::Uri;

/// `proxy-url` of the cluster that the context is of.
pub fn own(file: &Kubeconfig, context: Option<&str>) -> Option<String> {
    let context = context.or(file.current_context.as_deref())?;
    let context = file.contexts.iter().find(|named| named.name == context)?.context.as_ref()?;
    let cluster = file.clusters.iter().find(|named| named.name == context.cluster)?.cluster.as_ref()?;
    cluster.proxy_url.clone().filter(|url| !url.is_empty())
}

/// The proxy for this server, or an error that names the setting.
pub fn choose(
    server: &Uri,
    own: Option<&str>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<Uri>, String> {
    if let Some(own) = own {
        return parse("proxy-url", own).map(Some);
    }
    let first = |names: [&'static str; 2]| {
        names.into_iter().find_map(|name| Some((name, environment(name).filter(|value| !value.is_empty())?)))
    };
    let named = match server.scheme_str() {
        Some("http") => first(["HTTP_PROXY", "http_proxy"]),
        _ => first(["HTTPS_PROXY", "https_proxy"]),
    };
    let Some((name, proxy)) = named else { return Ok(None) };
    let excepted = first(["NO_PROXY", "no_proxy"]).map(|(_, list)| list).unwrap_or_default();
    if is_excepted(server, &excepted) {
        return Ok(None);
    }
    parse(name, &proxy).map(Some)
}

/// Without a scheme it is an HTTP proxy.
fn parse(setting: &str, text: &str) -> Result<Uri, String> {
    let known = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https" | "socks5"));
    let text = text.trim().replacen("socks5h://", "socks5://", 1);
    let as_written = text.parse::<Uri>().ok().filter(known);
    let completed = || format!("http://{text}").parse::<Uri>().ok();
    // Another scheme is no host with a port.
    as_written
        .or_else(|| completed().filter(|_| !text.contains("://")))
        .ok_or_else(|| format!("{setting} is no proxy: write http://, https:// or socks5://, host and port"))
}

/// What Go's clients reach without the proxy of the environment: this machine, and what the list says.
fn is_excepted(server: &Uri, list: &str) -> bool {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
    let port = server.port_u16().unwrap_or(if server.scheme_str() == Some("http") { 80 } else { 443 });
    let address: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || address.is_some_and(|ip| ip.to_canonical().is_loopback()) {
        return true;
    }
    list.to_ascii_lowercase().split(',').any(|item| covers(item.trim(), &host, address, port))
}

/// One item: `*`, a network, an address, or a domain with all below it (`.example` and `*.example`: only what is below);
/// the last two may have a port.
fn covers(item: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if item == "*" {
        return true;
    }
    if let Ok(network) = item.parse::<IpNet>() {
        return address.is_some_and(|ip| network.contains(&ip));
    }
    let (name, at) = match item.rsplit_once(':') {
        Some((name, at)) if !name.contains(':') || name.ends_with(']') => (name, Some(at)),
        _ => (item, None),
    };
    let name = name.trim_matches(['[', ']']);
    if name.is_empty() || at.is_some_and(|at| at.parse() != Ok(port)) {
        return false;
    }
    if let Ok(listed) = name.parse::<IpAddr>() {
        return address == Some(listed);
    }
    let below = name.strip_prefix("*.").or(name.strip_prefix('.'));
    let domain = below.unwrap_or(name);
    let is_below = host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    is_below || below.is_none() && host == domain
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn chosen(
        server: &str,
        own: Option<&str>,
        environment: &[(&str, &str)],
    ) -> Result<Option<String>, String> {
        let environment: BTreeMap<_, _> = environment.iter().copied().collect();
        let found =
            choose(&server.parse().unwrap(), own, |name| environment.get(name).map(|v| v.to_string()));
        found.map(|uri| uri.map(|uri| uri.to_string()))
    }

    #[test]
    fn the_cluster_is_reached_as_kubectl_reaches_it() {
        let squid = ("HTTPS_PROXY", "http://squid.example:3128");
        let (proxied, directly) = (Some("http://squid.example:3128/"), None);
        for (server, list, expected) in [
            // The report: a workstation with a proxy for the internet, and the cluster excepted.
            ("https://127.0.0.1:6443", "127.0.0.1,.example", directly),
            ("https://kube.example:6443", "127.0.0.1,.example", directly),
            ("https://kube.example.net:6443", "127.0.0.1,.example", proxied),
            ("https://kube.example:6443", "", proxied),
            // The proxy's own name does not count.
            ("https://kube.example.net", "squid.example", proxied),
            // This machine.
            ("https://localhost:6443", "", directly),
            ("https://127.9.9.9:6443", "", directly),
            ("https://[::1]:6443", "", directly),
            // What an item may be.
            ("https://kube.example:6443", "*", directly),
            ("https://kube.example:6443", "kube.example", directly),
            ("https://kube.example:6443", "KUBE.example ", directly),
            ("https://api.kube.example:6443", "kube.example", directly),
            ("https://notkube.example:6443", "kube.example", proxied),
            ("https://kube.example:6443", ".kube.example", proxied),
            ("https://kube.example:6443", "*.kube.example", proxied),
            ("https://api.kube.example:6443", "*.kube.example", directly),
            ("https://kube.example:6443", "kube.example:6443", directly),
            ("https://kube.example:6443", "kube.example:443", proxied),
            ("https://kube.example", "kube.example:443", directly),
            ("https://192.0.2.7:6443", "192.0.2.0/24", directly),
            ("https://192.0.2.7:6443", "192.0.2.7", directly),
            ("https://192.0.2.7:6443", "192.0.2.7:443", proxied),
            ("https://192.0.2.7:6443", "192.0.2.8", proxied),
            ("https://[2001:db8::7]:6443", "2001:db8::/32", directly),
            ("https://[2001:db8::7]:6443", "[2001:db8::7]:6443", directly),
            ("https://[2001:db8::7]:6443", "2001:db8::7", directly),
            ("https://kube.example:6443", ",,a.test,", proxied),
        ] {
            let found = chosen(server, None, &[squid, ("NO_PROXY", list)]).unwrap();
            assert_eq!(found.as_deref(), expected, "{server} with NO_PROXY={list}");
        }
    }

    #[test]
    fn the_setting_that_counts() {
        let server = "https://kube.example:6443";
        let (upper, lower) = (("HTTPS_PROXY", "squid.example:3128"), ("https_proxy", "http://other:1"));
        let all = ("NO_PROXY", "*");
        for (own, environment, expected) in [
            (None, &[][..], None),
            (None, &[("HTTPS_PROXY", "")], None),
            (None, &[("HTTP_PROXY", "http://other:1"), ("ALL_PROXY", "http://other:1")], None),
            (None, &[upper, lower], Some("http://squid.example:3128/")),
            (None, &[lower], Some("http://other:1/")),
            (None, &[lower, ("no_proxy", "kube.example")], None),
            (None, &[("HTTPS_PROXY", "socks5h://other:1080")], Some("socks5://other:1080/")),
            (None, &[("HTTPS_PROXY", "http://u:p@other:1")], Some("http://u:p@other:1/")),
            // That of the kubeconfig is for everything.
            (Some("socks5://jump:1080"), &[upper, all], Some("socks5://jump:1080/")),
        ] {
            assert_eq!(
                chosen(server, own, environment).unwrap().as_deref(),
                expected,
                "{own:?} {environment:?}"
            );
        }
        let plain = [("HTTP_PROXY", "http://other:1"), upper];
        assert_eq!(chosen("http://kube.example", None, &plain).unwrap().as_deref(), Some("http://other:1/"));
        assert!(chosen(server, Some("ftp://x"), &[]).unwrap_err().starts_with("proxy-url "));
        assert!(chosen(server, None, &[("HTTPS_PROXY", "http://")]).unwrap_err().starts_with("HTTPS_PROXY "));
    }

    #[test]
    fn the_proxy_of_a_kubeconfig_is_its_clusters() {
        let file: Kubeconfig = serde_json::from_value(serde_json::json!({
            "current-context": "a",
            "contexts": [{"name": "a", "context": {"cluster": "one", "user": "u"}},
                {"name": "b", "context": {"cluster": "two", "user": "u"}}],
            "clusters": [{"name": "one", "cluster": {"server": "https://one"}},
                {"name": "two", "cluster": {"server": "https://two", "proxy-url": "socks5://jump:1080"}}],
        }))
        .unwrap();
        assert_eq!(own(&file, None), None);
        assert_eq!(own(&file, Some("b")).as_deref(), Some("socks5://jump:1080"));
        assert_eq!(own(&file, Some("c")), None);
    }
}
