//! All reads of a reconcile: both clouds and clusters, as far as the phase needs them.

use super::{
    Error,
    block_storage::{self, Access},
    clusters::MoverCluster,
    context::Context,
    hooks,
    references::{self, References, SideRef},
};
use crate::{
    build::secret::ANNOTATION_COPIED,
    crd::{
        stored::Stored,
        v1alpha1::{
            Check, DestinationStatus, ExportStatus, HookState, OUTPUT_BYTES, Phase, ResolvedTransfer,
            VmMigration, VmMigrationReport, VmMigrationSpec, VmMigrationStatus, output_tail,
        },
    },
    migration::{
        block_storage::{fills_while_copying, pinned as pinned_mode},
        checks, image_checks, looks,
        names::{Identity, LABEL_MIGRATION, LABEL_SIDE, Side},
        observed::*,
        place::{self, Place, Recorded},
        report,
    },
    openstack::{Cloud, CloudError, ErrorKind, Listed, Proof, Server, Sighting},
};
use futures::{
    AsyncReadExt as _,
    future::{join_all, try_join_all},
};
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{Pod, Secret},
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::timeout;

/// No cluster may hold up a reconcile for longer.
const CLUSTER_TIMEOUT: Duration = Duration::from_secs(15);

/// A kubelet keeps about 10 MiB of a container's log.
const LOG_BYTES: u64 = 32 << 20;

/// How many of a console's last lines are looked at.
pub(super) const CONSOLE_LINES: u32 = 2000;

/// What was seen, and the sessions that steps use.
pub struct Look {
    /// As plain data.
    pub seen: Observed,
    /// The source cloud, when it answered.
    pub source: Option<Cloud>,
    /// The destination cloud, when it answered.
    pub destination: Option<Cloud>,
}

/// Which reads a phase needs. Every call costs a cloud something, and there is a pass every two seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Needs {
    inventory: bool,
    clusters: bool,
    /// The new server's console.
    console: bool,
    source: SourceNeeds,
    destination: DestinationNeeds,
}

/// What a phase needs of the source.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum SourceNeeds {
    #[default]
    Nothing,
    /// The server and what was done to it.
    Server,
    /// What we made there, too.
    All,
}

/// What a phase needs of the destination.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum DestinationNeeds {
    #[default]
    Nothing,
    /// Volumes and images that we made.
    Disks,
    /// Servers and ports, too.
    All,
}

fn needs(object: &VmMigration, status: &VmMigrationStatus, now: Timestamp) -> Needs {
    use {DestinationNeeds as D, SourceNeeds as S};
    let deleting = object.metadata.deletion_timestamp.is_some();
    let claimed = status.source.as_ref().is_some_and(|s| s.claimed_at.is_some());
    let all = Needs { clusters: true, source: S::All, destination: D::All, ..Default::default() };
    if deleting || status.failure.is_some() && status.cleaned_up_at.is_none() {
        return all;
    }
    if status.cleaned_up_at.is_some() {
        let source = if looks::source_may_return(status, now) { S::Server } else { S::Nothing };
        return Needs { clusters: source != S::Nothing, source, ..Default::default() };
    }
    let backed_up = status.disks.iter().all(|d| d.backup.is_some());
    let by_volume = pinned_mode(status, Side::Source).is_some_and(ResolvedTransfer::is_volume);
    let begun = |e: &ExportStatus| e.image_id.is_some() || by_volume && e.volume_id.is_some();
    let readable = status.disks.iter().any(|d| d.backup.is_some() || begun(&d.export));
    let destination = if fills_while_copying(status) { D::Disks } else { D::Nothing };
    let warm_pass = Needs { clusters: true, source: S::All, destination, ..Default::default() };
    match status.phase.unwrap_or_default() {
        Phase::Pending | Phase::Preflight | Phase::Blocked => {
            Needs { inventory: true, clusters: true, ..Default::default() }
        }
        // Between two warm passes there is nothing to see.
        Phase::Copying => warm_pass,
        Phase::AwaitingCutover if looks::pass_is_under_way(status) => warm_pass,
        Phase::AwaitingCutover => Needs::default(),
        Phase::Stopping if !claimed => Needs { inventory: true, clusters: true, ..Default::default() },
        Phase::Stopping => Needs { source: S::Server, clusters: true, ..Default::default() },
        Phase::Transferring => Needs {
            // What is not looked at is not decided about: exports end with the last backup, imports begin with the
            // first image that can be read.
            source: if backed_up { S::Server } else { S::All },
            destination: if readable { D::Disks } else { D::Nothing },
            ..all
        },
        Phase::Creating if looks::only_disks_are_made(status) => {
            Needs { source: S::Server, destination: D::Disks, ..all }
        }
        Phase::Creating => Needs { source: S::Server, ..all },
        Phase::Verifying => Needs { source: S::Server, console: reads_console(&object.spec), ..all },
        _ => all,
    }
}

