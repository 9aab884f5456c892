//! The decision against a small model of both clouds and clusters: whole ways, crashes at any instant, failures.

use super::*;
use crate::{
    build,
    crd::v1alpha1::*,
    migration::{
        names::{MARK_CLAIM, Role},
        observed::*,
        step::{ObjectKind, StepFailure},
    },
    openstack::{Image, InstanceAction, Port, Server, Snapshot, Volume, VolumeAttachment},
};
use k8s_openapi::jiff::ToSpan;
use serde_json::json;
use std::collections::BTreeMap;

/// A model: what exists, and how each step changes it. Objects are ready one look after they were made.
struct World {
    me: Identity,
    spec: VmMigrationSpec,
    now: Timestamp,
    serial: u32,
    source: Server,
    actions: Vec<InstanceAction>,
    volumes: Vec<Volume>,
    snapshots: Vec<Snapshot>,
    images: Vec<(Side, Image)>,
    made: Vec<Volume>,
    ports: Vec<Port>,
    servers: Vec<Server>,
    jobs: BTreeMap<String, (Side, JobView)>,
    anchors: bool,
    vault: bool,
    report: (bool, bool),
    repository: bool,
    /// The read-back of disks differs from what was read in the source.
    corrupt: bool,
    /// This step fails for ever.
    broken: Option<&'static str>,
    unreachable: bool,
    status: VmMigrationStatus,
    deleting: bool,
    released: bool,
    annotations: BTreeMap<String, String>,
    /// How the attempts of a hook end, by its name; those after the last one end well.
    scripts: BTreeMap<String, Vec<i32>>,
    /// Hooks whose Jobs were made.
    ran: Vec<String>,
    hook_finding: Option<&'static str>,
}

/// Kubernetes ends the Job at its deadline.
const TIMES_OUT: i32 = -1;
/// Nothing ends the Job.
const NEVER_ENDS: i32 = -2;

fn me() -> Identity {
    Identity {
        uid: "11111111-2222-4333-8444-555555555555".into(),
        namespace: "team".into(),
        name: "web-1".into(),
    }
}

fn finding(id: &str) -> Finding {
    Finding { id: id.into(), severity: Severity::Blocker, message: id.into(), suggestion: None }
}

fn spec() -> VmMigrationSpec {
    serde_json::from_value(json!({
        "source": {"cloud": "site-a", "server": "web-1"},
        "destination": {"cloud": "site-b"},
        "cutover": {"mode": "Now"},
        "verification": {"checks": [{"name": "page", "http": {"path": "/"}}]},
    }))
    .unwrap()
}

impl World {
    fn new() -> Self {
        let source =
            Server { id: "src".into(), name: "web-1".into(), status: "ACTIVE".into(), ..Default::default() };
        World {
            me: me(),
            spec: spec(),
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            serial: 0,
            source,
            actions: vec![],
            volumes: vec![],
            snapshots: vec![],
            images: vec![],
            made: vec![],
            ports: vec![],
            servers: vec![],
            jobs: BTreeMap::new(),
            anchors: false,
            vault: false,
            report: (false, false),
            repository: false,
            corrupt: false,
            broken: None,
            unreachable: false,
            status: VmMigrationStatus::default(),
            deleting: false,
            released: false,
            annotations: BTreeMap::new(),
            scripts: BTreeMap::new(),
            ran: vec![],
            hook_finding: None,
        }
    }

    fn id(&mut self, what: &str) -> String {
        self.serial += 1;
        format!("{what}-{}", self.serial)
    }

    /// Time passes; what was begun is done.
    fn tick(&mut self) {
        self.now = self.now.checked_add(2.seconds()).unwrap();
        for v in self.volumes.iter_mut().chain(&mut self.made) {
            v.status = "available".into();
        }
        self.snapshots.iter_mut().for_each(|s| s.status = "available".into());
        for (_, i) in self.images.iter_mut().filter(|(_, i)| i.status == "saving") {
            let wrong = self.corrupt && i.name.contains("readback");
            i.status = "active".into();
            i.size = Some(100);
            (i.os_hash_algo, i.os_hash_value) =
                (Some("sha512".into()), Some(if wrong { "bad" } else { "good" }.into()));
        }
        for s in self.servers.iter_mut().filter(|s| s.status == "BUILD") {
            (s.status, s.launched_at) = ("ACTIVE".into(), Some("now".into()));
        }
        self.finish_jobs();
    }

    fn finish_jobs(&mut self) {
        let digest = json!({"snapshotId": "a".repeat(64), "bytes": 100, "sha256": "s", "hashAlgo": "sha512", "hashValue": "good"});
        for (name, (_, job)) in self.jobs.iter_mut().filter(|(_, (_, j))| j.state == JobState::Active) {
            if name.contains("-hook-") {
                (job.state, job.reason) = match job.exit_code {
                    Some(0) => (JobState::Succeeded, None),
                    Some(NEVER_ENDS) => continue,
                    Some(TIMES_OUT) => (JobState::Failed, Some("DeadlineExceeded".into())),
                    _ => (JobState::Failed, None),
                };
                continue;
            }
            let result = match name {
                n if n.contains("backup") || n.contains("restore") => digest.clone(),
                n if n.contains("check") => {
                    json!({"checks": [{"name": "page", "ok": true, "message": "200"}]})
                }
                n if n.contains("purge") => {
                    self.repository = false;
                    json!({})
                }
                n if n.contains("init") => {
                    self.repository = true;
                    json!({})
                }
                _ => json!({}),
            };
            if name.contains("restore") {
                let n: i32 = name.rsplit('-').nth(1).unwrap().parse().unwrap();
                let me = me();
                let fits =
                    |i: &Image| me.image(i).is_some_and(|t| t.index == n && t.role == Role::ImportImage);
                for (_, i) in self.images.iter_mut().filter(|(s, i)| *s == Side::Destination && fits(i)) {
                    (i.status, i.size) = ("active".into(), Some(100));
                    i.os_hash_value = Some("good".into());
                }
            }
            job.state = JobState::Succeeded;
            job.termination = Some(json!({"ok": true, "result": result}).to_string());
        }
    }

