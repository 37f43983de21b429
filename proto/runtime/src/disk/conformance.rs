//! What every [`Disk`] must do. Call [`check`] with an empty folder of a new implementation.

use std::io::ErrorKind;
use std::path::Path;

use super::{Disk, OpenMode};

/// Runs the whole suite in `folder`, which exists and is empty.
///
/// # Panics
/// At the first promise that is not kept.
pub fn check(disk: &dyn Disk, folder: &Path) {
    opens_only_what_its_mode_allows(disk, folder);
    reads_what_was_written_where_it_was_written(disk, folder);
    grows_with_zeros_and_shrinks(disk, folder);
    renames_over_and_removes(disk, folder);
    links_one_file_under_two_names(disk, folder);
    lists_in_order(disk, folder);
    locks_a_folder_once(disk, folder);
    tells_its_space(disk, folder);
}

fn kind<T>(result: std::io::Result<T>) -> Option<ErrorKind> {
    result.err().map(|cause| cause.kind())
}

fn opens_only_what_its_mode_allows(disk: &dyn Disk, folder: &Path) {
    let path = folder.join("modes");
    assert_eq!(kind(disk.open(&path, OpenMode::Read)), Some(ErrorKind::NotFound));
    assert_eq!(kind(disk.open(&path, OpenMode::Write)), Some(ErrorKind::NotFound));
    assert_eq!(kind(disk.open(&path, OpenMode::CreateNew)), None);
    assert_eq!(kind(disk.open(&path, OpenMode::CreateNew)), Some(ErrorKind::AlreadyExists));

    let read_only = disk.open(&path, OpenMode::Read).expect("it exists");
    assert!(read_only.write_all_at(b"x", 0).is_err(), "a file opened to be read was written");
    let nowhere = folder.join("no such folder/file");
    assert_eq!(kind(disk.open(&nowhere, OpenMode::CreateNew)), Some(ErrorKind::NotFound));
}

fn reads_what_was_written_where_it_was_written(disk: &dyn Disk, folder: &Path) {
    let path = folder.join("content");
    let file = disk.open(&path, OpenMode::CreateNew).expect("creates");
    file.write_all_at(b"world", 6).expect("writes beyond the end");
    file.write_all_at(b"hello ", 0).expect("writes");
    file.sync_data().expect("syncs");
    file.sync_all().expect("syncs");

    let again = disk.open(&path, OpenMode::Read).expect("opens");
    let mut buffer = [0; 11];
    again.read_exact_at(&mut buffer, 0).expect("reads");
    assert_eq!(&buffer, b"hello world");
    assert_eq!(again.read_at(&mut buffer, 11).expect("reads at the end"), 0);
    assert_eq!(again.read_at(&mut buffer, 99).expect("reads beyond the end"), 0);
    assert_eq!(kind(again.read_exact_at(&mut buffer, 1)), Some(ErrorKind::UnexpectedEof));
    assert_eq!(again.len().expect("knows its length"), 11);
    assert_eq!(disk.file_bytes(&path).expect("knows its length"), Some(11));
    assert_eq!(disk.file_bytes(&folder.join("nothing")).expect("sees nothing"), None);
}

fn grows_with_zeros_and_shrinks(disk: &dyn Disk, folder: &Path) {
    let file = disk.open(&folder.join("length"), OpenMode::CreateNew).expect("creates");
    assert!(file.is_empty().expect("knows its length"));
    file.write_all_at(b"abc", 0).expect("writes");
    file.set_len(2).expect("shrinks");
    file.preallocate_zeroed(5).expect("grows");
    let mut buffer = [9; 5];
    file.read_exact_at(&mut buffer, 0).expect("reads");
    assert_eq!(&buffer, b"ab\0\0\0");
    file.preallocate_zeroed(3).expect("never shrinks");
    file.set_len(8).expect("grows by a hole");
    assert_eq!(file.len().expect("knows its length"), 8);
    let mut buffer = [9; 3];
    file.read_exact_at(&mut buffer, 5).expect("reads a hole");
    assert_eq!(buffer, [0; 3]);
}

