//! A machine's disks in memory, with all that a disk may do to a program.
//!
//! A [`Machine`] outlives the processes on it. A process sees it through a [`SimDisk`] of its own, which is cut off
//! with the process: what a killed process still does changes nothing. A kill leaves the page cache; a power loss
//! leaves what was synced, and of the rest some: bytes by sectors, names by changes. See [`Faults`] for the others.

mod content;
mod names;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use doldam_runtime::disk::{DirEntry, DirLock, Disk, DiskFile, OpenMode, Space};
use doldam_runtime::random::{Random, SeededRandom};
use parking_lot::Mutex;

use self::content::Content;
use self::names::{Entry, Inode, Names};
use super::pace;
use super::process::Incarnation;
use super::trace::Trace;

/// Room on a machine whose disk is not full.
const ROOM_BYTES: u64 = 16 << 30;
/// Name of the file that `lock_dir` takes, as on the real disk.
const LOCK_NAME: &str = "LOCK";

/// How a machine's disk misbehaves at present.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Of a thousand reads, how many fail.
    pub read_errors: u64,
    /// How many more syncs of files succeed before one fails and loses what it was to keep.
    pub sync_fails_after: Option<u64>,
    /// Bytes that may still be written before it is full.
    pub room: Option<u64>,
    /// How long each sync takes longer.
    pub slow: Duration,
    /// How many more changes of the disk the process on it survives.
    pub crash_after: Option<u64>,
}

/// A machine: its disk stays when its processes go.
#[derive(Debug)]
pub struct Machine {
    name: String,
    state: Mutex<State>,
    chance: SeededRandom,
    trace: Arc<Trace>,
}

#[derive(Debug, Default)]
struct State {
    names: Names,
    locks: BTreeMap<PathBuf, Arc<Incarnation>>,
    faults: Faults,
    has_failed: bool,
}

/// A file as the simulator sees it from outside.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether a power loss would change nothing.
    pub is_durable: bool,
}

impl Machine {
    /// An empty one.
    pub fn new(name: &str, seed: u64, trace: Arc<Trace>) -> Arc<Self> {
        let machine = Self {
            name: name.to_owned(),
            state: Mutex::default(),
            chance: SeededRandom::new(seed),
            trace,
        };
        // The root is there from the beginning.
        let _ = machine.state.lock().names.create_folders(Path::new("/"));
        Arc::new(machine)
    }

    /// The disk as a process sees it.
    pub fn disk_of(self: &Arc<Self>, process: &Arc<Incarnation>) -> SimDisk {
        SimDisk { machine: Arc::clone(self), process: Arc::clone(process) }
    }

    /// Makes it misbehave, or behave again.
    pub fn set_faults(&self, faults: Faults) {
        self.trace.line(&self.name, format_args!("disk faults: {faults:?}"));
        let mut state = self.state.lock();
        state.has_failed |= faults.read_errors > 0 || faults.sync_fails_after.is_some();
        state.has_failed |= faults.room.is_some();
        state.faults = faults;
    }

    /// Whether it ever misbehaved in a way that a program may take for its end.
    pub fn has_failed(&self) -> bool {
        self.state.lock().has_failed
    }

    /// Loses what was not durable. No process runs on it.
    pub fn lose_power(&self) {
        let mut state = self.state.lock();
        state.names.lose_power(&self.chance);
        for (_, folder) in state.names.folders() {
            for entry in folder.values() {
                if let Entry::File(inode) = entry {
                    let mut content = inode.lock();
                    if !content.is_durable() {
                        content.lose_power(&self.chance);
                    }
                }
            }
        }
    }

    /// The paths of all files below `folder`, in order, each with what is equal only if its bytes are.
    pub fn files_below(&self, folder: &Path) -> Vec<(PathBuf, (u64, u64))> {
        let state = self.state.lock();
        let mut found = Vec::new();
        for (path, names) in state.names.folders() {
            if path.starts_with(folder) {
                for (name, entry) in names {
                    if let Entry::File(inode) = entry {
                        let content = inode.lock();
                        found.push((path.join(name), (content.id, content.version)));
                    }
                }
            }
        }
        found
    }

    /// The file at `path`.
    pub fn file(&self, path: &Path) -> Option<Found> {
        let inode = self.inode(path)?;
        let content = inode.lock();
        let mut bytes = vec![0; content.len() as usize];
        content.read(&mut bytes, 0);
        Some(Found { path: path.to_owned(), bytes, is_durable: content.is_durable() })
    }

