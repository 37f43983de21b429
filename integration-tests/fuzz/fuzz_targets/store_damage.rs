//! The file of the namenode's store, damaged.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| doldam_integration_tests::parser::store_damage(bytes));
