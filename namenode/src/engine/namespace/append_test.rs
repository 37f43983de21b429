//! Writing on at the end of a file, or behind a cut; and that nothing has happened if it comes to nothing.

use doldam_proto::FsError;
use doldam_proto::file::FileStatus;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::{
    AbandonCommand, AddReplicaCommand, AppendCommand, CreateCommand, DroppedReplica, FlushCommand,
    MarkBadReplicaCommand,
};

use super::view::{self, Standing};
use super::world::{
    BLOCK, World, append_command, appended, commit, commit_blocks, commit_of, complete,
    create_command, delete, dropped, flush, path, recover, without_why,
};

/// A closed file.
fn written(world: &mut World, path: &str, lengths: &[u64]) -> FileStatus {
    world.write_file(path, lengths);
    world.stat(path)
}

fn append(path: &str, tail: u64) -> Change {
    Change::Append(append_command(path, tail, 1))
}

fn cut(path: &str, tail: u64, length: u64) -> Change {
    let command = append_command(path, tail, 1);
    Change::Append(AppendCommand { truncate: true, truncate_to: length, ..command })
}

fn abandon(inode_id: u64) -> Change {
    Change::Abandon(AbandonCommand { inode_id })
}

fn of(generation: u64, node_id: u32) -> DroppedReplica {
    DroppedReplica { generation, ..dropped(node_id, 1) }
}

#[test]
fn an_append_goes_on_beside_the_replicas_that_readers_see() {
    let mut world = World::new();
    let file = written(&mut world, "/f", &[500]);
    let opened = appended(world.request(2, append("/f", 1)).unwrap());
    assert_eq!((opened.length, opened.block_id, opened.generation), (500, 1, 2));
    assert_eq!((opened.targets, opened.holders), (vec![1, 3], vec![1]));
    let status = world.stat("/f");
    assert_eq!(status, FileStatus { being_written: true, ..file });
    assert_eq!(opened.status, Some(status.into()));
    assert_eq!(world.shown("/f"), [(1, 500, vec![1, 2])]);
    assert_eq!(world.standing(2, 1, 1, 500), Standing::Good);
    assert_eq!(world.standing(3, 1, 2, 600), Standing::BeingWritten);

    world
        .request(
            2,
            flush(opened.status.unwrap().inode_id, 600, Some(commit_of(2, 1, 0, 600, &[1, 3]))),
        )
        .unwrap();
    assert_eq!(world.shown("/f"), [(2, 600, vec![1, 3])]);
    assert_eq!(world.standing(2, 1, 1, 500), Standing::Good, "durable, as the new one is not yet");
    let done = vec![commit_of(2, 1, 0, 700, &[1, 3])];
    let outcome = world.request(2, complete(world.stat("/f").inode.0, 700, done)).unwrap();
    assert_eq!(outcome.dropped, [of(1, 1), of(1, 2)]);
    assert_eq!(world.shown("/f"), [(2, 700, vec![1, 3])]);
    assert!(!world.stat("/f").being_written);
    assert_eq!(world.standing(2, 1, 1, 500), Standing::Unowned);
}

#[test]
fn an_append_that_is_given_up_leaves_the_file_and_no_generation_comes_twice() {
    let mut world = World::new();
    let file = written(&mut world, "/f", &[BLOCK, 500]);
    let inode = file.inode.0;
    world.request(2, append("/f", 2)).unwrap();
    world.allocate(2, inode, 2);
    // It fills its tail and one block more, and nobody has seen any of it.
    let finished = vec![commit_of(2, 2, 1, BLOCK, &[1, 3]), commit(3, 2, BLOCK, &[1, 2])];
    world.request(2, commit_blocks(inode, finished.clone())).unwrap();
    world.request(2, commit_blocks(inode, finished)).unwrap();
    assert_eq!(world.shown("/f"), [(1, BLOCK, vec![1, 2]), (1, 500, vec![1, 2])]);
    assert_eq!(world.standing(3, 2, 2, BLOCK), Standing::BeingWritten);
    let outcome = world.request(2, abandon(inode)).unwrap();
    let tail = |node_id| DroppedReplica { node_id, block_id: 2, generation: 2 };
    assert_eq!(outcome.dropped, [tail(1), tail(3), dropped(1, 3), dropped(2, 3)]);
    assert_eq!(world.stat("/f"), file);
    assert_eq!(world.standing(3, 2, 2, BLOCK), Standing::Unowned);
    let opened = appended(world.request(2, append("/f", 2)).unwrap());
    assert_eq!(opened.generation, 3);
    let expired = doldam_proto::wire::ExpireLeaseCommand { client_id: vec![2; 16].into() };
    world.own(Change::ExpireLease(expired)).unwrap();
    assert_eq!(world.stat("/f"), file);
}

