//! Every inode has exactly one place, and every way up ends at the root or at something unlinked.

use std::collections::{BTreeMap, BTreeSet};

use doldam_proto::id::{InodeId, ROOT_INODE};

use super::{Findings, Snapshot};
use crate::engine::tables::Table;

pub(super) fn check(state: &Snapshot, found: &mut Findings) {
    if !state.inodes.contains_key(&ROOT_INODE) {
        found.add(Table::Inodes, "there is no root");
    }
    let mut children = BTreeMap::new();
    let mut garbage = BTreeSet::new();
    for (id, record) in &state.inodes {
        let parent = InodeId(record.parent_id);
        let write = record.file.as_ref().and_then(|file| file.pending.as_ref());
        let is_invisible = write.is_some_and(|write| !write.visible);
        if Snapshot::is_unlinked(*id, record) {
            garbage.insert(*id);
            if write.is_some() {
                found.add(Table::Inodes, format!("{id} is unlinked and still being written"));
            }
        } else if *id != ROOT_INODE && !is_invisible {
            children.insert((parent, record.name.clone()), *id);
        }
        if record.file.is_none() && is_own_ancestor(state, *id) {
            found.add(Table::Inodes, format!("{id} is its own ancestor"));
        }
        match state.inodes.get(&parent) {
            None if *id != ROOT_INODE && parent.0 != 0 => {
                found.add(Table::Inodes, format!("{id} is in {parent}, which does not exist"));
            }
            Some(parent_record) if parent_record.file.is_some() => {
                found.add(Table::Inodes, format!("{id} is in {parent}, which is a file"));
            }
            Some(_) | None => {}
        }
    }
    found.compare(Table::Children, &children, &state.children);

    let queued: BTreeSet<InodeId> =
        state.garbage.values().map(|entry| InodeId(entry.inode_id)).collect();
    found.compare_sets(Table::Garbage, &garbage, &queued);
    if queued.len() != state.garbage.len() {
        found.add(Table::Garbage, "an inode is queued twice");
    }
    let positions = state.counters.garbage_head..state.counters.garbage_tail;
    if !positions.clone().eq(state.garbage.keys().copied()) {
        let keys: Vec<&u64> = state.garbage.keys().collect();
        found.add(Table::Garbage, format!("the queue is at {keys:?}, should be {positions:?}"));
    }
}

fn is_own_ancestor(state: &Snapshot, id: InodeId) -> bool {
    let mut at = id;
    for _ in 0..=state.inodes.len() {
        match state.inodes.get(&at) {
            Some(record) if record.parent_id != 0 => at = InodeId(record.parent_id),
            Some(_) | None => return false,
        }
    }
    true
}
