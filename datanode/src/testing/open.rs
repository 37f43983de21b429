//! A store by itself, with a block that is written by hand, left, gone on with; and stops at every step of that.

use std::sync::Arc;
use std::time::Duration;

use doldam_proto::block::BlockBytes;
use doldam_proto::convert::datanode::{BlockStart, FinishOrder, RecoverOrder};
use doldam_proto::digest::BlockTree;
use doldam_proto::id::{BlockId, Generation};
use tempfile::TempDir;

use super::{FaultyDisk, open_store, tree_of};
use crate::blocks::StoreError;
use crate::blocks::partial::PartialReplica;
use crate::blocks::recovery::{Recovered, RecoveredCopy};
use crate::blocks::sidecar::groups_of;
use crate::blocks::store::BlockStore;
use crate::blocks::takeover::Start;
use crate::engine::outbox::ReplicaEvent;
use crate::engine::replica::ReplicaKey;

const MIB: u64 = 1 << 20;

pub(crate) fn key(generation: u64) -> ReplicaKey {
    ReplicaKey::new(0x1ab, generation)
}

pub(crate) struct Fixture {
    pub(crate) dir: TempDir,
    pub(crate) disk: FaultyDisk,
    pub(crate) store: Arc<BlockStore>,
}

pub(crate) fn fixture() -> Fixture {
    let (dir, disk) = (tempfile::tempdir().unwrap(), FaultyDisk::default());
    let store = open_store(disk.handle(), &[dir.path()]);
    Fixture { dir, disk, store }
}

/// The node starts again from what is in its folder.
pub(crate) fn restarted(Fixture { dir, store, .. }: Fixture) -> Fixture {
    drop(store); // It has the folder for itself.
    let disk = FaultyDisk::default();
    let store = open_store(disk.handle(), &[dir.path()]);
    Fixture { dir, disk, store }
}

pub(crate) fn start(content: &[u8]) -> Start {
    let value = tree_of(0, content).1.chaining_value;
    Start { file_offset: 0, length: content.len() as u64, value, length_max: MIB }
}

/// A writer that wrote `content`.
pub(crate) fn writer(store: &Arc<BlockStore>, key: ReplicaKey, content: &[u8]) -> PartialReplica {
    let mut partial = store.begin_write(key, 0, MIB).unwrap();
    partial.write(0, content).unwrap();
    partial.advance(&tree_of(0, content).0, 0);
    partial
}

pub(crate) fn take_over(
    store: &Arc<BlockStore>,
    key: ReplicaKey,
    content: &[u8],
) -> Result<(PartialReplica, BlockTree), StoreError> {
    store.take_over(store.begin_take_over(key)?, start(content))
}

/// Goes on behind the first `there` bytes up to all of `content`, and publishes.
pub(crate) fn append(store: &Arc<BlockStore>, key: ReplicaKey, content: &[u8], there: usize) {
    let (mut partial, _) = take_over(store, key, &content[..there]).unwrap();
    partial.write(there as u64, &content[there..]).unwrap();
    let (tree, digest) = tree_of(0, content);
    partial.advance(&tree, there as u64);
    partial.publish(&tree, &digest, true).unwrap();
}

pub(crate) fn read(store: &BlockStore, key: ReplicaKey, length: usize) -> Vec<u8> {
    let readable = store.open_to_read(key, length as u64).unwrap();
    let mut content = vec![0; length];
    readable.data().read_exact_at(&mut content, 0).unwrap();
    let groups = readable.proof(length as u64, 0..groups_of(length as u64)).unwrap();
    let value = tree_of(0, &content).0.groups().iter().flat_map(|it| it.0).collect::<Vec<u8>>();
    assert_eq!(&groups[..], &value[..], "the proof is for what is read");
    content
}

pub(crate) fn events(store: &BlockStore) -> Vec<(ReplicaKey, ReplicaEvent)> {
    store.news().take(Duration::ZERO, 100).events
}

pub(crate) fn recover_order(generation: u64) -> RecoverOrder {
    RecoverOrder {
        block: BlockId(0x1ab),
        generation: Generation(generation),
        file_offset: 0,
        block_bytes: BlockBytes::new(MIB).unwrap(),
        shown: None,
        floor: None,
    }
}

pub(crate) fn recover(store: &Arc<BlockStore>, generation: u64) -> Option<RecoveredCopy> {
    recover_from(store, generation, None, None).unwrap().copy
}

/// Asked for what has `shown`, else for what has `floor`.
pub(crate) fn recover_from(
    store: &Arc<BlockStore>,
    generation: u64,
    shown: Option<&[u8]>,
    floor: Option<&[u8]>,
) -> Result<Recovered, StoreError> {
    let take = store.begin_recovery(key(generation)).unwrap();
    let start = |content: &[u8]| BlockStart {
        length: content.len() as u64,
        chaining_value: tree_of(0, content).1.chaining_value,
    };
    let (shown, floor) = (shown.map(start), floor.map(start));
    store.recover(&take, RecoverOrder { shown, floor, ..recover_order(generation) })
}

pub(crate) fn finish_order(generation: u64, content: &[u8]) -> FinishOrder {
    FinishOrder {
        block: BlockId(0x1ab),
        generation: Generation(generation),
        file_offset: 0,
        length: content.len() as u64,
        chaining_value: tree_of(0, content).1.chaining_value,
    }
}

pub(crate) fn finish(
    store: &Arc<BlockStore>,
    generation: u64,
    content: &[u8],
) -> Result<(), StoreError> {
    store.finish(store.begin_take_over(key(generation))?, finish_order(generation, content))
}

/// The node stops before each change of the disk that `work` makes, one after another, and starts again from the files
/// as they are then.
pub(crate) fn at_every_step(
    setup: impl Fn(&Fixture),
    work: impl Fn(&Fixture),
    check: impl Fn(Fixture, u64),
) {
    for step in 0.. {
        let fixture = fixture();
        setup(&fixture);
        fixture.disk.stop_after(step);
        work(&fixture);
        let has_stopped = fixture.disk.has_stopped();
        check(restarted(fixture), step);
        if !has_stopped {
            assert!(step >= 3, "{step} steps");
            return;
        }
    }
}