    fn cluster(&self, side: Side) -> Seen<ClusterView> {
        let jobs =
            self.jobs.iter().filter(|(_, (s, _))| *s == side).map(|(n, (_, j))| (n.clone(), j.clone()));
        Seen::View(ClusterView { anchor: self.anchors, jobs: jobs.collect(), ..Default::default() })
    }

    fn observe(&self) -> Observed {
        let images = |side| -> Vec<Image> {
            self.images.iter().filter(|(s, _)| *s == side).map(|(_, i)| i.clone()).collect()
        };
        let recorded = self.status.destination.as_ref().map(|x| x.port_ids.clone()).unwrap_or_default();
        let gone = Problem {
            id: "destination-cloud-unreachable".into(),
            message: "no answer".into(),
            suggestion: None,
            transient: true,
        };
        let view = destination_view(
            &self.me,
            &self.servers,
            &self.made,
            &images(Side::Destination),
            &self.ports,
            &recorded,
        );
        Observed {
            store: Some(StoreView { name: "s".into(), repository: "s3:https://x/b/team/uid".into() }),
            source: Seen::View(source_view(
                &self.me,
                Some(self.source.clone()),
                self.actions.clone(),
                &self.volumes,
                &self.snapshots,
                &images(Side::Source),
            )),
            destination: if self.unreachable { Seen::Unseen(gone) } else { Seen::View(view) },
            inventory: Some(self.inventory()),
            hook_findings: self.hook_finding.map(finding).into_iter().collect(),
            source_cluster: self.cluster(Side::Source),
            destination_cluster: self.cluster(Side::Destination),
            vault_exists: self.vault,
            report_exists: self.report.0,
            report_finished: self.report.1,
            source_project: Some("pa".into()),
            destination_project: Some("pb".into()),
            ..Default::default()
        }
    }

    fn inventory(&self) -> Inventory {
        let attachment = |n: i32| VolumeAttachment {
            volume_id: format!("v{n}"),
            device: format!("/dev/vd{}", (b'a' + u8::try_from(n).unwrap()) as char),
            ..Default::default()
        };
        let volume = |n: i32| Volume {
            id: format!("v{n}"),
            status: "in-use".into(),
            size: 1,
            bootable: n == 0,
            ..Default::default()
        };
        let flavor = serde_json::from_value(json!({"id": "f", "name": ""})).unwrap();
        let network = serde_json::from_value(json!({"id": "na", "name": "net", "project_id": "pb"})).unwrap();
        let port = Port { id: "p".into(), network_id: "na".into(), ..Default::default() };
        Inventory {
            candidates: vec![self.source.clone()],
            source: SourceInventory {
                attachments: (0..2).map(attachment).collect(),
                volumes: (0..2).map(volume).collect(),
                ports: vec![port],
                networks: vec![serde_json::from_value(json!({"id": "na", "name": "net"})).unwrap()],
                ..Default::default()
            },
            destination: DestinationInventory {
                flavors: vec![flavor],
                networks: vec![network],
                ..Default::default()
            },
        }
    }

    fn act(&mut self, action: &str) -> Effect {
        let request_id = self.id("req");
        let row =
            InstanceAction { action: action.into(), request_id: request_id.clone(), ..Default::default() };
        self.actions.insert(0, row);
        Effect::Accepted { request_id: Some(request_id) }
    }

    fn image(&mut self, side: Side, name: String, status: &str, properties: serde_json::Value) {
        let id = self.id("img");
        let properties = serde_json::from_value(properties).unwrap_or_default();
        let image =
            Image { id, name, status: status.into(), size: Some(100), properties, ..Default::default() };
        self.images.push((side, image));
    }

