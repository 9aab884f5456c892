//! Plain calls of a cloud's services for what the product's own adapter does not do: pausing, shelving, attaching.

use anyhow::{Context, Result, anyhow, bail};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One project of one cloud with a token.
#[derive(Clone, Debug)]
pub struct Rest {
    client: Client,
    token: String,
    /// Service type: public address.
    endpoints: BTreeMap<String, String>,
}

impl Rest {
    /// Authenticates with an entry of `clouds.yaml`.
    pub async fn connect(entry: &Value, client: Client) -> Result<Self> {
        let auth = &entry["auth"];
        let url = format!("{}/auth/tokens", auth["auth_url"].as_str().context("no auth_url")?);
        let answer = client.post(&url).json(&login(auth)).send().await?;
        let token = answer.headers().get("x-subject-token").and_then(|t| t.to_str().ok()).map(String::from);
        let body: Value = answer.json().await?;
        let token = token.ok_or_else(|| anyhow!("{url} gives no token: {body}"))?;
        let region = entry["region_name"].as_str().unwrap_or_default();
        Ok(Self { client, token, endpoints: catalog(&body, region) })
    }

    /// One call; `service` is the catalog's type, with `microversion` where that matters.
    pub async fn call(
        &self,
        method: Method,
        service: &str,
        path: &str,
        body: Option<Value>,
        microversion: Option<&str>,
    ) -> Result<Value> {
        let base = self.endpoints.get(service).with_context(|| format!("no endpoint for {service}"))?;
        let mut request =
            self.client.request(method.clone(), format!("{base}{path}")).header("x-auth-token", &self.token);
        if let Some(version) = microversion {
            let kind = if service == "compute" { "compute" } else { "volume" };
            request = request.header("openstack-api-version", format!("{kind} {version}"));
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.with_context(|| format!("{method} {service} {path}"))?;
        let status = answer.status();
        let text = answer.text().await?;
        if status.as_u16() == 404 && method == Method::DELETE {
            return Ok(Value::Null);
        }
        if !status.is_success() {
            bail!("{method} {service} {path}: {status} {}", text.chars().take(400).collect::<String>());
        }
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// A GET.
    pub async fn get(&self, service: &str, path: &str) -> Result<Value> {
        self.call(Method::GET, service, path, None, None).await
    }

    /// A POST.
    pub async fn post(&self, service: &str, path: &str, body: Value) -> Result<Value> {
        self.call(Method::POST, service, path, Some(body), None).await
    }

    /// A DELETE; what is not there is deleted.
    pub async fn delete(&self, service: &str, path: &str) -> Result<()> {
        self.call(Method::DELETE, service, path, None, None).await.map(drop)
    }

    /// An action of a server, such as `{"pause": null}`.
    pub async fn act(&self, server: &str, action: Value) -> Result<()> {
        self.post("compute", &format!("/servers/{server}/action"), action).await.map(drop)
    }
}

fn login(auth: &Value) -> Value {
    if let Some(id) = auth["application_credential_id"].as_str() {
        let secret = &auth["application_credential_secret"];
        let credential = json!({"id": id, "secret": secret});
        return json!({"auth": {"identity":
            {"methods": ["application_credential"], "application_credential": credential}}});
    }
    let user = json!({"name": auth["username"], "password": auth["password"], "domain": {"name": auth["user_domain_name"]}});
    let project = json!({"name": auth["project_name"], "domain": {"name": auth["project_domain_name"]}});
    json!({"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": {"project": project}}})
}

fn catalog(token: &Value, region: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for service in token["token"]["catalog"].as_array().into_iter().flatten() {
        let endpoints = service["endpoints"].as_array().cloned().unwrap_or_default();
        let public = endpoints
            .iter()
            .find(|e| e["interface"] == "public" && (region.is_empty() || e["region_id"] == region));
        if let (Some(kind), Some(url)) = (service["type"].as_str(), public.and_then(|e| e["url"].as_str())) {
            let mut url = url.trim_end_matches('/').to_string();
            for (name, version) in [("network", "/v2.0"), ("image", "/v2")] {
                if kind == name && !url.ends_with(version) {
                    url.push_str(version);
                }
            }
            found.insert(kind.to_string(), url);
        }
    }
    found
}
