//! The digests of all blocks of a disk: what a later pass compares with.

use std::sync::LazyLock;

use super::{
    layout::{BLOCK, Layout},
    runs::Runs,
};

/// Bytes of one digest: BLAKE3, cut. Whether a disk is right is judged by SHA-256, never by these.
pub const DIGEST: usize = 16;

const BLOCK_BYTES: usize = BLOCK as usize;

/// The digest of one block.
pub type BlockDigest = [u8; DIGEST];

/// One digest for each block, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table(Vec<BlockDigest>);

impl Table {
    /// A table with room for a disk.
    pub fn for_layout(layout: &Layout) -> Self {
        Self(Vec::with_capacity(usize::try_from(layout.blocks()).unwrap_or(0)))
    }

    /// Adds the blocks of consecutive bytes; all pieces but a disk's last hold whole blocks.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.extend(bytes.chunks(BLOCK_BYTES).map(digest));
    }

    /// Puts the digests of consecutive blocks in their place.
    pub fn set(&mut self, first: u64, part: &Table) {
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let end = first.saturating_add(part.0.len());
        if self.0.len() < end {
            self.0.resize(end, [0; DIGEST]);
        }
        self.0[first..end].copy_from_slice(&part.0);
    }

    /// The digest of one block.
    pub fn get(&self, block: u64) -> Option<&BlockDigest> {
        self.0.get(usize::try_from(block).ok()?)
    }

    /// How many blocks it knows.
    pub fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The blocks that differ; all of those that one table lacks.
    pub fn diff(&self, other: &Self) -> Runs {
        let mut runs = Runs::default();
        for block in 0..self.len().max(other.len()) {
            if self.get(block) != other.get(block) {
                runs.push(block);
            }
        }
        runs
    }

    /// As it lies in the repository.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.as_flattened().to_vec()
    }

    /// Reads what [`Table::to_bytes`] wrote for a disk of this layout.
    pub fn from_bytes(bytes: &[u8], layout: &Layout) -> Result<Self, String> {
        let (digests, rest) = bytes.as_chunks::<DIGEST>();
        if !rest.is_empty() || digests.len() as u64 != layout.blocks() {
            let blocks = layout.blocks();
            return Err(format!("{} bytes are no digests of {blocks} blocks", bytes.len()));
        }
        Ok(Self(digests.to_vec()))
    }
}

/// The digest of one block.
pub fn digest(block: &[u8]) -> BlockDigest {
    static ZERO: LazyLock<BlockDigest> = LazyLock::new(|| hash(&[0; BLOCK_BYTES]));
    if block.len() == BLOCK_BYTES && is_zero(block) {
        return *ZERO;
    }
    hash(block)
}

fn hash(block: &[u8]) -> BlockDigest {
    let mut short = [0; DIGEST];
    short.copy_from_slice(&blake3::hash(block).as_bytes()[..DIGEST]);
    short
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (head, words, tail) = (bytes.as_chunks::<64>().0, [0_u8; 64], bytes.as_chunks::<64>().1);
    head.iter().all(|chunk| *chunk == words) && tail.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(bytes: &[u8]) -> Table {
        let mut table = Table::default();
        table.add(bytes);
        table
    }

    #[test]
    fn zeros() {
        for length in [0, 1, 63, 64, 65, 1000] {
            let mut bytes = vec![0; length];
            assert!(is_zero(&bytes));
            if let Some(last) = bytes.last_mut() {
                *last = 1;
                assert!(!is_zero(&bytes));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_difference_is_what_was_written(
            length in 1_usize..8 * 65536,
            writes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            let old = vec![7_u8; length];
            let mut new = old.clone();
            for (at, value) in &writes {
                new[at.index(length)] = *value;
            }
            let layout = Layout::new(length as u64, 4 * BLOCK).unwrap();
            let diff = table(&old).diff(&table(&new));
            // Copying the differing blocks makes the old disk the new one.
            let mut patched = old.clone();
            for run in diff.iter() {
                let range = layout.block_range(run);
                let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
                prop_assert!(old[range.clone()] != new[range.clone()]);
                patched[range.clone()].copy_from_slice(&new[range]);
            }
            prop_assert_eq!(patched, new);
        }

        #[test]
        fn parts_make_the_whole(length in 1_usize..6 * 65536, order in any::<bool>()) {
            let bytes: Vec<u8> = (0..length).map(|n| (n / 1000) as u8).collect();
            let whole = table(&bytes);
            let layout = Layout::new(length as u64, 2 * BLOCK).unwrap();
            let mut parts: Vec<usize> = (0..layout.segments()).collect();
            if order {
                parts.reverse();
            }
            let mut put_together = Table::default();
            for index in parts {
                let range = layout.range(index);
                let part = table(&bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]);
                put_together.set(range.start / BLOCK, &part);
            }
            prop_assert_eq!(&put_together, &whole);
            prop_assert_eq!(Table::from_bytes(&whole.to_bytes(), &layout), Ok(whole));
        }

        #[test]
        fn any_bytes_are_a_table_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100), disk in 1_u64..400_000) {
            let layout = Layout::new(disk, BLOCK).unwrap();
            if let Ok(table) = Table::from_bytes(&bytes, &layout) {
                prop_assert_eq!(table.len(), layout.blocks());
            }
        }
    }
}
