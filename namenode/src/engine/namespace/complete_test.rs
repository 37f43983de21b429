//! The end of writes: completed, abandoned, expired.

use doldam_proto::FsError;
use doldam_proto::digest::{BlockTree, FileDigest};
use doldam_proto::id::InodeId;
use doldam_proto::wire;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{
    AbandonCommand, CreateCommand, ExpireLeaseCommand, FileStatus, GarbageOutcome,
};

use super::lease::EXPIRED_WRITES_MAX;
use super::view;
use super::world::{
    BLOCK, World, client_id, commit, commit_blocks, complete, completed_status, create,
    create_command, created, delete, dropped, mkdir, path, rename, without_why,
};

#[test]
fn a_file_appears_whole_and_its_digest_is_that_of_its_bytes() {
    let mut world = World::new();
    world.mkdir("/d");
    let bytes: Vec<u8> = (0..BLOCK * 2 + 1000).map(|at| (at % 251) as u8).collect();
    let write = world.create(1, "/d/f");
    let mut commits = Vec::new();
    for (index, part) in bytes.chunks(BLOCK as usize).enumerate() {
        let mut tree = BlockTree::new(index as u64 * BLOCK);
        tree.push_group(part);
        let digest = tree.digest().unwrap();
        let index = index as u32;
        let block = match index {
            0 => write.block_id,
            _ => world.allocate(1, write.inode_id, index).block_id,
        };
        commits.push(wire::BlockCommit {
            chaining_value: digest.chaining_value.to_bytes(),
            root_value: digest.root_value.map(FileDigest::to_bytes).unwrap_or_default(),
            ..commit(block, index, part.len() as u64, &[1])
        });
    }
    let early = commits.remove(0);
    world.request(1, commit_blocks(write.inode_id, vec![early])).unwrap();
    assert!(!world.exists("/d/f"));
    let length = bytes.len() as u64;
    let completed = world.request(1, complete(write.inode_id, length, commits)).unwrap();
    let completed = completed_status(completed);
    assert_eq!(completed.under_replicated_blocks, 3);
    let expected = FileStatus {
        path: "/d/f".to_owned(),
        inode_id: write.inode_id,
        kind: wire::FileKind::File.into(),
        length,
        replication: 2,
        block_bytes: BLOCK,
        modified_ms: world.time_ms(),
        digest: bytes::Bytes::copy_from_slice(blake3::hash(&bytes).as_bytes()),
        durability: wire::Durability::All.into(),
        created_ms: world.time_ms() - 4,
        being_written: false,
    };
    assert_eq!(completed.status, Some(expected.clone()));
    assert_eq!(FileStatus::from(world.stat("/d/f")), expected);
    assert_eq!(world.stat("/d").modified_ms, world.time_ms());
    let located = view::locate(&world.tables, &path("/d/f"), BLOCK, 0, InodeId(0)).unwrap();
    let offsets: Vec<(u64, u64)> =
        located.blocks.iter().map(|block| (block.offset, block.length)).collect();
    assert_eq!(offsets, [(BLOCK, BLOCK), (2 * BLOCK, 1000)]);
}

#[test]
fn an_empty_file_gives_its_first_block_back() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    let outcome = world.request(1, complete(write.inode_id, 0, vec![])).unwrap();
    assert_eq!(outcome.dropped, [dropped(1, 1), dropped(2, 1)]);
    let status = completed_status(outcome).status.unwrap();
    assert_eq!(status.digest, blake3::hash(b"").as_bytes().as_slice());
    assert_eq!(view::totals(&world.tables).unwrap().files, 1);
}

