//! The manifest of one pass of one disk: which bytes lie in which snapshot, and what they must hash to.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    layout::{BLOCK, Layout},
    runs::Runs,
};
use crate::contract::SnapshotId;

const VERSION: u32 = 1;
/// How many bytes one patch holds at most.
pub const MAX_PATCH: u64 = 256 << 20;

/// A hash that the image service computed of the whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageHash {
    /// The algorithm, as the image service calls it.
    pub algorithm: String,
    /// In hex.
    pub value: String,
}

/// Where a segment's bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Content {
    /// Nothing but zeros; no snapshot.
    Zero,
    /// All of them in one snapshot.
    Stored(SnapshotId),
    /// As in the pass before.
    Unchanged,
    /// As in the pass before, but for blocks that are in patches or became zero.
    Patched,
}

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Segment {
    /// SHA-256 of its bytes as read from the source, in hex.
    pub sha256: String,
    /// Where they are.
    pub content: Content,
}

/// Changed blocks in one snapshot, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Patch {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// Which blocks.
    pub blocks: Runs,
}

/// What is known of one pass of one disk. It is saved now and then while the pass runs, and `complete` at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Of this format.
    pub version: u32,
    /// The migration.
    pub migration: String,
    /// Number of the disk.
    pub disk: u32,
    /// Number of the pass; the first is 0.
    pub pass: u32,
    /// The disk's length.
    pub bytes: u64,
    /// The length of all segments but the last.
    pub segment_bytes: u64,
    /// The source image's hash, when the source is an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<ImageHash>,
    /// The manifest of the pass before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<SnapshotId>,
    /// Digests of all blocks after this pass; only when another pass may follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<SnapshotId>,
    /// One for each segment; null while it is not known.
    pub segments: Vec<Option<Segment>>,
    /// Changed blocks, ascending from patch to patch.
    #[serde(default)]
    pub patches: Vec<Patch>,
    /// Blocks that became zero.
    #[serde(default)]
    pub zeroed: Runs,
    /// Bytes added to the repository, compressed and encrypted.
    pub stored_bytes: u64,
    /// Whether the pass has ended.
    pub complete: bool,
}

impl Manifest {
    /// A manifest that knows nothing yet.
    pub fn new(key: &super::tags::PassKey, layout: &Layout, hash: Option<ImageHash>) -> Self {
        Self {
            version: VERSION,
            migration: key.migration.clone(),
            disk: key.disk,
            pass: key.pass,
            bytes: layout.bytes(),
            segment_bytes: layout.segment_bytes(),
            hash,
            base: None,
            table: None,
            segments: vec![None; layout.segments()],
            patches: Vec::new(),
            zeroed: Runs::default(),
            stored_bytes: 0,
            complete: false,
        }
    }

    /// Reads a manifest; one that contradicts itself is refused.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        manifest.check().map(|()| manifest)
    }

    /// How the disk is cut.
    pub fn layout(&self) -> Result<Layout, String> {
        Layout::new(self.bytes, self.segment_bytes)
    }

    /// How much is known: grows with every save.
    pub fn done(&self) -> u64 {
        let settled =
            self.segments.iter().flatten().count() + self.patches.len() + usize::from(self.complete);
        settled as u64
    }

    /// SHA-256 over the digests of all segments: the identity of the whole disk. `None` until all are known.
    pub fn root(&self) -> Option<String> {
        let mut root = Sha256::new();
        for segment in &self.segments {
            root.update(hex::decode(&segment.as_ref()?.sha256).ok()?);
        }
        Some(hex::encode(root.finalize()))
    }

    /// How many bytes of the disk lie in patches or became zero.
    pub fn changed_bytes(&self) -> u64 {
        let patched: u64 = self.patches.iter().map(|patch| patch.blocks.count()).sum();
        (patched + self.zeroed.count()).saturating_mul(BLOCK).min(self.bytes)
    }

    /// What is left of it when nothing is taken from these snapshots. Complete only if it never named one.
    #[must_use]
    pub fn without(mut self, condemned: &HashSet<SnapshotId>) -> Self {
        let names = |content: &Content| matches!(content, Content::Stored(id) if condemned.contains(id));
        for segment in &mut self.segments {
            if segment.as_ref().is_some_and(|segment| names(&segment.content)) {
                *segment = None;
                self.complete = false;
            }
        }
        let before = self.patches.len();
        self.patches.retain(|patch| !condemned.contains(&patch.snapshot));
        self.complete &= before == self.patches.len();
        self
    }

    fn check(&self) -> Result<(), String> {
        let layout = self.layout()?;
        if self.version != VERSION {
            return Err(format!("version {} is not known here", self.version));
        }
        if self.segments.len() != layout.segments() {
            return Err(format!("{} segments, not {}", self.segments.len(), layout.segments()));
        }
        if self.complete && self.segments.iter().any(Option::is_none) {
            return Err("it is complete, but lacks segments".to_owned());
        }
        if (self.pass == 0) != self.base.is_none() {
            return Err("all passes but the first have one before them".to_owned());
        }
        for segment in self.segments.iter().flatten() {
            check_digest(&segment.sha256)?;
            let first = matches!(segment.content, Content::Zero | Content::Stored(_));
            if first != (self.pass == 0) {
                return Err(format!("{:?} in pass {}", segment.content, self.pass));
            }
        }
        self.check_patches(&layout)
    }

    fn check_patches(&self, layout: &Layout) -> Result<(), String> {
        if self.pass == 0 && (!self.patches.is_empty() || !self.zeroed.is_empty()) {
            return Err("the first pass has no patches".to_owned());
        }
        let mut end = 0;
        for patch in &self.patches {
            check_digest(&patch.sha256)?;
            let start = patch.blocks.start().ok_or("a patch without blocks")?;
            if start < end || patch.blocks.count().saturating_mul(BLOCK) > MAX_PATCH {
                return Err(format!("the patch at block {start} is out of order or too large"));
            }
            end = patch.blocks.end();
        }
        if end.max(self.zeroed.end()) > layout.blocks() {
            return Err(format!("there is no block {end}"));
        }
        Ok(())
    }
}

