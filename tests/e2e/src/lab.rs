//! A test's own part of the lab: namespace, Secrets, clouds, store; its begin and its end.

use crate::{
    MadeServer, Site, diagnose, leftovers,
    migration::Migration,
    pods,
    site::{ca, clouds_yaml, setting},
    until,
    wait::FairClock,
};
use anyhow::{Context, Result, anyhow, bail, ensure};
use futures::FutureExt;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
};
use rand::RngExt;
use serde_json::json;
use std::{
    collections::BTreeMap,
    future::Future,
    io::Write,
    panic::AssertUnwindSafe,
    sync::{Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};
use vmmigration::{
    crd::v1alpha1::*,
    net::{EndpointPolicy, address_check},
    openstack::Server,
    store::{ObjectStoreLocation, Store, StoreKeys, StoreOptions},
};

/// Tests that disturb everybody hold it alone. All tests are threads of one process.
static EVERYBODY: RwLock<()> = RwLock::new(());

/// No test takes longer, by the clock of [`FairClock`].
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// What of a migration may stay when its object is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stays {
    /// Nothing: it was given up before anything ran in B.
    #[default]
    Nothing,
    /// The server in B, which ran once, with its disks and ports.
    ServerInB,
    /// The same, the claim on the source, and snapshots that cannot be deleted while the source is stopped.
    Moved,
}

/// A test's own part of the lab.
pub struct Lab {
    /// Namespace, prefix of the store, and what the names of all its servers begin with.
    pub name: String,
    /// The cloud that servers come from.
    pub a: Site,
    /// The cloud that they go to.
    pub b: Site,
    /// The operator's cluster, near cloud A.
    pub kube: Client,
    /// The registered cluster near cloud B.
    pub kube_b: Client,
    /// UIDs of all its migrations, and what of each may stay.
    pub(crate) uids: Mutex<BTreeMap<String, Stays>>,
}

/// Runs a test side by side with others.
pub fn shared<F, A>(name: &str, test: F) -> Result<()>
where
    F: FnOnce(std::rc::Rc<Lab>) -> A,
    A: Future<Output = Result<()>>,
{
    let _together = EVERYBODY.read().unwrap_or_else(PoisonError::into_inner);
    run(name, test)
}

/// Runs a test that disturbs everybody, alone.
pub fn exclusive<F, A>(name: &str, test: F) -> Result<()>
where
    F: FnOnce(std::rc::Rc<Lab>) -> A,
    A: Future<Output = Result<()>>,
{
    let _alone = EVERYBODY.write().unwrap_or_else(PoisonError::into_inner);
    run(name, test)
}

fn run<F, A>(name: &str, test: F) -> Result<()>
where
    F: FnOnce(std::rc::Rc<Lab>) -> A,
    A: Future<Output = Result<()>>,
{
    // Only the first call has an effect.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(whole(name, test))
}

async fn whole<F, A>(name: &str, test: F) -> Result<()>
where
    F: FnOnce(std::rc::Rc<Lab>) -> A,
    A: Future<Output = Result<()>>,
{
    let begun = Instant::now();
    let lab = match Lab::begin(name).await {
        Ok(lab) => std::rc::Rc::new(lab),
        Err(error) => {
            report(name, begun, &error);
            return Err(error.context("preparing the test"));
        }
    };
    let body = AssertUnwindSafe(test(lab.clone())).catch_unwind();
    let outcome = tokio::select! {
        () = FairClock::start().until(LIMIT) => Err(anyhow!("not done after {} s", LIMIT.as_secs())),
        outcome = body => outcome.unwrap_or_else(|panic| Err(anyhow!("panicked: {:?}", panic.downcast_ref::<String>()))),
    };
    if let Err(error) = &outcome {
        report(name, begun, error);
        diagnose::print(&lab).await;
    }
    let end = lab.end().await;
    if let Err(error) = &end {
        report(name, begun, error);
    }
    // Past the capture of output: what takes long should be seen in every run.
    let _ = writeln!(std::io::stderr(), "{name}: {} s with clean-up", begun.elapsed().as_secs());
    outcome.and(end.context("at the end of the test"))
}

/// Says what is wrong: at once, and again at the head of what is captured of the test.
fn report(name: &str, begun: Instant, error: &anyhow::Error) {
    let text = format!("{name} failed after {} s: {error:#}", begun.elapsed().as_secs());
    let _ = writeln!(std::io::stderr(), "{text}");
    eprintln!("{text}");
}