    /// Does a step as the clouds would; checks what must never happen.
    fn apply(&mut self, step: &Step) -> Result<Effect, StepFailure> {
        if self.broken == Some(step.name()) {
            let message = "413 quota exceeded (req-1)".into();
            return Err(StepFailure { transient: false, conflict: false, message });
        }
        let me = self.me.clone();
        match step {
            Step::PrepareSecrets => (self.anchors, self.vault) = (true, true),
            Step::CreateJob(j) => {
                let name = me.job(&j.purpose, j.attempt);
                self.jobs.entry(name).or_insert((j.side, JobView::default()));
            }
            Step::RunHook(h) => {
                if !self.jobs.contains_key(&h.job) {
                    let left = self.scripts.entry(h.hook.clone()).or_default();
                    let code = if left.is_empty() { 0 } else { left.remove(0) };
                    let job = JobView { exit_code: Some(code), ..Default::default() };
                    self.jobs.insert(h.job.clone(), (h.side, job));
                    self.ran.push(h.hook.clone());
                }
            }
            Step::DeleteJob { name, .. } => drop(self.jobs.remove(name)),
            Step::DeleteAnchor(_) => self.anchors = false,
            Step::DeleteVault => self.vault = false,
            Step::ClaimSource => drop(self.source.metadata.insert(MARK_CLAIM.into(), me.uid)),
            Step::ReleaseClaim => drop(self.source.metadata.remove(MARK_CLAIM)),
            Step::StopSource => {
                self.source.status = "SHUTOFF".into();
                return Ok(self.act("stop"));
            }
            Step::StartSource => {
                assert!(
                    !self.servers.iter().any(|s| s.status == "ACTIVE"),
                    "never 2: A is started while B runs"
                );
                self.source.status = "ACTIVE".into();
                return Ok(self.act("start"));
            }
            Step::LockSource | Step::RelockSource => {
                self.source.locked = true;
                return Ok(self.act("lock"));
            }
            Step::UnlockSource => {
                self.source.locked = false;
                return Ok(self.act("unlock"));
            }
            Step::CreateSnapshot { disk, volume_id } => {
                let (id, metadata) = (self.id("snap"), me.marks(Role::Snapshot, *disk));
                self.snapshots.push(Snapshot {
                    id,
                    volume_id: volume_id.clone(),
                    status: "creating".into(),
                    metadata,
                    ..Default::default()
                });
            }
            Step::CreateExportVolume { disk, .. } => {
                let (id, metadata) = (self.id("vol"), me.marks(Role::ExportVolume, *disk));
                self.volumes.push(Volume { id, status: "creating".into(), metadata, ..Default::default() });
            }
            Step::UploadVolume { side, role, disk, .. } => {
                self.image(*side, me.object_name(*role, *disk, 1), "saving", json!({}))
            }
            Step::CreateImportImage { disk, attempt, .. } => {
                let name = me.object_name(Role::ImportImage, *disk, *attempt);
                self.image(Side::Destination, name, "queued", json!({}));
            }
            Step::CreateVolume { disk, .. } => {
                let (id, metadata) = (self.id("vol"), me.marks(Role::Volume, *disk));
                self.made.push(Volume { id, status: "creating".into(), metadata, ..Default::default() });
            }
            Step::CreatePort { index } => {
                let id = self.id("port");
                self.ports.push(Port {
                    id,
                    name: me.object_name(Role::Port, *index, 1),
                    ..Default::default()
                });
            }
            Step::FinishPort { port_id, .. } => {
                let port = self.ports.iter_mut().find(|p| p.id == *port_id).unwrap();
                (port.name, port.tags) = ("eth0".into(), vec![me.tag()]);
            }
            Step::CreateServer => return Ok(self.create_server()),
            Step::StopDestination { server_id } => {
                let server = self.servers.iter_mut().find(|s| s.id == *server_id).unwrap();
                server.status = "SHUTOFF".into();
            }
            Step::CreateReport => self.report.0 = true,
            Step::FinishReport => self.report.1 = true,
            Step::Delete { kind, id, .. } => self.delete(*kind, id),
            Step::RaisePort { port_id } => {
                self.ports.iter_mut().filter(|p| p.id == *port_id).for_each(|p| p.admin_state_up = true);
            }
            Step::TagImage { .. } | Step::DressVolume { .. } | Step::CreateServerImage { .. } => {}
        }
        Ok(Effect::Done)
    }

    fn create_server(&mut self) -> Effect {
        assert_eq!(self.source.status, "SHUTOFF", "never 2: B is asked for while A is not SHUTOFF");
        assert!(self.servers.is_empty(), "never 5: B is asked for twice");
        assert!(!self.corrupt, "never 8: B is made of a disk that differs");
        let id = self.id("srv");
        let plan = self.status.plan.clone().unwrap_or_default();
        let body = build::cloud::server(&self.me, &plan, &self.status.disks, &[], "src");
        let metadata = serde_json::from_value(body["server"]["metadata"].clone()).unwrap();
        let address =
            crate::openstack::ServerAddress { address: "10.0.0.5".into(), fixed: true, ..Default::default() };
        let server = Server {
            id: id.clone(),
            status: "BUILD".into(),
            metadata,
            addresses: vec![address],
            ..Default::default()
        };
        self.servers.push(server);
        Effect::Created { id }
    }

    fn delete(&mut self, kind: ObjectKind, id: &str) {
        match kind {
            ObjectKind::Server => self.servers.retain(|s| s.id != id),
            ObjectKind::Port => self.ports.retain(|p| p.id != id),
            ObjectKind::Snapshot => self.snapshots.retain(|s| s.id != id),
            ObjectKind::Image => self.images.retain(|(_, i)| i.id != id),
            ObjectKind::Volume => {
                self.volumes.retain(|v| v.id != id);
                self.made.retain(|v| v.id != id);
            }
        }
    }

    /// One reconcile. `crash`: killed after the steps, before the status was written.
    fn pass(&mut self, crash: bool) {
        let seen = self.observe();
        let decision = decide(Input {
            me: &self.me.clone(),
            spec: &self.spec.clone(),
            generation: Some(1),
            deleting: self.deleting,
            abandoned: false,
            annotations: &self.annotations.clone(),
            status: &self.status.clone(),
            seen: &seen,
            limits: &Limits::default(),
            now: self.now,
        });
        self.released |= decision.release;
        if decision.release {
            return;
        }
        let mut status = decision.status;
        let before = std::mem::replace(&mut self.status, status.clone());
        for step in &decision.steps {
            let result = self.apply(step);
            record(&mut status, step, result, self.now);
        }
        self.status = if crash { before } else { status };
        let running = usize::from(self.source.status == "ACTIVE")
            + self.servers.iter().filter(|s| s.status == "ACTIVE").count();
        assert!(
            running <= 1 || self.status.source.as_ref().is_some_and(|s| s.taken_back),
            "never 2: two copies run"
        );
        self.tick();
    }

    fn run(&mut self, passes: usize, until: impl Fn(&World) -> bool, mut crash: impl FnMut() -> bool) {
        for _ in 0..passes {
            if until(self) {
                return;
            }
            let now = crash();
            self.pass(now);
        }
        assert!(
            until(self),
            "not reached: {:?} {:?} {:#?}",
            self.status.phase,
            self.status.message,
            self.status.timeline
        );
    }

    fn phase(&self) -> Option<Phase> {
        self.status.phase
    }

    fn clean(&self) -> bool {
        self.status.cleaned_up_at.is_some()
    }

