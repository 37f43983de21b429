//! One command being decided: what it reads, and what it will change if it is not refused.

use std::collections::BTreeSet;

use doldam_proto::FsError;
use doldam_proto::id::{BlockId, ClientId, Generation, InodeId, NodeId};
use doldam_proto::wire::{CountersRecord, DroppedReplica, GarbageRecord, InodeRecord};

use super::NamespaceError;
use crate::engine::records::{damaged, garbage, inodes, leases, meta};
use crate::engine::tables::{Changes, StoreError, Table, Tables, WriteSet};

/// Read through it, write to it; dropped with all it holds if the command is refused.
pub(super) struct Draft<'a> {
    /// The state with the changes so far.
    pub(super) set: WriteSet<'a>,
    /// Ids to give next and totals; written once, at the end.
    pub(super) counters: CountersRecord,
    /// The time the leader gave the command.
    pub(super) time_ms: u64,
    client: Option<ClientId>,
    counters_before: CountersRecord,
    dropped: Vec<DroppedReplica>,
    touched: BTreeSet<BlockId>,
    late_commits: BTreeSet<BlockId>,
}

/// What a command came to.
pub(super) struct Finished {
    pub(super) changes: Changes,
    /// Replicas to drop.
    pub(super) dropped: Vec<DroppedReplica>,
    /// Blocks to look at.
    pub(super) touched_blocks: Vec<u64>,
    /// Blocks to look at in any case.
    pub(super) late_commits: Vec<u64>,
}

impl<'a> Draft<'a> {
    /// Starts on the state `tables`.
    pub(super) fn new(
        tables: &'a dyn Tables,
        time_ms: u64,
        client: Option<ClientId>,
    ) -> Result<Self, StoreError> {
        let counters = meta::counters(tables)?;
        Ok(Self {
            set: WriteSet::new(tables),
            counters,
            time_ms,
            client,
            counters_before: counters,
            dropped: Vec::new(),
            touched: BTreeSet::new(),
            late_commits: BTreeSet::new(),
        })
    }

    /// The client whose request this is. Commands that deal with leases have one.
    pub(super) fn client(&self) -> Result<ClientId, FsError> {
        self.client.ok_or_else(|| FsError::InvalidArgument {
            field: "request".to_owned(),
            why: "a writer is known by the client id of its requests; there is none".to_owned(),
        })
    }

    /// A new inode id.
    pub(super) fn next_inode(&mut self) -> InodeId {
        let id = InodeId(self.counters.next_inode);
        self.counters.next_inode += 1;
        id
    }

    /// A new block id.
    pub(super) fn next_block(&mut self) -> BlockId {
        let id = BlockId(self.counters.next_block);
        self.counters.next_block += 1;
        id
    }

    /// A new node id.
    pub(super) fn next_node(&mut self) -> NodeId {
        let id = NodeId(self.counters.next_node);
        self.counters.next_node += 1;
        id
    }

    /// Whether a datanode with this id ever registered. Ids are given in order and nodes are never
    /// forgotten.
    pub(super) fn knows_node(&self, node: u32) -> bool {
        (1..self.counters.next_node).contains(&node)
    }

    /// Counts a file or directory that loses its name.
    pub(super) fn count_unlinked(&mut self, record: &InodeRecord) -> Result<(), StoreError> {
        let counters = &mut self.counters;
        let total =
            if record.file.is_some() { &mut counters.files } else { &mut counters.directories };
        let below = || damaged(Table::Meta, "there are fewer names than were counted");
        *total = total.checked_sub(1).ok_or_else(below)?;
        Ok(())
    }

    /// Hands what is no longer reachable to the collector. Its name or reservation is the caller's to remove; nobody
    /// writes it any more.
    pub(super) fn discard(
        &mut self,
        id: InodeId,
        mut record: InodeRecord,
    ) -> Result<(), StoreError> {
        record.parent_id = 0;
        if let Some(file) = &mut record.file
            && let Some(write) = file.pending.take()
        {
            let wrong = || damaged(Table::Inodes, format!("the writer of {id} has no id"));
            let client = ClientId::from_slice(&write.client_id).ok_or_else(wrong)?;
            leases::delete(&mut self.set, client, id);
        }
        inodes::put(&mut self.set, id, &record);
        let entry = GarbageRecord { inode_id: id.0, ..GarbageRecord::default() };
        garbage::put(&mut self.set, self.counters.garbage_tail, &entry);
        self.counters.garbage_tail += 1;
        Ok(())
    }

    /// Notes that nobody owns this replica any more.
    pub(super) fn drop_replica(&mut self, node: u32, block: BlockId, generation: Generation) {
        let (block_id, generation) = (block.0, generation.0);
        self.dropped.push(DroppedReplica { node_id: node, block_id, generation });
    }

    /// Notes that the replicas of a block, or how many are wanted, changed.
    pub(super) fn touch_block(&mut self, block: BlockId) {
        self.touched.insert(block);
    }

    /// Notes that a commit came into force that nobody looks at who told of it.
    pub(super) fn committed_late(&mut self, block: BlockId) {
        self.late_commits.insert(block);
    }

    /// Notes that the names in a directory changed.
    pub(super) fn touch_directory(&mut self, id: InodeId) -> Result<(), NamespaceError> {
        let mut record = inodes::require(&self.set, id)?;
        if record.modified_ms != self.time_ms {
            record.modified_ms = self.time_ms;
            inodes::put(&mut self.set, id, &record);
        }
        Ok(())
    }

    /// The changes, the replicas to drop and the blocks to look at.
    pub(super) fn finish(mut self) -> Finished {
        if self.counters != self.counters_before {
            meta::put_counters(&mut self.set, &self.counters);
        }
        let ids = |blocks: BTreeSet<BlockId>| blocks.into_iter().map(|block| block.0).collect();
        Finished {
            changes: self.set.into_changes(),
            dropped: self.dropped,
            touched_blocks: ids(self.touched),
            late_commits: ids(self.late_commits),
        }
    }
}
