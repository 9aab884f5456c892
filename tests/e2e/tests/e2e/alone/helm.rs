//! The operator is upgraded and uninstalled by helm: migrations in flight and finished ones are not disturbed. And it is
//! installed as docs/getting-started.md says, in both clusters, word for word.

use crate::{
    docs::Desk,
    interrupted::{counted, mover},
    moves::{in_b, serves, written},
    rules::{KINDS, api},
};
use anyhow::{Context, Result, ensure};
use e2e::{Disks, Lab, MOVERS, Migration, OPERATOR, SYSTEM, command, exclusive, labelled, until};
use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, PostParams},
};
use serde_json::Value;
use std::{
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    rc::Rc,
};
use vmmigration::crd::v1alpha1::*;

const RELEASE: &str = "vmmigration";

/// The release as it was found, to be installed again.
struct Release(PathBuf);

impl Release {
    async fn found(lab: &Lab) -> Result<Self> {
        let values = helm(&["get", "values", RELEASE, "-o", "json"]).await?;
        let path = std::env::temp_dir().join(format!("{}-values.json", lab.name));
        // It holds a registered cluster's token.
        let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path)?;
        file.write_all(values.as_bytes())?;
        Ok(Release(path))
    }

    fn values(&self) -> Result<&str> {
        self.0.to_str().context("a path")
    }

    /// As tests/e2e/deploy has it, which gives cluster B another token where its own is gone.
    async fn deploy_again(&self) -> Result<()> {
        let mut values: Value = serde_json::from_slice(&std::fs::read(&self.0)?)?;
        let program = values["operator"]["podAnnotations"]["program"].as_str().unwrap_or("again").to_string();
        values.as_object_mut().context("no values")?.remove("clusters");
        std::fs::write(&self.0, values.to_string())?;
        // What was registered without helm stands in its way.
        let registered = "vmmigration.io/cluster,app.kubernetes.io/managed-by!=Helm";
        let place = ["--context", "site-a", "-n", SYSTEM];
        command("kubectl", &[&place[..], &["delete", "secrets", "-l", registered]].concat()).await?;
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").display().to_string();
        command(&deploy, &["--inside", &program, "--values", self.values()?]).await.map(drop)
    }

    async fn install(&self) -> Result<()> {
        let values = self.values()?;
        let chart = chart();
        let arguments =
            ["upgrade", "--install", RELEASE, &chart, "--values", values, "--wait", "--timeout", "180s"];
        helm(&arguments).await.map(drop)
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn chart() -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.join("../../charts/vmmigration-operator").display().to_string()
}

async fn helm(arguments: &[&str]) -> Result<String> {
    let place = ["--kube-context", "site-a", "--namespace", SYSTEM];
    command("helm", &[arguments, &place].concat()).await
}

/// Uninstalls; definitions, objects and the movers' namespace stay as they are.
async fn uninstall(lab: &Rc<Lab>, migration: &Migration) -> Result<()> {
    helm(&["uninstall", RELEASE, "--wait", "--timeout", "120s"]).await?;
    until("the end of the operator's pod", 90, || async {
        Ok(labelled(&lab.kube, SYSTEM, OPERATOR).await?.is_empty().then_some(()))
    })
    .await?;
    let before = migration.get().await?;
    ensure!(before.metadata.deletion_timestamp.is_none(), "uninstalling deletes migrations");
    let definitions: Api<CustomResourceDefinition> = Api::all(lab.kube.clone());
    for (_, plural) in KINDS {
        let definition = definitions.get(&format!("{plural}.vmmigration.io")).await?;
        ensure!(definition.metadata.deletion_timestamp.is_none(), "uninstalling deletes {plural}");
    }
    for (kind, wanted) in [("OpenStackCloud", 2), ("ObjectStore", 1), ("VmMigration", 1)] {
        let left = api(&lab.kube, &lab.name, kind).list(&ListParams::default()).await?.items.len();
        ensure!(left == wanted, "{left} {kind} left");
    }
    let movers = Api::<Namespace>::all(lab.kube.clone()).get(MOVERS).await?;
    ensure!(movers.metadata.deletion_timestamp.is_none(), "uninstalling deletes {MOVERS}");
    Ok(())
}

#[test]
fn helm_upgrade_and_uninstall_disturb_no_migration() -> Result<()> {
    exclusive("helm", |lab| async move {
        let release = Release::found(&lab).await?;
        let outcome = upgraded_and_uninstalled(&lab, &release).await;
        // Whatever came of it, everybody else needs the operator as it was.
        let restored = release.deploy_again().await;
        outcome?;
        restored
    })
}

