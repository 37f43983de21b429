//! Local files as sources: patterns that the shell left alone, and whole trees.
//!
//! Symbolic links are followed, since the cluster has none; one that leads back above itself is an
//! error of its own. Everything here blocks and runs on a blocking thread.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::error::CommandError;
use crate::glob::{self, Step};

/// Entries that may be found before anyone wants them.
const FOUND_AHEAD_MAX: usize = 1024;

/// What is at a local path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LocalKind {
    /// A directory.
    Directory,
    /// A regular file of so many bytes.
    File(u64),
    /// A pipe or device: read to its end.
    Stream,
}

/// Something found in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalEntry {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Below the root of the walk, `/` between the names; empty for the root itself.
    pub(crate) relative: String,
    /// What it is.
    pub(crate) kind: LocalKind,
}

/// What is at `path`, through symbolic links.
///
/// # Errors
/// If nothing is, or it may not be looked at.
pub(crate) fn kind(path: &Path) -> Result<LocalKind, CommandError> {
    let metadata = fs::metadata(path).map_err(CommandError::local("read", path))?;
    Ok(kind_of(&metadata))
}

fn kind_of(metadata: &Metadata) -> LocalKind {
    if metadata.is_dir() {
        LocalKind::Directory
    } else if metadata.is_file() {
        LocalKind::File(metadata.len())
    } else {
        LocalKind::Stream
    }
}

/// The paths that `typed` means: itself if something is there, else what it matches as a pattern.
///
/// # Errors
/// If nothing is there and nothing matches.
pub(crate) fn expand(typed: &Path) -> Result<Vec<PathBuf>, CommandError> {
    let Err(missing) = fs::symlink_metadata(typed) else { return Ok(vec![typed.to_owned()]) };
    let text = typed.to_str().filter(|text| glob::is_pattern(text));
    let Some(pattern) = text else { return Err(CommandError::local("read", typed)(missing)) };
    let steps = glob::parse(pattern)?;
    let start = if pattern.starts_with('/') { PathBuf::from("/") } else { PathBuf::new() };
    let mut found = Vec::new();
    collect(&start, &steps, &mut found)?;
    found.sort();
    found.dedup();
    if found.is_empty() {
        return Err(CommandError::request(
            format!("{pattern}: no local file matches"),
            "check the pattern and the directory it starts in",
        ));
    }
    Ok(found)
}

fn collect(folder: &Path, steps: &[Step], found: &mut Vec<PathBuf>) -> Result<(), CommandError> {
    if let [Step::Name(name), rest @ ..] = steps {
        let path = folder.join(name);
        if rest.is_empty() {
            if path.symlink_metadata().is_ok() {
                found.push(path);
            }
        } else if path.is_dir() {
            collect(&path, rest, found)?;
        }
        return Ok(());
    }
    for (name, path) in names(folder)? {
        let Some(name) = name.to_str() else { continue };
        for rest in glob::descend(steps, name) {
            if rest.is_empty() {
                found.push(path.clone());
            } else if path.is_dir() {
                collect(&path, rest, found)?;
            }
        }
    }
    Ok(())
}

/// The names in a folder with their paths, in order.
fn names(folder: &Path) -> Result<Vec<(std::ffi::OsString, PathBuf)>, CommandError> {
    let shown = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let read = || -> io::Result<Vec<_>> {
        let entries = fs::read_dir(shown)?;
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let path = folder.join(&name);
            names.push((name, path));
        }
        Ok(names)
    };
    let mut names = read().map_err(CommandError::local("list", shown))?;
    names.sort();
    Ok(names)
}

/// Everything at and below `root`, directories before what is in them, in order of names.
///
/// What cannot be read is an error in its place; the walk goes on beside it.
pub(crate) fn walk(root: PathBuf) -> ReceiverStream<Result<LocalEntry, CommandError>> {
    let (found, receiver) = mpsc::channel(FOUND_AHEAD_MAX);
    tokio::task::spawn_blocking(move || {
        let mut walk = Walk { found, above: Vec::new() };
        // Ends early if nobody listens any more.
        walk.visit(root, String::new());
    });
    ReceiverStream::new(receiver)
}

struct Walk {
    found: mpsc::Sender<Result<LocalEntry, CommandError>>,
    /// Device and inode of every directory on the way down, to notice a loop of links.
    above: Vec<(u64, u64)>,
}

