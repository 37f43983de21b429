//! A folder in memory for parsers that read files: there is no point in waiting for a disk hundreds of times a second.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

thread_local! {
    static FOLDER: TempDir =
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
}

/// Runs `body` in a folder of this thread; what an earlier input left is no part of it.
pub(super) fn in_empty_folder(body: impl FnOnce(&Path)) {
    FOLDER.with(|folder| {
        for entry in fs::read_dir(folder.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        body(folder.path());
    });
}
