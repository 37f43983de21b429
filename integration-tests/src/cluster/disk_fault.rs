//! What a datanode has on disk, and damage to it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use doldam_client::BlockId;

/// One of the two files of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaFile {
    /// The bytes of the block.
    Data,
    /// Its checksum tree.
    Sidecar,
}

impl ReplicaFile {
    fn extension(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Sidecar => "side",
        }
    }
}

/// All files below `folder`.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // A running datanode may remove what was listed a moment ago.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(_) => found.push(entry.path()),
                Err(_) => {}
            }
        }
    }
    found.sort();
    found
}

/// The file of a replica of `block` under a datanode's folder, if there is one.
pub fn replica_file(folder: &Path, block: BlockId, which: ReplicaFile) -> Option<PathBuf> {
    files_below(&folder.join("blocks")).into_iter().find(|path| {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let id = stem.split('_').next().unwrap_or_default();
        let is_kind = path.extension().is_some_and(|end| end == which.extension());
        is_kind && u64::from_str_radix(id, 16) == Ok(block.0)
    })
}

/// Bytes of all block files below a datanode's folder.
pub fn stored_bytes(folder: &Path) -> u64 {
    let files = files_below(folder);
    let data = files.iter().filter(|path| path.extension().is_some_and(|end| end == "data"));
    data.filter_map(|path| fs::metadata(path).ok()).map(|file| file.len()).sum()
}

/// Flips the lowest bit of the byte at `offset` in place, as a failing disk does: behind the back of the server.
pub fn flip_bit(path: &Path, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    byte[0] ^= 1;
    file.write_all_at(&byte, offset).unwrap();
}
