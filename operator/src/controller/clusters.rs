//! Clusters in which movers run: our own, and those that the platform registered.

use super::{context::Settings, ended_jobs};
use crate::{
    metrics::Metrics,
    migration::{names::LABEL_CLUSTER, observed::Problem},
    openstack::ClusterCloud,
};
use futures::Stream;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::{Mutex, broadcast};
use tokio_util::sync::DropGuard;

/// Nobody has registered a cluster under that name: as a blocker.
pub const NOT_REGISTERED: &str = "cluster-not-registered";

/// A cluster and the namespace in which movers run.
#[derive(Clone)]
pub struct MoverCluster {
    /// Its client.
    pub client: Client,
    /// The movers' namespace.
    pub namespace: String,
    /// The cloud that its nodes are servers of, as the platform says; or why that is not known.
    pub cloud: Result<ClusterCloud, String>,
}

/// Clients of clusters, kept until their Secret changes.
pub struct Clusters {
    own: MoverCluster,
    registry: String,
    known: Mutex<HashMap<String, Known>>,
    ended: broadcast::Sender<String>,
    metrics: Arc<Metrics>,
}

/// A registered cluster, by the version of its Secret.
struct Known {
    version: String,
    cluster: MoverCluster,
    _watched: DropGuard,
}

impl Clusters {
    /// With our own cluster only.
    pub fn new(client: Client, settings: &Settings, metrics: Arc<Metrics>) -> Self {
        let unbound = || ClusterCloud::parse(|_| None);
        let cloud = settings.own_cluster.clone().map_or_else(unbound, Ok);
        Clusters {
            own: MoverCluster { client, namespace: settings.movers_namespace.clone(), cloud },
            registry: settings.namespace.clone(),
            known: Mutex::default(),
            ended: ended_jobs::channel(),
            metrics,
        }
    }

    /// UIDs of migrations of which a mover's Job has ended, in any cluster that has been used.
    pub fn ended_jobs(&self) -> impl Stream<Item = String> + Send + use<> {
        ended_jobs::stream(self.ended.subscribe())
    }

    /// Watches the Jobs of our own cluster for as long as the guard is kept.
    pub fn watch_own(&self) -> DropGuard {
        ended_jobs::watch("of the operator", &self.own, self.ended.clone(), self.metrics.clone())
    }

    /// Our own cluster.
    pub fn own(&self) -> MoverCluster {
        self.own.clone()
    }

    /// A registered cluster; `None` names our own.
    pub async fn get(&self, name: Option<&str>) -> Result<MoverCluster, Problem> {
        let Some(name) = name else { return Ok(self.own()) };
        let secret = match self.registered(name).await {
            Ok(secret) => secret,
            Err(problem) => {
                if !problem.transient {
                    self.known.lock().await.remove(name);
                }
                return Err(problem);
            }
        };
        let version = secret.metadata.resource_version.clone().unwrap_or_default();
        let mut known = self.known.lock().await;
        if let Some(known) = known.get(name).filter(|k| k.version == version) {
            return Ok(known.cluster.clone());
        }
        let cluster = connect(name, &secret).await?;
        let _watched = ended_jobs::watch(name, &cluster, self.ended.clone(), self.metrics.clone());
        known.insert(name.into(), Known { version, cluster: cluster.clone(), _watched });
        Ok(cluster)
    }

    async fn registered(&self, name: &str) -> Result<Secret, Problem> {
        let api: Api<Secret> = Api::namespaced(self.own.client.clone(), &self.registry);
        let list = ListParams::default().labels(&format!("{LABEL_CLUSTER}={name}"));
        let found =
            api.list(&list).await.map_err(|e| problem(name, format!("cannot be looked up: {e}"), true))?;
        found.items.into_iter().next().ok_or_else(|| Problem {
            id: NOT_REGISTERED.into(),
            message: format!("no cluster is registered under the name {name:?}"),
            suggestion: Some(
                "ask the platform to register it, or correct spec.cluster of the OpenStackCloud".into(),
            ),
            transient: false,
        })
    }
}

fn problem(name: &str, why: String, transient: bool) -> Problem {
    Problem {
        id: format!("cluster-{name}"),
        message: format!("cluster {name}: {why}"),
        suggestion: None,
        transient,
    }
}

async fn connect(name: &str, secret: &Secret) -> Result<MoverCluster, Problem> {
    let text = |key: &str| {
        let bytes = secret.data.as_ref()?.get(key)?;
        String::from_utf8(bytes.0.clone()).ok().map(|s| s.trim().to_string()).filter(|s| !s.is_empty())
    };
    let yaml =
        text("kubeconfig").ok_or_else(|| problem(name, "its Secret has no key kubeconfig".into(), false))?;
    let namespace = text("namespace").unwrap_or_else(|| "vmmigration-movers".into());
    let kubeconfig = Kubeconfig::from_yaml(&yaml)
        .map_err(|_| problem(name, "its kubeconfig cannot be read".into(), false))?;
    refuse_unsafe(&kubeconfig)
        .map_err(|why| problem(name, format!("its kubeconfig is refused: {why}"), false))?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|e| problem(name, format!("its kubeconfig cannot be used: {e}"), false))?;
    // Nor is one of the operator's environment used.
    config.proxy_url = None;
    config.connect_timeout = Some(Duration::from_secs(5));
    // A retry inside of a call would hold up a reconcile; we try again by ourselves.
    config.default_retry = false;
    let client = Client::try_from(config).map_err(|e| problem(name, e.to_string(), false))?;
    Ok(MoverCluster { client, namespace, cloud: ClusterCloud::parse(text) })
}

/// Inline data only: nothing that runs a program, reads a file, goes through a proxy, or trusts anybody.
fn refuse_unsafe(config: &Kubeconfig) -> Result<(), &'static str> {
    for user in config.auth_infos.iter().filter_map(|u| u.auth_info.as_ref()) {
        let files =
            user.token_file.is_some() || user.client_certificate.is_some() || user.client_key.is_some();
        if user.exec.is_some() || user.auth_provider.is_some() {
            return Err("exec and auth providers are not allowed");
        }
        if files {
            return Err("file paths are not allowed, only inline data");
        }
    }
    for cluster in config.clusters.iter().filter_map(|c| c.cluster.as_ref()) {
        if cluster.certificate_authority.is_some() {
            return Err("file paths are not allowed, only inline data");
        }
        if cluster.insecure_skip_tls_verify == Some(true) {
            return Err("TLS verification cannot be switched off");
        }
        if cluster.proxy_url.is_some() {
            return Err("proxies are not allowed");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_kubeconfigs_are_refused() {
        let base = |user: &str, cluster: &str| {
            format!(
                "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: 'https://10.0.0.1', {cluster}}}}}]\n\
                 users: [{{name: u, user: {{{user}}}}}]\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n"
            )
        };
        let table = [
            ("token: abc", "certificate-authority-data: YQ==", true),
            ("exec: {apiVersion: client.authentication.k8s.io/v1, command: sh}", "", false),
            ("tokenFile: /etc/passwd", "", false),
            ("client-key: /etc/key", "", false),
            ("token: abc", "certificate-authority: /etc/ca", false),
            ("token: abc", "insecure-skip-tls-verify: true", false),
            ("token: abc", "proxy-url: 'http://10.0.0.9'", false),
        ];
        for (user, cluster, accepted) in table {
            let config = Kubeconfig::from_yaml(&base(user, cluster)).unwrap();
            assert_eq!(refuse_unsafe(&config).is_ok(), accepted, "{user} {cluster}");
        }
    }
}
