//! Records of the namenode's tables.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| doldam_integration_tests::parser::table_records(bytes));
