//! Headers of block-stream frames.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| doldam_integration_tests::parser::frame_header(bytes));
