//! Blocks that are recovered and finished by order; and whatever is done with an open block, a stop at every step.

use doldam_proto::id::Generation;

use super::*;
use crate::engine::replica::ReplicaState;
use crate::testing::open::{
    Fixture, at_every_step, events, finish, fixture, key, read, recover, recover_from,
    recover_order, restarted, take_over, writer,
};
use crate::testing::{Fault, FaultyDisk, Operation, bytes, open_store, store_block, tree_of};

const GROUP: usize = GROUP_BYTES as usize;

#[test]
fn a_block_is_recovered_and_its_start_finished_also_over_restarts() {
    for length in [1, GROUP - 1, GROUP, GROUP + 1, 3 * GROUP] {
        let content = bytes(length);
        for restarts in 0..3 {
            let mut fixture = fixture();
            drop(writer(&fixture.store, key(2), &content));
            if restarts > 0 {
                fixture = restarted(fixture);
            }
            let found = recover(&fixture.store, 5).unwrap();
            let tree = tree_of(0, &content).0;
            assert_eq!((found.written_under, found.length), (key(2), length as u64));
            assert_eq!(found.groups, tree.groups());
            let first = tree_of(0, &content[..length.min(GROUP)]).1;
            assert_eq!(found.first_root, first.root_value);
            if restarts > 1 {
                fixture = restarted(fixture);
            }
            // Fenced, and remembered.
            let late = fixture.store.begin_take_over(key(4)).err().unwrap();
            assert!(matches!(late, StoreError::OtherGeneration { .. }), "{late}");
            assert_eq!(recover(&fixture.store, 5).unwrap().groups, tree.groups());

            let kept = &content[..length - length / 3];
            finish(&fixture.store, 5, kept).unwrap();
            let events = events(&fixture.store);
            let (length, value) = (kept.len() as u64, tree_of(0, kept).1.chaining_value);
            let stored = (key(5), ReplicaEvent::Stored { length, value });
            assert_eq!(events.last(), Some(&stored));
            fixture.store.verify(key(5), None).unwrap();
            let replica = fixture.store.state().inventory.get(key(5)).unwrap();
            assert_eq!((replica.length, replica.state), (length, ReplicaState::Final));
            // Asked again, it says what it is.
            assert_eq!(recover(&fixture.store, 5).unwrap().length, length);
        }
    }
}

#[test]
fn a_replica_that_was_to_be_appended_to_is_recovered_and_finished_as_it_is() {
    let fixture = fixture();
    let store = &fixture.store;
    let content = bytes(GROUP + 5);
    store_block(store, key(1), &content, true);
    let found = recover(store, 3).unwrap();
    assert_eq!((found.written_under, found.length), (key(1), content.len() as u64));
    finish(store, 3, &content).unwrap();
    store.verify(key(3), None).unwrap();
    store.verify(key(1), None).unwrap();
    let nothing = store.begin_recovery(ReplicaKey::new(9, 2)).unwrap();
    assert_eq!(store.recover(&nothing, recover_order(2)).unwrap().copy, None);
}

#[test]
fn of_several_copies_one_is_told_of_that_has_what_readers_see_or_what_is_on_stable_storage() {
    let fixture = fixture();
    let store = &fixture.store;
    let content = content();
    let torn = [&content[..GROUP + 5], &[0; 50]].concat();
    // A power loss left of what was written beside the replica less than the replica has.
    store_block(store, key(1), &content, true);
    drop(writer(store, key(2), &torn));
    let told = |generation, shown, floor| {
        let found = recover_from(store, generation, shown, floor).unwrap();
        let copy = found.copy.unwrap();
        (copy.length, copy.written_under, found.has_shown, found.has_floor)
    };
    let (long, short) = (content.len() as u64, torn.len() as u64);
    assert_eq!(told(3, None, None), (short, key(2), false, false), "the newest");
    assert_eq!(told(4, Some(&content), None), (long, key(1), true, false));
    assert_eq!(told(5, Some(&torn), Some(&content)), (short, key(2), true, false));
    let start = &content[..GROUP + 7];
    assert_eq!(told(6, Some(start), Some(&content[..9])), (long, key(1), true, true));
    let [lost, other] = [[&content[..], &[1]].concat(), bytes(4 * GROUP)];
    assert_eq!(told(7, Some(&lost), Some(start)), (long, key(1), false, true));
    assert_eq!(told(8, Some(&lost), Some(&other)), (short, key(2), false, false));
    // Whichever was told of, what was open has the last order's generation, and nobody goes on with it.
    let late = store.begin_take_over(key(7)).err().unwrap();
    assert!(matches!(late, StoreError::OtherGeneration { found: Generation(8), .. }), "{late}");
    assert!(restarted(fixture).store.begin_take_over(key(7)).is_err());
}