async fn upgraded_and_uninstalled(lab: &Rc<Lab>, release: &Release) -> Result<()> {
    let made = lab.a.make_server(&lab.name, Disks::ROOT).await?;
    let desk = Desk::of(lab, &made.name, include_str!("helm.rs")).await?;
    let page = written(&made, &[]).await?;
    let migration = lab.migration(&made.name, CutoverMode::Now).checked()?.create().await?;

    // In flight: the operator is away for a while during the backup, and upgraded during the restore.
    mover(lab, &migration, "backup-0").await?;
    uninstall(lab, &migration).await?;
    release.install().await?;
    mover(lab, &migration, "restore-0").await?;
    let old = labelled(&lab.kube, SYSTEM, OPERATOR).await?;
    let (chart, mark) = (chart(), format!("operator.podAnnotations.e2e={}", lab.name));
    let more =
        ["upgrade", RELEASE, &chart, "--reuse-values", "--set-string", &mark, "--wait", "--timeout", "180s"];
    helm(&more).await?;
    let new = labelled(&lab.kube, SYSTEM, OPERATOR).await?;
    ensure!(new.iter().all(|p| old.iter().all(|o| o.uid() != p.uid())), "the operator was not replaced");
    let object = migration.wait_succeeded().await?;
    serves(&in_b(lab, &object).await?, &[], &page).await?;
    let uid = migration.uid().await?;
    let found = counted(lab, &uid).await?;
    ensure!(found == (1, 1, 1), "servers, volumes, ports in B: {found:?}");
    let copies = |job: &str| job.starts_with("backup") || job.starts_with("restore");
    let tries: Vec<_> = object
        .status
        .iter()
        .flat_map(|s| &s.jobs)
        .filter(|j| copies(j.name.as_str()) && j.attempt > 1)
        .collect();
    ensure!(tries.is_empty(), "a copy was made again: {tries:?}");

    // Finished: it stays as it is, with its report, and is taken up again by what a page installs.
    uninstall(lab, &migration).await?;
    let reports = lab.api::<VmMigrationReport>(&lab.name);
    reports.get(&format!("web-{}", &uid[..8])).await.context("the report is gone")?;
    let after = migration.get().await?;
    ensure!(after.status == object.status, "the status was {:?}, is {:?}", object.status, after.status);
    installed_by_the_page(lab, &desk).await?;
    migration.delete().await?;
    migration.wait_gone(60).await?;
    ensure!(lab.b.server(&in_b(lab, &object).await?.id).await?.status == "ACTIVE", "B's server was touched");
    Ok(())
}

/// Both parts of docs/getting-started.md, and the registration of cluster B; a cloud near it uses that.
async fn installed_by_the_page(lab: &Rc<Lab>, desk: &Desk) -> Result<()> {
    let movers =
        ["uninstall", "vmmigration-movers", "--kube-context", "site-b", "--namespace", SYSTEM, "--wait"];
    command("helm", &movers).await?;
    desk.platform(
        "helm install vmmigration charts/vmmigration-operator -n vmmigration-system --create-namespace --set image.repository=registry.example.com/vmmigration --set image.tag=0.1.0",
        &[
            // The image is on the nodes of the test bed.
            ("registry.example.com/", "localhost/"),
            ("image.tag=0.1.0", "image.tag=dev --set image.pullPolicy=Never"),
        ],
    )
    .await?;
    desk.platform("kubectl -n vmmigration-system rollout status deployment/vmmigration-operator", &[])
        .await?;
    desk.platform(
        "helm install vmmigration-movers charts/vmmigration-operator --kube-context cluster-b -n vmmigration-system --create-namespace --set mode=movers",
        &[],
    )
    .await?;
    desk.platform(KUBECONFIG, &[]).await?;
    let secret = "kubectl -n vmmigration-system create secret generic vmmigration-cluster-site-b --from-literal=namespace=vmmigration-movers --from-file=kubeconfig=site-b.kubeconfig";
    desk.platform(secret, &[]).await?;
    let label =
        "kubectl -n vmmigration-system label secret vmmigration-cluster-site-b vmmigration.io/cluster=site-b";
    desk.platform(label, &[]).await?;
    desk.platform("rm site-b.kubeconfig", &[]).await?;
    desk.done()?;

    let credentials_ref = CloudCredentialsRef { secret_name: "site-b".into(), cloud_name: None };
    let spec = OpenStackCloudSpec { credentials_ref, cluster: Some("site-b".into()), transfer: None };
    let clouds = lab.api::<OpenStackCloud>(&lab.name);
    clouds.create(&PostParams::default(), &OpenStackCloud::new("registered", spec)).await?;
    until("a cloud near the cluster that the page registers", 120, || async {
        let status = clouds.get("registered").await?.status.unwrap_or_default();
        let ready = vmmigration::crd::conditions::status(&status.conditions, "Ready") == Some(true);
        // The cluster itself has answered; of its cloud the page's first commands say nothing.
        let reason = status.transfer.clone().unwrap_or_default().reason;
        ensure!(ready && reason.contains("not proven to be servers"), "{status:?}");
        Ok(Some(()))
    })
    .await
}

/// The kubeconfig for cluster B.
const KUBECONFIG: &str = r#"b="kubectl --context cluster-b"
ns=vmmigration-movers
server=$($b config view --minify -o jsonpath='{.clusters[0].cluster.server}')
until $b -n $ns get secret vmmigration-movers-token -o jsonpath='{.data.token}' | grep -q .; do sleep 1; done
ca=$($b -n $ns get secret vmmigration-movers-token -o jsonpath='{.data.ca\.crt}')
token=$($b -n $ns get secret vmmigration-movers-token -o jsonpath='{.data.token}' | base64 -d)
(umask 077; cat > site-b.kubeconfig) <<EOF
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "$server", certificate-authority-data: "$ca"}}]
users: [{name: u, user: {token: "$token"}}]
contexts: [{name: c, context: {cluster: c, user: u, namespace: "$ns"}}]
current-context: c
EOF"#;
