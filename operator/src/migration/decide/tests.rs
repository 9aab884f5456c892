//! The decision against a small model of both clouds and clusters: whole ways, crashes at any instant, failures.

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
    pub(super) fn pass(&mut self, crash: bool) {
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
        for step in &decision.steps {
            let result = self.apply(step);
            record(&mut status, step, result, self.now);
        }
        self.status = if crash { before } else { status };
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

impl World {
    /// Disks travel as block devices on these sides.
    pub(super) fn by_volume(mut self, a: bool, b: bool) -> Self {
        let sides = [(Side::Source, a), (Side::Destination, b)];
        self.modes = sides.into_iter().filter(|(_, v)| *v).map(|(s, _)| (s, TransferMode::Volume)).collect();
        self
    }
}

#[test]
fn a_restore_that_broke_off_before_it_was_recorded_has_written() {
    let mut w = World::new().by_volume(true, true);
    w.failing = Some(("restore-0", true));
    for _ in 0..400 {
        let before = w.status.clone();
        w.pass(false);
        if w.jobs.keys().any(|name| name.contains("-restore-0-")) {
            // Killed after the Job was made, before that was written down. The Job breaks off meanwhile.
            (w.status, w.failing) = (before, None);
            break;
        }
    }
    assert!(w.failing.is_none() && !w.status.jobs.iter().any(|j| j.name == "restore-0"));
    settle(&mut w, Phase::Succeeded);
}

/// Worlds in which disks travel as block devices, on either side or both.
fn volume_worlds() -> Vec<World> {
    let table = [(true, true), (true, false), (false, true)];
    table.into_iter().map(|(a, b)| World::new().by_volume(a, b)).collect()
}

#[test]
fn disks_travel_as_block_devices_on_either_side_or_both() {
    for mut w in volume_worlds() {
        let modes = w.modes.clone();
        w.run(300, World::clean, || false);
        assert_eq!(w.phase(), Some(Phase::Succeeded), "{modes:?}: {:?}", w.status.failure);
        assert_eq!((w.servers.len(), w.made.len(), w.ports.len()), (1, 2, 1), "{modes:?}");
        assert!(w.images.is_empty() && w.volumes.is_empty() && w.devices.is_empty() && !w.repository);
        let pinned = |t: &Option<ResolvedTransfer>| t.as_ref().is_some_and(ResolvedTransfer::is_volume);
        let (a, b) = (w.status.source.unwrap().transfer, w.status.destination.unwrap().transfer);
        let asked = |side| modes.contains_key(&side);
        assert_eq!((pinned(&a), pinned(&b)), (asked(Side::Source), asked(Side::Destination)));
        assert!(w.status.disks.iter().all(DiskStatus::proven), "{modes:?}");
        assert!(w.status.disks.iter().all(|d| d.import.dressed), "{modes:?}");
    }
}

#[test]
fn block_devices_survive_crashes_and_deletion_at_any_point() {
    for seed in 0..60 {
        for mut w in volume_worlds() {
            w.run(3000, World::clean, dice(seed, 3));
            assert_eq!(w.phase(), Some(Phase::Succeeded), "seed {seed}: {:?}", w.status.failure);
            assert!(w.devices.is_empty() && w.volumes.is_empty() && w.made.len() == 2, "seed {seed}");
        }
    }
    for passes in 0..70 {
        for mut w in volume_worlds() {
            (0..passes).for_each(|_| w.pass(false));
            if w.phase().is_some_and(Phase::succeeded) {
                continue;
            }
            w.deleting = true;
            w.run(1000, |w| w.released, dice(passes, 4));
            assert_eq!(w.source.status, "ACTIVE", "after {passes} passes");
            if w.status.destination.as_ref().is_none_or(|x| x.active_at.is_none()) {
                w.assert_nothing_left();
            }
            assert!(w.devices.is_empty(), "after {passes} passes");
        }
    }
}

#[test]
fn a_device_that_reads_back_otherwise_is_no_success() {
    for mut w in volume_worlds() {
        w.corrupt = true;
        w.run(600, |w| w.phase() == Some(Phase::Failed) && w.clean(), || false);
        assert_eq!(w.status.failure.as_ref().unwrap().reason, "DigestMismatch");
        w.assert_given_back();
        w.assert_nothing_left();
    }
}

#[test]
fn what_was_pinned_stays_and_what_cannot_be_blocks() {
    let mut w = volume_worlds().remove(0);
    w.run(100, |w| w.phase() == Some(Phase::Transferring), || false);
    w.modes.clear();
    w.run(300, World::clean, || false);
    assert!(w.status.source.as_ref().unwrap().transfer.as_ref().unwrap().is_volume());
    assert!(w.images.is_empty() && w.phase() == Some(Phase::Succeeded));
}

#[test]
fn a_claim_that_is_never_bound_is_given_up() {
    let mut w = volume_worlds().remove(0);
    w.run(100, |w| w.devices.values().any(|(_, d)| d.claim.is_some()), || false);
    w.stuck = true;
    w.devices.values_mut().for_each(|(_, d)| d.claim.iter_mut().for_each(|c| c.bound = false));
    w.pass(false);
    w.now = w.now.checked_add(4000.seconds()).unwrap();
    w.pass(false);
    let failure = w.status.failure.clone().unwrap().message;
    assert!(failure.contains("PersistentVolumeClaim") && failure.contains("Pending"), "{failure}");
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

#[test]
fn of_several_requests_the_first_in_order_wins() {
    let mut w = World::new();
    w.run(200, |w| w.phase() == Some(Phase::Transferring), || false);
    ask(&mut w, json!({"requests": {"retire": "1", "retry": "1", "rollback": "1", "cancel": "1"}}));
    w.pass(false);
    let results: Vec<_> = w.status.requests.iter().map(|r| (r.name, r.result)).collect();
    let late = RequestResult::Superseded;
    assert_eq!(
        results,
        [
            (RequestName::Cancel, RequestResult::Done),
            (RequestName::Rollback, late),
            (RequestName::Retry, late),
            (RequestName::Retire, late)
        ]
    );
    settle(&mut w, Phase::Cancelled);
    w.assert_given_back();
}

#[test]
fn what_cannot_be_carried_out_is_refused_with_the_reason() {
    let table = [
        (Phase::Transferring, RequestName::Retry, "nothing has failed"),
        (Phase::Transferring, RequestName::Retire, "only after success"),
        (Phase::Succeeded, RequestName::Cancel, "rollback"),
        (Phase::Succeeded, RequestName::Retry, "nothing to try again"),
    ];
    for (phase, name, why) in table {
        let mut w = World::new();
        w.run(200, |w| w.phase() == Some(phase), || false);
        let verb = serde_json::to_value(name).unwrap();
        ask(&mut w, json!({"requests": {verb.as_str().unwrap(): "1"}}));
        w.pass(false);
        let row = answer(&w, name);
        assert_eq!(row.result, RequestResult::Refused, "{phase:?} {name:?}");
        assert!(row.message.contains(why), "{}", row.message);
        settle(&mut w, Phase::Succeeded);
    }
}

#[test]
fn rollback_before_success_ends_as_if_it_had_not_been_tried() {
    for passes in 1..60 {
        let mut w = World::new();
        (0..passes).for_each(|_| w.pass(false));
        if w.phase() == Some(Phase::Succeeded) {
            return;
        }
        ask(&mut w, json!({"requests": {"rollback": "1"}}));
        w.run(1000, |w| w.phase() == Some(Phase::RolledBack) && w.clean(), dice(passes, 4));
        w.assert_given_back();
        assert_eq!(answer(&w, RequestName::Rollback).result, RequestResult::Done);
    }
    unreachable!("it never succeeded");
}

#[test]
fn rollback_after_success_stops_and_keeps_b_and_starts_a() {
    for seed in 0..40 {
        let mut w = World::new();
        w.run(2000, |w| w.phase() == Some(Phase::Succeeded), dice(seed, 5));
        // Before, amid and after the clean-up.
        (0..seed % 20).for_each(|_| w.pass(false));
        ask(&mut w, json!({"requests": {"rollback": "back"}}));
        w.run(2000, |w| w.phase() == Some(Phase::RolledBack) && w.clean(), dice(seed + 1, 4));
        w.assert_given_back();
        assert_eq!(w.servers[0].status, "SHUTOFF");
        assert_eq!((w.made.len(), w.ports.len()), (2, 1), "B's disks are kept");
        assert!(!w.vault && !w.repository && w.jobs.is_empty());
        let message = w.status.message.clone().unwrap();
        for part in ["stays behind in server", "runs in A as before and passed its checks", "delete it"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(w.told.as_ref().is_some_and(|t| t.rolled_back_at.is_some() && !t.source_checks.is_empty()));
        // A copy that has run is in the way of a new try.
        ask(&mut w, json!({"requests": {"retry": "1"}}));
        w.pass(false);
        assert_eq!(answer(&w, RequestName::Retry).result, RequestResult::Refused);
    }
}

#[test]
fn rollback_after_success_is_refused_when_a_is_not_ours_and_b_is_left_alone() {
    for gone in [true, false] {
        let mut w = World::new();
        settle(&mut w, Phase::Succeeded);
        w.source_gone = gone;
        w.source.metadata.insert(MARK_CLAIM.into(), "another".into());
        ask(&mut w, json!({"requests": {"rollback": "back"}}));
        (0..5).for_each(|_| w.pass(false));
        settle(&mut w, Phase::Succeeded);
        let row = answer(&w, RequestName::Rollback);
        assert_eq!(row.result, RequestResult::Refused, "{row:?}");
        assert_eq!((w.servers[0].status.as_str(), w.source.status.as_str()), ("ACTIVE", "SHUTOFF"));
    }
}

#[test]
fn deletion_amid_a_rollback_finishes_it() {
    for passes in 1..12 {
        let mut w = World::new();
        settle(&mut w, Phase::Succeeded);
        ask(&mut w, json!({"requests": {"rollback": "back"}}));
        w.run(20, |w| w.phase() == Some(Phase::RollingBack), || false);
        (0..passes).for_each(|_| w.pass(false));
        w.deleting = true;
        w.run(600, |w| w.released, dice(passes, 4));
        w.assert_given_back();
        assert_eq!(w.servers[0].status, "SHUTOFF");
    }
}

#[test]
fn what_was_given_back_is_not_touched_by_the_deletion() {
    let mut w = World::new();
    settle(&mut w, Phase::Succeeded);
    ask(&mut w, json!({"requests": {"rollback": "back"}}));
    settle(&mut w, Phase::RolledBack);
    // Somebody looks for the writes that were left behind.
    w.humans = true;
    w.source.status = "SHUTOFF".into();
    w.servers[0].status = "ACTIVE".into();
    w.deleting = true;
    w.run(200, |w| w.released, || false);
    assert_eq!((w.source.status.as_str(), w.servers[0].status.as_str()), ("SHUTOFF", "ACTIVE"));
}

#[test]
fn a_retry_after_a_failure_reads_what_may_be_stale_again_and_arrives() {
    for seed in 0..40 {
        let mut w = World::new();
        ask(&mut w, json!({"onFailure": {"keepData": "1h"}}));
        w.broken = Some("create-server");
        w.run(1000, |w| w.phase() == Some(Phase::Failed) && w.status.clean_looks >= 2, dice(seed, 5));
        (0..1 + seed % 9).for_each(|_| w.pass(false));
        w.assert_given_back();
        assert!(w.repository && w.vault, "the data are kept");
        assert!(w.made.is_empty() && w.servers.is_empty() && w.volumes.is_empty() && w.images.is_empty());
        let message = w.status.message.clone().unwrap();
        assert!(
            message.contains("kept in the repository until") && message.contains("\"retry\""),
            "{message}"
        );
        w.broken = None;
        ask(&mut w, json!({"requests": {"retry": "1"}}));
        w.run(1000, World::clean, dice(seed + 3, 5));
        assert_eq!((w.phase(), w.status.attempts), (Some(Phase::Succeeded), 2), "{:?}", w.status.failure);
        assert_eq!((w.servers.len(), w.made.len(), w.ports.len()), (1, 2, 1), "seed {seed}");
        assert!(w.asked.keys().any(|n| n.contains("backup-0-2")), "A ran meanwhile: it is read again");
    }
}

#[test]
fn kept_data_of_a_source_that_did_not_run_are_used_again() {
    let mut w = World::new();
    w.source.status = "SHUTOFF".into();
    ask(&mut w, json!({"onFailure": {"keepData": "1h"}}));
    w.broken = Some("create-server");
    w.run(600, |w| w.phase() == Some(Phase::Failed) && w.status.clean_looks >= 2, || false);
    w.broken = None;
    ask(&mut w, json!({"requests": {"retry": "1"}}));
    w.run(600, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Succeeded));
    assert!(!w.asked.keys().any(|n| n.contains("backup-0-2")), "nothing is read again");
}

#[test]
fn a_deletion_looks_again_for_snapshots_that_had_to_stay() {
    let mut w = World::new();
    w.source.status = "SHUTOFF".into();
    ask(&mut w, json!({"onFailure": {"keepData": "1h"}}));
    w.broken = Some("create-server");
    w.run(600, |w| w.phase() == Some(Phase::Failed) && w.status.clean_looks >= 2, || false);
    assert!(!w.snapshots.is_empty() && !w.status.retained.is_empty(), "{:?}", w.status.retained);
    w.broken = None;
    w.source.status = "ACTIVE".into();
    w.deleting = true;
    w.run(100, |w| w.released, || false);
    assert!(w.snapshots.is_empty(), "{:?}", w.snapshots);
}

#[test]
fn a_segment_of_kept_data_that_is_wrong_is_read_again_from_a_new_copy() {
    let mut w = World::new();
    w.source.status = "SHUTOFF".into();
    ask(&mut w, json!({"onFailure": {"keepData": "1h"}}));
    w.broken = Some("create-server");
    w.run(600, |w| w.phase() == Some(Phase::Failed) && w.status.clean_looks >= 2, || false);
    (w.broken, w.wrong_segment) = (None, true);
    ask(&mut w, json!({"requests": {"retry": "1"}}));
    settle(&mut w, Phase::Succeeded);
    let again = |n: &&String| n.contains("-backup-0-") && !n.ends_with("-1");
    assert_eq!(w.asked.keys().filter(again).count(), 1, "it is sent again");
    let origin =
        |args: &Vec<String>| args.iter().position(|a| a == "--origin").map(|at| args[at + 1].clone());
    assert!(!w.asked.values().any(|args| origin(args).is_some_and(|o| o.is_empty())), "of what is known");
}

#[test]
fn a_purge_that_was_begun_and_not_recorded_ends_before_a_new_try() {
    let mut w = World::new();
    w.source.status = "SHUTOFF".into();
    w.broken = Some("create-server");
    w.run(600, |w| w.phase() == Some(Phase::Failed) && w.status.clean_looks >= 2, || false);
    w.run(20, |w| w.jobs.keys().any(|n| n.contains("-purge-")), || true);
    w.broken = None;
    ask(&mut w, json!({"requests": {"retry": "1"}}));
    settle(&mut w, Phase::Succeeded);
}

#[test]
fn snapshots_that_had_to_stay_are_not_used_by_a_new_try() {
    let mut w = World::new();
    w.source.status = "SHUTOFF".into();
    ask(&mut w, json!({"onFailure": {"keepData": "1h"}}));
    w.broken = Some("create-server");
    w.run(600, |w| w.phase() == Some(Phase::Failed) && w.status.clean_looks >= 2, || false);
    assert_eq!(w.snapshots.len(), 2, "this storage keeps them while A is stopped");
    // It was used in between.
    w.act("start");
    w.version += 1;
    w.act("stop");
    w.broken = None;
    ask(&mut w, json!({"requests": {"retry": "1"}}));
    w.run(600, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Succeeded));
    assert!(w.asked.keys().any(|n| n.contains("backup-0-2")));
}

#[test]
fn kept_data_go_when_their_time_is_over() {
    let mut w = World::new();
    ask(&mut w, json!({"onFailure": {"keepData": "1h"}}));
    w.broken = Some("create-server");
    w.run(600, |w| w.phase() == Some(Phase::Failed) && w.status.clean_looks >= 2, || false);
    (0..20).for_each(|_| w.pass(false));
    assert!(w.repository && !w.clean());
    w.now = w.now.checked_add(3601.seconds()).unwrap();
    settle(&mut w, Phase::Failed);
    w.assert_nothing_left();
    // Even so it can be tried again, from the beginning.
    w.broken = None;
    ask(&mut w, json!({"requests": {"retry": "1"}}));
    settle(&mut w, Phase::Succeeded);
}

#[test]
fn deletion_purges_kept_data_at_once() {
    let mut w = World::new();
    ask(&mut w, json!({"onFailure": {"keepData": "7d"}}));
    w.broken = Some("create-server");
    w.run(600, |w| w.phase() == Some(Phase::Failed) && w.status.clean_looks >= 2, || false);
    w.deleting = true;
    w.run(100, |w| w.released, || false);
    w.assert_nothing_left();
}

#[test]
fn a_retry_from_held_stops_the_source_once_more() {
    for starts in [true, false] {
        let mut w = World::new();
        w.run(200, |w| w.phase() == Some(Phase::Creating), || false);
        w.source.locked = false;
        w.act("unlock");
        if starts {
            w.source.status = "ACTIVE".into();
            w.act("start");
        }
        w.run(50, |w| w.phase() == Some(Phase::Held), || false);
        assert!(w.status.message.as_ref().is_some_and(|m| m.contains("\"retry\"")), "{:?}", w.status.message);
        ask(&mut w, json!({"requests": {"retry": "go"}}));
        settle(&mut w, Phase::Succeeded);
        assert_eq!((w.source.status.as_str(), w.servers[0].status.as_str()), ("SHUTOFF", "ACTIVE"));
        assert_eq!(w.asked.keys().any(|n| n.contains("backup-0-2")), starts, "read again only if it ran");
    }
}

#[test]
fn retirement_deletes_the_server_and_then_its_volumes() {
    for seed in 0..40 {
        let mut w = World::new();
        w.run(2000, |w| w.phase() == Some(Phase::Succeeded), dice(seed, 5));
        (0..seed % 20).for_each(|_| w.pass(false));
        ask(&mut w, json!({"requests": {"retire": "now"}}));
        w.run(2000, |w| w.phase() == Some(Phase::Retired) && w.clean(), dice(seed + 1, 4));
        assert!(w.source_gone && w.own.is_empty() && w.snapshots.is_empty());
        assert_eq!(w.servers[0].status, "ACTIVE");
        assert_eq!((w.made.len(), w.ports.len()), (2, 1));
        assert!(!w.vault && w.jobs.is_empty() && w.status.retained.is_empty(), "{:?}", w.status.retained);
        assert!(w.told.as_ref().is_some_and(|t| t.retired_at.is_some()));
        ask(&mut w, json!({"requests": {"retire": "again", "rollback": "back"}}));
        (0..5).for_each(|_| w.pass(false));
        for name in [RequestName::Retire, RequestName::Rollback] {
            assert_eq!(answer(&w, name).result, RequestResult::Refused);
        }
    }
}

#[test]
fn retirement_is_refused_while_anything_is_not_as_it_was() {
    type Change = fn(&mut World);
    let table: [(&str, Change); 6] = [
        ("claimed by another", |w| drop(w.source.metadata.insert(MARK_CLAIM.into(), "x".into()))),
        ("does not carry", |w| drop(w.source.metadata.remove(MARK_CLAIM))),
        ("not ACTIVE", |w| w.servers[0].status = "SHUTOFF".into()),
        ("is not in site-b any more", |w| w.servers.clear()),
        ("somebody has started it", |w| (w.humans, w.source.status) = (true, "ACTIVE".into())),
        ("cannot be seen", |w| w.source_gone = true),
    ];
    for (why, change) in table {
        let mut w = World::new();
        settle(&mut w, Phase::Succeeded);
        change(&mut w);
        ask(&mut w, json!({"requests": {"retire": "now"}}));
        w.run(50, |w| answer(w, RequestName::Retire).result == RequestResult::Refused, || false);
        settle(&mut w, Phase::Succeeded);
        let row = answer(&w, RequestName::Retire);
        assert!(row.message.contains(why), "{why}: {}", row.message);
        assert!(
            w.status.message.as_ref().is_some_and(|m| m.contains("not retired")),
            "{:?}",
            w.status.message
        );
        assert_eq!(w.own.len(), 2);
    }
}

#[test]
fn source_policy_retires_after_its_time_and_only_then() {
    let mut w = World::new();
    settle(&mut w, Phase::Succeeded);
    ask(&mut w, json!({"sourcePolicy": {"action": "Delete", "after": "1h"}}));
    w.pass(false);
    assert!(w.recheck.is_some_and(|r| r <= Duration::from_secs(3600)), "it wakes by itself");
    assert!(w.status.message.as_ref().is_some_and(|m| m.contains(" until ")), "{:?}", w.status.message);
    // Another mind before the time.
    ask(&mut w, json!({"sourcePolicy": {"action": "Keep"}}));
    w.now = w.now.checked_add(7200.seconds()).unwrap();
    (0..10).for_each(|_| w.pass(false));
    assert!(!w.source_gone);
    ask(&mut w, json!({"sourcePolicy": {"action": "Delete", "after": "2h"}}));
    settle(&mut w, Phase::Retired);
    assert!(w.source_gone && w.own.is_empty());
}

#[test]
fn a_rollback_wins_until_the_source_is_being_deleted() {
    for passes in 0..12 {
        let mut w = World::new();
        settle(&mut w, Phase::Succeeded);
        ask(&mut w, json!({"requests": {"retire": "now"}}));
        (0..passes).for_each(|_| w.pass(false));
        ask(&mut w, json!({"requests": {"retire": "now", "rollback": "back"}}));
        w.pass(false);
        let late = w.status.retirement.as_ref().is_some_and(|r| r.deletion_requested_at.is_some());
        if late {
            assert_eq!(answer(&w, RequestName::Rollback).result, RequestResult::Refused);
            settle(&mut w, Phase::Retired);
        } else {
            settle(&mut w, Phase::RolledBack);
            w.assert_given_back();
        }
    }
}

#[test]
fn deletion_amid_retirement_deletes_nothing_more_of_the_source() {
    let mut w = World::new();
    settle(&mut w, Phase::Succeeded);
    ask(&mut w, json!({"requests": {"retire": "now"}}));
    w.run(50, |w| w.phase() == Some(Phase::Retiring), || false);
    w.deleting = true;
    w.run(200, |w| w.released, || false);
    assert!(!w.source_gone && w.own.len() == 2 && !w.vault);
    assert_eq!(w.servers[0].status, "ACTIVE");
}

#[test]
fn a_move_that_takes_too_long_is_given_up_before_b_runs() {
    let mut w = World::new();
    ask(&mut w, json!({"maxDowntime": "5m"}));
    w.run(200, |w| w.phase() == Some(Phase::Transferring), || false);
    w.now = w.now.checked_add(301.seconds()).unwrap();
    settle(&mut w, Phase::Failed);
    w.assert_given_back();
    w.assert_nothing_left();
    assert!(w.status.message.as_ref().is_some_and(|m| m.contains("spec.maxDowntime is 5m00s")));
    // Once B was seen ACTIVE nothing is undone for being late.
    let mut w = World::new();
    ask(&mut w, json!({"maxDowntime": "5m"}));
    w.run(200, |w| w.phase() == Some(Phase::Verifying), || false);
    w.now = w.now.checked_add(301.seconds()).unwrap();
    settle(&mut w, Phase::Succeeded);
}

#[test]
fn the_downtime_is_what_the_cloud_and_the_check_tell_within_what_was_seen() {
    let time = |t: &Option<MicroTime>| t.as_ref().unwrap().0;
    // When the check passed, in milliseconds before its Job has ended, and in which bounds that is believed.
    for (before, believed) in [(1250, true), (-90_000, false), (900_000, false)] {
        let mut w = World::new();
        w.run(200, |w| w.phase() == Some(Phase::Verifying), || false);
        let told = w.now.checked_sub(before.milliseconds()).unwrap();
        w.checked["result"]["firstPassedAt"] = json!(told.to_string());
        w.run(20, |w| w.status.checks.iter().any(|c| c.name == "page" && c.passed), || false);
        let stop = w.actions.iter().find(|a| a.action == "stop").unwrap();
        let (s, x) = (w.status.source.clone().unwrap(), w.status.destination.clone().unwrap());
        assert_eq!(time(&s.served_until).to_string(), stop.start_time);
        assert!(s.served_until.unwrap().0 < s.stopped_at.unwrap().0);
        let from = time(&x.served_from);
        assert_eq!(from == told, believed, "{before}");
        assert!((x.server_requested_at.unwrap().0..=w.now).contains(&from), "{before}");
        let down = from.duration_since(stop.start_time.parse().unwrap()).as_millis();
        assert_eq!(present::down(&w.status, w.now).map(i128::from), Some((down + 500) / 1000));
    }
    // Nothing is checked: the cloud tells when the server was up.
    let mut w = World::new();
    w.spec.verification = None;
    w.run(200, |w| w.phase() == Some(Phase::Succeeded), || false);
    let launched = w.servers[0].launched_at.clone().unwrap();
    assert_eq!(time(&w.status.destination.as_ref().unwrap().served_from).to_string(), launched);
}

#[test]
fn a_destination_that_is_given_up_did_not_serve() {
    let mut w = checked(
        json!([{"name": "page", "http": {}}, {"name": "boot", "timeoutSeconds": 60, "console": {"pattern": "^login:"}}]),
    );
    settle(&mut w, Phase::Failed);
    let x = w.status.destination.clone().unwrap();
    assert!(x.served_from.is_some() && x.ready_at.is_none());
    let (s, back) = (w.status.source.clone().unwrap(), w.status.finished_at.clone().unwrap());
    let down = back.0.duration_since(s.served_until.unwrap().0).as_secs();
    assert_eq!(present::down(&w.status, w.now), Some(down));
}

#[test]
fn a_cluster_that_is_away_after_success_is_no_failure() {
    let mut w = World::new();
    w.run(300, |w| w.phase() == Some(Phase::Succeeded), || false);
    w.unreachable = true;
    w.now = w.now.checked_add(10.seconds()).unwrap();
    (0..5).for_each(|_| w.pass(false));
    w.now = w.now.checked_add(7200.seconds()).unwrap();
    (0..5).for_each(|_| w.pass(false));
    assert!(w.status.failure.is_none() && w.phase() == Some(Phase::Succeeded), "{:?}", w.status.failure);
    w.unreachable = false;
    settle(&mut w, Phase::Succeeded);
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
                // Where nothing was made a deletion has nothing to write down.
                assert!(delete || hook_row(&w, "h").state == HookState::Failed);
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

#[test]
fn a_client_is_waited_for_claims_and_answers() {
    let mut w = with_client(json!({"captureOutput": true}));
    let said = w.status.message.clone().unwrap();
    assert!(
        said.contains("kubectl vmmigration attach web-1 -n team --hook BeforeStop=./script.sh"),
        "{said}"
    );
    w.answer("c", |_| {});
    w.pass(false);
    let row = hook_row(&w, "c");
    assert_eq!((row.state, row.client.as_deref()), (HookState::Running, Some("me@here-1")));
    w.answer("c", |n| (n.exit_code, n.output) = (Some(0), Some("\u{1b}[1mdone".into())));
    w.run(500, World::clean, || false);
    let row = hook_row(&w, "c");
    assert_eq!((row.state, row.exit_code, row.attempts), (HookState::Succeeded, Some(0), 1));
    assert_eq!(row.output.as_deref(), Some("\u{fffd}[1mdone"));
    assert_eq!(w.phase(), Some(Phase::Succeeded));
}

#[test]
fn an_answer_to_another_attempt_is_not_heard_and_output_is_kept_only_when_wanted() {
    let mut w = with_client(json!({"retries": 1}));
    w.answer("c", |n| (n.exit_code, n.nonce) = (Some(0), "other".into()));
    (0..5).for_each(|_| w.pass(false));
    assert_eq!(hook_row(&w, "c").state, HookState::Waiting);
    w.annotations.insert(format!("{ANNOTATION_CLIENT_HOOK}c"), "{nonsense".into());
    w.pass(false);
    w.answer("c", |n| (n.exit_code, n.output) = (Some(3), Some("secret".into())));
    w.run(50, |w| hook_row(w, "c").attempts == 2, || false);
    (0..5).for_each(|_| w.pass(false));
    assert_eq!(
        hook_row(&w, "c").state,
        HookState::Waiting,
        "the answer to the first attempt is no answer to the second"
    );
    w.answer("c", |n| (n.exit_code, n.output) = (Some(0), Some("secret".into())));
    w.run(500, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Succeeded));
    assert!(!serde_json::to_string(&w.status).unwrap().contains("secret"));
}

#[test]
fn a_lost_client_is_told_and_the_deadline_stays() {
    let mut w = with_client(json!({}));
    let deadline = hook_row(&w, "c").deadline.clone();
    w.answer("c", |_| {});
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
    w.answer("c", |n| n.exit_code = Some(0));
    w.run(500, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Succeeded));
}