    /// Nothing of ours is in B, nothing but what is retained in A, no Secret, no repository.
    fn assert_nothing_left(&self) {
        assert!(
            self.made.is_empty()
                && self.ports.is_empty()
                && self.servers.is_empty()
                && self.images.is_empty()
        );
        assert!(
            self.volumes.is_empty()
                && self.jobs.is_empty()
                && !self.vault
                && !self.anchors
                && !self.repository
        );
    }

    fn assert_given_back(&self) {
        assert_eq!(self.source.status, "ACTIVE");
        assert!(!self.source.locked && self.source.metadata.is_empty(), "{:?}", self.source);
    }
}

/// Pseudo-random, the same in every run.
fn dice(seed: u64, one_in: u64) -> impl FnMut() -> bool {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.is_multiple_of(one_in)
    }
}

#[test]
fn the_whole_way() {
    let mut w = World::new();
    w.run(200, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Succeeded));
    assert_eq!((w.source.status.as_str(), w.source.locked), ("SHUTOFF", true));
    assert_eq!((w.servers.len(), w.made.len(), w.ports.len()), (1, 2, 1));
    assert!(w.images.is_empty() && w.volumes.is_empty() && w.jobs.is_empty() && !w.vault && !w.repository);
    assert_eq!(w.status.retained.len(), 2, "snapshots stay while A is stopped");
    assert!(w.status.disks.iter().all(|d| d.readback.is_some()));
}

#[test]
fn never_5_a_crash_at_any_point_loses_leaks_or_doubles_nothing() {
    for seed in 0..300 {
        let mut w = World::new();
        w.run(2000, World::clean, dice(seed, 3));
        assert_eq!(w.phase(), Some(Phase::Succeeded), "seed {seed}: {:?}", w.status.failure);
        assert_eq!((w.servers.len(), w.made.len(), w.ports.len()), (1, 2, 1), "seed {seed}");
        assert!(w.images.is_empty() && w.volumes.is_empty() && !w.repository, "seed {seed}");
    }
}

#[test]
fn deletion_at_any_point_gives_the_source_back() {
    for passes in 0..60 {
        let mut w = World::new();
        for _ in 0..passes {
            w.pass(false);
        }
        if w.phase() == Some(Phase::Succeeded) {
            break;
        }
        w.deleting = true;
        let mut crash = dice(passes as u64, 4);
        w.run(1000, |w| w.released, &mut crash);
        let kept = w.status.destination.as_ref().is_some_and(|x| x.active_at.is_some());
        assert_eq!(w.source.status, "ACTIVE", "after {passes} passes");
        assert!(!w.source.locked && w.source.metadata.is_empty());
        if kept {
            assert_eq!(w.servers[0].status, "SHUTOFF", "a server that was ACTIVE is stopped and kept");
        } else {
            w.assert_nothing_left();
        }
    }
}

#[test]
fn deletion_after_success_leaves_both_servers() {
    let mut w = World::new();
    w.run(200, |w| w.phase() == Some(Phase::Succeeded), || false);
    w.deleting = true;
    w.run(200, |w| w.released, || false);
    assert_eq!((w.source.status.as_str(), w.servers[0].status.as_str()), ("SHUTOFF", "ACTIVE"));
    assert_eq!((w.made.len(), w.ports.len()), (2, 1));
    assert!(w.images.is_empty() && !w.vault);
}

#[test]
fn a_refusal_of_the_destination_gives_the_source_back() {
    for broken in ["create-volume", "create-port", "create-import-image", "create-server", "dress-volume"] {
        let mut w = World::new();
        w.broken = Some(broken);
        w.run(400, |w| w.phase() == Some(Phase::Failed) && w.clean(), dice(7, 5));
        w.assert_given_back();
        w.assert_nothing_left();
        assert!(w.status.failure.as_ref().unwrap().message.contains("req-1"), "{broken}");
    }
}

#[test]
fn never_8_a_disk_that_differs_is_no_success() {
    let mut w = World::new();
    w.corrupt = true;
    w.run(400, |w| w.phase() == Some(Phase::Failed) && w.clean(), || false);
    assert_eq!(w.status.failure.as_ref().unwrap().reason, "DigestMismatch");
    w.assert_given_back();
}

#[test]
fn never_3_a_source_that_ran_meanwhile_holds() {
    for at in [Phase::Transferring, Phase::Creating] {
        let mut w = World::new();
        w.run(200, |w| w.phase() == Some(at), || false);
        w.source.locked = false;
        w.act("unlock");
        w.source.status = "ACTIVE".into();
        w.act("start");
        w.run(50, |w| w.phase() == Some(Phase::Held), || false);
        for _ in 0..20 {
            w.pass(false);
        }
        assert_eq!(
            (w.phase(), w.source.status.as_str()),
            (Some(Phase::Held), "ACTIVE"),
            "nobody's start is undone"
        );
        assert!(w.servers.is_empty());
        w.deleting = true;
        w.run(200, |w| w.released, || false);
        w.assert_given_back();
        w.assert_nothing_left();
    }
}

#[test]
fn the_source_waits_while_a_requested_server_cannot_be_seen() {
    let mut w = World::new();
    w.run(200, |w| w.servers.len() == 1, || false);
    w.unreachable = true;
    w.deleting = true;
    for _ in 0..50 {
        w.pass(false);
    }
    assert_eq!(w.source.status, "SHUTOFF", "A waits until B is seen gone or stopped");
    w.unreachable = false;
    w.run(200, |w| w.released, || false);
    assert_eq!(w.source.status, "ACTIVE");
}

