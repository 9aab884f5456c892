//! Deterministic names, labels and ownership marks, on both sides.

use crate::{
    cloud::{Image, Port, Server, Snapshot, Volume},
    crd::v1alpha1::{HookRow, HookSide},
};
use std::collections::BTreeMap;

/// Mark on everything that a migration made: its UID.
pub const MARK_MIGRATION: &str = "vmmigration.io:migration";
/// Mark on everything that a migration made: what it is for, a [`Role`].
pub const MARK_ROLE: &str = "vmmigration.io:role";
/// Mark on everything that a migration made: `<namespace>/<name>` of the object.
pub const MARK_OBJECT: &str = "vmmigration.io:object";
/// Mark on everything that a migration made: which disk or port it belongs to.
pub const MARK_INDEX: &str = "vmmigration.io:index";
/// Mark on what was made for a disk more than once: which attempt it belongs to, from 2.
pub const MARK_ATTEMPT: &str = "vmmigration.io:attempt";
/// Mark on the new server: the id of the server that it takes the place of.
pub const MARK_SOURCE: &str = "vmmigration.io:source";
/// The one mark that the source gets: the UID of the migration that has claimed it.
pub const MARK_CLAIM: &str = "vmmigration.io:claimed-by";
/// What every mark starts with; such keys are never copied from cloud to cloud.
pub const MARK_PREFIX: &str = "vmmigration.io:";

/// Label on Jobs, pods and Secrets: the migration's UID.
pub const LABEL_MIGRATION: &str = "vmmigration.io/migration";
/// Label on Jobs and pods: what the Job is for.
pub const LABEL_PURPOSE: &str = "vmmigration.io/purpose";
/// Label on the Jobs and pods of hooks: near which side's cloud they run.
pub const LABEL_SIDE: &str = "vmmigration.io/side";
/// Label with which a tenant allows hooks to use a Secret: `"true"`.
pub const LABEL_HOOK: &str = "vmmigration.io/hook";
/// Label on the Secrets that register clusters: the cluster's name.
pub const LABEL_CLUSTER: &str = "vmmigration.io/cluster";
/// Finalizer on a `VmMigration`.
pub const FINALIZER: &str = "vmmigration.io/cleanup";
/// Annotation that gives up on clean-up; its value is the UID.
pub const ANNOTATION_ABANDON: &str = "vmmigration.io/abandon";

/// What an object that we made in a cloud is for.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    strum::IntoStaticStr,
    strum::EnumString,
    strum::Display,
)]
#[strum(serialize_all = "kebab-case")]
pub enum Role {
    /// Source: snapshot of a volume.
    Snapshot,
    /// Source: temporary volume made from the snapshot.
    ExportVolume,
    /// Source: image of the temporary volume, or of the local root disk.
    ExportImage,
    /// Destination: image that a restore Job fills.
    ImportImage,
    /// Destination: image that a finished volume is read back into.
    ReadbackImage,
    /// Destination: image that an image-backed server boots from; it stays.
    RootImage,
    /// Destination: a disk; it stays.
    Volume,
    /// Destination: a port; it stays.
    Port,
    /// Destination: the server; it stays.
    Server,
}

impl Role {
    /// Removed when the migration has succeeded.
    pub fn is_temporary(self) -> bool {
        matches!(
            self,
            Role::Snapshot | Role::ExportVolume | Role::ExportImage | Role::ImportImage | Role::ReadbackImage
        )
    }

    /// Is it what an image is made for?
    pub fn is_of_an_image(self) -> bool {
        matches!(self, Role::ExportImage | Role::ImportImage | Role::ReadbackImage | Role::RootImage)
    }
}

/// Who a migration is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// UID of the object.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What a mark or a name says of an object that a migration made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// What it is for.
    pub role: Role,
    /// Which disk or port.
    pub index: i32,
    /// Which attempt, from 1.
    pub attempt: i32,
}

