//! `Leases`: what a client is writing.
//!
//! Key: client id (16 bytes), inode id (8 bytes). No value. When a lease runs out is not stored:
//! the leader counts that on its own monotonic clock, and all leases count as renewed when it
//! starts.

use std::ops::Bound;

use doldam_proto::id::{ClientId, InodeId};

use super::{BREAK, Flow, exactly, split};
use crate::engine::tables::{StoreError, Table, Tables, WriteSet};

const CLIENT_BYTES: usize = 16;
const KEY_BYTES: usize = CLIENT_BYTES + size_of::<u64>();

fn key(client: ClientId, inode: InodeId) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..CLIENT_BYTES].copy_from_slice(&client.0);
    key[CLIENT_BYTES..].copy_from_slice(&inode.0.to_be_bytes());
    key
}

/// Notes that `client` writes `inode`.
pub(crate) fn put(set: &mut WriteSet<'_>, client: ClientId, inode: InodeId) {
    set.put(Table::Leases, &key(client, inode), bytes::Bytes::new());
}

/// Notes that `client` no longer writes `inode`.
pub(crate) fn delete(set: &mut WriteSet<'_>, client: ClientId, inode: InodeId) {
    set.delete(Table::Leases, &key(client, inode));
}

/// Visits what `client` writes, in order of inode ids.
pub(crate) fn scan(
    tables: &dyn Tables,
    client: ClientId,
    visit: &mut dyn FnMut(InodeId) -> Flow,
) -> Result<(), StoreError> {
    scan_at(tables, client, &client.0, visit)
}

/// Visits what `client` writes from the inode `first` on, in order of inode ids.
pub(crate) fn scan_from(
    tables: &dyn Tables,
    client: ClientId,
    first: u64,
    visit: &mut dyn FnMut(InodeId) -> Flow,
) -> Result<(), StoreError> {
    scan_at(tables, client, &key(client, InodeId(first)), visit)
}

fn scan_at(
    tables: &dyn Tables,
    client: ClientId,
    from: &[u8],
    visit: &mut dyn FnMut(InodeId) -> Flow,
) -> Result<(), StoreError> {
    let from = Bound::Included(from);
    super::scan(tables, Table::Leases, &client.0, from, &mut |inode, _| {
        visit(InodeId(u64::from_be_bytes(exactly(Table::Leases, inode)?)))
    })
}

/// The first client after `after` that writes anything.
pub(crate) fn next_client(
    tables: &dyn Tables,
    after: Option<ClientId>,
) -> Result<Option<ClientId>, StoreError> {
    let last_of_client = after.map(|client| key(client, InodeId(u64::MAX)));
    let from = last_of_client.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
    let mut found = None;
    super::scan(tables, Table::Leases, &[], from, &mut |key, _| {
        let (client, _) = split(Table::Leases, key)?;
        found = Some(ClientId(client));
        BREAK
    })?;
    Ok(found)
}

/// Visits every lease.
pub(crate) fn scan_all(
    tables: &dyn Tables,
    visit: &mut dyn FnMut(ClientId, InodeId) -> Flow,
) -> Result<(), StoreError> {
    super::scan(tables, Table::Leases, &[], Bound::Unbounded, &mut |key, _| {
        let (client, inode) = split(Table::Leases, key)?;
        visit(ClientId(client), InodeId(u64::from_be_bytes(exactly(Table::Leases, inode)?)))
    })
}
