//! What a snapshot of ours is, written into its tags when it begins: whose, of which pass, and what part.

use std::collections::HashSet;

use serde::Deserialize;

use super::layout::Layout;
use crate::contract::SnapshotId;

/// One disk in one pass, read from one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassKey {
    /// The migration.
    pub migration: String,
    /// Number of the disk.
    pub disk: u32,
    /// Number of the pass; the first is 0.
    pub pass: u32,
}

/// What a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One segment, byte by byte.
    Segment(usize),
    /// What is known of the pass so far; `done` grows.
    Manifest {
        /// Segments settled and patches saved.
        done: u64,
    },
    /// Digests of all blocks.
    Table,
    /// Changed blocks, one after the other.
    Patch(usize),
}

impl Kind {
    /// The name of the only file in such a snapshot.
    pub fn file(&self) -> &'static str {
        match self {
            Self::Segment(_) => "segment",
            Self::Manifest { .. } => "manifest.json",
            Self::Table => "table",
            Self::Patch(_) => "patch",
        }
    }
}

impl PassKey {
    /// The tags that all snapshots of the pass have, in restic's form: joined, all must be there.
    pub fn filter(&self) -> String {
        format!("mig={},disk={},pass={}", self.migration, self.disk, self.pass)
    }

    /// The tags of the note that another snapshot of the pass holds wrong bytes.
    pub fn condemn_tags(&self, id: &SnapshotId) -> String {
        format!("{},kind=condemned,id={id}", self.filter())
    }

    /// The tags that everything has that belongs to the whole disk as a manifest describes it.
    pub fn of_tags(&self, manifest: &SnapshotId) -> String {
        format!("{},of={manifest}", self.filter())
    }

    /// The tags of the whole disk as a manifest describes it.
    pub fn whole_tags(&self, manifest: &SnapshotId) -> String {
        format!("{},kind=whole", self.of_tags(manifest))
    }

    /// The tags of the note that this snapshot is the whole disk, compared digest by digest.
    pub fn proven_tags(&self, manifest: &SnapshotId, whole: &SnapshotId) -> String {
        format!("{},kind=proven,id={whole}", self.of_tags(manifest))
    }

    /// All tags of one snapshot. `origin` is the image or volume that is read: bytes of another one are others.
    pub fn tags(&self, kind: Kind, layout: &Layout, origin: &str) -> String {
        let kind = match kind {
            Kind::Segment(index) => format!("kind=segment,seg={index}"),
            Kind::Manifest { done } => format!("kind=manifest,done={done}"),
            Kind::Table => "kind=table".to_owned(),
            Kind::Patch(index) => format!("kind=patch,seg={index}"),
        };
        format!("{},{kind},layout={layout},from={origin}", self.filter())
    }
}

/// One snapshot of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its full id.
    pub id: SnapshotId,
    /// What it holds.
    pub kind: Kind,
    /// How its disk was cut.
    pub layout: Layout,
    /// The image or volume it was read from.
    pub origin: String,
}

/// What the repository holds of one pass.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Oldest first; those that hold wrong bytes are left out.
    pub snapshots: Vec<Listed>,
    /// Snapshots that gave other bytes than were read in the source. Nothing may be built on them.
    pub condemned: HashSet<SnapshotId>,
}

#[derive(Deserialize)]
struct RawSnapshot {
    id: String,
    #[serde(default)]
    tags: Option<Vec<String>>,
}

/// Reads `restic snapshots --json`, oldest first as restic gives them. Snapshots that are not of this pass, or whose
/// tags are not ours, are left out.
pub fn parse_listing(json: &[u8], key: &PassKey) -> Result<Listing, String> {
    let mut raw = parse(json)?;
    raw.retain(|snapshot| is_of(snapshot, key).unwrap_or_default());
    let condemned: HashSet<_> = raw.iter().filter_map(|note| noted(note, "condemned")).collect();
    let sound = |listed: &Listed| !condemned.contains(&listed.id);
    let snapshots = raw.iter().filter_map(listed).filter(sound).collect();
    Ok(Listing { snapshots, condemned })
}

/// Of the snapshots of a whole disk, in `restic snapshots --json`, the newest one about which a note says that it was
/// compared digest by digest. One without: nobody came to the end of that, or it was found wrong.
pub fn parse_proven(json: &[u8]) -> Result<Option<SnapshotId>, String> {
    let raw = parse(json)?;
    let proven: HashSet<SnapshotId> = raw.iter().filter_map(|note| noted(note, "proven")).collect();
    let whole = raw.iter().filter(|snapshot| snapshot.tag("kind") == Some("whole"));
    Ok(whole.filter_map(|snapshot| snapshot.id.parse().ok()).rfind(|id| proven.contains(id)))
}

fn parse(json: &[u8]) -> Result<Vec<RawSnapshot>, String> {
    let raw: Option<_> =
        serde_json::from_slice(json).map_err(|error| format!("restic's list of snapshots: {error}"))?;
    Ok(raw.unwrap_or_default())
}

impl RawSnapshot {
    fn tag(&self, name: &str) -> Option<&str> {
        let tags = self.tags.as_deref().unwrap_or_default();
        tags.iter().find_map(|tag| tag.strip_prefix(name)?.strip_prefix('='))
    }
}

fn is_of(raw: &RawSnapshot, key: &PassKey) -> Option<bool> {
    let ours = raw.tag("mig")? == key.migration
        && raw.tag("disk")?.parse() == Ok(key.disk)
        && raw.tag("pass")?.parse() == Ok(key.pass);
    Some(ours)
}

/// The snapshot that a note of this kind is about.
fn noted(raw: &RawSnapshot, kind: &str) -> Option<SnapshotId> {
    if raw.tag("kind")? == kind { raw.tag("id")?.parse().ok() } else { None }
}

