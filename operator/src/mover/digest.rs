//! Counts and hashes a stream on a thread of its own, beside the thread that writes it.

use bytes::Bytes;
use sha2::{Digest, Sha256, Sha512};
use tokio::sync::{mpsc, oneshot};

use super::{error::MoverError, result::FailureReason};
use crate::transfer::Table;

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
    let mut bytes = 0;
    let mut sha256 = Sha256::new();
    let mut sha512 = extra.sha512.then(Sha512::new);
    let mut table = extra.table.then(Table::default);
    while let Some(block) = queue.blocking_recv() {
        bytes += block.len() as u64;
        sha256.update(&block);
        if let Some(sha512) = &mut sha512 {
            sha512.update(&block);
        }
        if let Some(table) = &mut table {
            table.add(&block);
        }
    }
    Digests {
        bytes,
        sha256: hex::encode(sha256.finalize()),
        sha512: sha512.map(|sha512| hex::encode(sha512.finalize())),
        table,
    }
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
}
