//! The replicas of this node on its disks.
//!
//! A replica is two files that never change once they are published: the bytes of the block, and a
//! sidecar with the tree over them. Every name on disk is in [`layout`], every byte of our formats
//! in `docs/formats.md`.
//!
//! * [`layout`]: folders and file names.
//! * [`version_file`], [`sidecar`], [`scrub_file`]: the formats, each with its reader and writer.
//! * [`volume`]: one data folder: its identity, its space, its health.
//! * [`startup`]: from the files that are found to the inventory.
//! * [`store`]: the replicas of all folders; what may be read, written, dropped.
//! * [`open`], [`partial`], [`publish`]: a block on its way in, and the moment it becomes a replica.
//! * [`left`], [`takeover`]: what writers left, and who goes on with it, or with a replica.
//! * [`recovery`]: what is made of it when nobody does.
//! * [`readable`]: what a reader is given, of replicas and of open blocks.
//! * [`removal`]: quarantine and drop.
//! * [`taken_out`]: the replicas of a folder that failed.
//! * [`late_sync`]: the syncs that were not waited for.
//! * [`verify`]: whether a replica is what it should be.
//!
//! Everything in here blocks. What touches no more than the page cache is called inline by the
//! block streams; whatever waits for a disk (syncs, verification) runs in blocking threads.

pub(crate) mod late_sync;
pub(crate) mod layout;
pub(crate) mod left;
pub(crate) mod open;
pub(crate) mod partial;
pub(crate) mod publish;
pub(crate) mod readable;
pub(crate) mod recovery;
pub(crate) mod removal;
pub(crate) mod scrub_file;
pub(crate) mod sidecar;
pub(crate) mod startup;
pub(crate) mod store;
pub(crate) mod taken_out;
pub(crate) mod takeover;
pub(crate) mod verify;
pub(crate) mod version_file;
pub(crate) mod volume;

#[cfg(test)]
mod crash_test;
#[cfg(test)]
mod flip_test;

use std::io;
use std::path::PathBuf;

use doldam_proto::id::Generation;

use crate::engine::open_blocks::Refusal;
use crate::engine::replica::ReplicaKey;

/// Why the store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// Nothing of this block is here.
    #[error("{key} is not here")]
    NotFound {
        /// As asked for.
        key: ReplicaKey,
    },
    /// The block is here, or on its way in, under another generation.
    #[error("{key} is not here: generation {found} is")]
    OtherGeneration {
        /// As asked for.
        key: ReplicaKey,
        /// What is here.
        found: Generation,
    },
    /// It is here already.
    #[error("{key} is here already")]
    Exists {
        /// As asked for.
        key: ReplicaKey,
    },
    /// Somebody else is writing it.
    #[error("{key} is being written already")]
    BeingWritten {
        /// As asked for.
        key: ReplicaKey,
    },
    /// A part of it is here, left by its writer.
    #[error("{key} was left by its writer here; it is gone on with under a newer generation only")]
    Left {
        /// As asked for.
        key: ReplicaKey,
    },
    /// What is here of it has other bytes.
    #[error("the first {length} bytes of {key} here are not those that were asked for")]
    OtherBytes {
        /// As asked for.
        key: ReplicaKey,
        /// How many were asked for.
        length: u64,
    },
    /// Less of it is here than asked for.
    #[error("{length} bytes of {key} are asked for, and no replica here has so many")]
    TooShort {
        /// As asked for.
        key: ReplicaKey,
        /// How many were asked for.
        length: u64,
    },
    /// It is here, and known to be bad.
    #[error("{key} is bad and in quarantine")]
    Quarantined {
        /// As asked for.
        key: ReplicaKey,
    },
    /// It was found to be bad just now.
    #[error("{key} is bad: {what}")]
    Damaged {
        /// As asked for.
        key: ReplicaKey,
        /// What is wrong.
        what: String,
    },
    /// No data folder has room.
    #[error("no data folder has {needed} bytes left beside its reserve (the most is {available})")]
    NoSpace {
        /// What the block needs at once.
        needed: u64,
        /// What the emptiest folder could give.
        available: u64,
    },
    /// Every data folder has failed.
    #[error("every data folder has failed")]
    NoFolder,
    /// The disk failed.
    #[error("{path}: {during} failed")]
    Disk {
        /// File or folder.
        path: PathBuf,
        /// Which operation.
        during: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

impl StoreError {
    /// For `map_err`: `during` failed on `path`.
    pub(crate) fn disk(
        path: impl Into<PathBuf>,
        during: &'static str,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Disk { path, during, source }
    }

    /// What it means that a block may not be had.
    pub(crate) fn refused(key: ReplicaKey, refusal: Refusal) -> Self {
        match refusal {
            Refusal::Newer(found) => Self::OtherGeneration { key, found },
            Refusal::Claimed => Self::BeingWritten { key },
            Refusal::Left => Self::Left { key },
        }
    }

    /// Whether the disk is full, rather than broken.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::NoSpace { .. } => true,
            Self::Disk { source, .. } => is_full(source),
            _ => false,
        }
    }
}

/// Whether an error means that there is no room, which harms nothing that is stored.
pub(crate) fn is_full(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether an error while changing a folder means that the folder can no longer be trusted with new
/// blocks: all but a lack of room, of memory or of file handles, which pass.
pub(crate) fn is_folder_failure(cause: &io::Error) -> bool {
    use rustix::io::Errno;
    let passing = [Errno::NFILE, Errno::MFILE, Errno::NOMEM, Errno::INTR, Errno::AGAIN];
    let is_passing = cause
        .raw_os_error()
        .is_some_and(|code| passing.iter().any(|errno| errno.raw_os_error() == code));
    !is_full(cause) && !is_passing
}

/// Whether an error while reading means that this replica is damaged: a file is missing or too
/// short, or the disk cannot read it. A lack of memory or file handles says nothing about the
/// replica.
pub(crate) fn is_damage(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData
    ) || (cause.raw_os_error().is_some() && is_folder_failure(cause))
}
