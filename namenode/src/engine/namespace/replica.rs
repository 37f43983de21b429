//! The set of replicas of a committed block, as repair, scrubbing and reports change it.
//!
//! A replica is good, or known to be bad, or not in the set. What leaves the set is named in
//! `dropped`: only then, and only once the command is durable, may a datanode be told to delete it.
//! The last good replica never leaves, and while there is no good one no bad one leaves either:
//! what is left of the data may be in any of them. A node that lost the last replica is told by
//! marking it bad.

use doldam_proto::FsError;
use doldam_proto::id::{BlockId, Generation, InodeId};
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{
    AddReplicaCommand, BlockRecord, MarkBadReplicaCommand, RemoveReplicaCommand, ReplicaOutcome,
};

use super::block::mismatch;
use super::draft::Draft;
use super::open_block::{is_in_use, newest};
use super::{NamespaceError, replica_index};
use crate::engine::records::{block_owners, blocks, damaged};
use crate::engine::tables::{StoreError, Table, Tables};

const UNCHANGED: Kind = Kind::Replica(ReplicaOutcome { changed: false });
const CHANGED: Kind = Kind::Replica(ReplicaOutcome { changed: true });

/// A block and where it is.
struct Found {
    inode: InodeId,
    index: u32,
    record: BlockRecord,
}

/// Takes a verified replica into the set, in exchange for the one on `replaces_node_id` if that is
/// not 0.
///
/// A replica of a block that is gone, or of an older generation, is not an error but nobody's: it
/// is in `dropped`. One of a block that was never allocated is refused, because then this state is
/// older than the datanode's.
pub(super) fn add(
    draft: &mut Draft<'_>,
    command: &AddReplicaCommand,
) -> Result<Kind, NamespaceError> {
    let (block, generation) = (BlockId(command.block_id), Generation(command.generation));
    let node = command.node_id;
    if !draft.knows_node(node) {
        return Err(FsError::NotRegistered { node }.into());
    }
    if !(1..draft.counters.next_block).contains(&block.0) {
        let why = "was never allocated".to_owned();
        let (block, generation) = (block.0, generation.0);
        return Err(FsError::BlockMismatch { block, generation, why }.into());
    }
    let Some(Found { inode, index, record: before }) = find(&draft.set, block)? else {
        draft.drop_replica(node, block, generation);
        return Ok(UNCHANGED);
    };
    let is_newest = generation.0 > newest(&before);
    if !is_newest && (generation.0 != before.generation || !before.committed) {
        // What somebody is writing, or what nobody needs.
        if !is_in_use(&before, node, generation.0) {
            draft.drop_replica(node, block, generation);
        }
        return Ok(UNCHANGED);
    }
    if !before.committed {
        return Ok(UNCHANGED);
    }
    if before.generation != generation.0
        || before.length != command.length
        || before.chaining_value != command.chaining_value
    {
        return Err(mismatch(&before, "the replica has another content or generation").into());
    }
    let mut after = before.clone();
    after.bad_replicas.retain(|bad| *bad != node);
    if !after.replicas.contains(&node) {
        after.replicas.push(node);
    }
    let replaced = command.replaces_node_id;
    if replaced != 0 && replaced != node && holds(&after, replaced) {
        after.replicas.retain(|holder| *holder != replaced);
        after.bad_replicas.retain(|holder| *holder != replaced);
        draft.drop_replica(replaced, block, generation);
    }
    put_if_changed(draft, inode, index, &before, &after)
}

/// Takes a replica out of the set: a surplus one, a bad one that was replaced, or one its node no
/// longer has.
pub(super) fn remove(
    draft: &mut Draft<'_>,
    command: RemoveReplicaCommand,
) -> Result<Kind, NamespaceError> {
    let (block, generation) = (BlockId(command.block_id), Generation(command.generation));
    let node = command.node_id;
    let Some(Found { inode, index, record: before }) = find_committed(draft, block, generation)?
    else {
        return Ok(UNCHANGED);
    };
    if !holds(&before, node) {
        return Ok(UNCHANGED);
    }
    if before.replicas.iter().all(|good| *good == node) {
        let why = format!("the replica on datanode {node} stays: there is no other good one");
        return Err(mismatch(&before, why).into());
    }
    let mut after = before.clone();
    after.replicas.retain(|holder| *holder != node);
    after.bad_replicas.retain(|holder| *holder != node);
    draft.drop_replica(node, block, generation);
    put_if_changed(draft, inode, index, &before, &after)
}

/// Notes that a replica is damaged or gone: nobody reads it any more, and it counts for nothing.
pub(super) fn mark_bad(
    draft: &mut Draft<'_>,
    command: MarkBadReplicaCommand,
) -> Result<Kind, NamespaceError> {
    let (block, generation) = (BlockId(command.block_id), Generation(command.generation));
    let Some(Found { inode, index, record: before }) = find_committed(draft, block, generation)?
    else {
        return Ok(UNCHANGED);
    };
    let mut after = before.clone();
    after.replicas.retain(|holder| *holder != command.node_id);
    if after.replicas.len() < before.replicas.len() {
        after.bad_replicas.push(command.node_id);
    }
    put_if_changed(draft, inode, index, &before, &after)
}

fn holds(block: &BlockRecord, node: u32) -> bool {
    block.replicas.contains(&node) || block.bad_replicas.contains(&node)
}

fn put_if_changed(
    draft: &mut Draft<'_>,
    inode: InodeId,
    index: u32,
    before: &BlockRecord,
    after: &BlockRecord,
) -> Result<Kind, NamespaceError> {
    if before == after {
        return Ok(UNCHANGED);
    }
    blocks::put(&mut draft.set, inode, index, after);
    replica_index::update(draft, Some(before), Some(after))?;
    Ok(CHANGED)
}

fn find(tables: &dyn Tables, block: BlockId) -> Result<Option<Found>, StoreError> {
    let Some((inode, index)) = block_owners::get(tables, block)? else { return Ok(None) };
    let missing = || damaged(Table::Blocks, format!("block {block} is not where it should be"));
    let record = blocks::get(tables, inode, index)?.ok_or_else(missing)?;
    Ok(Some(Found { inode, index, record }))
}

fn find_committed(
    draft: &Draft<'_>,
    block: BlockId,
    generation: Generation,
) -> Result<Option<Found>, StoreError> {
    let found = find(&draft.set, block)?;
    Ok(found.filter(|found| found.record.committed && found.record.generation == generation.0))
}
