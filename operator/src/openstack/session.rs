//! A connection to one project of one cloud: authentication, endpoints, and the guarded HTTP transport.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use openstack_sdk::RestError;
use openstack_sdk::api::{ApiError, AsyncClient, QueryAsync, RestClient};
use openstack_sdk::auth::AuthError;
use openstack_sdk::types::{ApiVersion, BoxedAsyncRead, ServiceType};
use openstack_sdk_auth_core::AuthToken;
use openstack_sdk_auth_core::types::{IdentityError, Project};
use openstack_sdk_core::api::raw;
use openstack_sdk_core::catalog::{CatalogError, ServiceEndpoint};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use super::bounded::{self, MOST_LIST_BYTES, MOST_PAGES, TooLong};
use super::credentials::Credentials;
use super::discovery::{Finder, Found, SERVICES};
use super::endpoint::{Call, Reply};
use super::error::{CloudError, ErrorKind, connection_broke};
use super::machine::{Clients, Machine};
use crate::cloud::{Listed, ServiceVersion};
use crate::net::EndpointPolicy;

/// How long requests may take, body included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For API calls.
    pub control: Duration,
    /// For the whole of one image upload or download.
    pub data: Duration,
}

impl Default for Timeouts {
    /// One minute for calls, one day for images.
    fn default() -> Self {
        Self { control: Duration::from_secs(60), data: Duration::from_secs(24 * 3600) }
    }
}

/// A cloud as one project's member. Clones share the token and the connections.
#[derive(Clone)]
pub struct Cloud(Arc<Inner>);

struct Inner {
    name: String,
    /// What Keystone is asked for a token with. It has the secret.
    token_request: Value,
    identity: Url,
    control: reqwest::Client,
    data: reqwest::Client,
    token: RwLock<Token>,
    /// Held while a new token is fetched, so that many 401s at once make one authentication. It keeps what a refused one
    /// was answered: the login is not tried again in this session, since clouds lock accounts.
    renewing: tokio::sync::Mutex<Option<String>>,
    endpoints: HashMap<String, ServiceEndpoint>,
    region: Option<String>,
    /// Addresses of the identity service: the one that it is called by first.
    identities: Vec<String>,
}

/// The token in use, with a number that grows with each renewal.
#[derive(Clone)]
struct Token {
    auth: Arc<AuthToken>,
    generation: u64,
}

impl fmt::Debug for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cloud").field("name", &self.0.name).finish_non_exhaustive()
    }
}

/// One page of a list.
pub(super) struct Page {
    pub(super) items: Vec<Value>,
    /// The service says that there is another one.
    more: bool,
    /// Its length in bytes.
    size: usize,
}

impl Cloud {
    /// Authenticates and finds the four services. `display_name` is what errors and messages call this cloud.
    ///
    /// Redirects are never followed, by any request: a service that answers with one is an error that says so.
    /// Proxies of the environment are not used, because the policy could not see where they connect to.
    pub async fn connect(
        credentials: &Credentials,
        policy: &EndpointPolicy,
        display_name: &str,
        timeouts: Timeouts,
    ) -> Result<Self, CloudError> {
        Self::connect_from(&Machine::default(), credentials, policy, display_name, timeouts).await
    }

    /// As [`Cloud::connect`], in the way that clouds are reached in from this machine.
    pub async fn connect_from(
        machine: &Machine,
        credentials: &Credentials,
        policy: &EndpointPolicy,
        display_name: &str,
        timeouts: Timeouts,
    ) -> Result<Self, CloudError> {
        let fail = |kind, message: String| CloudError::local(display_name, "connect", kind, message);
        policy.check_url(credentials.auth_url()).map_err(|e| fail(ErrorKind::Refused, e.to_string()))?;
        let token_request = credentials.token_request();
        let Clients { control, data } = machine
            .clients(credentials.cacert(), policy, timeouts)
            .map_err(|why| fail(ErrorKind::Unexpected, why))?;
        let identity = identity_v3(credentials.auth_url());
        let auth = authenticate(&control, &identity, &token_request)
            .await
            .map_err(|e| CloudError::from_auth(display_name, "authenticate", &e))?;
        if project(&auth).and_then(|p| p.id).is_none() {
            return Err(fail(ErrorKind::Unauthorized, "the credential is not for a project".into()));
        }
        let finder = Finder { name: display_name, policy, credentials, client: &control, auth: &auth };
        let Found { endpoints, region, identities } = finder.all().await?;
        let identities =
            identities.iter().map(identity_v3).chain([identity.clone()]).map(String::from).collect();
        Ok(Self(Arc::new(Inner {
            name: display_name.into(),
            token_request,
            identity,
            control,
            data,
            token: RwLock::new(Token { auth: Arc::new(auth), generation: 0 }),
            renewing: tokio::sync::Mutex::default(),
            endpoints,
            region,
            identities,
        })))
    }

