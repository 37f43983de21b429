//! Registering datanodes.

use bytes::Bytes;
use doldam_proto::FsError;
use doldam_proto::id::{NodeId, NodeUuid};
use doldam_proto::wire::RegisterNodeCommand;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::outcome::Kind;

use super::view;
use super::world::{NODES, World, register, without_why};

#[test]
fn a_node_keeps_its_id_and_may_change_its_address() {
    let mut world = World::new();
    let moved = RegisterNodeCommand {
        node_uuid: Bytes::from(vec![2; 16]),
        address: "elsewhere:1".to_owned(),
        rack: "/r2".to_owned(),
    };
    let outcome = world.own(Change::RegisterNode(moved)).unwrap();
    assert!(matches!(outcome.kind, Some(Kind::RegisterNode(node)) if node.node_id == 2));
    let node = view::node(&world.tables, NodeId(2)).unwrap().unwrap();
    assert_eq!((node.address.as_str(), node.rack.as_str()), ("elsewhere:1", "/r2"));
    let uuid = NodeUuid([2; 16]);
    assert_eq!(view::node_by_uuid(&world.tables, uuid).unwrap(), Some(NodeId(2)));
    world.own(register(9)).unwrap();
    let ids: Vec<u32> = view::nodes(&world.tables).unwrap().iter().map(|node| node.id.0).collect();
    assert_eq!(ids, [1, 2, 3, 4, NODES + 1]);
    assert_eq!(view::node(&world.tables, NodeId(6)).unwrap(), None);
}

#[test]
fn a_node_without_an_identity_or_an_address_is_refused() {
    let mut world = World::new();
    let good = RegisterNodeCommand {
        node_uuid: Bytes::from(vec![8; 16]),
        address: "a:1".to_owned(),
        rack: String::new(),
    };
    for (field, command) in [
        ("node_uuid", RegisterNodeCommand { node_uuid: "x".into(), ..good.clone() }),
        ("address", RegisterNodeCommand { address: String::new(), ..good.clone() }),
        ("address", RegisterNodeCommand { address: "a".repeat(1025), ..good.clone() }),
        ("rack", RegisterNodeCommand { rack: "r".repeat(1025), ..good.clone() }),
    ] {
        let refusal = world.own(Change::RegisterNode(command)).unwrap_err();
        let field = field.to_owned();
        assert_eq!(without_why(refusal), FsError::InvalidArgument { field, why: String::new() });
    }
    world.own(Change::RegisterNode(good)).unwrap();
}