/// A check is about the console, or wants the host keys that the guest prints on it.
fn reads_console(spec: &VmMigrationSpec) -> bool {
    let wants = |c: &Check| c.console.is_some() || c.ssh.is_some();
    spec.verification.iter().flat_map(|v| &v.checks).any(wants)
}

/// Looks.
pub async fn observe(
    ctx: &Context,
    me: &Identity,
    object: &VmMigration,
    status: &VmMigrationStatus,
    refs: &References,
    now: Timestamp,
) -> Result<Look, Error> {
    let mut needs = needs(object, status, now);
    let mut look = Look { seen: Observed::default(), source: None, destination: None };
    look.seen.vault_exists = refs.vault.is_some();
    if needs.inventory {
        look.seen.hook_findings =
            hooks::findings(ctx, object).await.map_err(Error::kube("read what hooks refer to"))?;
        if let Some(wanted) = &object.spec.destination.user_data {
            let found = references::user_data(&ctx.client, &me.namespace, wanted).await;
            let problem = found.map_err(Error::kube("read the user data"))?.err();
            look.seen.hook_findings.extend(problem.map(|p| p.blocker()));
        }
    }
    let captured = captured(me, object, status);
    match &refs.store {
        Ok((view, _)) => look.seen.store = Some(view.clone()),
        Err(p) => look.seen.reference_problems.push(p.clone()),
    }
    if !needs.clusters {
        return Ok(look);
    }
    let copied = [Side::Source, Side::Destination].map(|side| refs.copied(side));
    let of_cluster = |side| ClusterNeeds {
        captured: &captured,
        copied: match side {
            Side::Source => copied[0].as_deref(),
            Side::Destination => copied[1].as_deref(),
        },
        devices: pinned_mode(status, side).is_some_and(ResolvedTransfer::is_volume),
        storage: needs.inventory,
    };
    let (source, destination, a, b, report) = tokio::join!(
        session(ctx, &refs.source, Side::Source),
        session(ctx, &refs.destination, Side::Destination),
        cluster(ctx, me, &refs.source, Side::Source, of_cluster(Side::Source)),
        cluster(ctx, me, &refs.destination, Side::Destination, of_cluster(Side::Destination)),
        report(ctx, me, object, status),
    );
    (look.seen.source_cluster, look.seen.destination_cluster) = (a, b);
    let deleting = object.metadata.deletion_timestamp.is_some();
    if !deleting && looks::clouds_may_wait(me, status, &look.seen, now) {
        (needs.source, needs.destination) = (SourceNeeds::Nothing, DestinationNeeds::Nothing);
    }
    (look.seen.report_exists, look.seen.report_finished) = report?;
    let source = source.and_then(|cloud| held(cloud, place::settled(status, Side::Source)));
    let destination = destination.and_then(|cloud| held(cloud, place::settled(status, Side::Destination)));
    look.seen.source_place = source.as_ref().ok().map(place_of);
    look.seen.destination_place = destination.as_ref().ok().map(place_of);
    let judges = |cloud: &Cloud| image_checks::judges(&cloud.versions());
    look.seen.judging = [source.as_ref().ok().and_then(judges), destination.as_ref().ok().and_then(judges)];
    // Credentials that do not open what this migration works on are not handed on.
    if source.is_err() || destination.is_err() {
        for cluster in [&mut look.seen.source_cluster, &mut look.seen.destination_cluster] {
            if let Seen::View(view) = cluster {
                view.stale = false;
            }
        }
    }
    if needs.inventory && !looks::inventory_may_wait(me, status, &look.seen) {
        take_inventory(&mut look, object, source, destination).await;
    } else {
        take_views(&mut look, me, status, needs, source, destination).await;
    }
    Ok(look)
}

/// Jobs of hooks whose output is to be kept.
fn captured(me: &Identity, object: &VmMigration, status: &VmMigrationStatus) -> BTreeSet<String> {
    let captures = |name: &str| object.spec.hooks.iter().any(|h| h.name == name && h.captures());
    let runs = status.hooks.iter().filter(|r| r.state == HookState::Running && captures(&r.name));
    runs.map(|r| me.hook_job(r)).collect()
}

/// Where a session works.
fn place_of(cloud: &Cloud) -> Place {
    Place {
        project_id: cloud.project_id(),
        region: cloud.region().map(String::from),
        identities: cloud.identities().to_vec(),
    }
}

