//! What a flush shows, and to whom.

use doldam_proto::FsError;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{CreateCommand, FlushCommand, SetReplicationCommand};

use super::view::Standing;
use super::world::{
    BLOCK, World, commit, commit_blocks, commit_of, complete, create_command, created, delete,
    flush, recover, rename, sync, without_why,
};

fn wrong(field: &str) -> FsError {
    FsError::InvalidArgument { field: field.to_owned(), why: String::new() }
}

fn mismatch(block: u64, generation: u64) -> FsError {
    FsError::BlockMismatch { block, generation, why: String::new() }
}

#[test]
fn a_flush_shows_the_file_and_the_write_goes_on() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    let outcome =
        world.request(1, flush(write.inode_id, 9, Some(commit(1, 0, 9, &[1, 2])))).unwrap();
    let Some(Kind::Flush(flushed)) = outcome.kind else { panic!("{:?}", outcome.kind) };
    let status = world.stat("/f");
    assert_eq!(flushed.status, Some(status.clone().into()));
    assert_eq!((status.length, status.being_written), (9, true));
    assert_eq!(world.shown("/f"), [(1, 9, vec![1, 2])]);
    assert_eq!(world.standing(1, 1, 1, 9), Standing::BeingWritten, "no replica yet");

    let more = Change::Flush(FlushCommand {
        inode_id: write.inode_id,
        length: BLOCK + 7,
        commits: vec![commit(1, 0, BLOCK, &[1, 2])],
        open: Some(commit(2, 1, 7, &[2])),
        synced: false,
    });
    assert!(matches!(world.request(1, more.clone()), Err(FsError::BlockMismatch { block: 2, .. })));
    world.allocate(1, write.inode_id, 1);
    world.request(1, more).unwrap();
    assert_eq!(world.shown("/f"), [(1, BLOCK, vec![1, 2]), (1, 7, vec![2])]);
    assert_eq!(world.standing(1, 1, 1, BLOCK), Standing::Good);

    let last = vec![commit(2, 1, 8, &[1, 2])];
    world.request(1, complete(write.inode_id, BLOCK + 8, last)).unwrap();
    let status = world.stat("/f");
    assert_eq!((status.length, status.being_written), (BLOCK + 8, false));
}

#[test]
fn a_flush_takes_the_place_of_the_file_it_overwrites_and_of_nothing_else() {
    let mut world = World::new();
    let old = world.write_file("/f", &[5]).inode_id;
    let command = CreateCommand { overwrite: true, ..create_command("/f") };
    let write = created(world.request(1, Change::Create(command)).unwrap());
    assert_eq!(world.stat("/f").inode.0, old);
    world.request(1, flush(write.inode_id, 9, Some(commit(2, 0, 9, &[1])))).unwrap();
    assert_eq!(world.stat("/f").inode.0, write.inode_id);
    world.collect_all(9);

    let write = world.create(1, "/g");
    world.write_file("/h", &[5]);
    world.request(1, rename("/h", "/g", false)).unwrap();
    let refused = world.request(1, flush(write.inode_id, 9, Some(commit(3, 0, 9, &[1]))));
    assert_eq!(refused.unwrap_err(), FsError::AlreadyExists { path: "/g".to_owned() });
}

#[test]
fn what_readers_see_never_becomes_shorter() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    world.request(1, flush(write.inode_id, 9, Some(commit(1, 0, 9, &[1])))).unwrap();
    let mut refused = |change| without_why(world.request(1, change).unwrap_err());
    let shorter = Some(commit(1, 0, 8, &[1]));
    assert_eq!(refused(flush(write.inode_id, 8, shorter)), wrong("length"));
    let shorter = commit_blocks(write.inode_id, vec![commit(1, 0, 8, &[1])]);
    assert_eq!(refused(shorter), mismatch(1, 1));
    assert_eq!(refused(complete(write.inode_id, 0, vec![])), wrong("length"));
    assert_eq!(refused(complete(write.inode_id, 9, vec![])), mismatch(1, 1), "only flushed");
    world.request(1, flush(write.inode_id, 9, None)).unwrap();
    assert_eq!(world.stat("/f").length, 9, "nothing new");
}

#[test]
fn a_flush_must_fit_what_is_being_written() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    world.allocate(1, write.inode_id, 1);
    for (refusal, length, open) in [
        (mismatch(1, 2), 9, commit_of(2, 1, 0, 9, &[1])),
        (mismatch(1, 1), 9, commit(1, 0, 9, &[1, 3])),
        (mismatch(1, 1), 9, commit(1, 0, 8, &[1])),
        (mismatch(1, 1), BLOCK + 7, commit(2, 1, 7, &[1])),
        (mismatch(9, 1), 9, commit(9, 0, 9, &[1])),
    ] {
        let refused = world.request(1, flush(write.inode_id, length, Some(open)));
        assert_eq!(without_why(refused.unwrap_err()), refusal);
    }
    let of_another = world.request(2, flush(write.inode_id, 9, Some(commit(1, 0, 9, &[1]))));
    assert_eq!(of_another.unwrap_err(), FsError::LeaseLost { inode: write.inode_id });
    let unfinished = Some(commit(1, 0, BLOCK, &[1]));
    world.request(1, flush(write.inode_id, BLOCK, unfinished)).unwrap();
    let refused = world.request(1, flush(write.inode_id, BLOCK + 7, Some(commit(2, 1, 7, &[1]))));
    assert_eq!(without_why(refused.unwrap_err()), mismatch(1, 1), "only the last may be open");
}

