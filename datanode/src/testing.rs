//! What the tests of this crate share: blocks of known bytes, stores on real folders, and a disk
//! that fails on demand.

pub(crate) mod cluster;
pub(crate) mod open;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use doldam_proto::digest::BlockTree;
use doldam_proto::digest::block::BlockDigest;
use doldam_proto::limits::GROUP_BYTES;
use doldam_runtime::Seams;
use doldam_runtime::disk::{DirEntry, DirLock, Disk, DiskFile, OpenMode, RealDisk, Space};
use parking_lot::{Condvar, Mutex};

use crate::blocks::StoreError;
use crate::blocks::startup::{open_folders, scan};
use crate::blocks::store::BlockStore;
use crate::engine::inventory::Inventory;
use crate::engine::replica::ReplicaKey;
use crate::news::News;

/// Bytes that differ from group to group.
pub(crate) fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| ((i >> 16) * 37 + i * 31 + i / 251) as u8).collect()
}

/// The tree over `bytes` at an offset of its file.
pub(crate) fn tree_of(file_offset: u64, bytes: &[u8]) -> (BlockTree, BlockDigest) {
    let mut tree = BlockTree::new(file_offset);
    bytes.chunks(GROUP_BYTES as usize).for_each(|group| {
        tree.push_group(group);
    });
    let digest = tree.digest().unwrap();
    (tree, digest)
}

/// A store over `dirs`, as a start makes it.
pub(crate) fn open_store(disk: Arc<dyn Disk>, dirs: &[&Path]) -> Arc<BlockStore> {
    let seams = Seams { disk, ..Seams::system() };
    let dirs: Vec<_> = dirs.iter().map(|dir| dir.to_path_buf()).collect();
    let (volumes, _) = open_folders(&seams, &dirs, 0).unwrap();
    let (mut inventory, mut open) = (Inventory::new(), Vec::new());
    for volume in &volumes {
        let found = scan(volume).unwrap();
        for (key, replica) in found.replicas {
            inventory.insert(key, replica);
        }
        open.extend(found.open.into_iter().map(|found| (Arc::clone(volume), found)));
    }
    let store = Arc::new(BlockStore::new(volumes, inventory, Arc::new(News::default())));
    for (volume, found) in open {
        store.take_in_open(&volume, found);
    }
    store
}

/// Stores `bytes` as a replica.
pub(crate) fn store_block(store: &Arc<BlockStore>, key: ReplicaKey, bytes: &[u8], sync: bool) {
    try_store_block(store, key, bytes, sync).unwrap();
}

/// Stores `bytes` as a replica, if the disk lets it.
pub(crate) fn try_store_block(
    store: &Arc<BlockStore>,
    key: ReplicaKey,
    bytes: &[u8],
    sync: bool,
) -> Result<(), StoreError> {
    let (tree, digest) = tree_of(0, bytes);
    let mut partial = store.begin_write(key, 0, bytes.len() as u64)?;
    partial.write(0, bytes)?;
    partial.publish(&tree, &digest, sync).map(|_durable| ())
}

/// All files below a data folder but its identity and lock, as paths below it.
pub(crate) fn files(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found.into_iter().filter(|name| !["VERSION", "LOCK"].contains(&name.as_str())).collect()
}

/// Copies a folder as it is, files of two names as one file, like a disk that is looked at after a crash.
pub(crate) fn copy_tree(from: &Path, to: &Path) {
    copy_below(from, to, &mut BTreeMap::new());
}

fn copy_below(from: &Path, to: &Path, known: &mut BTreeMap<u64, PathBuf>) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_below(&entry.path(), &target, known);
        } else if let Some(same) = known.get(&entry.ino()) {
            std::fs::hard_link(same, target).unwrap();
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
            known.insert(entry.ino(), target);
        }
    }
}

/// Where a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    /// What is there already.
    Open,
    Write,
    SetLength,
    Read,
    Sync,
    Rename,
    Link,
    SyncDir,
    Remove,
    List,
}

/// An operation that fails, once `after` of its kind have passed.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) operation: Operation,
    /// A part of the path it strikes.
    pub(crate) path: &'static str,
    pub(crate) after: u64,
    pub(crate) errno: i32,
}

/// The real disk, with faults.
#[derive(Default)]
pub(crate) struct FaultyDisk {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    faults: Mutex<Vec<Fault>>,
    /// Changes that still happen, if they end, and whether one did not.
    changes_left: Mutex<(Option<u64>, bool)>,
    /// Bytes left on the disk, if it is bounded: shown as its space, and enforced.
    available: Mutex<Option<u64>>,
    syncs: AtomicU64,
    /// Where syncs wait.
    held: Mutex<Option<PathBuf>>,
    released: Condvar,
}

