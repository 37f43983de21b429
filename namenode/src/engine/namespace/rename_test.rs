//! Renaming files and directories.

use doldam_proto::FsError;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{Done, GarbageOutcome};

use super::view;
use super::world::{BLOCK, World, create, path, rename, without_why};

fn text(path: &str) -> String {
    path.to_owned()
}

#[test]
fn a_directory_moves_with_all_that_is_below_it() {
    let mut world = World::new();
    world.mkdir("/a/b/c");
    world.mkdir("/x");
    let file = world.write_file("/a/b/c/f", &[BLOCK, 1]);
    let outcome = world.request(1, rename("/a/b", "/x/y", false)).unwrap();
    assert_eq!(outcome.kind, Some(Kind::Done(Done {})));
    assert!(outcome.touched_blocks.is_empty());
    assert!(!world.exists("/a/b"));
    let moved = world.stat("/x/y/c/f");
    assert_eq!((moved.inode.0, moved.modified_ms), (file.inode_id, file.modified_ms));
    assert_eq!(view::path_of(&world.tables, moved.inode).unwrap().as_deref(), Some("/x/y/c/f"));
    assert_eq!(world.stat("/a").modified_ms, world.time_ms());
    assert_eq!(world.stat("/x").modified_ms, world.time_ms());
}

#[test]
fn what_may_replace_what_is_as_in_posix() {
    let mut world = World::new();
    for directory in ["/empty", "/full/sub", "/dir/sub", "/busy"] {
        world.mkdir(directory);
    }
    world.request(1, create("/busy/being-written")).unwrap();
    world.write_file("/f", &[1]);
    world.write_file("/g", &[2]);
    let not_empty = |path| FsError::DirectoryNotEmpty { path: text(path) };
    for (from, to, refusal) in [
        ("/f", "/empty", FsError::IsADirectory { path: text("/empty") }),
        ("/dir", "/f", FsError::NotADirectory { path: text("/f") }),
        ("/dir", "/full", not_empty("/full")),
        ("/dir/sub", "/dir", not_empty("/dir")),
        ("/dir", "/busy", not_empty("/busy")),
    ] {
        let exists = FsError::AlreadyExists { path: text(to) };
        assert_eq!(world.request(1, rename(from, to, false)), Err(exists));
        assert_eq!(world.request(1, rename(from, to, true)), Err(refusal), "{from} {to}");
    }
    world.request(1, rename("/f", "/g", true)).unwrap();
    assert_eq!(world.stat("/g").length, 1);
    world.request(1, rename("/dir", "/empty", true)).unwrap();
    assert!(world.exists("/empty/sub") && !world.exists("/dir"));
    assert_eq!(world.collect(100).0, GarbageOutcome { more: false, items: 3 });
}

#[test]
fn a_name_is_never_lost_when_a_rename_is_refused_or_goes_nowhere() {
    let mut world = World::new();
    world.mkdir("/a/b");
    world.write_file("/f", &[1]);
    let not_found = |path| FsError::NotFound { path: text(path) };
    let not_allowed = |path| FsError::NotAllowed { path: text(path), why: String::new() };
    for (from, to, refusal) in [
        ("/none", "/x", not_found("/none")),
        ("/none", "/none", not_found("/none")),
        ("/f", "/none/x", not_found("/none/x")),
        ("/f", "/f/x", FsError::NotADirectory { path: text("/f") }),
        ("/a", "/a/b", not_allowed("/a")),
        ("/a", "/a/b/c", not_allowed("/a")),
        ("/a", "/a/x/y", not_allowed("/a")),
        ("/", "/x", not_allowed("/")),
        ("/a", "/", not_allowed("/")),
        ("/f", "/", not_allowed("/")),
    ] {
        for replace in [false, true] {
            let found = world.request(1, rename(from, to, replace)).unwrap_err();
            assert_eq!(without_why(found), refusal, "{from} {to} {replace}");
        }
    }
    for same in ["/a", "/f"] {
        let before = world.stat(same);
        world.request(1, rename(same, same, false)).unwrap();
        assert_eq!(world.stat(same), before);
    }
    world.request(1, rename("/a", "/ab", false)).unwrap();
    assert!(world.exists("/ab/b"), "a common beginning of names is no parenthood");
    assert!(view::stat(&world.tables, &path("/a")).is_err());
}
