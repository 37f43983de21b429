//! A disk in memory that crashes: what was not synced is lost, kept, or torn sector by sector.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use doldam_runtime::disk::{DirEntry, DirLock, Disk, DiskFile, OpenMode, Space};
use doldam_runtime::random::{Random, SeededRandom};
use parking_lot::Mutex;

const SECTOR_BYTES: usize = 512;

/// See the module. Clones of the `Arc` are the same disk; a crash makes another one.
#[derive(Default)]
pub(crate) struct CrashDisk {
    state: Mutex<State>,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Default)]
struct State {
    folders: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, Arc<Mutex<Content>>>,
    durable_names: BTreeMap<PathBuf, Arc<Mutex<Content>>>,
    unsynced_names: Vec<NameChange>,
}

#[derive(Clone)]
enum NameChange {
    Set(PathBuf, Arc<Mutex<Content>>),
    Remove(PathBuf),
}

/// How a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The power goes: what was not synced may still arrive, in part.
    Power,
    /// The medium does not take it: what was not synced never arrives, though it can still be read,
    /// and later syncs succeed without it.
    Medium,
}

#[derive(Default)]
struct Faults {
    /// How many syncs succeed before one fails, and how; all writes and syncs fail after.
    pending: Option<(u64, Fault)>,
    failed: bool,
    /// How many syncs there were.
    syncs: u64,
}

#[derive(Default)]
struct Content {
    current: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, written) => {
                let end = offset + written.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*offset..end].copy_from_slice(written);
            }
            Self::Length(length) => bytes.resize(*length, 0),
        }
    }

    /// Applies a part: any of the sectors, or any prefix.
    fn apply_torn(&self, bytes: &mut Vec<u8>, chaos: &SeededRandom) {
        let Self::Write(offset, written) = self else {
            if chance(chaos, 2) {
                self.apply(bytes);
            }
            return;
        };
        if chance(chaos, 2) {
            let kept = below(chaos, written.len() + 1);
            return Self::Write(*offset, written[..kept].to_vec()).apply(bytes);
        }
        let mut start = 0;
        while start < written.len() {
            let end = written.len().min(start + SECTOR_BYTES - (offset + start) % SECTOR_BYTES);
            if chance(chaos, 2) {
                Self::Write(offset + start, written[start..end].to_vec()).apply(bytes);
            }
            start = end;
        }
    }
}

fn below(chaos: &SeededRandom, bound: usize) -> usize {
    chaos.below(bound as u64) as usize
}

fn chance(chaos: &SeededRandom, one_in: usize) -> bool {
    below(chaos, one_in) == 0
}

impl CrashDisk {
    /// An empty disk with a folder, durable.
    pub(crate) fn with_folder(folder: &str) -> Arc<Self> {
        let disk = Self::default();
        disk.state.lock().folders.insert(folder.into());
        Arc::new(disk)
    }

    /// The disk as a machine finds it that lost power now. The old one may go on and changes
    /// nothing.
    pub(crate) fn after_crash(&self, chaos: &SeededRandom) -> Arc<Self> {
        let state = self.state.lock();
        let mut names = state.durable_names.clone();
        let kept = below(chaos, state.unsynced_names.len() + 1);
        for change in &state.unsynced_names[..kept] {
            change.apply(&mut names);
        }
        let names: BTreeMap<_, _> = names
            .iter()
            .map(|(path, content)| {
                let content = content.lock().after_crash(chaos);
                (path.clone(), Arc::new(Mutex::new(content)))
            })
            .collect();
        let state = State {
            folders: state.folders.clone(),
            durable_names: names.clone(),
            names,
            unsynced_names: Vec::new(),
        };
        Arc::new(Self { state: Mutex::new(state), faults: Arc::default() })
    }

    /// After `count` more syncs one fails, and all writes and syncs after it.
    pub(crate) fn fail_after_syncs(&self, count: u64, fault: Fault) {
        self.faults.lock().pending = Some((count, fault));
    }

    /// Writes and syncs succeed again; what was lost stays lost.
    pub(crate) fn heal(&self) {
        let mut faults = self.faults.lock();
        (faults.pending, faults.failed) = (None, false);
    }

    /// How many syncs of files there were.
    pub(crate) fn syncs(&self) -> u64 {
        self.faults.lock().syncs
    }

