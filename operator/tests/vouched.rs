//! A tenant who plays a cloud gets no volume into a cluster: not with an address of its own for Cinder, not with a Keystone
//! of its own, not with a CA of its own. Against loopback clouds, one of them behind TLS, and a small Kubernetes API.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should stop")]

mod openstack_support;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::Request, http::header::CONTENT_TYPE};
use http::{Method, StatusCode};
use kube::Client;
use openstack_support::{Fake, PROJECT, SECRET, loopback, me, settings, tls::behind_tls};
use serde_json::{Value, json};
use vmmigration::{
    controller::{
        block_storage::{Access, look, vouched},
        clouds::CloudCache,
        clusters::MoverCluster,
        context::{Context, Settings},
        execute::Hands,
        observe::Look,
        references::{References, SideRef},
    },
    crd::v1alpha1::{VmMigration, VmMigrationStatus},
    migration::{
        block_storage::resolve,
        names::{Role, Side},
        observed::{Observed, Problem},
        step::Step,
    },
    openstack::{Cloud, ClusterCloud, Credentials, Timeouts},
};

/// A certificate of its own authority.
const OWN_AUTHORITY: &str = "-addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";

/// What a tenant writes: an address of Keystone, keys of the entry, and a CA.
fn tenant(auth_url: &str, keys: Value, ca: Option<&str>) -> Credentials {
    let auth = json!({"auth_url": auth_url, "username": "u", "password": SECRET, "project_name": "p",
        "user_domain_name": "Default", "project_domain_name": "Default"});
    let mut entry = json!({"auth": auth});
    entry.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    let yaml = json!({"clouds": {"a": entry}}).to_string();
    Credentials::parse(yaml.as_bytes(), None, ca.map(str::as_bytes)).unwrap()
}

/// What the platform says.
fn platform(values: Value) -> ClusterCloud {
    ClusterCloud::parse(|key| values.get(key).and_then(Value::as_str).map(String::from)).unwrap()
}

/// A Kubernetes API with the CSI driver and these nodes, which takes what is created and keeps it.
#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<Vec<Value>>>);

impl Cluster {
    fn mover(&self, nodes: &[&str], cloud: Result<ClusterCloud, String>) -> MoverCluster {
        MoverCluster { client: self.client(nodes), namespace: "movers".into(), cloud }
    }

    fn client(&self, nodes: &[&str]) -> Client {
        let node = |id: &&str| {
            let ready = json!([{"type": "Ready", "status": "True"}]);
            json!({"metadata": {"name": "n"}, "spec": {"providerID": id}, "status": {"conditions": ready}})
        };
        let nodes: Vec<Value> = nodes.iter().map(node).collect();
        let created = self.0.clone();
        let answer = move |request: Request| {
            let list = |kind: &str, version: &str, items: Value| json!({"kind": kind, "apiVersion": version, "metadata": {}, "items": items});
            let drivers = json!([{"metadata": {"name": "cinder.csi.openstack.org"}}]);
            let listed = match request.uri().path() {
                "/api/v1/nodes" => list("NodeList", "v1", json!(nodes)),
                _ => list("PartialObjectMetadataList", "meta.k8s.io/v1", drivers),
            };
            let created = created.clone();
            async move {
                if request.method() != Method::POST {
                    return (StatusCode::OK, [(CONTENT_TYPE, "application/json")], listed.to_string());
                }
                let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
                created.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                (
                    StatusCode::CREATED,
                    [(CONTENT_TYPE, "application/json")],
                    String::from_utf8(body.to_vec()).unwrap(),
                )
            }
        };
        Client::new(Router::new().fallback(answer), "team")
    }

    /// The volumes that it was given.
    fn handles(&self) -> Vec<String> {
        let created = self.0.lock().unwrap();
        created.iter().map(|o| o["spec"]["csi"]["volumeHandle"].as_str().unwrap().to_string()).collect()
    }
}

async fn session(cluster: &MoverCluster, credentials: &Credentials) -> Result<Cloud, Problem> {
    let (sessions, policy) = (CloudCache::default(), loopback());
    vouched(cluster, Access { sessions: &sessions, policy: &policy, credentials, name: "site-a" }).await
}