#[test]
fn before_the_server_is_asked_for_an_unseen_destination_delays_nothing() {
    let mut w = World::new();
    w.run(200, |w| w.phase() == Some(Phase::Transferring), || false);
    w.unreachable = true;
    w.deleting = true;
    for _ in 0..20 {
        w.pass(false);
    }
    w.assert_given_back();
    assert!(!w.released, "what was made in B is not forgotten");
    w.unreachable = false;
    w.run(200, |w| w.released, || false);
    w.assert_nothing_left();
}

#[test]
fn an_unseen_destination_is_borne_for_a_while_and_then_a_is_given_back() {
    let mut w = World::new();
    w.run(200, |w| w.phase() == Some(Phase::Creating), || false);
    w.unreachable = true;
    w.run(2000, |w| w.phase() == Some(Phase::Failed), || false);
    w.assert_given_back();
}

#[test]
fn manual_waits_and_a_time_that_was_past_waits_too() {
    for cutover in [json!({"mode": "Manual"}), json!({"mode": "At", "at": "2001-01-01T00:00:00Z"})] {
        let mut w = World::new();
        w.spec.cutover = serde_json::from_value(cutover).unwrap();
        for _ in 0..50 {
            w.pass(false);
        }
        assert_eq!((w.phase(), w.source.status.as_str()), (Some(Phase::AwaitingCutover), "ACTIVE"));
        w.spec.cutover = serde_json::from_value(json!({"mode": "Now"})).unwrap();
        w.run(200, World::clean, || false);
    }
}

#[test]
fn at_stops_the_source_when_its_time_has_come() {
    let mut w = World::new();
    let at = w.now.checked_add(90.seconds()).unwrap();
    w.spec.cutover = serde_json::from_value(json!({"mode": "At", "at": at.to_string()})).unwrap();
    w.run(200, |w| w.source.status == "SHUTOFF", || false);
    assert!(w.now >= at);
}

#[test]
fn blocked_touches_nothing_and_goes_on_by_itself() {
    let mut w = World::new();
    w.source.status = "PAUSED".into();
    for _ in 0..10 {
        w.pass(false);
    }
    assert_eq!(w.phase(), Some(Phase::Blocked));
    assert!(w.source.metadata.is_empty() && w.actions.is_empty() && w.snapshots.is_empty());
    w.source.status = "ACTIVE".into();
    w.run(200, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Succeeded));
}

#[test]
fn a_stopped_source_arrives_stopped() {
    let mut w = World::new();
    w.source.status = "SHUTOFF".into();
    w.run(300, World::clean, dice(3, 4));
    assert_eq!((w.source.status.as_str(), w.servers[0].status.as_str()), ("SHUTOFF", "SHUTOFF"));
    assert!(w.actions.iter().all(|a| a.action != "start"));
}

#[test]
fn cancel_at_any_point_is_answered_once_and_ends_as_if_it_had_not_been_tried() {
    for passes in 1..60 {
        let mut w = World::new();
        for _ in 0..passes {
            w.pass(false);
        }
        let over = w.phase() == Some(Phase::Succeeded);
        w.spec.requests = Some(Requests { cancel: Some("one".into()), ..Default::default() });
        w.run(1000, World::clean, dice(passes, 4));
        let row = w.status.requests[0].clone();
        if over {
            assert_eq!((row.result, w.phase()), (RequestResult::Refused, Some(Phase::Succeeded)));
            assert_eq!(w.servers[0].status, "ACTIVE");
            return;
        }
        assert_eq!((row.result, w.phase()), (RequestResult::Done, Some(Phase::Cancelled)), "after {passes}");
        assert!(w.status.failure.as_ref().is_some_and(|f| f.cancelled));
        w.assert_given_back();
        match w.status.destination.as_ref().and_then(|x| x.active_at.as_ref()) {
            Some(_) => {
                assert_eq!(w.servers[0].status, "SHUTOFF", "a server that was ACTIVE is stopped and kept")
            }
            None => w.assert_nothing_left(),
        }
    }
    unreachable!("it never succeeded");
}

#[test]
fn a_token_that_was_there_first_does_nothing_and_a_new_one_does() {
    let mut w = World::new();
    w.spec.cutover = serde_json::from_value(json!({"mode": "Manual"})).unwrap();
    w.spec.requests = Some(Requests { cancel: Some("old".into()), ..Default::default() });
    w.run(50, |w| w.phase() == Some(Phase::AwaitingCutover), || false);
    assert_eq!(w.status.requests[0].result, RequestResult::Superseded);
    w.spec.requests = Some(Requests { cancel: Some("new".into()), ..Default::default() });
    w.run(200, World::clean, || false);
    assert_eq!((w.phase(), w.status.requests.len()), (Some(Phase::Cancelled), 1));
    assert_eq!(
        (w.status.requests[0].token.as_str(), w.status.requests[0].result),
        ("new", RequestResult::Done)
    );
}

#[test]
fn cancel_while_blocked_needs_no_cloud() {
    let mut w = World::new();
    w.source.status = "PAUSED".into();
    w.unreachable = true;
    (0..5).for_each(|_| w.pass(false));
    assert_eq!(w.phase(), Some(Phase::Blocked));
    w.spec.requests = Some(Requests { cancel: Some("x".into()), ..Default::default() });
    w.run(50, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Cancelled));
    w.assert_nothing_left();
}

#[test]
fn suspend_begins_nothing_and_then_it_goes_on() {
    for passes in (1..60).step_by(3) {
        let mut w = World::new();
        for _ in 0..passes {
            w.pass(false);
        }
        if w.status.finished_at.is_some() {
            return;
        }
        w.spec.suspend = Some(true);
        w.pass(false);
        let (phase, serial, jobs) = (w.phase(), w.serial, w.jobs.len());
        // Much longer than any bound.
        for _ in 0..2000 {
            w.pass(false);
        }
        assert_eq!((w.phase(), w.serial, w.jobs.len()), (phase, serial, jobs), "after {passes} passes");
        assert!(w.status.message.as_ref().is_some_and(|m| m.contains("Suspended")), "{:?}", w.status.message);
        w.spec.suspend = Some(false);
        w.run(500, World::clean, || false);
        assert_eq!(w.phase(), Some(Phase::Succeeded), "after {passes} passes: {:?}", w.status.failure);
    }
}

