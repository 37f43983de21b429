//! Pure reads for everybody who asks: clients, the planner, reports of datanodes, `fsck`.
//!
//! Every function reads a bounded part of the state and changes nothing. What may be large comes in
//! pages.

mod blocks;
mod nodes;
mod totals;
mod walk;
mod writes;

pub use blocks::{Block, Standing, block, blocks_after, debts, file_blocks, seen_block, standing};
pub use nodes::{
    Decision, Node, blocks_of_node, bucket, bucket_sums, node, node_by_uuid, nodes, replica_sum,
};
pub use totals::{Totals, cluster_id, garbage_waits, totals};
pub use walk::{WalkCursor, WalkSlice, walk};
pub use writes::{
    Floor, Recovering, Tail, WriteView, WritingBlock, in_recovery, lease_holders, open_blocks_on,
    recovering, tail, unfinished_write, writer_of_path, writes_anything, writing_block,
};

use doldam_proto::FsError;
use doldam_proto::digest::FileDigest;
use doldam_proto::file::{FileKind, FileStatus};
use doldam_proto::id::{InodeId, ROOT_INODE};
use doldam_proto::limits::{LIST_ENTRIES_MAX, LOCATE_BLOCKS_MAX, NAME_BYTES_MAX};
use doldam_proto::path::FsPath;
use doldam_proto::wire::InodeRecord;

use super::NamespaceError;
use super::resolve::{self, Ascent, lookup, lookup_if_exists};
pub use crate::engine::records::fingerprints::ReplicaSum;
use crate::engine::records::{BREAK, CONTINUE, children, damaged, inodes};
use crate::engine::tables::{StoreError, Table, Tables};

/// Checks a path as a client sent it.
///
/// # Errors
/// `InvalidPath`, with the text shortened.
pub fn parse_path(text: &str) -> Result<FsPath, FsError> {
    resolve::parse(text)
}

/// What is at `path`.
///
/// # Errors
/// `NotFound`, `NotADirectory` with the file that is in the way, or the store failed.
pub fn stat(tables: &dyn Tables, path: &FsPath) -> Result<FileStatus, NamespaceError> {
    let inode = lookup(tables, path)?;
    let record = inodes::require(tables, inode)?;
    Ok(status_of(path.as_str().to_owned(), inode, &record)?)
}