#[tokio::test]
async fn the_platform_vouches_only_for_its_own_cloud() {
    let (real, played) = (Fake::start().await, Fake::start().await);
    let (front, own) =
        (behind_tls(real.address, OWN_AUTHORITY).await, behind_tls(played.address, OWN_AUTHORITY).await);
    let here = format!("{}/identity/v3", front.address);
    let bound = |url: &str| platform(json!({"identityURL": url, "region": "R", "ca": front.certificate}));
    let cluster = Cluster::default().mover(&[], Ok(bound(&here)));

    // The tenant's CA is not looked at, be it right, wrong, or not there.
    for ca in [Some(front.certificate.as_str()), Some(&own.certificate), None] {
        let cloud = session(&cluster, &tenant(&here, json!({}), ca)).await.unwrap();
        assert_eq!((cloud.project_id().as_str(), cloud.region()), (PROJECT, Some("R")));
    }
    let fake_volumes = json!({"volume_endpoint_override": played.url("/volume/v3")});
    let table = [
        // A Cinder of its own, a Keystone of its own, the same without TLS, another region.
        (tenant(&here, fake_volumes, Some(&front.certificate)), "block_storage_endpoint_override"),
        (
            tenant(&format!("{}/identity", own.address), json!({}), Some(&own.certificate)),
            "the platform bound",
        ),
        (tenant(&real.url("/identity"), json!({}), None), "the platform bound"),
        (tenant(&here, json!({"region_name": "Q"}), Some(&front.certificate)), "region Q"),
    ];
    for (credentials, told) in table {
        let problem = session(&cluster, &credentials).await.unwrap_err();
        assert!(problem.message.contains(told) && !problem.transient, "{told}: {problem:?}");
    }

    // Somebody who answers at the platform's address, with a CA that only the tenant names: its Secret alone would do.
    let taken = format!("{}/identity", own.address);
    let credentials = tenant(&taken, json!({}), Some(&own.certificate));
    Cloud::connect(&credentials, &loopback(), "site-a", Timeouts::default()).await.unwrap();
    let asked = played.seen("").len();
    let problem = session(&Cluster::default().mover(&[], Ok(bound(&taken))), &credentials).await.unwrap_err();
    assert!(problem.message.contains("not trusted"), "{problem:?}");
    assert_eq!(played.seen("").len(), asked, "nothing was said to it");

    let unbound = Cluster::default().mover(&[], ClusterCloud::parse(|_| None));
    let problem = session(&unbound, &tenant(&here, json!({}), Some(&front.certificate))).await.unwrap_err();
    assert!(problem.message.contains("identityURL"), "{problem:?}");
}

#[tokio::test]
async fn disks_travel_as_devices_only_where_the_nodes_are_servers_of_that_cloud() {
    let fake = Fake::start().await;
    fake.on(
        "GET /compute/v2.1/servers/detail",
        200,
        json!({"servers": [{"id": "n1", "name": "n", "status": "ACTIVE", "metadata": {}}]}),
    );
    let (sessions, policy) = (CloudCache::default(), loopback());
    // Plain http, where the platform says so itself.
    let url = fake.url("/identity");
    let seen = json!({"identityURL": url, "region": "R"});
    let stated = json!({"identityURL": url, "region": "R", "nodesAreServers": "true"});
    let elsewhere = json!({"identityURL": "https://id.example/v3", "region": "R"});
    let fake_volumes = json!({"block_storage_endpoint_override": fake.url("/volume/v3")});
    for (bound, node, keys, mode, told) in [
        (&seen, "openstack:///n1", json!({}), "Volume", "Ready node"),
        (&seen, "openstack:///another", json!({}), "Image", "can see"),
        (&seen, "kind://docker/n1", json!({}), "Image", "providerID"),
        (&stated, "kind://docker/n1", json!({}), "Volume", "Ready node"),
        (&stated, "kind://docker/n1", fake_volumes, "Image", "block_storage_endpoint_override"),
        (&elsewhere, "openstack:///n1", json!({}), "Image", "https://id.example/v3/"),
    ] {
        let cluster = Cluster::default().mover(&[node], Ok(platform(bound.clone())));
        let credentials = tenant(&url, keys, None);
        let access =
            Access { sessions: &sessions, policy: &policy, credentials: &credentials, name: "site-a" };
        let found = resolve(&look(&cluster, None, access).await, &[]).unwrap();
        assert_eq!(found.mode, mode, "{bound} {node}: {}", found.reason);
        assert!(found.reason.contains(told), "{bound} {node}: {}", found.reason);
    }
}

