//! The one write path: every change of the namespace is a record here before anybody is told of it.
//!
//! A journal is a folder of segments, files of fixed length that hold records one after another.
//! Records are written in batches, each with one write and one sync, by one thread ([`CommitLoop`])
//! that takes all that waits ([`JournalWriter::append`]).
//!
//! **What is promised.** A record whose callback said `Ok` is found again by every later
//! [`Replay`], in order, whatever crashed in between; or the journal refuses to be opened and says
//! in which file, at which offset and from which index on it is damaged. It never goes on without a
//! record that was acknowledged. Records that were appended and not acknowledged may or may not be
//! found; nothing else ever is.
//!
//! **Torn or damaged.** A crash may leave the last batch in part; it is cut off at the next start.
//! The same bytes further back are damage. Three things tell them apart: each record says how far
//! the journal was durable when it was written; a mark in the segment's header says so again,
//! written when the journal falls idle; and a record is built so that one written in part shows.
//! Only one case is left open: the last batch, acknowledged in the milliseconds before a crash, of
//! which the medium then lost whole sectors. The layout stands in `docs/formats.md`.
//!
//! **A failed write or sync is final.** Nothing is retried, since a sync that succeeds later proves
//! nothing; everything waiting and everything after is refused, and the process stops.
//!
//! Left to others: what a payload means, the clock, threads (the [`CommitLoop`] and the
//! [`SegmentKeeper`] want one each), and locking the folder.

mod appender;
#[cfg(test)]
mod crash_test;
#[cfg(test)]
mod damage_test;
mod group_commit;
#[cfg(test)]
mod group_commit_test;
mod keeper;
mod record;
#[cfg(test)]
mod record_test;
mod replay;
mod segment;
mod tail;
#[cfg(test)]
pub(crate) mod test_disk;
#[cfg(test)]
mod test_journal;
mod window;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use doldam_proto::id::JournalIndex;

pub use self::group_commit::{AppendDone, CommitLoop, JournalWriter, OnBatch, WrittenBatch, start};
pub use self::keeper::SegmentKeeper;
pub use self::record::{Record, RecordRef};
pub use self::replay::{CutTail, JournalEnd, Replay};

/// Why the journal cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The medium failed.
    #[error("{what} {path} failed", path = path.display())]
    Io {
        /// Which operation.
        what: &'static str,
        /// Of which file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// Records that were acknowledged cannot be read. Restore the folder, or the whole namenode,
    /// from another copy: going on would lose them.
    #[error(
        "{path} is damaged at offset {offset}, where record {index} is expected: {what}",
        path = path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// The first record that cannot be read.
        index: JournalIndex,
        /// What is wrong.
        what: &'static str,
    },
    /// Written by another version of Doldam.
    #[error(
        "{path} has format version {found}; this program knows {known}",
        path = path.display()
    )]
    UnknownVersion {
        /// Which file.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// What this program reads and writes.
        known: u32,
    },
    /// Records that the state needs were removed, or belong to another state.
    #[error(
        "{dir} holds no record before {first}, but the state needs all from {needed}",
        dir = dir.display()
    )]
    MissingStart {
        /// The journal's folder.
        dir: PathBuf,
        /// Its first record.
        first: JournalIndex,
        /// The first record the state does not have.
        needed: JournalIndex,
    },
    /// The state has records that the journal does not: segments were lost, or belong to another
    /// state.
    #[error(
        "{dir} ends with record {last}, but the state already has those before {needed}",
        dir = dir.display()
    )]
    MissingEnd {
        /// The journal's folder.
        dir: PathBuf,
        /// Its last record.
        last: JournalIndex,
        /// The first record the state does not have.
        needed: JournalIndex,
    },
    /// A record that fits no batch.
    #[error("record {index} has {bytes} bytes; the most is {bytes_max}")]
    TooLarge {
        /// The record.
        index: JournalIndex,
        /// Bytes it would take.
        bytes: usize,
        /// Bytes it may take.
        bytes_max: usize,
    },
    /// A record that does not follow the one before. Nothing was appended.
    #[error("record {found} was appended where {expected} is next")]
    OutOfOrder {
        /// What comes next.
        expected: JournalIndex,
        /// What came.
        found: JournalIndex,
    },
    /// An earlier write or sync failed: nothing is written any more.
    #[error("the journal has failed before")]
    Failed {
        /// That failure.
        source: Arc<JournalError>,
    },
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}

impl JournalError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    fn damaged(path: &Path, offset: u64, index: JournalIndex, what: &'static str) -> Self {
        Self::Damaged { path: path.to_owned(), offset, index, what }
    }
}

/// Settings of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalOptions {
    /// Length of new segments; rounded up to 4 KiB. Two of them are open for writing at most.
    pub segment_bytes: u64,
    /// Most bytes written with one sync, and so the most of one record.
    pub batch_bytes_max: usize,
    /// Bytes that may wait; who appends more waits too.
    pub queue_bytes_max: usize,
    /// How long the journal is idle before it marks what it has acknowledged.
    pub mark_after: Duration,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            batch_bytes_max: 4 << 20,
            queue_bytes_max: 16 << 20,
            mark_after: Duration::from_millis(20),
        }
    }
}

impl JournalOptions {
    /// The same settings, within what the format allows and consistent with each other.
    fn checked(mut self) -> Self {
        self.segment_bytes = self
            .segment_bytes
            .clamp(2 * segment::SEGMENT_GRAIN_BYTES, segment::SEGMENT_BYTES_MAX)
            .next_multiple_of(segment::SEGMENT_GRAIN_BYTES);
        let room = usize::try_from(self.segment_bytes - segment::RECORDS_START);
        let extent_max = record::extent_bytes(record::PAYLOAD_BYTES_MAX);
        self.batch_bytes_max = self.batch_bytes_max.min(room.unwrap_or(usize::MAX)).min(extent_max);
        self.queue_bytes_max = self.queue_bytes_max.max(self.batch_bytes_max);
        self
    }
}