#[test]
fn blocks_must_make_up_the_length_exactly() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    let inode = write.inode_id;
    let second = world.allocate(1, inode, 1).block_id;
    let third = world.allocate(1, inode, 2).block_id;
    let mismatch = |block| FsError::BlockMismatch { block, generation: 1, why: String::new() };
    let length = FsError::InvalidArgument { field: "length".to_owned(), why: String::new() };
    let full = commit(1, 0, BLOCK, &[1]);
    let tail = commit(second, 1, 7, &[1]);
    for (refusal, bytes, commits) in [
        (mismatch(second), BLOCK + 7, vec![full.clone()]),
        (mismatch(1), BLOCK + 7, vec![commit(1, 0, BLOCK - 1, &[1]), tail.clone()]),
        (mismatch(second), BLOCK + 8, vec![full.clone(), tail.clone()]),
        (mismatch(second), BLOCK, vec![full.clone(), tail.clone()]),
        (
            mismatch(third),
            2 * BLOCK,
            vec![full.clone(), commit(second, 1, BLOCK, &[1]), commit(third, 2, 1, &[1])],
        ),
        (
            length.clone(),
            3 * BLOCK + 1,
            vec![full.clone(), commit(second, 1, BLOCK, &[1]), commit(third, 2, BLOCK, &[1])],
        ),
        (length.clone(), u64::MAX, vec![]),
        (length, (1 << 24) * BLOCK + 1, vec![]),
    ] {
        let found = world.request(1, complete(inode, bytes, commits.clone())).unwrap_err();
        assert_eq!(without_why(found), refusal, "{bytes} bytes of {commits:?}");
    }
    let outcome = world.request(1, complete(inode, BLOCK + 7, vec![full, tail])).unwrap();
    let gone = [dropped(1, third), dropped(2, third)];
    assert_eq!(outcome.dropped, [&[dropped(2, 1), dropped(2, second)], &gone[..]].concat());
    assert_eq!(completed_status(outcome).status.unwrap().length, BLOCK + 7);
}

#[test]
fn a_hole_between_blocks_is_refused() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    let third = world.allocate(1, write.inode_id, 2).block_id;
    let commits = vec![commit(1, 0, BLOCK, &[1]), commit(third, 2, 7, &[1])];
    let found = world.request(1, complete(write.inode_id, 2 * BLOCK + 7, commits)).unwrap_err();
    let why = "131079 bytes take 3 blocks of 65536; there is none at index 1".to_owned();
    assert_eq!(found, FsError::InvalidArgument { field: "length".to_owned(), why });
}

#[test]
fn an_overwritten_file_stays_until_the_new_one_is_complete_and_then_goes_whole() {
    let mut world = World::new();
    let old = world.write_file("/f", &[BLOCK, 5]);
    let over = CreateCommand { overwrite: true, ..create_command("/f") };
    let write = created(world.request(1, Change::Create(over)).unwrap());
    assert_eq!(world.stat("/f").inode.0, old.inode_id);
    let commits = vec![commit(write.block_id, 0, 3, &[1, 2])];
    world.request(1, complete(write.inode_id, 3, commits)).unwrap();
    assert_eq!(world.stat("/f").length, 3);
    assert_eq!(view::totals(&world.tables).unwrap().files, 1);
    let blocks = view::file_blocks(&world.tables, InodeId(old.inode_id), 0, 9).unwrap();
    assert!(blocks.len() == 2 && blocks.iter().all(|block| block.unlinked));
    let (collected, gone) = world.collect(100);
    assert_eq!(collected, GarbageOutcome { more: false, items: 3 });
    assert_eq!(gone, [dropped(1, 1), dropped(2, 1), dropped(1, 2), dropped(2, 2)]);
    assert_eq!(view::totals(&world.tables).unwrap().blocks, 1);
}

#[test]
fn complete_looks_again_at_what_is_under_its_path() {
    let mut world = World::new();
    let plain = world.create(1, "/f");
    world.write_file("/other", &[1]);
    world.request(2, rename("/other", "/f", false)).unwrap();
    let refusal = Err(FsError::AlreadyExists { path: "/f".to_owned() });
    let done = complete(plain.inode_id, 1, vec![commit(plain.block_id, 0, 1, &[1])]);
    assert_eq!(world.request(1, done.clone()), refusal);
    world.request(2, delete("/f", false)).unwrap();
    world.request(2, mkdir("/f", false)).unwrap();
    let refusal = Err(FsError::IsADirectory { path: "/f".to_owned() });
    assert_eq!(world.request(1, done.clone()), refusal);
    world.request(2, delete("/f", false)).unwrap();
    world.request(1, done).unwrap();
    assert_eq!(world.stat("/f").inode.0, plain.inode_id);
}