impl FaultyDisk {
    /// Lets an operation fail from now on.
    pub(crate) fn fail(&self, fault: Fault) {
        self.shared.faults.lock().push(fault);
    }

    /// Lets nothing change any more after so many changes: as if the process had been killed there.
    pub(crate) fn stop_after(&self, changes: u64) {
        *self.shared.changes_left.lock() = (Some(changes), false);
    }

    /// Whether a change did not happen any more.
    pub(crate) fn has_stopped(&self) -> bool {
        self.shared.changes_left.lock().1
    }

    /// Lets everything succeed again.
    pub(crate) fn heal(&self) {
        self.shared.faults.lock().clear();
        *self.shared.available.lock() = None;
    }

    /// Leaves `bytes` on the disk.
    pub(crate) fn set_available(&self, bytes: u64) {
        *self.shared.available.lock() = Some(bytes);
    }

    /// Lets every sync of a file wait until [`release_syncs`](Self::release_syncs).
    pub(crate) fn hold_syncs(&self) {
        self.hold_syncs_below(Path::new(""));
    }

    /// The same for files below a folder.
    pub(crate) fn hold_syncs_below(&self, folder: &Path) {
        *self.shared.held.lock() = Some(folder.to_owned());
    }

    /// Lets syncs go on.
    pub(crate) fn release_syncs(&self) {
        *self.shared.held.lock() = None;
        self.shared.released.notify_all();
    }

    /// Syncs of files and folders so far.
    pub(crate) fn syncs(&self) -> u64 {
        self.shared.syncs.load(Ordering::Relaxed)
    }

    pub(crate) fn handle(&self) -> Arc<dyn Disk> {
        Arc::new(Self { shared: Arc::clone(&self.shared) })
    }
}

impl Shared {
    fn check(&self, operation: Operation, path: &Path) -> io::Result<()> {
        if matches!(operation, Operation::Sync | Operation::SyncDir) {
            self.syncs.fetch_add(1, Ordering::Relaxed);
        }
        let path = path.to_string_lossy();
        if !matches!(operation, Operation::Open | Operation::Read | Operation::List) {
            let (left, has_stopped) = &mut *self.changes_left.lock();
            match left {
                Some(0) => {
                    *has_stopped = true;
                    return Err(io::Error::from_raw_os_error(5));
                }
                Some(left) => *left -= 1,
                None => {}
            }
        }
        for fault in &mut *self.faults.lock() {
            if fault.operation == operation && path.contains(fault.path) {
                if fault.after == 0 {
                    return Err(io::Error::from_raw_os_error(fault.errno));
                }
                fault.after -= 1;
            }
        }
        Ok(())
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let is_new = mode == OpenMode::CreateNew;
        self.shared.check(if is_new { Operation::Create } else { Operation::Open }, path)?;
        let file = RealDisk.open(path, mode)?;
        Ok(Box::new(FaultyFile { file, path: path.to_owned(), shared: Arc::clone(&self.shared) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.shared.check(Operation::Rename, to)?;
        RealDisk.rename(from, to)
    }

    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()> {
        self.shared.check(Operation::Link, link)?;
        RealDisk.hard_link(original, link)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.shared.check(Operation::Remove, path)?;
        RealDisk.remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.shared.check(Operation::SyncDir, path)?;
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.shared.check(Operation::List, path)?;
        RealDisk.list(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        match *self.shared.available.lock() {
            Some(available) => Ok(Space { total: 1 << 40, available }),
            None => RealDisk.space(path),
        }
    }

    fn file_bytes(&self, path: &Path) -> io::Result<Option<u64>> {
        RealDisk.file_bytes(path)
    }

    fn lock_dir(&self, path: &Path) -> io::Result<DirLock> {
        RealDisk.lock_dir(path)
    }
}

struct FaultyFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    shared: Arc<Shared>,
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.shared.check(Operation::Read, &self.path)?;
        self.file.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.shared.check(Operation::Write, &self.path)?;
        if let Some(available) = &mut *self.shared.available.lock() {
            *available = available
                .checked_sub(bytes.len() as u64)
                .ok_or_else(|| io::Error::from_raw_os_error(28))?;
        }
        self.file.write_all_at(bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.shared.check(Operation::SetLength, &self.path)?;
        self.file.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut held = self.shared.held.lock();
        let waits = |held: &mut Option<PathBuf>| {
            held.as_ref().is_some_and(|folder| self.path.starts_with(folder))
        };
        self.shared.released.wait_while(&mut held, waits);
        drop(held);
        self.shared.check(Operation::Sync, &self.path)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.shared.check(Operation::Sync, &self.path)
    }
}
