//! Sidecars of replicas.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| doldam_integration_tests::parser::sidecar(bytes));
