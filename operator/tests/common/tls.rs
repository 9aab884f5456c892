//! TLS in front of a server on loopback, by a certificate that openssl makes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;

/// The address of a TLS server, and the certificate that vouches for it.
pub struct Tls {
    pub address: String,
    pub certificate: String,
}

/// Puts TLS in front of a server, by a self-signed certificate that openssl makes with these options.
pub async fn behind_tls(behind: SocketAddr, options: &str) -> Tls {
    let folder = tempfile::tempdir().unwrap();
    let (key, certificate) = (folder.path().join("key"), folder.path().join("certificate"));
    let made = format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=keystone {options}"
    );
    let mut openssl = Command::new("openssl");
    openssl.args(made.split_whitespace()).arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    assert!(openssl.output().await.unwrap().status.success());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let acceptor = acceptor(&certificate, &key);
    tokio::spawn(async move {
        loop {
            let (outer, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Who does not trust the certificate goes away.
                let Ok(mut outer) = acceptor.accept(outer).await else { return };
                let mut inner = TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
            });
        }
    });
    Tls { address, certificate: std::fs::read_to_string(certificate).unwrap() }
}

fn acceptor(certificate: &Path, key: &Path) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
    let config =
        config.with_no_client_auth().with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap());
    TlsAcceptor::from(Arc::new(config.unwrap()))
}
