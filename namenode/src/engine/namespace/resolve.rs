//! From paths to inodes and back.
//!
//! Going down reads one `Children` entry per component and nothing else; only when one is missing does it ask
//! whether the reason is a file in the way. Going up reads one inode per component.

use doldam_proto::FsError;
use doldam_proto::id::{InodeId, ROOT_INODE};
use doldam_proto::path::FsPath;
use doldam_proto::wire::InodeRecord;

use super::NamespaceError;
use crate::engine::records::{children, damaged, inodes};
use crate::engine::tables::{StoreError, Table, Tables};

/// Longest part of an invalid path that is sent back, in characters.
const SHOWN_CHARS_MAX: usize = 80;
/// Steps on the way up after which the parents must be going in circles.
const CLIMB_MAX: usize = 1 << 20;

/// Where a name is or will be: `name` in the directory `parent`.
#[derive(Debug, Clone)]
pub(super) struct Place<'p> {
    pub(super) parent: InodeId,
    pub(super) name: &'p str,
}

/// Checks a path.
pub(super) fn parse(text: &str) -> Result<FsPath, FsError> {
    FsPath::parse(text).map_err(|error| {
        let mut path: String = text.chars().take(SHOWN_CHARS_MAX).collect();
        if path.len() < text.len() {
            path.push('…');
        }
        FsError::InvalidPath { path, why: error.to_string() }
    })
}

/// The inode at `path`.
pub(super) fn lookup(tables: &dyn Tables, path: &FsPath) -> Result<InodeId, NamespaceError> {
    descend(tables, path, path.components())
}

/// The inode at `path`, if there is one; a file in the way counts as nothing there.
pub(super) fn lookup_if_exists(
    tables: &dyn Tables,
    path: &FsPath,
) -> Result<Option<InodeId>, StoreError> {
    let mut inode = ROOT_INODE;
    for name in path.components() {
        match children::get(tables, inode, name)? {
            Some(child) => inode = child,
            None => return Ok(None),
        }
    }
    Ok(Some(inode))
}

/// The place of `path` in an existing directory; `None` for the root, which has none.
pub(super) fn place<'p>(
    tables: &dyn Tables,
    path: &'p FsPath,
) -> Result<Option<Place<'p>>, NamespaceError> {
    let mut names = path.components();
    let Some(name) = names.next_back() else { return Ok(None) };
    let parent = descend(tables, path, names)?;
    if inodes::require(tables, parent)?.file.is_some() {
        return Err(not_a_directory(path, path.components().count() - 1).into());
    }
    Ok(Some(Place { parent, name }))
}

/// Follows `names`, which are the first of `path`, from the root.
fn descend<'p>(
    tables: &dyn Tables,
    path: &FsPath,
    names: impl Iterator<Item = &'p str>,
) -> Result<InodeId, NamespaceError> {
    let mut inode = ROOT_INODE;
    for (depth, name) in names.enumerate() {
        match children::get(tables, inode, name)? {
            Some(child) => inode = child,
            None if inodes::require(tables, inode)?.file.is_some() => {
                return Err(not_a_directory(path, depth).into());
            }
            None => return Err(not_found(path).into()),
        }
    }
    Ok(inode)
}

/// Nothing at `path`.
pub(super) fn not_found(path: &FsPath) -> FsError {
    FsError::NotFound { path: path.as_str().to_owned() }
}

/// Something at `path` already.
pub(super) fn already_exists(path: &FsPath) -> FsError {
    FsError::AlreadyExists { path: path.as_str().to_owned() }
}

/// The first `depth` components of `path` name a file.
pub(super) fn not_a_directory(path: &FsPath, depth: usize) -> FsError {
    let text = path.as_str();
    let end = text.match_indices('/').nth(depth).map_or(text.len(), |(at, _)| at);
    FsError::NotADirectory { path: text[..end].to_owned() }
}

/// The path of an inode, from its own record on; `None` if it or a directory above it was unlinked.
pub(super) fn path_of(
    tables: &dyn Tables,
    id: InodeId,
    record: &InodeRecord,
) -> Result<Option<String>, StoreError> {
    let climbed = climb(tables, id, record)?;
    Ok(climbed.linked.then(|| if climbed.path.is_empty() { "/".to_owned() } else { climbed.path }))
}

/// The path of an inode for an error message. What is below an unlinked directory has none any more: it is shown from
/// that directory on, after an ellipsis.
pub(super) fn path_for_people(
    tables: &dyn Tables,
    id: InodeId,
    record: &InodeRecord,
) -> Result<String, StoreError> {
    let climbed = climb(tables, id, record)?;
    Ok(if climbed.linked { climbed.path } else { format!("…{}", climbed.path) })
}

struct Climbed {
    /// The names on the way, each after a slash.
    path: String,
    /// Whether the way led to the root.
    linked: bool,
}

fn climb(tables: &dyn Tables, id: InodeId, record: &InodeRecord) -> Result<Climbed, StoreError> {
    let mut names = vec![record.name.clone()];
    let mut parent = InodeId(record.parent_id);
    if id == ROOT_INODE {
        return Ok(Climbed { path: String::new(), linked: true });
    }
    while parent != ROOT_INODE && parent.0 != 0 {
        if names.len() > CLIMB_MAX {
            return Err(damaged(Table::Inodes, format!("inode {id} is its own ancestor")));
        }
        let record = inodes::require(tables, parent)?;
        parent = InodeId(record.parent_id);
        names.push(record.name);
    }
    let mut path = String::with_capacity(names.iter().map(|name| name.len() + 1).sum());
    for name in names.iter().rev() {
        path.push('/');
        path.push_str(name);
    }
    Ok(Climbed { path, linked: parent == ROOT_INODE })
}
