//! A block that moves while it is read.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::blocks::takeover::Start;
use crate::testing::{FaultyDisk, bytes, open_store, tree_of};

/// Written, taken over, appended to, published, dropped, over and over: a reader that knows the first bytes finds them
/// at every moment.
#[test]
fn a_reader_never_misses_a_block_that_moves() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(FaultyDisk::default().handle(), &[dir.path()]);
    let content = bytes(70_000);
    let (tree, digest) = tree_of(0, &content);
    let start = Start {
        file_offset: 0,
        length: content.len() as u64,
        value: digest.chaining_value,
        length_max: 1 << 20,
    };
    let key = |generation| ReplicaKey::new(1, generation);
    let mut partial = store.begin_write(key(1), 0, 1 << 20).unwrap();
    partial.write(0, &content).unwrap();
    partial.advance(&tree, 0);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                let readable = store.open_to_read(key(1), 66_000).unwrap();
                let mut found = vec![0; 66_000];
                readable.data().read_exact_at(&mut found, 0).unwrap();
                assert!(found == content[..66_000]);
                let proof = readable.proof(66_000, 0..2).unwrap();
                let values = tree_of(0, &content[..66_000]).0;
                assert_eq!(&proof[32..], values.groups()[1].0);
            }
        });
        drop(partial);
        for generation in 2..80 {
            let take = store.begin_take_over(key(generation)).unwrap();
            let (partial, _) = store.take_over(take, start).unwrap();
            if generation % 3 == 0 {
                partial.publish(&tree, &digest, false).unwrap();
            } else {
                drop(partial);
            }
            _ = store.drop_replica(key(generation - 1)).unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_is_too_short_missing_or_bad_is_refused_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(FaultyDisk::default().handle(), &[dir.path()]);
    let refusal = |length| store.open_to_read(ReplicaKey::new(1, 1), length).err().unwrap();
    assert!(matches!(refusal(1), StoreError::NotFound { .. }));
    crate::testing::store_block(&store, ReplicaKey::new(1, 1), &bytes(100), true);
    assert!(matches!(refusal(101), StoreError::TooShort { length: 101, .. }));
    store.quarantine(ReplicaKey::new(1, 1), "a test");
    assert!(matches!(refusal(100), StoreError::Quarantined { .. }));
}