#[test]
fn suspend_does_not_hold_up_the_way_back() {
    let mut w = World::new();
    w.run(200, |w| w.phase() == Some(Phase::Transferring), || false);
    w.spec.suspend = Some(true);
    (0..5).for_each(|_| w.pass(false));
    w.spec.requests = Some(Requests { cancel: Some("x".into()), ..Default::default() });
    w.run(200, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Cancelled));
    w.assert_given_back();
}

/// A migration with hooks.
fn hooked(hooks: serde_json::Value) -> World {
    let mut w = World::new();
    w.spec.hooks = serde_json::from_value(hooks).unwrap();
    w
}

fn hook_row(w: &World, name: &str) -> HookRow {
    w.status.hooks.iter().find(|r| r.name == name).cloned().unwrap_or_default()
}

/// One job hook at each phase.
fn everywhere() -> serde_json::Value {
    let one = |phase: HookPhase| json!({"name": phase.to_string().to_lowercase(), "phase": phase, "job": {"script": "true"}});
    <HookPhase as strum::IntoEnumIterator>::iter().map(one).collect()
}

#[test]
fn hooks_of_each_phase_run_at_their_time_and_only_once() {
    for seed in 0..60 {
        let mut w = hooked(everywhere());
        let mut crash = dice(seed, 4);
        w.run(2000, World::clean, &mut crash);
        assert_eq!(w.phase(), Some(Phase::Succeeded), "seed {seed}: {:?}", w.status.failure);
        let expected: Vec<&str> = vec![
            "beforepreflight",
            "beforestop",
            "afterstop",
            "beforecreate",
            "afterstart",
            "afterverification",
            "finally",
        ];
        assert_eq!(w.ran, expected, "seed {seed}");
        assert_eq!(hook_row(&w, "onfailure").state, HookState::Pending);
        assert!(w.jobs.is_empty());
    }
}

#[test]
fn what_a_hook_finds_when_it_begins() {
    let mut w = hooked(everywhere());
    let mut seen: Vec<(String, String, bool, usize, usize)> = vec![];
    for _ in 0..400 {
        w.pass(false);
        if let Some(last) = w.ran.last().filter(|l| seen.last().is_none_or(|s| s.0 != **l)) {
            let claimed = !w.source.metadata.is_empty();
            seen.push((last.clone(), w.source.status.clone(), claimed, w.ports.len(), w.servers.len()));
        }
    }
    let rows = [
        ("beforepreflight", "ACTIVE", false, 0, 0),
        ("beforestop", "ACTIVE", false, 0, 0),
        ("afterstop", "SHUTOFF", true, 0, 0),
        ("beforecreate", "SHUTOFF", true, 0, 0),
        ("afterstart", "SHUTOFF", true, 1, 1),
        ("afterverification", "SHUTOFF", true, 1, 1),
        ("finally", "SHUTOFF", true, 1, 1),
    ];
    assert_eq!(seen, rows.map(|(a, b, c, d, e)| (a.to_string(), b.to_string(), c, d, e)));
}

#[test]
fn a_failed_gate_gives_the_source_back_and_the_hooks_of_the_end_run() {
    let forward =
        ["BeforePreflight", "BeforeStop", "AfterStop", "BeforeCreate", "AfterStart", "AfterVerification"];
    for (n, phase) in forward.into_iter().enumerate() {
        let mut w = hooked(everywhere());
        let name = phase.to_lowercase();
        w.scripts.insert(name.clone(), vec![7]);
        w.run(2000, World::clean, dice(n as u64, 5));
        assert_eq!(w.phase(), Some(Phase::Failed), "{phase}");
        let failure = w.status.failure.clone().unwrap();
        assert_eq!(failure.reason, "HookFailed");
        for part in [name.as_str(), phase, "attempt 1 of 1", "exit code 7"] {
            assert!(failure.message.contains(part), "{}", failure.message);
        }
        assert_eq!((hook_row(&w, &name).state, hook_row(&w, &name).exit_code), (HookState::Failed, Some(7)));
        assert_eq!(w.ran[n..], [name.as_str(), "onfailure", "finally"], "{:?}", w.ran);
        w.assert_given_back();
        if n < 4 {
            w.assert_nothing_left();
        } else {
            assert_eq!(w.servers[0].status, "SHUTOFF");
        }
    }
}

#[test]
fn a_hook_is_tried_again_and_may_be_allowed_to_fail() {
    let table = [
        (vec![1, 1], json!({"retries": 2}), HookState::Succeeded, 3, Phase::Succeeded),
        (vec![1, 1, 1], json!({"retries": 2}), HookState::Failed, 3, Phase::Failed),
        (vec![1, 1], json!({"retries": 1, "onError": "Continue"}), HookState::Ignored, 2, Phase::Succeeded),
        (vec![TIMES_OUT], json!({}), HookState::Failed, 1, Phase::Failed),
        (vec![TIMES_OUT], json!({"retries": 1}), HookState::Succeeded, 2, Phase::Succeeded),
        (vec![NEVER_ENDS], json!({"timeout": "30s"}), HookState::Failed, 1, Phase::Failed),
        (
            vec![NEVER_ENDS],
            json!({"timeout": "30s", "retries": 1}),
            HookState::Succeeded,
            2,
            Phase::Succeeded,
        ),
    ];
    for (codes, more, state, attempts, phase) in table {
        let mut hook = json!({"name": "h", "phase": "BeforeStop", "job": {"script": "true"}});
        hook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut w = hooked(json!([hook]));
        w.scripts.insert("h".into(), codes.clone());
        w.run(2000, World::clean, || false);
        assert_eq!(
            (hook_row(&w, "h").state, hook_row(&w, "h").attempts),
            (state, attempts),
            "{codes:?} {more}"
        );
        assert_eq!(w.phase(), Some(phase), "{codes:?} {more}");
        assert!(w.jobs.is_empty(), "{:?}", w.jobs);
        if codes == [TIMES_OUT] && phase == Phase::Failed {
            assert!(w.status.failure.unwrap().message.contains("longer than 300 s"));
        }
    }
}

