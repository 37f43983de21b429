//! Making directories and starting files.

use bytes::Bytes;
use doldam_proto::FsError;
use doldam_proto::file::Durability;
use doldam_proto::id::InodeId;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{Command, CreateCommand, CreateOutcome, FormatCommand, MkdirOutcome};

use super::view;
use super::world::{
    World, client_id, create, create_command, created, delete, dropped, mkdir, path, without_why,
};

fn not_found(path: &str) -> FsError {
    FsError::NotFound { path: path.to_owned() }
}

fn exists(path: &str) -> FsError {
    FsError::AlreadyExists { path: path.to_owned() }
}

fn no_directory(path: &str) -> FsError {
    FsError::NotADirectory { path: path.to_owned() }
}

#[test]
fn mkdir_makes_one_directory_or_with_parents_all_that_are_missing() {
    let mut world = World::new();
    assert_eq!(world.request(1, mkdir("/a/b", false)), Err(not_found("/a/b")));
    let made = |created| Some(Kind::Mkdir(MkdirOutcome { created }));
    assert_eq!(world.request(1, mkdir("/a", false)).unwrap().kind, made(true));
    assert_eq!(world.stat("/").modified_ms, world.time_ms());
    assert_eq!(world.request(1, mkdir("/a/b/c", true)).unwrap().kind, made(true));
    assert_eq!(world.stat("/a").modified_ms, world.time_ms());
    assert_eq!(world.request(1, mkdir("//a/b/", true)).unwrap().kind, made(false));
    assert_eq!(world.request(1, mkdir("/", true)).unwrap().kind, made(false));
    assert_eq!(world.request(1, mkdir("/a/b", false)), Err(exists("/a/b")));
    assert_eq!(world.request(1, mkdir("/", false)), Err(exists("/")));
    assert_eq!(view::totals(&world.tables).unwrap().directories, 4);
}

#[test]
fn a_file_in_the_way_is_named() {
    let mut world = World::new();
    world.mkdir("/d");
    world.write_file("/d/f", &[1]);
    for (text, file) in [("/d/f/x", "/d/f"), ("/d/f/x/y", "/d/f")] {
        for parents in [false, true] {
            assert_eq!(world.request(1, mkdir(text, parents)), Err(no_directory(file)));
            let command = CreateCommand { parents, ..create_command(text) };
            assert_eq!(world.request(1, Change::Create(command)), Err(no_directory(file)));
        }
        assert_eq!(world.request(1, delete(text, true)), Err(no_directory(file)));
    }
    assert_eq!(world.request(1, mkdir("/d/f", true)), Err(exists("/d/f")));
}

#[test]
fn a_new_file_is_invisible_and_reserves_its_path() {
    let mut world = World::new();
    let write = world.create(1, "/f");
    let expected = CreateOutcome { inode_id: 2, block_id: 1, generation: 1, targets: vec![1, 2] };
    assert_eq!(write, expected);
    assert!(!world.exists("/f"));
    assert_eq!(world.request(1, delete("/f", false)), Err(not_found("/f")));
    let held = FsError::LeaseHeld { path: "/f".into(), holder: "writer".into(), ends_in_secs: 0 };
    assert_eq!(world.request(2, create("//f/")), Err(held));

    let seen = view::writer_of_path(&world.tables, &path("/f")).unwrap().unwrap();
    assert_eq!((seen.client, seen.inode), (client_id(1), InodeId(2)));
    assert_eq!((seen.path.as_str(), seen.durability), ("/f", Durability::All));
    assert_eq!(view::lease_holders(&world.tables, None, 9).unwrap(), [client_id(1)]);
    assert!(view::writes_anything(&world.tables, client_id(1)).unwrap());
    assert!(!view::writes_anything(&world.tables, client_id(2)).unwrap());
}

#[test]
fn the_same_client_and_whoever_may_take_over_displace_an_unfinished_write() {
    let mut world = World::new();
    let first = world.create(1, "/f");
    let second = world.create(1, "/f");
    let command = CreateCommand { take_over: true, ..create_command("/f") };
    let third = created(world.request(2, Change::Create(command)).unwrap());
    assert_eq!(view::writer_of_path(&world.tables, &path("/f")).unwrap().unwrap().client.0[0], 2);
    let (_, gone) = world.collect(100);
    let blocks = [first.block_id, second.block_id];
    assert_eq!(gone, blocks.map(|block| [dropped(1, block), dropped(2, block)]).concat());
    assert_eq!(view::lease_holders(&world.tables, None, 9).unwrap(), [client_id(2)]);
    assert!(view::unfinished_write(&world.tables, InodeId(third.inode_id)).unwrap().is_some());
    assert!(view::unfinished_write(&world.tables, InodeId(first.inode_id)).unwrap().is_none());
}

