//! Segments of the namenode's journal.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| doldam_integration_tests::parser::journal_segment(
    bytes
));
