//! Making visible what was written so far.

use doldam_proto::FsError;
use doldam_proto::block::BlockCommit;
use doldam_proto::wire;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{
    BlockRecord, FileRecord, FlushCommand, FlushOutcome, FlushedBlock, InodeRecord, PendingWrite,
};

use super::NamespaceError;
use super::block::{check_content, commit_all, mismatch_of, own_block};
use super::complete::{check_length, link, path_of_write};
use super::content::{Purpose, settle};
use super::draft::Draft;
use super::lease::{Write, require_write};
use super::open_block::{drop_written, in_progress, newest};
use super::view::status_of;
use crate::engine::records::{blocks, inodes};

/// Commits finished blocks, notes how far the open one is, and shows the file with `length` bytes: under its path from
/// now on if it had none, in the place of another if its writer asked for that.
///
/// The write goes on. What an append cut off is gone.
pub(super) fn flush(draft: &mut Draft<'_>, command: &FlushCommand) -> Result<Kind, NamespaceError> {
    let write = require_write(draft, command.inode_id)?;
    commit_all(draft, &write, &command.commits)?;
    if let Some(open) = &command.open {
        let open = BlockCommit::try_from(open.clone()).map_err(FsError::from)?;
        note_open(draft, &write, &open, command.synced)?;
    }
    check_length(&write, command.length)?;
    let content = settle(draft, &write, command.length, Purpose::Flush)?;
    let path = path_of_write(draft, &write)?;
    if !write.pending.visible {
        link(draft, &write, &path)?;
    }
    let pending = PendingWrite {
        visible: true,
        untouched: false,
        least_length: command.length,
        aside_count: 0,
        ..write.pending
    };
    let record = InodeRecord {
        modified_ms: draft.time_ms,
        file: Some(FileRecord {
            length: command.length,
            digest: content.digest.to_bytes(),
            block_count: content.block_count,
            pending: Some(pending),
            ..write.file
        }),
        ..write.inode
    };
    inodes::put(&mut draft.set, write.id, &record);
    let status = status_of(path, write.id, &record)?;
    Ok(Kind::Flush(FlushOutcome { status: Some(status.into()) }))
}

/// Notes how far the block is that is being written, and whether that is on stable storage. Who has an older part of
/// it, and is no longer written to, drops that; not what is on stable storage until more is.
fn note_open(
    draft: &mut Draft<'_>,
    write: &Write,
    open: &BlockCommit,
    is_synced: bool,
) -> Result<(), NamespaceError> {
    let (index, before) = own_block(draft, write, open.id, open.generation)?;
    let Some(writing) = in_progress(&before) else {
        return Err(mismatch_of(open, "is finished".to_owned()).into());
    };
    if writing.generation != open.generation.0 {
        let why = format!("is of generation {} by now", writing.generation);
        return Err(mismatch_of(open, why).into());
    }
    check_content(draft, write, index, open)?;
    let wire = wire::BlockCommit::from(open.clone());
    if let Some(node) = wire.node_ids.iter().find(|node| !writing.targets.contains(node)) {
        let why = format!("datanode {node} is not written to");
        return Err(mismatch_of(open, why).into());
    }
    let synced = before.synced.as_ref().map_or(&[][..], |synced| &synced.nodes);
    let stays = |node: &u32| {
        wire.node_ids.contains(node)
            || writing.targets.contains(node)
            || (!is_synced && synced.contains(node))
    };
    let mut others = before.flushed.as_ref().map_or(Vec::new(), |flushed| flushed.nodes.clone());
    others.extend_from_slice(synced);
    others.sort_unstable();
    others.dedup();
    others.retain(|node| !stays(node));
    drop_written(draft, &before, newest(&before) - 1, &others);
    let flushed = FlushedBlock {
        generation: wire.generation,
        length: wire.length,
        chaining_value: wire.chaining_value,
        root_value: wire.root_value,
        nodes: wire.node_ids,
    };
    let synced = if is_synced { Some(flushed.clone()) } else { before.synced.clone() };
    let after = BlockRecord { flushed: Some(flushed), synced, ..before };
    blocks::put(&mut draft.set, write.id, index, &after);
    Ok(())
}
