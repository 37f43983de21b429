//! The names on a disk: as programs see them, and which of their changes a power loss may undo.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use doldam_runtime::random::{Random, SeededRandom};
use parking_lot::Mutex;

use super::content::Content;

/// A file, whatever it is called.
pub(super) type Inode = Arc<Mutex<Content>>;

/// What a name stands for.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// A file.
    File(Inode),
    /// A folder.
    Folder,
}

/// A folder's names.
pub(super) type Folder = BTreeMap<String, Entry>;

/// A change of a name that is not durable yet.
#[derive(Debug)]
struct Change {
    folder: PathBuf,
    name: String,
    /// `None`: removed.
    entry: Option<Entry>,
    /// The new name that a removal belongs to: a rename may leave both names, and never neither.
    renamed_to: Option<(PathBuf, String)>,
}

/// The folders of a disk.
#[derive(Debug, Default)]
pub(super) struct Names {
    folders: BTreeMap<PathBuf, Folder>,
    durable: BTreeMap<PathBuf, Folder>,
    pending: Vec<Change>,
}

impl Names {
    /// The names in the folder at `path`.
    pub(super) fn folder(&self, path: &Path) -> io::Result<&Folder> {
        self.folders.get(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Every folder.
    pub(super) fn folders(&self) -> impl Iterator<Item = (&PathBuf, &Folder)> {
        self.folders.iter()
    }

    pub(super) fn get(&self, path: &Path) -> Option<&Entry> {
        let (folder, name) = split(path)?;
        self.folders.get(&folder)?.get(&name)
    }

    /// Gives `entry` the name `path`; its folder exists.
    pub(super) fn set(&mut self, path: &Path, entry: Entry) -> io::Result<()> {
        let (folder, name) = split(path).ok_or(io::ErrorKind::InvalidInput)?;
        let names = self.folders.get_mut(&folder).ok_or(io::ErrorKind::NotFound)?;
        names.insert(name.clone(), entry.clone());
        self.pending.push(Change { folder, name, entry: Some(entry), renamed_to: None });
        Ok(())
    }

    /// Takes the name `path` away.
    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.take(path, None).map(drop)
    }

    /// Moves a name.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let target = split(to).ok_or(io::ErrorKind::InvalidInput)?;
        self.folder(&target.0)?;
        match self.get(from) {
            Some(Entry::File(_)) => {}
            Some(Entry::Folder) => return Err(io::ErrorKind::Unsupported.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        let entry = self.take(from, Some(target))?;
        // The new name first: a power loss between the two must find one of them.
        let removal = self.pending.pop();
        self.set(to, entry)?;
        self.pending.extend(removal);
        Ok(())
    }

    /// Gives a file a second name.
    pub(super) fn link(&mut self, original: &Path, link: &Path) -> io::Result<()> {
        let entry = match self.get(original) {
            Some(entry @ Entry::File(_)) => entry.clone(),
            Some(Entry::Folder) => return Err(io::ErrorKind::PermissionDenied.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        if self.get(link).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.set(link, entry)
    }

    fn take(&mut self, path: &Path, renamed_to: Option<(PathBuf, String)>) -> io::Result<Entry> {
        let (folder, name) = split(path).ok_or(io::ErrorKind::InvalidInput)?;
        let names = self.folders.get_mut(&folder).ok_or(io::ErrorKind::NotFound)?;
        let entry = names.remove(&name).ok_or(io::ErrorKind::NotFound)?;
        self.pending.push(Change { folder, name, entry: None, renamed_to });
        Ok(entry)
    }

    /// Makes a folder and those above it.
    pub(super) fn create_folders(&mut self, path: &Path) -> io::Result<()> {
        for folder in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
            if !self.folders.contains_key(folder) {
                match self.get(folder) {
                    Some(Entry::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                    Some(Entry::Folder) | None => {}
                }
                self.folders.insert(folder.to_owned(), Folder::new());
                if split(folder).is_some() {
                    self.set(folder, Entry::Folder)?;
                }
            }
        }
        Ok(())
    }

    /// Removes a folder with all below it.
    pub(super) fn remove_folders(&mut self, path: &Path) -> io::Result<()> {
        self.folder(path)?;
        self.remove(path)?;
        self.folders.retain(|folder, _| !folder.starts_with(path));
        Ok(())
    }

    /// Makes the names in a folder durable. A rename out of it takes its new name along.
    pub(super) fn sync(&mut self, path: &Path) -> io::Result<()> {
        self.folder(path)?;
        let renamed: Vec<_> = self.pending.iter().filter(|change| change.folder == path).collect();
        let renamed: Vec<_> =
            renamed.iter().filter_map(|change| change.renamed_to.clone()).collect();
        let mut left = Vec::new();
        for change in std::mem::take(&mut self.pending) {
            let moved =
                renamed.iter().any(|(to, name)| *to == change.folder && *name == change.name);
            if change.folder == path || moved {
                commit(&mut self.durable, change);
            } else {
                left.push(change);
            }
        }
        self.pending = left;
        Ok(())
    }

    /// Loses power: of the changes that are not durable some are undone.
    pub(super) fn lose_power(&mut self, chance: &SeededRandom) {
        let mut kept_names = Vec::new();
        let fate = chance.below(3); // Nothing, everything, or each by itself.
        for change in std::mem::take(&mut self.pending) {
            let key = (change.folder.clone(), change.name.clone());
            let is_drawn = fate == 1 || (fate == 2 && chance.below(2) == 0);
            let stays = match &change.renamed_to {
                // Within a folder a rename is one change; across two, its new name is never the one that is lost.
                Some(to) if to.0 == change.folder => kept_names.contains(to),
                Some(to) => kept_names.contains(to) && is_drawn,
                None => is_drawn,
            };
            if stays {
                kept_names.push(key);
                commit(&mut self.durable, change);
            }
        }
        self.folders = self.durable.clone();
        // A folder whose own name was lost is gone with all that is below it.
        let named: Vec<PathBuf> = self.folders.keys().cloned().collect();
        for folder in named {
            let is_there = |folder: &Path| {
                split(folder).is_none() || matches!(self.get(folder), Some(Entry::Folder))
            };
            if !folder.ancestors().all(is_there) {
                self.folders.remove(&folder);
            }
        }
        self.durable = self.folders.clone();
    }
}

fn commit(durable: &mut BTreeMap<PathBuf, Folder>, change: Change) {
    let path = change.folder.join(&change.name);
    if let Some(entry) = change.entry {
        if matches!(entry, Entry::Folder) {
            durable.entry(path).or_default();
        }
        durable.entry(change.folder).or_default().insert(change.name, entry);
    } else {
        durable.entry(change.folder).or_default().remove(&change.name);
        durable.retain(|folder, _| !folder.starts_with(&path));
    }
}

/// A path's folder and name; `None` for the root.
pub(super) fn split(path: &Path) -> Option<(PathBuf, String)> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    Some((path.parent()?.to_owned(), name))
}
