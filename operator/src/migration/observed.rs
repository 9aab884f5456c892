//! What a reconcile saw of both clouds and clusters, as plain data.

use super::{
    block_storage::BlockStorage,
    names::{Identity, Side, Tagged},
    place::Place,
};
use crate::{
    cloud::{
        Flavor, Image, InstanceAction, Network, Port, Proof, SecurityGroup, Server, Sighting, Snapshot,
        Subnet, Volume, VolumeAttachment,
    },
    contract::{Answer, Outcome, ProgressLine},
    crd::v1alpha1::{Finding, VmMigrationStatus},
};
use std::collections::{BTreeMap, BTreeSet};

/// What a look at one side gave.
#[derive(Clone, Debug, Default)]
pub enum Seen<T> {
    /// This phase does not need it.
    #[default]
    NotLooked,
    /// It could not be seen.
    Unseen(Problem),
    /// It was seen.
    View(T),
}

impl<T> Seen<T> {
    /// What was seen, if it was.
    pub fn view(&self) -> Option<&T> {
        match self {
            Seen::View(v) => Some(v),
            _ => None,
        }
    }

    /// Why it was not seen.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Seen::Unseen(p) => Some(p),
            _ => None,
        }
    }
}

/// Why something could not be seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// A stable name, such as `source-cloud-unreachable`.
    pub id: String,
    /// What failed and what was answered.
    pub message: String,
    /// What to do.
    pub suggestion: Option<String>,
    /// It may pass by itself.
    pub transient: bool,
}

impl Problem {
    /// As a blocker of preflight.
    pub fn blocker(&self) -> Finding {
        Finding {
            id: self.id.clone(),
            severity: crate::crd::v1alpha1::Severity::Blocker,
            message: self.message.clone(),
            suggestion: self.suggestion.clone(),
        }
    }
}

/// Everything that a reconcile saw.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// References of the spec that cannot be followed.
    pub reference_problems: Vec<Problem>,
    /// The store and this migration's repository in it.
    pub store: Option<StoreView>,
    /// The source cloud.
    pub source: Seen<SourceView>,
    /// The destination cloud.
    pub destination: Seen<DestinationView>,
    /// Both clouds in the detail that preflight needs.
    pub inventory: Option<Inventory>,
    /// What is wrong with what the hooks refer to: images, scripts, Secrets. Looked at with the inventory.
    pub hook_findings: Vec<Finding>,
    /// The cluster near the source.
    pub source_cluster: Seen<ClusterView>,
    /// The cluster near the destination.
    pub destination_cluster: Seen<ClusterView>,
    /// The operator's own Secret of this migration exists.
    pub vault_exists: bool,
    /// The report exists.
    pub report_exists: bool,
    /// The report tells that clean-up is done, and what followed after success.
    pub report_finished: bool,
    /// Where the session with the source works.
    pub source_place: Option<Place>,
    /// Where the session with the destination works.
    pub destination_place: Option<Place>,
    /// The image services of source and destination judge what raw images hold, if that can be told.
    pub judging: [Option<bool>; 2],
}

impl Observed {
    /// Where one side's session works.
    pub fn place(&self, side: Side) -> Option<&Place> {
        match side {
            Side::Source => self.source_place.as_ref(),
            Side::Destination => self.destination_place.as_ref(),
        }
    }

    /// Does the image service of one side judge what raw images hold? `None`: that cannot be told.
    pub fn judges_images(&self, side: Side) -> Option<bool> {
        match side {
            Side::Source => self.judging[0],
            Side::Destination => self.judging[1],
        }
    }

    /// One side's cluster.
    pub fn cluster(&self, side: Side) -> &Seen<ClusterView> {
        match side {
            Side::Source => &self.source_cluster,
            Side::Destination => &self.destination_cluster,
        }
    }

    /// The current attempt of a Job.
    pub fn job(
        &self,
        me: &Identity,
        status: &VmMigrationStatus,
        side: Side,
        purpose: &str,
    ) -> Option<&JobView> {
        // One of us may have been killed between the first attempt and its record.
        let attempt = status.jobs.iter().find(|j| j.name == purpose).map_or(1, |j| j.attempt);
        self.cluster(side).view()?.jobs.get(&me.job(purpose, attempt))
    }
}

/// The store and this migration's repository in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoreView {
    /// Name of the `ObjectStore`.
    pub name: String,
    /// The restic repository.
    pub repository: String,
    /// What one mover may send and fetch.
    pub bandwidth: crate::crd::v1alpha1::Bandwidth,
}

/// The source cloud, as far as this migration is concerned.
#[derive(Clone, Debug, Default)]
pub struct SourceView {
    /// The server: found, or proven to be gone by this look. `None`: no server is recorded.
    pub server: Option<Sighting>,
    /// What was done to it, newest first.
    pub actions: Vec<InstanceAction>,
    /// Volumes that we made.
    pub volumes: Vec<(Tagged, Volume)>,
    /// Snapshots that we made.
    pub snapshots: Vec<(Tagged, Snapshot)>,
    /// Images that we made.
    pub images: Vec<(Tagged, Image)>,
    /// Volumes that are recorded as the source's own.
    pub volumes_of_source: Vec<Volume>,
    /// Snapshots of those that are not ours.
    pub foreign_snapshots: Vec<Snapshot>,
}