    /// Name that messages use.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Id of the project that the credential is for.
    pub fn project_id(&self) -> String {
        project(&self.0.token().auth).and_then(|p| p.id).unwrap_or_default()
    }

    /// The region whose services are used, where the catalog has regions.
    pub fn region(&self) -> Option<&str> {
        self.0.region.as_deref()
    }

    /// Addresses of the identity service: what the catalog says, its public address first, and last the one that was
    /// used. Never empty.
    pub fn identities(&self) -> &[String] {
        &self.0.identities
    }

    /// Id of the user that the credential belongs to.
    pub fn user_id(&self) -> String {
        self.0.token().auth.auth_info.as_ref().map(|info| info.token.user.id.clone()).unwrap_or_default()
    }

    /// The services' API versions, in the order compute, block storage, image, network.
    pub fn versions(&self) -> Vec<ServiceVersion> {
        let one = |(service, _): &(ServiceType, u8)| {
            let endpoint = self.0.endpoints.get(&service.to_string())?;
            Some(ServiceVersion {
                service: service.to_string(),
                version: endpoint.version().to_string(),
                microversion: endpoint.max_version().clone(),
            })
        };
        SERVICES.iter().filter_map(one).collect()
    }

    /// Whether compute or block storage accepts this microversion.
    pub(super) fn offers(&self, service: &ServiceType, version: (u8, u8)) -> bool {
        let max = self.0.endpoints.get(&service.to_string()).and_then(|e| e.max_version().clone());
        max.and_then(|m| ApiVersion::from_apiver_str(m, false).ok()).is_some_and(|m| m >= version.into())
    }

    /// Sends a call; any status that is no success is an error.
    pub(super) async fn send(&self, action: &str, call: Call) -> Result<Reply, CloudError> {
        let answer: http::Response<Bytes> = raw(call)
            .skip_error_check(true)
            .query_async(&*self.0)
            .await
            .map_err(|e| CloudError::from_sdk(self.name(), action, &e))?;
        let (parts, body) = answer.into_parts();
        if parts.extensions.get::<TooLong>().is_some() {
            let message = TooLong::message();
            return Err(CloudError::local(self.name(), action, ErrorKind::Unexpected, message));
        }
        if !parts.status.is_success() {
            return Err(CloudError::from_answer(self.name(), action, parts.status, &parts.headers, &body));
        }
        Ok(Reply { status: parts.status, headers: parts.headers, body })
    }

    /// Sends a call and reads member `key` of its answer.
    pub(super) async fn fetch<T: DeserializeOwned>(
        &self,
        action: &str,
        key: &str,
        call: Call,
    ) -> Result<T, CloudError> {
        let reply = self.send(action, call).await?;
        reply.get(key).ok_or_else(|| self.unreadable(action, &reply))
    }