    /// Whether a power loss would change nothing of the first `length` bytes of the file at `path`.
    pub fn is_durable(&self, path: &Path, length: u64) -> bool {
        self.inode(path).is_some_and(|inode| inode.lock().is_durable_to(length))
    }

    /// Flips a bit of the file at `path`; whether there was one.
    pub fn flip(&self, path: &Path) -> bool {
        let Some(inode) = self.inode(path) else { return false };
        let mut content = inode.lock();
        if content.len() == 0 {
            return false;
        }
        let (offset, bit) = (self.chance.below(content.len()), self.chance.below(8) as u8);
        self.trace.line(
            &self.name,
            format_args!("flips bit {bit} of byte {offset} of {}", path.display()),
        );
        content.flip(offset, bit);
        true
    }

    fn inode(&self, path: &Path) -> Option<Inode> {
        match self.state.lock().names.get(path)? {
            Entry::File(inode) => Some(Arc::clone(inode)),
            Entry::Folder => None,
        }
    }
}

/// A machine's disk, as one process sees it.
#[derive(Debug, Clone)]
pub struct SimDisk {
    machine: Arc<Machine>,
    process: Arc<Incarnation>,
}

impl SimDisk {
    fn read(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        self.process.check()?;
        Ok(self.machine.state.lock())
    }

