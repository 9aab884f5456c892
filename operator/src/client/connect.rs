//! The cluster: found as kubectl finds it.

use super::{
    cli::Cluster,
    end::{Stop, explain},
    proxy, text,
};
use crate::crd::{stored::Stored, v1alpha1::VmMigration};
use kube::{
    Api, Client, Config, Resource,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
    core::NamespaceResourceScope,
};
use std::{env, time::Duration};

/// One call's connection.
#[derive(Clone)]
pub struct Session {
    /// The cluster.
    pub client: Client,
    /// The namespace that the call is about.
    pub namespace: String,
    /// It was named by `--namespace`, and is no default.
    pub named: bool,
}

impl Session {
    /// Finds the cluster; asks it nothing yet.
    pub async fn open(cluster: &Cluster) -> Result<Self, Stop> {
        let options = KubeConfigOptions { context: cluster.context.clone(), ..Default::default() };
        let file = match &cluster.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let context = options.context.as_deref();
        let own_proxy = file.as_ref().ok().and_then(|file| proxy::own(file, context));
        let config = match file {
            Ok(file) => Config::from_custom_kubeconfig(file, &options).await,
            Err(why) => Err(why),
        };
        let mut config = match config {
            Ok(config) => config,
            // In a pod there is none, and none is needed.
            Err(why) if context.is_none() && cluster.kubeconfig.is_none() => {
                Config::incluster().map_err(|_| no_config(why))?
            }
            Err(why) => return Err(no_config(why)),
        };
        config.proxy_url =
            proxy::choose(&config.cluster_url, own_proxy.as_deref(), |name| env::var(name).ok())
                .map_err(Stop::failed)?;
        config.connect_timeout = Some(Duration::from_secs(10));
        let namespace = cluster.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(explain("using the kubeconfig"))?;
        Ok(Session { client, namespace, named: cluster.namespace.is_some() })
    }

    /// An API of the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A migration, safe to print.
    pub async fn migration(&self, name: &str) -> Result<VmMigration, Stop> {
        let what = format!("reading VmMigration {name} in namespace {}", self.namespace);
        let object = self.api::<Stored<VmMigration>>().get(name).await.map_err(explain(&what))?;
        let object = object.0.map_err(|why| Stop::failed(format!("{what}: {}", text::unreadable(&why))))?;
        text::clean_object(object).map_err(|e| Stop::failed(format!("{what}: {e}")))
    }
}

fn no_config(error: KubeconfigError) -> Stop {
    if let KubeconfigError::ParseNoProxy(why) = &error {
        // kube reads it, too, and is stricter.
        return Stop::failed(format!(
            "NO_PROXY cannot be read: {why}; write hosts, addresses and networks, with one comma between each two"
        ));
    }
    Stop::failed(format!(
        "no cluster: {error}\nNeeded is a kubeconfig, as for kubectl: in ~/.kube/config, named by KUBECONFIG or by \
         --kubeconfig; --context chooses one of its contexts. `kubectl get vmm` should work with it."
    ))
}