    /// Changes a file behind everybody's back, durably.
    pub(crate) fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let content = Arc::clone(&self.state.lock().names[path]);
        let mut content = content.lock();
        change(&mut content.current);
        content.durable = content.current.clone();
        content.unsynced.clear();
    }

    /// What a file holds.
    pub(crate) fn bytes_of(&self, path: &Path) -> Vec<u8> {
        self.state.lock().names[path].lock().current.clone()
    }

    /// The names of all files.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.state.lock().names.keys().cloned().collect()
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Arc<Mutex<Content>>>) {
        match self {
            Self::Set(path, content) => {
                names.retain(|_, other| !Arc::ptr_eq(other, content));
                names.insert(path.clone(), Arc::clone(content));
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

impl Content {
    fn after_crash(&self, chaos: &SeededRandom) -> Self {
        let mut bytes = self.durable.clone();
        for change in &self.unsynced {
            match below(chaos, 3) {
                0 => {}
                1 => change.apply(&mut bytes),
                _ => change.apply_torn(&mut bytes, chaos),
            }
        }
        Self { current: bytes.clone(), durable: bytes, unsynced: Vec::new() }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.unsynced.push(change);
    }
}

impl State {
    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn check_folder_of(&self, path: &Path) -> io::Result<()> {
        match path.parent() {
            Some(folder) if self.folders.contains(folder) => Ok(()),
            _ => Err(ErrorKind::NotFound.into()),
        }
    }
}

impl Disk for CrashDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state.lock();
        state.check_folder_of(path)?;
        let content = match (mode, state.names.get(path)) {
            (OpenMode::CreateNew, Some(_)) => return Err(ErrorKind::AlreadyExists.into()),
            (OpenMode::CreateNew, None) => {
                let content = Arc::<Mutex<Content>>::default();
                state.change_name(NameChange::Set(path.to_owned(), Arc::clone(&content)));
                content
            }
            (OpenMode::Read | OpenMode::Write, None) => return Err(ErrorKind::NotFound.into()),
            (OpenMode::Read | OpenMode::Write, Some(content)) => Arc::clone(content),
        };
        let faults = Arc::clone(&self.faults);
        Ok(Box::new(CrashFile { content, faults, writable: mode != OpenMode::Read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let content = state.names.get(from).cloned().ok_or(ErrorKind::NotFound)?;
        state.change_name(NameChange::Set(to.to_owned(), content));
        Ok(())
    }

    fn hard_link(&self, _original: &Path, _link: &Path) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        if !state.names.contains_key(path) {
            return Err(ErrorKind::NotFound.into());
        }
        state.change_name(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.state.lock().folders.insert(path.to_owned());
        Ok(())
    }

    fn remove_dir_all(&self, _path: &Path) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.durable_names = state.names.clone();
        state.unsynced_names.clear();
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state.lock();
        let inside = state.names.iter().filter(|(name, _)| name.parent() == Some(path));
        Ok(inside
            .filter_map(|(name, content)| {
                let name = name.file_name()?.to_str()?.to_owned();
                Some(DirEntry { name, is_dir: false, bytes: content.lock().current.len() as u64 })
            })
            .collect())
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        Ok(Space { total: 1 << 40, available: 1 << 40 })
    }

    fn file_bytes(&self, path: &Path) -> io::Result<Option<u64>> {
        let state = self.state.lock();
        Ok(state.names.get(path).map(|content| content.lock().current.len() as u64))
    }

    fn lock_dir(&self, _path: &Path) -> io::Result<DirLock> {
        Ok(Box::new(()))
    }
}

struct CrashFile {
    content: Arc<Mutex<Content>>,
    faults: Arc<Mutex<Faults>>,
    writable: bool,
}

impl CrashFile {
    fn check_alive(&self) -> io::Result<()> {
        if self.faults.lock().failed {
            Err(io::Error::other("the disk has failed"))
        } else {
            Ok(())
        }
    }

    fn change(&self, change: Change) -> io::Result<()> {
        if !self.writable {
            return Err(ErrorKind::PermissionDenied.into());
        }
        self.check_alive()?;
        self.content.lock().change(change);
        Ok(())
    }
}

impl DiskFile for CrashFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.content.lock();
        let rest = content.current.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write(offset as usize, bytes.to_vec()))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.change(Change::Length(bytes as usize))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().current.len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check_alive()?;
        let mut content = self.content.lock();
        let unsynced = std::mem::take(&mut content.unsynced);
        let mut faults = self.faults.lock();
        match &mut faults.pending {
            Some((0, fault)) => {
                // A system that could not write a page back believes it clean all the same.
                if *fault == Fault::Power {
                    content.unsynced = unsynced;
                }
                faults.failed = true;
                return Err(io::Error::other("the disk fails"));
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        faults.syncs += 1;
        for change in unsynced {
            change.apply(&mut content.durable);
        }
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }
}
