//! The end of a write of a visible file whose writer is gone.
//!
//! A write that was only opened for append leaves the file as it was. One that was flushed is closed with all that is
//! committed in order, and with what the datanodes turn out to have of the block that was being written: until that is
//! known the namenode itself holds the lease, as the client [`NAMENODE`], so that the durable state says which
//! files wait for it.
//!
//! It never ends before what readers saw, unless that is *lost*: everybody who may have it was asked, and has it not.
//! Then it ends where it is known to be on stable storage, or behind that.

use doldam_proto::FsError;
use doldam_proto::block::BlockCommit;
use doldam_proto::id::{ClientId, InodeId};
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{
    BeginRecoveryCommand, BlockRecord, FileRecord, FinishRecoveryCommand, InodeRecord,
    PendingWrite, RecoveryOutcome,
};

use super::NamespaceError;
use super::aside::{is_aside, put_back};
use super::block::{commit_all, mismatch, mismatch_of, own_block, remove};
use super::complete::close;
use super::content::{Purpose, settle};
use super::draft::Draft;
use super::lease::{Write, find_write, release};
use super::open_block::{close_open, in_progress, may_have_flushed, renew, writing_nodes};
use crate::engine::records::{CONTINUE, blocks, damaged, inodes, leases};
use crate::engine::tables::{StoreError, Table};

/// Who holds the leases of files that are being recovered. No client has this id.
pub(super) const NAMENODE: ClientId = ClientId([0; 16]);

/// The holder of such a lease, for people.
const HOLDER: &str = "the namenode, which closes it after its writer left";

/// Takes a visible file from its writer: closes it, or hands out a generation of its last block that no writer has.
/// A file that is being recovered already gets another generation.
pub(super) fn begin(
    draft: &mut Draft<'_>,
    command: BeginRecoveryCommand,
) -> Result<Kind, NamespaceError> {
    match find_write(&draft.set, InodeId(command.inode_id))? {
        Some(write) if write.pending.visible => Ok(Kind::Recovery(take(draft, write)?)),
        Some(_) => Err(FsError::InvalidArgument {
            field: "inode_id".to_owned(),
            why: "an invisible file is given up, not recovered".to_owned(),
        }
        .into()),
        None => Ok(Kind::Recovery(RecoveryOutcome::default())),
    }
}

/// Closes a file that is being recovered with what its last block turned out to be.
pub(super) fn finish(
    draft: &mut Draft<'_>,
    command: &FinishRecoveryCommand,
) -> Result<Kind, NamespaceError> {
    let lost = || FsError::LeaseLost { inode: command.inode_id };
    let write = find_write(&draft.set, InodeId(command.inode_id))?
        .filter(|write| write.pending.client_id == NAMENODE.0.as_slice())
        .ok_or_else(lost)?;
    let Some(wire) = &command.block else { return finish_without(draft, write, command) };
    let commit = BlockCommit::try_from(wire.clone()).map_err(FsError::from)?;
    let (index, before) = own_block(draft, &write, commit.id, commit.generation)?;
    if in_progress(&before).is_none_or(|writing| writing.generation != wire.generation) {
        return Err(mismatch_of(&commit, "was recovered otherwise".to_owned()).into());
    }
    if command.lost {
        give_up_flush(draft, &write, index, before, &commit)?;
    }
    commit_all(draft, &write, std::slice::from_ref(wire))?;
    draft.committed_late(commit.id);
    let length = u64::from(index) * write.file.block_bytes + commit.length;
    let content = settle(draft, &write, length, Purpose::Close)?;
    close(draft, write, length, &content)?;
    Ok(Kind::Recovery(RecoveryOutcome::default()))
}

/// What readers saw of a block is lost. From here on no more of it is kept than what is on stable storage.
fn give_up_flush(
    draft: &mut Draft<'_>,
    write: &Write,
    index: u32,
    before: BlockRecord,
    commit: &BlockCommit,
) -> Result<(), NamespaceError> {
    if let Some(synced) = &before.synced
        && synced.length == commit.length
        && synced.chaining_value != commit.chaining_value.to_bytes()
    {
        let why = "is on stable storage with other content".to_owned();
        return Err(mismatch_of(commit, why).into());
    }
    let after = BlockRecord { flushed: before.synced.clone(), synced: None, ..before };
    blocks::put(&mut draft.set, write.id, index, &after);
    Ok(())
}

/// Closes a file of which all is lost that was written of its last block, or appended to it.
fn finish_without(
    draft: &mut Draft<'_>,
    write: Write,
    command: &FinishRecoveryCommand,
) -> Result<Kind, NamespaceError> {
    let Some((index, before)) = look(draft, &write)?.open.filter(|_| command.lost) else {
        let why = "the last block of the file is missing".to_owned();
        return Err(FsError::InvalidArgument { field: "block".to_owned(), why }.into());
    };
    if in_progress(&before).is_none_or(|writing| writing.generation != command.generation) {
        return Err(mismatch(&before, "was recovered otherwise").into());
    }
    if before.synced.is_some() {
        return Err(mismatch(&before, "is on stable storage, a part of it").into());
    }
    if before.committed && before.replicas.is_empty() {
        return Err(mismatch(&before, "has no good replica of what was committed").into());
    }
    let kept = if before.committed { before.length } else { 0 };
    let length = u64::from(index) * write.file.block_bytes + kept;
    let after = BlockRecord { flushed: None, ..before };
    blocks::put(&mut draft.set, write.id, index, &after);
    let content = settle(draft, &write, length, Purpose::Close)?;
    close(draft, write, length, &content)?;
    Ok(Kind::Recovery(RecoveryOutcome::default()))
}

