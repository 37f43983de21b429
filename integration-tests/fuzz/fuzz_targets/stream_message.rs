//! Length-prefixed messages of a block stream.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| doldam_integration_tests::parser::stream_message(bytes));
