//! What a visible file becomes when its writer is gone.

use doldam_proto::FsError;
use doldam_proto::id::{InodeId, NodeId};
use doldam_proto::wire::command::Change;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{
    AbandonCommand, AppendCommand, BeginRecoveryCommand, BlockCommit, CreateCommand,
    ExpireLeaseCommand, FinishRecoveryCommand, Outcome, RecoveryOutcome,
};

use super::view::{self, Floor, Standing};
use super::world::{
    BLOCK, World, append_command, client_id, commit, commit_of, complete, create_command, delete,
    flush, sync, without_why,
};

fn begin(inode_id: u64) -> Change {
    Change::BeginRecovery(BeginRecoveryCommand { inode_id })
}

fn finish(inode_id: u64, block: BlockCommit) -> Change {
    let block = Some(block);
    Change::FinishRecovery(FinishRecoveryCommand { inode_id, block, ..Default::default() })
}

fn expire(client: u8) -> Change {
    Change::ExpireLease(ExpireLeaseCommand { client_id: client_id(client).to_bytes() })
}

fn begun(outcome: Outcome) -> RecoveryOutcome {
    match outcome.kind {
        Some(Kind::Recovery(begun)) => begun,
        other => panic!("{other:?}"),
    }
}

/// A file of a full block and 9 visible bytes of the next one, being written by client 1.
fn flushed(world: &mut World) -> u64 {
    let write = world.create(1, "/f");
    world.allocate(1, write.inode_id, 1);
    let commits = vec![commit(1, 0, BLOCK, &[1, 2])];
    world.request(1, super::world::commit_blocks(write.inode_id, commits)).unwrap();
    world.request(1, flush(write.inode_id, BLOCK + 9, Some(commit(2, 1, 9, &[1, 2])))).unwrap();
    write.inode_id
}

#[test]
fn a_silent_writers_file_is_the_namenodes_until_it_is_known_what_it_ends_with() {
    let mut world = World::new();
    let inode = flushed(&mut world);
    world.allocate(1, inode, 2);
    world.own(expire(1)).unwrap();
    let lost = world.request(1, complete(inode, BLOCK + 9, vec![])).unwrap_err();
    assert_eq!(lost, FsError::LeaseLost { inode });
    assert_eq!(view::in_recovery(&world.tables, InodeId(0), 9).unwrap(), [InodeId(inode)]);
    assert_eq!(view::in_recovery(&world.tables, InodeId(inode), 9).unwrap(), []);
    assert_eq!(view::lease_holders(&world.tables, None, 9).unwrap(), [], "it never ends");
    let what = view::recovering(&world.tables, InodeId(inode)).unwrap().unwrap();
    assert_eq!((what.block.0, what.generation.0, what.length), (2, 2, 9));
    assert_eq!((what.file_offset, what.nodes), (BLOCK, vec![NodeId(1), NodeId(2)]));
    assert_eq!(world.standing(1, 3, 1, 0), Standing::Unowned, "nobody saw anything of block 3");
    assert_eq!(world.standing(1, 2, 1, 0), Standing::BeingWritten, "what is to be found out");
    let status = world.stat("/f");
    assert_eq!((status.length, status.being_written), (BLOCK + 9, true));
    let command = CreateCommand { overwrite: true, take_over: true, ..create_command("/f") };
    let held = world.request(2, Change::Create(command)).unwrap_err();
    assert!(matches!(held, FsError::LeaseHeld { .. }));

    // A further attempt, whose generation nobody had before either.
    assert_eq!(
        begun(world.own(begin(inode)).unwrap()),
        RecoveryOutcome { block_id: 2, generation: 3 }
    );
    let early = world.own(finish(inode, commit_of(2, 2, 1, 20, &[1]))).unwrap_err();
    assert!(matches!(early, FsError::BlockMismatch { block: 2, .. }));
    let short = world.own(finish(inode, commit_of(3, 2, 1, 8, &[1]))).unwrap_err();
    assert_eq!(
        without_why(short),
        FsError::BlockMismatch { block: 2, generation: 3, why: String::new() }
    );
    world.own(finish(inode, commit_of(3, 2, 1, 20, &[1]))).unwrap();
    assert_eq!(world.shown("/f"), [(1, BLOCK, vec![1, 2]), (3, 20, vec![1])]);
    assert!(!world.stat("/f").being_written);
    let again = world.own(finish(inode, commit_of(3, 2, 1, 20, &[1]))).unwrap_err();
    assert_eq!(again, FsError::LeaseLost { inode });
    assert_eq!(begun(world.own(begin(inode)).unwrap()), RecoveryOutcome::default());
    world.request(1, delete("/f", false)).unwrap();
    world.collect_all(9);
    world.assert_empty();
}

