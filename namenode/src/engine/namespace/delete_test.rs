//! Deleting files and directories.

use doldam_proto::FsError;

use super::view;
use super::world::{World, complete, create, delete, without_why};

#[test]
fn a_directory_with_entries_or_unfinished_writes_is_deleted_only_recursively() {
    let mut world = World::new();
    world.mkdir("/full/sub");
    world.mkdir("/busy");
    world.mkdir("/empty");
    let write = world.create(1, "/busy/f");
    for directory in ["/full", "/busy"] {
        let refusal = FsError::DirectoryNotEmpty { path: directory.to_owned() };
        assert_eq!(world.request(1, delete(directory, false)), Err(refusal));
        world.request(1, delete(directory, true)).unwrap();
        assert!(!world.exists(directory));
    }
    world.request(1, delete("/empty", false)).unwrap();
    assert_eq!(world.stat("/").modified_ms, world.time_ms());
    assert!(matches!(
        world.request(1, complete(write.inode_id, 0, vec![])),
        Err(FsError::NotFound { .. })
    ));
    world.collect_all(100);
    world.assert_empty();
    assert_eq!(view::totals(&world.tables).unwrap().directories, 1);
}

#[test]
fn what_is_not_there_and_the_root_are_not_deleted() {
    let mut world = World::new();
    let refusal = FsError::NotFound { path: "/none".to_owned() };
    assert_eq!(world.request(1, delete("/none", true)), Err(refusal));
    let refusal = FsError::NotAllowed { path: "/".to_owned(), why: String::new() };
    assert_eq!(without_why(world.request(1, delete("/", true)).unwrap_err()), refusal);
}

#[test]
fn a_write_over_a_deleted_file_goes_on() {
    let mut world = World::new();
    world.write_file("/f", &[1]);
    let over =
        doldam_proto::wire::CreateCommand { overwrite: true, ..super::world::create_command("/f") };
    let change = doldam_proto::wire::command::Change::Create(over);
    let write = super::world::created(world.request(1, change).unwrap());
    world.request(2, delete("/f", false)).unwrap();
    let held = world.request(2, create("/f")).unwrap_err();
    assert!(matches!(held, FsError::LeaseHeld { .. }));
    world.request(1, complete(write.inode_id, 0, vec![])).unwrap();
    assert_eq!(world.stat("/f").inode.0, write.inode_id);
}
