//! Allocating, replacing and committing blocks.

use doldam_proto::FsError;
use doldam_proto::id::BlockId;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::{AllocateBlockCommand, AllocateOutcome, BlockCommit};

use super::view;
use super::world::{
    BLOCK, World, allocate, allocated, commit, commit_blocks, complete, create_command, created,
    delete, dropped, without_why,
};

fn mismatch(block: u64) -> FsError {
    FsError::BlockMismatch { block, generation: 1, why: String::new() }
}

#[test]
fn blocks_may_be_allocated_in_any_order_and_finished_ones_committed_along() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    assert_eq!(world.allocate(1, write.inode_id, 2).block_id, 2);
    let change = Change::AllocateBlock(AllocateBlockCommand {
        inode_id: write.inode_id,
        index: 1,
        commits: vec![commit(1, 0, BLOCK, &[1, 2]), commit(2, 2, 9, &[2])],
        replaces_block_id: 0,
        targets: vec![4],
    });
    let outcome = world.request(1, change).unwrap();
    assert_eq!(outcome.touched_blocks, [1, 2]);
    assert_eq!(outcome.dropped, [dropped(1, 2)], "node 1 did not acknowledge block 2");
    let expected = AllocateOutcome { block_id: 3, generation: 1, targets: vec![4] };
    assert_eq!(allocated(outcome), expected);
    assert_eq!(view::debts(&world.tables, BlockId(0), 9).unwrap(), [BlockId(2)]);
    assert_eq!(view::block(&world.tables, BlockId(3)).unwrap(), None, "not committed");
}

#[test]
fn a_failed_attempt_is_replaced_by_another_block_and_dropped() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    let replace = |replaces_block_id, index| {
        Change::AllocateBlock(AllocateBlockCommand {
            inode_id: write.inode_id,
            index,
            replaces_block_id,
            targets: vec![3],
            ..AllocateBlockCommand::default()
        })
    };
    let refused = |world: &mut World, change| without_why(world.request(1, change).unwrap_err());
    assert_eq!(refused(&mut world, replace(0, 0)), mismatch(1), "allocated already");
    assert_eq!(refused(&mut world, replace(7, 0)), mismatch(1), "another is there");
    let nothing = FsError::BlockMismatch { block: 7, generation: 0, why: String::new() };
    assert_eq!(refused(&mut world, replace(7, 1)), nothing);
    let outcome = world.request(1, replace(1, 0)).unwrap();
    assert_eq!(outcome.dropped, [dropped(1, 1), dropped(2, 1)]);
    assert_eq!(allocated(outcome).block_id, 2);
    let late = commit_blocks(write.inode_id, vec![commit(1, 0, 5, &[1])]);
    assert_eq!(refused(&mut world, late), mismatch(1), "the replaced attempt came to an end");
    let done = commit_blocks(write.inode_id, vec![commit(2, 0, 5, &[3])]);
    world.request(1, done).unwrap();
    assert_eq!(refused(&mut world, replace(2, 0)), mismatch(2), "committed blocks stay");
}