    /// Before each change: the process may die here, and then this change and all after it do not happen.
    fn change(
        &self,
        what: std::fmt::Arguments<'_>,
    ) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        self.process.check()?;
        let mut state = self.machine.state.lock();
        if let Some(left) = &mut state.faults.crash_after {
            if *left == 0 {
                state.faults.crash_after = None;
                self.machine.trace.line(&self.machine.name, format_args!("dies before: {what}"));
                self.process.die();
                return Err(io::Error::other("this process is dead"));
            }
            *left -= 1;
        }
        self.machine.trace.line(&self.machine.name, what);
        Ok(state)
    }

    fn file(&self, inode: &Inode, path: &Path, mode: OpenMode) -> Box<dyn DiskFile> {
        Box::new(SimFile {
            disk: self.clone(),
            inode: Arc::clone(inode),
            path: path.to_owned(),
            writable: mode != OpenMode::Read,
        })
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        if mode != OpenMode::CreateNew {
            let state = self.read()?;
            return match state.names.get(path) {
                Some(Entry::File(inode)) => Ok(self.file(inode, path, mode)),
                Some(Entry::Folder) => Err(ErrorKind::IsADirectory.into()),
                None => Err(ErrorKind::NotFound.into()),
            };
        }
        let mut state = self.change(format_args!("create {}", path.display()))?;
        if state.names.get(path).is_some() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let inode = Arc::new(Mutex::new(Content::default()));
        state.names.set(path, Entry::File(Arc::clone(&inode)))?;
        Ok(self.file(&inode, path, mode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(format_args!("rename {} {}", from.display(), to.display()))?
            .names
            .rename(from, to)
    }

    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()> {
        self.change(format_args!("link {} {}", original.display(), link.display()))?
            .names
            .link(original, link)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.change(format_args!("remove {}", path.display()))?;
        match state.names.get(path) {
            Some(Entry::File(_)) => state.names.remove(path),
            Some(Entry::Folder) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.change(format_args!("create folder {}", path.display()))?.names.create_folders(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.change(format_args!("remove folder {}", path.display()))?.names.remove_folders(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.change(format_args!("sync folder {}", path.display()))?;
        pace::owe(state.faults.slow);
        state.names.sync(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.read()?;
        let folder = state.names.folder(path)?;
        let entries = folder.iter().map(|(name, entry)| match entry {
            Entry::File(inode) => {
                DirEntry { name: name.clone(), is_dir: false, bytes: inode.lock().len() }
            }
            Entry::Folder => DirEntry { name: name.clone(), is_dir: true, bytes: 0 },
        });
        Ok(entries.collect())
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let state = self.read()?;
        state.names.folder(path)?;
        Ok(Space { total: ROOM_BYTES, available: state.faults.room.unwrap_or(ROOM_BYTES) })
    }

    fn file_bytes(&self, path: &Path) -> io::Result<Option<u64>> {
        let state = self.read()?;
        if state.names.folder(path).is_ok() {
            return Ok(Some(0));
        }
        Ok(match state.names.get(path) {
            Some(Entry::File(inode)) => Some(inode.lock().len()),
            Some(Entry::Folder) | None => None,
        })
    }

    fn lock_dir(&self, path: &Path) -> io::Result<DirLock> {
        let mut state = self.change(format_args!("lock {}", path.display()))?;
        state.names.folder(path)?;
        if state.locks.get(path).is_some_and(|holder| holder.is_alive()) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let file = path.join(LOCK_NAME);
        if state.names.get(&file).is_none() {
            state.names.set(&file, Entry::File(Arc::default()))?;
        }
        state.locks.insert(path.to_owned(), Arc::clone(&self.process));
        Ok(Box::new(Lock { disk: self.clone(), path: path.to_owned() }))
    }
}

struct Lock {
    disk: SimDisk,
    path: PathBuf,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let locks = &mut self.disk.machine.state.lock().locks;
        // A later process may have it, if this one was killed.
        if locks.get(&self.path).is_some_and(|holder| Arc::ptr_eq(holder, &self.disk.process)) {
            locks.remove(&self.path);
        }
    }
}

struct SimFile {
    disk: SimDisk,
    inode: Inode,
    path: PathBuf,
    writable: bool,
}

impl SimFile {
    fn sync(&self) -> io::Result<()> {
        let path = &self.path;
        let mut state = self.disk.change(format_args!("sync {}", path.display()))?;
        pace::owe(state.faults.slow);
        match &mut state.faults.sync_fails_after {
            Some(0) => {
                state.faults.sync_fails_after = None;
                self.inode.lock().fail_sync();
                self.disk.machine.trace.line(&self.disk.machine.name, format_args!("it fails"));
                return Err(io::Error::other("the simulated medium failed"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        self.inode.lock().sync();
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.read()?;
        let chance = &self.disk.machine.chance;
        if state.faults.read_errors > 0 && chance.below(1000) < state.faults.read_errors {
            let path = &self.path;
            self.disk
                .machine
                .trace
                .line(&self.disk.machine.name, format_args!("cannot read {}", path.display()));
            return Err(io::Error::other("the simulated medium cannot be read"));
        }
        Ok(self.inode.lock().read(buffer, offset))
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if !self.writable {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let (path, count) = (&self.path, bytes.len());
        let mut state =
            self.disk.change(format_args!("write {} {offset}+{count}", path.display()))?;
        let mut content = self.inode.lock();
        let before = content.stored_bytes();
        let grows = (offset + count as u64).saturating_sub(content.len());
        if state.faults.room.is_some_and(|room| grows > room) {
            return Err(ErrorKind::StorageFull.into());
        }
        content.write(bytes, offset);
        let after = content.stored_bytes();
        if let Some(room) = &mut state.faults.room {
            *room = room.saturating_sub(after.saturating_sub(before));
        }
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let path = &self.path;
        let _state =
            self.disk.change(format_args!("set length of {} to {bytes}", path.display()))?;
        self.inode.lock().set_len(bytes);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let _state = self.disk.read()?;
        Ok(self.inode.lock().len())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulated_disk_conforms() {
        let trace = Trace::new(false);
        let machine = Machine::new("test", 1, Arc::clone(&trace));
        let disk = machine.disk_of(&Incarnation::new("test", 1));
        disk.create_dir_all(Path::new("/data")).unwrap();
        doldam_runtime::disk::conformance::check(&disk, Path::new("/data"));
    }

    #[test]
    fn a_name_that_was_not_synced_may_be_lost_and_one_that_was_is_not() {
        let mut lost = 0;
        for seed in 0..50 {
            let machine = Machine::new("test", seed, Trace::new(false));
            let disk = machine.disk_of(&Incarnation::new("test", 1));
            let path = |name: &str| Path::new("/").join(name);
            disk.open(&path("synced"), OpenMode::CreateNew).unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
            disk.open(&path("other"), OpenMode::CreateNew).unwrap();
            disk.rename(&path("synced"), &path("renamed")).unwrap();
            machine.lose_power();
            let is_there = |name| disk.file_bytes(&path(name)).unwrap().is_some();
            assert!(is_there("synced") || is_there("renamed"), "a rename lost its file");
            lost += u32::from(!is_there("other"));
        }
        assert!((10..40).contains(&lost), "{lost} of 50");
    }
}