/// Another place than the recorded one holds, and never redirects a deletion.
fn held(cloud: Cloud, recorded: Option<Recorded<'_>>) -> Result<Cloud, Problem> {
    match recorded.and_then(|recorded| recorded.differs(&place_of(&cloud))) {
        None => Ok(cloud),
        Some(why) => Err(Problem {
            id: "project-changed".into(),
            message: format!("InvalidConfiguration: {}: {why}", cloud.name()),
            suggestion: Some("put the former credentials back".into()),
            transient: false,
        }),
    }
}

async fn session(ctx: &Context, side_ref: &Result<SideRef, Problem>, side: Side) -> Result<Cloud, Problem> {
    let r = side_ref.as_ref().map_err(Clone::clone)?;
    ctx.clouds.session(&r.credentials, &ctx.policy(), &r.name).await.map_err(|e| cloud_problem(side, &e))
}

/// An error of a cloud, as a problem of one side.
pub fn cloud_problem(side: Side, e: &CloudError) -> Problem {
    let (id, suggestion) = match e.kind {
        ErrorKind::Unauthorized => {
            (format!("{side}-credentials"), Some("correct the Secret with clouds.yaml"))
        }
        ErrorKind::Forbidden => (format!("{side}-forbidden"), Some("the project's member role is needed")),
        ErrorKind::Ambiguous => (format!("{side}-region"), Some("name it in clouds.yaml, in the Secret")),
        _ => (format!("{side}-cloud-unreachable"), None),
    };
    Problem {
        id,
        message: e.to_string(),
        suggestion: suggestion.map(String::from),
        transient: e.is_transient(),
    }
}

async fn take_inventory(
    look: &mut Look,
    object: &VmMigration,
    source: Result<Cloud, Problem>,
    destination: Result<Cloud, Problem>,
) {
    let spec = &object.spec;
    let a = async {
        let cloud = source?;
        let found = source_inventory(&cloud, spec).await.map_err(|e| cloud_problem(Side::Source, &e))?;
        Ok::<_, Problem>((cloud, found))
    };
    let b = async {
        let cloud = destination?;
        let found = destination_inventory(&cloud).await.map_err(|e| cloud_problem(Side::Destination, &e))?;
        Ok::<_, Problem>((cloud, found))
    };
    let (a, b) = tokio::join!(a, b);
    let (a, b) = match (a, b) {
        (Ok(a), Ok(b)) => (a, b),
        (a, b) => {
            for (p, slot) in [(a.err(), Side::Source), (b.err(), Side::Destination)] {
                if let Some(p) = p {
                    match slot {
                        Side::Source => look.seen.source = Seen::Unseen(p),
                        Side::Destination => look.seen.destination = Seen::Unseen(p),
                    }
                }
            }
            return;
        }
    };
    let (cloud, (candidates, source)) = a;
    look.source = Some(cloud);
    let (cloud, destination) = b;
    look.destination = Some(cloud);
    look.seen.inventory = Some(Inventory { candidates, source, destination });
}

type SourceFound = (Vec<Server>, SourceInventory);

async fn source_inventory(cloud: &Cloud, spec: &VmMigrationSpec) -> Result<SourceFound, CloudError> {
    let candidates = cloud.find_servers(&spec.source.server).await?;
    let [one] = &candidates[..] else { return Ok((candidates, SourceInventory::default())) };
    let (attachments, ports, networks, security_groups) = tokio::try_join!(
        cloud.volume_attachments(&one.id),
        cloud.ports_of_device(&one.id),
        cloud.list_networks(),
        cloud.list_security_groups(),
    )?;
    let volumes = try_join_all(attachments.iter().map(|a| cloud.get_volume(&a.volume_id))).await?;
    // Where the driver cannot be seen preflight assumes the worst.
    let drivers = join_all(attachments.iter().map(|a| cloud.volume_driver_types(&a.volume_id))).await;
    let drivers: BTreeMap<String, String> = attachments
        .iter()
        .zip(drivers)
        .filter_map(|(a, d)| d.ok().flatten().map(|d| (a.volume_id.clone(), d)))
        .collect();
    let volumes = volumes.into_iter().flatten().collect();
    let console = match checks::want_the_sources_console(spec) {
        true => Some(cloud.console_output(&one.id, CONSOLE_LINES).await.map_err(|e| e.to_string())),
        false => None,
    };
    let flavors = vec![];
    let found =
        SourceInventory { attachments, volumes, drivers, ports, networks, security_groups, flavors, console };
    Ok((candidates, found))
}

