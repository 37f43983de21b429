//! The file of the namenode's store, damaged.
#![no_main]

use std::panic::set_hook;

libfuzzer_sys::fuzz_target!(
    // The store's engine panics over pages that cannot be, and the store makes an error of that. The usual hook ends
    // the process before it can; a panic that nobody catches still does.
    init: set_hook(Box::new(|panic| eprintln!("{panic}"))),
    |bytes: &[u8]| doldam_integration_tests::parser::store_damage(bytes)
);