#[test]
fn a_replica_that_lost_its_bytes_with_the_power_does_not_have_what_readers_see() {
    let Fixture { dir, store, .. } = fixture();
    let content = bytes(2 * GROUP);
    store_block(&store, key(1), &content, false);
    // Its sidecar reached the disk, and its bytes did not.
    let data = dir.path().join("blocks/2b/00000000000001ab_1_131072.data");
    std::fs::write(data, vec![0; 2 * GROUP]).unwrap();
    let failed = recover_from(&store, 2, Some(&content), None).unwrap_err();
    assert!(matches!(failed, StoreError::Damaged { .. }), "{failed}");
    let found = recover_from(&store, 3, Some(&content), None).unwrap();
    assert_eq!((found.copy, found.has_shown), (None, false), "it is in quarantine now");
}

#[test]
fn that_there_is_nothing_is_not_said_while_a_data_folder_cannot_be_looked_at() {
    let fixture = fixture();
    let store = &fixture.store;
    let content = content();
    assert_eq!(recover_from(store, 2, Some(&content), None).unwrap().copy, None);
    drop(writer(store, key(3), &content));
    store.volumes()[0].give_up_silent(std::time::Duration::from_secs(1));
    let more = [&content[..], &[1]].concat();
    for shown in [&content, &more] {
        let failed = recover_from(store, 4, Some(shown), None).unwrap_err();
        assert!(matches!(failed, StoreError::Disk { .. }), "{failed}");
    }
    let other = ReplicaKey::new(9, 2);
    let failed = store.recover(&store.begin_recovery(other).unwrap(), recover_order(2));
    assert!(matches!(failed, Err(StoreError::Disk { .. })), "{failed:?}");
}

#[test]
fn that_there_is_nothing_is_not_said_of_a_block_that_could_not_be_taken_in() {
    let fixture = fixture();
    drop(writer(&fixture.store, key(1), &content()));
    let Fixture { dir, store, .. } = fixture;
    drop(store);
    let disk = FaultyDisk::default();
    disk.fail(Fault { operation: Operation::Open, path: "writing/", after: 0, errno: 5 });
    let store = open_store(disk.handle(), &[dir.path()]);
    assert_eq!(store.state().held(key(1)), []);
    let failed = recover_from(&store, 2, Some(&content()), None).unwrap_err();
    assert!(matches!(failed, StoreError::Disk { .. }), "{failed}");
}

#[test]
fn what_is_not_what_the_order_says_is_not_finished_and_stays() {
    let fixture = fixture();
    let store = &fixture.store;
    let content = bytes(GROUP + 5);
    drop(writer(store, key(1), &content));
    recover(store, 3).unwrap();
    assert!(matches!(finish(store, 3, &[1; 50]), Err(StoreError::OtherBytes { .. })));
    assert!(matches!(finish(store, 3, &bytes(GROUP + 6)), Err(StoreError::NotFound { .. })));
    assert_eq!(recover(store, 3).unwrap().length, content.len() as u64);
    finish(store, 3, &content).unwrap();
}

fn content() -> Vec<u8> {
    bytes(2 * GROUP + 100)
}

/// Whatever step a stop falls on, the first `length` bytes are there, to be gone on with or as a replica.
fn still_has(fixture: &Fixture, content: &[u8], step: u64) {
    fixture.store.sync_late();
    let held = fixture.store.state().held(key(9));
    let length = content.len();
    assert!(held.iter().any(|it| it.length >= length as u64), "{step}: {held:?}");
    assert!(read(&fixture.store, key(9), length) == content, "{step}");
    let (partial, _) = take_over(&fixture.store, key(9), content).unwrap();
    let (tree, digest) = tree_of(0, content);
    partial.publish(&tree, &digest, true).unwrap();
    fixture.store.verify(key(9), None).unwrap();
}

