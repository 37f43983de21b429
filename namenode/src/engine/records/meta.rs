//! `Meta`: what there is one of.
//!
//! Key: a name. `cluster_id`: 16 bytes, set by the first command of every journal and never
//! changed. `counters`: `CountersRecord`; one record, so that a command reads and writes all of
//! them at once. `forgotten_to`: key in `Requests` up to which the last slice of forgetting came;
//! absent before the first.

use bytes::Bytes;
use doldam_proto::id::ClusterId;
use doldam_proto::wire::CountersRecord;

use super::{damaged, decode, encode, exactly};
use crate::engine::tables::{StoreError, Table, Tables, WriteSet};

const CLUSTER_ID: &[u8] = b"cluster_id";
const COUNTERS: &[u8] = b"counters";
const FORGOTTEN_TO: &[u8] = b"forgotten_to";

/// The cluster; `None` before the first command.
pub(crate) fn cluster_id(tables: &dyn Tables) -> Result<Option<ClusterId>, StoreError> {
    let value = tables.get(Table::Meta, CLUSTER_ID)?;
    value.map(|value| exactly(Table::Meta, &value).map(ClusterId)).transpose()
}

/// Sets the cluster.
pub(crate) fn put_cluster_id(set: &mut WriteSet<'_>, cluster: ClusterId) {
    set.put(Table::Meta, CLUSTER_ID, cluster.to_bytes());
}

/// The counters. They exist from the first command on.
pub(crate) fn counters(tables: &dyn Tables) -> Result<CountersRecord, StoreError> {
    let value = tables.get(Table::Meta, COUNTERS)?;
    let value = value.ok_or_else(|| damaged(Table::Meta, "there are no counters"))?;
    decode(Table::Meta, value)
}

/// Sets the counters.
pub(crate) fn put_counters(set: &mut WriteSet<'_>, counters: &CountersRecord) {
    set.put(Table::Meta, COUNTERS, encode(counters));
}

/// The key in `Requests` where the next slice of forgetting goes on; empty at the start.
pub(crate) fn forgotten_to(tables: &dyn Tables) -> Result<Bytes, StoreError> {
    Ok(tables.get(Table::Meta, FORGOTTEN_TO)?.unwrap_or_default())
}

/// Sets the key after which the next slice of forgetting goes on; `None` for the start.
pub(crate) fn put_forgotten_to(set: &mut WriteSet<'_>, key: Option<&[u8]>) {
    match key {
        Some(key) => set.put(Table::Meta, FORGOTTEN_TO, key.to_vec()),
        None => set.delete(Table::Meta, FORGOTTEN_TO),
    }
}
