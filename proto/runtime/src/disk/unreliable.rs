//! The real disk with faults, for tests: it counts operations, and lets any one of them fail, fill the disk or be
//! the last before a crash.
//!
//! A test runs an operation once to count what it does to the disk, then again for each number with a fault there:
//!
//! * an **error** strikes one operation, or that one and every later one;
//! * a **crash** cuts a write in half and lets everything after it fail, so that the files stay as they were at that
//!   moment whatever the dying process still tries;
//! * a **loss of power** then takes away what was not synced ([`UnreliableDisk::lose_power`]).
//!
//! What survives a loss of power is kept by [`survival`]; it is as bad as the rules of [`Disk`] allow.

mod survival;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
pub use survival::{Bytes, Names};
use survival::{FileId, Survival};

use super::{DirEntry, DirLock, Disk, DiskFile, OpenMode, RealDisk, Space};

/// `EIO`: the disk cannot do it.
pub const EIO: i32 = 5;
/// `ENOSPC`: the disk is full.
pub const ENOSPC: i32 = 28;

/// Size of the disk as it says, always the same, so that what is chosen by free room does not depend on the machine.
const TOTAL_BYTES: u64 = 1 << 40;

/// What goes wrong, and at which operation from now on, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// One operation fails with this error of the system; a lack of room strikes only what may need some.
    Once {
        /// Which operation.
        at: u64,
        /// Number of the error.
        errno: i32,
    },
    /// The same for it and every later one.
    From {
        /// Which operation is the first.
        at: u64,
        /// Number of the error.
        errno: i32,
    },
    /// The process dies. Only operations that change something are counted: to die at one that looks is to die at the
    /// next change.
    Crash {
        /// Which change is not carried out any more; half of it is, if it is a write.
        at: u64,
    },
}

/// What an operation is asked of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// It only looks.
    Look,
    /// It changes something and may need room for it.
    Room,
    /// It changes something and needs no room: it removes.
    NoRoom,
}

/// How an operation goes.
enum Verdict {
    Pass,
    /// Half of it is done, then the error is returned.
    Torn(io::Error),
}

/// The real disk below one folder, with faults. Clones share everything.
#[derive(Clone)]
pub struct UnreliableDisk {
    shared: Arc<Shared>,
}

struct Shared {
    root: PathBuf,
    state: Mutex<State>,
}

struct State {
    /// Only operations below it are counted and fail.
    below: PathBuf,
    /// What the disk says is free.
    available: u64,
    operations: u64,
    /// Those that change something.
    changes: u64,
    /// With the number of the operation counted from the beginning.
    fault: Option<Fault>,
    crashed: bool,
    survival: Survival,
}

impl UnreliableDisk {
    /// Over the existing folder `root`; what is in it counts as synced.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn over(root: &Path) -> io::Result<Self> {
        let survival = Survival::of(root)?;
        let state = State {
            below: root.to_owned(),
            available: TOTAL_BYTES / 2,
            operations: 0,
            changes: 0,
            fault: None,
            crashed: false,
            survival,
        };
        Ok(Self { shared: Arc::new(Shared { root: root.to_owned(), state: Mutex::new(state) }) })
    }

    /// Counts only operations on `folder` and what is below it from now on, and lets only those fail.
    pub fn strike_below(&self, folder: &Path) {
        folder.clone_into(&mut self.shared.state.lock().below);
    }

    /// Says that so many bytes are free; it does not go down by itself.
    pub fn set_available(&self, bytes: u64) {
        self.shared.state.lock().available = bytes;
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.shared.state.lock().operations
    }

    /// Those among them that change something.
    pub fn changes(&self) -> u64 {
        self.shared.state.lock().changes
    }

    /// Plans a fault in place of the one before; its operation is counted from now on.
    pub fn plan(&self, fault: Fault) {
        let mut state = self.shared.state.lock();
        let now = state.operations;
        state.fault = Some(match fault {
            Fault::Once { at, errno } => Fault::Once { at: now + at, errno },
            Fault::From { at, errno } => Fault::From { at: now + at, errno },
            Fault::Crash { at } => Fault::Crash { at: state.changes + at },
        });
    }

    /// Lets everything succeed again; a crash cannot be undone.
    pub fn heal(&self) {
        self.shared.state.lock().fault = None;
    }

    /// Whether the planned crash has come.
    pub fn has_crashed(&self) -> bool {
        self.shared.state.lock().crashed
    }

    /// The power fails: leaves on the real disk what survives. This disk is of no use any more.
    ///
    /// # Errors
    /// If the real disk fails.
    pub fn lose_power(&self, names: Names, bytes: Bytes) -> io::Result<()> {
        let mut state = self.shared.state.lock();
        state.crashed = true;
        state.survival.leave(&self.shared.root, names, bytes)
    }
}

/// Flips one bit of a file on the real disk.
///
/// # Errors
/// If the file has no such byte.
pub fn flip_bit(path: &Path, byte: u64, bit: u8) -> io::Result<()> {
    let file = RealDisk.open(path, OpenMode::Write)?;
    let mut found = [0];
    file.read_exact_at(&mut found, byte)?;
    file.write_all_at(&[found[0] ^ (1 << (bit % 8))], byte)
}

