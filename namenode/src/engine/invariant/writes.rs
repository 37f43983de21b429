//! Reservations, leases and kept requests.

use std::collections::{BTreeMap, BTreeSet};

use doldam_proto::id::{ClientId, InodeId};

use super::{Findings, Snapshot};
use crate::engine::records::requests::FLOOR;
use crate::engine::records::{CONTINUE, requests};
use crate::engine::tables::{StoreError, Table, Tables};

pub(super) fn check(
    state: &Snapshot,
    tables: &dyn Tables,
    found: &mut Findings,
) -> Result<(), StoreError> {
    let mut pending = BTreeMap::new();
    let mut leases = BTreeSet::new();
    for (id, record) in &state.inodes {
        let Some(write) = record.file.as_ref().and_then(|file| file.pending.as_ref()) else {
            continue;
        };
        if !write.visible {
            pending.insert((InodeId(record.parent_id), record.name.clone()), *id);
        }
        match ClientId::from_slice(&write.client_id) {
            Some(client) => _ = leases.insert((client, *id)),
            None => found.add(Table::Inodes, format!("the writer of {id} has no id")),
        }
    }
    found.compare(Table::Pending, &pending, &state.pending);
    found.compare_sets(Table::Leases, &leases, &state.leases);

    let mut floor = None;
    requests::scan_after(tables, &[], &mut |client, sequence, record| {
        if sequence == FLOOR {
            floor = Some((client, record.answered_below));
        } else if floor.is_some_and(|(of, below)| of == client && sequence < below) {
            found.add(Table::Requests, format!("{client} {sequence} is below the floor"));
        }
        CONTINUE
    })
}