async fn destination_inventory(cloud: &Cloud) -> Result<DestinationInventory, CloudError> {
    let (flavors, networks, subnets, keypairs, types, security_groups, ports, servers, zones) = tokio::try_join!(
        cloud.list_flavors(),
        cloud.list_networks(),
        cloud.list_subnets(),
        cloud.list_keypairs(),
        cloud.list_volume_types(),
        cloud.list_security_groups(),
        cloud.list_ports(),
        cloud.list_servers(),
        cloud.availability_zones(),
    )?;
    let unread_servers = servers.unread.len() + usize::from(servers.cut);
    let volume_types = types.into_iter().map(|t| t.name).collect();
    Ok(DestinationInventory {
        flavors,
        networks,
        subnets,
        keypairs,
        volume_types,
        security_groups,
        ports: ports.items,
        servers: servers.items,
        unread_servers,
        zones,
        takes_hostname: cloud.takes_hostname(),
    })
}

async fn take_views(
    look: &mut Look,
    me: &Identity,
    status: &VmMigrationStatus,
    needs: Needs,
    source: Result<Cloud, Problem>,
    destination: Result<Cloud, Problem>,
) {
    let server_id = status.source.as_ref().map(|s| s.server_id.clone()).unwrap_or_default();
    let new = status.destination.clone().unwrap_or_default();
    let recorded: Vec<_> = status.disks.iter().filter_map(|d| d.source_volume_id.clone()).collect();
    let made = status.made();
    let a = async {
        let cloud = source?;
        let view = view_source(me, &cloud, &server_id, (&recorded, &made), needs.source)
            .await
            .map_err(|e| cloud_problem(Side::Source, &e))?;
        Ok::<_, Problem>((cloud, view))
    };
    let b = async {
        let cloud = destination?;
        let view = view_destination(me, &cloud, (&new, &made), needs)
            .await
            .map_err(|e| cloud_problem(Side::Destination, &e))?;
        Ok::<_, Problem>((cloud, view))
    };
    let (a, b) = tokio::join!(a, b);
    match a {
        Ok((cloud, view)) => {
            look.source = Some(cloud);
            look.seen.source = view.map_or(Seen::NotLooked, Seen::View);
        }
        Err(p) => look.seen.source = Seen::Unseen(p),
    }
    match b {
        Ok((cloud, view)) => {
            look.destination = Some(cloud);
            look.seen.destination = view.map_or(Seen::NotLooked, Seen::View);
        }
        Err(p) => look.seen.destination = Seen::Unseen(p),
    }
}

async fn view_source(
    me: &Identity,
    cloud: &Cloud,
    server_id: &str,
    (recorded, made): (&[String], &[String]),
    needs: SourceNeeds,
) -> Result<Option<SourceView>, CloudError> {
    if needs == SourceNeeds::Nothing {
        return Ok(None);
    }
    let server = async {
        match server_id {
            "" => Ok(None),
            id => cloud.look_for_server(id).await.map(Some),
        }
    };
    let lists = async {
        if needs != SourceNeeds::All {
            return Ok(Default::default());
        }
        let (volumes, snapshots, images) =
            tokio::try_join!(cloud.list_volumes(), cloud.list_snapshots(), cloud.list_images())?;
        let whole = Whole { cloud, me, recorded };
        Ok((
            whole.list("volumes", volumes)?,
            whole.list("snapshots", snapshots)?,
            whole.list("images", images)?,
        ))
    };
    let (server, (volumes, snapshots, images)) = tokio::try_join!(server, lists)?;
    // After the server, so that an action that changed its state is in the list.
    let actions = match &server {
        Some(Sighting::Found(s)) => cloud.server_actions(&s.id).await?,
        _ => vec![],
    };
    Ok(Some(source_view(me, server, actions, &volumes, &snapshots, &images, recorded, made)))
}

/// What is missing in a list must not be taken for absent, if it may be ours.
struct Whole<'a> {
    cloud: &'a Cloud,
    me: &'a Identity,
    recorded: &'a [String],
}

impl Whole<'_> {
    /// The items of a list. One that cannot be read and does not name us or what is recorded is somebody else's.
    fn list<T>(&self, what: &str, list: Listed<T>) -> Result<Vec<T>, CloudError> {
        let may_be_ours = |item: &serde_json::Value| {
            let text = item.to_string();
            let named = text.contains(&self.me.uid) || self.recorded.iter().any(|id| text.contains(id));
            named || item.get("id").is_none()
        };
        if list.cut || list.unread.iter().any(may_be_ours) {
            let why = "the list is not whole: an item of it cannot be read, or there is more than was given";
            return Err(self.cloud.not_seen(&format!("list {what}"), why));
        }
        Ok(list.items)
    }
}