/// The destination cloud, as far as this migration is concerned.
#[derive(Clone, Debug, Default)]
pub struct DestinationView {
    /// Servers and ports were looked for, too.
    pub whole: bool,
    /// Servers that we made.
    pub servers: Vec<Server>,
    /// What proves that a server which was asked for is not there, when there is none.
    pub absent: Option<Proof>,
    /// Volumes that we made.
    pub volumes: Vec<(Tagged, Volume)>,
    /// Images that we made.
    pub images: Vec<(Tagged, Image)>,
    /// Ports that we made.
    pub ports: Vec<(Tagged, Port)>,
    /// The new server's console, or why it cannot be read. Only where a check needs it.
    pub console: Option<Result<String, String>>,
}

/// Keeps what `identify` says is ours, oldest first, so that the first of several is always the same one.
pub fn ours<T: Clone>(
    all: &[T],
    identify: impl Fn(&T) -> Option<Tagged>,
    age: impl Fn(&T) -> (String, String),
) -> Vec<(Tagged, T)> {
    let mut found: Vec<_> = all.iter().filter_map(|o| identify(o).map(|t| (t, o.clone()))).collect();
    found.sort_by_key(|(_, o)| age(o));
    found
}

/// Both clouds in the detail that preflight needs.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Servers that the name or id fits.
    pub candidates: Vec<Server>,
    /// What preflight needs of the server, when there is exactly one.
    pub source: SourceInventory,
    /// What there is in the destination.
    pub destination: DestinationInventory,
}

/// The source's server in detail.
#[derive(Clone, Debug, Default)]
pub struct SourceInventory {
    /// Its attachments, in the cloud's order.
    pub attachments: Vec<VolumeAttachment>,
    /// The volumes attached to it.
    pub volumes: Vec<Volume>,
    /// Driver types by volume id, where the cloud shows them.
    pub drivers: BTreeMap<String, String>,
    /// Its ports, in the order of its interfaces.
    pub ports: Vec<Port>,
    /// Networks, to give ports a network name.
    pub networks: Vec<Network>,
    /// Security groups, to give ports' ids a name.
    pub security_groups: Vec<SecurityGroup>,
    /// Flavors, to see ephemeral and swap disks of old servers.
    pub flavors: Vec<Flavor>,
    /// Its console, or why it cannot be read. Only where a hook wants the host keys that the guest printed.
    pub console: Option<Result<String, String>>,
}

/// What there is in the destination.
#[derive(Clone, Debug, Default)]
pub struct DestinationInventory {
    /// Flavors.
    pub flavors: Vec<Flavor>,
    /// Networks.
    pub networks: Vec<Network>,
    /// Subnets.
    pub subnets: Vec<Subnet>,
    /// Key pairs.
    pub keypairs: Vec<String>,
    /// Names of volume types.
    pub volume_types: Vec<String>,
    /// Security groups.
    pub security_groups: Vec<SecurityGroup>,
    /// Ports, to see which addresses are taken.
    pub ports: Vec<Port>,
    /// Servers, to see whether one is this source's already.
    pub servers: Vec<Server>,
    /// How many servers more there are, of which nothing can be seen now.
    pub unread_servers: usize,
    /// Availability zones of the compute service.
    pub zones: Vec<String>,
    /// A server can be given a host name.
    pub takes_hostname: bool,
}

/// One cluster, as far as this migration is concerned.
#[derive(Clone, Debug, Default)]
pub struct ClusterView {
    /// It is the operator's own: hooks run in the migration's namespace and need no anchor.
    pub own: bool,
    /// Our anchor Secret exists.
    pub anchor: bool,
    /// The anchor holds other keys than the tenant's Secrets do now.
    pub stale: bool,
    /// Our Jobs by name.
    pub jobs: BTreeMap<String, JobView>,
    /// Pods of ours that are not seen gone, ended ones included.
    pub pods: usize,
    /// Pods of the purge that are not seen gone.
    pub purge_pods: usize,
    /// Pods that do not end although they should have, and their nodes.
    pub lost: Vec<String>,
    /// Jobs whose pods are not seen gone, whether or not the Job is.
    pub with_pods: BTreeSet<String>,
    /// Where disks travel as block devices: what hands them to our Jobs, by the common name of volume and claim.
    pub devices: BTreeMap<String, DeviceView>,
    /// How disks could travel. Only where that is decided.
    pub storage: Option<BlockStorage>,
}

/// A PersistentVolume of ours and its claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceView {
    /// The PersistentVolume.
    pub volume: Option<PersistentVolumeView>,
    /// The PersistentVolumeClaim.
    pub claim: Option<ClaimView>,
}

/// A PersistentVolume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PersistentVolumeView {
    /// The Cinder volume that it stands for.
    pub handle: String,
    /// Its claim is gone: it can be bound to no other.
    pub released: bool,
    /// It is being deleted.
    pub deleting: bool,
}

