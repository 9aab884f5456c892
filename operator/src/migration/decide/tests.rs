//! The decision against a small model of both clouds and clusters: whole ways, crashes at any instant, failures.

mod bounds;
mod checks;
mod downtime;
mod hooks;
mod requests;
mod retirement;
mod retries;
mod ways;

use super::{trace::Trace, *};
use crate::{
    cloud::{Image, InstanceAction, Port, Proof, Server, Sighting, Snapshot, Volume, VolumeAttachment},
    crd::v1alpha1::*,
    migration::{
        block_storage::{BlockStorage, ClusterStorage, ReadyNode},
        bodies, looks,
        names::{MARK_CLAIM, Role},
        observed::*,
        place::Place,
        present, report,
        step::{Effect, JobRequest, ObjectKind, StepFailure},
    },
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::ToSpan};
use serde_json::json;
use std::collections::BTreeMap;

/// A model: what exists, and how each step changes it. Objects are ready one look after they were made.
pub(super) struct World {
    me: Identity,
    pub(super) spec: VmMigrationSpec,
    pub(super) now: Timestamp,
    serial: u32,
    pub(super) source: Server,
    /// The source's server was deleted.
    pub(super) source_gone: bool,
    /// The source's own volumes.
    pub(super) own: Vec<Volume>,
    pub(super) actions: Vec<InstanceAction>,
    pub(super) volumes: Vec<Volume>,
    pub(super) snapshots: Vec<Snapshot>,
    pub(super) images: Vec<(Side, Image)>,
    pub(super) made: Vec<Volume>,
    pub(super) ports: Vec<Port>,
    pub(super) servers: Vec<Server>,
    /// How many other servers each cloud's project has.
    pub(super) others: usize,
    /// A proxy before the source's cloud gives answers other request ids than Nova's.
    pub(super) rewrites: bool,
    /// What the next looks at the source's cloud give instead of what is there.
    pub(super) mirage_in_a: Option<Mirage>,
    /// The same of the destination's.
    pub(super) mirage_in_b: Option<Mirage>,
    pub(super) jobs: BTreeMap<String, (Side, JobView)>,
    /// What each Job was asked to do.
    pub(super) asked: BTreeMap<String, Vec<String>>,
    /// What the source's disks hold: another value after every instant that it ran.
    pub(super) version: u32,
    /// What snapshots, volumes and images hold, by id.
    pub(super) content: BTreeMap<String, String>,
    /// What rests in the repository, by its snapshots' ids.
    rests: BTreeMap<String, String>,
    /// Which disk and pass that is, and may another pass build on it?
    pub(super) manifests: BTreeMap<String, (String, i32, bool)>,
    /// The snapshot of each pass that is complete, by the image that was read.
    passes: BTreeMap<String, String>,
    /// The manifest that each one builds on.
    bases: BTreeMap<String, String>,
    /// What restores have written to volumes as block devices.
    filled: BTreeMap<String, Filled>,
    /// What the `OpenStackCloud`s ask for.
    pub(super) modes: BTreeMap<Side, TransferMode>,
    /// PersistentVolumes and claims.
    pub(super) devices: BTreeMap<String, (Side, DeviceView)>,
    /// The claim that a Job uses, by the Job.
    holds: BTreeMap<String, String>,
    pub(super) anchors: bool,
    pub(super) vault: bool,
    pub(super) report: bool,
    pub(super) told: Option<VmMigrationReportStatus>,
    pub(super) repository: bool,
    /// The read-back of disks differs from what was read in the source.
    pub(super) corrupt: bool,
    /// What the new server's console shows.
    pub(super) console: Result<String, String>,
    /// The termination message of Jobs of checks; null: they do not end.
    pub(super) checked: serde_json::Value,
    /// This step is not answered.
    pub(super) lost: Option<&'static str>,
    /// This step fails for ever.
    pub(super) broken: Option<&'static str>,
    /// It may pass.
    pub(super) may_pass: bool,
    /// The anchors hold other keys than the tenant's Secrets do.
    pub(super) stale: bool,
    /// Jobs for this purpose fail for ever; may it pass, by what they say?
    pub(super) failing: Option<(&'static str, bool)>,
    /// The reason that they give.
    pub(super) failing_for: &'static str,
    /// What a purge tells.
    pub(super) purged: serde_json::Value,
    /// So many images vanish while they are made, of those with this in their name; what they were made of is free again.
    pub(super) vanishing: (&'static str, u32),
    /// What the cloud tells of those.
    pub(super) lost_because: &'static str,
    /// Do the image services of source and destination judge what raw images hold, as their versions tell?
    pub(super) judging: [Option<bool>; 2],
    /// What the `OpenStackCloud`s say of that.
    pub(super) takes_any_disk: bool,
    /// What backups have against what the second disk begins with.
    pub(super) objection: Option<&'static str>,
    /// The source's image service has no hashes.
    pub(super) hashless: bool,
    /// How long images are.
    pub(super) image_bytes: i64,
    /// The destination's volume type encrypts.
    pub(super) encrypts_in_b: bool,
    /// How many images were asked for, by what they are for.
    pub(super) uploads: BTreeMap<String, u32>,
    /// The root disk of the source is local.
    pub(super) local_root: bool,
    /// The form in which Nova makes an image of it; unset: raw.
    pub(super) root_format: Option<&'static str>,
    /// The destination stores on Ceph: an image stays for as long as a volume lives that was made of it.
    pub(super) ceph: bool,
    /// The image that a volume was made of.
    parents: BTreeMap<String, String>,
    /// No deletion of these is carried out; does the cloud refuse it, or take it and do nothing?
    pub(super) keeping: Option<(Side, ObjectKind, bool)>,
    /// Time passes, and nothing that was begun is ever done.
    pub(super) stuck: bool,
    /// The clouds do not tell when something was made.
    timeless: bool,
    /// Somebody gave up on clean-up.
    pub(super) abandoned: bool,
    /// The next Job to end fails.
    pub(super) job_fails: bool,
    /// For how many ticks a disk's Jobs run.
    pub(super) slow: u32,
    /// For how many ticks those run that come before the stop.
    pub(super) slow_before: u32,
    /// For how many each of them has run.
    ticks: BTreeMap<String, u32>,
    /// How often the clouds were looked at.
    pub(super) cloud_looks: u32,
    /// How often the clouds would have been asked for everything that preflight needs.
    pub(super) inventories: u32,
    /// The next restore to end finds a segment wrong in the store, and condemns it there.
    pub(super) wrong_segment: bool,
    pub(super) unreachable: bool,
    /// Humans act, too: what runs is not our doing alone.
    pub(super) humans: bool,
    pub(super) status: VmMigrationStatus,
    pub(super) recheck: Option<Duration>,
    pub(super) generation: i64,
    pub(super) deleting: bool,
    pub(super) released: bool,
    annotations: BTreeMap<String, String>,
    /// How the attempts of a hook end, by its name; those after the last one end well.
    pub(super) scripts: BTreeMap<String, Vec<i32>>,
    /// Hooks whose Jobs were made.
    ran: Vec<String>,
    hook_finding: Option<&'static str>,
    /// The Jobs of movers that were asked for.
    pub(super) requests: Vec<JobRequest>,
    /// What was decided.
    pub(super) trace: Trace,
}

/// What looks like absence.
#[derive(Clone, Copy)]
pub(super) enum Mirage {
    /// The answer is no fact: a gateway's page, a cell that is down, a list that is cut.
    Half,
    /// The service says so, with this behind it.
    Gone(Proof),
}

/// What is told of half an answer.
pub(super) const HALF: &str = "Nova does not reach the cell of the server";

/// What a volume holds that is filled as a block device.
#[derive(Default)]
struct Filled {
    /// The pass that is in it as a whole.
    holds: Option<String>,
    /// Passes of which parts may be in it, besides: manifests, or what was read for one that is not complete.
    parts: Vec<String>,
}

/// Kubernetes ends the Job at its deadline.
const TIMES_OUT: i32 = -1;
/// Nothing ends the Job.
const NEVER_ENDS: i32 = -2;

pub(super) fn me() -> Identity {
    Identity {
        uid: "11111111-2222-4333-8444-555555555555".into(),
        namespace: "team".into(),
        name: "web-1".into(),
    }
}

fn creating(id: String, name: String, metadata: BTreeMap<String, String>, created_at: String) -> Volume {
    Volume { id, name, status: "creating".into(), created_at, metadata, ..Default::default() }
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
    pub(super) fn new() -> Self {
        let address =
            crate::cloud::ServerAddress { address: "10.0.0.4".into(), fixed: true, ..Default::default() };
        let source = Server {
            id: "src".into(),
            name: "web-1".into(),
            status: "ACTIVE".into(),
            addresses: vec![address],
            ..Default::default()
        };
        let own = |n: i32| Volume {
            id: format!("v{n}"),
            status: "in-use".into(),
            size: 1,
            bootable: n == 0,
            ..Default::default()
        };
        World {
            me: me(),
            spec: spec(),
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            serial: 0,
            source,
            source_gone: false,
            own: (0..2).map(own).collect(),
            actions: vec![],
            volumes: vec![],
            snapshots: vec![],
            images: vec![],
            made: vec![],
            ports: vec![],
            servers: vec![],
            others: 1,
            rewrites: false,
            mirage_in_a: None,
            mirage_in_b: None,
            jobs: BTreeMap::new(),
            asked: BTreeMap::new(),
            version: 1,
            content: BTreeMap::new(),
            rests: BTreeMap::new(),
            manifests: BTreeMap::new(),
            passes: BTreeMap::new(),
            bases: BTreeMap::new(),
            filled: BTreeMap::new(),
            modes: BTreeMap::new(),
            devices: BTreeMap::new(),
            holds: BTreeMap::new(),
            anchors: false,
            vault: false,
            report: false,
            told: None,
            repository: false,
            corrupt: false,
            console: Ok(String::new()),
            checked: json!({"ok": true, "result": {"checks": [{"name": "page", "ok": true, "message": "200"}]}}),
            lost: None,
            broken: None,
            may_pass: false,
            stale: false,
            failing: None,
            failing_for: "X",
            purged: json!({}),
            vanishing: ("", 0),
            lost_because: "no space left on device (req-9)",
            judging: [None, None],
            takes_any_disk: false,
            objection: None,
            hashless: false,
            image_bytes: 100,
            encrypts_in_b: false,
            uploads: BTreeMap::new(),
            local_root: false,
            root_format: None,
            ceph: false,
            parents: BTreeMap::new(),
            keeping: None,
            stuck: false,
            timeless: false,
            abandoned: false,
            job_fails: false,
            slow: 0,
            slow_before: 0,
            ticks: BTreeMap::new(),
            cloud_looks: 0,
            inventories: 0,
            wrong_segment: false,
            unreachable: false,
            humans: false,
            status: VmMigrationStatus::default(),
            recheck: None,
            generation: 1,
            deleting: false,
            released: false,
            annotations: BTreeMap::new(),
            scripts: BTreeMap::new(),
            ran: vec![],
            hook_finding: None,
            requests: vec![],
            trace: Trace::of_this_test(),
        }
    }

    /// What a cloud tells of when something was made.
    fn made_at(&self) -> String {
        if self.timeless { String::new() } else { self.now.to_string() }
    }

    fn id(&mut self, what: &str) -> String {
        self.serial += 1;
        format!("{what}-{}", self.serial)
    }

    /// Time passes; what was begun is done.
    fn tick(&mut self) {
        self.now = self.now.checked_add(2.seconds()).unwrap();
        if self.source.status == "ACTIVE" {
            self.version += 1;
        }
        if self.stuck {
            return;
        }
        for v in self.volumes.iter_mut().chain(&mut self.made) {
            v.status = "available".into();
        }
        self.settle_devices();
        self.lose_images();
        self.snapshots.retain(|s| s.status != "deleting");
        self.snapshots.iter_mut().for_each(|s| s.status = "available".into());
        for (side, i) in self.images.iter_mut().filter(|(_, i)| i.status == "saving") {
            let wrong = self.corrupt && i.name.contains("readback");
            i.status = "active".into();
            i.size = Some(self.image_bytes);
            if self.hashless && *side == Side::Source {
                continue;
            }
            (i.os_hash_algo, i.os_hash_value) =
                (Some("sha512".into()), Some(if wrong { "bad".into() } else { self.content[&i.id].clone() }));
        }
        for s in self.servers.iter_mut().filter(|s| s.status == "BUILD") {
            (s.status, s.launched_at) = ("ACTIVE".into(), Some(self.now.to_string()));
        }
        self.finish_jobs();
    }

    /// As a cloud does that cannot make them.
    fn lose_images(&mut self) {
        let (name, left) = &mut self.vanishing;
        self.images.retain(|(_, i)| {
            let lost = *left > 0 && i.status == "saving" && i.name.contains(*name);
            *left -= u32::from(lost);
            !lost
        });
    }

    fn finish_jobs(&mut self) {
        let active = |(_, j): &(Side, JobView)| j.state == JobState::Active;
        let names: Vec<String> =
            self.jobs.iter().filter(|(_, j)| active(j)).map(|(n, _)| n.clone()).collect();
        for name in names {
            if name.contains("-hook-") {
                self.finish_hook(&name);
                continue;
            }
            let first = name.contains("-check-")
                && !name.contains("-check-again-")
                && !name.contains("-check-source-");
            if first && self.servers.iter().any(|s| s.status == "ACTIVE") && !self.job_fails {
                self.finish_checks(&name);
                continue;
            }
            if let Some((purpose, retryable)) = self.failing.filter(|(purpose, _)| name.contains(purpose)) {
                self.break_off(&name);
                let said = json!({"ok": false, "reason": self.failing_for, "message": purpose, "retryable": retryable});
                if let Some((_, job)) = self.jobs.get_mut(&name) {
                    (job.state, job.termination) = (JobState::Failed, Some(said.to_string()));
                }
                continue;
            }
            if !self.job_fails && (self.waits(&name) || self.runs_on(&name)) {
                continue;
            }
            let result = match std::mem::take(&mut self.job_fails) {
                true => {
                    self.break_off(&name);
                    Err("it was killed")
                }
                false => self.finish_job(&name),
            };
            let Some((_, job)) = self.jobs.get_mut(&name) else { continue };
            let (state, said) = match result {
                Ok(result) => (JobState::Succeeded, json!({"ok": true, "result": result})),
                Err(why) => {
                    let wrong = why == "WrongSegment";
                    (
                        JobState::Failed,
                        json!({"ok": false, "reason": why, "message": why, "retryable": !wrong}),
                    )
                }
            };
            (job.state, job.termination) = (state, Some(said.to_string()));
        }
    }

    fn finish_checks(&mut self, name: &str) {
        let Some((_, job)) = self.jobs.get_mut(name).filter(|_| !self.checked.is_null()) else { return };
        let well = self.checked["ok"] == true;
        job.state = if well { JobState::Succeeded } else { JobState::Failed };
        job.termination = Some(self.checked.to_string());
    }

    fn finish_hook(&mut self, name: &str) {
        let Some((_, job)) = self.jobs.get_mut(name) else { return };
        (job.state, job.reason) = match job.exit_code {
            Some(0) => (JobState::Succeeded, None),
            Some(NEVER_ENDS) => return,
            Some(TIMES_OUT) => (JobState::Failed, Some("DeadlineExceeded".into())),
            _ => (JobState::Failed, None),
        };
    }

    /// What Kubernetes does with volumes and claims: a claim goes after the pods that use it, a volume after its claim.
    fn settle_devices(&mut self) {
        let held: Vec<String> = self
            .holds
            .iter()
            .filter(|(job, _)| self.jobs.contains_key(*job))
            .map(|(_, c)| c.clone())
            .collect();
        for (name, (_, device)) in &mut self.devices {
            if device.claim.as_ref().is_some_and(|c| c.deleting) && !held.contains(name) {
                device.claim = None;
                device.volume.iter_mut().for_each(|v| v.released = true);
            }
            match (&mut device.volume, &mut device.claim) {
                (Some(v), Some(c)) if !v.released && !v.deleting && !c.deleting => c.bound = true,
                (v @ Some(_), None) if v.as_ref().is_some_and(|v| v.deleting) => *v = None,
                _ => {}
            }
        }
        self.devices.retain(|_, (_, d)| *d != DeviceView::default());
    }

    /// The volume that a Job has as its device.
    fn device_of(&self, job: &str) -> Option<String> {
        let (_, device) = self.devices.get(self.holds.get(job)?)?;
        assert!(device.claim.as_ref().is_some_and(|c| c.bound), "a Job runs with a claim that is not bound");
        device.volume.as_ref().map(|v| v.handle.clone())
    }

    /// A restore that does not come to its end has written some of what it was to write.
    fn break_off(&mut self, job: &str) {
        let args = self.asked.get(job).cloned().unwrap_or_default();
        let arg = |key: &str| args.iter().position(|a| a == key).map(|at| args[at + 1].clone());
        let restores = args.first().is_some_and(|a| a == "restore");
        let Some(volume) = self.device_of(job).filter(|_| restores) else { return };
        self.content.insert(volume.clone(), "some of it".into());
        let filled = self.filled.entry(volume).or_default();
        filled.parts.extend(arg("--snapshot").or(arg("--origin")));
        filled.holds = filled.holds.take().filter(|_| arg("--holds").is_some());
    }

    /// What a volume holds must be as it was said, and no part of it of a pass that the one to come does not build on.
    fn write(&mut self, volume: &str, args: &[String], snapshot: &str) {
        let arg = |key: &str| args.iter().position(|a| a == key).map(|at| args[at + 1].clone());
        let has = |option: &str| args.iter().any(|a| a == option);
        let filled = self.filled.remove(volume);
        assert!(filled.is_none() || !has("--target-is-zero"), "it is written to, and no zero any more");
        if let Some(held) = arg("--holds") {
            let mut filled = filled.unwrap_or_default();
            if filled.holds.as_ref() != Some(&held) {
                // A later one may have come to its end unseen: its patches are written again.
                let unseen = filled.holds.take().filter(|later| self.bases.contains_key(later));
                filled.parts.push(unseen.expect("it does not hold that pass"));
            }
            let mut below = Some(snapshot.to_string());
            let mut line = vec![];
            while let Some(one) = below {
                below = self.bases.get(&one).cloned();
                line.push(one);
            }
            assert!(line.contains(&held), "the pass does not build on what is there");
            for part in filled.parts {
                let whole = self.passes.get(&part).unwrap_or(&part);
                assert!(line.contains(whole), "parts of another pass stay in it");
            }
        } else {
            assert!(filled.is_none() || has("--resume"), "what is there is not looked at");
        }
        self.filled.insert(volume.into(), Filled { holds: Some(snapshot.into()), parts: vec![] });
    }

    /// A restore that takes segments while they arrive ends after the backup.
    fn waits(&self, job: &str) -> bool {
        let args = self.asked.get(job).map(Vec::as_slice).unwrap_or_default();
        args.iter().position(|a| a == "--origin").is_some_and(|at| !self.passes.contains_key(&args[at + 1]))
    }

    /// What copies a disk takes its time, and so may what comes before.
    fn runs_on(&mut self, job: &str) -> bool {
        let is = |purposes: [&str; 2]| purposes.iter().any(|p| job.contains(p));
        let slow = match () {
            () if is(["-backup-", "-restore-"]) => self.slow,
            () if is(["-probe-", "-init-"]) => self.slow_before,
            () => 0,
        };
        let ticks = self.ticks.entry(job.into()).or_default();
        *ticks += 1;
        *ticks <= slow
    }

    /// What a Job does, and what it tells.
    fn finish_job(&mut self, name: &str) -> Result<serde_json::Value, &'static str> {
        let args = self.asked.get(name).cloned().unwrap_or_default();
        let arg = |key: &str| {
            let at = args.iter().position(|a| a == key).unwrap_or(usize::MAX - 1);
            args.get(at + 1).cloned().unwrap_or_default()
        };
        let hashless = self.hashless;
        // Of a device nobody but the mover knows a digest.
        let device = self.device_of(name);
        let digest = |snapshot: &str, hash: &str| {
            let unhashed = hashless && args[0] == "backup";
            let algo = if unhashed || args.contains(&"--device".to_string()) { "" } else { "sha512" };
            let value = if algo.is_empty() { "" } else { hash };
            json!({"snapshotId": snapshot, "bytes": 100, "sha256": hash, "hashAlgo": algo, "hashValue": value,
                "changedBytes": 10, "storedBytes": 5, "seconds": 2})
        };
        match args.first().map(String::as_str).unwrap_or_default() {
            "backup" => {
                let read = device.unwrap_or_else(|| arg("--image"));
                let hash = self.content[&read].clone();
                self.serial += 1;
                let snapshot = format!("{:064x}", self.serial);
                let (disk, pass) = (arg("--disk"), arg("--pass").parse().unwrap_or(0));
                if pass > 0 {
                    let base = self.manifests.get(&arg("--base-manifest"));
                    assert_eq!(base, Some(&(disk.clone(), pass - 1, true)), "pass {pass} builds on another");
                    let base = arg("--base-manifest");
                    self.bases.entry(self.passes.get(&read).unwrap_or(&snapshot).clone()).or_insert(base);
                }
                // An attempt after one that finished the pass finds it.
                let snapshot = self.passes.entry(read).or_insert(snapshot).clone();
                let keeps = args.iter().any(|a| a == "--keep-digests");
                self.manifests.insert(snapshot.clone(), (disk, pass, keeps));
                self.rests.insert(snapshot.clone(), hash.clone());
                let mut result = digest(&snapshot, &hash);
                if let Some(objection) = self.objection.filter(|_| arg("--disk") == "1") {
                    result["objection"] = json!(objection);
                }
                Ok(result)
            }
            "restore" => {
                let (recorded, image) = (arg("--snapshot"), arg("--image"));
                let snapshot = self.passes.get(&arg("--origin")).cloned().unwrap_or(recorded);
                let hash = self.rests.get(&snapshot).ok_or("never 4: no such snapshot")?.clone();
                if std::mem::take(&mut self.wrong_segment) {
                    self.passes.retain(|_, s| *s != snapshot);
                    return Err("WrongSegment");
                }
                let (disk, pass, _) = &self.manifests[&snapshot];
                let pass_asked =
                    args.iter().position(|a| a == "--pass").map_or("0".into(), |_| arg("--pass"));
                assert_eq!((arg("--disk"), pass_asked), (disk.clone(), pass.to_string()), "another pass");
                if let Some(volume) = device {
                    self.write(&volume, &args, &snapshot);
                    let back = if self.corrupt { "bad".into() } else { hash };
                    self.content.insert(volume, back.clone());
                    return Ok(digest(&snapshot, &back));
                }
                let found = self.images.iter_mut().find(|(_, i)| i.id == image);
                let (_, found) = found.ok_or("the image is gone")?;
                (found.status, found.size) = ("active".into(), Some(100));
                found.os_hash_value = Some(hash.clone());
                self.content.insert(image, hash.clone());
                Ok(digest(&snapshot, &hash))
            }
            "check" => {
                let at = |s: &Server| s.status == "ACTIVE";
                let serves = if name.contains("check-source") {
                    at(&self.source)
                } else {
                    self.servers.iter().any(at)
                };
                let row = json!({"name": "page", "ok": true, "message": "200"});
                if serves { Ok(json!({"checks": [row]})) } else { Err("no answer") }
            }
            "purge" => {
                self.repository = false;
                self.rests.clear();
                self.passes.clear();
                self.manifests.clear();
                Ok(self.purged.clone())
            }
            "init" => {
                self.repository = true;
                Ok(json!({}))
            }
            _ => Ok(json!({})),
        }
    }

    fn cluster(&self, side: Side) -> Seen<ClusterView> {
        let jobs =
            self.jobs.iter().filter(|(_, (s, _))| *s == side).map(|(n, (_, j))| (n.clone(), j.clone()));
        let devices = self.devices.iter().filter(|(_, (s, _))| *s == side);
        let asked = self.modes.get(&side).map(|mode| Transfer {
            mode: *mode,
            assume_zero_target: true,
            takes_any_disk: self.takes_any_disk,
        });
        let cluster = ClusterStorage { driver: asked.is_some(), ready_nodes: vec![ReadyNode::default()] };
        Seen::View(ClusterView {
            anchor: self.anchors,
            stale: self.stale,
            jobs: jobs.collect(),
            devices: devices.map(|(n, (_, d))| (n.clone(), d.clone())).collect(),
            storage: Some(BlockStorage { asked, cluster: Ok(cluster), belongs: Ok(()) }),
            ..Default::default()
        })
    }

    pub(super) fn observe(&self) -> Observed {
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
        let mut view = destination_view(
            &self.me,
            self.servers.clone(),
            &self.made,
            &images(Side::Destination),
            &self.ports,
            &recorded,
            &self.status.made(),
        );
        view.console = Some(self.console.clone());
        view.absent = self.servers.is_empty().then(|| self.absence_in_b());
        if let Some(Mirage::Gone(proof)) = self.mirage_in_b {
            (view.servers, view.absent) = (vec![], Some(proof));
        }
        if !self.deleting && looks::only_disks_are_made(&self.status) {
            (view.whole, view.servers, view.ports) = (false, vec![], vec![]);
        }
        let mut seen = Observed {
            store: Some(StoreView {
                name: "s".into(),
                repository: "s3:https://x/b/team/uid".into(),
                bandwidth: Bandwidth { upload: Some("10Mi".into()), download: None },
            }),
            source: Seen::View(source_view(
                &self.me,
                Some(self.source_sighting()),
                self.actions.clone(),
                &self.volumes.iter().chain(&self.own).cloned().collect::<Vec<_>>(),
                &self.snapshots,
                &images(Side::Source),
                &["v0".to_string(), "v1".to_string()],
                &self.status.made(),
            )),
            destination: if self.unreachable { Seen::Unseen(gone.clone()) } else { Seen::View(view) },
            inventory: Some(self.inventory()),
            hook_findings: self.hook_finding.map(finding).into_iter().collect(),
            source_cluster: self.cluster(Side::Source),
            destination_cluster: self.cluster(Side::Destination),
            vault_exists: self.vault,
            report_exists: self.report,
            report_finished: self.told.as_ref().is_some_and(|t| report::tells(t, &self.status)),
            source_place: Some(Place { project_id: "pa".into(), ..Default::default() }),
            destination_place: Some(Place { project_id: "pb".into(), ..Default::default() }),
            judging: self.judging,
            ..Default::default()
        };
        let half = |side: Side| Problem {
            id: format!("{side}-cloud-unreachable"),
            message: HALF.into(),
            ..gone.clone()
        };
        if let Some(Mirage::Half) = self.mirage_in_a {
            seen.source = Seen::Unseen(half(Side::Source));
        }
        if let Some(Mirage::Half) = self.mirage_in_b {
            seen.destination = Seen::Unseen(half(Side::Destination));
        }
        if !self.deleting && looks::clouds_may_wait(&self.me, &self.status, &seen, self.now) {
            (seen.source, seen.destination) = (Seen::NotLooked, Seen::NotLooked);
        }
        if !self.deleting && self.clean() {
            // As the operator does: only a source that may come back is looked for.
            seen.destination = Seen::NotLooked;
            if !looks::source_may_return(&self.status, self.now) {
                seen.source = Seen::NotLooked;
            }
        }
        if looks::inventory_may_wait(&self.me, &self.status, &seen) {
            seen.inventory = None;
        }
        seen
    }

    /// The one exception: somebody said that B's cloud is gone, and it cannot be seen.
    pub(super) fn started_anyway(&self) -> bool {
        self.unreachable && self.status.source.as_ref().is_some_and(|s| s.start_anyway_at.is_some())
    }

    fn source_sighting(&self) -> Sighting {
        match self.mirage_in_a {
            Some(Mirage::Gone(proof)) => Sighting::Gone(proof),
            _ if self.source_gone => Sighting::Gone(Proof::Deleted),
            _ => Sighting::Found(Box::new(self.source.clone())),
        }
    }

    /// Of a server whose id was never recorded nothing is known but what is listed.
    fn absence_in_b(&self) -> Proof {
        match self.status.destination.as_ref().and_then(|x| x.server_id.as_ref()) {
            Some(_) => Proof::Deleted,
            None => Proof::NotListed { others: self.others },
        }
    }

    fn inventory(&self) -> Inventory {
        let attachment = |n: i32| VolumeAttachment {
            volume_id: format!("v{n}"),
            device: format!("/dev/vd{}", (b'a' + u8::try_from(n).unwrap()) as char),
            ..Default::default()
        };
        let flavor = serde_json::from_value(json!({"id": "f", "name": ""})).unwrap();
        let network = serde_json::from_value(json!({"id": "na", "name": "net", "project_id": "pb"})).unwrap();
        let port = Port { id: "p".into(), network_id: "na".into(), ..Default::default() };
        let mut source = self.source.clone();
        source.image_id = self.local_root.then(|| "base".into());
        Inventory {
            candidates: Some(source).filter(|_| !self.source_gone).into_iter().collect(),
            source: SourceInventory {
                attachments: (0..2).map(attachment).collect(),
                volumes: self.own.clone(),
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

    pub(super) fn act(&mut self, action: &str) -> Effect {
        let request_id = self.id("req");
        let answered = if self.rewrites { format!("proxy-{request_id}") } else { request_id.clone() };
        let row = InstanceAction {
            action: action.into(),
            request_id: request_id.clone(),
            start_time: self.now.to_string(),
            ..Default::default()
        };
        self.actions.insert(0, row);
        Effect::Accepted { request_id: Some(answered) }
    }

    fn image(&mut self, side: Side, name: String, status: &str, content: String) -> String {
        let (id, properties) = (self.id("img"), json!({}));
        self.content.insert(id.clone(), content);
        let properties = serde_json::from_value(properties).unwrap_or_default();
        let image = Image {
            id,
            name,
            status: status.into(),
            size: Some(100),
            properties,
            created_at: self.made_at(),
            ..Default::default()
        };
        let id = image.id.clone();
        self.images.push((side, image));
        id
    }

    /// Does a step as the clouds would; checks what must never happen.
    pub(super) fn apply(&mut self, step: &Step) -> Result<Effect, StepFailure> {
        if self.broken == Some(step.name()) {
            let message = "413 quota exceeded (req-1)".into();
            return Err(StepFailure { transient: self.may_pass, conflict: false, message });
        }
        if self.lost == Some(step.name()) {
            let message = "no answer in time".into();
            return Err(StepFailure { transient: true, conflict: false, message });
        }
        if let Some(refused) = self.refused(step) {
            return Err(StepFailure { transient: true, conflict: false, message: refused.into() });
        }
        let me = self.me.clone();
        let granted = self.status.cutover.as_ref().is_some_and(|c| c.granted_at.is_some());
        let touches = matches!(step, Step::ClaimSource | Step::StopSource | Step::LockSource);
        assert!(granted || !touches, "A is touched before the go: {step:?}");
        match step {
            Step::PrepareSecrets => (self.anchors, self.vault, self.stale) = (true, true, false),
            Step::CreateJob(j) => {
                let name = me.job(&j.purpose, j.attempt);
                assert!(self.anchors && self.vault, "a Job without its Secrets");
                self.asked.insert(name.clone(), j.task.command_line(&[]));
                self.requests.push(JobRequest::clone(j));
                if let Some(claim) = &j.device {
                    self.holds.insert(name.clone(), claim.clone());
                }
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
            Step::DeleteJob { name, .. } => {
                if self.jobs.get(name).is_some_and(|(_, j)| j.state == JobState::Active) {
                    self.break_off(name);
                }
                self.jobs.remove(name);
            }
            Step::CreatePersistentVolume { side, disk, volume_id, .. } => {
                let other = |d: &DeviceView| d.volume.as_ref().is_some_and(|v| v.handle == *volume_id);
                assert!(!self.devices.values().any(|(_, d)| other(d)), "a volume is attached twice");
                let all = self.volumes.iter().chain(&self.made);
                assert!(
                    all.into_iter().any(|v| v.id == *volume_id && v.status == "available"),
                    "not available"
                );
                let volume = PersistentVolumeView { handle: volume_id.clone(), ..Default::default() };
                let name = me.device(*side, *disk);
                self.devices.entry(name).or_insert((*side, DeviceView::default())).1.volume = Some(volume);
            }
            Step::CreateClaim { side, disk, .. } => {
                assert!(self.anchors, "a claim without its owner");
                let device =
                    self.devices.get_mut(&me.device(*side, *disk)).expect("a claim without its volume");
                device.1.claim.get_or_insert_default();
            }
            Step::DeleteClaim { name, .. } => {
                let claim = self.devices.get_mut(name).and_then(|(_, d)| d.claim.as_mut());
                claim.into_iter().for_each(|c| c.deleting = true);
            }
            Step::DeletePersistentVolume { name, .. } => {
                let volume = self.devices.get_mut(name).and_then(|(_, d)| d.volume.as_mut());
                volume.into_iter().for_each(|v| v.deleting = true);
            }
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
                    self.started_anyway()
                        || !self.servers.iter().any(|s| s.status == "ACTIVE" || s.status == "BUILD"),
                    "never 2: A is started while B runs"
                );
                self.source.status = "ACTIVE".into();
                return Ok(self.act("start"));
            }
            Step::DeleteSource => {
                self.assert_may_retire();
                assert_eq!(self.source.status, "SHUTOFF", "never 1: a source that runs is deleted");
                assert_eq!(
                    self.source.metadata.get(MARK_CLAIM),
                    Some(&self.me.uid),
                    "never 7: not our claim"
                );
                self.source_gone = true;
                self.own.iter_mut().for_each(|v| v.status = "available".into());
            }
            Step::DeleteSourceVolume { volume_id } => {
                self.assert_may_retire();
                assert!(self.source_gone, "never 1: a volume goes before its server");
                self.own.retain(|v| v.id != *volume_id);
            }
            Step::LockSource | Step::RelockSource => {
                self.source.locked = true;
                return Ok(self.act("lock"));
            }
            Step::UnlockSource => {
                self.source.locked = false;
                return Ok(self.act("unlock"));
            }
            Step::CreateSnapshot { disk, attempt, volume_id } => {
                let (id, metadata) = (self.id("snap"), me.marks_of(Role::Snapshot, *disk, *attempt));
                self.content.insert(id.clone(), format!("version {}", self.version));
                self.snapshots.push(Snapshot {
                    id: id.clone(),
                    name: me.object_name(Role::Snapshot, *disk, *attempt),
                    volume_id: volume_id.clone(),
                    status: "creating".into(),
                    created_at: self.made_at(),
                    metadata,
                    ..Default::default()
                });
                return Ok(Effect::Created { id });
            }
            Step::CreateExportVolume { disk, attempt, snapshot_id } => {
                let (id, metadata) = (self.id("vol"), me.marks_of(Role::ExportVolume, *disk, *attempt));
                self.content.insert(id.clone(), self.content[snapshot_id].clone());
                let name = me.object_name(Role::ExportVolume, *disk, *attempt);
                self.volumes.push(creating(id.clone(), name, metadata, self.made_at()));
                return Ok(Effect::Created { id });
            }
            Step::UploadVolume { side, role, disk, attempt, volume_id } => {
                let content = self.content[volume_id].clone();
                let all = self.volumes.iter_mut().chain(&mut self.made);
                all.filter(|v| v.id == *volume_id).for_each(|v| {
                    assert_eq!(v.status, "available", "Cinder refuses to upload it");
                    v.status = "uploading".into();
                });
                *self.uploads.entry(role.to_string()).or_default() += 1;
                let id = self.image(*side, me.object_name(*role, *disk, *attempt), "saving", content);
                return Ok(Effect::Created { id });
            }
            Step::CreateServerImage { disk } => {
                let content = format!("version {}", self.version);
                *self.uploads.entry(Role::ExportImage.to_string()).or_default() += 1;
                let name = me.object_name(Role::ExportImage, *disk, 1);
                let id = self.image(Side::Source, name, "saving", content);
                if let Some((_, image)) = self.images.iter_mut().find(|(_, image)| image.id == id) {
                    image.disk_format = self.root_format.map(String::from);
                }
                let Effect::Accepted { request_id } = self.act("createImage") else {
                    return Ok(Effect::Done);
                };
                return Ok(Effect::Asked { id, request_id });
            }
            Step::FindLost { id, .. } => {
                let volumes = self.volumes.iter().chain(&self.made).map(|v| &v.id);
                let others =
                    self.snapshots.iter().map(|s| &s.id).chain(self.images.iter().map(|(_, i)| &i.id));
                if volumes.chain(others).any(|there| there == id) {
                    return Err(StepFailure {
                        transient: true,
                        conflict: true,
                        message: "it is there".into(),
                    });
                }
                return Ok(Effect::Lost { why: self.lost_because.into() });
            }
            Step::CreateImportImage { disk, attempt, .. } => {
                let local = self.local_root && *disk == 0;
                let role = if local { Role::RootImage } else { Role::ImportImage };
                let name = me.object_name(role, *disk, *attempt);
                let id = self.image(Side::Destination, name, "queued", String::new());
                return Ok(Effect::Created { id });
            }
            Step::CreateVolume { disk, image_id } => {
                let (id, metadata) = (self.id("vol"), me.marks(Role::Volume, *disk));
                let content = image_id.as_ref().map(|i| self.content[i].clone()).unwrap_or_default();
                self.content.insert(id.clone(), content);
                self.parents.extend(image_id.clone().map(|image| (id.clone(), image)));
                let name = me.object_name(Role::Volume, *disk, 1);
                let encrypted = self.encrypts_in_b;
                self.made.push(Volume { encrypted, ..creating(id.clone(), name, metadata, self.made_at()) });
                return Ok(Effect::Created { id });
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
            Step::CreateReport => self.report = true,
            Step::FinishReport => self.told = Some(report::outcome(&self.status, self.now)),
            Step::Delete { side, kind, id } => match self.kept(*side, *kind, id) {
                None => self.delete(*kind, id),
                Some(false) => {}
                Some(true) => {
                    let message = "delete image failed: 409 it is in use (req-5)".into();
                    return Err(StepFailure { transient: true, conflict: false, message });
                }
            },
            Step::RaisePort { port_id } => {
                self.ports.iter_mut().filter(|p| p.id == *port_id).for_each(|p| p.admin_state_up = true);
            }
            Step::TagImage { image_id, .. } => {
                let image = self.images.iter_mut().find(|(_, i)| i.id == *image_id);
                image.into_iter().for_each(|(_, i)| i.tags = vec![me.tag()]);
            }
            Step::DressVolume { volume_id, .. } => {
                assert!(
                    self.status.made().contains(volume_id),
                    "it loses its name before its id is recorded"
                );
                self.made.iter_mut().filter(|v| v.id == *volume_id).for_each(|v| v.name = "data".into());
            }
        }
        Ok(Effect::Done)
    }

    /// A locked server refuses nearly everything, and a start wants a stopped one.
    fn refused(&self, step: &Step) -> Option<&'static str> {
        use Step::*;
        let source = matches!(step, ClaimSource | ReleaseClaim | StopSource | StartSource | DeleteSource);
        match step {
            _ if source && self.source_gone => Some("404"),
            _ if source && self.source.locked => Some("409: the server is locked"),
            StopSource if self.source.status != "ACTIVE" => Some("409: it is stopped"),
            StartSource if self.source.status != "SHUTOFF" => Some("409: it runs"),
            StopDestination { server_id } if !self.servers.iter().any(|s| s.id == *server_id) => Some("404"),
            _ => None,
        }
    }

    /// The source is deleted only after success, because somebody wants it, while the destination serves.
    fn assert_may_retire(&self) {
        let status = &self.status;
        assert_eq!(status.phase, Some(Phase::Retiring), "never 1: not after success");
        let retire = |r: &RequestRow| r.name == RequestName::Retire && r.result != RequestResult::Refused;
        let asked = status.requests.iter().any(retire);
        let policy = status.retirement.as_ref().is_some_and(|r| r.by_policy);
        assert!(asked || policy, "never 1: nobody asked for it");
        assert!(status.retirement.as_ref().is_some_and(|r| r.checked_at.is_some()), "not looked at");
        assert!(proven::all(status).is_ok());
    }

    fn create_server(&mut self) -> Effect {
        assert_eq!(self.source.status, "SHUTOFF", "never 2: B is asked for while A is not SHUTOFF");
        assert!(self.servers.is_empty(), "never 5: B is asked for twice");
        let handed = self.devices.values().any(|(side, _)| *side == Side::Destination);
        assert!(!handed, "a volume is attached to a server while a cluster may still have it");
        assert!(!self.corrupt, "never 8: B is made of a disk that differs");
        let wanted = format!("version {}", self.version);
        for volume in &self.made {
            assert_eq!(self.content.get(&volume.id), Some(&wanted), "never 3: B is made of a stale copy");
        }
        for (_, image) in self.images.iter().filter(|(_, i)| i.name.contains("root-image")) {
            assert_eq!(self.content.get(&image.id), Some(&wanted), "never 3: B is made of a stale image");
        }
        let id = self.id("srv");
        let plan = self.status.plan.clone().unwrap_or_default();
        let body = bodies::server(&self.me, &plan, &self.status.disks, &[], "src");
        let metadata = serde_json::from_value(body["server"]["metadata"].clone()).unwrap();
        let address =
            crate::cloud::ServerAddress { address: "10.0.0.5".into(), fixed: true, ..Default::default() };
        let server = Server {
            id: id.clone(),
            status: "BUILD".into(),
            created: self.made_at(),
            metadata,
            addresses: vec![address],
            ..Default::default()
        };
        self.servers.push(server);
        Effect::Created { id }
    }

    /// The cloud does not delete it; does it say so?
    fn kept(&self, side: Side, kind: ObjectKind, id: &str) -> Option<bool> {
        let lives =
            |(volume, image): (&String, &String)| image == id && self.made.iter().any(|v| v.id == *volume);
        let parent = self.ceph && self.parents.iter().any(lives);
        let kept = self.keeping.filter(|(s, k, _)| (*s, *k) == (side, kind)).map(|(.., says)| says);
        kept.or(parent.then_some(true))
    }

    fn delete(&mut self, kind: ObjectKind, id: &str) {
        assert!(id != self.source.id && self.own.iter().all(|v| v.id != id), "never 7: it is not ours");
        match kind {
            ObjectKind::Server => {
                assert!(self.servers.iter().all(|s| s.id != id || s.launched_at.is_none()), "it has run");
                self.servers.retain(|s| s.id != id)
            }
            ObjectKind::Port => self.ports.retain(|p| p.id != id),
            ObjectKind::Snapshot => {
                let lost = self.source.status == "SHUTOFF" && !self.source_gone;
                assert!(!lost, "this storage cannot delete a snapshot of a stopped server's volume");
                let under_way = self.snapshots.iter().any(|s| s.status == "deleting" && s.id != id);
                assert!(!under_way, "two deletions of its volumes' snapshots kill a running server");
                let found = self.snapshots.iter_mut().filter(|s| s.id == id);
                found.for_each(|s| s.status = "deleting".into());
            }
            ObjectKind::Image => self.images.retain(|(_, i)| i.id != id),
            ObjectKind::Volume => {
                let has = |d: &DeviceView| d.volume.as_ref().is_some_and(|v| v.handle == id);
                assert!(
                    !self.devices.values().any(|(_, d)| has(d)),
                    "a volume goes while a cluster may have it"
                );
                self.volumes.retain(|v| v.id != id);
                self.made.retain(|v| v.id != id);
            }
        }
    }

    /// One reconcile. `crash`: killed after the steps, before the status was written.
    /// One reconcile; with a crash after all of its steps, what they brought back is lost.
    pub(super) fn pass(&mut self, crash: bool) {
        self.pass_with(crash.then_some(u64::MAX));
    }

    /// The same; a crash may come after some of the steps, of which each has a bit: the first the lowest.
    pub(super) fn pass_with(&mut self, crash_after: Option<u64>) {
        let seen = self.observe();
        self.cloud_looks += u32::from(seen.source.view().is_some());
        self.inventories += u32::from(seen.inventory.is_some());
        let input = Input {
            me: &self.me,
            spec: &self.spec,
            generation: Some(self.generation),
            deleting: self.deleting,
            abandoned: self.abandoned,
            annotations: &self.annotations,
            status: &self.status,
            seen: &seen,
            limits: &Limits::default(),
            now: self.now,
        };
        let decision = decide(input);
        self.trace.pass(input, &decision);
        self.released |= decision.release;
        if decision.release {
            return;
        }
        self.recheck = decision.recheck;
        let mut status = decision.status;
        let before = std::mem::replace(&mut self.status, status.clone());
        for (n, step) in decision.steps.iter().enumerate() {
            if crash_after.is_none_or(|done| done >> n & 1 == 1) {
                let result = self.apply(step);
                record(&mut status, step, result, self.now);
            }
        }
        self.status = if crash_after.is_some() { before } else { status };
        assert_eq!(never::two_copies(self), Ok(()), "never 2");
        self.tick();
    }

    pub(super) fn run(
        &mut self,
        passes: usize,
        until: impl Fn(&World) -> bool,
        mut crash: impl FnMut() -> bool,
    ) {
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

    pub(super) fn phase(&self) -> Option<Phase> {
        self.status.phase
    }

    pub(super) fn clean(&self) -> bool {
        self.status.cleaned_up_at.is_some()
    }

    /// Nothing of ours is in B, nothing but what is retained in A, no Secret, no repository.
    pub(super) fn assert_nothing_left(&self) {
        assert!(
            self.made.is_empty()
                && self.ports.is_empty()
                && self.servers.is_empty()
                && self.images.is_empty()
        );
        assert!(
            self.volumes.is_empty()
                && self.devices.is_empty()
                && self.jobs.is_empty()
                && !self.vault
                && !self.anchors
                && !self.repository
        );
    }

    pub(super) fn assert_given_back(&self) {
        assert_eq!(self.source.status, "ACTIVE");
        assert!(!self.source.locked && self.source.metadata.is_empty(), "{:?}", self.source);
    }
}

/// Pseudo-random, the same in every run.
pub(super) fn dice(seed: u64, one_in: u64) -> impl FnMut() -> bool {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.is_multiple_of(one_in)
    }
}

impl World {
    /// Disks travel as block devices on these sides.
    pub(super) fn by_volume(mut self, a: bool, b: bool) -> Self {
        let sides = [(Side::Source, a), (Side::Destination, b)];
        self.modes = sides.into_iter().filter(|(_, v)| *v).map(|(s, _)| (s, TransferMode::Volume)).collect();
        self
    }
}

/// Worlds in which disks travel as block devices, on either side or both.
fn volume_worlds() -> Vec<World> {
    let table = [(true, true), (true, false), (false, true)];
    table.into_iter().map(|(a, b)| World::new().by_volume(a, b)).collect()
}

pub(super) fn ask(w: &mut World, change: serde_json::Value) {
    let mut spec = serde_json::to_value(&w.spec).unwrap();
    for (key, value) in change.as_object().unwrap() {
        spec[key] = value.clone();
    }
    w.spec = serde_json::from_value(spec).unwrap();
    w.generation += 1;
}

pub(super) fn answer(w: &World, name: RequestName) -> RequestRow {
    w.status.requests.iter().find(|r| r.name == name).cloned().unwrap_or_default()
}

/// Until it is as it will stay.
pub(super) fn settle(w: &mut World, phase: Phase) {
    w.run(600, |w| w.phase() == Some(phase) && w.clean(), || false);
}

/// A migration with hooks.
fn hooked(hooks: serde_json::Value) -> World {
    let mut w = World::new();
    w.spec.hooks = serde_json::from_value(hooks).unwrap();
    w
}

pub(super) fn hook_row(w: &World, name: &str) -> HookRow {
    w.status.hooks.iter().find(|r| r.name == name).cloned().unwrap_or_default()
}

/// One job hook at each phase.
pub(super) fn everywhere() -> serde_json::Value {
    let one = |phase: HookPhase| json!({"name": phase.to_string().to_lowercase(), "phase": phase, "job": {"script": "true"}});
    <HookPhase as strum::IntoEnumIterator>::iter().map(one).collect()
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
    pub(super) fn answer(&mut self, hook: &str, change: impl FnOnce(&mut ClientHookNote)) {
        let nonce = hook_row(self, hook).nonce.clone().unwrap();
        let mut note = ClientHookNote {
            nonce,
            client: "me@here-1".into(),
            seen_at: Some(Time(self.now)),
            ..Default::default()
        };
        change(&mut note);
        let key = format!("{ANNOTATION_CLIENT_HOOK}{hook}");
        self.annotations.insert(key, serde_json::to_string(&note).unwrap());
    }
}

pub(super) fn checked(checks: serde_json::Value) -> World {
    let mut w = World::new();
    w.spec.verification = serde_json::from_value(json!({"checks": checks})).unwrap();
    w
}

fn answers(w: &World) -> Vec<(String, bool, String)> {
    w.status.checks.iter().map(|c| (c.name.clone(), c.passed, c.message.clone())).collect()
}

pub(super) const HOST_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHxVNrdUMyEeQmxaOXLMud0uwgOFNu0sqwMoly0uKS0C";

pub(super) fn over_ssh(host_key: Option<&str>) -> serde_json::Value {
    let mut ssh = json!({"user": "u", "command": "true", "privateKeySecretRef": {"name": "s", "key": "k"}});
    if let Some(key) = host_key {
        ssh["hostKey"] = json!(key);
    }
    json!({"name": "db", "timeoutSeconds": 60, "ssh": ssh})
}

impl World {
    /// The Job of checks as it was asked for, when it was.
    pub(super) fn check_job(&mut self) -> Option<JobRequest> {
        let seen = self.observe();
        let decision = decide(Input {
            me: &self.me.clone(),
            spec: &self.spec.clone(),
            generation: Some(1),
            deleting: false,
            abandoned: false,
            annotations: &self.annotations.clone(),
            status: &self.status.clone(),
            seen: &seen,
            limits: &Limits::default(),
            now: self.now,
        });
        decision.steps.into_iter().find_map(|s| match s {
            Step::CreateJob(j) if j.purpose.starts_with("check") => Some(*j),
            _ => None,
        })
    }
}

/// The restore's Job has ended well, and its image is never active.
fn a_filled_image_stays_queued(w: &mut World) {
    let filling = |w: &World| w.jobs.keys().find(|n| n.contains("-restore-0-")).cloned();
    w.run(400, |w| filling(w).is_some() && w.status.disks[0].backup.is_some(), || false);
    assert!(w.status.disks[0].restore.is_none());
    let name = filling(w).unwrap();
    let job = &mut w.jobs.get_mut(&name).unwrap().1;
    let said =
        json!({"ok": true, "result": {"bytes": 100, "sha256": "s", "hashAlgo": "sha512", "hashValue": "h"}});
    (job.state, job.termination) = (JobState::Succeeded, Some(said.to_string()));
    let filled = |i: &Image| i.name.contains("import-image-0");
    w.images.iter_mut().filter(|(_, i)| filled(i)).for_each(|(_, i)| i.status = "queued".into());
    w.stuck = true;
}

/// The read-back's image is active, and its volume is never available again.
fn a_volume_stays_uploading(w: &mut World) {
    let saving = |i: &Image| i.name.contains("readback");
    w.run(400, |w| w.images.iter().any(|(_, i)| saving(i)), || false);
    w.stuck = true;
    w.images.iter_mut().for_each(|(_, i)| i.status = "active".into());
    w.made.iter_mut().for_each(|v| v.status = "uploading".into());
}