/// Everything that a step has: the session that was looked with is the tenant's own.
struct Bed {
    cluster: Cluster,
    ctx: Context,
    object: VmMigration,
    status: VmMigrationStatus,
    refs: References,
    look: Look,
}

impl Bed {
    async fn new(real: &Fake, credentials: Credentials) -> Self {
        let bound =
            platform(json!({"identityURL": real.url("/identity"), "region": "R", "nodesAreServers": "true"}));
        let cluster = Cluster::default();
        let settings = Settings { own_cluster: Some(bound.clone()), ..settings() };
        let ctx = Context::new(cluster.client(&[]), settings, Default::default());
        // Sessions are there already: only a test may have clouds on loopback.
        let session = ctx.clouds.session(&credentials, &loopback(), "site-a").await.unwrap();
        if let Ok(admitted) = bound.admit(&credentials) {
            ctx.clouds.session(&admitted, &loopback(), "site-a").await.unwrap();
        }
        let side = SideRef { name: "site-a".into(), cluster: None, credentials, transfer: None };
        let none = Problem { id: "x".into(), message: "x".into(), suggestion: None, transient: true };
        let refs =
            References { source: Ok(side.clone()), destination: Ok(side), store: Err(none), vault: None };
        let spec = json!({"source": {"cloud": "site-a", "server": "web"}, "destination": {"cloud": "site-a"},
            "cutover": {"mode": "Now"}});
        let object = VmMigration::new("web-1", serde_json::from_value(spec).unwrap());
        let look =
            Look { seen: Observed::default(), source: Some(session.clone()), destination: Some(session) };
        Bed { cluster, ctx, object, status: VmMigrationStatus::default(), refs, look }
    }

    /// What the cluster was given, or why not.
    async fn give(&self, volume: &str) -> Result<Vec<String>, String> {
        let (ctx, object, status, refs, look) =
            (&self.ctx, &self.object, &self.status, &self.refs, &self.look);
        let hands = Hands { ctx, me: &me(), object, status, refs, look };
        let side = Side::Source;
        let step = Step::CreatePersistentVolume { side, disk: 0, volume_id: volume.into(), size_gib: 1 };
        let done = hands.execute(&step).await;
        let given = self.cluster.handles();
        done.map(|_| given.clone()).map_err(|e| {
            assert!(given.is_empty(), "{given:?}");
            e.0.message
        })
    }
}

/// A volume of a cloud, with marks or without.
fn volume(fake: &Fake, id: &str, marks: BTreeMap<String, String>) {
    let document = json!({"volume": {"id": id, "status": "available", "metadata": marks}});
    fake.on(&format!("GET /volume/v3/{PROJECT}/volumes/{id}"), 200, document);
}

#[tokio::test]
async fn a_cluster_is_given_only_our_volumes_of_its_own_cloud() {
    let (real, played) = (Fake::start().await, Fake::start().await);
    volume(&real, "ours", me().marks(Role::ExportVolume, 0));
    volume(&real, "of-another-disk", me().marks(Role::ExportVolume, 1));
    volume(&real, "unmarked", BTreeMap::new());
    // Somebody else's volume: in the real cloud these credentials do not see it.
    volume(&played, "theirs", me().marks(Role::ExportVolume, 0));

    let honest = tenant(&real.url("/identity"), json!({}), None);
    let bed = Bed::new(&real, honest).await;
    for (id, told) in [("theirs", "is not seen"), ("unmarked", "our mark"), ("of-another-disk", "our mark")] {
        let why = bed.give(id).await.unwrap_err();
        assert!(why.contains(told), "{id}: {why}");
    }
    assert_eq!(bed.give("ours").await, Ok(vec!["ours".to_string()]));

    // What the tenant plays takes the token of the real one.
    let real = Fake::start().await;
    played.expire();
    let keys = json!({"volume_endpoint_override": played.url("/volume/v3")});
    for (attacker, told) in [
        (tenant(&real.url("/identity"), keys, None), "block_storage_endpoint_override"),
        (tenant(&played.url("/identity"), json!({}), None), "the platform bound"),
    ] {
        let bed = Bed::new(&real, attacker).await;
        let played_one = bed.look.source.as_ref().unwrap().get_volume("theirs").await.unwrap();
        assert!(played_one.is_some(), "what the tenant plays is what is seen");
        let why = bed.give("theirs").await.unwrap_err();
        assert!(why.contains("is not given to the cluster") && why.contains(told), "{why}");
    }
}