impl Identity {
    /// The marks that go into the POST of whatever takes metadata.
    pub fn marks(&self, role: Role, index: i32) -> BTreeMap<String, String> {
        BTreeMap::from([
            (MARK_MIGRATION.into(), self.uid.clone()),
            (MARK_ROLE.into(), role.to_string()),
            (MARK_OBJECT.into(), format!("{}/{}", self.namespace, self.name)),
            (MARK_INDEX.into(), index.to_string()),
        ])
    }

    /// The marks of one of several that are made for the same disk, one after the other.
    pub fn marks_of(&self, role: Role, index: i32, attempt: i32) -> BTreeMap<String, String> {
        let mut marks = self.marks(role, index);
        if attempt > 1 {
            marks.insert(MARK_ATTEMPT.into(), attempt.to_string());
        }
        marks
    }

    /// `vmm-<uid>-<role>-<n>[-<attempt>]`: the name that carries the identity where a POST takes no metadata.
    pub fn object_name(&self, role: Role, index: i32, attempt: i32) -> String {
        match attempt {
            1 => format!("vmm-{}-{role}-{index}", self.uid),
            a => format!("vmm-{}-{role}-{index}-{a}", self.uid),
        }
    }

    /// The tag that goes onto ports and images: the same mark, as `key=value`.
    pub fn tag(&self) -> String {
        format!("{MARK_MIGRATION}={}", self.uid)
    }

    /// Name of the anchor Secret of one cluster.
    pub fn anchor(&self, side: Side) -> String {
        format!("vmm-{}-{side}", self.uid)
    }

    /// Name of the Secret that the operator keeps for itself: both sides' credentials, until clean-up is done.
    pub fn vault(&self) -> String {
        format!("vmm-{}-vault", self.uid)
    }

    /// Name of a Job.
    pub fn job(&self, purpose: &str, attempt: i32) -> String {
        format!("{}{attempt}", self.attempts(purpose))
    }

    /// How the names of all attempts of a Job begin.
    pub fn attempts(&self, purpose: &str) -> String {
        format!("vmm-{}-{purpose}-", self.uid)
    }

    /// Name of the Job of one attempt of a hook, and of the Secret with what it uses. The nonce tells it from what a
    /// former try of the migration left.
    pub fn hook_job(&self, row: &HookRow) -> String {
        self.job(&format!("hook-{}", row.nonce.as_deref().unwrap_or_default()), row.attempts)
    }

    /// Is this the Job of checks? It may have a Secret of the same name, with private keys.
    pub fn is_check_job(&self, name: &str) -> bool {
        name.starts_with(&format!("vmm-{}-check", self.uid))
    }

    /// Is this the Job of a hook?
    pub fn is_hook_job(&self, name: &str) -> bool {
        name.starts_with(&format!("vmm-{}-hook-", self.uid))
    }

    /// Name of a disk's PersistentVolume and of its claim: one of each for all attempts, so that no volume is attached
    /// twice.
    pub fn device(&self, side: Side, disk: i32) -> String {
        format!("vmm-{}-disk-{side}-{disk}", self.uid)
    }

    /// Name of the report.
    pub fn report(&self) -> String {
        format!("{}-{}", self.name, self.uid.get(..8).unwrap_or(&self.uid))
    }

    /// What a name of ours says, or `None` if it is not, letter for letter, a name that we give.
    pub fn parse_name(&self, name: &str) -> Option<Tagged> {
        let tagged = self.read_name(name)?;
        (self.object_name(tagged.role, tagged.index, tagged.attempt) == name).then_some(tagged)
    }

    fn read_name(&self, name: &str) -> Option<Tagged> {
        let rest = name.strip_prefix("vmm-")?.strip_prefix(self.uid.as_str())?.strip_prefix('-')?;
        let (head, last) = rest.rsplit_once('-')?;
        let last: i32 = last.parse().ok()?;
        if let Ok(role) = head.parse() {
            return Some(Tagged { role, index: last, attempt: 1 });
        }
        let (role, index) = head.rsplit_once('-')?;
        Some(Tagged { role: role.parse().ok()?, index: index.parse().ok()?, attempt: last })
    }

