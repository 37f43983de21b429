//! Every file below a path, a slice at a time.
//!
//! The walk goes depth first, the entries of each directory in byte order. Between two slices the namespace may change:
//! a file that stays where it is for the whole walk is visited exactly once; what is moved or made meanwhile may be
//! visited or not.

use std::collections::VecDeque;

use doldam_proto::file::FileStatus;
use doldam_proto::id::InodeId;
use doldam_proto::path::FsPath;

use super::{child_names, status_of};
use crate::engine::namespace::NamespaceError;
use crate::engine::namespace::resolve::lookup;
use crate::engine::records::inodes;
use crate::engine::tables::Tables;

/// Names of one directory read at a time.
const NAMES_AT_ONCE: usize = 256;

/// Where a walk goes on.
#[derive(Debug, Clone)]
pub struct WalkCursor {
    /// The directories on the way down to where the walk is.
    levels: Vec<Level>,
}

#[derive(Debug, Clone)]
struct Level {
    directory: InodeId,
    path: String,
    /// Names read and not yet visited.
    ahead: VecDeque<(String, InodeId)>,
    /// The last name read.
    after: String,
    /// Whether there were more names after it.
    more: bool,
}

impl Level {
    fn new(directory: InodeId, path: String) -> Self {
        Self { directory, path, ahead: VecDeque::new(), after: String::new(), more: true }
    }
}

/// A part of a walk.
#[derive(Debug, Clone)]
pub struct WalkSlice {
    /// Files, with their whole paths.
    pub files: Vec<FileStatus>,
    /// How to go on; `None` at the end.
    pub next: Option<WalkCursor>,
}

/// Goes on with a walk below `path`, or starts one, and visits at most `max` entries. A file at `path` is visited
/// itself.
///
/// # Errors
/// At the start, `NotFound` or `NotADirectory`; at any time, if the store fails.
pub fn walk(
    tables: &dyn Tables,
    path: &FsPath,
    cursor: Option<WalkCursor>,
    max: usize,
) -> Result<WalkSlice, NamespaceError> {
    let mut files = Vec::new();
    let mut levels = match cursor {
        Some(cursor) => cursor.levels,
        None => {
            let inode = lookup(tables, path)?;
            let record = inodes::require(tables, inode)?;
            if record.file.is_some() {
                files.push(status_of(path.as_str().to_owned(), inode, &record)?);
                return Ok(WalkSlice { files, next: None });
            }
            let below = if path.is_root() { "" } else { path.as_str() };
            vec![Level::new(inode, below.to_owned())]
        }
    };
    for _ in 0..max.max(1) {
        let Some((level, name, inode)) = next_entry(tables, &mut levels)? else {
            return Ok(WalkSlice { files, next: None });
        };
        let Some(record) = inodes::get(tables, inode)? else { continue };
        if record.parent_id != level.directory.0 || record.name != name {
            continue;
        }
        let path = format!("{}/{name}", level.path);
        if record.file.is_some() {
            files.push(status_of(path, inode, &record)?);
        } else {
            levels.push(Level::new(inode, path));
        }
    }
    Ok(WalkSlice { files, next: Some(WalkCursor { levels }) })
}

/// The next entry of the deepest directory that has one, leaving those that have none.
fn next_entry<'l>(
    tables: &dyn Tables,
    levels: &'l mut Vec<Level>,
) -> Result<Option<(&'l Level, String, InodeId)>, NamespaceError> {
    while let Some(level) = levels.last_mut() {
        if level.ahead.is_empty() && level.more {
            let (names, more) = child_names(tables, level.directory, &level.after, NAMES_AT_ONCE)?;
            if let Some((last, _)) = names.last() {
                level.after.clone_from(last);
            }
            level.more = more;
            level.ahead = names.into();
        }
        if let Some((name, inode)) = level.ahead.pop_front() {
            return Ok(levels.last().map(|level| (level, name, inode)));
        }
        levels.pop();
    }
    Ok(None)
}
