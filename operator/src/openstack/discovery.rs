//! Finds the services of a cloud: catalog, endpoint policy, version documents.

use std::collections::HashMap;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, StatusCode};
use openstack_sdk::config::CloudConfig;
use openstack_sdk::types::ServiceType;
use openstack_sdk_auth_core::AuthToken;
use openstack_sdk_auth_core::types::ServiceEndpoints;
use openstack_sdk_core::catalog::{Catalog, CatalogError, ServiceEndpoint};
use url::Url;

use super::bounded::{self, TooLong};
use super::entry::OVERRIDE;
use super::error::{CloudError, ErrorKind};
use super::session::project;
use crate::net::{EndpointPolicy, EndpointRefused};

/// Services that every migration needs, with the major version of the API that the calls are written for.
pub(super) const SERVICES: [(ServiceType, u8); 4] = [
    (ServiceType::Compute, 2),
    (ServiceType::BlockStorage, 3),
    (ServiceType::Image, 2),
    (ServiceType::Network, 2),
];

/// Looks up endpoints in the token's catalog and asks each service for its versions.
pub(super) struct Finder<'a> {
    pub(super) name: &'a str,
    pub(super) policy: &'a EndpointPolicy,
    pub(super) config: &'a CloudConfig,
    /// Tried in this order.
    pub(super) interfaces: &'a [String],
    pub(super) client: &'a reqwest::Client,
    pub(super) auth: &'a AuthToken,
}

/// What the catalog led to.
pub(super) struct Found {
    /// The endpoints of all four services, by service type.
    pub(super) endpoints: HashMap<String, ServiceEndpoint>,
    /// The region that they are in, where the catalog names regions.
    pub(super) region: Option<String>,
    /// Addresses that the identity service has by the catalog: the public one of the region first.
    pub(super) identities: Vec<Url>,
}

