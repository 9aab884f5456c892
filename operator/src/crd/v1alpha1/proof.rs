//! Is what is in the destination what was read in the source? The one place that compares a disk's digests and says so.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Digest, DiskStatus};

/// The name of a mover's digest of a whole disk: SHA-256 over the SHA-256 digests of its segments. It is not the SHA-256
/// of the disk, so it has a name of its own.
pub const SEGMENTS: &str = "sha256-of-segments";

/// A digest and what it is.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamedDigest {
    /// `sha512` or `sha256`: an image service's hash over all bytes. `sha256-of-segments`: SHA-256 over the SHA-256
    /// digests of the disk's segments, as movers compute it.
    pub algorithm: String,
    /// In hex.
    pub digest: String,
}

impl NamedDigest {
    /// Who computes digests of this kind.
    fn reader(&self) -> &'static str {
        if self.algorithm == SEGMENTS { "mover" } else { "image-service" }
    }
}

impl std::fmt::Display for NamedDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.algorithm, self.digest)
    }
}

/// This disk is proven: this digest, this algorithm, read by whom.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DiskProof {
    /// `sha512` or `sha256`: an image service's hash over all bytes. `sha256-of-segments`: SHA-256 over the SHA-256
    /// digests of the disk's segments, as movers compute it.
    pub algorithm: String,
    /// The digest that both sides have, in hex.
    pub digest: String,
    /// How many bytes both sides have.
    pub bytes: i64,
    /// Who computed it in the source: `mover` or `image-service`.
    pub source_read_by: String,
    /// Who read the disk back in the destination: `mover` or `image-service`.
    pub destination_read_by: String,
    /// Where the destination's reader has another algorithm: what it read back. The mover that wrote the disk there
    /// has the same, and has the digest above of the same bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_back_as: Option<NamedDigest>,
}

impl std::fmt::Display for DiskProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.algorithm, self.digest)?;
        self.read_back_as.iter().try_for_each(|back| write!(f, ", read back as {back}"))
    }
}

/// What the digests of a disk say.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The disk in the destination is what was read in the source.
    Proven(DiskProof),
    /// It is not: what differs from what.
    Differs(String),
    /// They do not say: something was not read yet, or has no digest that can be compared.
    Open,
}

impl Verdict {
    /// The proof, if it is one.
    pub fn proof(self) -> Option<DiskProof> {
        match self {
            Verdict::Proven(proof) => Some(proof),
            Verdict::Differs(_) | Verdict::Open => None,
        }
    }
}

impl DiskStatus {
    /// What its digests say, whatever was recorded as its proof. A digest that two records have must be equal, and none
    /// may stand alone: what was written must be what was read in the source, and what was read back one of the two.
    pub fn verdict(&self) -> Verdict {
        match self.difference() {
            Some(what) => Verdict::Differs(what),
            None => self.chain().map_or(Verdict::Open, Verdict::Proven),
        }
    }

    /// Is it proven?
    pub fn proven(&self) -> bool {
        matches!(self.verdict(), Verdict::Proven(_))
    }

    /// What was read of it so far, and where.
    pub fn readings(&self) -> impl Iterator<Item = (&'static str, &Digest)> {
        let all = [
            ("read in the source", &self.backup),
            ("written in the destination", &self.restore),
            ("read back in the destination", &self.readback),
        ];
        all.into_iter().filter_map(|(what, digest)| Some((what, digest.as_ref()?)))
    }

    fn difference(&self) -> Option<String> {
        let all: Vec<_> = self.readings().collect();
        let mut pairs = all.iter().enumerate().flat_map(|(n, b)| all.iter().take(n).map(move |a| (a, b)));
        let differ = pairs.find(|(a, b)| a.1.agrees(b.1) == Some(false));
        differ.map(|((was, a), (is, b))| format!("{was}: {a}; {is}: {b}"))
    }

