//! The folder of a local cluster: who uses it, and the addresses of last time.

use std::io;
use std::path::{Path, PathBuf};

use doldam_runtime::Seams;
use doldam_runtime::config::load_toml;
use doldam_runtime::disk::{DirLock, write_file_durably};
use serde::{Deserialize, Serialize};

use crate::error::CommandError;

/// The folder, taken for this process alone until it is dropped.
pub(crate) struct Folder {
    path: PathBuf,
    seams: Seams,
    _lock: DirLock,
}

/// Where the parts listened last time; a restart keeps it, so that commands typed before still work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Addresses {
    /// `HOST:PORT`; none in a new folder.
    pub(crate) namenode: Option<String>,
    /// `HOST:PORT` of each datanode, in their order.
    #[serde(default)]
    pub(crate) datanodes: Vec<String>,
}

impl Folder {
    /// Takes the folder at `path`, which is made if it is missing.
    ///
    /// # Errors
    /// If another process has it, or it cannot be made.
    pub(crate) fn open(path: &Path, seams: &Seams) -> Result<Self, CommandError> {
        let error = CommandError::local("use", path);
        if let Err(cause) = seams.disk.create_dir_all(path) {
            return Err(error(cause));
        }
        match seams.disk.lock_dir(path) {
            Ok(lock) => Ok(Self { path: path.to_owned(), seams: seams.clone(), _lock: lock }),
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => Err(CommandError::Server {
                what: format!(
                    "cannot use {}: another process runs a cluster in it",
                    path.display()
                ),
                next_step: "use that one, stop it, or choose another --dir".to_owned(),
                source: None,
            }),
            Err(cause) => Err(error(cause)),
        }
    }

    /// The addresses of last time.
    ///
    /// # Errors
    /// If their file is damaged.
    pub(crate) fn addresses(&self) -> Result<Addresses, CommandError> {
        let path = self.addresses_path();
        if !path.exists() {
            return Ok(Addresses::default());
        }
        load_toml(&path).map_err(|error| CommandError::Server {
            what: format!("cannot use the addresses in {}", path.display()),
            next_step: "delete that file; the cluster then takes new ports and keeps its data"
                .to_owned(),
            source: Some(Box::new(error)),
        })
    }

    /// Keeps `addresses` for next time.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(crate) fn keep(&self, addresses: &Addresses) -> Result<(), CommandError> {
        let path = self.addresses_path();
        let text = toml::to_string(addresses).map_err(io::Error::other);
        let kept = text
            .and_then(|text| write_file_durably(self.seams.disk.as_ref(), &path, text.as_bytes()));
        kept.map_err(CommandError::local("write", &path))
    }

    /// Where the namenode keeps its state.
    pub(crate) fn namenode(&self) -> PathBuf {
        self.path.join("namenode")
    }

    /// Where datanode `index`, counted from 0, keeps its blocks.
    pub(crate) fn datanode(&self, index: usize) -> PathBuf {
        self.path.join(format!("datanode-{}", index + 1))
    }

    fn addresses_path(&self) -> PathBuf {
        self.path.join("addresses.toml")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_kept_and_a_folder_has_one_user() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("new/data");
        let folder = Folder::open(&path, &Seams::system()).unwrap();
        assert_eq!(folder.addresses().unwrap(), Addresses::default());
        let addresses =
            Addresses { namenode: Some("a:1".into()), datanodes: vec!["a:2".into(), "a:3".into()] };
        folder.keep(&addresses).unwrap();
        let error = Folder::open(&path, &Seams::system()).err().unwrap();
        assert!(error.to_string().contains("another process"), "{error}");
        drop(folder);
        let folder = Folder::open(&path, &Seams::system()).unwrap();
        assert_eq!(folder.addresses().unwrap(), addresses);
    }

    #[test]
    fn a_damaged_list_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::open(parent.path(), &Seams::system()).unwrap();
        std::fs::write(parent.path().join("addresses.toml"), "namenode = 7").unwrap();
        let error = folder.addresses().unwrap_err();
        assert!(error.one_line().contains("addresses.toml"), "{}", error.one_line());
    }
}
