//! Whom TLS trusts: public CAs, those that a user gave, and a server that presents a certificate that was given itself.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WantsClientCert, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;

/// Who is trusted besides the certificates that were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The CAs of this machine.
    AlsoPublic,
    /// Nobody, as with restic's `--cacert`.
    OnlyGiven,
    /// Anybody, by `verify: false` of a user's own file.
    Anybody,
}

/// The certificates of a PEM bundle; none in a text without any.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| "a certificate is no PEM".into())
}

/// The beginning of a TLS configuration that trusts these certificates, and whom `trust` says; or what is not usable.
pub fn trusting(
    trust: Trust,
    given: Vec<CertificateDer<'static>>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let usual = usual(trust, &given, &provider)?;
    let verifier = Arc::new(Trusting { provider: provider.clone(), given, usual });
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier))
}

fn usual(
    trust: Trust,
    given: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ServerCertVerifier>>, String> {
    Ok(match trust {
        Trust::Anybody => None,
        Trust::AlsoPublic => {
            let verifier = Verifier::new_with_extra_roots(given.to_vec(), provider.clone());
            Some(Arc::new(verifier.map_err(|e| e.to_string())?))
        }
        Trust::OnlyGiven => {
            let mut roots = RootCertStore::empty();
            for certificate in given {
                roots.add(certificate.clone()).map_err(|e| e.to_string())?;
            }
            let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            Some(builder.build().map_err(|e| e.to_string())?)
        }
    })
}

/// Judges as usual, and lets a server pass that presents a certificate that was given itself: OpenSSL makes self-signed
/// ones that may sign others, and rustls refuses such a one as a server's, while OpenSSL's and Go's programs accept it.
#[derive(Debug)]
struct Trusting {
    provider: Arc<CryptoProvider>,
    given: Vec<CertificateDer<'static>>,
    /// `None`: anybody is trusted.
    usual: Option<Arc<dyn ServerCertVerifier>>,
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