#[test]
fn what_is_cut_off_is_seen_until_the_flush_and_given_back_without_one() {
    let mut world = World::new();
    let file = written(&mut world, "/f", &[BLOCK, BLOCK, 9]);
    let inode = file.inode.0;
    let all = world.shown("/f");
    let opened = appended(world.request(2, cut("/f", 1, 50)).unwrap());
    assert_eq!((opened.length, opened.block_id), (50, 1));
    assert_eq!(world.shown("/f"), all);
    assert_eq!(view::file_blocks(&world.tables, file.inode, 1, 9).unwrap().len(), 2);
    let lost = FsError::InvalidArgument { field: "length".to_owned(), why: String::new() };
    let nothing_written = world.request(2, complete(inode, 0, vec![])).unwrap_err();
    assert_eq!(without_why(nothing_written), lost);
    let uncommitted = world.request(2, complete(inode, 50, vec![])).unwrap_err();
    assert!(matches!(uncommitted, FsError::BlockMismatch { block: 1, .. }));
    // A new block where one was that is still seen.
    let second = world.allocate(2, inode, 1).block_id;
    let finished = vec![commit_of(2, 1, 0, BLOCK, &[3]), commit(second, 1, 7, &[1, 2])];
    world.request(2, commit_blocks(inode, finished.clone())).unwrap();
    assert_eq!(world.shown("/f"), all);
    world.request(2, abandon(inode)).unwrap();
    assert_eq!((world.shown("/f"), world.stat("/f")), (all, file));

    world.request(2, cut("/f", 1, 50)).unwrap();
    let open = Some(commit_of(3, 1, 0, 60, &[1]));
    let outcome = world.request(2, flush(inode, 60, open)).unwrap();
    let cut_off = [dropped(1, 2), dropped(2, 2), dropped(1, 3), dropped(2, 3)];
    assert_eq!(outcome.dropped, cut_off);
    assert_eq!(world.shown("/f"), [(3, 60, vec![1])]);
    let done = vec![commit_of(3, 1, 0, 60, &[1, 3])];
    world.request(2, complete(inode, 60, done)).unwrap();
    assert_eq!(world.shown("/f"), [(3, 60, vec![1, 3])]);
}

#[test]
fn a_cut_at_the_bound_of_a_block_needs_no_new_generation() {
    let mut world = World::new();
    let file = written(&mut world, "/f", &[BLOCK, 9]);
    let opened = appended(world.request(2, cut("/f", 0, BLOCK)).unwrap());
    assert_eq!((opened.length, opened.block_id), (BLOCK, 0));
    world.request(2, complete(file.inode.0, BLOCK, vec![])).unwrap();
    assert_eq!(world.shown("/f"), [(1, BLOCK, vec![1, 2])]);
    world.request(2, cut("/f", 0, 0)).unwrap();
    world.request(2, complete(file.inode.0, 0, vec![])).unwrap();
    assert_eq!(world.shown("/f"), []);
    let opened = appended(world.request(2, append("/f", 0)).unwrap());
    assert_eq!((opened.length, opened.block_id), (0, 0), "an empty file has no end to go on with");
    world.request(2, complete(file.inode.0, 0, vec![])).unwrap();
    world.request(1, delete("/f", false)).unwrap();
    world.collect_all(9);
    world.assert_empty();
}

#[test]
fn an_append_that_writes_nothing_changes_nothing() {
    let mut world = World::new();
    let file = written(&mut world, "/f", &[500]);
    world.request(2, append("/f", 1)).unwrap();
    world.request(2, flush(file.inode.0, 500, None)).unwrap();
    let outcome = world.request(2, complete(file.inode.0, 500, vec![])).unwrap();
    assert_eq!(outcome.dropped, [of(2, 1), of(2, 3)]);
    assert_eq!(world.shown("/f"), [(1, 500, vec![1, 2])]);
}