#[test]
fn a_guest_that_a_hook_shut_down_ran_all_the_same() {
    let mut w = with_client(json!({}));
    w.source.status = "SHUTOFF".into();
    w.answer("c", |n| n.exit_code = Some(0));
    w.run(500, World::clean, || false);
    assert_eq!((w.phase(), w.servers[0].status.as_str()), (Some(Phase::Succeeded), "ACTIVE"));
}

#[test]
fn what_is_in_the_way_after_the_hooks_is_borne_and_then_undone() {
    let mut w = with_client(json!({}));
    w.source.status = "PAUSED".into();
    w.answer("c", |n| n.exit_code = Some(0));
    (0..100).for_each(|_| w.pass(false));
    assert_eq!(w.phase(), Some(Phase::Stopping));
    w.source.status = "ACTIVE".into();
    w.run(500, World::clean, || false);
    assert_eq!(w.phase(), Some(Phase::Succeeded));
    let mut w = with_client(json!({}));
    w.source.status = "PAUSED".into();
    w.answer("c", |n| n.exit_code = Some(0));
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

#[test]
fn success_needs_every_check() {
    let mut w = checked(
        json!([{"name": "page", "http": {}}, {"name": "boot", "timeoutSeconds": 60, "console": {"pattern": "^login:"}}]),
    );
    w.run(400, |w| w.status.checks.iter().any(|c| c.name == "page" && c.passed), || false);
    w.run(
        20,
        |w| w.status.message.as_deref().unwrap_or_default().contains("boot: the pattern is not among"),
        || false,
    );
    assert_eq!(w.phase(), Some(Phase::Verifying));
    w.console = Ok("boot\r\nlogin: ".into());
    w.run(20, |w| w.status.checks.iter().all(|c| c.passed), || false);
    // It scrolls away; it was seen all the same.
    w.console = Err("no answer".into());
    w.run(100, |w| w.phase() == Some(Phase::Succeeded), || false);
    assert_eq!(answers(&w).iter().map(|a| a.0.as_str()).collect::<Vec<_>>(), ["active", "page", "boot"]);
}

#[test]
fn a_console_check_has_its_time_and_the_last_answer_is_told() {
    for (console, told) in
        [(Ok("one\ntwo\n".into()), "last 2 lines"), (Err("409: no console".into()), "409: no console")]
    {
        let mut w = checked(json!([{"name": "boot", "timeoutSeconds": 60, "console": {"pattern": "up$"}}]));
        w.console = console;
        w.run(600, |w| w.phase() == Some(Phase::Failed), || false);
        let failure = w.status.failure.clone().unwrap();
        assert_eq!(failure.reason, "VerificationFailed");
        assert!(failure.message.contains("1 of 1 checks did not pass: boot: "), "{}", failure.message);
        assert!(failure.message.contains(told), "{}", failure.message);
        assert!(w.jobs.keys().all(|name| !name.contains("-check-")), "no Job is needed for a console");
        w.assert_given_back();
    }
}

#[test]
fn a_failed_check_tells_what_was_answered() {
    let mut w = checked(json!([{"name": "page", "http": {}}, {"name": "port", "tcp": {"port": 1}}]));
    w.checked = json!({"ok": false, "reason": "CheckFailed", "message": "1 of 2", "retryable": false, "result": {"checks": [
        {"name": "page", "ok": true, "message": "answered 200"}, {"name": "port", "ok": false, "message": "refused"}]}});
    w.run(600, |w| w.phase() == Some(Phase::Failed), || false);
    let failure = w.status.failure.clone().unwrap();
    assert!(failure.message.ends_with("1 of 2 checks did not pass: port: refused"), "{}", failure.message);
    assert_eq!(
        answers(&w)[1..],
        [("page".into(), true, "answered 200".into()), ("port".into(), false, "refused".into())]
    );
}

#[test]
fn a_check_that_the_job_does_not_answer_has_not_passed() {
    let mut w = checked(json!([{"name": "page", "http": {}}, {"name": "forgotten", "tcp": {"port": 1}}]));
    w.run(600, |w| w.phase() == Some(Phase::Failed), || false);
    assert!(
        w.status.failure.clone().unwrap().message.ends_with("forgotten: no answer"),
        "{:?}",
        w.status.failure
    );
}

#[test]
fn an_ssh_check_gets_its_key_and_trusts_what_was_given_or_printed() {
    let args = |job: &JobRequest| -> serde_json::Value {
        serde_json::from_str(&job.task.command_line(&[])[2]).unwrap()
    };
    let to_the_job = |w: &mut World| w.run(400, |w| w.phase() == Some(Phase::Verifying), || false);
    let mut w = checked(json!([over_ssh(Some(HOST_KEY))]));
    to_the_job(&mut w);
    let job = w.check_job().unwrap();
    let key = KeyRef { name: "s".into(), key: "k".into() };
    assert_eq!((job.credentials, job.keys.clone()), (false, BTreeMap::from([("0".to_string(), key)])));
    let ssh = &args(&job)[0]["ssh"];
    assert_eq!((&ssh["hostKeys"], &ssh["keyFile"]), (&json!([HOST_KEY]), &json!("/etc/vmmigration-check/0")));
    // Not given: the console's, and until it shows one nothing is connected to.
    let mut w = checked(json!([over_ssh(None)]));
    to_the_job(&mut w);
    assert_eq!(w.check_job(), None);
    let block =
        |key: &str| format!("-----BEGIN SSH HOST KEY KEYS-----\n{key}\n-----END SSH HOST KEY KEYS-----\n");
    w.console = Ok(block(HOST_KEY));
    assert_eq!(args(&w.check_job().unwrap())[0]["ssh"]["hostKeys"], json!([HOST_KEY]));
    w.console = Ok(block("rubbish"));
    w.run(200, |w| w.phase() == Some(Phase::Failed), || false);
    assert!(w.status.failure.clone().unwrap().message.contains("hostKey"), "{:?}", w.status.failure);
}

#[test]
fn what_cannot_be_asked_blocks_before_anything_is_touched() {
    let mut w = checked(
        json!([{"name": "boot", "console": {"pattern": "("}}, over_ssh(Some("ssh-ed25519 AAAA no key"))]),
    );
    w.run(20, |w| w.phase() == Some(Phase::Blocked), || false);
    let ids: Vec<_> = w.status.preflight.iter().map(|f| f.id.as_str()).collect();
    assert!(ids.contains(&"check-pattern-invalid") && ids.contains(&"host-key-invalid"), "{ids:?}");
    assert_eq!((w.source.status.as_str(), w.source.metadata.len()), ("ACTIVE", 0), "nothing was touched");
}

#[test]
fn a_job_is_tried_within_bounds_and_once_when_another_try_is_no_use() {
    for (purpose, retryable, attempts) in
        [("backup-0", true, 4), ("backup-0", false, 1), ("restore-1", true, 4), ("init", false, 1)]
    {
        let mut w = World::new();
        w.failing = Some((purpose, retryable));
        let mut most = 0;
        for _ in 0..600 {
            w.pass(false);
            most = most.max(w.status.jobs.iter().find(|j| j.name == purpose).map_or(0, |j| j.attempt));
        }
        assert_eq!((w.phase(), most), (Some(Phase::Failed), attempts), "{purpose} {retryable}");
        assert!(w.status.failure.as_ref().unwrap().message.contains(purpose), "{:?}", w.status.failure);
        w.assert_given_back();
    }
}

#[test]
fn a_full_store_ends_it_with_its_own_reason_and_name() {
    for purpose in ["backup-0", "restore-1"] {
        let mut w = World::new();
        (w.failing, w.failing_for) = (Some((purpose, true)), "StoreFull");
        w.run(600, |w| w.phase() == Some(Phase::Failed), || false);
        let failure = w.status.failure.clone().unwrap();
        let store = &w.status.store.as_ref().unwrap().name;
        assert_eq!(failure.reason, "StoreFull", "{failure:?}");
        assert!(failure.message.starts_with(&format!("ObjectStore {store}: Job ")), "{failure:?}");
        w.assert_given_back();
    }
}

#[test]
fn a_store_that_holds_a_copy_up_is_named() {
    let mut w = World::new();
    let running = |w: &World| w.jobs.iter().any(|(name, _)| name.contains("-backup-1-"));
    w.run(200, running, || false);
    w.stuck = true;
    let said = "Save(<data/ab>) returned error, retrying after 1s: connection refused";
    for (name, (_, job)) in &mut w.jobs {
        (job.state, job.termination) = (JobState::Active, None);
        job.progress = Some((30, 100, 0));
        job.held_up = name.contains("-backup-1-").then(|| said.to_string());
    }
    w.pass(false);
    let message = w.status.message.clone().unwrap();
    let store = &w.status.store.as_ref().unwrap().name;
    assert!(message.contains(&format!("30%, held up by ObjectStore {store}: {said}")), "{message}");
}

#[test]
fn a_segment_that_is_wrong_in_the_store_is_sent_again_within_bounds() {
    let mut w = World::new();
    w.wrong_segment = true;
    w.run(400, |w| w.phase() == Some(Phase::Succeeded), || false);
    let attempts = |w: &World, job: &str| w.status.jobs.iter().find(|j| j.name == job).map(|j| j.attempt);
    let disk = w.status.timeline.iter().find(|r| r.message.contains("sending it again"));
    let n = if disk.expect("it is told").message.starts_with("disk 0") { 0 } else { 1 };
    assert_eq!(attempts(&w, &format!("backup-{n}")), Some(2));
    assert_eq!(attempts(&w, &format!("restore-{n}")), Some(2));

    let mut w = World::new();
    for _ in 0..600 {
        w.wrong_segment = true;
        w.pass(false);
    }
    assert_eq!(w.phase(), Some(Phase::Failed));
    assert_eq!(attempts(&w, "backup-0"), Some(4));
    w.assert_given_back();
}

#[test]
fn what_a_cloud_never_finishes_is_given_up() {
    let snapshot: fn(&World) -> bool = |w| !w.snapshots.is_empty();
    let server: fn(&World) -> bool = |w| !w.servers.is_empty();
    let cases = [("temporary volume vol-", snapshot), ("is still BUILD", server)];
    for ((what, begun), timeless) in cases.into_iter().flat_map(|c| [(c, false), (c, true)]) {
        let mut w = World::new();
        w.timeless = timeless;
        w.run(400, begun, || false);
        let since = w.now;
        w.stuck = true;
        for server in &mut w.servers {
            (server.status, server.launched_at) = ("BUILD".into(), None);
        }
        w.run(4000, |w| w.status.failure.is_some(), || false);
        let failure = w.status.failure.clone().unwrap();
        assert!(failure.message.contains(what), "{failure:?}");
        let waited = w.now.duration_since(since).as_secs();
        // A disk of 1 GiB has half a minute more.
        assert!((3600..3650).contains(&waited), "{what}, timeless {timeless}: given up after {waited} s");
        w.stuck = false;
        w.run(400, |w| w.phase() == Some(Phase::Failed) && w.clean(), || false);
        w.assert_given_back();
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

#[test]
fn what_has_no_time_of_its_own_is_given_up_too() {
    let cases: [(_, fn(&mut World)); 2] = [
        ("after it was filled is still queued", a_filled_image_stays_queued),
        ("after it was read back is still uploading", a_volume_stays_uploading),
    ];
    for (what, prepare) in cases {
        let mut w = World::new();
        prepare(&mut w);
        w.run(4000, |w| w.status.failure.is_some(), || false);
        let failure = w.status.failure.clone().unwrap();
        assert!(failure.message.contains(what), "{failure:?}");
        w.stuck = false;
        w.run(400, |w| w.phase() == Some(Phase::Failed) && w.clean(), || false);
        w.assert_given_back();
    }
}

#[test]
fn a_guest_that_never_stops_is_left_running() {
    for task in [Some("powering-off"), None] {
        let mut w = World::new();
        w.run(200, |w| w.source.status == "SHUTOFF", || false);
        // The stop was taken, and the guest does not heed it.
        (w.source.status, w.source.task_state) = ("ACTIVE".into(), task.map(String::from));
        w.run(400, |w| w.status.failure.is_some(), || false);
        let failure = w.status.failure.clone().unwrap();
        assert!(failure.message.contains("is still ACTIVE 600 s after the stop of"), "{failure:?}");
        let asked = w.status.source.as_ref().and_then(|s| s.stop_requested_at.clone()).unwrap();
        let waited = failure.at.unwrap().0.duration_since(asked.0).as_secs();
        assert!((600..620).contains(&waited), "{task:?}: given up after {waited} s");
        assert_eq!(w.actions.iter().filter(|a| a.action == "stop").count(), 1, "{:?}", w.actions);
        w.source.task_state = None;
        w.run(400, |w| w.phase() == Some(Phase::Failed) && w.clean(), || false);
        w.assert_given_back();
        assert!(w.snapshots.is_empty() && w.actions.iter().all(|a| a.action != "start"), "{:?}", w.actions);
    }
}

#[test]
fn a_server_that_cannot_be_built_goes_and_the_source_runs_again() {
    let mut w = World::new();
    w.run(400, |w| !w.servers.is_empty(), || false);
    (w.servers[0].status, w.servers[0].fault) = ("ERROR".into(), Some("No valid host was found".into()));
    w.servers[0].launched_at = None;
    w.run(400, |w| w.phase() == Some(Phase::Failed) && w.clean(), || false);
    assert!(w.status.failure.as_ref().unwrap().message.contains("No valid host"), "{:?}", w.status.failure);
    w.assert_given_back();
    w.assert_nothing_left();
}

#[test]
fn an_owners_lock_is_remembered_and_put_back() {
    for crashes in [0, 3] {
        let mut w = World::new();
        w.source.locked = true;
        let mut dice = dice(crashes, 3);
        let crash = move || crashes > 0 && dice();
        w.run(600, |w| w.phase() == Some(Phase::Transferring), crash);
        assert!(w.source.locked);
        w.deleting = true;
        w.run(400, |w| w.released, || false);
        assert_eq!((w.source.status.as_str(), w.source.locked), ("ACTIVE", true), "{:?}", w.actions);
        assert!(w.source.metadata.is_empty());
    }
}

#[test]
fn a_claim_that_somebody_took_ends_the_migration_before_the_stop() {
    let mut w = World::new();
    w.run(200, |w| w.status.source.as_ref().is_some_and(|s| s.claimed_at.is_some()), || false);
    w.source.metadata.insert(MARK_CLAIM.into(), "another".into());
    w.run(400, |w| w.phase() == Some(Phase::Failed), || false);
    assert!(w.status.failure.as_ref().unwrap().message.contains("claim"), "{:?}", w.status.failure);
    assert_eq!(w.source.status, "ACTIVE");
    assert!(w.actions.iter().all(|a| a.action != "stop"), "it was not stopped: {:?}", w.actions);
}

#[test]
fn whoever_gives_up_on_clean_up_is_let_go() {
    let mut w = World::new();
    w.run(400, |w| w.phase() == Some(Phase::Creating), || false);
    w.unreachable = true;
    w.deleting = true;
    for _ in 0..50 {
        w.pass(false);
    }
    assert!(!w.released);
    w.abandoned = true;
    w.run(5, |w| w.released, || false);
}

#[test]
fn the_restore_runs_beside_its_backup_and_takes_only_segments_of_its_image() {
    let mut w = World::new();
    // The backups never get anywhere: the restores are there all the same.
    w.failing = Some(("-backup-", true));
    w.run(400, |w| w.jobs.keys().any(|n| n.contains("-restore-0-")), || false);
    assert!(w.status.disks[0].backup.is_none());
    let (name, args) = w.asked.iter().find(|(n, _)| n.contains("-restore-0-")).unwrap();
    let origin = args.iter().position(|a| a == "--origin").map(|at| args[at + 1].clone());
    assert_eq!(origin, w.status.disks[0].export.image_id, "{name}: {args:?}");
    assert!(!args.contains(&"--snapshot".to_string()), "{args:?}");
    // A backup that fails for the last time takes the restore and its image with it.
    w.run(400, |w| w.phase() == Some(Phase::Failed) && w.clean(), || false);
    w.assert_given_back();
}

#[test]
fn a_failed_attempt_of_a_backup_does_not_fail_its_restore() {
    let mut w = World::new();
    w.failing = Some(("-backup-", true));
    w.run(400, |w| w.jobs.keys().any(|n| n.contains("-restore-0-")), || false);
    w.failing = None;
    w.run(400, |w| w.phase() == Some(Phase::Succeeded), || false);
    let attempt = |what: &str| w.status.jobs.iter().find(|j| j.name == what).map(|j| j.attempt);
    assert!(attempt("backup-0") > Some(1), "{:?}", w.status.jobs);
    assert_eq!(attempt("restore-0"), Some(1));
}

#[test]
fn looks_at_a_cloud_get_rarer_with_the_wait() {
    for (waited, pause) in [(-3, 2), (0, 2), (10, 2), (15, 3), (40, 8), (75, 15), (3000, 15)] {
        assert_eq!(super::pause(waited, super::CALM).as_secs(), pause, "after {waited} s");
    }
}