async fn view_destination(
    me: &Identity,
    cloud: &Cloud,
    (new, made): (&DestinationStatus, &[String]),
    needs: Needs,
) -> Result<Option<DestinationView>, CloudError> {
    if needs.destination == DestinationNeeds::Nothing {
        return Ok(None);
    }
    let whole = Whole { cloud, me, recorded: &new.port_ids };
    let disks = async { tokio::try_join!(cloud.list_volumes(), cloud.list_images()) };
    let rest = async {
        if needs.destination != DestinationNeeds::All {
            return Ok(Default::default());
        }
        tokio::try_join!(servers_made(me, cloud, new), cloud.list_ports())
    };
    let ((volumes, images), ((servers, absent), ports)) = tokio::try_join!(disks, rest)?;
    let (volumes, images) = (whole.list("volumes", volumes)?, whole.list("images", images)?);
    let ports = whole.list("ports", ports)?;
    let mut view = destination_view(me, servers, &volumes, &images, &ports, &new.port_ids, made);
    (view.absent, view.whole) = (absent, needs.destination == DestinationNeeds::All);
    if let Some(server) = view.server().filter(|_| needs.console) {
        let read = cloud.console_output(&server.id, CONSOLE_LINES).await;
        view.console = Some(read.map_err(|e| e.to_string()));
    }
    Ok(Some(view))
}

/// The servers that we made, or what proves that there is none. A server whose id is not recorded can be anywhere in the
/// list: all of it must have been seen.
async fn servers_made(
    me: &Identity,
    cloud: &Cloud,
    made: &DestinationStatus,
) -> Result<(Vec<Server>, Option<Proof>), CloudError> {
    let list = cloud.list_servers().await?;
    let mut ours: Vec<Server> = list.iter().filter(|s| me.server(s).is_some()).cloned().collect();
    let mut absent = None;
    match &made.server_id {
        Some(id) if ours.iter().all(|s| s.id != *id) => match cloud.look_for_server(id).await? {
            Sighting::Found(server) => ours.push(*server),
            Sighting::Gone(proof) => absent = Some(proof),
        },
        None if ours.is_empty() && made.server_requested_at.is_some() => {
            cloud.whole_list_of_servers(&list)?;
            absent = Some(Proof::NotListed { others: list.len() });
        }
        _ => {}
    }
    Ok((ours, absent))
}

async fn report(
    ctx: &Context,
    me: &Identity,
    object: &VmMigration,
    status: &VmMigrationStatus,
) -> Result<(bool, bool), Error> {
    let api: Api<Stored<VmMigrationReport>> =
        Api::namespaced(ctx.client.clone(), &object.namespace().unwrap_or_default());
    let found = api.get_opt(&me.report()).await.map_err(Error::kube("read the report"))?;
    // Its name has our UID in it: one that cannot be read is there all the same, and is not waited for.
    let found = match found {
        Some(Stored(Err(_))) => return Ok((true, true)),
        Some(Stored(Ok(report))) => Some(report),
        None => None,
    };
    let ours = found.filter(|r| r.spec.uid == me.uid);
    let finished = ours.as_ref().and_then(|r| r.status.as_ref()).is_some_and(|s| report::tells(s, status));
    Ok((ours.is_some(), finished))
}

/// What a look at one side's cluster is for. What needs rights that older charts did not give is asked for only then.
#[derive(Clone, Copy)]
struct ClusterNeeds<'a> {
    /// Hooks whose output is kept.
    captured: &'a BTreeSet<String>,
    /// What the anchor is to hold, as its digest.
    copied: Option<&'a str>,
    /// PersistentVolumes and claims of ours.
    devices: bool,
    /// Whether disks could travel as block devices.
    storage: bool,
}

async fn cluster(
    ctx: &Context,
    me: &Identity,
    side_ref: &Result<SideRef, Problem>,
    side: Side,
    needs: ClusterNeeds<'_>,
) -> Seen<ClusterView> {
    let r = match side_ref {
        Ok(r) => r,
        Err(p) => return Seen::Unseen(p.clone()),
    };
    let cluster = match ctx.clusters.get(r.cluster.as_deref()).await {
        Ok(c) => c,
        Err(p) => return Seen::Unseen(p),
    };
    let what = r.cluster.as_deref().unwrap_or("of the operator");
    let unseen = |why: String| {
        Seen::Unseen(Problem {
            id: format!("{side}-cluster-unreachable"),
            message: format!("cluster {what} (near the {side} cloud) does not answer: {why}"),
            suggestion: None,
            transient: true,
        })
    };
    let look = view_cluster(me, &cluster, side, r.cluster.is_none(), needs);
    let mut view = match timeout(CLUSTER_TIMEOUT, look).await {
        Ok(Ok(view)) => view,
        Ok(Err(e)) => return unseen(crate::contract::shorten(&e.to_string(), 256)),
        Err(_) => return unseen(format!("no answer within {} s", CLUSTER_TIMEOUT.as_secs())),
    };
    if needs.storage {
        let policy = ctx.policy();
        let access =
            Access { sessions: &ctx.clouds, policy: &policy, credentials: &r.credentials, name: &r.name };
        view.storage = Some(block_storage::look(&cluster, r.transfer, access).await);
    }
    Seen::View(view)
}

