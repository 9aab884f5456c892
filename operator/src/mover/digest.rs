//! Counts and hashes a stream on a thread of its own, beside the thread that writes it.

use bytes::Bytes;
use sha2::{Digest, Sha256, Sha512};
use tokio::sync::{mpsc, oneshot};

use super::{error::MoverError, result::FailureReason};

/// How many blocks may wait for the hasher.
const QUEUE: usize = 8;

/// Length and digests of a stream that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// How many bytes.
    pub bytes: u64,
    /// SHA-256 in hex.
    pub sha256: String,
    /// SHA-512 in hex, if it was asked for.
    pub sha512: Option<String>,
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
    /// Starts the thread. SHA-512 costs as much as all the rest, so it is computed only where it is compared.
    pub fn start(with_sha512: bool) -> Result<Self, MoverError> {
        let (blocks, queue) = mpsc::channel(QUEUE);
        let (finished, done) = oneshot::channel();
        std::thread::Builder::new()
            .name("hash".into())
            .spawn(move || {
                // Nobody waiting any more is no problem.
                let _ = finished.send(hash_all(queue, with_sha512));
            })
            .map_err(|error| {
                MoverError::retryable(FailureReason::Internal, format!("no thread for hashing: {error}"))
            })?;
        Ok(Self { blocks, done })
    }

    /// Takes the next bytes.
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

fn hash_all(mut queue: mpsc::Receiver<Bytes>, with_sha512: bool) -> Digests {
    let mut bytes = 0;
    let mut sha256 = Sha256::new();
    let mut sha512 = with_sha512.then(Sha512::new);
    while let Some(block) = queue.blocking_recv() {
        bytes += block.len() as u64;
        sha256.update(&block);
        if let Some(sha512) = &mut sha512 {
            sha512.update(&block);
        }
    }
    Digests {
        bytes,
        sha256: hex::encode(sha256.finalize()),
        sha512: sha512.map(|sha512| hex::encode(sha512.finalize())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn known_digests() {
        let hasher = Hasher::start(true).unwrap();
        hasher.update(Bytes::from_static(b"a")).await.unwrap();
        hasher.update(Bytes::from_static(b"bc")).await.unwrap();
        let digests = hasher.finish().await.unwrap();
        assert_eq!(digests.bytes, 3);
        assert_eq!(digests.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(digests.get("sha512").unwrap().starts_with("ddaf35a193617abacc417349ae204131"));
        assert_eq!(digests.get("md5"), None);
    }
}
