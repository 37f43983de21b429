//! Sizes, durations, addresses, ids.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| doldam_integration_tests::parser::quantity(bytes));
