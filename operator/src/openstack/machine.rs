//! How clouds are reached from here: whom TLS trusts, and whether by a proxy. The operator's way is the strictest; what a
//! user's own file may say besides counts on that user's machine only.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_platform_verifier::Verifier;

use super::session::Timeouts;
use crate::net::{EndpointPolicy, GuardedResolver};

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
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let given = certificates(ca.unwrap_or_default())?;
        let usual = self.verify.then(|| Verifier::new_with_extra_roots(given.clone(), provider.clone()));
        let usual = usual.transpose().map_err(|e| e.to_string())?;
        let verifier = Arc::new(Trusting { provider: provider.clone(), given, usual });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let Some(pem) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| "the client's key is no PEM key")?;
        builder.with_client_auth_cert(certificates(pem)?, key).map_err(|e| format!("the client's key: {e}"))
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| "a certificate is no PEM".into())
}

/// Trusts the public CAs and those that were given, and a server that presents a certificate that was given itself:
/// OpenSSL makes self-signed ones that may sign others, and rustls refuses such a one as a server's.
#[derive(Debug)]
struct Trusting {
    provider: Arc<CryptoProvider>,
    given: Vec<CertificateDer<'static>>,
    /// `None`: anybody is trusted, by `verify: false` of a user's own file.
    usual: Option<Verifier>,
}

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(usual) = &self.usual else { return Ok(ServerCertVerified::assertion()) };
        match usual.verify_server_cert(server, others, name, ocsp, now) {
            Err(error) if only_for_its_kind(&error) && self.given.iter().any(|given| given == server) => {
                verify_server_name(&ParsedCertificate::try_from(server)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        server: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, server, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        server: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, server, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The dates are judged before the kind, the name after it. rustls keeps the type of this error to itself.
fn only_for_its_kind(error: &Error) -> bool {
    matches!(error, Error::InvalidCertificate(_)) && format!("{error:?}").contains("CaUsedAsEndEntity")
}