async fn view_cluster(
    me: &Identity,
    cluster: &MoverCluster,
    side: Side,
    own: bool,
    needs: ClusterNeeds<'_>,
) -> Result<ClusterView, kube::Error> {
    let captured = needs.captured;
    let (client, namespace) = (cluster.client.clone(), cluster.namespace.as_str());
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let ours = ListParams::default().labels(&format!("{LABEL_MIGRATION}={}", me.uid));
    let anchor = secrets.get_metadata_opt(&me.anchor(side)).await?;
    let jobs = jobs.list(&ours).await?.items;
    // After the Jobs, so that the pod of an ended Job is seen as ended.
    let pods_now = pods.list(&ours).await?.items;
    // Both sides may be in one cluster: a Job belongs to the side whose anchor owns it.
    let anchor_name = me.anchor(side);
    let mine = |j: &Job| j.owner_references().iter().any(|o| o.name == anchor_name);
    let jobs: Vec<Job> = jobs.into_iter().filter(mine).collect();
    let holds = anchor.as_ref().and_then(|a| a.annotations().get(ANNOTATION_COPIED)).map(String::as_str);
    let stale = anchor.is_some() && needs.copied.is_some() && holds != needs.copied;
    let mut view = ClusterView { own, anchor: anchor.is_some(), stale, ..Default::default() };
    view_jobs(&mut view, &jobs, &pods_now, &pods, captured).await;
    // A purge is part of clean-up. Where both sides are in one cluster, each waits for the pods of both.
    let purge = me.attempts("purge");
    view.purge_pods = pods_now.iter().filter(|p| job_of(p).starts_with(&purge)).count();
    view.pods = pods_now.len() - view.purge_pods;
    view.with_pods = pods_now.iter().map(job_of).collect();
    view.lost = pods_now.iter().filter_map(|p| lost(p, Timestamp::now())).collect();
    if needs.devices {
        view.devices = block_storage::devices(me, cluster, side).await?;
    }
    if own {
        view_hooks(&mut view, me, cluster.client.clone(), side, captured).await?;
    }
    Ok(view)
}

/// In our own cluster hooks run in the migration's namespace.
async fn view_hooks(
    view: &mut ClusterView,
    me: &Identity,
    client: Client,
    side: Side,
    captured: &BTreeSet<String>,
) -> Result<(), kube::Error> {
    let jobs: Api<Job> = Api::namespaced(client.clone(), &me.namespace);
    let pods: Api<Pod> = Api::namespaced(client, &me.namespace);
    let ours = ListParams::default().labels(&format!("{LABEL_MIGRATION}={},{LABEL_SIDE}={side}", me.uid));
    let found = jobs.list(&ours).await?.items;
    let pods_now = pods.list(&ours).await?.items;
    view_jobs(view, &found, &pods_now, &pods, captured).await;
    view.pods += pods_now.len();
    Ok(())
}

async fn view_jobs(
    view: &mut ClusterView,
    jobs: &[Job],
    pods_now: &[Pod],
    pods: &Api<Pod>,
    captured: &BTreeSet<String>,
) {
    for job in jobs {
        let name = job.name_any();
        let mut theirs: Vec<&Pod> = pods_now.iter().filter(|p| job_of(p) == name).collect();
        theirs.sort_by_key(|p| p.creation_timestamp().map(|t| t.0));
        let pod = theirs.last().copied();
        let mut seen = view_job(job, pod, pods).await;
        if let (true, true, Some(pod)) = (captured.contains(&name), seen.state != JobState::Active, pod) {
            seen.output = output(pods, &pod.name_any()).await;
        }
        view.jobs.insert(name, seen);
    }
}

fn job_of(pod: &Pod) -> String {
    pod.labels().get("batch.kubernetes.io/job-name").cloned().unwrap_or_default()
}

