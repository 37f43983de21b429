//! Messages of the gRPC services and their checks.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| doldam_integration_tests::parser::wire_message(bytes));
