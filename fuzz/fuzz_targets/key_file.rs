//! A file below `keys/` of a repository.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmmigration::fuzz::key_file(data));