    fn parse_marks(&self, get: impl Fn(&str) -> Option<String>) -> Option<Tagged> {
        if get(MARK_MIGRATION)? != self.uid || self.uid.is_empty() {
            return None;
        }
        let number = |mark| get(mark).and_then(|n| n.parse().ok());
        let (index, attempt) = (number(MARK_INDEX).unwrap_or(0), number(MARK_ATTEMPT).unwrap_or(1));
        Some(Tagged { role: get(MARK_ROLE)?.parse().ok()?, index, attempt })
    }

    /// What we made this volume for. Marks alone do not tell: a volume that somebody restores from a backup of one that we
    /// made has them, too. So it must also be recorded, or have the name that we give it until then.
    pub fn volume(&self, v: &Volume, recorded: &[String]) -> Option<Tagged> {
        let marked = self.parse_marks(|k| v.metadata.get(k).cloned())?;
        let ours = recorded.contains(&v.id) || self.parse_name(&v.name) == Some(marked);
        ours.then_some(marked)
    }

    /// What we made this snapshot for.
    pub fn snapshot(&self, s: &Snapshot, recorded: &[String]) -> Option<Tagged> {
        let marked = self.parse_marks(|k| s.metadata.get(k).cloned())?;
        let ours = recorded.contains(&s.id) || self.parse_name(&s.name) == Some(marked);
        ours.then_some(marked)
    }

    /// What we made this server for.
    pub fn server(&self, s: &Server) -> Option<Tagged> {
        self.parse_marks(|k| s.metadata.get(k).cloned())
    }

    /// What we made this image for, by its name alone: what an image says of itself is inherited by volumes that are made
    /// of it, and by images and snapshots that somebody makes of those.
    pub fn image(&self, i: &Image) -> Option<Tagged> {
        self.parse_name(&i.name).filter(|tagged| tagged.role.is_of_an_image())
    }

    /// What we made this port for: by name until it has its final one, then by tag and recorded id.
    pub fn port(&self, p: &Port, recorded: &[String]) -> Option<Tagged> {
        if let Some(tagged) = self.parse_name(&p.name).filter(|tagged| tagged.role == Role::Port) {
            return Some(tagged);
        }
        let index = recorded.iter().position(|id| *id == p.id)?;
        p.tags.contains(&self.tag()).then_some(Tagged {
            role: Role::Port,
            index: i32::try_from(index).ok()?,
            attempt: 1,
        })
    }
}

/// One of the two sides.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    strum::Display,
    strum::IntoStaticStr,
    serde::Serialize,
    serde::Deserialize,
)]
#[strum(serialize_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The cloud that the server comes from.
    Source,
    /// The cloud that it goes to.
    Destination,
}

impl From<HookSide> for Side {
    fn from(side: HookSide) -> Self {
        match side {
            HookSide::Source => Side::Source,
            HookSide::Destination => Side::Destination,
        }
    }
}