    /// From what was read in the source to what was read back; nothing differs.
    fn chain(&self) -> Option<DiskProof> {
        let (read, written, back) = (self.backup.as_ref()?, self.restore.as_ref()?, self.readback.as_ref()?);
        if read.bytes <= 0 || [written, back].iter().any(|d| d.bytes != read.bytes) {
            return None;
        }
        let first = |a: &Digest, b: &Digest| common(a, b).into_iter().next().map(|(digest, _)| digest);
        let sent = first(read, written)?;
        let (digest, back) = match (first(read, back), first(written, back)) {
            // The mover that wrote it knows both; who read it back after that has only one of them.
            (Some(both), Some(back)) if both.reader() == "mover" => (both, back),
            (Some(both), _) => (both.clone(), both),
            (None, Some(back)) => (sent, back),
            (None, None) => return None,
        };
        Some(DiskProof {
            bytes: read.bytes,
            source_read_by: digest.reader().into(),
            destination_read_by: back.reader().into(),
            read_back_as: Some(back).filter(|back| *back != digest),
            algorithm: digest.algorithm,
            digest: digest.digest,
        })
    }
}

impl Digest {
    /// Same length, and the same value of every digest that both have; `None` when there is nothing to compare.
    pub fn agrees(&self, other: &Digest) -> Option<bool> {
        let common = common(self, other);
        // A length that is not known says nothing.
        let lengths = self.bytes > 0 && other.bytes > 0;
        if lengths && self.bytes != other.bytes || common.iter().any(|(a, b)| a != b) {
            return Some(false);
        }
        (lengths && !common.is_empty()).then_some(true)
    }

    /// What it has: an image service's hash first.
    pub fn named(&self) -> impl Iterator<Item = NamedDigest> {
        let whole = self.hash_algo.clone().zip(self.hash_value.clone());
        let segments = self.sha256.clone().map(|value| (SEGMENTS.to_string(), value));
        let all = whole.into_iter().chain(segments).filter(|(algorithm, _)| !algorithm.is_empty());
        all.filter(|(_, digest)| !digest.is_empty())
            .map(|(algorithm, digest)| NamedDigest { algorithm, digest })
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let named: Vec<_> = self.named().map(|digest| digest.to_string()).collect();
        let named = if named.is_empty() { "no digest".into() } else { named.join(", ") };
        write!(f, "{} bytes, {named}", self.bytes)
    }
}

