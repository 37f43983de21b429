//! Patterns of names.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| doldam_integration_tests::parser::name_pattern(bytes));