impl Finder<'_> {
    /// All four services, or the first problem.
    pub(super) async fn all(&self) -> Result<Found, CloudError> {
        let catalog = self.catalog().map_err(|_| self.fail("read catalog", "the catalog is not usable"))?;
        let region = self.region(&catalog)?;
        let found = futures::future::try_join_all(
            SERVICES.iter().map(|(service, major)| self.discover(&catalog, service, *major)),
        )
        .await?;
        let endpoints = SERVICES.iter().map(|(service, _)| service.to_string()).zip(found).collect();
        Ok(Found { endpoints, identities: self.identities(region.as_deref()), region })
    }

    fn services(&self) -> Vec<ServiceEndpoints> {
        self.auth.auth_info.as_ref().and_then(|info| info.token.catalog.clone()).unwrap_or_default()
    }

    fn catalog(&self) -> Result<Catalog, CatalogError> {
        let mut catalog = Catalog::default();
        catalog.set_project_id(project(self.auth).and_then(|p| p.id));
        catalog.configure(self.config)?;
        catalog.process_catalog_endpoints(&self.services())?;
        Ok(catalog)
    }

    /// The region that was chosen, or the only one in which there are services that are needed. Nobody promises an
    /// order of the catalog: the first endpoint of each service could be of another region each.
    fn region(&self, catalog: &Catalog) -> Result<Option<String>, CloudError> {
        if let Some(chosen) = &self.config.region_name {
            return Ok(Some(chosen.clone()));
        }
        let needed = |region: &String| {
            let mut from_catalog = SERVICES.iter().filter(|(service, _)| !self.is_overridden(service));
            from_catalog.any(|(service, _)| self.listed(catalog, service, Some(region)).is_some())
        };
        let mut regions: Vec<String> = catalog.get_regions().into_iter().filter(needed).collect();
        if regions.len() > 1 {
            let message = format!("region_name is needed in clouds.yaml: there are {}", regions.join(", "));
            return Err(CloudError::local(self.name, "choose a region", ErrorKind::Ambiguous, message));
        }
        Ok(regions.pop())
    }

    fn is_overridden(&self, service: &ServiceType) -> bool {
        let key = format!("{}{OVERRIDE}", service.to_string().replace('-', "_"));
        self.config.options.contains_key(&key)
    }

    /// The service's endpoint and its interface, as the catalog lists them.
    fn listed<'c>(
        &self,
        catalog: &'c Catalog,
        service: &ServiceType,
        region: Option<&str>,
    ) -> Option<(&'c ServiceEndpoint, &str)> {
        let of =
            |interface| catalog.get_service_endpoint(service.to_string(), None, region, Some(interface)).ok();
        self.interfaces.iter().find_map(|interface| Some((of(interface)?, interface.as_str())))
    }

    fn identities(&self, region: Option<&str>) -> Vec<Url> {
        let all = self.services().into_iter().filter(|service| service.service_type == "identity");
        let mut all: Vec<_> = all.flat_map(|service| service.endpoints).collect();
        all.sort_by_key(|e| (e.interface != "public", e.region.as_deref() != region, e.url.clone()));
        all.iter().filter_map(|endpoint| Url::parse(&endpoint.url).ok()).collect()
    }

    fn fail(&self, action: &str, message: &str) -> CloudError {
        CloudError::local(self.name, action, ErrorKind::Unexpected, message)
    }

    /// Asks at the catalog's address and then one level up at a time, as many clouds list an address below the
    /// one that has the version document. What is found further up counts only if it is of the major version
    /// wanted: at the root of a shared host another service may answer.
    async fn discover(
        &self,
        catalog: &Catalog,
        service: &ServiceType,
        major: u8,
    ) -> Result<ServiceEndpoint, CloudError> {
        let action = format!("find the {service} service");
        let region = self.config.region_name.as_deref();
        let (listed, interface) = self.listed(catalog, service, region).ok_or_else(|| {
            let place = region.map(|r| format!(" in region {r}")).unwrap_or_default();
            let interfaces = self.interfaces.join(" or ");
            self.fail(&action, &format!("it is not in the catalog{place} with interface {interfaces}"))
        })?;
        let mut url = with_slash(listed.url());
        let mut refused = None;
        loop {
            match self.version_document(&action, &url).await {
                Ok(document) => {
                    let parsed =
                        catalog.parse_endpoint_discovery(service, &url, &document, region, Some(interface));
                    let candidates = parsed.map(|found| found.get_all().clone()).unwrap_or_default();
                    if let Some(endpoint) = choose_version(candidates, major) {
                        return Ok(endpoint);
                    }
                }
                Err(error) if error.is_transient() || error.kind == ErrorKind::Refused => return Err(error),
                // A credential with access rules may be refused here and accepted further up.
                Err(error) if error.kind == ErrorKind::Unauthorized => refused = Some(error),
                Err(_) => {}
            }
            match parent(&url) {
                Some(up) => url = up,
                None => {
                    let nothing = || self.fail(&action, &format!("no API of version {major} was found"));
                    return Err(refused.unwrap_or_else(nothing));
                }
            }
        }
    }

    /// The body at this address. 300 lists versions, too.
    async fn version_document(&self, action: &str, url: &Url) -> Result<Bytes, CloudError> {
        let refused =
            |e: EndpointRefused| CloudError::local(self.name, action, ErrorKind::Refused, e.to_string());
        self.policy.check_url(url).map_err(refused)?;
        let broken = |e: reqwest::Error| CloudError::from_reqwest(self.name, action, &e);
        let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
        self.auth.set_header(&mut headers).map_err(|_| self.fail(action, "the token is not usable"))?;
        let answer = self.client.get(url.clone()).headers(headers).send().await.map_err(broken)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = bounded::body(answer).await.map_err(broken)?;
        let body = body.map_err(|_| self.fail(action, &TooLong::message()))?;
        if status.is_success() || status == StatusCode::MULTIPLE_CHOICES {
            return Ok(body);
        }
        Err(CloudError::from_answer(self.name, action, status, &headers, &body))
    }
}

fn with_slash(url: &Url) -> Url {
    let mut url = url.clone();
    let path = format!("{}/", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url.set_query(None);
    url
}

fn parent(url: &Url) -> Option<Url> {
    let path = url.path().trim_end_matches('/');
    let (up, _) = path.rsplit_once('/')?;
    let mut url = url.clone();
    url.set_path(&format!("{up}/"));
    Some(url)
}

/// The newest endpoint of the major version. The entry for the document itself has version 0 and falls out.
fn choose_version(candidates: Vec<ServiceEndpoint>, major: u8) -> Option<ServiceEndpoint> {
    let of_major = candidates.into_iter().filter(|e| e.version().major == major);
    let mut chosen = of_major.max_by_key(|e| *e.version())?;
    // Nova and Cinder call their highest microversion `version`; the SDK looks for `max_version` only.
    if chosen.max_version().is_none() && chosen.min_version().is_some() {
        let highest = chosen.version().to_string();
        chosen.set_max_version(Some(highest));
    }
    Some(chosen)
}