    /// As [`Cloud::fetch`], with `None` for an object that is not there.
    pub(super) async fn fetch_optional<T: DeserializeOwned>(
        &self,
        action: &str,
        key: &str,
        call: Call,
    ) -> Result<Option<T>, CloudError> {
        match self.fetch(action, key, call).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes; an object that is not there counts as deleted.
    pub(super) async fn remove(&self, action: &str, call: Call) -> Result<(), CloudError> {
        match self.send(action, call).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What can be read of all pages of a list. `marker` gives the member that the next page is asked for by. One item
    /// that cannot be read, or a list that is cut, hides nothing else.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        action: &str,
        key: &str,
        marker: &str,
        call: Call,
    ) -> Result<Vec<T>, CloudError> {
        Ok(self.listed(action, key, marker, call).await?.items)
    }

    /// As [`Cloud::list`], with what is missing in it.
    pub(super) async fn listed<T: DeserializeOwned>(
        &self,
        action: &str,
        key: &str,
        marker: &str,
        call: Call,
    ) -> Result<Listed<T>, CloudError> {
        self.listed_by(action, key, marker, call, |item| T::deserialize(item).ok()).await
    }

    /// As [`Cloud::listed`], with a reader of items.
    pub(super) async fn listed_by<T>(
        &self,
        action: &str,
        key: &str,
        marker: &str,
        call: Call,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Listed<T>, CloudError> {
        let mut list = Listed::default();
        let (mut last, mut bytes) = (None, 0);
        for _ in 0..MOST_PAGES {
            let page_call = match &last {
                Some(id) => call.clone().query("marker", String::clone(id)),
                None => call.clone(),
            };
            let Page { items: page, more, size } = self.page(action, key, page_call).await?;
            list.pages += 1;
            bytes += size;
            if bytes > MOST_LIST_BYTES {
                break;
            }
            let next = page.last().and_then(|item| member(item, marker));
            for item in page {
                match read(&item) {
                    Some(read) => list.items.push(read),
                    None => list.unread.push(item),
                }
            }
            match next {
                _ if !more => return Ok(list),
                Some(id) if last.as_ref() != Some(&id) => last = Some(id),
                _ => {
                    list.cut = true;
                    return Ok(list);
                }
            }
        }
        Err(CloudError::local(self.name(), action, ErrorKind::Unexpected, "the list does not end"))
    }

    /// One page of a list.
    pub(super) async fn page(&self, action: &str, key: &str, call: Call) -> Result<Page, CloudError> {
        let reply = self.send(action, call).await?;
        let mut body: Value = reply.get("").ok_or_else(|| self.unreadable(action, &reply))?;
        let (more, size) = (has_next(&body), reply.body.len());
        match body.get_mut(key).map(Value::take) {
            Some(Value::Array(items)) => Ok(Page { items, more, size }),
            _ => Err(self.unreadable(action, &reply)),
        }
    }

    /// An error for an answer that was a success but not what was expected.
    pub(super) fn unreadable(&self, action: &str, reply: &Reply) -> CloudError {
        let message = "the answer is not as documented";
        let mut error = CloudError::local(self.name(), action, ErrorKind::Unexpected, message);
        error.status = Some(reply.status.as_u16());
        error.request_id = super::error::request_id(&reply.headers);
        error
    }

    /// A request on the data client (hours instead of a minute), with the current token.
    pub(super) fn data_request(
        &self,
        action: &str,
        method: Method,
        service: &ServiceType,
        path: &str,
    ) -> Result<(reqwest::RequestBuilder, u64), CloudError> {
        let unusable = || CloudError::local(self.name(), action, ErrorKind::Unexpected, "no usable endpoint");
        let endpoint = self.0.endpoints.get(&service.to_string()).ok_or_else(unusable)?;
        let url = endpoint.build_request_url(path).map_err(|_| unusable())?;
        let token = self.0.token();
        let mut headers = HeaderMap::new();
        token.auth.set_header(&mut headers).map_err(|_| unusable())?;
        // Glance writes its errors as a web page unless asked otherwise, and only its own 404 counts.
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*;q=0.1"));
        Ok((self.0.data.request(method, url).headers(headers), token.generation))
    }

    /// Fetches a new token unless somebody did so since `generation`.
    pub(super) async fn renew(&self, action: &str, generation: u64) -> Result<(), CloudError> {
        self.0.renew(generation).await.map_err(|e| CloudError::from_auth(self.name(), action, &e))
    }
}

/// A member of a list's item; `a.b` looks one level down (key pairs).
fn member(item: &Value, path: &str) -> Option<String> {
    path.split('.').try_fold(item, |v, key| v.get(key))?.as_str().map(str::to_string)
}

/// Whether a page says that there is another one: a `..._links` list with `rel: next` (Nova, Cinder, Neutron;
/// volume types have `volume_type_links`) or `next` (Glance).
fn has_next(body: &Value) -> bool {
    let is_next = |link: &Value| link.get("rel").and_then(Value::as_str) == Some("next");
    body.as_object().into_iter().flatten().any(|(key, value)| match value {
        Value::Array(links) => key.ends_with("_links") && links.iter().any(is_next),
        Value::String(_) => key == "next",
        _ => false,
    })
}

/// Keystone's v3 address: clouds write `auth_url` with or without the version.
pub(super) fn identity_v3(auth_url: &Url) -> Url {
    let mut url = auth_url.clone();
    let path = url.path().trim_end_matches('/').to_string();
    url.set_path(&if path.ends_with("/v3") { format!("{path}/") } else { format!("{path}/v3/") });
    url
}

pub(super) fn project(auth: &AuthToken) -> Option<Project> {
    auth.auth_info.as_ref()?.token.project.clone()
}

/// Asks Keystone for a token.
async fn authenticate(
    client: &reqwest::Client,
    identity: &Url,
    request: &Value,
) -> Result<AuthToken, AuthError> {
    let answer = client.post(identity.join("auth/tokens")?).json(request).send().await?;
    AuthToken::from_reqwest_response(answer).await
}

impl Inner {
    fn token(&self) -> Token {
        self.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn renew(&self, generation: u64) -> Result<(), AuthError> {
        let mut refused = self.renewing.lock().await;
        if self.token().generation != generation {
            return Ok(());
        }
        if let Some(message) = refused.clone() {
            return Err(AuthError::Identity(IdentityError { code: 401, message }));
        }
        let auth = authenticate(&self.control, &self.identity, &self.token_request).await;
        let auth = auth.inspect_err(|error| match error {
            AuthError::Identity(answer) if answer.code == 401 => *refused = Some(answer.message.clone()),
            AuthError::UnknownAuth { code: 401, .. } => *refused = Some("Unauthorized".into()),
            _ => {}
        })?;
        let token = Token { auth: Arc::new(auth), generation: generation.wrapping_add(1) };
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
        Ok(())
    }

    /// Sends; a GET whose connection breaks is sent once more. A proxy closes a kept connection without an answer
    /// when its own to the service has just ended, and expects clients to ask again (HAProxy: "retry-on"). Only
    /// for GET: of other calls nobody knows whether they were carried out.
    async fn attempt(
        &self,
        parts: &http::request::Parts,
        body: &[u8],
        token: &Token,
    ) -> Result<http::Response<Bytes>, RestError> {
        match self.once(parts, body, token).await {
            Err(RestError::Communication { source })
                if parts.method == Method::GET && connection_broke(&source) =>
            {
                self.once(parts, body, token).await
            }
            outcome => outcome,
        }
    }

    async fn once(
        &self,
        parts: &http::request::Parts,
        body: &[u8],
        token: &Token,
    ) -> Result<http::Response<Bytes>, RestError> {
        let mut headers = parts.headers.clone();
        token.auth.set_header(&mut headers).map_err(AuthError::from)?;
        let mut url = Url::parse(&parts.uri.to_string()).map_err(AuthError::from)?;
        if url.query() == Some("") {
            // The SDK leaves a "?" behind when there are no parameters.
            url.set_query(None);
        }
        let request = self.control.request(parts.method.clone(), url).headers(headers).body(body.to_vec());
        let answer = request.send().await?;
        let mut response = http::Response::new(Bytes::new());
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        match bounded::body(answer).await? {
            Ok(body) => *response.body_mut() = body,
            Err(too_long) => drop(response.extensions_mut().insert(too_long)),
        }
        Ok(response)
    }
}

impl RestClient for Inner {
    type Error = RestError;

    fn get_current_project(&self) -> Option<Project> {
        project(&self.token().auth)
    }
}

#[async_trait]
impl AsyncClient for Inner {
    /// Sends, and once more with a new token when the old one was refused.
    async fn rest_async(
        &self,
        request: http::request::Builder,
        body: Vec<u8>,
    ) -> Result<http::Response<Bytes>, ApiError<RestError>> {
        let (parts, ()) =
            request.body(()).map_err(|source| ApiError::client(RestError::Http { source }))?.into_parts();
        let token = self.token();
        let first = self.attempt(&parts, &body, &token).await.map_err(ApiError::client)?;
        // An expired token and a missing access rule look the same: only a second 401 is final.
        if first.status() != StatusCode::UNAUTHORIZED {
            return Ok(first);
        }
        self.renew(token.generation).await.map_err(|source| ApiError::client(source.into()))?;
        self.attempt(&parts, &body, &self.token()).await.map_err(ApiError::client)
    }

    /// Not used: bodies that are streams go through the data client.
    async fn rest_read_body_async(
        &self,
        _: http::request::Builder,
        _: BoxedAsyncRead,
    ) -> Result<http::Response<Bytes>, ApiError<RestError>> {
        Err(ApiError::Session { msg: "streams are sent by the data client".into() })
    }

    /// Not used, as above.
    async fn download_async(
        &self,
        _: http::request::Builder,
        _: Vec<u8>,
    ) -> Result<(HeaderMap, BoxedAsyncRead), ApiError<RestError>> {
        Err(ApiError::Session { msg: "streams are read by the data client".into() })
    }

    /// The endpoint found at connect. It stays for the life of the session: in the SDK's own client a renewed
    /// token throws away what discovery found, and later requests go to addresses without a version.
    async fn get_service_endpoint(
        &self,
        service: &ServiceType,
        _: Option<&ApiVersion>,
    ) -> Result<ServiceEndpoint, ApiError<RestError>> {
        self.endpoints.get(&service.to_string()).cloned().ok_or_else(|| {
            ApiError::catalog(CatalogError::ServiceNotConfigured {
                srv_type: service.to_string(),
                region: None,
                interface: None,
            })
        })
    }
}
