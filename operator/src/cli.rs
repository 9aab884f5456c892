//! The command line. Every flag has an environment variable.

use crate::{
    build::job::{MoverImage, PodSettings},
    controller::context::Settings,
    migration::decide::Limits,
    mover::cli::MoverArgs,
    openstack::ClusterCloud,
};
use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use serde_json::Value;
use std::{net::SocketAddr, path::PathBuf};

/// Moves OpenStack servers, with all their disks, between clouds.
#[derive(Debug, Parser)]
#[command(name = "vmmigration", version, about, long_about = None)]
pub struct Cli {
    /// What to be.
    #[command(subcommand)]
    pub command: Command,
}

/// What to be.
#[derive(Debug, Subcommand)]
// One value exists, for the whole life of the process.
#[allow(clippy::large_enum_variant)]
pub enum Command {
    /// Run the operator in a cluster
    Run(Box<RunArgs>),
    /// Print the custom resource definitions, or write one file each and the reference of their fields
    Crd(CrdArgs),
    /// What runs inside of a Job
    Mover(MoverArgs),
}

/// `vmmigration crd`
#[derive(Debug, Args)]
pub struct CrdArgs {
    /// Write `vmmigration.io_<plural>.yaml` into this directory
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Write the reference of all fields, as Markdown, into this file
    #[arg(long)]
    pub reference: Option<PathBuf>,
}

/// `vmmigration run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Our own namespace: Secrets that register clusters are in it
    #[arg(long, env = "VMM_NAMESPACE", default_value = "vmmigration-system")]
    pub namespace: String,
    /// Namespace of the movers in our own cluster
    #[arg(long, env = "VMM_MOVERS_NAMESPACE", default_value = "vmmigration-movers")]
    pub movers_namespace: String,
    /// JSON with identityURL, region, ca, nodesAreServers: the cloud that our own cluster's nodes are servers of
    #[arg(long, env = "VMM_OWN_CLUSTER", value_parser = cluster_cloud)]
    pub own_cluster: Option<ClusterCloud>,
    /// Image of the movers: the operator's own
    #[arg(long, env = "VMM_MOVER_IMAGE")]
    pub mover_image: String,
    /// When the image is pulled: Always, IfNotPresent, Never
    #[arg(long, env = "VMM_MOVER_IMAGE_PULL_POLICY")]
    pub mover_image_pull_policy: Option<String>,
    /// JSON with nodeSelector, tolerations, resources, imagePullSecrets of the movers' pods
    #[arg(long, env = "VMM_MOVER_POD", default_value = "{}", value_parser = pod_settings)]
    pub mover_pod: PodSettings,
    /// Images that hooks may use besides our own, comma separated; one that ends in * allows all that begin so
    #[arg(long, env = "VMM_HOOK_IMAGES", default_value = "", value_parser = names)]
    pub hook_images: Names,
    /// Where /livez, /readyz and /metrics are served
    #[arg(long, env = "VMM_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Networks that endpoints of clouds and stores may not be in
    #[arg(long, env = "VMM_DENIED_CIDRS", default_value = "", value_parser = networks)]
    pub denied_cidrs: Networks,
    /// How many migrations are looked at at once
    #[arg(long, env = "VMM_CONCURRENCY", default_value_t = 8)]
    pub concurrency: u16,
    /// How long an error that may pass is borne before the source is given back, in seconds
    #[arg(long, env = "VMM_TROUBLE_DEADLINE_SECONDS", default_value_t = 600)]
    pub trouble_deadline_seconds: i64,
    /// How long one wait for a cloud may take, in seconds; besides, 30 for each GiB of the disk
    #[arg(long, env = "VMM_STEP_DEADLINE_SECONDS", default_value_t = 3600)]
    pub step_deadline_seconds: i64,
    /// How often a Job is tried
    #[arg(long, env = "VMM_JOB_ATTEMPTS", default_value_t = 4)]
    pub job_attempts: i32,
}

/// Names, as one comma separated argument that may be empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Names(pub Vec<String>);

fn names(text: &str) -> Result<Names, String> {
    let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
    Ok(Names(parts.map(String::from).collect()))
}

/// Networks, as one comma separated argument that may be empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Networks(pub Vec<IpNet>);

fn networks(text: &str) -> Result<Networks, String> {
    let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
    parts
        .map(|p| p.parse().map_err(|_| format!("{p:?} is no network")))
        .collect::<Result<_, _>>()
        .map(Networks)
}

fn pod_settings(text: &str) -> Result<PodSettings, String> {
    serde_json::from_str(if text.is_empty() { "{}" } else { text }).map_err(|e| e.to_string())
}

fn cluster_cloud(text: &str) -> Result<ClusterCloud, String> {
    let values: serde_json::Map<String, Value> = serde_json::from_str(text).map_err(|e| e.to_string())?;
    ClusterCloud::parse(|key| match values.get(key)? {
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    })
}

impl RunArgs {
    /// As the controllers take them.
    pub fn settings(&self) -> Settings {
        Settings {
            namespace: self.namespace.clone(),
            movers_namespace: self.movers_namespace.clone(),
            own_cluster: self.own_cluster.clone(),
            image: MoverImage {
                name: self.mover_image.clone(),
                pull_policy: self.mover_image_pull_policy.clone().filter(|p| !p.is_empty()),
                pod: self.mover_pod.clone(),
                denied_cidrs: self.denied_cidrs.0.iter().map(ToString::to_string).collect(),
            },
            hook_images: self.hook_images.0.clone(),
            denied: self.denied_cidrs.0.clone(),
            concurrency: self.concurrency,
            limits: Limits {
                trouble_seconds: self.trouble_deadline_seconds,
                step_seconds: self.step_deadline_seconds,
                job_attempts: self.job_attempts,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_image_is_allowed_by_an_empty_list() {
        assert_eq!(names("").map(|n| n.0), Ok(vec![]));
        assert_eq!(names("a:1, b/*").map(|n| n.0), Ok(vec!["a:1".to_string(), "b/*".to_string()]));
    }

    #[test]
    fn the_cloud_of_our_own_cluster_is_read() {
        let text =
            r#"{"identityURL": "https://id.example/v3", "region": "R", "ca": "", "nodesAreServers": true}"#;
        assert_eq!(
            cluster_cloud(text).map(|c| (c.region().to_string(), c.nodes_are_servers())),
            Ok(("R".into(), true))
        );
        assert!(cluster_cloud("{}").is_err() && cluster_cloud("x").is_err());
    }

    #[test]
    fn no_network_is_denied_by_an_empty_list() {
        assert_eq!(networks(""), Ok(Networks::default()));
        assert_eq!(networks("10.0.0.0/8, fd00::/8").map(|n| n.0.len()), Ok(2));
        assert!(networks("10.0.0.0/8,x").is_err());
    }
}