#[test]
fn an_existing_target_is_refused_unless_it_is_a_file_to_be_replaced() {
    let mut world = World::new();
    world.mkdir("/d");
    let status = world.write_file("/f", &[5]);
    let over = |path| Change::Create(CreateCommand { overwrite: true, ..create_command(path) });
    let directory = |path: &str| FsError::IsADirectory { path: path.to_owned() };
    assert_eq!(world.request(1, create("/f")), Err(exists("/f")));
    assert_eq!(world.request(1, create("/d")), Err(directory("/d")));
    assert_eq!(world.request(1, over("/d")), Err(directory("/d")));
    assert_eq!(world.request(1, over("/")), Err(directory("/")));
    assert_eq!(world.request(1, create("/n/f")), Err(not_found("/n/f")));
    world.request(1, over("/f")).unwrap();
    assert_eq!(world.stat("/f").inode.0, status.inode_id, "readable until the new one is complete");
    let parents = CreateCommand { parents: true, ..create_command("/n/m/f") };
    world.request(1, Change::Create(parents)).unwrap();
    assert!(world.stat("/n/m").is_dir());
}

#[test]
fn every_number_of_a_new_file_is_checked() {
    let mut world = World::new();
    let good = create_command("/f");
    let wrong =
        |field: &str| FsError::InvalidArgument { field: field.to_owned(), why: String::new() };
    for (field, command) in [
        ("replication", CreateCommand { replication: 0, ..good.clone() }),
        ("replication", CreateCommand { replication: 17, ..good.clone() }),
        ("block_bytes", CreateCommand { block_bytes: 0, ..good.clone() }),
        ("block_bytes", CreateCommand { block_bytes: 65_537, ..good.clone() }),
        ("block_bytes", CreateCommand { block_bytes: 2 << 30, ..good.clone() }),
        ("holder", CreateCommand { holder: "h".repeat(1025), ..good.clone() }),
        ("durability", CreateCommand { durability: 9, ..good.clone() }),
        ("first_targets", CreateCommand { allocate_first: false, ..good.clone() }),
        ("first_targets", CreateCommand { first_targets: vec![1, 5], ..good.clone() }),
        ("first_targets", CreateCommand { first_targets: vec![0], ..good.clone() }),
        ("first_targets", CreateCommand { first_targets: vec![2, 2], ..good.clone() }),
        ("first_targets", CreateCommand { first_targets: (1..18).collect(), ..good.clone() }),
    ] {
        let refusal = world.request(1, Change::Create(command)).unwrap_err();
        assert_eq!(without_why(refusal), wrong(field));
    }
    let refusal = world.own(Change::Create(good.clone())).unwrap_err();
    assert_eq!(without_why(refusal), wrong("request"));
    let nowhere = CreateCommand { first_targets: vec![], ..good.clone() };
    let refusal = FsError::NoDatanodes { path: "/f".into(), refusals: vec![] };
    assert_eq!(world.request(1, Change::Create(nowhere)), Err(refusal));
    for allowed in [
        CreateCommand { replication: 16, durability: 3, ..good.clone() },
        CreateCommand { replication: 1, block_bytes: 1 << 30, ..good },
    ] {
        world.request(1, Change::Create(allowed)).unwrap();
    }
}

#[test]
fn a_bad_path_is_refused_with_its_beginning() {
    let mut world = World::new();
    let why = "a path in the cluster starts with `/`".to_owned();
    let refusal = FsError::InvalidPath { path: "a".to_owned(), why: why.clone() };
    assert_eq!(world.request(1, mkdir("a", true)), Err(refusal));
    let refusal = FsError::InvalidPath { path: format!("{}…", "ü".repeat(80)), why };
    assert_eq!(world.request(1, mkdir(&"ü".repeat(81), true)), Err(refusal));
}

#[test]
fn a_namespace_is_formatted_once_and_a_command_must_change_something() {
    let mut world = World::new();
    let refusal = world.own(Change::Format(FormatCommand { cluster_id: Bytes::from(vec![1; 16]) }));
    let taken = FsError::NotAllowed { path: "/".into(), why: String::new() };
    assert_eq!(without_why(refusal.unwrap_err()), taken);
    let refusal = world.own(Change::Format(FormatCommand { cluster_id: Bytes::from(vec![1; 15]) }));
    let field = "cluster_id".to_owned();
    let wrong = FsError::InvalidArgument { field, why: String::new() };
    assert_eq!(without_why(refusal.unwrap_err()), wrong);
    let nothing = world.run(Command { time_ms: 1, request: None, change: None });
    assert!(matches!(nothing, Err(FsError::Internal { .. })));
}