#[test]
fn a_finished_block_shows_what_was_flushed_until_the_next_flush() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    world.request(1, flush(write.inode_id, 9, Some(commit(1, 0, 9, &[1, 2])))).unwrap();
    let outcome = world.request(1, commit_blocks(write.inode_id, vec![commit(1, 0, BLOCK, &[2])]));
    assert_eq!(outcome.unwrap().dropped, [super::world::dropped(1, 1)]);
    assert_eq!(world.shown("/f"), [(1, 9, vec![2])]);
    world.request(1, flush(write.inode_id, BLOCK, None)).unwrap();
    assert_eq!(world.shown("/f"), [(1, BLOCK, vec![2])]);
}

#[test]
fn a_visible_file_may_be_moved_and_wanted_otherwise_while_it_is_written() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    world.request(1, flush(write.inode_id, 9, Some(commit(1, 0, 9, &[1])))).unwrap();
    world.mkdir("/d");
    world.request(2, rename("/f", "/d/g", false)).unwrap();
    let command = SetReplicationCommand { path: "/d/g".to_owned(), replication: 1 };
    world.request(2, Change::SetReplication(command)).unwrap();
    let another = world.create(2, "/f");
    world.request(1, flush(write.inode_id, 10, Some(commit(1, 0, 10, &[1])))).unwrap();
    let last = vec![commit(1, 0, 11, &[1])];
    let outcome = world.request(1, complete(write.inode_id, 11, last)).unwrap();
    let done = super::world::completed_status(outcome);
    assert_eq!(done.under_replicated_blocks, 0, "one replica is enough now");
    assert_eq!(world.stat("/d/g").length, 11);
    let last = vec![commit(another.block_id, 0, 5, &[1, 2])];
    world.request(2, complete(another.inode_id, 5, last)).unwrap();
}

#[test]
fn a_deleted_file_is_written_no_longer_and_nothing_of_it_stays() {
    let mut world = World::new();
    for (path, deleted) in [("/f", "/f"), ("/d/e/f", "/d")] {
        if deleted == "/d" {
            world.mkdir("/d/e");
        }
        let write = world.create(1, path);
        let open = Some(commit(write.block_id, 0, 9, &[1, 2]));
        world.request(1, flush(write.inode_id, 9, open.clone())).unwrap();
        world.request(1, delete(deleted, true)).unwrap();
        let refused = world.request(1, flush(write.inode_id, 9, open.clone())).unwrap_err();
        match deleted {
            "/d" => assert_eq!(refused, FsError::NotFound { path: "…/d/e/f".to_owned() }),
            _ => assert_eq!(refused, FsError::LeaseLost { inode: write.inode_id }),
        }
        world.collect_all(1);
        let refused = world.request(1, flush(write.inode_id, 9, open)).unwrap_err();
        assert_eq!(refused, FsError::LeaseLost { inode: write.inode_id });
        world.assert_empty();
    }
}

#[test]
fn what_a_sync_told_is_kept_by_who_has_it_until_the_next_one() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    let inode = write.inode_id;
    world.request(1, sync(inode, 9, commit(1, 0, 9, &[1, 2]))).unwrap();
    // Both are lost one after the other; what 3 and 4 got from them is in their memory only.
    world.request(1, recover(inode, 1, 1, 12, (1, &[2, 3]))).unwrap();
    world.request(1, flush(inode, 12, Some(commit_of(2, 1, 0, 12, &[2, 3])))).unwrap();
    let outcome = world.request(1, recover(inode, 1, 2, 12, (1, &[3, 4]))).unwrap();
    assert_eq!(outcome.dropped, []);
    let flushed = flush(inode, 13, Some(commit_of(3, 1, 0, 13, &[3, 4])));
    assert_eq!(world.request(1, flushed).unwrap().dropped, [], "power may be lost now");
    for (node, generation) in [(1, 1), (2, 1), (2, 2)] {
        assert_eq!(world.standing(node, 1, generation, 0), Standing::BeingWritten);
    }
    let outcome = world.request(1, sync(inode, 13, commit_of(3, 1, 0, 13, &[3, 4]))).unwrap();
    let dropped: Vec<(u32, u64)> =
        outcome.dropped.iter().map(|each| (each.node_id, each.generation)).collect();
    assert_eq!(dropped, [(1, 2), (1, 1), (2, 2), (2, 1)]);
    assert_eq!(world.standing(1, 1, 1, 0), Standing::Unowned);
    let last = vec![commit_of(3, 1, 0, 14, &[4])];
    let outcome = world.request(1, complete(inode, 14, last)).unwrap();
    assert!(outcome.dropped.iter().any(|each| (each.node_id, each.generation) == (3, 3)));
}
