//! Finds the services of a cloud: catalog, endpoint policy, version documents.

use std::collections::HashMap;

use bytes::Bytes;
use http::StatusCode;
use openstack_sdk::config::CloudConfig;
use openstack_sdk::types::{ApiVersion, ServiceType};
use openstack_sdk_auth_core::AuthToken;
use openstack_sdk_auth_core::types::ServiceEndpoints;
use openstack_sdk_core::catalog::{Catalog, CatalogError, ServiceEndpoint};
use serde_json::Value;
use url::Url;

use super::bounded::{self, TooLong};
use super::credentials::Credentials;
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
    pub(super) credentials: &'a Credentials,
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
        let overrides =
            self.credentials.overriding(&project(self.auth).and_then(|p| p.id).unwrap_or_default());
        let catalog = self.catalog(&overrides);
        let catalog = catalog.map_err(|_| self.fail("read catalog", "the catalog is not usable"))?;
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

    /// As the token has it, with the addresses that replace its own.
    fn catalog(&self, overrides: &CloudConfig) -> Result<Catalog, CatalogError> {
        let mut catalog = Catalog::default();
        catalog.set_project_id(project(self.auth).and_then(|p| p.id));
        catalog.configure(overrides)?;
        catalog.process_catalog_endpoints(&self.services())?;
        Ok(catalog)
    }

    /// The region that was chosen, or the only one in which there are services that are needed. Nobody promises an
    /// order of the catalog: the first endpoint of each service could be of another region each.
    fn region(&self, catalog: &Catalog) -> Result<Option<String>, CloudError> {
        if let Some(chosen) = self.credentials.region() {
            return Ok(Some(chosen.into()));
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
        self.credentials.overrides().contains(&override_key(service).as_str())
    }

    /// The service's endpoint, as the catalog lists it for the first interface that it has.
    fn listed<'c>(
        &self,
        catalog: &'c Catalog,
        service: &ServiceType,
        region: Option<&str>,
    ) -> Option<&'c ServiceEndpoint> {
        let of = |interface: &String| {
            catalog.get_service_endpoint(service.to_string(), None, region, Some(interface)).ok()
        };
        self.credentials.interfaces().iter().find_map(of)
    }

    /// The project's part of the service's address; one that replaces it may be without.
    fn project_segment(&self, listed: &ServiceEndpoint, service: &ServiceType) -> Option<String> {
        let own = listed.last_segment_with_project_id().clone();
        if own.is_some() || !self.is_overridden(service) {
            return own;
        }
        let catalog = self.catalog(&CloudConfig::default()).ok()?;
        let replaced = self.listed(&catalog, service, self.credentials.region())?;
        let same = replaced.version().major == listed.version().major;
        replaced.last_segment_with_project_id().clone().filter(|_| same)
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

    /// Why the catalog does not give this service: wrong region, wrong interface, or a cloud that has none.
    fn absent(&self, catalog: &Catalog, service: &ServiceType, action: &str) -> CloudError {
        let interfaces = self.credentials.interfaces().join(" or ");
        let place = self.credentials.region().map(|r| format!(" in region {r}")).unwrap_or_default();
        let regions: Vec<String> = catalog
            .get_regions()
            .into_iter()
            .filter(|region| self.listed(catalog, service, Some(region)).is_some())
            .collect();
        let everywhere = ["public", "internal", "admin"];
        let mut any = everywhere.into_iter().filter_map(|interface| {
            let region = self.credentials.region();
            catalog.get_service_endpoint(service.to_string(), None, region, Some(interface)).ok()?;
            Some(interface)
        });
        let instead = if !regions.is_empty() {
            format!("; there it is in region {}", regions.join(", "))
        } else if let Some(interface) = any.next() {
            format!("; there it is with interface {interface}")
        } else {
            format!("; the cloud seems to have no {}, which every migration needs", in_words(service))
        };
        self.fail(action, &format!("it is not in the catalog{place} with interface {interfaces}{instead}"))
    }

    /// The address is the catalog's, or below it; what a version document says of addresses is what the service
    /// believes behind its proxies. Where the catalog's address names the version, documents tell of microversions only,
    /// and one that cannot be had does not matter: a dashboard may answer there.
    ///
    /// Asks at the catalog's address and then one level up at a time, as many clouds list an address below the one that
    /// has the version document.
    async fn discover(
        &self,
        catalog: &Catalog,
        service: &ServiceType,
        major: u8,
    ) -> Result<ServiceEndpoint, CloudError> {
        let action = format!("find the {service} service");
        let listed = self
            .listed(catalog, service, self.credentials.region())
            .ok_or_else(|| self.absent(catalog, service, &action))?;
        let segment = self.project_segment(listed, service);
        let versioned = (listed.version().major == major).then(|| up_to_version(listed.url()));
        let mut url = with_slash(listed.url());
        let mut refused = None;
        loop {
            match self.version_document(&action, &url).await {
                Ok(document) => {
                    let wanted = versioned.as_ref().map(|_| *listed.version());
                    if let Some(mut version) = choose(&document, major, wanted) {
                        if has_microversions(service) {
                            let none = version.none();
                            version.microversions.get_or_insert(none);
                        }
                        let at = versioned.clone().unwrap_or_else(|| version.address(&url));
                        return Ok(version.endpoint(at, segment));
                    }
                }
                // At addresses that nobody knows, gateways answer whatever they like.
                Err(error) if matches!(error.status, Some(404 | 410)) => {}
                Err(error) if error.is_transient() || error.kind == ErrorKind::Refused => return Err(error),
                // A credential with access rules may be refused here and accepted further up.
                Err(error) if error.kind == ErrorKind::Unauthorized => refused = Some(error),
                Err(_) => {}
            }
            match (parent(&url), &versioned) {
                (Some(up), _) => url = up,
                (None, Some(at)) => return Ok(unknown(at, *listed.version(), segment)),
                (None, None) => {
                    let nothing = || {
                        let key = override_key(service);
                        self.fail(
                            &action,
                            &format!(
                                "no API of version {major} was found below the address in the catalog; {key} in clouds.yaml may name one"
                            ),
                        )
                    };
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
        let mut headers = http::HeaderMap::new();
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

fn override_key(service: &ServiceType) -> String {
    format!("{}{OVERRIDE}", service.to_string().replace('-', "_"))
}

fn has_microversions(service: &ServiceType) -> bool {
    matches!(service, ServiceType::Compute | ServiceType::BlockStorage)
}

fn in_words(service: &ServiceType) -> &'static str {
    match service {
        ServiceType::Compute => "compute service (Nova)",
        ServiceType::BlockStorage => "block storage (Cinder)",
        ServiceType::Image => "image service (Glance)",
        _ => "network service (Neutron)",
    }
}

/// One version of an API, as a version document tells of it.
#[derive(Debug, PartialEq)]
struct Version {
    id: ApiVersion,
    /// The name of the version in addresses, as its own link has it.
    segment: String,
    /// Lowest and highest microversion.
    microversions: Option<(String, String)>,
}

impl Version {
    /// One of the document's, if it can be read. `http://inner:8774/v2.1/` is the service's own belief; the path of the
    /// address that was asked counts, and of the link its last segment.
    fn read(value: &Value) -> Option<Self> {
        let text = |key: &str| value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let id = ApiVersion::from_apiver_str(text("id")?, true).ok()?;
        let links = value.get("links").and_then(Value::as_array).into_iter().flatten();
        let mut own = links.filter(|link| link.get("rel").and_then(Value::as_str) == Some("self"));
        let href = own.next().and_then(|link| link.get("href")).and_then(Value::as_str);
        let last = href.map(|href| href.trim_end_matches('/')).and_then(|href| href.rsplit('/').next());
        let segment = last.filter(|last| ApiVersion::from_apiver_str(last, true).is_ok());
        let segment = segment.map_or_else(|| format!("v{}", id.major), String::from);
        // Nova and Cinder call their highest microversion `version`, others `max_version`.
        let highest = text("max_version").or(text("version"));
        let microversions = text("min_version").zip(highest).map(|(low, high)| (low.into(), high.into()));
        Some(Self { id, segment, microversions })
    }

    /// Where this version is, told by a document at `asked`.
    fn address(&self, asked: &Url) -> Url {
        let named = asked.path().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        if ApiVersion::from_apiver_str(named, true).is_ok() {
            return asked.clone();
        }
        let mut at = asked.clone();
        at.set_path(&format!("{}{}/", asked.path(), self.segment));
        at
    }

    /// The microversions of a version that has none, such as Nova's v2: nothing that is newer can be asked for.
    fn none(&self) -> (String, String) {
        (self.id.to_string(), self.id.to_string())
    }

    fn endpoint(&self, at: Url, segment: Option<String>) -> ServiceEndpoint {
        let (low, high) = self.microversions.clone().unzip();
        let mut endpoint = ServiceEndpoint::new(at, self.id);
        endpoint.set_min_version(low).set_max_version(high).set_last_segment_with_project_id(segment);
        endpoint
    }
}

/// The catalog's own address, without anything said of microversions: the service says it when one is asked for that it
/// does not have (406).
fn unknown(at: &Url, version: ApiVersion, segment: Option<String>) -> ServiceEndpoint {
    let mut endpoint = ServiceEndpoint::new(at.clone(), version);
    endpoint.set_last_segment_with_project_id(segment);
    endpoint
}

/// The version to use: the catalog's, if that names one, or else the newest of the major one.
fn choose(document: &[u8], major: u8, wanted: Option<ApiVersion>) -> Option<Version> {
    let all = versions(document).into_iter().filter(|version| version.id.major == major);
    // At the root of a shared host another service may answer.
    let of_service = all.filter(|version| wanted.is_none_or(|wanted| is_of(version, wanted)));
    of_service.max_by_key(|version| version.id)
}

/// `v2` in an address is any 2.x of a service without microversions; `v2.1` is Nova's only.
fn is_of(version: &Version, wanted: ApiVersion) -> bool {
    version.id == wanted || wanted.minor == 0 && version.microversions.is_none()
}

/// All versions of a document: one (`version`), a list, or a list within `values`.
fn versions(document: &[u8]) -> Vec<Version> {
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    let one = document.get("version").into_iter();
    let list = document.get("versions").map(|all| all.get("values").unwrap_or(all));
    let list = list.and_then(Value::as_array).into_iter().flatten();
    one.chain(list).filter_map(Version::read).collect()
}

fn with_slash(url: &Url) -> Url {
    let mut url = url.clone();
    let path = format!("{}/", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url.set_query(None);
    url
}

/// The address with its path up to the version in it: the project's id may follow.
fn up_to_version(url: &Url) -> Url {
    let segments: Vec<&str> = url.path().split('/').filter(|segment| !segment.is_empty()).collect();
    let is_version = |segment: &&str| ApiVersion::from_apiver_str(segment, true).is_ok();
    let kept = segments.iter().rposition(is_version).and_then(|at| segments.get(..=at)).unwrap_or(&segments);
    let mut url = with_slash(url);
    url.set_path(&format!("/{}/", kept.join("/")));
    url
}

fn parent(url: &Url) -> Option<Url> {
    let path = url.path().trim_end_matches('/');
    let (up, _) = path.rsplit_once('/')?;
    let mut url = url.clone();
    url.set_path(&format!("{up}/"));
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(document: Value, wanted: Option<(u8, u8)>) -> Option<(String, Option<String>)> {
        let asked = Url::parse("https://api.example:8443/image/").unwrap();
        let version = choose(document.to_string().as_bytes(), 2, wanted.map(Into::into))?;
        let high = version.microversions.clone().map(|(_, high)| high);
        Some((version.address(&asked).into(), high))
    }

    fn version(id: &str, more: Value, href: &str) -> Value {
        let mut version = json!({"id": id, "status": "CURRENT", "links": [{"rel": "self", "href": href}]});
        version.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        version
    }

    #[test]
    fn a_document_tells_versions_and_no_host_port_or_prefix() {
        let at = |segment: &str| format!("https://api.example:8443/image/{segment}/");
        for href in [
            "http://glance.inner:9292/v2/",
            "http://glance.inner:9292/other/v2",
            "https://api.example/v2/",
            "/v2/",
            "v2",
            "http://bad:port:1/v2/",
            "",
        ] {
            let documents =
                [json!({"versions": [version("v2.16", json!({}), href), version("v2.0", json!({}), href)]})];
            for document in documents {
                assert_eq!(found(document, None), Some((at("v2"), None)), "{href}");
            }
        }
        let nova = json!({"versions": [version("v2.0", json!({"version": "", "min_version": ""}), "/v2/"),
            version("v2.1", json!({"version": "2.93", "min_version": "2.1"}), "http://inner:8774/v2.1/")]});
        assert_eq!(found(nova.clone(), None), Some((at("v2.1"), Some("2.93".into()))));
        assert_eq!(found(nova.clone(), Some((2, 1))).unwrap().1, Some("2.93".into()));
        assert_eq!(found(nova, Some((2, 0))).unwrap().1, None, "the version of the catalog's address counts");
        let values = json!({"versions": {"values": [version("v2.0", json!({}), "/v2.0/")]}});
        assert_eq!(found(values, None), Some((at("v2.0"), None)));
        // Another service's at the root of a shared host.
        let neutron = json!({"versions": [version("v2.0", json!({}), "/v2.0/")]});
        assert_eq!(found(neutron, Some((2, 1))), None);
        for nothing in [json!({}), json!([]), json!({"versions": "x"}), json!({"version": {"id": 2}})] {
            assert_eq!(found(nothing, None), None);
        }
        assert!(versions(b"<!doctype html>").is_empty());
    }

    #[test]
    fn the_version_in_an_address_ends_it() {
        for (listed, expected) in [
            ("https://a/compute/v2.1/0123", "https://a/compute/v2.1/"),
            ("https://a:8774/v2.1", "https://a:8774/v2.1/"),
            ("https://a/v3/AUTH_0123?x=1", "https://a/v3/"),
        ] {
            assert_eq!(up_to_version(&Url::parse(listed).unwrap()).as_str(), expected);
        }
    }
}
