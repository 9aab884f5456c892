//! What the movers save beside the bytes of a disk: manifests, sets of blocks, tables of digests.

use std::collections::HashSet;

use crate::transfer::{BLOCK, Content, Layout, Manifest, Runs, Table, manifest::MAX_PATCH};

/// A manifest: what is taken is sound, survives being written, and never says more of the disk than there is.
pub fn manifest(data: &[u8]) {
    let Ok(manifest) = Manifest::parse(data) else { return };
    let layout = manifest.layout().unwrap();
    assert_eq!(Manifest::parse(&serde_json::to_vec(&manifest).unwrap()), Ok(manifest.clone()));
    assert!(manifest.segments.len() == layout.segments() && layout.segments() <= 1 << 16);
    assert_eq!(manifest.root().is_some(), manifest.segments.iter().all(Option::is_some));
    assert!(manifest.changed_bytes() <= manifest.bytes);
    let mut end = 0;
    for patch in &manifest.patches {
        let ranges: Vec<_> = patch.blocks.iter().map(|run| layout.block_range(run)).collect();
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        assert!((1..=MAX_PATCH).contains(&bytes));
        for range in ranges {
            assert!(end <= range.start && range.start < range.end && range.end <= manifest.bytes);
            end = range.end;
        }
    }
    assert!(manifest.zeroed.iter().all(|run| layout.block_range(run).start < manifest.bytes));
    nothing_condemned_stays(manifest);
}

fn nothing_condemned_stays(manifest: Manifest) {
    let stored = manifest.segments.iter().flatten().filter_map(|segment| match &segment.content {
        Content::Stored(id) => Some(id.clone()),
        _ => None,
    });
    let named: HashSet<_> =
        stored.chain(manifest.patches.iter().map(|patch| patch.snapshot.clone())).collect();
    let (before, complete) = (manifest.done(), manifest.complete);
    assert_eq!(manifest.clone().without(&HashSet::new()), manifest);
    let left = manifest.without(&named);
    assert!(left.patches.is_empty() && left.done() <= before);
    assert_eq!(left.complete, complete && named.is_empty());
    // What is left is a manifest that the next attempt of a backup goes on from.
    assert_eq!(Manifest::parse(&serde_json::to_vec(&left).unwrap()), Ok(left));
}

/// Runs of blocks: ascending, apart, and as many as they say.
pub fn block_runs(data: &[u8]) {
    let Ok(runs) = serde_json::from_slice::<Runs>(data) else { return };
    let text = serde_json::to_vec(&runs).unwrap();
    assert_eq!(serde_json::from_slice::<Runs>(&text).unwrap(), runs);
    let mut end = None;
    for run in runs.iter() {
        assert!(end.is_none_or(|end| end < run.start) && run.start < run.end);
        end = Some(run.end);
    }
    assert_eq!(runs.end(), end.unwrap_or_default());
    assert_eq!(runs.is_empty(), runs.start().is_none());
    assert!(runs.count() <= runs.end() && runs.end() < 1 << 50);
    if runs.count() <= 1 << 12 {
        let mut pushed = Runs::default();
        runs.iter().cloned().flatten().for_each(|block| pushed.push(block));
        assert_eq!(pushed, runs);
    }
}

/// A table of digests, behind the eight bytes that say how long its disk is.
pub fn digest_table(data: &[u8]) {
    let Some((bytes, data)) = data.split_first_chunk::<8>() else { return };
    let Ok(layout) = Layout::new(u64::from_le_bytes(*bytes), 1 << 30) else { return };
    let Ok(table) = Table::from_bytes(data, &layout) else { return };
    assert!(table.len() == layout.blocks() && table.to_bytes() == data);
    assert!(table.diff(&table).is_empty());
    // Nothing is known of an empty one: everything differs.
    let all = table.diff(&Table::default());
    assert_eq!((all.count(), all.end(), all.iter().count()), (table.len(), table.len(), 1));
    assert!(layout.block_range(&(0..all.end())) == (0..layout.bytes()));
    assert_eq!(layout.blocks(), layout.bytes().div_ceil(BLOCK));
    let mut copy = Table::default();
    copy.set(0, &table);
    assert_eq!(copy, table);
}