impl Lab {
    async fn begin(test: &str) -> Result<Self> {
        let tail: String = {
            let mut random = rand::rng();
            (0..4).map(|_| char::from(b'a' + random.random_range(0..26u8))).collect()
        };
        let (a, b) = futures::try_join!(Site::connect("site-a"), Site::connect("site-b"))?;
        let (kube, kube_b) = futures::try_join!(pods::client("site-a"), pods::client("site-b"))?;
        let name = format!("e2e-{}-{tail}", test.replace('_', "-"));
        let lab = Lab { name, a, b, kube, kube_b, uids: Mutex::default() };
        lab.prepare(&lab.name).await?;
        Ok(lab)
    }

    /// Makes a namespace with three Secrets, two clouds and a store, as a user does.
    pub async fn prepare(&self, namespace: &str) -> Result<()> {
        let wanted = Namespace {
            metadata: ObjectMeta { name: Some(namespace.into()), ..Default::default() },
            ..Default::default()
        };
        Api::all(self.kube.clone()).create(&PostParams::default(), &wanted).await?;
        for site in [&self.a, &self.b] {
            self.secret(namespace, &site.name, &self.cloud_secret(site)?).await?;
        }
        let keys = [
            ("AWS_ACCESS_KEY_ID", setting("TESTBED_S3_ACCESS_KEY")?),
            ("AWS_SECRET_ACCESS_KEY", setting("TESTBED_S3_SECRET_KEY")?),
            ("cacert", String::from_utf8(ca()?)?),
        ];
        self.secret(namespace, "transfer", &keys).await?;
        for (cloud, cluster) in [("site-a", None), ("site-b", Some("site-b".to_string()))] {
            let credentials_ref = CloudCredentialsRef { secret_name: cloud.into(), cloud_name: None };
            // What a test does not say otherwise (`volume_mode::modes`) is about images.
            let transfer = Some(Transfer {
                mode: TransferMode::Image,
                assume_zero_target: false,
                takes_any_disk: false,
            });
            let spec = OpenStackCloudSpec { credentials_ref, cluster, transfer };
            self.api(namespace).create(&PostParams::default(), &OpenStackCloud::new(cloud, spec)).await?;
        }
        let spec = ObjectStoreSpec {
            location: self.location()?,
            credentials_secret_ref: StoreSecretRef { name: "transfer".into() },
            bandwidth: None,
        };
        self.api(namespace).create(&PostParams::default(), &ObjectStore::new("transfer", spec)).await?;
        Ok(())
    }

