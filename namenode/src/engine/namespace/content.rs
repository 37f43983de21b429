//! What the blocks of a write add up to when it is flushed or complete.

use doldam_proto::FsError;
use doldam_proto::digest::FileDigest;
use doldam_proto::digest::file::FileTree;
use doldam_proto::id::BlockId;
use doldam_proto::limits::FILE_BLOCKS_MAX;
use doldam_proto::wire::BlockRecord;

use super::aside::is_aside;
use super::block::mismatch;
use super::draft::Draft;
use super::lease::Write;
use super::open_block::{Seen, close_open, committed, in_progress, promoted, seen, seen_of_commit};
use super::replica_index::is_under_replicated;
use super::{NamespaceError, block, replica_index};
use crate::engine::records::{BREAK, CONTINUE, blocks, damaged};
use crate::engine::tables::{StoreError, Table};

/// What the content is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be seen: the last block may be one that is being written, as far as it was flushed.
    Flush,
    /// For good: every block is committed, and nothing else is left.
    Close,
}

/// What the blocks of a write add up to.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) digest: FileDigest,
    pub(super) block_count: u32,
    pub(super) under_replicated: u32,
}

/// Checks that the blocks make up exactly `length` bytes, brings commits that waited for this into force, and removes
/// what an append has cut off.
///
/// To close, blocks allocated beyond the end and never committed are removed too.
pub(super) fn settle(
    draft: &mut Draft<'_>,
    write: &Write,
    length: u64,
    purpose: Purpose,
) -> Result<Content, NamespaceError> {
    let (reader, digest) = read(draft, write, length, purpose)?;
    for (index, before, step) in reader.steps {
        let after = match step {
            Step::Remove => {
                block::remove(draft, write.id, index, &before)?;
                continue;
            }
            Step::CloseOpen => close_open(draft, &before),
            Step::Unflush => BlockRecord { flushed: None, ..before.clone() },
            Step::Promote => {
                let open = before.open.as_ref();
                let commit = open.and_then(|open| open.commit.clone());
                let gone = || damaged(Table::Blocks, "a commit that waited is gone");
                let commit = commit.ok_or_else(gone)?;
                draft.committed_late(BlockId(before.block_id));
                BlockRecord { flushed: None, ..promoted(draft, &before, &commit) }
            }
        };
        blocks::put(&mut draft.set, write.id, index, &after);
        replica_index::update(draft, Some(&before), Some(&after))?;
    }
    let (block_count, under_replicated) = (reader.block_count, reader.under_replicated);
    Ok(Content { digest, block_count, under_replicated })
}

/// What becomes of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It leaves.
    Remove,
    /// Nothing was written beside its committed generation.
    CloseOpen,
    /// Its committed state is what readers see.
    Unflush,
    /// The commit that waited is in force.
    Promote,
}

/// Reads the blocks of a write in order, once.
struct Reader {
    purpose: Purpose,
    length: u64,
    block_bytes: u64,
    block_count: u32,
    next: u32,
    tree: FileTree,
    under_replicated: u32,
    steps: Vec<(u32, BlockRecord, Step)>,
}

fn read(
    draft: &Draft<'_>,
    write: &Write,
    length: u64,
    purpose: Purpose,
) -> Result<(Reader, FileDigest), NamespaceError> {
    let block_bytes = write.file.block_bytes;
    let too_long = || {
        let why = format!("{length} bytes are more than {FILE_BLOCKS_MAX} blocks of {block_bytes}");
        FsError::InvalidArgument { field: "length".to_owned(), why }
    };
    let block_count = u32::try_from(length.div_ceil(block_bytes))
        .ok()
        .filter(|count| *count <= FILE_BLOCKS_MAX)
        .ok_or_else(too_long)?;
    let mut reader = Reader {
        purpose,
        length,
        block_bytes,
        block_count,
        next: 0,
        tree: FileTree::new(),
        under_replicated: 0,
        steps: Vec::new(),
    };
    let mut refusal = None;
    blocks::scan(&draft.set, write.id, 0, &mut |index, block| match reader.take(index, block)? {
        Ok(()) => CONTINUE,
        Err(why) => {
            refusal = Some(why);
            BREAK
        }
    })?;
    if let Some(refusal) = refusal {
        return Err(refusal.into());
    }
    if reader.next < block_count {
        return Err(reader.missing().into());
    }
    let no_root = || damaged(Table::Blocks, format!("block 0 of inode {} has no root", write.id));
    let digest = std::mem::take(&mut reader.tree).finish().ok_or_else(no_root)?;
    Ok((reader, digest))
}

