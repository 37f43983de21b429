//! What a loss of power leaves: kept beside the real files, as bad as the rules of [`Disk`](crate::disk::Disk) allow.
//!
//! A *file* is what names stand for. Its bytes survive as of their last sync, its names as of the last sync of their
//! folders. Since two folders are synced at two moments, a file that was renamed between them may be found under
//! both names, or under none.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// A file, whatever its names are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(u64);

/// Which names survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// All changes.
    Kept,
    /// Those whose folders were synced since.
    Synced,
}

/// Which bytes survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bytes {
    /// All.
    Kept,
    /// Those of the last sync: the file has its length of then, too.
    Synced,
    /// The same, but the file has the length it had, and the rest reads as zeros.
    Zeroed,
}

/// The files below one folder and what of them is durable.
#[derive(Debug)]
pub(super) struct Survival {
    next_id: u64,
    names: BTreeMap<PathBuf, FileId>,
    folders: BTreeSet<PathBuf>,
    durable_names: BTreeMap<PathBuf, FileId>,
    durable_folders: BTreeSet<PathBuf>,
    durable_bytes: BTreeMap<FileId, Vec<u8>>,
}

impl Survival {
    /// Of a folder in which everything is durable.
    pub(super) fn of(root: &Path) -> io::Result<Self> {
        let mut survival = Self {
            next_id: 0,
            names: BTreeMap::new(),
            folders: BTreeSet::new(),
            durable_names: BTreeMap::new(),
            durable_folders: BTreeSet::new(),
            durable_bytes: BTreeMap::new(),
        };
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let id = survival.created(&path);
                    survival.durable_bytes.insert(id, fs::read(&path)?);
                }
            }
            survival.folders.insert(folder);
        }
        survival.durable_names.clone_from(&survival.names);
        survival.durable_folders.clone_from(&survival.folders);
        Ok(survival)
    }

    pub(super) fn created(&mut self, path: &Path) -> FileId {
        let id = FileId(self.next_id);
        self.next_id += 1;
        self.names.insert(path.to_owned(), id);
        id
    }

    pub(super) fn opened(&mut self, path: &Path) -> FileId {
        match self.names.get(path) {
            Some(id) => *id,
            None => self.created(path), // Made behind our back.
        }
    }

    pub(super) fn renamed(&mut self, from: &Path, to: &Path) {
        if let Some(id) = self.names.remove(from) {
            self.names.insert(to.to_owned(), id);
        }
    }

    pub(super) fn linked(&mut self, original: &Path, link: &Path) {
        let id = self.opened(original);
        self.names.insert(link.to_owned(), id);
    }

    pub(super) fn removed(&mut self, path: &Path) {
        self.names.remove(path);
    }

    pub(super) fn folder_created(&mut self, path: &Path) {
        self.folders.extend(path.ancestors().map(Path::to_owned));
    }

    pub(super) fn folder_removed(&mut self, path: &Path) {
        self.folders.retain(|folder| !folder.starts_with(path));
        self.names.retain(|name, _| !name.starts_with(path));
    }

    pub(super) fn folder_synced(&mut self, path: &Path) {
        let is_in = |name: &Path| name.parent() == Some(path);
        self.durable_names.retain(|name, _| !is_in(name));
        let names = self.names.iter().filter(|(name, _)| is_in(name));
        self.durable_names.extend(names.map(|(name, id)| (name.clone(), *id)));
        self.durable_folders.retain(|folder| !is_in(folder));
        self.durable_folders.extend(self.folders.iter().filter(|folder| is_in(folder)).cloned());
    }

    pub(super) fn file_synced(&mut self, id: FileId, bytes: Vec<u8>) {
        self.durable_bytes.insert(id, bytes);
    }

    /// Makes the real folder what survives.
    pub(super) fn leave(&mut self, root: &Path, names: Names, bytes: Bytes) -> io::Result<()> {
        if (names, bytes) == (Names::Kept, Bytes::Kept) {
            return Ok(());
        }
        let (kept_names, kept_folders) = match names {
            Names::Kept => (&self.names, &self.folders),
            Names::Synced => (&self.durable_names, &self.durable_folders),
        };
        // Read before anything is removed: a name that comes back may stand for a file of another name now.
        let present: BTreeMap<FileId, Vec<u8>> = self
            .names
            .iter()
            .map(|(path, id)| Ok((*id, fs::read(path)?)))
            .collect::<io::Result<_>>()?;
        for entry in fs::read_dir(root)? {
            let path = entry?.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        let reachable = |path: &Path| {
            let above = path.ancestors().skip(1).take_while(|folder| folder.starts_with(root));
            above.into_iter().all(|folder| folder == root || kept_folders.contains(folder))
        };
        for folder in kept_folders.iter().filter(|it| it.starts_with(root) && reachable(it)) {
            fs::create_dir_all(folder)?;
        }
        let mut written: BTreeMap<FileId, &PathBuf> = BTreeMap::new();
        for (path, id) in kept_names.iter().filter(|(path, _)| reachable(path)) {
            match written.insert(*id, path) {
                Some(same) => fs::hard_link(same, path)?,
                None => fs::write(path, self.content(*id, present.get(id), bytes))?,
            }
        }
        Ok(())
    }

    fn content(&self, id: FileId, present: Option<&Vec<u8>>, bytes: Bytes) -> Vec<u8> {
        let durable = self.durable_bytes.get(&id).cloned().unwrap_or_default();
        // One that was removed is durable at most.
        let Some(present) = present else { return durable };
        match bytes {
            Bytes::Kept => present.clone(),
            Bytes::Synced => durable,
            Bytes::Zeroed => {
                let mut content = durable;
                content.resize(present.len(), 0);
                content
            }
        }
    }
}
