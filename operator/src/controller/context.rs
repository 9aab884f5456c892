//! Everything that a reconcile may touch.

use super::{clouds::CloudCache, clusters::Clusters};
use crate::{
    build::job::MoverImage, metrics::Metrics, migration::decide::Limits, net::EndpointPolicy,
    openstack::ClusterCloud, watches::Watches,
};
use ipnet::IpNet;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Client,
    runtime::events::{Recorder, Reporter},
};
use std::sync::Arc;

/// What the platform decided.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our own namespace; Secrets that register clusters are in it.
    pub namespace: String,
    /// The movers' namespace in our own cluster.
    pub movers_namespace: String,
    /// The cloud that our own cluster's nodes are servers of.
    pub own_cluster: Option<ClusterCloud>,
    /// Image and pods of the movers.
    pub image: MoverImage,
    /// Images that hooks may use besides our own: names, or beginnings of names that end in `*`.
    pub hook_images: Vec<String>,
    /// Networks that endpoints may not be in.
    pub denied: Vec<IpNet>,
    /// How many objects are reconciled at once.
    pub concurrency: u16,
    /// Bounds on waiting and trying.
    pub limits: Limits,
}

/// Everything that a reconcile may touch.
pub struct Context {
    /// Our own cluster.
    pub client: Client,
    /// What the platform decided.
    pub settings: Settings,
    /// Sessions with clouds.
    pub clouds: CloudCache,
    /// Clients of registered clusters.
    pub clusters: Clusters,
    /// Events.
    pub recorder: Recorder,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// How the watches of our kinds do.
    pub watches: Arc<Watches>,
}

impl Context {
    /// With empty caches.
    pub fn new(client: Client, settings: Settings, metrics: Arc<Metrics>) -> Self {
        let reporter =
            Reporter { controller: "vmmigration".into(), instance: std::env::var("HOSTNAME").ok() };
        Context {
            recorder: Recorder::new(client.clone(), reporter),
            clusters: Clusters::new(client.clone(), &settings, metrics.clone()),
            clouds: CloudCache::default(),
            client,
            settings,
            metrics,
            watches: Arc::default(),
        }
    }

    /// Where endpoints may be.
    pub fn policy(&self) -> EndpointPolicy {
        EndpointPolicy { allow_loopback: false, denied: self.settings.denied.clone() }
    }

    /// The time. One place, so that a test could turn it.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