#[test]
fn a_file_appears_where_its_directory_is_by_then_or_not_at_all() {
    let mut world = World::new();
    world.mkdir("/a/b");
    let moved = world.create(1, "/a/b/f");
    let lost = world.create(1, "/a/b/g");
    world.request(2, rename("/a", "/x", false)).unwrap();
    let done = complete(moved.inode_id, 0, vec![]);
    let status = completed_status(world.request(1, done).unwrap()).status.unwrap();
    assert_eq!(status.path, "/x/b/f");
    assert!(world.exists("/x/b/f"));
    world.request(2, delete("/x", true)).unwrap();
    let done = complete(lost.inode_id, 0, vec![]);
    let refusal = Err(FsError::NotFound { path: "…/x/b/g".to_owned() });
    assert_eq!(world.request(1, done.clone()), refusal);
    world.collect_all(1);
    assert_eq!(world.request(1, done), Err(FsError::LeaseLost { inode: lost.inode_id }));
    world.assert_empty();
}

#[test]
fn an_abandoned_write_frees_its_path_at_once_and_its_blocks_later() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    let block = world.allocate(1, write.inode_id, 1).block_id;
    let commits = vec![commit(block, 1, 7, &[2, 3])];
    world.request(1, commit_blocks(write.inode_id, commits)).unwrap();
    let abandon = Change::Abandon(AbandonCommand { inode_id: write.inode_id });
    world.request(1, abandon.clone()).unwrap();
    let lost = Err(FsError::LeaseLost { inode: write.inode_id });
    assert_eq!(world.request(1, abandon), lost);
    world.request(2, create("/f")).unwrap();
    let (_, gone) = world.collect(100);
    let expected = [dropped(1, 1), dropped(2, 1), dropped(2, block), dropped(3, block)];
    assert_eq!(gone, expected);
}

#[test]
fn an_expired_lease_ends_all_writes_of_its_client_slice_by_slice() {
    let mut world = World::new();
    let names: Vec<String> =
        (0..EXPIRED_WRITES_MAX + 2).map(|number| format!("/{number}")).collect();
    // Without the checks of `World`, which read the whole state for each of a thousand commands.
    for name in &names {
        let change = Change::Create(CreateCommand {
            allocate_first: false,
            first_targets: vec![],
            ..create_command(name)
        });
        let command = world.command(1, change);
        let applied = super::apply(&world.tables, &command).unwrap();
        applied.outcome.unwrap();
        world.tables.apply_changes(applied.changes);
    }
    let kept = world.create(2, "/kept");
    let expire = Change::ExpireLease(ExpireLeaseCommand { client_id: client_id(1).to_bytes() });
    for (more, items) in [(true, EXPIRED_WRITES_MAX as u32), (false, 2), (false, 0)] {
        let outcome = world.own(expire.clone()).unwrap();
        assert_eq!(outcome.kind, Some(Kind::Garbage(GarbageOutcome { more, items })));
    }
    assert_eq!(view::lease_holders(&world.tables, None, 9).unwrap(), [client_id(2)]);
    world.request(2, complete(kept.inode_id, 0, vec![])).unwrap();
    let bad = Change::ExpireLease(ExpireLeaseCommand { client_id: "short".into() });
    let field = "client_id".to_owned();
    let refusal = FsError::InvalidArgument { field, why: String::new() };
    assert_eq!(without_why(world.own(bad).unwrap_err()), refusal);
}

#[test]
fn a_file_in_a_directory_that_was_moved_out_of_reach_waits_for_its_return() {
    let mut world = World::new();
    let deep = "/a".repeat(200);
    world.mkdir(&deep);
    let far = "/b".repeat(100);
    world.mkdir(&far);
    let write = world.create(1, &format!("{deep}/f"));
    world.write_file(&format!("{deep}/g"), &[1]);
    world.request(1, rename("/a", &format!("{far}/a"), false)).unwrap();
    let done = complete(write.inode_id, 0, vec![]);
    let refusal = world.request(1, done.clone()).unwrap_err();
    assert!(matches!(refusal, FsError::InvalidPath { path, .. } if path.starts_with("…/b/")));
    let walked = view::walk(&world.tables, &path("/"), None, 1000).unwrap().files;
    assert_eq!(walked[0].path, format!("{far}{deep}/g"), "fsck sees it all the same");
    assert_eq!(view::path_of(&world.tables, walked[0].inode).unwrap(), None);
    world.request(1, rename(&format!("{far}/a"), "/a", false)).unwrap();
    world.request(1, done).unwrap();
    assert!(world.exists(&format!("{deep}/f")));
}
