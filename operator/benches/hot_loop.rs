//! What the mover does with every byte of a disk: look for zeros, hash, compare with the last pass.

#![allow(missing_docs, reason = "criterion_group! makes a public function")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sha2::{Digest, Sha256};
use vmmigration::transfer::{Table, table::is_zero};

/// As long as one read.
const PIECE: usize = 1 << 20;
/// Blocks of a disk of 16 GiB.
const BLOCKS: usize = 1 << 18;

/// Bytes that are never zero for long, the same each time.
fn noise() -> Vec<u8> {
    (0..PIECE as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 | 1).collect()
}

fn table(piece: &[u8]) -> Table {
    let mut table = Table::default();
    table.add(piece);
    table
}

fn pieces(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("piece of 1 MiB");
    group.throughput(Throughput::Bytes(PIECE as u64));
    for (kind, piece) in [("zeros", vec![0; PIECE]), ("data", noise())] {
        let id = |work| BenchmarkId::new(work, kind);
        group.bench_with_input(id("zero scan"), &piece, |b, piece| b.iter(|| is_zero(black_box(piece))));
        group.bench_with_input(id("SHA-256"), &piece, |b, piece| b.iter(|| Sha256::digest(black_box(piece))));
        group.bench_with_input(id("block digests"), &piece, |b, piece| b.iter(|| table(black_box(piece))));
        group.bench_with_input(id("all of a pass"), &piece, |b, piece| {
            b.iter(|| (is_zero(black_box(piece)), Sha256::digest(piece), table(piece)));
        });
    }
    group.finish();
}

fn compare(criterion: &mut Criterion) {
    let digests = |changed: usize| {
        let mut whole = Table::default();
        let part = table(&noise());
        for first in (0..BLOCKS as u64).step_by(16) {
            whole.set(first, &part);
        }
        let zero = table(&[0; 16]);
        for block in (0..BLOCKS as u64).step_by(BLOCKS / changed) {
            whole.set(block, &zero);
        }
        whole
    };
    let (old, new) = (digests(1), digests(800));
    let mut group = criterion.benchmark_group("tables of 16 GiB");
    group.bench_function("compare, 800 blocks changed", |b| b.iter(|| black_box(&old).diff(black_box(&new))));
    group.finish();
}

criterion_group!(benches, pieces, compare);
criterion_main!(benches);