#[test]
fn a_commit_must_fit_its_allocation() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    let other = world.create(2, "/g");
    let good = commit(1, 0, 5, &[1, 2]);
    let wrong =
        |field: &str| FsError::InvalidArgument { field: field.to_owned(), why: String::new() };
    let long = BLOCK + 1;
    for (refusal, commit) in [
        (mismatch(other.block_id), commit(other.block_id, 0, 5, &[1])),
        (mismatch(99), commit(99, 0, 5, &[1])),
        (mismatch(1), BlockCommit { length: long, ..good.clone() }),
        (mismatch(1), BlockCommit { root_value: bytes::Bytes::new(), ..good.clone() }),
        (wrong("length"), BlockCommit { length: 0, ..good.clone() }),
        (wrong("node_ids"), BlockCommit { node_ids: vec![], ..good.clone() }),
        (wrong("node_ids"), BlockCommit { node_ids: vec![1, 5], ..good.clone() }),
        (wrong("node_ids"), BlockCommit { node_ids: vec![1, 1], ..good.clone() }),
        (wrong("chaining_value"), BlockCommit { chaining_value: "x".into(), ..good.clone() }),
        (wrong("root_value"), BlockCommit { root_value: "x".into(), ..good.clone() }),
    ] {
        let found = world.request(1, commit_blocks(write.inode_id, vec![commit.clone()]));
        assert_eq!(without_why(found.unwrap_err()), refusal, "{commit:?}");
    }
    let stale = BlockCommit { generation: 2, ..good.clone() };
    let found = world.request(1, commit_blocks(write.inode_id, vec![stale])).unwrap_err();
    let refusal = FsError::BlockMismatch { block: 1, generation: 2, why: String::new() };
    assert_eq!(without_why(found), refusal);
    let second = world.allocate(1, write.inode_id, 1).block_id;
    let root_later = BlockCommit { root_value: good.root_value, ..commit(second, 1, 5, &[1]) };
    let found = world.request(1, commit_blocks(write.inode_id, vec![root_later])).unwrap_err();
    assert_eq!(without_why(found), mismatch(second));
    let many = vec![commit(1, 0, 5, &[1]); 1001];
    let found = world.request(1, commit_blocks(write.inode_id, many)).unwrap_err();
    assert_eq!(without_why(found), wrong("commits"));
}

#[test]
fn a_block_is_committed_once_and_saying_so_again_changes_nothing() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    let first = commit(1, 0, 5, &[1, 2]);
    world.request(1, commit_blocks(write.inode_id, vec![first.clone(), first.clone()])).unwrap();
    let again = BlockCommit { node_ids: vec![1], ..first.clone() };
    let outcome = world.request(1, commit_blocks(write.inode_id, vec![again])).unwrap();
    assert!(outcome.touched_blocks.is_empty() && outcome.dropped.is_empty());
    let other = BlockCommit { length: 6, ..first };
    let refusal = world.request(1, commit_blocks(write.inode_id, vec![other])).unwrap_err();
    assert_eq!(without_why(refusal), mismatch(1));
}

#[test]
fn only_the_client_that_holds_the_write_goes_on_with_it() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    let inode = write.inode_id;
    let lost = |inode| Err(FsError::LeaseLost { inode });
    for change in [
        allocate(inode, 1),
        commit_blocks(inode, vec![]),
        complete(inode, 0, vec![]),
        Change::Abandon(doldam_proto::wire::AbandonCommand { inode_id: inode }),
    ] {
        assert_eq!(world.request(2, change.clone()), lost(inode));
        assert!(matches!(world.own(change), Err(FsError::InvalidArgument { .. })));
    }
    assert_eq!(world.request(1, allocate(77, 1)), lost(77));
    assert_eq!(world.request(1, allocate(1, 1)), lost(1), "a directory");
    let status = world.write_file("/g", &[1]);
    assert_eq!(world.request(1, allocate(status.inode_id, 1)), lost(status.inode_id), "complete");
}

#[test]
fn a_block_needs_targets_and_an_index_within_the_limit() {
    let mut world = World::new();
    world.mkdir("/d");
    let write = created(world.request(1, Change::Create(create_command("/d/f"))).unwrap());
    let change = |index, targets| {
        Change::AllocateBlock(AllocateBlockCommand {
            inode_id: write.inode_id,
            index,
            targets,
            ..AllocateBlockCommand::default()
        })
    };
    let refusal = FsError::NoDatanodes { path: "/d/f".into(), refusals: vec![] };
    assert_eq!(world.request(1, change(1, vec![])), Err(refusal));
    let refusal = without_why(world.request(1, change(1 << 24, vec![1])).unwrap_err());
    assert_eq!(refusal, FsError::InvalidArgument { field: "index".into(), why: String::new() });
    let refusal = without_why(world.request(1, change(1, vec![9])).unwrap_err());
    assert_eq!(refusal, FsError::InvalidArgument { field: "targets".into(), why: String::new() });
    world.request(1, delete("/d", true)).unwrap();
    let refusal = FsError::NoDatanodes { path: "…/d/f".into(), refusals: vec![] };
    assert_eq!(world.request(1, change(1, vec![])), Err(refusal));
}
