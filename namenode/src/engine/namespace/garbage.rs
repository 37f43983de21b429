//! Collecting what was unlinked, a bounded slice at a time, oldest first.
//!
//! A deleted directory passes its entries on to the end of the queue and gives up the writes in it;
//! a file gives up its blocks, whose replicas are then nobody's. Nothing new can appear below an
//! unlinked directory, so each entry of the queue is done after one pass.

use doldam_proto::id::InodeId;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{CollectGarbageCommand, GarbageOutcome, GarbageRecord};

use super::NamespaceError;
use super::block::remove;
use super::draft::Draft;
use super::lease::give_up;
use crate::engine::records::{
    BREAK, CONTINUE, blocks, children, damaged, garbage, inodes, pending,
};
use crate::engine::tables::{StoreError, Table};

/// Most blocks and names handled by one command.
pub(super) const ITEMS_MAX: u32 = 10_000;

/// Collects up to `max_items` blocks, names and inodes; says whether more is waiting.
pub(super) fn collect(
    draft: &mut Draft<'_>,
    command: CollectGarbageCommand,
) -> Result<Kind, NamespaceError> {
    let budget = command.max_items.clamp(1, ITEMS_MAX) as usize;
    let mut left = budget;
    while left > 0 && draft.counters.garbage_head < draft.counters.garbage_tail {
        let position = draft.counters.garbage_head;
        let mut entry = garbage::get(&draft.set, position)?.ok_or_else(|| {
            damaged(Table::Garbage, format!("nothing at position {position} of the queue"))
        })?;
        let id = InodeId(entry.inode_id);
        let record = inodes::require(&draft.set, id)?;
        if record.file.is_some() {
            collect_blocks(draft, id, &mut entry, &mut left)?;
        } else {
            collect_directory(draft, id, &mut entry, &mut left)?;
        }
        if left == 0 {
            garbage::put(&mut draft.set, position, &entry);
        } else {
            inodes::delete(&mut draft.set, id);
            garbage::delete(&mut draft.set, position);
            draft.counters.garbage_head += 1;
            left -= 1;
        }
    }
    let more = draft.counters.garbage_head < draft.counters.garbage_tail;
    Ok(Kind::Garbage(GarbageOutcome { more, items: (budget - left) as u32 }))
}

/// Removes up to `left` blocks of a file.
fn collect_blocks(
    draft: &mut Draft<'_>,
    id: InodeId,
    entry: &mut GarbageRecord,
    left: &mut usize,
) -> Result<(), NamespaceError> {
    let mut slice = Vec::new();
    blocks::scan(&draft.set, id, entry.next_index, &mut |index, block| {
        slice.push((index, block));
        if slice.len() == *left { BREAK } else { CONTINUE }
    })?;
    for (index, block) in &slice {
        remove(draft, id, *index, block)?;
        entry.next_index = index + 1;
    }
    *left -= slice.len();
    Ok(())
}

/// Gives up to `left` writes and children of a directory up.
fn collect_directory(
    draft: &mut Draft<'_>,
    id: InodeId,
    entry: &mut GarbageRecord,
    left: &mut usize,
) -> Result<(), NamespaceError> {
    if !entry.writes_done {
        let slice = names(*left, |visit| pending::scan(&draft.set, id, &entry.after_name, visit))?;
        for (name, inode) in &slice {
            let record = inodes::require(&draft.set, *inode)?;
            give_up(draft, *inode, record)?;
            entry.after_name.clone_from(name);
        }
        *left -= slice.len();
        if *left == 0 {
            return Ok(());
        }
        entry.writes_done = true;
        entry.after_name.clear();
    }
    let slice = names(*left, |visit| children::scan(&draft.set, id, &entry.after_name, visit))?;
    for (name, inode) in &slice {
        let record = inodes::require(&draft.set, *inode)?;
        children::delete(&mut draft.set, id, name);
        draft.count_unlinked(&record)?;
        draft.discard(*inode, record)?;
        entry.after_name.clone_from(name);
    }
    *left -= slice.len();
    Ok(())
}

/// The first `max` names of a scan.
fn names(
    max: usize,
    scan: impl FnOnce(
        &mut dyn FnMut(&str, InodeId) -> crate::engine::records::Flow,
    ) -> Result<(), StoreError>,
) -> Result<Vec<(String, InodeId)>, StoreError> {
    let mut slice = Vec::new();
    scan(&mut |name, inode| {
        slice.push((name.to_owned(), inode));
        if slice.len() == max { BREAK } else { CONTINUE }
    })?;
    Ok(slice)
}
