//! New generations for a block whose pipeline broke.

use doldam_proto::FsError;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{AllocateBlockCommand, DroppedReplica, RecoverBlockOutcome};

use super::view::Standing;
use super::world::{
    World, commit, commit_blocks, commit_of, complete, dropped, flush, recover, without_why,
};

fn of(generation: u64, node_id: u32) -> DroppedReplica {
    DroppedReplica { generation, ..dropped(node_id, 1) }
}

#[test]
fn a_broken_pipeline_goes_on_under_the_next_generation_and_who_left_it_drops_its_part() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    let outcome = world.request(1, recover(write.inode_id, 1, 1, 500, (1, &[2, 3]))).unwrap();
    assert_eq!(outcome.dropped, [of(1, 1)]);
    let expected = RecoverBlockOutcome {
        generation: 2,
        index: 0,
        length: 500,
        holders: vec![2],
        targets: vec![2, 3],
    };
    assert_eq!(outcome.kind, Some(Kind::RecoverBlock(expected)));
    assert_eq!(world.standing(1, 1, 1, 0), Standing::Unowned);
    assert_eq!(world.standing(2, 1, 1, 0), Standing::BeingWritten, "to be taken over");
    assert_eq!(world.standing(3, 1, 2, 0), Standing::BeingWritten);
    assert_eq!(world.standing(3, 1, 3, 0), Standing::Contradiction);

    let late = commit_blocks(write.inode_id, vec![commit(1, 0, 600, &[1, 2])]);
    let stale = FsError::BlockMismatch { block: 1, generation: 1, why: String::new() };
    assert_eq!(without_why(world.request(1, late).unwrap_err()), stale);
    // The writer did not hear of generation 2.
    world.request(1, recover(write.inode_id, 1, 1, 500, (1, &[2, 4]))).unwrap();
    let done = vec![commit_of(3, 1, 0, 600, &[2, 4])];
    let outcome = world.request(1, complete(write.inode_id, 600, done)).unwrap();
    let older = [of(2, 2), of(1, 2), of(2, 4), of(1, 4)];
    assert_eq!(outcome.dropped, older, "a replica that was taken over from may be there still");
    assert_eq!(world.shown("/f"), [(3, 600, vec![2, 4])]);
}

#[test]
fn what_readers_see_stays_where_it_is_until_others_have_more() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    world.request(1, flush(write.inode_id, 400, Some(commit(1, 0, 400, &[1, 2])))).unwrap();
    let outcome = world.request(1, recover(write.inode_id, 1, 1, 500, (1, &[2, 3]))).unwrap();
    assert_eq!(outcome.dropped, [], "node 1 has what readers see");
    assert_eq!(world.standing(1, 1, 1, 0), Standing::BeingWritten);
    assert_eq!(world.shown("/f"), [(1, 400, vec![1, 2])]);
    let open = commit_of(2, 1, 0, 700, &[2, 3]);
    let outcome = world.request(1, flush(write.inode_id, 700, Some(open))).unwrap();
    assert_eq!(outcome.dropped, [of(1, 1)]);
    assert_eq!(world.shown("/f"), [(2, 700, vec![2, 3])]);

    // All of them are gone: what was flushed is where any further attempt starts.
    let outcome = world.request(1, recover(write.inode_id, 1, 2, 700, (1, &[3, 4]))).unwrap();
    assert_eq!(outcome.dropped, []);
    let done = vec![commit_of(3, 1, 0, 800, &[3, 4])];
    let outcome = world.request(1, complete(write.inode_id, 800, done)).unwrap();
    assert!(outcome.dropped.contains(&of(2, 2)), "{:?}", outcome.dropped);
}

#[test]
fn a_block_is_gone_on_with_only_where_it_was_written_and_not_before_what_readers_see() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    world.request(1, flush(write.inode_id, 400, Some(commit(1, 0, 400, &[1, 2])))).unwrap();
    let inode = write.inode_id;
    let wrong =
        |field: &str| FsError::InvalidArgument { field: field.to_owned(), why: String::new() };
    let mismatch =
        |block, generation| FsError::BlockMismatch { block, generation, why: String::new() };
    let mut refused = |change| without_why(world.request(1, change).unwrap_err());
    assert_eq!(refused(recover(inode, 1, 1, 399, (1, &[1]))), wrong("length"));
    assert_eq!(refused(recover(inode, 1, 1, 1 << 20, (1, &[1]))), wrong("length"));
    assert_eq!(refused(recover(inode, 1, 1, 400, (0, &[1]))), wrong("holders"));
    assert_eq!(refused(recover(inode, 1, 1, 400, (1, &[3]))), wrong("holders"));
    assert_eq!(refused(recover(inode, 1, 1, 400, (1, &[1, 9]))), wrong("targets"));
    assert_eq!(refused(recover(inode, 1, 2, 400, (1, &[1]))), mismatch(1, 1));
    assert_eq!(refused(recover(inode, 7, 1, 400, (1, &[1]))), mismatch(7, 1));
    let nobody = FsError::NoDatanodes { path: "/f".to_owned(), refusals: vec![] };
    assert_eq!(refused(recover(inode, 1, 1, 400, (0, &[]))), nobody);
    let again = Change::AllocateBlock(AllocateBlockCommand {
        inode_id: inode,
        replaces_block_id: 1,
        targets: vec![3],
        ..AllocateBlockCommand::default()
    });
    assert_eq!(refused(again), mismatch(1, 1), "readers see a part of it");
    world.request(1, commit_blocks(inode, vec![commit(1, 0, 400, &[1])])).unwrap();
    let finished = world.request(1, recover(inode, 1, 1, 400, (1, &[1]))).unwrap_err();
    assert_eq!(without_why(finished), mismatch(1, 1));
}

#[test]
fn a_block_of_which_nothing_counts_begins_anew() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    let outcome = world.request(1, recover(write.inode_id, 1, 1, 0, (0, &[3, 4]))).unwrap();
    assert_eq!(outcome.dropped, [of(1, 1), of(1, 2)]);
    world.request(1, complete(write.inode_id, 9, vec![commit_of(2, 1, 0, 9, &[3])])).unwrap();
    assert_eq!(world.shown("/f"), [(2, 9, vec![3])]);
}