/// A PersistentVolumeClaim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimView {
    /// It is bound to its volume.
    pub bound: bool,
    /// It is being deleted.
    pub deleting: bool,
}

/// How far a Job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JobState {
    /// Not ended.
    #[default]
    Active,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
}

/// One Job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JobView {
    /// How far it is.
    pub state: JobState,
    /// The termination message of its container.
    pub termination: Option<String>,
    /// Why Kubernetes says that it failed or waits.
    pub reason: Option<String>,
    /// Bytes, total, bytes a second, from the newest progress line.
    pub progress: Option<(i64, i64, i64)>,
    /// What the store does not do for it now, from the same line.
    pub held_up: Option<String>,
    /// Its pod should have ended and does not: its node is lost, for all we know. Which pod, and which node.
    pub lost: Option<String>,
    /// It is being deleted.
    pub deleting: bool,
    /// The exit code of its container.
    pub exit_code: Option<i32>,
    /// The end of what a hook printed, where it is to be kept.
    pub output: Option<String>,
}

impl JobView {
    /// What its mover told in the end, if it told anything.
    pub fn outcome(&self) -> Option<Outcome<Answer>> {
        self.termination.as_deref().and_then(Outcome::told)
    }
}

/// No disk has more bytes, and nothing takes more seconds: sums of such numbers, and percents of them, fit.
const MOST: i64 = 1 << 50;

/// A number in a mover's result, if it can be one.
pub fn plausible(number: u64) -> Option<i64> {
    i64::try_from(number).ok().filter(|number| *number <= MOST)
}

/// Bytes, total, bytes a second of the newest progress line in the end of a mover's log.
pub fn newest_progress(log: &str) -> Option<(i64, i64, i64)> {
    let line = ProgressLine::newest(log)?;
    let number = |n: u64| i64::try_from(n).unwrap_or(MOST).min(MOST);
    Some((number(line.progress.bytes), number(line.progress.total), number(line.progress.rate)))
}

/// What the newest progress line says of the store, short and on one line.
pub fn newest_complaint(log: &str) -> Option<String> {
    let said = ProgressLine::newest(log)?.held_up?;
    Some(said.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect())
}

/// Finds what we made for a role and an index.
pub fn find<T>(list: &[(Tagged, T)], role: super::names::Role, index: i32) -> Option<&T> {
    list.iter().find(|(t, _)| t.role == role && t.index == index).map(|(_, o)| o)
}

/// Finds what we made for a role, an index and an attempt.
pub fn find_attempt<T>(
    list: &[(Tagged, T)],
    role: super::names::Role,
    index: i32,
    attempt: i32,
) -> Option<&T> {
    list.iter().find(|(t, _)| t.role == role && t.index == index && t.attempt == attempt).map(|(_, o)| o)
}

impl SourceView {
    /// The server, if it is there.
    pub fn found(&self) -> Option<&Server> {
        match &self.server {
            Some(Sighting::Found(server)) => Some(server),
            _ => None,
        }
    }
}

impl DestinationView {
    /// The new server.
    pub fn server(&self) -> Option<&Server> {
        self.servers.first()
    }
}

/// Sorts a cloud's lists into what is ours. `recorded` are the source's own volumes, `made` what we recorded of ours.
#[expect(clippy::too_many_arguments, reason = "one for each list")]
pub fn source_view(
    me: &Identity,
    server: Option<Sighting>,
    actions: Vec<InstanceAction>,
    volumes: &[Volume],
    snapshots: &[Snapshot],
    images: &[Image],
    recorded: &[String],
    made: &[String],
) -> SourceView {
    let foreign = |s: &&Snapshot| recorded.contains(&s.volume_id) && me.snapshot(s, made).is_none();
    SourceView {
        volumes_of_source: volumes.iter().filter(|v| recorded.contains(&v.id)).cloned().collect(),
        foreign_snapshots: snapshots.iter().filter(foreign).cloned().collect(),
        server,
        actions,
        volumes: ours(volumes, |v| me.volume(v, made), |v| (v.created_at.clone(), v.id.clone())),
        snapshots: ours(snapshots, |s| me.snapshot(s, made), |s| (s.created_at.clone(), s.id.clone())),
        images: ours(images, |i| me.image(i), |i| (i.created_at.clone(), i.id.clone())),
    }
}

/// Sorts a cloud's lists into what is ours; `made` is what we recorded of ours. The servers are ours already.
pub fn destination_view(
    me: &Identity,
    mut servers: Vec<Server>,
    volumes: &[Volume],
    images: &[Image],
    ports: &[Port],
    recorded_ports: &[String],
    made: &[String],
) -> DestinationView {
    servers.sort_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id)));
    DestinationView {
        whole: true,
        servers,
        absent: None,
        volumes: ours(volumes, |v| me.volume(v, made), |v| (v.created_at.clone(), v.id.clone())),
        images: ours(images, |i| me.image(i), |i| (i.created_at.clone(), i.id.clone())),
        ports: ours(ports, |p| me.port(p, recorded_ports), |p| (String::new(), p.id.clone())),
        console: None,
    }
}
