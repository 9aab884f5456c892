//! The blocks of a patch.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmmigration::fuzz::block_runs(data));