fn check_digest(text: &str) -> Result<(), String> {
    let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    if text.len() == 64 && text.bytes().all(hex) {
        Ok(())
    } else {
        Err("a digest is no SHA-256 in hex".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::transfer::tags::PassKey;

    fn id(byte: &str) -> SnapshotId {
        byte.repeat(32).parse().unwrap()
    }

    fn example(pass: u32) -> Manifest {
        let key = PassKey { migration: "u".into(), disk: 0, pass };
        let layout = Layout::new(5 * BLOCK + 7, 2 * BLOCK).unwrap();
        let mut manifest = Manifest::new(&key, &layout, None);
        let content = |n: usize| match (pass, n) {
            (0, 1) => Content::Zero,
            (0, _) => Content::Stored(id("ab")),
            (_, 1) => Content::Unchanged,
            _ => Content::Patched,
        };
        for (n, segment) in manifest.segments.iter_mut().enumerate() {
            *segment = Some(Segment { sha256: "0d".repeat(32), content: content(n) });
        }
        if pass > 0 {
            let blocks = |pairs: &[(u64, u64)]| Runs::try_from(pairs.to_vec()).unwrap();
            let patch = |pairs| Patch { snapshot: id("cd"), sha256: "0e".repeat(32), blocks: blocks(pairs) };
            manifest.base = Some(id("ef"));
            manifest.patches = vec![patch(&[(0, 1)]), patch(&[(1, 1), (4, 1)])];
            manifest.zeroed = blocks(&[(5, 1)]);
        }
        manifest.complete = true;
        manifest
    }

    #[test]
    fn it_survives_its_text() {
        for pass in [0, 1] {
            let manifest = example(pass);
            let text = serde_json::to_vec(&manifest).unwrap();
            assert_eq!(Manifest::parse(&text), Ok(manifest));
        }
        let root = hex::encode(Sha256::digest([0x0d_u8; 96]));
        assert_eq!(example(0).root(), Some(root));
        assert_eq!(example(1).changed_bytes(), 4 * BLOCK);
    }

    #[test]
    fn what_names_a_condemned_snapshot_is_not_complete() {
        let condemned = |byte| HashSet::from([id(byte)]);
        for (pass, wrong) in [(0, "ab"), (1, "cd")] {
            assert_eq!(example(pass).without(&condemned("11")), example(pass));
            let left = example(pass).without(&condemned(wrong));
            assert!(!left.complete && left.patches.is_empty() && left.done() < example(pass).done());
        }
        let left = example(0).without(&condemned("ab"));
        assert_eq!(left.segments.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false]);
    }

    #[test]
    fn contradictions_are_refused() {
        let with = |pass, path: &str, value: Value| {
            let mut json = serde_json::to_value(example(pass)).unwrap();
            *json.pointer_mut(path).unwrap() = value;
            Manifest::parse(json.to_string().as_bytes())
        };
        assert!(with(0, "/segments/0", Value::Null).is_err());
        let cases = [
            (0, "/version", json!(2)),
            (0, "/bytes", json!(0)),
            (0, "/bytes", json!(100)),
            (0, "/segmentBytes", json!(1)),
            (0, "/pass", json!(1)),
            (0, "/segments/0/sha256", json!("")),
            (0, "/segments/0/content", json!("unchanged")),
            (0, "/segments/0/content", json!({"stored": "latest"})),
            (1, "/segments/0/content", json!("zero")),
            (1, "/pass", json!(0)),
            (1, "/base", Value::Null),
            (1, "/patches/0/sha256", json!("zz")),
            (1, "/patches/0/blocks", json!([])),
            (1, "/patches/0/blocks", json!([[2, 1]])),
            (1, "/patches/1/blocks", json!([[6, 1]])),
            (1, "/patches/1/blocks", json!([[1, 5000]])),
            (1, "/zeroed", json!([[6, 1]])),
        ];
        for (pass, path, value) in cases {
            assert!(with(pass, path, value.clone()).is_err(), "{path} {value}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_manifest_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::parse(&bytes);
        }

        #[test]
        fn a_damaged_manifest_is_refused_or_sound(at in any::<prop::sample::Index>(), byte in any::<u8>(), pass in 0_u32..2) {
            let mut text = serde_json::to_vec(&example(pass)).unwrap();
            let at = at.index(text.len());
            text[at] = byte;
            if let Ok(manifest) = Manifest::parse(&text) {
                let layout = manifest.layout().unwrap();
                prop_assert_eq!(manifest.segments.len(), layout.segments());
                prop_assert!(manifest.patches.iter().all(|patch| patch.blocks.end() <= layout.blocks()));
                prop_assert_eq!(manifest.root().is_some(), manifest.segments.iter().all(Option::is_some));
            }
        }
    }
}
