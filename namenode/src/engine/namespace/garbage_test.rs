//! Collecting in slices.

use doldam_proto::wire::GarbageOutcome;

use super::view;
use super::world::{BLOCK, World, commit, commit_blocks, delete};

/// A tree with files, empty directories, and writes with and without committed blocks.
fn grown() -> World {
    let mut world = World::new();
    world.mkdir("/t/empty");
    world.mkdir("/t/deep/er");
    world.write_file("/t/f", &[BLOCK, BLOCK, BLOCK, 1]);
    world.write_file("/t/deep/er/g", &[2]);
    let write = world.create(1, "/t/deep/w");
    let commits = vec![commit(write.block_id, 0, 7, &[3])];
    world.request(1, commit_blocks(write.inode_id, commits)).unwrap();
    world.create(2, "/t/v");
    world.create(2, "/t/w");
    world
}

#[test]
fn slices_of_any_size_leave_nothing_behind() {
    for slice in [1, 2, 3, 5, 100] {
        let mut world = grown();
        world.request(3, delete("/t", true)).unwrap();
        world.collect_all(slice);
        world.assert_empty();
        let totals = view::totals(&world.tables).unwrap();
        assert_eq!(totals, view::Totals { directories: 1, ..view::Totals::default() });
    }
}

#[test]
fn a_slice_does_no_more_than_it_is_allowed_and_says_whether_more_is_left() {
    let mut world = grown();
    assert_eq!(world.collect(5).0, GarbageOutcome { more: false, items: 0 });
    world.request(3, delete("/t/f", false)).unwrap();
    let (slice, dropped) = world.collect(3);
    assert_eq!((slice, dropped.len()), (GarbageOutcome { more: true, items: 3 }, 6));
    let (slice, dropped) = world.collect(3);
    assert_eq!((slice, dropped.len()), (GarbageOutcome { more: false, items: 2 }, 2));
    world.request(3, delete("/t", true)).unwrap();
    let mut items = 0;
    loop {
        let (slice, _) = world.collect(0);
        items += slice.items;
        assert!(slice.items <= 1);
        if !slice.more {
            break;
        }
    }
    // 3 directories below /t and /t itself: 3 names, 4 inodes. 1 file: name, block, inode. 3
    // writes: the same.
    assert_eq!(items, 7 + 4 * 3);
}

#[test]
fn nothing_to_collect_changes_nothing() {
    let world = World::new();
    let change = doldam_proto::wire::CollectGarbageCommand { max_items: 9 };
    let command = doldam_proto::wire::Command {
        time_ms: 9,
        request: None,
        change: Some(doldam_proto::wire::command::Change::CollectGarbage(change)),
    };
    assert!(super::apply(&world.tables, &command).unwrap().changes.is_empty());
}