/// What is at `path`, if anything.
///
/// # Errors
/// If the store fails.
pub fn stat_if_exists(
    tables: &dyn Tables,
    path: &FsPath,
) -> Result<Option<FileStatus>, StoreError> {
    let Some(inode) = lookup_if_exists(tables, path)? else { return Ok(None) };
    let record = inodes::require(tables, inode)?;
    status_of(path.as_str().to_owned(), inode, &record).map(Some)
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage {
    /// The directory.
    pub inode: InodeId,
    /// Its entries by name, in byte order; their paths are the names only.
    pub entries: Vec<FileStatus>,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// The entries of the directory at `path` after the name `start_after` (empty: from the first), at
/// most `max_entries` (0: as many as the protocol allows).
///
/// # Errors
/// As [`stat`], and `NotADirectory` if a file is at `path`, or `InvalidArgument` if `start_after`
/// is too long for a name.
pub fn list(
    tables: &dyn Tables,
    path: &FsPath,
    start_after: &str,
    max_entries: u32,
) -> Result<ListPage, NamespaceError> {
    if start_after.len() > NAME_BYTES_MAX {
        let why = format!("{} bytes are more than a name has", start_after.len());
        return Err(FsError::InvalidArgument { field: "start_after".to_owned(), why }.into());
    }
    let inode = lookup(tables, path)?;
    if inodes::require(tables, inode)?.file.is_some() {
        return Err(FsError::NotADirectory { path: path.as_str().to_owned() }.into());
    }
    let max = bounded(max_entries, LIST_ENTRIES_MAX);
    let (names, more) = child_names(tables, inode, start_after, max)?;
    let mut entries = Vec::with_capacity(names.len());
    for (name, child) in names {
        let record = inodes::require(tables, child)?;
        entries.push(status_of(name, child, &record)?);
    }
    Ok(ListPage { inode, entries, more })
}

/// A file and some of its blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The file.
    pub status: FileStatus,
    /// The block that holds the byte asked for, and those after it, as readers see them: of one that is being written
    /// the part that was flushed. None at or beyond the end.
    pub blocks: Vec<Block>,
}

/// The blocks of the file at `path` from the byte `offset` on, at most `max_blocks` (0: as many as
/// the protocol allows).
///
/// # Errors
/// As [`stat`], and `IsADirectory`; `FileChanged` if `expected_inode` is not 0 and another file is
/// at `path`, or none.
pub fn locate(
    tables: &dyn Tables,
    path: &FsPath,
    offset: u64,
    max_blocks: u32,
    expected_inode: InodeId,
) -> Result<Located, NamespaceError> {
    let inode = lookup(tables, path)?;
    let record = inodes::require(tables, inode)?;
    let text = || path.as_str().to_owned();
    if expected_inode.0 != 0 && expected_inode != inode {
        return Err(FsError::FileChanged { path: text() }.into());
    }
    let Some(file) = &record.file else {
        return Err(FsError::IsADirectory { path: text() }.into());
    };
    let status = status_of(text(), inode, &record)?;
    if offset >= file.length {
        return Ok(Located { status, blocks: Vec::new() });
    }
    let first = offset.checked_div(file.block_bytes).and_then(|index| u32::try_from(index).ok());
    let first = first.ok_or_else(|| {
        damaged(Table::Inodes, format!("inode {inode} has blocks of {} bytes", file.block_bytes))
    })?;
    let max = bounded(max_blocks, LOCATE_BLOCKS_MAX);
    let blocks = blocks::seen_blocks(tables, inode, &record, file, first, max)?;
    Ok(Located { status, blocks })
}

/// The path of `inode` right now; `None` if it has none: unlinked, being
/// written and not visible yet, unknown, or below a directory that was moved so deep that no path reaches it.
///
/// # Errors
/// If the store fails.
pub fn path_of(tables: &dyn Tables, inode: InodeId) -> Result<Option<String>, StoreError> {
    let Some(record) = inodes::get(tables, inode)? else { return Ok(None) };
    let write = record.file.as_ref().and_then(|file| file.pending.as_ref());
    if write.is_some_and(|write| !write.visible) {
        return Ok(None);
    }
    Ok(match resolve::ascend(tables, inode, &record)? {
        Ascent::Path(path) => Some(path),
        Ascent::Unlinked(_) | Ascent::BeyondLimits(_) => None,
    })
}

/// What `stat` tells of a directory or a file with a name.
pub(super) fn status_of(
    path: String,
    inode: InodeId,
    record: &InodeRecord,
) -> Result<FileStatus, StoreError> {
    let mut status = FileStatus {
        path,
        inode,
        kind: FileKind::Directory,
        length: 0,
        replication: 0,
        block_bytes: 0,
        modified_ms: record.modified_ms,
        created_ms: record.created_ms,
        digest: None,
        durability: None,
        being_written: false,
    };
    if let Some(file) = &record.file {
        let digest = FileDigest::from_slice(&file.digest).ok_or_else(|| {
            damaged(Table::Inodes, format!("the digest of file {inode} has not 32 bytes"))
        })?;
        status.kind = FileKind::File;
        status.length = file.length;
        status.replication = file.replication;
        status.block_bytes = file.block_bytes;
        status.digest = Some(digest);
        status.durability = Some(file.durability().into());
        status.being_written = file.pending.is_some();
    }
    Ok(status)
}

/// Whether `record` is the root or has a parent, that is, was not unlinked itself.
fn is_linked(inode: InodeId, record: &InodeRecord) -> bool {
    record.parent_id != 0 || inode == ROOT_INODE
}

/// What the caller asked for, within the limit; 0 asks for the limit.
fn bounded(asked: u32, limit: u32) -> usize {
    (if asked == 0 { limit } else { asked.min(limit) }) as usize
}

/// The first `max` names in a directory after `after`, and whether there are more.
fn child_names(
    tables: &dyn Tables,
    directory: InodeId,
    after: &str,
    max: usize,
) -> Result<(Vec<(String, InodeId)>, bool), StoreError> {
    let mut names = Vec::new();
    let mut more = false;
    children::scan(tables, directory, after, &mut |name, child| {
        if names.len() == max {
            more = true;
            return BREAK;
        }
        names.push((name.to_owned(), child));
        CONTINUE
    })?;
    Ok((names, more))
}
