//! Files, without a network.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use crate::{Bench, Outcome};

/// Bytes read, sent or written at a time.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

/// As many bytes as one piece has, that no disk folds.
pub(crate) fn piece(bench: &Bench) -> Vec<u8> {
    let mut piece = vec![0; PIECE_BYTES];
    bench.seams.random.fill(&mut piece);
    piece
}

/// Writes a file of all bytes, and leaves it.
pub(crate) fn cached_file(bench: &Bench, name: &str) -> Outcome<PathBuf> {
    let path = bench.dir.path().join(name);
    if std::fs::metadata(&path).is_ok_and(|found| found.len() == bench.bytes) {
        return Ok(path);
    }
    let (mut file, piece) = (File::create(&path)?, piece(bench));
    for _ in 0..bench.bytes / PIECE_BYTES as u64 {
        file.write_all(&piece)?;
    }
    file.sync_all()?;
    Ok(path)
}

/// Copies a file that is in the page cache, piece by piece.
pub(crate) fn copy(bench: &Bench) -> Outcome<()> {
    let source = cached_file(bench, "source")?;
    let target = bench.dir.path().join("copy");
    let (mut from, mut to) = (File::open(source)?, File::create(&target)?);
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let count = io::Read::read(&mut from, &mut buffer)?;
        if count == 0 {
            break;
        }
        to.write_all(&buffer[..count])?;
    }
    Ok(std::fs::remove_file(target)?)
}

/// Writes a file.
pub(crate) fn write(bench: &Bench) -> Outcome<()> {
    write_file(bench, false)
}

/// Writes a file and syncs it.
pub(crate) fn write_synced(bench: &Bench) -> Outcome<()> {
    write_file(bench, true)
}

fn write_file(bench: &Bench, sync: bool) -> Outcome<()> {
    let (path, piece) = (bench.dir.path().join("written"), piece(bench));
    let mut file = File::create(&path)?;
    for _ in 0..bench.bytes / PIECE_BYTES as u64 {
        file.write_all(&piece)?;
    }
    if sync {
        file.sync_data()?;
    }
    Ok(std::fs::remove_file(path)?)
}
