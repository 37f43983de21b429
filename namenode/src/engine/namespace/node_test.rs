//! Registering datanodes, and what administrators decide about them.

use bytes::Bytes;
use doldam_proto::FsError;
use doldam_proto::id::{NodeId, NodeUuid};

use doldam_proto::wire::command::Change;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{NodeMode, RegisterNodeCommand, SetNodeModeCommand};

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

fn set_mode(mode: NodeMode) -> SetNodeModeCommand {
    SetNodeModeCommand { node_id: 2, mode: mode as i32, ..SetNodeModeCommand::default() }
}

fn decision(world: &World) -> view::Decision {
    view::node(&world.tables, NodeId(2)).unwrap().unwrap().decision
}

#[test]
fn what_was_decided_about_a_node_stays_when_it_registers_anew() {
    let mut world = World::new();
    assert_eq!(decision(&world), view::Decision::InService);
    let drain = SetNodeModeCommand { accept_fewer: true, ..set_mode(NodeMode::Draining) };
    for _ in 0..2 {
        world.own(Change::SetNodeMode(drain)).unwrap();
        world.own(register(2)).unwrap();
        assert_eq!(decision(&world), view::Decision::Drain { accept_fewer: true });
    }
    world.own(Change::SetNodeMode(set_mode(NodeMode::Unspecified))).unwrap();
    assert_eq!(decision(&world), view::Decision::InService);
}

#[test]
fn only_the_maintenance_that_is_meant_ends() {
    let mut world = World::new();
    let maintain = |until_ms| SetNodeModeCommand {
        until_ms,
        duration_ms: 50,
        ..set_mode(NodeMode::Maintenance)
    };
    let end = |until_ms| {
        let command = set_mode(NodeMode::Unspecified);
        Change::SetNodeMode(SetNodeModeCommand { only_if_until_ms: until_ms, ..command })
    };
    world.own(Change::SetNodeMode(maintain(100))).unwrap();
    world.own(Change::SetNodeMode(maintain(200))).unwrap();
    world.own(end(100)).unwrap();
    let longer = view::Decision::Maintain { until_ms: 200, duration_ms: 50 };
    assert_eq!(decision(&world), longer);
    world.own(end(200)).unwrap();
    assert_eq!(decision(&world), view::Decision::InService);
    world.own(Change::SetNodeMode(set_mode(NodeMode::Draining))).unwrap();
    world.own(end(200)).unwrap();
    assert_eq!(decision(&world), view::Decision::Drain { accept_fewer: false });
}

#[test]
fn a_mode_of_an_unknown_node_or_an_endless_moment_is_refused() {
    let mut world = World::new();
    let unknown = SetNodeModeCommand { node_id: 99, ..set_mode(NodeMode::Draining) };
    let refusal = world.own(Change::SetNodeMode(unknown)).unwrap_err();
    assert_eq!(refusal, FsError::NotRegistered { node: 99 });
    let refusal = world.own(Change::SetNodeMode(set_mode(NodeMode::Maintenance))).unwrap_err();
    let field = "duration_ms".to_owned();
    assert_eq!(without_why(refusal), FsError::InvalidArgument { field, why: String::new() });
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
