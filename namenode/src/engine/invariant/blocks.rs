//! Blocks have one owner each, and the blocks of a complete file are all of it.

use std::collections::BTreeMap;

use doldam_proto::digest::file::FileTree;
use doldam_proto::digest::{BlockDigest, ChainingValue, FileDigest};
use doldam_proto::id::{BlockId, InodeId};
use doldam_proto::wire::{BlockRecord, FileRecord};

use super::{Findings, Snapshot};
use crate::engine::records::{CONTINUE, block_owners};
use crate::engine::tables::{StoreError, Table, Tables};

pub(super) fn check(
    state: &Snapshot,
    tables: &dyn Tables,
    found: &mut Findings,
) -> Result<(), StoreError> {
    let mut owners = BTreeMap::new();
    for ((inode, index), block) in &state.blocks {
        if owners.insert(BlockId(block.block_id), (*inode, *index)).is_some() {
            found.add(Table::Blocks, format!("block {} is there twice", block.block_id));
        }
        check_block(state, *inode, *index, block, found);
    }
    let mut stored = BTreeMap::new();
    block_owners::scan_all(tables, &mut |block, inode, index| {
        stored.insert(block, (inode, index));
        CONTINUE
    })?;
    found.compare(Table::BlockOwners, &owners, &stored);

    for (id, record) in &state.inodes {
        if let Some(file) = &record.file
            && file.pending.is_none()
            && !Snapshot::is_unlinked(*id, record)
        {
            check_file(state, *id, file, found);
        }
    }
    Ok(())
}

fn check_block(
    state: &Snapshot,
    inode: InodeId,
    index: u32,
    block: &BlockRecord,
    found: &mut Findings,
) {
    let mut wrong = |what: &str| {
        found.add(Table::Blocks, format!("block {} {index} of {inode}: {what}", block.block_id));
    };
    let Some(file) = state.inodes.get(&inode).and_then(|record| record.file.as_ref()) else {
        return wrong("its file does not exist");
    };
    if block.wanted != file.replication {
        wrong("wants another number of replicas than its file");
    }
    if block.committed && (block.length == 0 || block.length > file.block_bytes) {
        wrong("has an impossible length");
    }
    if block.replicas.is_empty() && block.bad_replicas.is_empty() {
        wrong("has no replica, not even a bad one");
    }
    let mut nodes: Vec<u32> = block.replicas.iter().chain(&block.bad_replicas).copied().collect();
    nodes.sort_unstable();
    if nodes.windows(2).any(|pair| pair[0] == pair[1]) {
        wrong("has a node twice");
    }
    if nodes.iter().any(|node| *node == 0 || *node >= state.counters.next_node) {
        wrong("has a node that never registered");
    }
}

/// A complete file: every block there, committed and full, and their digest is the file's.
fn check_file(state: &Snapshot, id: InodeId, file: &FileRecord, found: &mut Findings) {
    let mut tree = FileTree::new();
    let mut length = 0_u64;
    let mut count = 0_u32;
    for ((_, index), block) in state.blocks.range((id, 0)..=(id, u32::MAX)) {
        if !block.committed || *index != count || !length.is_multiple_of(file.block_bytes) {
            found
                .add(Table::Blocks, format!("block {index} of complete file {id} is out of order"));
        }
        count = count.saturating_add(1);
        length = length.saturating_add(block.length);
        match ChainingValue::from_slice(&block.chaining_value) {
            Some(chaining_value) => tree.push(&BlockDigest {
                chaining_value,
                root_value: FileDigest::from_slice(&block.root_value),
            }),
            None => found.add(Table::Blocks, format!("block {index} of {id} has no value")),
        }
    }
    if (length, count) != (file.length, file.block_count) {
        found.add(Table::Inodes, format!("file {id} has {count} blocks of {length} bytes"));
    }
    if tree.finish() != FileDigest::from_slice(&file.digest) {
        found.add(Table::Inodes, format!("file {id} has another digest than its blocks"));
    }
}
