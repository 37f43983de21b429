//! The end of a write: a file appears under its path, whole, in one step.

use doldam_proto::FsError;
use doldam_proto::digest::file::FileTree;
use doldam_proto::digest::{BlockDigest, ChainingValue, FileDigest};
use doldam_proto::id::InodeId;
use doldam_proto::limits::FILE_BLOCKS_MAX;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{BlockRecord, CompleteCommand, CompleteOutcome, FileRecord, InodeRecord};

use super::NamespaceError;
use super::block::{commit_all, mismatch, remove_uncommitted};
use super::draft::Draft;
use super::lease::{Write, release, require_write};
use super::replica_index::is_under_replicated;
use super::resolve::{Ascent, ascend};
use super::view::status_of;
use crate::engine::records::{BREAK, CONTINUE, blocks, children, damaged, inodes};
use crate::engine::tables::{StoreError, Table};

/// Commits the last blocks, checks that they make up exactly `length` bytes, and links the file.
///
/// Blocks allocated beyond the end and never committed are removed; their targets drop what they
/// have.
pub(super) fn complete(
    draft: &mut Draft<'_>,
    command: &CompleteCommand,
) -> Result<Kind, NamespaceError> {
    let write = require_write(draft, command.inode_id)?;
    commit_all(draft, &write, &command.commits)?;
    let content = check_content(draft, &write, command.length)?;
    for (index, block) in &content.left_over {
        remove_uncommitted(draft, write.id, *index, block);
    }
    let path = match ascend(&draft.set, write.id, &write.inode)? {
        Ascent::Path(path) => path,
        unlinked @ Ascent::Unlinked(_) => {
            return Err(FsError::NotFound { path: unlinked.for_people() }.into());
        }
        too_deep @ Ascent::BeyondLimits(_) => {
            let why = "a directory above was moved, and no path is as long any more".to_owned();
            return Err(FsError::InvalidPath { path: too_deep.for_people(), why }.into());
        }
    };
    let parent = InodeId(write.inode.parent_id);
    if let Some(existing) = children::get(&draft.set, parent, &write.inode.name)? {
        replace_file(draft, existing, &path, write.pending.overwrite)?;
    }
    release(draft, write.id, &write.inode)?;
    children::put(&mut draft.set, parent, &write.inode.name, write.id);
    draft.counters.files += 1;
    draft.touch_directory(parent)?;
    let record = InodeRecord {
        modified_ms: draft.time_ms,
        file: Some(FileRecord {
            length: command.length,
            digest: content.digest.to_bytes(),
            block_count: content.block_count,
            pending: None,
            ..write.file
        }),
        ..write.inode
    };
    inodes::put(&mut draft.set, write.id, &record);
    let status = status_of(path, write.id, &record)?;
    Ok(Kind::Complete(CompleteOutcome {
        status: Some(status.into()),
        under_replicated_blocks: content.under_replicated,
    }))
}

/// Unlinks the file that the new one replaces.
fn replace_file(
    draft: &mut Draft<'_>,
    existing: InodeId,
    path: &str,
    overwrite: bool,
) -> Result<(), NamespaceError> {
    let record = inodes::require(&draft.set, existing)?;
    if record.file.is_none() {
        return Err(FsError::IsADirectory { path: path.to_owned() }.into());
    }
    if !overwrite {
        return Err(FsError::AlreadyExists { path: path.to_owned() }.into());
    }
    draft.count_unlinked(&record)?;
    draft.discard(existing, record);
    Ok(())
}

/// What the blocks of a write add up to.
struct Content {
    digest: FileDigest,
    block_count: u32,
    under_replicated: u32,
    left_over: Vec<(u32, BlockRecord)>,
}

/// Reads the blocks of a write in order, once.
struct BlockReader {
    length: u64,
    block_bytes: u64,
    block_count: u32,
    next: u32,
    tree: FileTree,
    under_replicated: u32,
    left_over: Vec<(u32, BlockRecord)>,
    refusal: Option<FsError>,
}

fn check_content(draft: &Draft<'_>, write: &Write, length: u64) -> Result<Content, NamespaceError> {
    let block_bytes = write.file.block_bytes;
    let too_long = || {
        let why = format!("{length} bytes are more than {FILE_BLOCKS_MAX} blocks of {block_bytes}");
        FsError::InvalidArgument { field: "length".to_owned(), why }
    };
    let block_count = u32::try_from(length.div_ceil(block_bytes))
        .ok()
        .filter(|count| *count <= FILE_BLOCKS_MAX)
        .ok_or_else(too_long)?;
    let mut reader = BlockReader {
        length,
        block_bytes,
        block_count,
        next: 0,
        tree: FileTree::new(),
        under_replicated: 0,
        left_over: Vec::new(),
        refusal: None,
    };
    blocks::scan(&draft.set, write.id, 0, &mut |index, block| match reader.take(index, block)? {
        Ok(()) => CONTINUE,
        Err(refusal) => {
            reader.refusal = Some(refusal);
            BREAK
        }
    })?;
    if let Some(refusal) = reader.refusal {
        return Err(refusal.into());
    }
    if reader.next < block_count {
        return Err(reader.missing().into());
    }
    let no_root = || damaged(Table::Blocks, format!("block 0 of inode {} has no root", write.id));
    let digest = reader.tree.finish().ok_or_else(no_root)?;
    let (under_replicated, left_over) = (reader.under_replicated, reader.left_over);
    Ok(Content { digest, block_count, under_replicated, left_over })
}

impl BlockReader {
    fn take(&mut self, index: u32, block: BlockRecord) -> Result<Result<(), FsError>, StoreError> {
        if index >= self.block_count {
            if block.committed {
                let why = format!("lies beyond the end of a file of {} bytes", self.length);
                return Ok(Err(mismatch(&block, why)));
            }
            self.left_over.push((index, block));
            return Ok(Ok(()));
        }
        if index != self.next {
            return Ok(Err(self.missing()));
        }
        if !block.committed {
            return Ok(Err(mismatch(&block, "was allocated but not committed")));
        }
        let start = u64::from(index) * self.block_bytes;
        let expected = self.block_bytes.min(self.length - start);
        if block.length != expected {
            let why = format!("has {} bytes where {expected} belong", block.length);
            return Ok(Err(mismatch(&block, why)));
        }
        self.tree.push(&digest_of(&block)?);
        self.under_replicated += u32::from(is_under_replicated(&block));
        self.next += 1;
        Ok(Ok(()))
    }

    fn missing(&self) -> FsError {
        let why = format!(
            "{} bytes take {} blocks of {}; there is none at index {}",
            self.length, self.block_count, self.block_bytes, self.next
        );
        FsError::InvalidArgument { field: "length".to_owned(), why }
    }
}

/// What identifies the content of a committed block.
fn digest_of(block: &BlockRecord) -> Result<BlockDigest, StoreError> {
    let wrong = || damaged(Table::Blocks, format!("block {} has no 32-byte value", block.block_id));
    let chaining_value = ChainingValue::from_slice(&block.chaining_value).ok_or_else(wrong)?;
    Ok(BlockDigest { chaining_value, root_value: FileDigest::from_slice(&block.root_value) })
}
