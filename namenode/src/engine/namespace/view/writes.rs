//! Unfinished writes and who holds them.

use doldam_proto::file::Durability;
use doldam_proto::id::{ClientId, InodeId, NodeId};
use doldam_proto::path::FsPath;

use crate::engine::namespace::NamespaceError;
use crate::engine::namespace::lease::{Write, find_write};
use crate::engine::namespace::resolve::{ascend, place};
use crate::engine::records::{BREAK, CONTINUE, blocks, damaged, leases, pending};
use crate::engine::tables::{StoreError, Table, Tables};

/// A write as whoever places its blocks needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteView {
    /// The handle.
    pub inode: InodeId,
    /// Where the file will appear, for people.
    pub path: String,
    /// Who writes.
    pub client: ClientId,
    /// Who writes, for people.
    pub holder: String,
    /// Wanted replicas.
    pub replication: u32,
    /// Block size.
    pub block_bytes: u64,
    /// What the writer asked for.
    pub durability: Durability,
}

/// The write with the handle `inode`; `None` if it was completed, given up or never started.
///
/// # Errors
/// If the store fails.
pub fn unfinished_write(
    tables: &dyn Tables,
    inode: InodeId,
) -> Result<Option<WriteView>, NamespaceError> {
    let Some(write) = find_write(tables, inode)? else { return Ok(None) };
    from_write(tables, write).map(Some)
}

/// The write that holds the name `path`, if there is one and its directory exists.
///
/// # Errors
/// If the store fails.
pub fn writer_of_path(
    tables: &dyn Tables,
    path: &FsPath,
) -> Result<Option<WriteView>, NamespaceError> {
    let place = match place(tables, path) {
        Ok(Some(place)) => place,
        Ok(None) | Err(NamespaceError::Refused(_)) => return Ok(None),
        Err(error @ NamespaceError::Store(_)) => return Err(error),
    };
    match pending::get(tables, place.parent, place.name)? {
        Some(inode) => unfinished_write(tables, inode),
        None => Ok(None),
    }
}

/// Clients after `after` (`None`: from the first) that write anything, in order of ids, at most
/// `max`.
///
/// # Errors
/// If the store fails.
pub fn lease_holders(
    tables: &dyn Tables,
    after: Option<ClientId>,
    max: usize,
) -> Result<Vec<ClientId>, StoreError> {
    let mut found = Vec::new();
    let mut last = after;
    while found.len() < max {
        let Some(client) = leases::next_client(tables, last)? else { break };
        found.push(client);
        last = Some(client);
    }
    Ok(found)
}

/// Whether `client` writes anything, that is, has a lease to renew or to lose.
///
/// # Errors
/// If the store fails.
pub fn writes_anything(tables: &dyn Tables, client: ClientId) -> Result<bool, StoreError> {
    let mut any = false;
    leases::scan(tables, client, &mut |_| {
        any = true;
        BREAK
    })?;
    Ok(any)
}

/// How many blocks are being written to `node` by the first `writes_max` unfinished writes.
///
/// # Errors
/// If the store fails.
pub fn open_blocks_on(
    tables: &dyn Tables,
    node: NodeId,
    writes_max: usize,
) -> Result<u64, StoreError> {
    let (mut writes, mut found) = (0, 0);
    leases::scan_all(tables, &mut |_, inode| {
        writes += 1;
        blocks::scan(tables, inode, 0, &mut |_, block| {
            found += u64::from(!block.committed && block.replicas.contains(&node.0));
            CONTINUE
        })?;
        if writes == writes_max { BREAK } else { CONTINUE }
    })?;
    Ok(found)
}

fn from_write(tables: &dyn Tables, write: Write) -> Result<WriteView, NamespaceError> {
    let wrong = || damaged(Table::Inodes, format!("the writer of {} has no id", write.id));
    let client = ClientId::from_slice(&write.pending.client_id).ok_or_else(wrong)?;
    Ok(WriteView {
        inode: write.id,
        path: ascend(tables, write.id, &write.inode)?.for_people(),
        client,
        replication: write.file.replication,
        block_bytes: write.file.block_bytes,
        durability: write.file.durability().into(),
        holder: write.pending.holder,
    })
}
