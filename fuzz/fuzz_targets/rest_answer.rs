//! What a server of restic's REST protocol answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmmigration::fuzz::rest_answer(data));
