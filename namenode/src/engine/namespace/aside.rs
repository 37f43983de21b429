//! Blocks that an append with truncate has cut off: readers see them until the write is flushed or complete, and get
//! them back if it is given up. They are kept behind all indexes of a file, to leave those to new blocks.

use doldam_proto::id::{BlockId, InodeId};
use doldam_proto::limits::FILE_BLOCKS_MAX;
use doldam_proto::wire::{BlockRecord, FileRecord};

use super::draft::Draft;
use crate::engine::records::{CONTINUE, block_owners, blocks};
use crate::engine::tables::StoreError;

/// Whether a block at `index` was cut off.
pub(in crate::engine) fn is_aside(index: u32) -> bool {
    index >= FILE_BLOCKS_MAX
}

/// The position in its file of a block that is at `index`.
pub(in crate::engine) fn position(index: u32) -> u32 {
    index % FILE_BLOCKS_MAX
}

/// Where to find what readers see of a file at `position`.
pub(in crate::engine) fn index_for_readers(file: &FileRecord, position: u32) -> u32 {
    let aside = file.pending.as_ref().map_or(0, |write| write.aside_count);
    if position + aside < file.block_count { position } else { position + FILE_BLOCKS_MAX }
}

/// Puts the blocks from `first` on aside; returns how many there are.
pub(super) fn put_aside(
    draft: &mut Draft<'_>,
    inode: InodeId,
    first: u32,
) -> Result<u32, StoreError> {
    let cut = blocks_from(draft, inode, first)?;
    for (index, block) in &cut {
        shift(draft, inode, *index, index + FILE_BLOCKS_MAX, block);
    }
    Ok(cut.len() as u32)
}

/// Puts all blocks that were cut off back to their places, which are free.
pub(super) fn put_back(draft: &mut Draft<'_>, inode: InodeId) -> Result<(), StoreError> {
    for (index, block) in blocks_from(draft, inode, FILE_BLOCKS_MAX)? {
        shift(draft, inode, index, position(index), &block);
    }
    Ok(())
}

fn blocks_from(
    draft: &Draft<'_>,
    inode: InodeId,
    first: u32,
) -> Result<Vec<(u32, BlockRecord)>, StoreError> {
    let mut found = Vec::new();
    blocks::scan(&draft.set, inode, first, &mut |index, block| {
        found.push((index, block));
        CONTINUE
    })?;
    Ok(found)
}

fn shift(draft: &mut Draft<'_>, inode: InodeId, from: u32, to: u32, block: &BlockRecord) {
    blocks::delete(&mut draft.set, inode, from);
    blocks::put(&mut draft.set, inode, to, block);
    block_owners::put(&mut draft.set, BlockId(block.block_id), inode, to);
}
