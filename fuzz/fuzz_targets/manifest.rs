//! The manifest of one pass of one disk.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmmigration::fuzz::manifest(data));