async fn view_job(job: &Job, pod: Option<&Pod>, pods: &Api<Pod>) -> JobView {
    let status = job.status.clone().unwrap_or_default();
    let condition = |kind: &str| {
        status.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == "True").cloned()
    };
    let (state, mut reason) = match (condition("Complete"), condition("Failed")) {
        (Some(_), _) => (JobState::Succeeded, None),
        (_, Some(c)) => (JobState::Failed, c.reason.filter(|r| r != "BackoffLimitExceeded")),
        _ => (JobState::Active, None),
    };
    let container = pod.and_then(|p| p.status.as_ref()?.container_statuses.as_ref()?.first().cloned());
    let ended = container.as_ref().and_then(|c| c.state.as_ref()?.terminated.clone());
    let termination = ended.as_ref().and_then(|t| t.message.clone());
    if state == JobState::Active {
        reason = pod.and_then(waiting);
    } else if reason.is_none() {
        reason = ended
            .as_ref()
            .map(|t| format!("{} (exit code {})", t.reason.clone().unwrap_or_default(), t.exit_code));
    }
    let running = pod.filter(|p| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running"));
    let log = match running {
        Some(pod) if state == JobState::Active => log_end(pods, &pod.name_any()).await,
        _ => None,
    };
    JobView {
        state,
        termination,
        reason,
        progress: log.as_deref().and_then(newest_progress),
        held_up: log.as_deref().and_then(newest_complaint),
        lost: pod.and_then(|p| lost(p, Timestamp::now())).filter(|_| state == JobState::Active),
        deleting: job.metadata.deletion_timestamp.is_some(),
        exit_code: ended.map(|t| t.exit_code),
        output: None,
    }
}

/// How much longer than its grace period a pod may take to end, in seconds.
const LOST_SECONDS: i64 = 60;

/// Names a pod that should have ended: whoever runs it does not answer. While it is so its Job neither ends nor gets
/// another pod (`podReplacementPolicy: Failed`).
fn lost(pod: &Pod, now: Timestamp) -> Option<String> {
    let until = pod.metadata.deletion_timestamp.as_ref()?.0;
    (now.duration_since(until).as_secs() > LOST_SECONDS).then(|| {
        let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
        format!("pod {} on node {node} should have ended at {until}: is the node lost?", pod.name_any())
    })
}

/// The end of what a hook printed, whatever it was. A log that cannot be read is no output, and no error.
async fn output(pods: &Api<Pod>, name: &str) -> Option<String> {
    let log = pods.log_stream(name, &LogParams::default()).await.ok()?;
    let mut log = log.take(LOG_BYTES);
    let (mut tail, mut chunk) = (vec![], vec![0; 64 << 10]);
    loop {
        match log.read(&mut chunk).await {
            Ok(n) if n > 0 => {
                tail.extend_from_slice(&chunk[..n]);
                tail.drain(..tail.len().saturating_sub(OUTPUT_BYTES));
            }
            _ => return Some(output_tail(&tail)),
        }
    }
}

/// Why a pod does not run yet.
fn waiting(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let container =
        status.container_statuses.iter().flatten().find_map(|c| c.state.as_ref()?.waiting.clone());
    if let Some(w) = container {
        let detail =
            w.message.map(|m| format!(": {}", crate::contract::shorten(&m, 200))).unwrap_or_default();
        return Some(format!("{}{detail}", w.reason.unwrap_or_default()));
    }
    let unscheduled =
        status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    Some(format!("not scheduled: {}", unscheduled.message.clone().unwrap_or_default()))
}

