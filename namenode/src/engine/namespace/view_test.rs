//! Listing, locating, walking.

use doldam_proto::FsError;
use doldam_proto::id::InodeId;
use doldam_proto::wire::command::Change;

use super::NamespaceError;
use super::view::{self, WalkCursor};
use super::world::{BLOCK, World, create, create_command, delete, path, rename};

fn refusal<T: std::fmt::Debug>(answer: Result<T, NamespaceError>) -> FsError {
    match answer {
        Err(NamespaceError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

fn page(world: &World, directory: &str, after: &str, max: u32) -> (Vec<String>, bool) {
    let page = view::list(&world.tables, &path(directory), after, max).unwrap();
    (page.entries.into_iter().map(|entry| entry.path).collect(), page.more)
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_listing_comes_in_pages_in_byte_order() {
    let mut world = World::new();
    for directory in ["/d/b", "/d/B", "/d/ü", "/d/ba", "/e/x"] {
        world.mkdir(directory);
    }
    world.write_file("/d/a", &[7]);
    world.request(1, create("/d/unfinished")).unwrap();
    assert_eq!(page(&world, "/d", "", 0), (names(&["B", "a", "b", "ba", "ü"]), false));
    assert_eq!(page(&world, "/d", "", 2), (names(&["B", "a"]), true));
    assert_eq!(page(&world, "/d", "a", 3), (names(&["b", "ba", "ü"]), false));
    assert_eq!(page(&world, "/d", "az", 1), (names(&["b"]), true));
    assert_eq!(page(&world, "/d", "ü", 1), (names(&[]), false));
    assert_eq!(page(&world, "/", "", 9), (names(&["d", "e"]), false));
    let tables = &world.tables;
    assert_eq!(
        refusal(view::list(tables, &path("/d/a"), "", 0)),
        FsError::NotADirectory { path: "/d/a".to_owned() }
    );
    assert_eq!(
        refusal(view::list(tables, &path("/n"), "", 0)),
        FsError::NotFound { path: "/n".to_owned() }
    );
    let long = refusal(view::list(tables, &path("/d"), &"n".repeat(256), 0));
    assert!(matches!(long, FsError::InvalidArgument { field, .. } if field == "start_after"));
}

#[test]
fn a_page_is_never_longer_than_the_protocol_allows() {
    let mut world = World::new();
    for number in 0..1001 {
        // Without the checks of `World`, which read the whole state after each command.
        let command = world.command(1, super::world::mkdir(&format!("/{number:04}"), false));
        let changes = super::apply(&world.tables, &command).unwrap().changes;
        world.tables.apply_changes(changes);
    }
    for asked in [0, 1000, u32::MAX] {
        let (names, more) = page(&world, "/", "", asked);
        assert_eq!((names.len(), more), (1000, true));
    }
}

#[test]
fn stat_tells_nothing_there_from_a_file_in_the_way() {
    let mut world = World::new();
    world.write_file("/f", &[1]);
    let found = |text| view::stat(&world.tables, &path(text));
    assert_eq!(refusal(found("/n/x")), FsError::NotFound { path: "/n/x".to_owned() });
    assert_eq!(refusal(found("/f/x/y")), FsError::NotADirectory { path: "/f".to_owned() });
    let root = found("/").unwrap();
    assert!(root.is_dir() && root.inode.0 == 1 && root.path == "/");
    for nothing in ["/n", "/n/x", "/f/x"] {
        assert_eq!(view::stat_if_exists(&world.tables, &path(nothing)).unwrap(), None);
    }
    assert_eq!(view::path_of(&world.tables, InodeId(1)).unwrap().as_deref(), Some("/"));
    assert_eq!(view::path_of(&world.tables, InodeId(99)).unwrap(), None);
}

#[test]
fn locate_starts_at_the_block_with_the_byte_and_names_another_file() {
    let mut world = World::new();
    let file = world.write_file("/f", &[BLOCK, BLOCK, 5]);
    let locate = |offset, max, inode| {
        let located = view::locate(&world.tables, &path("/f"), offset, max, InodeId(inode));
        located.map(|located| {
            located.blocks.iter().map(|block| (block.index, block.offset)).collect::<Vec<_>>()
        })
    };
    assert_eq!(locate(0, 2, 0).unwrap(), [(0, 0), (1, BLOCK)]);
    assert_eq!(locate(BLOCK - 1, 1, file.inode_id).unwrap(), [(0, 0)]);
    assert_eq!(locate(BLOCK, 0, 0).unwrap(), [(1, BLOCK), (2, 2 * BLOCK)]);
    assert_eq!(locate(2 * BLOCK + 4, 0, 0).unwrap(), [(2, 2 * BLOCK)]);
    assert_eq!(locate(2 * BLOCK + 5, 0, 0).unwrap(), []);
    assert_eq!(locate(u64::MAX, 0, 0).unwrap(), []);
    let changed = FsError::FileChanged { path: "/f".to_owned() };
    assert_eq!(refusal(locate(0, 0, file.inode_id + 1)), changed);
    let directory = FsError::IsADirectory { path: "/".to_owned() };
    assert_eq!(refusal(view::locate(&world.tables, &path("/"), 0, 0, InodeId(0))), directory);
    assert_eq!(view::file_blocks(&world.tables, InodeId(file.inode_id), 2, 9).unwrap().len(), 1);
    assert_eq!(view::file_blocks(&world.tables, InodeId(99), 0, 9).unwrap(), []);
}

fn walked(world: &World, below: &str, max: usize) -> Vec<String> {
    let mut paths = Vec::new();
    let mut cursor: Option<WalkCursor> = None;
    loop {
        let slice = view::walk(&world.tables, &path(below), cursor, max).unwrap();
        assert!(slice.files.len() <= max);
        paths.extend(slice.files.into_iter().map(|file| file.path));
        cursor = slice.next;
        if cursor.is_none() {
            return paths;
        }
    }
}

fn tree() -> World {
    let mut world = World::new();
    world.mkdir("/a/b/empty");
    for file in ["/a/b/2", "/a/b/1", "/a/c", "/a/a", "/z", "/a.b"] {
        world.write_file(file, &[1]);
    }
    world
}

#[test]
fn a_walk_visits_every_file_once_whatever_the_size_of_its_slices() {
    let world = tree();
    let all = ["/a/a", "/a/b/1", "/a/b/2", "/a/c", "/a.b", "/z"];
    for max in [1, 2, 3, 100] {
        assert_eq!(walked(&world, "/", max), all, "{max}");
        assert_eq!(walked(&world, "/a/b", max), ["/a/b/1", "/a/b/2"]);
        assert_eq!(walked(&world, "/z", max), ["/z"]);
    }
    let nothing = refusal(view::walk(&world.tables, &path("/n"), None, 1));
    assert_eq!(nothing, FsError::NotFound { path: "/n".to_owned() });
}

#[test]
fn a_walk_goes_on_in_a_namespace_that_changes() {
    let mut world = tree();
    let first = view::walk(&world.tables, &path("/"), None, 3).unwrap();
    let seen: Vec<&str> = first.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(seen, ["/a/a"], "/a, /a/a and /a/b were visited");
    world.request(1, delete("/a/b/1", false)).unwrap();
    world.request(1, rename("/a/c", "/a/d", false)).unwrap();
    world.request(1, Change::Create(create_command("/a/w"))).unwrap();
    world.collect_all(100);
    let rest = view::walk(&world.tables, &path("/"), first.next, 100).unwrap();
    let seen: Vec<&str> = rest.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(seen, ["/a/b/2", "/a.b", "/z"], "/a/c was read ahead and is not there any more");
    assert!(rest.next.is_none());
}