impl Shared {
    fn enter(&self, path: &Path, need: Need) -> io::Result<()> {
        match self.judge(path, need)? {
            Verdict::Pass => Ok(()),
            Verdict::Torn(cause) => Err(cause),
        }
    }

    fn judge(&self, path: &Path, need: Need) -> io::Result<Verdict> {
        let mut state = self.state.lock();
        if state.crashed {
            return Err(crash());
        }
        if !path.starts_with(&state.below) {
            return Ok(Verdict::Pass);
        }
        let number = state.operations;
        state.operations += 1;
        let change = (need != Need::Look).then_some(state.changes);
        state.changes += u64::from(change.is_some());
        let strikes = |errno| errno != ENOSPC || need == Need::Room;
        match state.fault {
            Some(Fault::Once { at, errno }) if at == number && strikes(errno) => {
                Err(io::Error::from_raw_os_error(errno))
            }
            Some(Fault::From { at, errno }) if at <= number && strikes(errno) => {
                Err(io::Error::from_raw_os_error(errno))
            }
            Some(Fault::Crash { at }) if change == Some(at) => {
                state.crashed = true;
                Ok(Verdict::Torn(crash()))
            }
            Some(Fault::Once { .. } | Fault::From { .. } | Fault::Crash { .. }) | None => {
                Ok(Verdict::Pass)
            }
        }
    }

    fn survival<T>(&self, change: impl FnOnce(&mut Survival) -> T) -> T {
        change(&mut self.state.lock().survival)
    }
}

/// Whatever a process gets from its disk once it is dead: nothing that it could mistake for an answer.
fn crash() -> io::Error {
    io::Error::other("the process has crashed")
}

impl Disk for UnreliableDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let need = if mode == OpenMode::CreateNew { Need::Room } else { Need::Look };
        self.shared.enter(path, need)?;
        let file = RealDisk.open(path, mode)?;
        let id = self.shared.survival(|survival| match mode {
            OpenMode::CreateNew => survival.created(path),
            OpenMode::Read | OpenMode::Write => survival.opened(path),
        });
        let (path, shared) = (path.to_owned(), Arc::clone(&self.shared));
        Ok(Box::new(UnreliableFile { file, path, id, shared }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.shared.enter(to, Need::Room)?;
        RealDisk.rename(from, to)?;
        self.shared.survival(|survival| survival.renamed(from, to));
        Ok(())
    }

    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()> {
        self.shared.enter(link, Need::Room)?;
        RealDisk.hard_link(original, link)?;
        self.shared.survival(|survival| survival.linked(original, link));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.shared.enter(path, Need::NoRoom)?;
        RealDisk.remove_file(path)?;
        self.shared.survival(|survival| survival.removed(path));
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.shared.enter(path, Need::Room)?;
        RealDisk.create_dir_all(path)?;
        self.shared.survival(|survival| survival.folder_created(path));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.shared.enter(path, Need::NoRoom)?;
        RealDisk.remove_dir_all(path)?;
        self.shared.survival(|survival| survival.folder_removed(path));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.shared.enter(path, Need::Room)?;
        RealDisk.list(path)?; // Fails as the real one does; the sync itself would only cost time.
        self.shared.survival(|survival| survival.folder_synced(path));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.shared.enter(path, Need::Look)?;
        RealDisk.list(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.shared.enter(path, Need::Look)?;
        RealDisk.space(path)?; // Fails as the real one does.
        Ok(Space { total: TOTAL_BYTES, available: self.shared.state.lock().available })
    }

    fn file_bytes(&self, path: &Path) -> io::Result<Option<u64>> {
        self.shared.enter(path, Need::Look)?;
        RealDisk.file_bytes(path)
    }

    fn lock_dir(&self, path: &Path) -> io::Result<DirLock> {
        self.shared.enter(path, Need::Look)?;
        RealDisk.lock_dir(path)
    }
}

struct UnreliableFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    id: FileId,
    shared: Arc<Shared>,
}

impl UnreliableFile {
    fn sync(&self) -> io::Result<()> {
        self.shared.enter(&self.path, Need::Room)?;
        let mut content = vec![0; self.file.len()? as usize];
        self.file.read_exact_at(&mut content, 0)?;
        self.shared.survival(|survival| survival.file_synced(self.id, content));
        Ok(())
    }
}

impl DiskFile for UnreliableFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.shared.enter(&self.path, Need::Look)?;
        self.file.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.shared.judge(&self.path, Need::Room)? {
            Verdict::Pass => self.file.write_all_at(bytes, offset),
            Verdict::Torn(cause) => {
                self.file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
                Err(cause)
            }
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.shared.enter(&self.path, Need::Room)?;
        self.file.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.shared.enter(&self.path, Need::Look)?;
        self.file.len()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }
}

#[cfg(test)]
#[path = "unreliable_test.rs"]
mod tests;