/// The end of a running mover's log. A log that cannot be read is no news, and no error.
async fn log_end(pods: &Api<Pod>, name: &str) -> Option<String> {
    let last = LogParams { tail_lines: Some(5), ..Default::default() };
    pods.logs(name, &last).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::v1alpha1::{CopyingStatus, Digest, DiskStatus, SourceStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    #[test]
    fn a_pod_that_does_not_end_is_named_with_its_node() {
        let pod = |deleted: Option<&str>| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "p", "deletionTimestamp": deleted},
                "spec": {"nodeName": "worker-3", "containers": []}}))
            .unwrap()
        };
        let now: Timestamp = "2026-01-01T10:05:00Z".parse().unwrap();
        assert_eq!(lost(&pod(None), now), None);
        assert_eq!(lost(&pod(Some("2026-01-01T10:04:30Z")), now), None, "it has its time");
        let named = lost(&pod(Some("2026-01-01T10:01:00Z")), now).unwrap();
        assert!(named.contains("pod p on node worker-3"), "{named}");
    }

    #[test]
    fn a_phase_reads_what_it_decides_about() {
        let spec = json!({"source": {"cloud": "a", "server": "s"}, "destination": {"cloud": "b"}, "cutover": {"mode": "Now"}});
        let object = VmMigration::new("m", serde_json::from_value(spec).unwrap());
        let disk = |done: bool| DiskStatus { backup: done.then(Digest::default), ..Default::default() };
        let readable = DiskStatus {
            export: ExportStatus { image_id: Some("i".into()), ..Default::default() },
            ..Default::default()
        };
        let claimed = Some(SourceStatus { claimed_at: Some(Time(Default::default())), ..Default::default() });
        let with = |phase, disks: Vec<DiskStatus>| {
            let status = VmMigrationStatus {
                phase: Some(phase),
                disks,
                source: claimed.clone(),
                ..Default::default()
            };
            let n = needs(&object, &status, Timestamp::UNIX_EPOCH);
            (n.source, n.destination)
        };
        let at = |phase, disks: &[bool]| with(phase, disks.iter().map(|d| disk(*d)).collect());
        use {DestinationNeeds as D, SourceNeeds as S};
        assert_eq!(at(Phase::AwaitingCutover, &[false]), (S::Nothing, D::Nothing));
        assert_eq!(at(Phase::Copying, &[false]), (S::All, D::Nothing));
        let began_at = Some(Time(Default::default()));
        let status = VmMigrationStatus {
            phase: Some(Phase::AwaitingCutover),
            copying: Some(CopyingStatus { began_at, ..Default::default() }),
            ..Default::default()
        };
        let epoch = Timestamp::UNIX_EPOCH;
        assert_eq!(needs(&object, &status, epoch).source, S::All, "a warm pass is under way");
        let transfer = ResolvedTransfer { mode: ResolvedTransfer::VOLUME.into(), ..Default::default() };
        let destination = Some(DestinationStatus { transfer: Some(transfer), ..Default::default() });
        let status = VmMigrationStatus { destination, ..status };
        assert_eq!(needs(&object, &status, epoch).destination, D::Disks, "volumes in B follow it");
        assert_eq!(at(Phase::Stopping, &[false]), (S::Server, D::Nothing));
        assert_eq!(at(Phase::Transferring, &[false, false]), (S::All, D::Nothing));
        assert_eq!(with(Phase::Transferring, vec![readable]), (S::All, D::Disks));
        assert_eq!(at(Phase::Transferring, &[false, true]), (S::All, D::Disks));
        assert_eq!(at(Phase::Transferring, &[true, true]), (S::Server, D::Disks));
        assert_eq!(at(Phase::Creating, &[true]), (S::Server, D::Disks), "it is on its way into a volume");
        let proven = DiskStatus { readback: Some(Digest::default()), ..disk(true) };
        assert_eq!(with(Phase::Creating, vec![proven]), (S::Server, D::All));
        assert_eq!(at(Phase::RollingBack, &[true]), (S::All, D::All));
        // Whoever deletes looks at everything; so does a way back that was asked for after success.
        assert_eq!(at(Phase::Retiring, &[true]), (S::All, D::All));
        assert_eq!(at(Phase::Succeeded, &[true]), (S::All, D::All));
    }

    #[test]
    fn after_the_end_only_a_source_that_may_come_back_is_looked_for() {
        let spec = json!({"source": {"cloud": "a", "server": "s"}, "destination": {"cloud": "b"}, "cutover": {"mode": "Now"}});
        let object = VmMigration::new("m", serde_json::from_value(spec).unwrap());
        let looked_for = |phase: &str, server: &str, days: i64| {
            let status = json!({"phase": phase, "finishedAt": "2026-01-01T00:00:00Z", "cleanedUpAt": "2026-01-01T00:01:00Z",
                "source": {"serverStatus": server, "claimedAt": "2026-01-01T00:00:00Z"}});
            let now = "2026-01-01T00:02:00Z".parse::<Timestamp>().unwrap();
            let now = now.checked_add(k8s_openapi::jiff::SignedDuration::from_hours(24 * days)).unwrap();
            let needs = needs(&object, &serde_json::from_value(status).unwrap(), now);
            assert!(needs.clusters == (needs.source != SourceNeeds::Nothing) && !needs.inventory);
            needs.source == SourceNeeds::Server
        };
        for phase in ["Failed", "Cancelled", "RolledBack"] {
            assert!(looked_for(phase, "DELETED", 0) && looked_for(phase, "DELETED", 6), "{phase}");
            assert!(!looked_for(phase, "DELETED", 7) && !looked_for(phase, "ACTIVE", 0), "{phase}");
        }
        assert!(!looked_for("Succeeded", "SHUTOFF", 0) && !looked_for("Retired", "DELETED", 0));
    }
}