    /// An API of a namespace of the operator's cluster.
    pub fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.kube.clone(), namespace)
    }

    /// What a cloud's Secret holds.
    pub fn cloud_secret(&self, site: &Site) -> Result<[(&'static str, String); 2]> {
        Ok([("clouds.yaml", clouds_yaml(&site.name, &site.entry)), ("cacert", String::from_utf8(ca()?)?)])
    }

    /// Makes or replaces a Secret.
    pub async fn secret(&self, namespace: &str, name: &str, data: &[(&str, String)]) -> Result<()> {
        let data: BTreeMap<_, _> = data.iter().map(|(k, v)| (*k, v)).collect();
        let secret: Secret = serde_json::from_value(json!({"metadata": {"name": name}, "stringData": data}))?;
        let api = self.api::<Secret>(namespace);
        let _ = api.delete(name, &DeleteParams::default()).await;
        api.create(&PostParams::default(), &secret).await?;
        Ok(())
    }

    /// Where in the store it keeps its repositories.
    pub fn location(&self) -> Result<String> {
        let (endpoint, bucket) = (setting("TESTBED_S3_ENDPOINT")?, setting("TESTBED_S3_BUCKET")?);
        Ok(format!("s3:{endpoint}/{bucket}/{}", self.name))
    }

    /// The place in the store that is this test's own.
    pub fn store(&self) -> Result<Store> {
        let location = ObjectStoreLocation::parse(&self.location()?)?;
        let keys = StoreKeys::find(&location, |name| match name {
            "AWS_ACCESS_KEY_ID" => setting("TESTBED_S3_ACCESS_KEY").map(Some),
            "AWS_SECRET_ACCESS_KEY" => setting("TESTBED_S3_SECRET_KEY").map(Some),
            _ => Ok(None),
        })?;
        let mut options = StoreOptions::new(address_check(EndpointPolicy::default()));
        options.ca_pem = Some(ca()?);
        Ok(Store::new(&location, &keys, &options)?)
    }

    /// A migration of the server `server` in the test's namespace; not created yet.
    pub fn migration(self: &std::rc::Rc<Self>, server: &str, mode: CutoverMode) -> Migration {
        Migration::new(self.clone(), &self.name, server, mode)
    }

    /// Does `work` while it watches that A's server and a server of the same name in B never run both.
    pub async fn never_both<T>(&self, made: &MadeServer, work: impl Future<Output = Result<T>>) -> Result<T> {
        let running = async || -> Result<Vec<Server>> {
            let found = self.b.cloud.find_servers(&made.name).await?;
            Ok(found.into_iter().filter(|b| b.status != "SHUTOFF").collect())
        };
        let both = async || -> Result<Option<anyhow::Error>> {
            // Every look at a server costs its cloud a tenth of a second of CPU: A is looked at while B has one.
            if running().await?.is_empty() {
                return Ok(None);
            }
            let a = self.a.server(&made.id).await?;
            if a.status != "ACTIVE" {
                return Ok(None);
            }
            // It may run again when B does not any more.
            let still = running().await?;
            Ok(still.first().map(|b| anyhow!("A is {} while B is {}: {b:?}", a.status, b.status)))
        };
        let watch = async {
            loop {
                // A cloud that is out of order for a while shows nothing.
                if let Ok(Some(both)) = both().await {
                    return both;
                }
                tokio::time::sleep(Duration::from_millis(1500)).await;
            }
        };
        tokio::select! { done = work => done, two = watch => Err(two) }
    }

    /// The operator's log.
    pub async fn operator_log(&self, lines: Option<i64>) -> Result<String> {
        let found = pods::labelled(&self.kube, pods::SYSTEM, pods::OPERATOR).await?;
        let pod = found.last().context("no operator")?;
        pods::log(&self.kube, pods::SYSTEM, &pod.name_any(), lines).await
    }

    /// Removes everything of the test and checks that nothing else is left.
    async fn end(&self) -> Result<()> {
        let namespaces = self.namespaces().await?;
        let mut wrong = vec![];
        for namespace in &namespaces {
            if let Err(e) = self.remove_migrations(namespace).await {
                wrong.push(format!("{e:#}"));
            }
        }
        wrong.extend(leftovers::of_test(self).await?);
        for namespace in &namespaces {
            let _ =
                Api::<Namespace>::all(self.kube.clone()).delete(namespace, &DeleteParams::default()).await;
        }
        for site in [&self.a, &self.b] {
            if let Err(e) = leftovers::remove(self, site).await {
                wrong.push(format!("{}: {e:#}", site.name));
            }
        }
        ensure!(wrong.is_empty(), "left behind or not removable:\n  {}", wrong.join("\n  "));
        Ok(())
    }

    /// The test's namespaces: all whose name begins with its name.
    async fn namespaces(&self) -> Result<Vec<String>> {
        let all = Api::<Namespace>::all(self.kube.clone()).list(&ListParams::default()).await?;
        Ok(all.iter().map(ResourceExt::name_any).filter(|n| n.starts_with(&self.name)).collect())
    }

    async fn remove_migrations(&self, namespace: &str) -> Result<()> {
        let api = self.api::<VmMigration>(namespace);
        for object in api.list(&ListParams::default()).await? {
            self.remember(&object);
            let _ = api.delete(&object.name_any(), &DeleteParams::default()).await;
        }
        until(&format!("the end of all VmMigrations in {namespace}"), 180, || async {
            let left = api.list(&ListParams::default()).await?.items;
            for object in &left {
                self.remember(object);
            }
            let said: Vec<_> = left
                .iter()
                .map(|o| o.status.as_ref().and_then(|s| s.message.clone()).unwrap_or_default())
                .collect();
            if left.is_empty() { Ok(Some(())) } else { bail!("{said:?}") }
        })
        .await
    }

    /// Keeps in mind which migrations there were.
    pub(crate) fn remember(&self, object: &VmMigration) {
        let Some(uid) = object.uid() else { return };
        let active = object.status.as_ref().and_then(|s| s.destination.as_ref()?.active_at.as_ref());
        let stays = match (crate::migration::succeeded(object), active) {
            (true, _) => Stays::Moved,
            (false, Some(_)) => Stays::ServerInB,
            (false, None) => Stays::Nothing,
        };
        let mut uids = self.uids.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = uids.entry(uid).or_default();
        *kept = stays.max(*kept);
    }

    /// UIDs of all its migrations, and what of each may stay.
    pub(crate) fn remembered(&self) -> BTreeMap<String, Stays> {
        self.uids.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
