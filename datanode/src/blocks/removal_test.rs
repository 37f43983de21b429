//! How replicas leave, and that nothing leaves by half.

use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::testing::cluster::key;
use crate::testing::{Fault, FaultyDisk, Operation, bytes, open_store, store_block};

struct Fixture {
    dir: TempDir,
    disk: FaultyDisk,
    store: Arc<BlockStore>,
}

fn fixture() -> Fixture {
    let (dir, disk) = (tempfile::tempdir().unwrap(), FaultyDisk::default());
    let store = open_store(disk.handle(), &[dir.path()]);
    store_block(&store, key(1), &bytes(100), true);
    Fixture { dir, disk, store }
}

impl Fixture {
    fn exists(&self, path: &str) -> bool {
        self.dir.path().join(path).exists()
    }

    fn events(&self) -> Vec<ReplicaEvent> {
        let events = self.store.news().take(Duration::ZERO, 10).events;
        events.into_iter().map(|(_, event)| event).collect()
    }
}

const DATA: &str = "0000000000000001_1_100.data";

#[test]
fn a_dropped_replica_is_gone_and_reported_once() {
    let fixture = fixture();
    assert!(fixture.store.drop_replica(key(1)).unwrap());
    assert!(!fixture.store.drop_replica(key(1)).unwrap());
    assert_eq!(fixture.events(), [ReplicaEvent::Dropped]);
    assert!(
        !fixture.exists(&format!("blocks/01/{DATA}")) && !fixture.exists(&format!("trash/{DATA}"))
    );
    assert_eq!(fixture.store.state().inventory.len(), 0);
    // Its place is free again.
    store_block(&fixture.store, key(1), &bytes(100), true);
}

#[test]
fn a_drop_leaves_other_generations_and_blocks_alone() {
    let fixture = fixture();
    store_block(&fixture.store, ReplicaKey::new(1, 2), &bytes(50), true);
    assert!(!fixture.store.drop_replica(ReplicaKey::new(1, 3)).unwrap());
    assert!(fixture.store.drop_replica(key(1)).unwrap());
    assert!(fixture.store.verify(ReplicaKey::new(1, 2), None).is_ok());
}

#[test]
fn a_replica_that_is_being_read_can_be_dropped_and_read_to_its_end() {
    let fixture = fixture();
    let open = fixture.store.open(key(1)).unwrap();
    fixture.store.drop_replica(key(1)).unwrap();
    let mut content = vec![0; 100];
    open.data.read_exact_at(&mut content, 0).unwrap();
    assert_eq!(content, bytes(100));
}

#[test]
fn a_drop_that_fails_leaves_the_replica_in_use() {
    let fixture = fixture();
    let fault = Fault { operation: Operation::Rename, path: "trash", after: 0, errno: 5 };
    fixture.disk.fail(fault);
    assert!(fixture.store.drop_replica(key(1)).is_err());
    fixture.disk.heal();
    assert!(fixture.store.verify(key(1), None).is_ok());
    assert!(fixture.events().is_empty());
}

#[test]
fn a_bad_replica_is_kept_until_it_is_dropped_and_is_not_vouched_for() {
    let fixture = fixture();
    assert!(!fixture.store.state().inventory.root().is_empty());
    fixture.store.quarantine(key(1), "rot");
    fixture.store.quarantine(key(1), "again");
    assert!(fixture.store.state().inventory.root().is_empty());
    assert!(matches!(fixture.store.open(key(1)), Err(StoreError::Quarantined { .. })));
    let bad = ReplicaEvent::Bad { length: 100, what: "rot".to_owned() };
    assert_eq!(fixture.events(), [bad]);
    assert!(fixture.exists(&format!("quarantine/{DATA}")));
    assert!(fixture.store.drop_replica(key(1)).unwrap());
    assert!(!fixture.exists(&format!("quarantine/{DATA}")));
}

#[test]
fn where_only_a_bad_replica_is_to_go_a_good_one_stays() {
    let fixture = fixture();
    assert!(!fixture.store.drop_bad_replica(key(1)).unwrap());
    assert!(fixture.store.verify(key(1), None).is_ok());
    assert!(fixture.events().is_empty());
    fixture.store.quarantine(key(1), "rot");
    assert!(fixture.store.drop_bad_replica(key(1)).unwrap());
    assert!(!fixture.exists(&format!("quarantine/{DATA}")));
    assert!(matches!(fixture.events().last(), Some(ReplicaEvent::Dropped)));
}

#[test]
fn a_bad_replica_that_cannot_be_moved_is_out_of_use_all_the_same() {
    let fixture = fixture();
    let fault = Fault { operation: Operation::Rename, path: "quarantine", after: 0, errno: 30 };
    fixture.disk.fail(fault);
    fixture.store.quarantine(key(1), "rot");
    assert!(matches!(fixture.store.open(key(1)), Err(StoreError::Quarantined { .. })));
    assert_eq!(fixture.events().len(), 1);
    fixture.disk.heal();
    assert!(fixture.store.drop_replica(key(1)).unwrap());
    assert!(!fixture.exists(&format!("blocks/01/{DATA}")));
}

#[test]
fn dropping_the_bad_replica_does_not_touch_the_one_being_written_in_its_place() {
    let fixture = fixture();
    fixture.store.quarantine(key(1), "rot");
    let mut partial = fixture.store.begin_write(key(1), 0, 100).unwrap();
    partial.write(0, &bytes(100)).unwrap();
    assert!(fixture.store.drop_replica(key(1)).unwrap());
    let (tree, digest) = crate::testing::tree_of(0, &bytes(100));
    partial.publish(&tree, &digest, true).unwrap();
    assert!(fixture.store.verify(key(1), None).is_ok());
    assert_eq!(fixture.store.state().inventory.len(), 1);
}

#[test]
fn writers_and_droppers_of_one_block_at_once_leave_a_whole_replica_or_none() {
    let fixture = fixture();
    std::thread::scope(|scope| {
        for round in 0..4 {
            let store = &fixture.store;
            scope.spawn(move || {
                for _ in 0..50 {
                    if round % 2 == 0 {
                        _ = store.drop_replica(key(1));
                    } else if let Ok(mut partial) = store.begin_write(key(1), 0, 100) {
                        partial.write(0, &bytes(100)).unwrap();
                        let (tree, digest) = crate::testing::tree_of(0, &bytes(100));
                        partial.publish(&tree, &digest, round == 1).unwrap();
                    }
                }
            });
        }
        scope.spawn(|| (0..50).for_each(|_| fixture.store.sync_late()));
    });
    let held = fixture.store.state().inventory.get(key(1)).is_some();
    match fixture.store.verify(key(1), None) {
        Ok(()) => assert!(held),
        Err(StoreError::NotFound { .. }) => assert!(!held),
        Err(other) => panic!("{other}"),
    }
}
