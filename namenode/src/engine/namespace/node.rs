//! Datanodes get a short id when they first register, and keep it for ever. What an administrator decided about one
//! stays with it, whatever it registers as.

use doldam_proto::FsError;
use doldam_proto::id::{NodeId, NodeUuid};
use doldam_proto::limits::TEXT_BYTES_MAX;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{
    Done, NodeMode, NodeRecord, RegisterNodeCommand, RegisterNodeOutcome, SetNodeModeCommand,
};

use super::NamespaceError;
use super::draft::Draft;
use crate::engine::records::{damaged, node_uuids, nodes};
use crate::engine::tables::Table;

/// Registers a datanode, or notes the new address or rack of one that is known.
pub(super) fn register(
    draft: &mut Draft<'_>,
    command: &RegisterNodeCommand,
) -> Result<Kind, NamespaceError> {
    let uuid = NodeUuid::from_slice(&command.node_uuid)
        .ok_or_else(|| refuse("node_uuid", format!("{} bytes, not 16", command.node_uuid.len())))?;
    if command.address.is_empty() {
        return Err(refuse("address", "is empty".to_owned()).into());
    }
    for (field, text) in [("address", &command.address), ("rack", &command.rack)] {
        if text.len() > TEXT_BYTES_MAX {
            let why = format!("{} bytes are more than {TEXT_BYTES_MAX}", text.len());
            return Err(refuse(field, why).into());
        }
    }
    let (address, rack) = (command.address.clone(), command.rack.clone());
    if let Some(node) = node_uuids::get(&draft.set, uuid)? {
        let missing = || damaged(Table::Nodes, format!("node {node} is missing"));
        let before = nodes::get(&draft.set, node)?.ok_or_else(missing)?;
        let record = NodeRecord { address, rack, ..before.clone() };
        if before != record {
            nodes::put(&mut draft.set, node, &record);
        }
        return Ok(registered(node));
    }
    let record = NodeRecord { node_uuid: uuid.to_bytes(), address, rack, ..NodeRecord::default() };
    let node = draft.next_node();
    node_uuids::put(&mut draft.set, uuid, node);
    nodes::put(&mut draft.set, node, &record);
    Ok(registered(node))
}

/// Notes what an administrator decided about a node, or that a maintenance is over.
pub(super) fn set_mode(
    draft: &mut Draft<'_>,
    command: SetNodeModeCommand,
) -> Result<Kind, NamespaceError> {
    let node = NodeId(command.node_id);
    let unknown = || FsError::NotRegistered { node: node.0 };
    let before = nodes::get(&draft.set, node)?.ok_or_else(unknown)?;
    let is_maintenance = command.mode() == NodeMode::Maintenance;
    if is_maintenance && command.duration_ms == 0 {
        return Err(refuse("duration_ms", "a maintenance of 0 ms is none".to_owned()).into());
    }
    let is_another =
        before.mode() != NodeMode::Maintenance || before.until_ms != command.only_if_until_ms;
    if command.only_if_until_ms != 0 && is_another {
        return Ok(Kind::Done(Done {}));
    }
    let of_maintenance = |value: u64| if is_maintenance { value } else { 0 };
    let after = NodeRecord {
        mode: command.mode,
        accept_fewer: command.accept_fewer && command.mode() == NodeMode::Draining,
        until_ms: of_maintenance(command.until_ms),
        duration_ms: of_maintenance(command.duration_ms),
        ..before.clone()
    };
    if before != after {
        nodes::put(&mut draft.set, node, &after);
    }
    Ok(Kind::Done(Done {}))
}

fn registered(node: NodeId) -> Kind {
    Kind::RegisterNode(RegisterNodeOutcome { node_id: node.0 })
}

fn refuse(field: &str, why: String) -> FsError {
    FsError::InvalidArgument { field: field.to_owned(), why }
}
