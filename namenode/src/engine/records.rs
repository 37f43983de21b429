//! Typed access to the records of each table, one file for each.
//!
//! | table | file | key | value |
//! |---|---|---|---|
//! | `Meta` | [`meta`] | name | see there |
//! | `Inodes` | [`inodes`] | inode u64 | `InodeRecord` |
//! | `Children` | [`children`] | parent inode u64, name (UTF-8) | inode u64 |
//! | `Pending` | [`pending`] | parent inode u64, name (UTF-8) | inode u64 |
//! | `Leases` | [`leases`] | client 16 bytes, inode u64 | nothing |
//! | `Blocks` | [`blocks`] | inode u64, index u32 | `BlockRecord` |
//! | `BlockOwners` | [`block_owners`] | block u64 | inode u64, index u32 |
//! | `Replicas` | [`replicas`] | node u32, bucket u32, block u64 | generation u64, length u64 |
//! | `Fingerprints` | [`fingerprints`] | node u32, bucket u32 | set hash 32 bytes, count u64 |
//! | `Nodes` | [`nodes`] | node u32 | `NodeRecord` |
//! | `NodeUuids` | [`node_uuids`] | uuid 16 bytes | node u32 |
//! | `Garbage` | [`garbage`] | position u64 | `GarbageRecord` |
//! | `Requests` | [`requests`] | client 16 bytes, sequence u64 | `RequestRecord` |
//! | `Debts` | [`debts`] | block u64 | nothing |
//!
//! A visitor of a scan must not read from the tables it scans: a store may hold a lock meanwhile.
//!
//! All numbers are big-endian, so that the order of bytes is the order of numbers. A key or value
//! that does not decode is [`StoreError::Damaged`]: nothing is guessed, nothing is skipped.

pub(crate) mod block_owners;
pub(crate) mod blocks;
pub(crate) mod children;
pub(crate) mod debts;
pub(crate) mod fingerprints;
pub(crate) mod garbage;
pub(crate) mod inodes;
pub(crate) mod leases;
pub(crate) mod meta;
mod names;
pub(crate) mod node_uuids;
pub(crate) mod nodes;
pub(crate) mod pending;
pub(crate) mod replicas;
pub(crate) mod requests;

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use prost::Message;

use super::tables::{StoreError, Table, Tables};

/// What a typed visitor answers: go on, stop, or report damage.
pub(crate) type Flow = Result<ControlFlow<()>, StoreError>;

/// The visitor goes on.
pub(crate) const CONTINUE: Flow = Ok(ControlFlow::Continue(()));
/// The visitor has seen enough.
pub(crate) const BREAK: Flow = Ok(ControlFlow::Break(()));

/// A record of `table` that does not decode or contradicts another.
pub(crate) fn damaged(table: Table, what: impl Into<String>) -> StoreError {
    StoreError::Damaged { table, what: what.into() }
}

/// Decodes a message.
fn decode<M: Message + Default>(table: Table, value: Bytes) -> Result<M, StoreError> {
    M::decode(value).map_err(|error| damaged(table, format!("a value does not decode: {error}")))
}

/// Encodes a message.
fn encode(record: &impl Message) -> Bytes {
    record.encode_to_vec().into()
}

/// Reads exactly `N` bytes.
fn exactly<const N: usize>(table: Table, bytes: &[u8]) -> Result<[u8; N], StoreError> {
    let found = bytes.len();
    let wrong = |_| damaged(table, format!("a part has {found} bytes where {N} belong"));
    bytes.try_into().map_err(wrong)
}

/// Splits the first `N` bytes off.
fn split<const N: usize>(table: Table, bytes: &[u8]) -> Result<([u8; N], &[u8]), StoreError> {
    match bytes.split_first_chunk() {
        Some((first, rest)) => Ok((*first, rest)),
        None => Err(damaged(table, format!("{} bytes are too short for {N}", bytes.len()))),
    }
}

/// Visits the entries whose keys start with `prefix`, from `from` on, in order of keys.
fn scan(
    tables: &dyn Tables,
    table: Table,
    prefix: &[u8],
    from: Bound<&[u8]>,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> Flow,
) -> Result<(), StoreError> {
    let mut failure = None;
    tables.scan(table, from, &mut |key, value| {
        let Some(rest) = key.strip_prefix(prefix) else { return ControlFlow::Break(()) };
        visit(rest, value).unwrap_or_else(|error| {
            failure = Some(error);
            ControlFlow::Break(())
        })
    })?;
    failure.map_or(Ok(()), Err)
}

#[cfg(test)]
mod records_test;