#[test]
fn replicas_of_the_committed_generation_are_kept_up_while_the_next_is_written() {
    let mut world = World::new();
    let file = written(&mut world, "/f", &[500]);
    let inode = file.inode.0;
    world.request(2, append("/f", 1)).unwrap();
    let bad = MarkBadReplicaCommand { block_id: 1, generation: 1, node_id: 1 };
    world.own(Change::MarkBadReplica(bad)).unwrap();
    let add = AddReplicaCommand {
        block_id: 1,
        generation: 1,
        length: 500,
        chaining_value: commit(1, 0, 1, &[]).chaining_value,
        node_id: 4,
        replaces_node_id: 1,
    };
    world.own(Change::AddReplica(add.clone())).unwrap();
    assert_eq!(world.shown("/f"), [(1, 500, vec![2, 4])]);
    // One that was just finished, and is not committed.
    let early = AddReplicaCommand { generation: 2, length: 600, ..add };
    let outcome = world.own(Change::AddReplica(early)).unwrap();
    assert_eq!(outcome.dropped, []);

    // Every node of the pipeline is gone: it is gone on with from those that have the block.
    let refused = world.request(2, recover(inode, 1, 2, 499, (1, &[4]))).unwrap_err();
    assert!(matches!(refused, FsError::InvalidArgument { field, .. } if field == "length"));
    world.request(2, recover(inode, 1, 2, 500, (1, &[4]))).unwrap();
    let open = Some(commit_of(3, 1, 0, 700, &[4]));
    world.request(2, flush(inode, 700, open)).unwrap();
    assert_eq!(world.shown("/f"), [(3, 700, vec![4])]);
    world.request(2, delete("/f", false)).unwrap();
    world.collect_all(9);
    world.assert_empty();
}

#[test]
fn a_finished_tail_shows_what_it_showed_until_the_next_flush() {
    let mut world = World::new();
    let file = written(&mut world, "/f", &[500]);
    let inode = file.inode.0;
    world.request(2, append("/f", 1)).unwrap();
    world.request(2, flush(inode, 500, None)).unwrap();
    world.request(2, commit_blocks(inode, vec![commit_of(2, 1, 0, BLOCK, &[3])])).unwrap();
    assert_eq!(world.shown("/f"), [(2, 500, vec![3])]);
    let next = Change::Flush(FlushCommand { inode_id: inode, length: BLOCK, ..Default::default() });
    world.request(2, next).unwrap();
    assert_eq!(world.shown("/f"), [(2, BLOCK, vec![3])]);
}

#[test]
fn one_writer_at_a_time_and_only_what_is_there() {
    let mut world = World::new();
    let file = written(&mut world, "/f", &[500]);
    world.mkdir("/d");
    let mut refused = |client, change| without_why(world.request(client, change).unwrap_err());
    let text = |path: &str| path.to_owned();
    assert_eq!(refused(2, append("/n", 0)), FsError::NotFound { path: text("/n") });
    assert_eq!(refused(2, append("/d", 0)), FsError::IsADirectory { path: text("/d") });
    assert_eq!(refused(2, append("/", 0)), FsError::IsADirectory { path: text("/") });
    let wrong = |field: &str| FsError::InvalidArgument { field: text(field), why: String::new() };
    assert_eq!(refused(2, cut("/f", 1, 501)), wrong("truncate_to"));
    let other =
        Change::Append(AppendCommand { expected_inode_id: 99, ..append_command("/f", 1, 1) });
    assert_eq!(refused(2, other), FsError::FileChanged { path: text("/f") });
    let mismatch =
        |block, generation| FsError::BlockMismatch { block, generation, why: String::new() };
    assert_eq!(refused(2, append("/f", 0)), mismatch(1, 1), "it ends inside of block 1");
    assert_eq!(refused(2, cut("/f", 1, 0)), mismatch(1, 1), "it ends inside of none");
    let stranger = AppendCommand {
        tail_holders: vec![3],
        tail_targets: vec![3],
        ..append_command("/f", 1, 1)
    };
    assert_eq!(refused(2, Change::Append(stranger)), wrong("tail_holders"));

    world.request(2, append("/f", 1)).unwrap();
    let held = FsError::LeaseHeld { path: text("/f"), holder: text("appender"), ends_in_secs: 0 };
    for take_over in [false, true] {
        let command = AppendCommand { take_over, ..append_command("/f", 1, 1) };
        assert_eq!(world.request(3, Change::Append(command)).unwrap_err(), held);
        let command = CreateCommand { take_over, overwrite: true, ..create_command("/f") };
        assert_eq!(world.request(3, Change::Create(command)).unwrap_err(), held);
    }
    let writer = view::writer_of_path(&world.tables, &path("/f")).unwrap().unwrap();
    assert!(writer.visible && writer.inode == file.inode);
}