#[test]
fn hooks_of_one_phase_run_one_after_the_other_and_the_first_failure_ends_them() {
    let hook = |name: &str| json!({"name": name, "phase": "BeforeStop", "job": {"script": "true"}});
    let mut w = hooked(json!([hook("one"), hook("two"), hook("three")]));
    w.scripts.insert("two".into(), vec![1]);
    w.run(2000, World::clean, || false);
    assert_eq!(w.ran, ["one", "two"]);
    assert_eq!(hook_row(&w, "three").state, HookState::Pending);
    assert_eq!((w.source.status.as_str(), w.actions.len()), ("ACTIVE", 0), "A was not touched");
    assert!(w.made.is_empty() && w.snapshots.is_empty());
}

#[test]
fn hooks_of_the_end_change_no_outcome() {
    let mut w = hooked(everywhere());
    w.scripts.insert("finally".into(), vec![1]);
    w.run(2000, World::clean, || false);
    assert_eq!((w.phase(), hook_row(&w, "finally").state), (Some(Phase::Succeeded), HookState::Failed));
    let mut w = hooked(everywhere());
    for (name, code) in [("afterstop", 1), ("onfailure", NEVER_ENDS), ("finally", NEVER_ENDS)] {
        w.scripts.insert(name.into(), vec![code]);
    }
    w.run(2000, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Failed));
    w.assert_given_back();
    w.assert_nothing_left();
}

#[test]
fn a_job_that_cannot_be_made_is_a_failed_attempt() {
    let mut w = hooked(json!([{"name": "h", "phase": "AfterStop", "retries": 1, "job": {"script": "true"}}]));
    w.broken = Some("run-hook");
    w.run(2000, World::clean, || false);
    let failure = w.status.failure.clone().unwrap();
    assert!(failure.reason == "HookFailed" && failure.message.contains("413 quota exceeded"), "{failure:?}");
    assert_eq!(hook_row(&w, "h").attempts, 2);
    w.assert_given_back();
}

#[test]
fn a_job_that_somebody_deletes_is_not_run_twice() {
    let mut w = hooked(json!([{"name": "h", "phase": "BeforeStop", "job": {"script": "true"}}]));
    w.scripts.insert("h".into(), vec![NEVER_ENDS]);
    w.run(200, |w| hook_row(w, "h").message.is_some(), || false);
    w.jobs.retain(|name, _| !name.contains("hook"));
    w.run(2000, World::clean, || false);
    assert_eq!(w.ran, ["h"]);
    assert!(w.status.failure.unwrap().message.contains("deleted by somebody"));
}

#[test]
fn cancel_and_deletion_end_a_hook() {
    for phase in
        ["BeforePreflight", "BeforeStop", "AfterStop", "BeforeCreate", "AfterStart", "AfterVerification"]
    {
        for kind in [json!({"job": {"script": "true"}}), json!({"client": {}})] {
            for delete in [false, true] {
                let mut hook = json!({"name": "h", "phase": phase, "timeout": "1d"});
                hook.as_object_mut().unwrap().extend(kind.as_object().unwrap().clone());
                let mut w =
                    hooked(json!([hook, {"name": "f", "phase": "OnFailure", "job": {"script": "true"}}]));
                w.scripts.insert("h".into(), vec![NEVER_ENDS]);
                w.run(500, |w| w.status.hooks.iter().any(|r| r.attempts > 0), || false);
                (0..5).for_each(|_| w.pass(false));
                assert!(!hook_row(&w, "h").state.is_final(), "{phase}");
                if delete {
                    w.deleting = true;
                    w.run(500, |w| w.released, dice(1, 4));
                } else {
                    w.spec.requests = Some(Requests { cancel: Some("x".into()), ..Default::default() });
                    w.run(500, World::clean, dice(1, 4));
                    assert_eq!(w.phase(), Some(Phase::Cancelled));
                    assert_eq!(hook_row(&w, "f").state, HookState::Succeeded, "{phase}");
                }
                assert_eq!(hook_row(&w, "h").state, HookState::Failed);
                assert!(w.jobs.is_empty(), "{phase}: {:?}", w.jobs);
                w.assert_given_back();
            }
        }
    }
}

#[test]
fn deletion_ends_a_hook_of_the_end_and_runs_none() {
    let mut w = hooked(everywhere());
    w.scripts.insert("afterstop".into(), vec![1]);
    w.scripts.insert("onfailure".into(), vec![NEVER_ENDS]);
    w.run(500, |w| w.ran.last().is_some_and(|r| r == "onfailure"), || false);
    w.deleting = true;
    w.run(500, |w| w.released, || false);
    assert!(w.jobs.is_empty());
    assert_eq!(hook_row(&w, "finally").state, HookState::Pending);
    w.assert_given_back();
    w.assert_nothing_left();
}

/// A migration that waits for a client's hook before the stop.
fn with_client(more: serde_json::Value) -> World {
    let mut hook = json!({"name": "c", "phase": "BeforeStop", "timeout": "2m", "client": {}});
    hook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut w = hooked(json!([hook]));
    w.run(200, |w| hook_row(w, "c").state == HookState::Waiting, || false);
    w
}

