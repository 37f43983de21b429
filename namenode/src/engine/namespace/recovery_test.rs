//! What a visible file becomes when its writer is gone.

use doldam_proto::FsError;
use doldam_proto::id::{InodeId, NodeId};
use doldam_proto::wire::command::Change;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{
    AbandonCommand, BeginRecoveryCommand, BlockCommit, CreateCommand, ExpireLeaseCommand,
    FinishRecoveryCommand, Outcome, RecoveryOutcome,
};

use super::view::{self, Standing};
use super::world::{
    BLOCK, World, append_command, client_id, commit, commit_of, complete, create_command, delete,
    flush, without_why,
};

fn begin(inode_id: u64) -> Change {
    Change::BeginRecovery(BeginRecoveryCommand { inode_id })
}

fn finish(inode_id: u64, block: BlockCommit) -> Change {
    Change::FinishRecovery(FinishRecoveryCommand { inode_id, block: Some(block) })
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