fn renames_over_and_removes(disk: &dyn Disk, folder: &Path) {
    let (old, new) = (folder.join("old"), folder.join("new"));
    for (path, content) in [(&old, b"old"), (&new, b"new")] {
        let file = disk.open(path, OpenMode::CreateNew).expect("creates");
        file.write_all_at(content, 0).expect("writes");
    }
    disk.rename(&old, &new).expect("replaces a file");
    disk.sync_dir(folder).expect("syncs a folder");
    assert_eq!(kind(disk.open(&old, OpenMode::Read)), Some(ErrorKind::NotFound));

    let held = disk.open(&new, OpenMode::Read).expect("opens");
    disk.remove_file(&new).expect("removes");
    assert_eq!(kind(disk.remove_file(&new)), Some(ErrorKind::NotFound));
    assert_eq!(kind(disk.rename(&new, &old)), Some(ErrorKind::NotFound));
    let mut buffer = [0; 3];
    held.read_exact_at(&mut buffer, 0).expect("a removed file lives as long as it is open");
    assert_eq!(&buffer, b"old");
}

fn links_one_file_under_two_names(disk: &dyn Disk, folder: &Path) {
    let (first, second) = (folder.join("first"), folder.join("second"));
    assert_eq!(kind(disk.hard_link(&first, &second)), Some(ErrorKind::NotFound));
    let file = disk.open(&first, OpenMode::CreateNew).expect("creates");
    file.write_all_at(b"one", 0).expect("writes");
    disk.hard_link(&first, &second).expect("links");
    assert_eq!(kind(disk.hard_link(&first, &second)), Some(ErrorKind::AlreadyExists));
    disk.sync_dir(folder).expect("syncs a folder");

    let through = disk.open(&second, OpenMode::Write).expect("opens by the second name");
    through.write_all_at(b"+two", 3).expect("writes");
    assert_eq!(disk.file_bytes(&first).expect("knows its length"), Some(7));
    disk.rename(&second, &folder.join("moved")).expect("renames one of the names");
    disk.remove_file(&first).expect("removes the other");
    let left = disk.open(&folder.join("moved"), OpenMode::Read).expect("one name is left");
    let mut buffer = [0; 7];
    left.read_exact_at(&mut buffer, 0).expect("reads");
    assert_eq!(&buffer, b"one+two");
}

fn lists_in_order(disk: &dyn Disk, folder: &Path) {
    let tree = folder.join("tree");
    disk.create_dir_all(&tree.join("b/deep")).expect("creates folders");
    disk.create_dir_all(&tree.join("b")).expect("they may exist");
    for name in ["c", "a"] {
        let file = disk.open(&tree.join(name), OpenMode::CreateNew).expect("creates");
        file.write_all_at(name.as_bytes(), 0).expect("writes");
    }
    let found = disk.list(&tree).expect("lists");
    let found: Vec<_> =
        found.iter().map(|entry| (entry.name.as_str(), entry.is_dir, entry.bytes)).collect();
    assert_eq!(found, [("a", false, 1), ("b", true, 0), ("c", false, 1)]);
    disk.remove_dir_all(&tree).expect("removes all");
    assert_eq!(kind(disk.list(&tree)), Some(ErrorKind::NotFound));
    assert_eq!(kind(disk.sync_dir(&tree)), Some(ErrorKind::NotFound));
}

fn locks_a_folder_once(disk: &dyn Disk, folder: &Path) {
    let held = disk.lock_dir(folder).expect("nobody has it");
    assert_eq!(kind(disk.lock_dir(folder)), Some(ErrorKind::WouldBlock));
    drop(held);
    drop(disk.lock_dir(folder).expect("free again"));
}

fn tells_its_space(disk: &dyn Disk, folder: &Path) {
    let space = disk.space(folder).expect("tells");
    assert!(space.available <= space.total && space.total > 0, "{space:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn the_real_disk_conforms() {
        let folder = tempfile::tempdir().unwrap();
        check(&RealDisk, folder.path());
    }
}
