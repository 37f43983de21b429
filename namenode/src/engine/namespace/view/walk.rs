//! Every file below a path, a slice at a time.
//!
//! The walk goes depth first, the entries of each directory in byte order. Between two slices the
//! namespace may change: a file that stays where it is for the whole walk is visited exactly once;
//! what is moved or made meanwhile may be visited or not.

use std::collections::VecDeque;

use doldam_proto::file::FileStatus;
use doldam_proto::id::InodeId;
use doldam_proto::limits::PATH_BYTES_MAX;
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
    /// The path of the last of them.
    path: String,
}

#[derive(Debug, Clone)]
struct Level {
    directory: InodeId,
    /// How much of the cursor's path is the path of this directory.
    path_bytes: usize,
    /// Names read and not yet visited.
    ahead: VecDeque<(String, InodeId)>,
    /// The last name read.
    after: String,
    /// Whether there were more names after it.
    more: bool,
}

impl Level {
    fn new(directory: InodeId, path_bytes: usize) -> Self {
        Self { directory, path_bytes, ahead: VecDeque::new(), after: String::new(), more: true }
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

/// Goes on with a walk below `path`, or starts one, and visits at most `max` entries. A file at
/// `path` is visited itself.
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
    let mut at = if let Some(cursor) = cursor {
        cursor
    } else {
        let inode = lookup(tables, path)?;
        let record = inodes::require(tables, inode)?;
        if record.file.is_some() {
            files.push(status_of(path.as_str().to_owned(), inode, &record)?);
            return Ok(WalkSlice { files, next: None });
        }
        let below = if path.is_root() { "" } else { path.as_str() };
        WalkCursor { levels: vec![Level::new(inode, below.len())], path: below.to_owned() }
    };
    for _ in 0..max.max(1) {
        let Some((directory, name, inode)) = at.next_entry(tables)? else {
            return Ok(WalkSlice { files, next: None });
        };
        let Some(record) = inodes::get(tables, inode)? else { continue };
        if record.parent_id != directory.0 || record.name != name {
            continue;
        }
        if record.file.is_some() {
            files.push(status_of(at.shown_path(&name), inode, &record)?);
        } else {
            at.path.push('/');
            at.path.push_str(&name);
            at.levels.push(Level::new(inode, at.path.len()));
        }
    }
    Ok(WalkSlice { files, next: Some(at) })
}

impl WalkCursor {
    /// The next entry of the deepest directory that has one, leaving those that have none.
    fn next_entry(
        &mut self,
        tables: &dyn Tables,
    ) -> Result<Option<(InodeId, String, InodeId)>, NamespaceError> {
        while let Some(level) = self.levels.last_mut() {
            self.path.truncate(level.path_bytes);
            if level.ahead.is_empty() && level.more {
                let (names, more) =
                    child_names(tables, level.directory, &level.after, NAMES_AT_ONCE)?;
                if let Some((last, _)) = names.last() {
                    level.after.clone_from(last);
                }
                level.more = more;
                level.ahead = names.into();
            }
            if let Some((name, inode)) = level.ahead.pop_front() {
                return Ok(Some((level.directory, name, inode)));
            }
            self.levels.pop();
        }
        Ok(None)
    }

    /// The path of `name` in the directory where the walk is; the end of it after an ellipsis if
    /// a directory above was moved so deep that no path reaches it.
    fn shown_path(&self, name: &str) -> String {
        let whole = format!("{}/{name}", self.path);
        if whole.len() <= PATH_BYTES_MAX {
            return whole;
        }
        let from = whole.ceil_char_boundary(whole.len() - PATH_BYTES_MAX);
        format!("…{}", &whole[from..])
    }
}
