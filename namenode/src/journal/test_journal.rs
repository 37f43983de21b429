//! A small journal on a disk that crashes, written without threads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use doldam_proto::id::{Epoch, JournalIndex};
use doldam_runtime::clock::ManualClock;

use super::test_disk::CrashDisk;
use super::{
    CommitLoop, JournalEnd, JournalError, JournalOptions, JournalWriter, Record, Replay,
    SegmentKeeper, start,
};

pub(super) const FOLDER: &str = "/journal";

/// The smallest segments: 4 KiB of records each.
pub(super) fn small() -> JournalOptions {
    JournalOptions { segment_bytes: 8192, ..JournalOptions::default() }
}

/// A record whose payload tells its index and length.
pub(super) fn record_of(index: u64, payload_bytes: usize) -> Record {
    let payload: Vec<u8> =
        (0..payload_bytes as u64).map(|at| (index * 31 + at * 7) as u8 | 1).collect();
    Record { index: JournalIndex(index), epoch: Epoch(1), payload: Bytes::from(payload) }
}

/// Everything from `from` on, and the end.
pub(super) fn read_all(
    disk: &Arc<CrashDisk>,
    from: u64,
) -> Result<(Vec<Record>, JournalEnd), JournalError> {
    let disk = Arc::clone(disk) as Arc<_>;
    let mut replay = Replay::open(disk, Path::new(FOLDER), JournalIndex(from))?;
    let mut records = Vec::new();
    while let Some(record) = replay.next_record()? {
        let payload = Bytes::copy_from_slice(record.payload);
        records.push(Record { index: record.index, epoch: record.epoch, payload });
    }
    Ok((records, replay.finish()?))
}

/// Starts to write behind `end` in the epoch 1.
pub(super) fn start_small(
    end: JournalEnd,
) -> Result<(JournalWriter, CommitLoop, SegmentKeeper), JournalError> {
    start(end, Epoch(1), small(), Arc::new(ManualClock::default()), Box::new(|_| ()))
}

/// A journal of the batches given by the payload lengths of their records. All are acknowledged;
/// `marked` says whether the journal had the time to mark that.
pub(super) fn journal_of(batches: &[&[usize]], marked: bool) -> (Arc<CrashDisk>, Vec<Record>) {
    let disk = CrashDisk::with_folder(FOLDER);
    let (_, end) = read_all(&disk, 1).unwrap();
    let (_writer, mut commit_loop, _keeper) = start_small(end).unwrap();
    let mut records: Vec<Record> = Vec::new();
    for batch in batches {
        let first = records.len() as u64 + 1;
        let batch: Vec<Record> = (first..)
            .zip(*batch)
            .map(|(index, payload_bytes)| record_of(index, *payload_bytes))
            .collect();
        commit_loop.appender.append(&batch).unwrap();
        records.extend(batch);
    }
    if marked {
        commit_loop.appender.mark().unwrap();
    }
    (disk, records)
}

/// Path of a segment.
pub(super) fn segment_path(number: u64) -> PathBuf {
    super::segment::path_of(Path::new(FOLDER), number)
}
