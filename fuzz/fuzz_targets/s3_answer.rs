//! What an S3 store answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vmmigration::fuzz::s3_answer(data));
