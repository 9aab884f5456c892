//! The digests of all blocks of a disk.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmmigration::fuzz::digest_table(data));
