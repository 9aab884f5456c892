//! `restic snapshots --json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmmigration::fuzz::snapshot_list(data));
