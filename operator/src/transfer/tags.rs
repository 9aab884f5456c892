//! What a snapshot of ours is, written into its tags when it begins: whose, of which pass, and what part.

use serde::Deserialize;

use super::layout::Layout;
use crate::restic::SnapshotId;

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

#[derive(Deserialize)]
struct RawSnapshot {
    id: String,
    #[serde(default)]
    tags: Option<Vec<String>>,
}

/// Reads `restic snapshots --json`, oldest first as restic gives them. Snapshots that are not of this pass, or whose
/// tags are not ours, are left out.
pub fn parse_listing(json: &[u8], key: &PassKey) -> Result<Vec<Listed>, String> {
    let raw: Option<Vec<RawSnapshot>> =
        serde_json::from_slice(json).map_err(|error| format!("restic's list of snapshots: {error}"))?;
    Ok(raw.unwrap_or_default().iter().filter_map(|snapshot| listed(snapshot, key)).collect())
}

fn listed(raw: &RawSnapshot, key: &PassKey) -> Option<Listed> {
    let tags = raw.tags.as_deref().unwrap_or_default();
    let tag = |name: &str| tags.iter().find_map(|tag| tag.strip_prefix(name)?.strip_prefix('='));
    let ours = tag("mig")? == key.migration
        && tag("disk")?.parse() == Ok(key.disk)
        && tag("pass")?.parse() == Ok(key.pass);
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
    ours.then_some(Listed { id, kind, layout, origin })
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
            let found = parse_listing(json.as_bytes(), &key()).unwrap();
            let id = "ab".repeat(32).parse().unwrap();
            assert_eq!(found, [Listed { id, kind, layout, origin: "image-1".into() }]);
        }
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
            assert_eq!(parse_listing(json.as_bytes(), &key()), Ok(vec![]), "{to}");
        }
        assert_eq!(parse_listing(b"null", &key()), Ok(vec![]));
        for bad in ["", "{}", "[", "[1]", "[{}]"] {
            assert!(parse_listing(bad.as_bytes(), &key()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_tags_are_ours_or_left_out(tags in prop::collection::vec("(mig|disk|pass|kind|seg|done|layout|from)=[a-z0-9/-]{0,12}", 0..9)) {
            let json = json!([{"id": "ab".repeat(32), "tags": tags}]).to_string();
            prop_assert!(parse_listing(json.as_bytes(), &key()).is_ok());
        }

        #[test]
        fn any_bytes_are_a_listing_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_listing(&bytes, &key());
        }
    }
}
