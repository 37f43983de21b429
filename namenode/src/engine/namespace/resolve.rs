//! From paths to inodes and back.
//!
//! Going down reads one `Children` entry per component and nothing else; only when one is missing
//! does it ask whether the reason is a file in the way. Going up reads one inode per component.

use doldam_proto::FsError;
use doldam_proto::id::{InodeId, ROOT_INODE};
use doldam_proto::limits::{PATH_BYTES_MAX, PATH_DEPTH_MAX};
use doldam_proto::path::FsPath;
use doldam_proto::wire::InodeRecord;

use super::NamespaceError;
use crate::engine::records::{children, inodes};
use crate::engine::tables::{StoreError, Tables};

/// Longest part of an invalid path that is sent back, in characters.
const SHOWN_CHARS_MAX: usize = 80;

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

/// Where the way up from an inode leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ascent {
    /// To the root: this is its path.
    Path(String),
    /// To a directory that was unlinked, or to itself if it was; the names from there on.
    Unlinked(String),
    /// Further than a path may be long or deep, because a directory above was moved; its last names.
    BeyondLimits(String),
}

impl Ascent {
    /// For an error message: what is not a whole path starts with an ellipsis.
    pub(super) fn for_people(self) -> String {
        match self {
            Self::Path(path) => path,
            Self::Unlinked(names) | Self::BeyondLimits(names) => format!("…{names}"),
        }
    }
}

/// Follows the parents of an inode. Reads no more inodes than a path may have components.
pub(super) fn ascend(
    tables: &dyn Tables,
    id: InodeId,
    record: &InodeRecord,
) -> Result<Ascent, StoreError> {
    if id == ROOT_INODE {
        return Ok(Ascent::Path("/".to_owned()));
    }
    let mut names = vec![record.name.clone()];
    let mut path_bytes = record.name.len() + 1;
    let mut parent = InodeId(record.parent_id);
    while parent != ROOT_INODE && parent.0 != 0 {
        let record = inodes::require(tables, parent)?;
        path_bytes += record.name.len() + 1;
        if names.len() == PATH_DEPTH_MAX || path_bytes > PATH_BYTES_MAX {
            return Ok(Ascent::BeyondLimits(joined(&names)));
        }
        parent = InodeId(record.parent_id);
        names.push(record.name);
    }
    let path = joined(&names);
    Ok(if parent == ROOT_INODE { Ascent::Path(path) } else { Ascent::Unlinked(path) })
}

/// Names from the last to the first as a path.
fn joined(names: &[String]) -> String {
    let mut path = String::with_capacity(names.iter().map(|name| name.len() + 1).sum());
    for name in names.iter().rev() {
        path.push('/');
        path.push_str(name);
    }
    path
}