impl Reader {
    fn take(&mut self, index: u32, block: BlockRecord) -> Result<Result<(), FsError>, StoreError> {
        if is_aside(index) {
            self.steps.push((index, block, Step::Remove));
            return Ok(Ok(()));
        }
        if index >= self.block_count {
            return Ok(self.beyond(index, block));
        }
        if index != self.next {
            return Ok(Err(self.missing()));
        }
        let start = u64::from(index) * self.block_bytes;
        let expected = self.block_bytes.min(self.length - start);
        let (step, length) = match self.part(&block, index + 1 == self.block_count) {
            Ok((content, step)) => {
                self.tree.push(&content.digest(block.block_id)?);
                (step, content.length)
            }
            Err(why) => return Ok(Err(mismatch(&block, why))),
        };
        if length != expected {
            return Ok(Err(mismatch(
                &block,
                format!("has {length} bytes where {expected} belong"),
            )));
        }
        self.under_replicated += u32::from(match step {
            Some(Step::Promote) => block.open.as_ref().is_some_and(|open| {
                let nodes = open.commit.as_ref().map_or(0, |commit| commit.node_ids.len());
                nodes < block.wanted as usize
            }),
            Some(_) | None => block.committed && is_under_replicated(&block),
        });
        self.steps.extend(step.map(|step| (index, block, step)));
        self.next += 1;
        Ok(Ok(()))
    }

    /// What of a block belongs to the content, and what becomes of it; or why it cannot belong to it.
    fn part<'b>(
        &self,
        block: &'b BlockRecord,
        is_last: bool,
    ) -> Result<(Seen<'b>, Option<Step>), &'static str> {
        if let Some(open) = &block.open
            && let Some(commit) = &open.commit
        {
            return Ok((seen_of_commit(commit), Some(Step::Promote)));
        }
        if in_progress(block).is_none() {
            return Ok((committed(block), block.flushed.is_some().then_some(Step::Unflush)));
        }
        let is_cut = block.open.as_ref().is_some_and(|open| open.start != block.length);
        match (self.purpose, seen(block)) {
            (_, None) => Err("was allocated but not committed"),
            (Purpose::Close, Some(_)) if block.flushed.is_some() => {
                Err("was flushed but not committed")
            }
            (_, Some(_)) if block.flushed.is_none() && is_cut => Err("was cut but not committed"),
            (Purpose::Close, Some(content)) => Ok((content, Some(Step::CloseOpen))),
            (Purpose::Flush, Some(_)) if !is_last => Err("is not the last one, nor committed"),
            (Purpose::Flush, Some(content)) => Ok((content, None)),
        }
    }

    fn beyond(&mut self, index: u32, block: BlockRecord) -> Result<(), FsError> {
        match self.purpose {
            // Others are written meanwhile.
            Purpose::Flush => Ok(()),
            Purpose::Close if block.committed => {
                let why = format!("lies beyond the end of a file of {} bytes", self.length);
                Err(mismatch(&block, why))
            }
            Purpose::Close => {
                self.steps.push((index, block, Step::Remove));
                Ok(())
            }
        }
    }

    fn missing(&self) -> FsError {
        let why = format!(
            "{} bytes take {} blocks of {}; there is none at index {}",
            self.length, self.block_count, self.block_bytes, self.next
        );
        FsError::InvalidArgument { field: "length".to_owned(), why }
    }
}
