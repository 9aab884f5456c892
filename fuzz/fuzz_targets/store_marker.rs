//! The object that says whose a repository is.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmmigration::fuzz::store_marker(data));