/// See [`begin`].
pub(super) fn take(draft: &mut Draft<'_>, write: Write) -> Result<RecoveryOutcome, NamespaceError> {
    if write.pending.untouched {
        restore(draft, write)?;
        return Ok(RecoveryOutcome::default());
    }
    let found = look(draft, &write)?;
    let shown = found.open.as_ref().and_then(|(_, block)| block.flushed.as_ref());
    if found.length + shown.map_or(0, |flushed| flushed.length) < write.file.length {
        let what = format!("inode {} has fewer bytes than readers see", write.id);
        return Err(damaged(Table::Blocks, what).into());
    }
    for (index, block) in &found.left_over {
        remove(draft, write.id, *index, block)?;
    }
    let Some((index, mut block)) = found.open else {
        let content = settle(draft, &write, found.length, Purpose::Close)?;
        close(draft, write, found.length, &content)?;
        return Ok(RecoveryOutcome::default());
    };
    // Who may have what readers see is asked each time anew; from now on that does not become more.
    if write.pending.client_id != NAMENODE.0.as_slice() {
        let nodes = may_have_flushed(&block);
        block.flushed.iter_mut().for_each(|flushed| flushed.nodes.clone_from(&nodes));
    }
    let mut nodes = writing_nodes(&block);
    if block.committed {
        let more = block.replicas.iter().filter(|node| !nodes.contains(node));
        let more: Vec<u32> = more.copied().collect();
        nodes.extend(more);
    }
    let generation = renew(&mut block, nodes);
    blocks::put(&mut draft.set, write.id, index, &block);
    hand_over(draft, write)?;
    Ok(RecoveryOutcome { block_id: block.block_id, generation })
}

/// The blocks of a write whose writer is gone.
struct Found {
    /// Bytes that are committed in order.
    length: u64,
    /// The block behind them, if a part of it is visible.
    open: Option<(u32, BlockRecord)>,
    /// What belongs to nothing.
    left_over: Vec<(u32, BlockRecord)>,
}

fn look(draft: &Draft<'_>, write: &Write) -> Result<Found, StoreError> {
    let mut found = Found { length: 0, open: None, left_over: Vec::new() };
    let (mut next, mut has_ended) = (0, false);
    blocks::scan(&draft.set, write.id, 0, &mut |index, block| {
        if has_ended || index != next {
            found.left_over.push((index, block));
            return CONTINUE;
        }
        let is_being_written = in_progress(&block).is_some();
        if is_being_written && block.flushed.is_some() {
            has_ended = true;
            found.open = Some((index, block));
        } else if block.committed {
            // Ends here if it is not full, or nothing visible was written behind it.
            has_ended = is_being_written || block.length < write.file.block_bytes;
            found.length += block.length;
        } else {
            has_ended = true;
            found.left_over.push((index, block));
        }
        next += 1;
        CONTINUE
    })?;
    Ok(found)
}

/// The file is as it was before it was opened for append.
fn restore(draft: &mut Draft<'_>, write: Write) -> Result<(), NamespaceError> {
    let kept = write.file.block_count - write.pending.aside_count;
    let mut changes = Vec::new();
    blocks::scan(&draft.set, write.id, 0, &mut |index, block| {
        if !is_aside(index) && (index >= kept || block.open.is_some()) {
            changes.push((index, block));
        }
        CONTINUE
    })?;
    for (index, block) in &changes {
        if *index >= kept {
            remove(draft, write.id, *index, block)?;
        } else {
            let after = close_open(draft, block);
            blocks::put(&mut draft.set, write.id, *index, &after);
        }
    }
    put_back(draft, write.id)?;
    release(draft, write.id, &write.inode)?;
    let file = FileRecord { pending: None, ..write.file };
    let record = InodeRecord { file: Some(file), ..write.inode };
    inodes::put(&mut draft.set, write.id, &record);
    Ok(())
}

/// The lease is the namenode's.
fn hand_over(draft: &mut Draft<'_>, write: Write) -> Result<(), NamespaceError> {
    release(draft, write.id, &write.inode)?;
    leases::put(&mut draft.set, NAMENODE, write.id);
    let (client_id, holder) = (NAMENODE.to_bytes(), HOLDER.to_owned());
    let pending = PendingWrite { client_id, holder, ..write.pending };
    let file = FileRecord { pending: Some(pending), ..write.file };
    let record = InodeRecord { file: Some(file), ..write.inode };
    inodes::put(&mut draft.set, write.id, &record);
    Ok(())
}
