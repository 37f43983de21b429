//! Small files of the servers' folders, and names of files there.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| doldam_integration_tests::parser::folder_file(bytes));
