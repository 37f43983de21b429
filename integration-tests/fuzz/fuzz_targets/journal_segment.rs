//! Segments of the namenode's journal.
#![no_main]

use doldam_integration_tests::parser;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| parser::journal_segment(bytes));
