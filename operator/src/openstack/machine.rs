//! How clouds are reached from here: whom TLS trusts, and whether by a proxy. The operator's way is the strictest; what a
//! user's own file may say besides counts on that user's machine only.

use std::fmt;
use std::time::Duration;

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue};
use rustls::ClientConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use super::session::Timeouts;
use crate::net::{EndpointPolicy, GuardedResolver, Trust, certificates, trusting};

/// A machine that clouds are reached from. The default is the operator's.
#[derive(Clone)]
pub struct Machine {
    /// Certificates of clouds are verified.
    pub verify: bool,
    /// Certificate and key of the client, as PEM.
    pub identity: Option<Vec<u8>>,
    /// The proxies of the environment are used. A policy for addresses cannot see where they connect to.
    pub proxies: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Self { verify: true, identity: None, proxies: false }
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("verify", &self.verify)
            .field("identity", &self.identity.is_some())
            .field("proxies", &self.proxies)
            .finish()
    }
}

/// The two HTTP clients of a session.
pub(super) struct Clients {
    pub(super) control: reqwest::Client,
    /// For image bytes.
    pub(super) data: reqwest::Client,
}

impl Machine {
    /// Clients that trust the CA (PEM) besides the public ones; or what is not usable.
    pub(super) fn clients(
        &self,
        ca: Option<&[u8]>,
        policy: &EndpointPolicy,
        timeouts: Timeouts,
    ) -> Result<Clients, String> {
        let tls = self.tls(ca).map_err(|why| format!("TLS cannot be set up: {why}"))?;
        let client = |timeout| {
            self.client(tls.clone(), policy, timeout)
                .map_err(|_| "the HTTP client cannot be set up".to_string())
        };
        Ok(Clients { control: client(timeouts.control)?, data: client(timeouts.data)? })
    }

    fn client(
        &self,
        tls: ClientConfig,
        policy: &EndpointPolicy,
        timeout: Duration,
    ) -> reqwest::Result<reqwest::Client> {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("vmmigration/", env!("CARGO_PKG_VERSION")))
            // Services write the reason of a refusal as a web page unless asked otherwise.
            .default_headers(HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]))
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(GuardedResolver(policy.clone()))
            // Image bytes must arrive as they are, with their length.
            .no_gzip()
            .no_deflate()
            .connect_timeout(Duration::from_secs(15))
            // Less than what servers allow (Apache 5 s, HAProxy often 10 s): a request on a connection that is just
            // being closed is lost, and nobody knows whether it was carried out.
            .pool_idle_timeout(Duration::from_secs(4))
            .tcp_keepalive(Duration::from_secs(60))
            .timeout(timeout);
        if self.proxies { builder.build() } else { builder.no_proxy().build() }
    }

    fn tls(&self, ca: Option<&[u8]>) -> Result<ClientConfig, String> {
        let given = certificates(ca.unwrap_or_default())?;
        let trust = if self.verify { Trust::AlsoPublic } else { Trust::Anybody };
        let builder = trusting(trust, given)?;
        let Some(pem) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| "the client's key is no PEM key")?;
        builder.with_client_auth_cert(certificates(pem)?, key).map_err(|e| format!("the client's key: {e}"))
    }
}
