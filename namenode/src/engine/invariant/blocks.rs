//! Blocks have one owner each, and the blocks of a complete file are all of it.

use std::collections::BTreeMap;

use doldam_proto::digest::FileDigest;
use doldam_proto::digest::file::FileTree;
use doldam_proto::id::{BlockId, InodeId};
use doldam_proto::wire::{BlockRecord, FileRecord};

use super::{Findings, Snapshot};
use crate::engine::namespace::aside::{index_for_readers, is_aside};
use crate::engine::namespace::open_block::{newest, seen};
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
            && file.pending.as_ref().is_none_or(|write| write.visible)
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
    if block.open.as_ref().is_some_and(|open| {
        !block.committed || open.generation <= block.generation || open.targets.is_empty()
    }) {
        wrong("has an open generation that is not beside an older one");
    }
    let is_written = file.pending.as_ref();
    if (block.open.is_some() || block.flushed.is_some())
        && is_written.is_none_or(|write| !write.visible)
    {
        // What was unlinked keeps them until it is collected.
        if !state.inodes.get(&inode).is_some_and(|record| Snapshot::is_unlinked(inode, record)) {
            wrong("is open in a file that is not visible, or not being written");
        }
    }
    if block.open.as_ref().is_some_and(|open| open.generation != newest(block)) {
        wrong("has an open generation that is not the newest");
    }
    let flushed = block.flushed.as_ref().map(|flushed| flushed.length);
    if block.synced.as_ref().is_some_and(|synced| flushed.is_none_or(|it| synced.length > it)) {
        wrong("has more on stable storage than readers see");
    }
    if nodes.iter().any(|node| *node == 0 || *node >= state.counters.next_node) {
        wrong("has a node that never registered");
    }
}

/// A file with a name: what readers see of its blocks is all of it, and their digest is the file's. Nothing else is
/// left of one that is closed.
fn check_file(state: &Snapshot, id: InodeId, file: &FileRecord, found: &mut Findings) {
    let mut tree = FileTree::new();
    let mut length = 0_u64;
    let mut wrong = |what: String| found.add(Table::Blocks, format!("file {id}: {what}"));
    for position in 0..file.block_count {
        let index = index_for_readers(file, position);
        let Some(block) = state.blocks.get(&(id, index)) else {
            wrong(format!("there is no block {position}"));
            break; // A damaged count may be anything.
        };
        let Some(seen) = seen(block) else {
            wrong(format!("block {position} is shown and has nothing to show"));
            continue;
        };
        if !length.is_multiple_of(file.block_bytes) {
            wrong(format!("block {position} comes behind a short one"));
        }
        length = length.saturating_add(seen.length);
        match seen.digest(block.block_id) {
            Ok(digest) => tree.push(&digest),
            Err(_) => wrong(format!("block {position} has no value")),
        }
    }
    let of_file = || state.blocks.range((id, 0)..=(id, u32::MAX));
    let is_open =
        |block: &BlockRecord| !block.committed || block.open.is_some() || block.flushed.is_some();
    match &file.pending {
        None if of_file().any(|(_, block)| is_open(block)) => {
            wrong("is closed, not all of it".to_owned());
        }
        None if of_file().count() != file.block_count as usize => {
            wrong(format!("has not {} blocks", file.block_count));
        }
        None => {}
        Some(write) => {
            let aside = of_file().filter(|((_, index), _)| is_aside(*index)).count();
            if aside != write.aside_count as usize || (aside > 0 && !write.untouched) {
                wrong(format!("{aside} blocks are put aside"));
            }
        }
    }
    if length != file.length {
        found.add(Table::Inodes, format!("file {id} shows blocks of {length} bytes"));
    }
    if tree.finish() != FileDigest::from_slice(&file.digest) {
        found.add(Table::Inodes, format!("file {id} has another digest than its blocks"));
    }
}