#[test]
fn a_file_whose_visible_blocks_are_finished_is_closed_at_once() {
    let mut world = World::new();
    let inode = flushed(&mut world);
    // It finishes the block that was flushed, and the one after the next.
    world.allocate(1, inode, 2);
    world.allocate(1, inode, 3);
    let commits = vec![commit(2, 1, BLOCK, &[1, 2]), commit(4, 3, BLOCK, &[1, 2])];
    world.request(1, super::world::commit_blocks(inode, commits)).unwrap();
    world.request(1, Change::Abandon(AbandonCommand { inode_id: inode })).unwrap();
    let status = world.stat("/f");
    assert_eq!((status.length, status.being_written), (2 * BLOCK, false));
    assert_eq!(view::in_recovery(&world.tables, InodeId(0), 9).unwrap(), []);
    assert_eq!(world.standing(1, 4, 1, BLOCK), Standing::Unowned, "there is a hole before it");
}

#[test]
fn an_append_that_was_flushed_may_end_with_what_the_older_replicas_have_too() {
    let mut world = World::new();
    let inode = world.write_file("/f", &[500]).inode_id;
    world.request(2, Change::Append(append_command("/f", 1, 1))).unwrap();
    world.request(2, flush(inode, 600, Some(commit_of(2, 1, 0, 600, &[1, 3])))).unwrap();
    assert_eq!(begun(world.own(begin(inode)).unwrap()).generation, 3);
    let what = view::recovering(&world.tables, InodeId(inode)).unwrap().unwrap();
    assert_eq!((what.length, what.nodes), (600, vec![NodeId(1), NodeId(3), NodeId(2)]));
    assert_eq!(world.standing(2, 1, 1, 500), Standing::Good, "until there is something newer");
    let outcome = world.own(finish(inode, commit_of(3, 1, 0, 600, &[3]))).unwrap();
    let generations: Vec<(u32, u64)> =
        outcome.dropped.iter().map(|each| (each.node_id, each.generation)).collect();
    for old in [(1, 1), (2, 1), (1, 2), (3, 2)] {
        assert!(generations.contains(&old), "{generations:?}");
    }
    assert_eq!(world.shown("/f"), [(3, 600, vec![3])]);
}

#[test]
fn a_file_that_is_deleted_while_it_is_recovered_is_gone() {
    let mut world = World::new();
    let inode = flushed(&mut world);
    world.own(begin(inode)).unwrap();
    world.request(2, delete("/f", false)).unwrap();
    assert_eq!(view::in_recovery(&world.tables, InodeId(0), 9).unwrap(), []);
    assert_eq!(view::recovering(&world.tables, InodeId(inode)).unwrap(), None);
    let late = world.own(finish(inode, commit_of(2, 2, 1, 9, &[1]))).unwrap_err();
    assert_eq!(late, FsError::LeaseLost { inode });
    world.collect_all(1);
    world.assert_empty();
}

#[test]
fn only_visible_files_are_recovered_and_nobody_is_the_namenode() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    assert!(matches!(world.own(begin(write.inode_id)), Err(FsError::InvalidArgument { .. })));
    let zeros = Change::ExpireLease(ExpireLeaseCommand { client_id: vec![0; 16].into() });
    assert!(matches!(world.own(zeros), Err(FsError::InvalidArgument { .. })));
    let inode = flushed_as(&mut world, "/g");
    world.own(begin(inode)).unwrap();
    let refused = world.request(0, complete(inode, 9, vec![])).unwrap_err();
    assert!(
        matches!(refused, FsError::InvalidArgument { field, .. } if field == "request.client_id")
    );
}

fn flushed_as(world: &mut World, path: &str) -> u64 {
    let write = world.create(1, path);
    let open = Some(commit(write.block_id, 0, 9, &[1, 2]));
    world.request(1, flush(write.inode_id, 9, open)).unwrap();
    write.inode_id
}

fn lose(inode_id: u64, generation: u64, block: Option<BlockCommit>) -> Change {
    let lost = true;
    Change::FinishRecovery(FinishRecoveryCommand { inode_id, block, lost, generation })
}

fn refused(world: &mut World, change: Change) -> FsError {
    without_why(world.own(change).unwrap_err())
}

fn mismatch(block: u64, generation: u64) -> FsError {
    FsError::BlockMismatch { block, generation, why: String::new() }
}

