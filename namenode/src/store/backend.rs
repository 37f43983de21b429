//! The database's file as a [`DiskFile`], so that a simulated disk can stand below it.

use std::fmt;
use std::io;

use doldam_runtime::disk::DiskFile;

/// Adapts a file to the storage engine.
pub(super) struct DiskBackend(pub(super) Box<dyn DiskFile>);

impl fmt::Debug for DiskBackend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DiskBackend").finish_non_exhaustive()
    }
}

/// Locking is left out: the namenode locks its whole folder.
impl redb::StorageBackend for DiskBackend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}
