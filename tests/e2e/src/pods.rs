//! Both clusters: clients, logs, and the small commands that a test runs in the lab.

use crate::site::setting;
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, ListParams, LogParams},
    config::{KubeConfigOptions, Kubeconfig},
};

/// Namespace of the operator.
pub const SYSTEM: &str = "vmmigration-system";
/// Namespace of the movers, in both clusters.
pub const MOVERS: &str = "vmmigration-movers";

/// Label of the operator's pod.
pub const OPERATOR: &str = "app.kubernetes.io/name=vmmigration,app.kubernetes.io/component=operator";

/// A client of cluster `site-a` or `site-b`, as administrator.
pub async fn client(context: &str) -> Result<Client> {
    Ok(Client::try_from(config(context).await?)?)
}

/// A client of cluster `site-a` or `site-b` as somebody else, such as `system:serviceaccount:team:tenant`.
pub async fn client_as(context: &str, user: &str) -> Result<Client> {
    let mut config = config(context).await?;
    config.auth_info.impersonate = Some(user.into());
    Ok(Client::try_from(config)?)
}

async fn config(context: &str) -> Result<Config> {
    let file = Kubeconfig::read_from(setting("KUBECONFIG")?)?;
    let options = KubeConfigOptions { context: Some(context.into()), ..Default::default() };
    Ok(Config::from_custom_kubeconfig(file, &options).await?)
}

/// The log of a pod's only container.
pub async fn log(client: &Client, namespace: &str, pod: &str, lines: Option<i64>) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    Ok(pods.logs(pod, &LogParams { tail_lines: lines, ..Default::default() }).await?)
}

/// Pods with a label.
pub async fn labelled(client: &Client, namespace: &str, selector: &str) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    Ok(pods.list(&ListParams::default().labels(selector)).await?.items)
}

/// Kills a pod without grace.
pub async fn kill(client: &Client, pod: &Pod) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
    Ok(())
}

/// Runs a command of the test bed, such as `helm`; gives what it prints.
pub async fn command(program: &str, arguments: &[&str]) -> Result<String> {
    let run = tokio::process::Command::new(program).args(arguments).kill_on_drop(true).output();
    let limit = std::time::Duration::from_secs(300);
    let out = tokio::time::timeout(limit, run).await.with_context(|| format!("{program} does not end"))??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, wrong) = (text(&out.stdout), text(&out.stderr));
    ensure!(out.status.success(), "{program} {arguments:?}: {} {said}{wrong}", out.status);
    Ok(said)
}

/// The test bed's own command.
pub(crate) const TESTBED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testbed/testbed");

/// `testbed fault …`, such as `["answer", "site-b", "nova", "503", "20"]`.
pub async fn fault(arguments: &[&str]) -> Result<String> {
    let all: Vec<&str> = std::iter::once("fault").chain(arguments.iter().copied()).collect();
    command(TESTBED, &all).await
}