/// Metadata without marks: what may be copied from cloud to cloud.
pub fn without_marks(metadata: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    metadata
        .iter()
        .filter(|(k, _)| !k.starts_with(MARK_PREFIX))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Identity {
        Identity {
            uid: "3f0b8c1e-0000-4000-8000-000000000001".into(),
            namespace: "team".into(),
            name: "web-1".into(),
        }
    }

    #[test]
    fn names_carry_the_identity_and_come_back() {
        let me = me();
        for (role, index, attempt) in [
            (Role::ExportImage, 0, 1),
            (Role::ImportImage, 3, 1),
            (Role::ImportImage, 3, 12),
            (Role::Port, 1, 1),
        ] {
            let name = me.object_name(role, index, attempt);
            assert_eq!(me.parse_name(&name), Some(Tagged { role, index, attempt }), "{name}");
        }
        for foreign in [
            "web-1",
            "vmm-",
            "vmm-3f0b8c1e-0000-4000-8000-000000000002-port-0",
            "vmm-3f0b8c1e-0000-4000-8000-000000000001-other-0",
        ] {
            assert_eq!(me.parse_name(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn marks_carry_the_identity_and_come_back() {
        let me = me();
        for attempt in [1, 2, 13] {
            let metadata = me.marks_of(Role::Snapshot, 3, attempt);
            let name = me.object_name(Role::Snapshot, 3, attempt);
            let snapshot = Snapshot { name, metadata, ..Default::default() };
            assert_eq!(me.snapshot(&snapshot, &[]), Some(Tagged { role: Role::Snapshot, index: 3, attempt }));
        }
        assert_eq!(me.marks_of(Role::Snapshot, 0, 1), me.marks(Role::Snapshot, 0));
    }

    #[test]
    fn an_empty_uid_owns_nothing() {
        let nobody = Identity::default();
        let volume = Volume {
            metadata: BTreeMap::from([
                (MARK_MIGRATION.into(), String::new()),
                (MARK_ROLE.into(), "volume".into()),
            ]),
            ..Default::default()
        };
        assert_eq!(nobody.volume(&volume, &[String::new()]), None);
    }

    #[test]
    fn what_somebody_made_of_something_of_ours_is_theirs() {
        let me = me();
        let inherited = |role| me.marks(role, 0);
        let properties = |role| inherited(role).into_iter().map(|(k, v)| (k, v.into())).collect();
        // Of a volume that was made of our image, of a server on it, and under a name that is nearly one of ours.
        let names = ["backup of web-1", "", "vmm-3f0b8c1e-0000-4000-8000-000000000001-import-image-0-copy"];
        let near =
            ["import-image-00", "import-image-0-1", "import-image-+1", "import-image-0-02", "volume-0"];
        let near = near.map(|end| format!("vmm-{}-{end}", me.uid));
        for name in names.into_iter().map(String::from).chain(near) {
            let image =
                Image { name: name.clone(), properties: properties(Role::ImportImage), ..Default::default() };
            assert_eq!(me.image(&image), None, "{name}");
            // Cinder restores the metadata of a volume with its backup, and copies of objects may keep theirs.
            for role in [Role::Volume, Role::ExportVolume] {
                let volume = Volume {
                    id: "x".into(),
                    name: name.clone(),
                    metadata: inherited(role),
                    ..Default::default()
                };
                let ours = me.parse_name(&name).map(|t| t.role) == Some(role);
                assert_eq!(me.volume(&volume, &["y".into()]).is_some(), ours, "{name}");
                assert!(me.volume(&volume, &["x".into()]).is_some(), "it is recorded");
            }
            let snapshot =
                Snapshot { name: name.clone(), metadata: inherited(Role::Snapshot), ..Default::default() };
            assert_eq!(me.snapshot(&snapshot, &[]), None, "{name}");
            let port = Port { name: format!("vmm-{}-import-image-0", me.uid), ..Default::default() };
            assert_eq!(me.port(&port, &[]), None);
        }
        // A name of ours is no mark, and a record is none.
        let name = me.object_name(Role::Volume, 0, 1);
        assert_eq!(me.volume(&Volume { id: "x".into(), name, ..Default::default() }, &["x".into()]), None);
    }

    #[test]
    fn job_names_fit_into_a_label() {
        assert!(me().job("probe-destination", 99).len() <= 63);
        let row = HookRow { nonce: Some("0123456789ab".into()), attempts: 11, ..Default::default() };
        let name = me().hook_job(&row);
        assert!(name.len() <= 63 && me().is_hook_job(&name), "{name}");
    }

    #[test]
    fn marks_are_never_copied() {
        let all =
            me().marks(Role::Volume, 1).into_iter().chain([("app".to_string(), "web".to_string())]).collect();
        assert_eq!(without_marks(&all), BTreeMap::from([("app".to_string(), "web".to_string())]));
    }
}