fn listed(raw: &RawSnapshot) -> Option<Listed> {
    let tag = |name: &str| raw.tag(name);
    let kind = match tag("kind")? {
        "segment" => Kind::Segment(tag("seg")?.parse().ok()?),
        "manifest" => Kind::Manifest { done: tag("done")?.parse().ok()? },
        "table" => Kind::Table,
        "patch" => Kind::Patch(tag("seg")?.parse().ok()?),
        _ => return None,
    };
    let layout: Layout = tag("layout")?.parse().ok()?;
    if let Kind::Segment(index) = kind
        && index >= layout.segments()
    {
        return None;
    }
    let (id, origin) = (raw.id.parse().ok()?, tag("from")?.to_owned());
    Some(Listed { id, kind, layout, origin })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn key() -> PassKey {
        PassKey { migration: "u-1".into(), disk: 2, pass: 3 }
    }

    fn snapshot(tags: &str) -> Value {
        json!({"id": "ab".repeat(32), "time": "2026-08-01T00:00:00Z", "paths": ["/segment"], "tags": tags.split(',').collect::<Vec<_>>()})
    }

    #[test]
    fn tags_are_read_as_they_were_written() {
        let layout = Layout::new(1 << 20, 65536).unwrap();
        for kind in [Kind::Segment(15), Kind::Manifest { done: 7 }, Kind::Table, Kind::Patch(4)] {
            let json = json!([snapshot(&key().tags(kind, &layout, "image-1"))]).to_string();
            let found = parse_listing(json.as_bytes(), &key()).unwrap().snapshots;
            let id = "ab".repeat(32).parse().unwrap();
            assert_eq!(found, [Listed { id, kind, layout, origin: "image-1".into() }]);
        }
    }

    #[test]
    fn what_is_condemned_is_left_out() {
        let layout = Layout::new(1 << 20, 65536).unwrap();
        let (wrong, right): (SnapshotId, SnapshotId) =
            ("ab".repeat(32).parse().unwrap(), "cd".repeat(32).parse().unwrap());
        let segment = |id: &SnapshotId| {
            let tags = key().tags(Kind::Segment(1), &layout, "i");
            json!({"id": id, "tags": tags.split(',').collect::<Vec<_>>()})
        };
        let note = |key: PassKey| snapshot(&key.condemn_tags(&wrong));
        let parse = |list: Value| parse_listing(list.to_string().as_bytes(), &key()).unwrap();
        let found = parse(json!([segment(&wrong), segment(&right), note(key())]));
        assert_eq!(found.snapshots.iter().map(|listed| &listed.id).collect::<Vec<_>>(), [&right]);
        assert_eq!(found.condemned, HashSet::from([wrong.clone()]));
        // A note of another pass says nothing of this one.
        let found = parse(json!([segment(&wrong), note(PassKey { pass: 2, ..key() })]));
        assert_eq!((found.snapshots.len(), found.condemned.len()), (1, 0));
    }

    #[test]
    fn of_whole_disks_only_those_are_found_that_were_proven() {
        let [manifest, first, second] =
            ["01", "ab", "cd"].map(|byte| byte.repeat(32).parse::<SnapshotId>().unwrap());
        let tagged =
            |id: &SnapshotId, tags: String| json!({"id": id, "tags": tags.split(',').collect::<Vec<_>>()});
        let whole = |id: &SnapshotId| tagged(id, key().whole_tags(&manifest));
        let note = |about: &SnapshotId| snapshot(&key().proven_tags(&manifest, about));
        let found = |list: Value| parse_proven(list.to_string().as_bytes()).unwrap();
        assert_eq!(found(json!([])), None);
        assert_eq!(found(json!([whole(&first)])), None);
        assert_eq!(found(json!([whole(&first), note(&first), whole(&second)])), Some(first.clone()));
        assert_eq!(found(json!([whole(&first), note(&first), whole(&second), note(&second)])), Some(second));
        // A note about what is not there, and a note that is tagged as one of another kind.
        assert_eq!(found(json!([note(&first)])), None);
        assert_eq!(found(json!([whole(&first), snapshot(&key().condemn_tags(&first))])), None);
        assert!(parse_proven(b"{}").is_err());
    }

    #[test]
    fn other_snapshots_are_left_out() {
        let good = key().tags(Kind::Segment(1), &Layout::new(1 << 20, 65536).unwrap(), "i");
        for (from, to) in [
            ("mig=u-1", "mig=u-2"),
            ("disk=2", "disk=02x"),
            ("pass=3", "pass=4"),
            ("kind=segment", "kind=other"),
            ("seg=1", "seg=16"),
            ("seg=1", "seg=-1"),
            ("layout=1048576/65536", "layout=1048576/0"),
            (",from=i", ""),
        ] {
            let json = json!([snapshot(&good.replace(from, to)), {"id": "x"}, {"id": "y", "tags": null}])
                .to_string();
            assert_eq!(parse_listing(json.as_bytes(), &key()), Ok(Listing::default()), "{to}");
        }
        assert_eq!(parse_listing(b"null", &key()), Ok(Listing::default()));
        for bad in ["", "{}", "[", "[1]", "[{}]"] {
            assert!(parse_listing(bad.as_bytes(), &key()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_tags_are_ours_or_left_out(tags in prop::collection::vec("(mig|disk|pass|kind|seg|done|layout|from|id)=[a-z0-9/-]{0,12}", 0..9)) {
            let json = json!([{"id": "ab".repeat(32), "tags": tags}]).to_string();
            prop_assert!(parse_listing(json.as_bytes(), &key()).is_ok());
        }

        #[test]
        fn any_bytes_are_a_listing_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (parse_listing(&bytes, &key()), parse_proven(&bytes));
        }
    }
}