#[test]
fn synced_bytes_survive_a_stop_at_every_step_of_publishing() {
    let content = content();
    for sync in [false, true] {
        let setup = |fixture: &Fixture| {
            let partial = writer(&fixture.store, key(1), &content);
            partial.file().sync().unwrap();
            drop(partial);
            drop(take_over(&fixture.store, key(2), &content).unwrap());
        };
        let work = |fixture: &Fixture| {
            let Ok((partial, _)) = take_over(&fixture.store, key(3), &content) else { return };
            let (tree, digest) = tree_of(0, &content);
            _ = partial.publish(&tree, &digest, sync);
        };
        at_every_step(setup, work, |fixture, step| still_has(&fixture, &content, step));
    }
}

#[test]
fn bytes_survive_a_stop_at_every_step_of_a_sync() {
    let content = content();
    let setup = |fixture: &Fixture| drop(writer(&fixture.store, key(1), &content));
    let work = |fixture: &Fixture| {
        let Ok((mut partial, _)) = take_over(&fixture.store, key(2), &content) else { return };
        _ = partial.file().sync();
        if partial.write(content.len() as u64, b"more").is_ok() {
            _ = partial.file().sync();
        }
    };
    at_every_step(setup, work, |fixture, step| still_has(&fixture, &content, step));
}

/// What is there is gone on with behind its first `there` bytes, synced and published.
fn check_going_on(setup: impl Fn(&Fixture), there: usize) {
    let content = content();
    let work = |fixture: &Fixture| {
        let taken = take_over(&fixture.store, key(2), &content[..there]);
        let Ok((mut partial, _)) = taken else { return };
        _ = partial.write(there as u64, &[5; 100]);
        _ = partial.file().sync();
        let whole = [&content[..there], &[5; 100]].concat();
        let (tree, digest) = tree_of(0, &whole);
        partial.advance(&tree, there as u64);
        _ = partial.publish(&tree, &digest, true);
    };
    at_every_step(setup, work, |fixture, step| {
        if fixture.store.find(key(1)).is_ok() {
            fixture.store.verify(key(1), None).unwrap();
        }
        still_has(&fixture, &content[..there], step);
    });
}

#[test]
fn bytes_survive_a_stop_at_every_step_of_cutting_what_was_left_and_going_on() {
    check_going_on(|fixture| drop(writer(&fixture.store, key(1), &content())), GROUP + 7);
}

#[test]
fn bytes_survive_a_stop_at_every_step_of_an_append() {
    let replica = |fixture: &Fixture| store_block(&fixture.store, key(1), &content(), true);
    check_going_on(replica, content().len());
}

#[test]
fn bytes_survive_a_stop_at_every_step_of_a_truncation() {
    let replica = |fixture: &Fixture| store_block(&fixture.store, key(1), &content(), true);
    check_going_on(replica, GROUP + 7);
}

#[test]
fn bytes_survive_a_stop_at_every_step_of_recovering_and_finishing() {
    let content = content();
    for was_cut in [false, true] {
        let setup = |fixture: &Fixture| {
            if was_cut {
                // Of a longer replica, so that to make a shorter one of it takes a copy.
                let longer = [&content[..], &[1; 9]].concat();
                store_block(&fixture.store, key(1), &longer, true);
                drop(take_over(&fixture.store, key(2), &content).unwrap());
            } else {
                drop(writer(&fixture.store, key(2), &content));
            }
        };
        let work = |fixture: &Fixture| {
            let Ok(take) = fixture.store.begin_recovery(key(3)) else { return };
            let recovered = fixture.store.recover(&take, recover_order(3));
            drop(take);
            if recovered.is_ok() {
                _ = finish(&fixture.store, 3, &content[..GROUP + 5]);
            }
        };
        at_every_step(setup, work, |fixture, step| {
            fixture.store.sync_late();
            // The same orders come again, and end as they would have.
            let found = recover(&fixture.store, 3).unwrap();
            assert!(found.length >= GROUP as u64 + 5, "{step}");
            assert!(found.written_under.generation >= key(2).generation, "{step}");
            if fixture.store.find(key(3)).is_err() {
                finish(&fixture.store, 3, &content[..GROUP + 5]).unwrap();
            }
            fixture.store.verify(key(3), None).unwrap();
            assert!(read(&fixture.store, key(3), GROUP + 5) == content[..GROUP + 5], "{step}");
        });
    }
}