#[test]
fn a_block_of_which_nothing_is_on_stable_storage_may_be_lost_whole() {
    let mut world = World::new();
    let inode = flushed(&mut world);
    world.own(begin(inode)).unwrap();
    let what = view::recovering(&world.tables, InodeId(inode)).unwrap().unwrap();
    assert_eq!(what.floor, Floor::Nothing);
    assert_eq!(what.must_answer, [NodeId(1), NodeId(2)]);
    let not_lost = Change::FinishRecovery(FinishRecoveryCommand {
        inode_id: inode,
        generation: 2,
        ..Default::default()
    });
    assert!(matches!(refused(&mut world, not_lost), FsError::InvalidArgument { .. }));
    assert_eq!(refused(&mut world, lose(inode, 1, None)), mismatch(2, 2), "an older attempt");
    let outcome = world.own(lose(inode, 2, None)).unwrap();
    let dropped: Vec<(u32, u64)> =
        outcome.dropped.iter().map(|each| (each.node_id, each.generation)).collect();
    assert_eq!(dropped, [(1, 2), (1, 1), (2, 2), (2, 1)]);
    assert_eq!(world.shown("/f"), [(1, BLOCK, vec![1, 2])]);
    assert!(!world.stat("/f").being_written);

    let inode = flushed_as(&mut world, "/empty");
    world.own(begin(inode)).unwrap();
    world.own(lose(inode, 2, None)).unwrap();
    assert_eq!(world.shown("/empty"), []);
    let status = world.stat("/empty");
    assert_eq!(status.digest.map(|digest| digest.to_string()), Some(EMPTY.to_owned()));
}

/// What `b3sum` says of no bytes.
const EMPTY: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

#[test]
fn what_is_on_stable_storage_is_never_given_up() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    let inode = write.inode_id;
    world.request(1, sync(inode, 9, commit(1, 0, 9, &[1, 2]))).unwrap();
    world.request(1, flush(inode, 20, Some(commit(1, 0, 20, &[1, 2])))).unwrap();
    world.own(begin(inode)).unwrap();
    let what = view::recovering(&world.tables, InodeId(inode)).unwrap().unwrap();
    assert!(matches!(what.floor, Floor::Synced { length: 9, .. }), "{what:?}");
    assert_eq!(refused(&mut world, lose(inode, 2, None)), mismatch(1, 2));
    let part = |length| Some(commit_of(2, 1, 0, length, &[2]));
    assert_eq!(refused(&mut world, lose(inode, 2, part(8))), mismatch(1, 2));
    let other = BlockCommit { chaining_value: vec![7; 32].into(), ..part(9).unwrap() };
    assert_eq!(refused(&mut world, lose(inode, 2, Some(other))), mismatch(1, 2));
    assert_eq!(refused(&mut world, finish(inode, part(9).unwrap())), mismatch(1, 2), "not lost");
    let outcome = world.own(lose(inode, 2, part(9))).unwrap();
    assert_eq!(outcome.late_commits, [1], "nobody who told of it looks at its holders");
    assert_eq!(world.shown("/f"), [(2, 9, vec![2])]);
    assert_eq!(world.standing(1, 1, 1, 0), Standing::Unowned);
}

#[test]
fn an_append_that_is_lost_leaves_what_was_committed_and_a_cut_what_it_left() {
    let mut world = World::new();
    let inode = world.write_file("/f", &[500]).inode_id;
    world.request(2, Change::Append(append_command("/f", 1, 1))).unwrap();
    world.request(2, flush(inode, 600, Some(commit_of(2, 1, 0, 600, &[1, 3])))).unwrap();
    world.own(begin(inode)).unwrap();
    let what = view::recovering(&world.tables, InodeId(inode)).unwrap().unwrap();
    assert!(matches!(what.floor, Floor::Committed { length: 500, .. }), "{what:?}");
    assert_eq!(what.nodes, [NodeId(1), NodeId(3), NodeId(2)]);
    assert_eq!(what.must_answer, [NodeId(1), NodeId(3)], "2 has but what was committed");
    assert_eq!(
        refused(&mut world, lose(inode, 3, Some(commit_of(3, 1, 0, 499, &[1])))),
        mismatch(1, 3)
    );
    world.own(lose(inode, 3, None)).unwrap();
    assert_eq!(world.shown("/f"), [(1, 500, vec![1, 2])]);
    assert_eq!(world.standing(3, 1, 2, 0), Standing::Unowned);
    assert_eq!(world.standing(1, 1, 1, 500), Standing::Good);

    let cut = AppendCommand { truncate: true, truncate_to: 400, ..append_command("/f", 1, 1) };
    world.request(2, Change::Append(cut)).unwrap();
    world.request(2, flush(inode, 450, Some(commit_of(4, 1, 0, 450, &[1, 3])))).unwrap();
    world.own(begin(inode)).unwrap();
    let what = view::recovering(&world.tables, InodeId(inode)).unwrap().unwrap();
    assert_eq!(what.floor, Floor::Cut { length: 400 });
    assert_eq!(what.must_answer, [NodeId(1), NodeId(3), NodeId(2)], "2 has 500 bytes");
    assert_eq!(refused(&mut world, lose(inode, 5, None)), mismatch(1, 1), "what was cut is gone");
    let part = |length| Some(commit_of(5, 1, 0, length, &[1]));
    assert_eq!(refused(&mut world, lose(inode, 5, part(399))), mismatch(1, 5));
    world.own(lose(inode, 5, part(400))).unwrap();
    assert_eq!(world.shown("/f"), [(5, 400, vec![1])]);
}
