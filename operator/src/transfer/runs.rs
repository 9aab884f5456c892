//! Sets of blocks as runs: ascending, apart, never empty.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Blocks of a disk, as `[first, count]` pairs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Runs(Vec<Range<u64>>);

impl Runs {
    /// Adds a block behind all others.
    pub fn push(&mut self, block: u64) {
        match self.0.last_mut() {
            Some(last) if last.end == block => last.end += 1,
            Some(last) if last.end > block => {}
            _ => self.0.push(block..block + 1),
        }
    }

    /// Whether there is no block.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many blocks there are.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|run| run.end - run.start).sum()
    }

    /// The runs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &Range<u64>> {
        self.0.iter()
    }

    /// The block behind the last one.
    pub fn end(&self) -> u64 {
        self.0.last().map_or(0, |run| run.end)
    }

    /// The first block.
    pub fn start(&self) -> Option<u64> {
        self.0.first().map(|run| run.start)
    }
}

impl TryFrom<Vec<(u64, u64)>> for Runs {
    type Error = String;

    fn try_from(pairs: Vec<(u64, u64)>) -> Result<Self, String> {
        let mut runs: Vec<Range<u64>> = Vec::with_capacity(pairs.len());
        for (first, count) in pairs {
            let end = first.checked_add(count).filter(|end| *end > first && *end < 1 << 50);
            let end = end.ok_or_else(|| format!("a run of {count} blocks at {first}"))?;
            if runs.last().is_some_and(|last| last.end >= first) {
                return Err(format!("the run at block {first} is out of order"));
            }
            runs.push(first..end);
        }
        Ok(Self(runs))
    }
}

impl From<Runs> for Vec<(u64, u64)> {
    fn from(runs: Runs) -> Self {
        runs.0.into_iter().map(|run| (run.start, run.end - run.start)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_of_blocks_survives(blocks in prop::collection::btree_set(0_u64..300, 0..100)) {
            let mut runs = Runs::default();
            blocks.iter().for_each(|block| runs.push(*block));
            let text = serde_json::to_string(&runs).unwrap();
            let back: Runs = serde_json::from_str(&text).unwrap();
            let all: BTreeSet<u64> = back.iter().cloned().flatten().collect();
            prop_assert_eq!(runs.count(), blocks.len() as u64);
            prop_assert_eq!(all, blocks);
        }

        #[test]
        fn what_is_read_is_ascending(pairs in prop::collection::vec((0_u64..20, 0_u64..5), 0..6)) {
            if let Ok(runs) = Runs::try_from(pairs) {
                let ends: Vec<u64> = runs.iter().flat_map(|run| [run.start, run.end]).collect();
                prop_assert!(ends.windows(2).all(|two| two[0] < two[1]));
            }
        }
    }

    #[test]
    fn odd_runs_are_refused() {
        for text in [
            "[[0,0]]",
            "[[5,1],[4,1]]",
            "[[0,2],[1,1]]",
            "[[0,1],[1,1]]",
            "[[18446744073709551615,1]]",
            "[[1]]",
            "{}",
        ] {
            assert!(serde_json::from_str::<Runs>(text).is_err(), "{text}");
        }
    }
}