impl Walk {
    /// Returns whether to go on.
    fn visit(&mut self, path: PathBuf, relative: String) -> bool {
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) => return self.fail(CommandError::local("read", path)(error)),
        };
        let kind = kind_of(&metadata);
        let identity = (metadata.dev(), metadata.ino());
        if kind == LocalKind::Stream && !relative.is_empty() {
            return self.fail(CommandError::request(
                format!("{} is neither a file nor a directory", path.display()),
                "leave it out, or name it as a source of its own to read it to its end",
            ));
        }
        if kind == LocalKind::Directory && self.above.contains(&identity) {
            return self.fail(CommandError::request(
                format!("{} is a link to a directory above it", path.display()),
                "leave the link out of the tree",
            ));
        }
        let entry = LocalEntry { path: path.clone(), relative: relative.clone(), kind };
        if self.found.blocking_send(Ok(entry)).is_err() {
            return false;
        }
        if kind != LocalKind::Directory {
            return true;
        }
        self.above.push(identity);
        let goes_on = self.visit_below(&path, &relative);
        self.above.pop();
        goes_on
    }

    fn visit_below(&mut self, folder: &Path, relative: &str) -> bool {
        let names = match names(folder) {
            Ok(names) => names,
            Err(error) => return self.fail(error),
        };
        for (name, path) in names {
            let goes_on = match name.to_str() {
                Some(name) if relative.is_empty() => self.visit(path, name.to_owned()),
                Some(name) => self.visit(path, format!("{relative}/{name}")),
                None => self.fail(CommandError::request(
                    format!("{}: the name is not UTF-8", path.display()),
                    "rename it; names in the cluster are UTF-8",
                )),
            };
            if !goes_on {
                return false;
            }
        }
        true
    }

    fn fail(&self, error: CommandError) -> bool {
        self.found.blocking_send(Err(error)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    async fn walked(root: &Path) -> Vec<String> {
        let mut entries = walk(root.to_owned());
        let mut seen = Vec::new();
        while let Some(entry) = entries.next().await {
            seen.push(match entry {
                Ok(LocalEntry { relative, kind: LocalKind::Directory, .. }) => {
                    format!("{relative}/")
                }
                Ok(LocalEntry { relative, kind: LocalKind::File(bytes), .. }) => {
                    format!("{relative}={bytes}")
                }
                Ok(LocalEntry { relative, kind: LocalKind::Stream, .. }) => format!("{relative}|"),
                Err(error) => format!("error: {}", error.one_line()),
            });
        }
        seen
    }

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("b/c")).unwrap();
        fs::create_dir(folder.path().join("empty")).unwrap();
        for (path, content) in [("a.gz", "1"), ("b/x.gz", "22"), ("b/c/y.txt", "333")] {
            fs::write(folder.path().join(path), content).unwrap();
        }
        folder
    }

    #[tokio::test]
    async fn directories_come_before_what_is_in_them_and_names_in_order() {
        let folder = tree();
        let expected = ["/", "a.gz=1", "b/", "b/c/", "b/c/y.txt=3", "b/x.gz=2", "empty/"];
        assert_eq!(walked(folder.path()).await, expected);
    }

    #[tokio::test]
    async fn links_are_followed_but_not_round_and_round() {
        let folder = tree();
        std::os::unix::fs::symlink("../a.gz", folder.path().join("b/link")).unwrap();
        std::os::unix::fs::symlink("..", folder.path().join("b/up")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("dangling")).unwrap();
        let seen = walked(folder.path()).await;
        assert!(seen.contains(&"b/link=1".to_owned()), "{seen:?}");
        let errors: Vec<_> = seen.iter().filter(|line| line.starts_with("error")).collect();
        assert_eq!(errors.len(), 2, "{seen:?}");
        assert!(errors[0].contains("b/up is a link to a directory above it"), "{errors:?}");
        assert!(errors[1].contains("dangling"), "{errors:?}");
    }

    #[test]
    fn a_pattern_is_expanded_only_if_nothing_has_that_name() {
        let folder = tree();
        let path = |name: &str| folder.path().join(name);
        assert_eq!(expand(&path("**/*.gz")).unwrap(), [path("a.gz"), path("b/x.gz")]);
        assert_eq!(expand(&path("b/?.gz")).unwrap(), [path("b/x.gz")]);
        fs::write(path("*.gz"), "literally").unwrap();
        assert_eq!(expand(&path("*.gz")).unwrap(), [path("*.gz")]);
        let missing = expand(&path("*.zip")).unwrap_err();
        assert!(missing.to_string().contains("no local file matches"), "{missing}");
        assert!(matches!(expand(&path("missing")), Err(CommandError::Local { .. })));
    }
}
