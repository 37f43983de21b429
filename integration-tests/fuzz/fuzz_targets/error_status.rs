//! Errors in the details of a gRPC status.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| doldam_integration_tests::parser::error_status(bytes));