impl World {
    fn answer(&mut self, change: impl FnOnce(&mut ClientHookNote)) {
        let nonce = hook_row(self, "c").nonce.clone().unwrap();
        let mut note = ClientHookNote {
            nonce,
            client: "me@here-1".into(),
            seen_at: Some(Time(self.now)),
            ..Default::default()
        };
        change(&mut note);
        let key = format!("{ANNOTATION_CLIENT_HOOK}c");
        self.annotations.insert(key, serde_json::to_string(&note).unwrap());
    }
}

#[test]
fn a_client_is_waited_for_claims_and_answers() {
    let mut w = with_client(json!({"captureOutput": true}));
    let said = w.status.message.clone().unwrap();
    assert!(
        said.contains("kubectl vmmigration attach web-1 -n team --hook BeforeStop=./script.sh"),
        "{said}"
    );
    w.answer(|_| {});
    w.pass(false);
    let row = hook_row(&w, "c");
    assert_eq!((row.state, row.client.as_deref()), (HookState::Running, Some("me@here-1")));
    w.answer(|n| (n.exit_code, n.output) = (Some(0), Some("\u{1b}[1mdone".into())));
    w.run(500, World::clean, || false);
    let row = hook_row(&w, "c");
    assert_eq!((row.state, row.exit_code, row.attempts), (HookState::Succeeded, Some(0), 1));
    assert_eq!(row.output.as_deref(), Some("\u{fffd}[1mdone"));
    assert_eq!(w.phase(), Some(Phase::Succeeded));
}

#[test]
fn an_answer_to_another_attempt_is_not_heard_and_output_is_kept_only_when_wanted() {
    let mut w = with_client(json!({"retries": 1}));
    w.answer(|n| (n.exit_code, n.nonce) = (Some(0), "other".into()));
    (0..5).for_each(|_| w.pass(false));
    assert_eq!(hook_row(&w, "c").state, HookState::Waiting);
    w.annotations.insert(format!("{ANNOTATION_CLIENT_HOOK}c"), "{nonsense".into());
    w.pass(false);
    w.answer(|n| (n.exit_code, n.output) = (Some(3), Some("secret".into())));
    w.run(50, |w| hook_row(w, "c").attempts == 2, || false);
    (0..5).for_each(|_| w.pass(false));
    assert_eq!(
        hook_row(&w, "c").state,
        HookState::Waiting,
        "the answer to the first attempt is no answer to the second"
    );
    w.answer(|n| (n.exit_code, n.output) = (Some(0), Some("secret".into())));
    w.run(500, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Succeeded));
    assert!(!serde_json::to_string(&w.status).unwrap().contains("secret"));
}

#[test]
fn a_lost_client_is_told_and_the_deadline_stays() {
    let mut w = with_client(json!({}));
    let deadline = hook_row(&w, "c").deadline.clone();
    w.answer(|_| {});
    w.pass(false);
    for _ in 0..25 {
        w.pass(false);
    }
    let row = hook_row(&w, "c");
    assert_eq!((row.state, row.client, row.deadline), (HookState::Waiting, None, deadline));
    assert!(w.status.message.as_ref().unwrap().contains("me@here-1 is not seen any more"));
    w.run(200, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Failed));
    assert!(w.status.failure.as_ref().unwrap().message.contains("did not answer"), "{:?}", w.status.failure);
    w.assert_given_back();
}

#[test]
fn no_client_by_the_deadline_is_what_on_error_says() {
    for (on_error, phase) in [("Fail", Phase::Failed), ("Continue", Phase::Succeeded)] {
        let mut w = with_client(json!({"onError": on_error}));
        w.run(500, World::clean, || false);
        assert_eq!(w.phase(), Some(phase));
        assert!(hook_row(&w, "c").message.as_ref().unwrap().contains("no client came within 120 s"));
    }
}

#[test]
fn while_suspended_a_client_has_time() {
    let mut w = with_client(json!({}));
    w.spec.suspend = Some(true);
    (0..500).for_each(|_| w.pass(false));
    w.spec.suspend = Some(false);
    w.pass(false);
    assert_eq!(hook_row(&w, "c").state, HookState::Waiting);
    w.answer(|n| n.exit_code = Some(0));
    w.run(500, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Succeeded));
}

#[test]
fn a_guest_that_a_hook_shut_down_ran_all_the_same() {
    let mut w = with_client(json!({}));
    w.source.status = "SHUTOFF".into();
    w.answer(|n| n.exit_code = Some(0));
    w.run(500, World::clean, || false);
    assert_eq!((w.phase(), w.servers[0].status.as_str()), (Some(Phase::Succeeded), "ACTIVE"));
}

#[test]
fn what_is_in_the_way_after_the_hooks_is_borne_and_then_undone() {
    let mut w = with_client(json!({}));
    w.source.status = "PAUSED".into();
    w.answer(|n| n.exit_code = Some(0));
    (0..100).for_each(|_| w.pass(false));
    assert_eq!(w.phase(), Some(Phase::Stopping));
    w.source.status = "ACTIVE".into();
    w.run(500, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Succeeded));
    let mut w = with_client(json!({}));
    w.source.status = "PAUSED".into();
    w.answer(|n| n.exit_code = Some(0));
    w.run(1000, World::clean, || false);
    assert_eq!(w.status.failure.unwrap().reason, "InvalidConfiguration");
}

#[test]
fn what_hooks_refer_to_blocks_before_anything_runs() {
    let mut w = hooked(everywhere());
    w.hook_finding = Some("hook-secret-missing");
    (0..20).for_each(|_| w.pass(false));
    assert_eq!((w.phase(), w.ran.len()), (Some(Phase::Blocked), 0));
    assert_eq!(w.status.preflight[0].id, "hook-secret-missing");
    w.hook_finding = None;
    w.run(500, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Succeeded));
}
