//! Which cluster a namenode's folder belongs to.
//!
//! The file `VERSION` is written before anything else and never changed; its layout is in `docs/formats.md`:
//!
//! ```text
//! doldam namenode
//! format 1
//! cluster 0123456789abcdef0123456789abcdef
//! ```

use std::io;
use std::path::Path;

use doldam_proto::id::ClusterId;
use doldam_runtime::disk::{Disk, read_file_bounded, write_file_durably};

/// Name of the file.
pub const FILE_NAME: &str = "VERSION";
/// What a crash leaves of the file while it is written.
const UNFINISHED_NAME: &str = "VERSION.new";
/// What the first line says.
const MAGIC: &str = "doldam namenode";
/// The format this program reads and writes.
pub const FORMAT: u32 = 1;
const FILE_BYTES_MAX: u64 = 4096;

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The medium failed.
    #[error("cannot read or write the identity of the namenode")]
    Io(#[from] io::Error),
    /// The file is not what it should be.
    #[error("the file {FILE_NAME} is damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: String,
    },
    /// Written by another version of Doldam.
    #[error("the folder has format {found}; this program knows {FORMAT}")]
    UnknownFormat {
        /// What the file says.
        found: u32,
    },
    /// Something is in the folder that is not Doldam's, or `VERSION` was lost.
    #[error("the folder is not empty and has no file {FILE_NAME}: it holds {found}")]
    Foreign {
        /// The first such name.
        found: String,
    },
}

/// The cluster whose namenode has the folder `dir`; `choose` names it if the folder is new. Names in `known` may be
/// in a new folder.
///
/// # Errors
/// If the folder is another's or damaged, or the medium fails.
pub fn open(
    disk: &dyn Disk,
    dir: &Path,
    known: &[&str],
    choose: impl FnOnce() -> ClusterId,
) -> Result<ClusterId, IdentityError> {
    let path = dir.join(FILE_NAME);
    if disk.file_bytes(&path)?.is_some() {
        let bytes = read_file_bounded(disk, &path, FILE_BYTES_MAX)?;
        return parse(&bytes);
    }
    let is_known = |name: &str| name == UNFINISHED_NAME || known.contains(&name);
    if let Some(entry) = disk.list(dir)?.into_iter().find(|entry| !is_known(&entry.name)) {
        return Err(IdentityError::Foreign { found: entry.name });
    }
    let cluster = choose();
    write_file_durably(disk, &path, text(cluster).as_bytes())?;
    Ok(cluster)
}

fn text(cluster: ClusterId) -> String {
    format!("{MAGIC}\nformat {FORMAT}\ncluster {cluster}\n")
}

fn parse(bytes: &[u8]) -> Result<ClusterId, IdentityError> {
    let damaged = |what: &str| IdentityError::Damaged { what: what.to_owned() };
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is no text"))?;
    let mut lines = text.lines();
    if lines.next() != Some(MAGIC) {
        return Err(damaged("it does not start as it should"));
    }
    let format = lines.next().and_then(|line| line.strip_prefix("format "));
    let found =
        format.and_then(|format| format.parse().ok()).ok_or_else(|| damaged("no format"))?;
    if found != FORMAT {
        return Err(IdentityError::UnknownFormat { found });
    }
    let cluster = lines.next().and_then(|line| line.strip_prefix("cluster "));
    let cluster = cluster.and_then(ClusterId::from_hex).ok_or_else(|| damaged("no cluster id"))?;
    match lines.next() {
        None => Ok(cluster),
        Some(_) => Err(damaged("more lines than it should have")),
    }
}

#[cfg(test)]
mod tests {
    use doldam_runtime::disk::RealDisk;

    use super::*;

    const CLUSTER: ClusterId = ClusterId([0xab; 16]);

    fn open_in(dir: &Path) -> Result<ClusterId, IdentityError> {
        open(&RealDisk, dir, &["LOCK"], || CLUSTER)
    }

    #[test]
    fn a_new_folder_gets_an_identity_and_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("LOCK"), "").unwrap();
        assert_eq!(open_in(dir.path()).unwrap(), CLUSTER);
        let again = open(&RealDisk, dir.path(), &[], || ClusterId([0; 16]));
        assert_eq!(again.unwrap(), CLUSTER);
    }

    #[test]
    fn a_folder_with_something_else_in_it_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.txt"), "").unwrap();
        let refused = open_in(dir.path()).unwrap_err();
        assert!(matches!(refused, IdentityError::Foreign { found } if found == "thesis.txt"));
    }

    #[test]
    fn every_change_of_a_byte_is_noticed_or_harmless() {
        let good = text(CLUSTER).into_bytes();
        assert_eq!(parse(&good).unwrap(), CLUSTER);
        assert!(parse(&good[..good.len() - 2]).is_err());
        for position in 0..good.len() - 34 {
            let mut bad = good.clone();
            bad[position] ^= 0x02;
            assert!(parse(&bad).is_err(), "{position}");
        }
        let newer = text(CLUSTER).replace("format 1", "format 2");
        assert!(matches!(parse(newer.as_bytes()), Err(IdentityError::UnknownFormat { found: 2 })));
    }
}
