//! Who may go on writing, and the end of writes that are not completed: an invisible one is given up, a visible file
//! is [recovered](recovery).

use doldam_proto::FsError;
use doldam_proto::id::{ClientId, InodeId};
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{
    AbandonCommand, Done, ExpireLeaseCommand, FileRecord, GarbageOutcome, InodeRecord,
    PendingWrite, RecoveryOutcome,
};

use super::draft::Draft;
use super::{NamespaceError, recovery};
use crate::engine::records::{BREAK, CONTINUE, damaged, inodes, leases, pending};
use crate::engine::tables::{Table, Tables};

/// Most writes given up by one command.
pub(super) const EXPIRED_WRITES_MAX: usize = 1000;

/// A write that is under way.
#[derive(Debug, Clone)]
pub(super) struct Write {
    pub(super) id: InodeId,
    pub(super) inode: InodeRecord,
    pub(super) file: FileRecord,
    pub(super) pending: PendingWrite,
}

/// The write `inode`, if the client of this command holds it.
pub(super) fn require_write(draft: &Draft<'_>, inode: u64) -> Result<Write, NamespaceError> {
    let client = draft.client()?;
    match find_write(&draft.set, InodeId(inode))? {
        Some(write) if write.pending.client_id == client.0.as_slice() => Ok(write),
        Some(_) | None => Err(FsError::LeaseLost { inode }.into()),
    }
}

/// The write `id`, whoever holds it; `None` if it was completed, given up or never started.
pub(super) fn find_write(
    tables: &dyn Tables,
    id: InodeId,
) -> Result<Option<Write>, NamespaceError> {
    let Some(inode) = inodes::get(tables, id)? else { return Ok(None) };
    let Some(file) = inode.file.clone() else { return Ok(None) };
    let Some(pending) = file.pending.clone() else { return Ok(None) };
    Ok(Some(Write { id, inode, file, pending }))
}

/// Gives up a write at its client's wish.
pub(super) fn abandon(
    draft: &mut Draft<'_>,
    command: AbandonCommand,
) -> Result<Kind, NamespaceError> {
    let write = require_write(draft, command.inode_id)?;
    end(draft, write)?;
    Ok(Kind::Done(Done {}))
}

/// Gives up what a silent client was writing: all of it, or a slice if it is much.
pub(super) fn expire(
    draft: &mut Draft<'_>,
    command: &ExpireLeaseCommand,
) -> Result<Kind, NamespaceError> {
    let client = ClientId::from_slice(&command.client_id).ok_or_else(|| {
        let why = format!("{} bytes, not 16", command.client_id.len());
        FsError::InvalidArgument { field: "client_id".to_owned(), why }
    })?;
    if client == recovery::NAMENODE {
        let why = "what the namenode recovers does not expire".to_owned();
        return Err(FsError::InvalidArgument { field: "client_id".to_owned(), why }.into());
    }
    let mut writes = Vec::new();
    let mut more = false;
    leases::scan(&draft.set, client, &mut |inode| {
        if writes.len() == EXPIRED_WRITES_MAX {
            more = true;
            return BREAK;
        }
        writes.push(inode);
        CONTINUE
    })?;
    for inode in &writes {
        let none = || damaged(Table::Leases, format!("inode {inode} has a lease and no writer"));
        let write = find_write(&draft.set, *inode)?.ok_or_else(none)?;
        end(draft, write)?;
    }
    Ok(Kind::Garbage(GarbageOutcome { more, items: writes.len() as u32 }))
}

/// Ends a write whose writer does not go on with it.
fn end(draft: &mut Draft<'_>, write: Write) -> Result<(), NamespaceError> {
    if write.pending.visible {
        let RecoveryOutcome { .. } = recovery::take(draft, write)?;
        return Ok(());
    }
    give_up(draft, write.id, write.inode)
}

/// Ends a write without a file: frees its path and its lease, and leaves its blocks to the
/// collector.
pub(super) fn give_up(
    draft: &mut Draft<'_>,
    inode: InodeId,
    record: InodeRecord,
) -> Result<(), NamespaceError> {
    release(draft, inode, &record)?;
    Ok(draft.discard(inode, record)?)
}

/// Frees the lease of a write that ends, one way or the other, and the path it had reserved.
pub(super) fn release(
    draft: &mut Draft<'_>,
    inode: InodeId,
    record: &InodeRecord,
) -> Result<(), NamespaceError> {
    let write = record.file.as_ref().and_then(|file| file.pending.as_ref());
    let what = || damaged(Table::Leases, format!("inode {inode} has a lease but no writer"));
    let write = write.ok_or_else(what)?;
    leases::delete(&mut draft.set, ClientId::from_slice(&write.client_id).ok_or_else(what)?, inode);
    // A visible file has its name, and the reservation of that is another's.
    if !write.visible {
        pending::delete(&mut draft.set, InodeId(record.parent_id), &record.name);
    }
    Ok(())
}
