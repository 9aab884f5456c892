//! What Swift and Keystone answer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmmigration::fuzz::swift_answer(data));
