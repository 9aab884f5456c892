//! How all stores are spoken to: no redirects, one CA, the endpoint policy, bounded answers, no secret in a message.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, RequestBuilder, Response, redirect};
use rustls::ClientConfig;
use url::{Host, Url};

use super::{
    clock::Ahead,
    error::{StoreError, shown},
};
use crate::net::{AddressCheck, Trust, certificates, policy_resolver, trusting};

/// Answers to our own small calls are never larger.
pub(super) const MAX_ANSWER: usize = 8 << 20;

/// What a client needs besides location and keys.
#[derive(Clone)]
pub struct StoreOptions {
    /// The store's CA (PEM). When given, no other CA is trusted, as with restic's `--cacert`.
    pub ca_pem: Option<Vec<u8>>,
    /// Which addresses may be connected to.
    pub address_check: AddressCheck,
    /// For one whole request.
    pub timeout: Duration,
}

impl StoreOptions {
    /// The usual timeout with the given policy and no CA of its own.
    pub fn new(address_check: AddressCheck) -> Self {
        Self { ca_pem: None, address_check, timeout: Duration::from_secs(60) }
    }
}

/// A client for one store.
pub(super) fn client(endpoint: &Url, options: &StoreOptions) -> Result<Client, StoreError> {
    refuse_literal(endpoint, &options.address_check)?;
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .https_only(endpoint.scheme() == "https")
        .connect_timeout(Duration::from_secs(10))
        .timeout(options.timeout)
        .dns_resolver(policy_resolver(options.address_check.clone()));
    if let Some(pem) = &options.ca_pem {
        builder = builder.tls_backend_preconfigured(only(pem).map_err(StoreError::Invalid)?);
    }
    builder.build().map_err(|error| StoreError::Invalid(error.to_string()))
}

/// A TLS configuration that trusts the CA of the credentials Secret and no other.
fn only(pem: &[u8]) -> Result<ClientConfig, String> {
    let invalid = |error| format!("cacert of the credentials Secret is no PEM certificate: {error}");
    let given = certificates(pem).map_err(invalid)?;
    if given.is_empty() {
        return Err("cacert of the credentials Secret holds no certificate".to_owned());
    }
    Ok(trusting(Trust::OnlyGiven, given).map_err(invalid)?.with_no_client_auth())
}

/// Addresses in the URL itself never pass the resolver, so they are looked at here.
pub(super) fn refuse_literal(endpoint: &Url, check: &AddressCheck) -> Result<(), StoreError> {
    let ip = match endpoint.host() {
        Some(Host::Ipv4(ip)) => ip.into(),
        Some(Host::Ipv6(ip)) => ip.into(),
        _ => return Ok(()),
    };
    check(ip).map_err(|cause| StoreError::EndpointRefused { what: endpoint.to_string(), cause })
}

/// Sends a request; anything but success is an error.
pub(super) async fn send(what: &str, request: RequestBuilder) -> Result<Response, StoreError> {
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) => return Err(StoreError::from_client(what.to_owned(), error)),
    };
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let ahead = Ahead::of(response.headers());
    let body = bounded_body(response, 64 << 10, what).await.unwrap_or_default();
    Err(StoreError::from_answer(what.to_owned(), status, ahead, &String::from_utf8_lossy(&body)))
}

/// The body of an answer, if it is no larger than `limit`.
pub(super) async fn bounded_body(
    mut response: Response,
    limit: usize,
    what: &str,
) -> Result<Bytes, StoreError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(body.into()),
            Ok(Some(chunk)) if body.len() + chunk.len() > limit => {
                return Err(refused(what, &format!("more than {limit} bytes were answered")));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Err(error) => return Err(StoreError::from_client(what.to_owned(), error)),
        }
    }
}

/// An answer that makes no sense.
pub fn refused(what: &str, answer: &str) -> StoreError {
    StoreError::Refused { what: what.to_owned(), answer: shown(answer) }
}
