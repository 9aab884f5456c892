//! Lines of restic's output and of its stderr.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmmigration::fuzz::restic_output(data));
