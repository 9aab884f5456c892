//! Counts and hashes a stream on a thread of its own, beside the thread that writes it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use sha2::{Digest, Sha256, Sha512};
use tokio::sync::{mpsc, oneshot};

use super::error::MoverError;
use crate::{
    contract::FailureReason,
    transfer::{Table, table::is_zero},
};

/// How many blocks may wait for the hasher.
const QUEUE: usize = 4;

/// What to compute besides SHA-256 of all bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extra {
    /// SHA-512 of all bytes.
    pub sha512: bool,
    /// A digest of every block.
    pub table: bool,
}

/// Length and digests of a stream that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// How many bytes.
    pub bytes: u64,
    /// SHA-256 in hex.
    pub sha256: String,
    /// SHA-512 in hex, if it was asked for.
    pub sha512: Option<String>,
    /// A digest of every block, if they were asked for.
    pub table: Option<Table>,
}

impl Digests {
    /// The hash in one of Glance's algorithms, if it is one of ours.
    pub fn get(&self, algorithm: &str) -> Option<&str> {
        match algorithm {
            "sha256" => Some(&self.sha256),
            "sha512" => self.sha512.as_deref(),
            _ => None,
        }
    }
}

/// Algorithms that can be compared with Glance's. MD5 and other names prove nothing and are left out.
pub fn is_supported(algorithm: &str) -> bool {
    matches!(algorithm, "sha256" | "sha512")
}

/// A running hasher.
pub struct Hasher {
    blocks: mpsc::Sender<Bytes>,
    done: oneshot::Receiver<Digests>,
}

impl Hasher {
    /// Starts the thread.
    pub fn start(extra: Extra) -> Result<Self, MoverError> {
        let (blocks, queue) = mpsc::channel(QUEUE);
        let (finished, done) = oneshot::channel();
        std::thread::Builder::new()
            .name("hash".into())
            .spawn(move || {
                // Nobody waiting any more is no problem.
                let _ = finished.send(hash_all(queue, extra));
            })
            .map_err(|error| {
                MoverError::retryable(FailureReason::Internal, format!("no thread for hashing: {error}"))
            })?;
        Ok(Self { blocks, done })
    }

    /// Takes the next bytes; whole blocks, but for the last, where block digests are wanted.
    pub async fn update(&self, block: Bytes) -> Result<(), MoverError> {
        self.blocks.send(block).await.map_err(|_| gone())
    }

    /// Ends the stream.
    pub async fn finish(self) -> Result<Digests, MoverError> {
        drop(self.blocks);
        self.done.await.map_err(|_| gone())
    }
}

fn gone() -> MoverError {
    MoverError::retryable(FailureReason::Internal, "the hashing thread ended early")
}

fn hash_all(mut queue: mpsc::Receiver<Bytes>, extra: Extra) -> Digests {
    let mut sums = Sums::new(extra);
    while let Some(block) = queue.blocking_recv() {
        sums.add(&block);
    }
    sums.finish()
}

/// The digests of what was read so far.
pub struct Sums {
    bytes: u64,
    only_zeros: bool,
    sha256: Sha256,
    sha512: Option<Sha512>,
    table: Option<Table>,
}

impl Sums {
    /// Nothing was read.
    pub fn new(extra: Extra) -> Self {
        let sha512 = extra.sha512.then(Sha512::new);
        let table = extra.table.then(Table::default);
        Self { bytes: 0, only_zeros: true, sha256: Sha256::new(), sha512, table }
    }

    /// Takes the next bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        if let Some(table) = &mut self.table {
            table.add(bytes);
        }
        // Most segments of most disks are empty, and to look costs a tenth of hashing.
        if self.only_zeros && !is_zero(bytes) {
            self.hash_zeros();
        }
        if !self.only_zeros {
            self.hash(bytes);
        }
        self.bytes += bytes.len() as u64;
    }

    /// All bytes were read.
    pub fn finish(mut self) -> Digests {
        if self.only_zeros && self.sha512.is_some() {
            self.hash_zeros();
        }
        let sha256 = match self.only_zeros {
            true => sha256_of_zeros(self.bytes),
            false => hex::encode(self.sha256.finalize()),
        };
        let sha512 = self.sha512.map(|sha512| hex::encode(sha512.finalize()));
        Digests { bytes: self.bytes, sha256, sha512, table: self.table }
    }

    fn hash(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(bytes);
        }
    }

    /// The zeros that were only looked at.
    fn hash_zeros(&mut self) {
        self.only_zeros = false;
        zeros(self.bytes, |piece| self.hash(piece));
    }
}

/// So many zeros, in pieces.
fn zeros(count: u64, mut take: impl FnMut(&[u8])) {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    let mut left = count;
    while left > 0 {
        let piece = &ZEROS[..usize::try_from(left).unwrap_or(ZEROS.len()).min(ZEROS.len())];
        take(piece);
        left -= piece.len() as u64;
    }
}

/// SHA-256 of so many zeros, in hex. Computed once for each length: the segments of a disk have two at most.
fn sha256_of_zeros(count: u64) -> String {
    static KNOWN: Mutex<BTreeMap<u64, String>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let compute = || {
        let mut sha256 = Sha256::new();
        zeros(count, |piece| sha256.update(piece));
        hex::encode(sha256.finalize())
    };
    known.entry(count).or_insert_with(compute).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn known_digests() {
        let hasher = Hasher::start(Extra { sha512: true, table: true }).unwrap();
        hasher.update(Bytes::from_static(b"abc")).await.unwrap();
        let digests = hasher.finish().await.unwrap();
        assert_eq!(digests.bytes, 3);
        assert_eq!(digests.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(digests.get("sha512").unwrap().starts_with("ddaf35a193617abacc417349ae204131"));
        assert_eq!(digests.get("md5"), None);
        assert_eq!(digests.table.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn leading_zeros_count() {
        let piece = |value: u8| Bytes::from(vec![value; 100_000]);
        for pieces in [&[0, 0][..], &[0, 0, 1, 0], &[2, 0], &[]] {
            let whole: Vec<u8> = pieces.iter().flat_map(|value| piece(*value)).collect();
            for sha512 in [false, true] {
                let hasher = Hasher::start(Extra { sha512, table: true }).unwrap();
                for value in pieces {
                    hasher.update(piece(*value)).await.unwrap();
                }
                let digests = hasher.finish().await.unwrap();
                assert_eq!(digests.bytes, whole.len() as u64);
                assert_eq!(digests.sha256, hex::encode(Sha256::digest(&whole)), "{pieces:?}");
                let wanted = sha512.then(|| hex::encode(Sha512::digest(&whole)));
                assert_eq!(digests.sha512, wanted, "{pieces:?}");
            }
        }
    }
}
