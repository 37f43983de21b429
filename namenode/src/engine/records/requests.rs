//! `Requests`: the outcomes of requests whose answer a client may still ask for again.
//!
//! Key: client id (16 bytes), sequence (8 bytes). Value: `RequestRecord`. Sequence [`FLOOR`], which
//! no request has, holds the sequence below which everything was answered and forgotten.

use std::ops::Bound;

use doldam_proto::id::ClientId;
use doldam_proto::wire::RequestRecord;

use super::{Flow, decode, encode, exactly, split};
use crate::engine::tables::{StoreError, Table, Tables, WriteSet};

/// The place of the client's floor.
pub(crate) const FLOOR: u64 = 0;

pub(crate) const KEY_BYTES: usize = CLIENT_BYTES + size_of::<u64>();
const CLIENT_BYTES: usize = 16;

pub(crate) fn key(client: ClientId, sequence: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..CLIENT_BYTES].copy_from_slice(&client.0);
    key[CLIENT_BYTES..].copy_from_slice(&sequence.to_be_bytes());
    key
}

/// What is known of the request.
pub(crate) fn get(
    tables: &dyn Tables,
    client: ClientId,
    sequence: u64,
) -> Result<Option<RequestRecord>, StoreError> {
    let value = tables.get(Table::Requests, &key(client, sequence))?;
    value.map(|value| decode(Table::Requests, value)).transpose()
}

/// Sets what is known of the request.
pub(crate) fn put(set: &mut WriteSet<'_>, client: ClientId, sequence: u64, record: &RequestRecord) {
    set.put(Table::Requests, &key(client, sequence), encode(record));
}

/// Forgets the request.
pub(crate) fn delete(set: &mut WriteSet<'_>, client: ClientId, sequence: u64) {
    set.delete(Table::Requests, &key(client, sequence));
}

/// Visits the sequences of `client` from `from` on that are known, in order.
pub(crate) fn scan_sequences(
    tables: &dyn Tables,
    client: ClientId,
    from: u64,
    visit: &mut dyn FnMut(u64) -> Flow,
) -> Result<(), StoreError> {
    let from = key(client, from);
    super::scan(tables, Table::Requests, &client.0, Bound::Included(&from), &mut |rest, _| {
        visit(u64::from_be_bytes(exactly(Table::Requests, rest)?))
    })
}

/// Visits the requests of all clients after `after` (a key, or empty), in order of keys.
pub(crate) fn scan_after(
    tables: &dyn Tables,
    after: &[u8],
    visit: &mut dyn FnMut(ClientId, u64, RequestRecord) -> Flow,
) -> Result<(), StoreError> {
    super::scan(tables, Table::Requests, &[], Bound::Excluded(after), &mut |key, value| {
        let (client, sequence) = split(Table::Requests, key)?;
        let sequence = u64::from_be_bytes(exactly(Table::Requests, sequence)?);
        let record = decode(Table::Requests, bytes::Bytes::copy_from_slice(value))?;
        visit(ClientId(client), sequence, record)
    })
}