/// Digests of one algorithm that both have.
fn common(a: &Digest, b: &Digest) -> Vec<(NamedDigest, NamedDigest)> {
    let of = |d: NamedDigest| b.named().find(|o| o.algorithm == d.algorithm).map(|o| (d, o));
    a.named().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A mover's digest, an image service's hash, both.
    fn mover(segments: &str) -> Value {
        json!({"bytes": 9, "sha256": segments, "by": "mover"})
    }

    fn image(algorithm: &str, hash: &str) -> Value {
        json!({"bytes": 9, "hashAlgo": algorithm, "hashValue": hash, "by": "image-service"})
    }

    fn both(segments: &str, algorithm: &str, hash: &str) -> Value {
        json!({"bytes": 9, "sha256": segments, "hashAlgo": algorithm, "hashValue": hash, "by": "mover"})
    }

    fn verdict(read: &Value, written: &Value, back: &Value) -> Verdict {
        let disk = json!({"index": 0, "backup": read, "restore": written, "readback": back});
        serde_json::from_value::<DiskStatus>(disk).unwrap().verdict()
    }

    fn proof(algorithm: &str, digest: &str, by: [&str; 2], back: Option<(&str, &str)>) -> Verdict {
        Verdict::Proven(DiskProof {
            algorithm: algorithm.into(),
            digest: digest.into(),
            bytes: 9,
            source_read_by: by[0].into(),
            destination_read_by: by[1].into(),
            read_back_as: back.map(|(a, d)| NamedDigest { algorithm: a.into(), digest: d.into() }),
        })
    }

    #[test]
    fn equal_digests_prove_a_disk_in_every_mode() {
        let images = ["image-service", "image-service"];
        let by = ["mover", "image-service"];
        let movers = proof(SEGMENTS, "5e", ["mover", "mover"], None);
        let sha512 = proof("sha512", "ab", images, None);
        let other = proof(SEGMENTS, "5e", by, Some(("sha512", "ab")));
        let (m, b) = (mover("5e"), both("5e", "sha512", "ab"));
        for (what, read, written, back, expected) in [
            ("images on both sides", &b, &b, &image("sha512", "ab"), &sha512),
            ("a root disk that is an image there", &b, &b, &b, &sha512),
            ("block devices on both sides", &m, &m, &m, &movers),
            ("an image to a block device", &b, &m, &m, &movers),
            ("a block device to an image", &m, &b, &image("sha512", "ab"), &other),
            (
                "image services of two algorithms",
                &both("5e", "sha256", "cd"),
                &b,
                &image("sha512", "ab"),
                &other,
            ),
            ("the same of a root disk", &both("5e", "sha256", "cd"), &b, &b, &other),
            ("the image service told no hash of what arrived", &b, &m, &image("sha512", "ab"), &sha512),
        ] {
            assert_eq!(&verdict(read, written, back), expected, "{what}");
        }
    }

    #[test]
    fn a_digest_that_differs_anywhere_proves_nothing() {
        let (m, b, i) = (mover("5e"), both("5e", "sha512", "ab"), image("sha512", "ab"));
        let mut shorter = b.clone();
        shorter["bytes"] = json!(8);
        let nothing = Value::Null;
        for (what, read, written, back) in [
            ("written", &b, &both("5e", "sha512", "cd"), &i),
            ("written, in the mover's eyes", &b, &both("00", "sha512", "ab"), &i),
            ("read back", &b, &b, &image("sha512", "cd")),
            ("read back, of a block device", &m, &m, &mover("00")),
            ("read back, of the other algorithm", &both("5e", "sha256", "cd"), &b, &image("sha512", "00")),
            ("shorter", &b, &shorter, &i),
            ("shorter, without a digest", &b, &b, &json!({"bytes": 8})),
            ("written, and nothing is read back yet", &m, &mover("00"), &nothing),
            ("written, and nothing is known of the source", &nothing, &b, &image("sha512", "cd")),
        ] {
            assert!(matches!(verdict(read, written, back), Verdict::Differs(_)), "{what}");
        }
        let Verdict::Differs(text) = verdict(&b, &b, &image("sha512", "cd")) else { panic!() };
        assert_eq!(
            text,
            "read in the source: 9 bytes, sha512 ab, sha256-of-segments 5e; \
             read back in the destination: 9 bytes, sha512 cd"
        );
    }

    #[test]
    fn what_is_absent_reads_neither_as_proven_nor_as_differing() {
        let (m, b, i) = (mover("5e"), both("5e", "sha512", "ab"), image("sha512", "ab"));
        let (nothing, empty) = (Value::Null, json!({"bytes": 9}));
        let blank = json!({"bytes": 9, "sha256": "", "hashAlgo": "", "hashValue": ""});
        let (nameless, sizeless) = (json!({"bytes": 9, "hashValue": "ab"}), json!({"sha256": "5e"}));
        for (what, read, written, back) in [
            ("nothing", &nothing, &nothing, &nothing),
            ("only read", &b, &nothing, &nothing),
            ("not read back", &b, &b, &nothing),
            ("not read in the source", &nothing, &b, &i),
            ("not written", &b, &nothing, &i),
            ("no digest anywhere", &empty, &empty, &empty),
            ("empty digests", &blank, &blank, &blank),
            ("none in the source", &empty, &b, &i),
            ("none of what was read back", &b, &b, &empty),
            ("empty ones of what was read back", &m, &m, &blank),
            ("a hash without its algorithm", &nameless, &nameless, &nameless),
            ("algorithms that nobody has twice", &both("5e", "sha256", "cd"), &m, &image("md5", "ef")),
            ("no length", &sizeless, &sizeless, &sizeless),
            ("no length of what was read back", &m, &m, &sizeless),
        ] {
            assert_eq!(verdict(read, written, back), Verdict::Open, "{what}");
        }
    }

    #[test]
    fn a_proof_tells_what_it_is() {
        let told = |verdict: Verdict| match verdict {
            Verdict::Proven(proof) => proof.to_string(),
            other => format!("{other:?}"),
        };
        let written = both("5e", "sha512", "ab");
        assert_eq!(told(verdict(&written, &written, &image("sha512", "ab"))), "sha512 ab");
        assert_eq!(
            told(verdict(&mover("5e"), &written, &image("sha512", "ab"))),
            "sha256-of-segments 5e, read back as sha512 ab"
        );
    }
}
