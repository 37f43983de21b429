//! Datanodes get a short id when they first register, and keep it for ever.

use doldam_proto::FsError;
use doldam_proto::id::{NodeId, NodeUuid};
use doldam_proto::limits::TEXT_BYTES_MAX;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{NodeRecord, RegisterNodeCommand, RegisterNodeOutcome};

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
    let record = NodeRecord {
        node_uuid: uuid.to_bytes(),
        address: command.address.clone(),
        rack: command.rack.clone(),
    };
    if let Some(node) = node_uuids::get(&draft.set, uuid)? {
        let missing = || damaged(Table::Nodes, format!("node {node} is missing"));
        if nodes::get(&draft.set, node)?.ok_or_else(missing)? != record {
            nodes::put(&mut draft.set, node, &record);
        }
        return Ok(registered(node));
    }
    let node = draft.next_node();
    node_uuids::put(&mut draft.set, uuid, node);
    nodes::put(&mut draft.set, node, &record);
    Ok(registered(node))
}

fn registered(node: NodeId) -> Kind {
    Kind::RegisterNode(RegisterNodeOutcome { node_id: node.0 })
}

fn refuse(field: &str, why: String) -> FsError {
    FsError::InvalidArgument { field: field.to_owned(), why }
}
