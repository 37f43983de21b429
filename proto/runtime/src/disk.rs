//! Files: the only door to the disk.
//!
//! Everything here blocks; call it where blocking is allowed. Nothing is durable before it was synced: bytes by
//! [`DiskFile::sync_data`], names (created, renamed, removed) by [`Disk::sync_dir`] of their folder. An
//! implementation may lose everything else in a crash, and a simulated one does.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod publish;
mod real;
#[cfg(any(test, feature = "conformance"))]
pub mod unreliable;

use std::io;
use std::path::Path;

pub use publish::{create_dir_durably, read_file_bounded, write_file_durably};
pub use real::RealDisk;

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// It exists; reading only.
    Read,
    /// It exists; reading and writing.
    Write,
    /// It must not exist; reading and writing.
    CreateNew,
}

/// One name in a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// Its name; what is not UTF-8 (never one of ours) is replaced and thus cannot be opened by it.
    pub name: String,
    /// Whether it is a folder.
    pub is_dir: bool,
    /// Length, if it is a file.
    pub bytes: u64,
}

/// Room on the file system of a folder, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// In all.
    pub total: u64,
    /// Free for this process.
    pub available: u64,
}

/// Held as long as it lives: see [`Disk::lock_dir`].
pub type DirLock = Box<dyn Send + Sync>;

/// A file system.
///
/// # Errors
/// Every operation fails as the system's own does; `NotFound`, `AlreadyExists` and `StorageFull` are told apart
/// by [`io::Error::kind`].
#[allow(clippy::missing_errors_doc, reason = "said once, above")]
pub trait Disk: Send + Sync + 'static {
    /// Opens or creates the file at `path`.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file or folder another name on the same file system; replaces a file of that name atomically.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives the file at `original` a second name on the same file system: one file, whatever is written through
    /// either; it lives until both are removed. Fails if `link` is there.
    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()>;

    /// Removes the name of a file; who has it open may go on using it.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Creates a folder with all its parents; it may exist. See [`create_dir_durably`].
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder with all that is in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a folder, in order.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// Room on the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;

    /// Length of the file at `path`; `None` if nothing is there.
    fn file_bytes(&self, path: &Path) -> io::Result<Option<u64>>;

    /// Takes a folder for this process alone, until the lock is dropped or the process ends in any way.
    /// `WouldBlock` if another one, or another part of this one, has it.
    fn lock_dir(&self, path: &Path) -> io::Result<DirLock>;
}

/// An open file. Reads and writes name their offset, so that several threads may share it.
///
/// # Errors
/// Every operation fails as the system's own does. A failed sync is final: what was written since the last good
/// one may be lost, and a later sync that succeeds proves nothing.
#[allow(clippy::missing_errors_doc, reason = "said once, above")]
pub trait DiskFile: Send + Sync {
    /// Reads at most `buffer.len()` bytes at `offset`; 0 only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Fills `buffer` from `offset`; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => {
                    buffer = &mut buffer[count..];
                    offset += count as u64;
                }
            }
        }
        Ok(())
    }

    /// Writes all of `bytes` at `offset`, beyond the end too. After an error any part of it may be written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file, or lets it grow by a hole that reads as zeros.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the length is 0.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Makes content and length durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes content, length and attributes (times, owner) durable.
    fn sync_all(&self) -> io::Result<()>;

    /// Writes zeros from the present end up to `bytes`: later writes below change neither length nor allocation,
    /// and a sync of them is half as dear. Not durable until synced.
    fn preallocate_zeroed(&self, bytes: u64) -> io::Result<()> {
        const ZEROS: &[u8] = &[0; 1 << 20];
        let mut offset = self.len()?;
        while offset < bytes {
            let count = ZEROS.len().min((bytes - offset) as usize);
            self.write_all_at(&ZEROS[..count], offset)?;
            offset += count as u64;
        }
        Ok(())
    }
}
