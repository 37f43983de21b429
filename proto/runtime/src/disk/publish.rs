//! Small files that appear whole or not at all, and are read only up to a bound.

use std::io;
use std::path::{Path, PathBuf};

use super::{Disk, OpenMode};

/// Puts `bytes` at `path`, replacing what is there. After a crash at any moment the file holds all of the old
/// content or all of the new; once this has returned, the new.
///
/// The bytes go to `path` with `.new` appended, which nobody else may use.
///
/// # Errors
/// If any step fails; the old content is then still in place, unless only the last step (the sync of the folder)
/// failed, when either may be.
pub fn write_file_durably(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = aside_of(path);
    match disk.remove_file(&aside) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        Ok(()) | Err(_) => {} // Left by a crash, or not there.
    }
    let file = disk.open(&aside, OpenMode::CreateNew)?;
    file.write_all_at(bytes, 0)?;
    // The content first: otherwise the new name could survive a crash that its bytes do not.
    file.sync_data()?;
    drop(file);
    disk.rename(&aside, path)?;
    // Then the name: until the folder is synced, the crash may bring the old file back.
    disk.sync_dir(parent_of(path))
}

/// Reads all of the file at `path`.
///
/// # Errors
/// If it cannot be read; `InvalidData` if it is longer than `bytes_max`, before anything is allocated.
pub fn read_file_bounded(disk: &dyn Disk, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let bytes = file.len()?;
    if bytes > bytes_max {
        let why = format!("{bytes} bytes where at most {bytes_max} are expected");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let mut content = vec![0; bytes as usize];
    file.read_exact_at(&mut content, 0)?;
    Ok(content)
}

/// Creates the folder `path` with all its parents, and makes the names of those that were missing durable.
///
/// # Errors
/// If any step fails; some of the folders may exist then.
pub fn create_dir_durably(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let missing = |folder: &&Path| matches!(disk.file_bytes(folder), Ok(None));
    // The first ancestor that exists is synced too: it holds the name of the topmost new one.
    let made = path.ancestors().take_while(missing).count();
    disk.create_dir_all(path)?;
    for folder in path.ancestors().take(made) {
        disk.sync_dir(parent_of(folder))?;
    }
    Ok(())
}

fn aside_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// The folder of `path`; the current one if it is a bare name.
fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn a_file_is_replaced_whole_and_what_a_crash_left_aside_does_not_matter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("VERSION");
        write_file_durably(&RealDisk, &path, b"first").unwrap();
        std::fs::write(aside_of(&path), b"torn, and longer than what comes").unwrap();
        write_file_durably(&RealDisk, &path, b"second").unwrap();

        assert_eq!(read_file_bounded(&RealDisk, &path, 6).unwrap(), b"second");
        let names: Vec<_> = RealDisk.list(folder.path()).unwrap();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn a_file_longer_than_its_bound_is_refused_with_both_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("VERSION");
        write_file_durably(&RealDisk, &path, b"seven b").unwrap();
        let refusal = read_file_bounded(&RealDisk, &path, 6).unwrap_err();
        assert_eq!(refusal.kind(), io::ErrorKind::InvalidData);
        assert_eq!(refusal.to_string(), "7 bytes where at most 6 are expected");
    }

    #[test]
    fn folders_are_created_with_their_parents_and_may_exist() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        create_dir_durably(&RealDisk, &deep).unwrap();
        create_dir_durably(&RealDisk, &deep).unwrap();
        assert!(deep.is_dir());
        assert_eq!(parent_of(Path::new("name")), Path::new("."));
    }
}
