//! Which replica comes next, and that every plan ends.

use doldam_proto::node::NodeState;
use proptest::prelude::*;

use super::*;

fn node_in(id: u32, state: NodeState) -> NodeAddress {
    NodeAddress { id: NodeId(id), address: format!("n{id}:1"), rack: "/r".to_owned(), state }
}

fn node(id: u32) -> NodeAddress {
    node_in(id, NodeState::Live)
}

fn nodes(ids: &[u32]) -> Vec<NodeAddress> {
    ids.iter().copied().map(node).collect()
}

fn failure(id: u32, bad_data: bool) -> NodeFailure {
    NodeFailure { node: Some(node(id)), cause: "broke".into(), bad_data }
}

fn plan(ids: &[u32]) -> ReadPlan {
    ReadPlan::new(&nodes(ids), &BTreeSet::new())
}

fn read(id: u32) -> ReadStep {
    ReadStep::Read(node(id))
}

#[test]
fn replicas_are_tried_in_the_namenodes_order_then_asked_for_once_more_then_given_up() {
    let mut plan = plan(&[3, 1]);
    assert_eq!(plan.next(), read(3));
    assert_eq!(plan.current(), Some(&node(3)));
    plan.failed("broke".into(), false);
    assert_eq!(plan.current(), None);
    assert_eq!(plan.next(), read(1));
    plan.failed("broke".into(), true);
    assert_eq!(plan.next(), ReadStep::Relocate);
    assert!(plan.may_recover());
    // The one with bad data is not believed again, the other may be back; whoever is new comes first.
    plan.relocate(&nodes(&[1, 3, 2]));
    assert_eq!(plan.next(), read(2));
    plan.failed("broke".into(), false);
    assert_eq!(plan.next(), read(3));
    plan.failed("broke".into(), false);
    let tried = vec![failure(1, true), failure(2, false), failure(3, false)];
    assert_eq!(plan.next(), ReadStep::GiveUp(tried));
}

#[test]
fn a_block_without_replicas_is_asked_for_once_more() {
    let mut plan = plan(&[]);
    assert_eq!(plan.next(), ReadStep::Relocate);
    plan.relocate(&nodes(&[]));
    assert_eq!(plan.next(), ReadStep::GiveUp(vec![]));
}

#[test]
fn nodes_that_failed_before_come_last_and_suspects_before_them() {
    let replicas = [node(1), node_in(2, NodeState::Suspect), node(3), node(4)];
    let mut plan = ReadPlan::new(&replicas, &[NodeId(1)].into());
    let mut order = Vec::new();
    while let ReadStep::Read(node) = plan.next() {
        order.push(node.id.0);
        plan.failed("broke".into(), false);
    }
    assert_eq!(order, [3, 4, 2, 1]);
}

#[test]
fn a_replica_that_delivered_is_tried_again_after_the_others_and_once_per_delivery() {
    let mut plan = plan(&[1, 2]);
    assert_eq!(plan.next(), read(1));
    plan.progressed();
    plan.failed("broke".into(), false);
    assert_eq!(plan.next(), read(2));
    plan.failed("broke".into(), false);
    assert_eq!(plan.next(), read(1));
    plan.failed("broke".into(), false);
    assert_eq!(plan.next(), ReadStep::Relocate);
}

#[test]
fn a_replica_with_bad_data_is_out_even_if_it_delivered() {
    let mut plan = plan(&[1]);
    assert_eq!(plan.next(), read(1));
    plan.progressed();
    plan.failed("broke".into(), true);
    assert_eq!(plan.next(), ReadStep::Relocate);
    assert!(!plan.may_recover());
    plan.relocate(&nodes(&[1]));
    assert_eq!(plan.next(), ReadStep::GiveUp(vec![failure(1, true)]));
}

#[test]
fn requests_grow_from_little_after_a_seek_to_the_rest_of_the_block() {
    let mut ahead = ReadAhead::starting_at(5);
    let mut take = |left| ahead.take(left);
    assert_eq!([take(1 << 30), take(1 << 30), take(100)], [256 << 10, 1 << 20, 100]);
    assert_eq!(ReadAhead::starting_at(0).take(1 << 30), 8 << 20);
    let mut ahead = ReadAhead::starting_at(1);
    for _ in 0..100 {
        ahead.take(1);
    }
    assert_eq!(ahead.take(u64::MAX), u64::MAX);
}

proptest! {
    /// Each step of the script says what the replica being read does: 0 and 1 fail, 2 fails with bad data, others
    /// deliver and then fail.
    #[test]
    fn a_plan_ends_after_every_replica_was_tried_and_never_reads_bad_data_twice(
        first in proptest::collection::vec(1_u32..6, 0..5),
        second in proptest::collection::vec(1_u32..6, 0..5),
        distrusted in proptest::collection::btree_set((1_u32..6).prop_map(NodeId), 0..3),
        script in proptest::collection::vec(0_u8..5, 0..40),
    ) {
        let mut plan = ReadPlan::new(&nodes(&first), &distrusted);
        let mut script = script.into_iter().chain(std::iter::repeat(0));
        let (mut tried, mut bad) = (BTreeSet::new(), BTreeSet::new());
        let (mut deliveries, mut reads, mut relocations) = (0, 0, 0);
        loop {
            match plan.next() {
                ReadStep::Read(node) => {
                    reads += 1;
                    prop_assert!(!bad.contains(&node.id), "bad data is read again");
                    tried.insert(node.id);
                    let step = script.next().unwrap_or(0);
                    if step > 2 {
                        deliveries += 1;
                        plan.progressed();
                    }
                    if step == 2 {
                        bad.insert(node.id);
                    }
                    plan.failed("broke".into(), step == 2);
                }
                ReadStep::Relocate => {
                    relocations += 1;
                    plan.relocate(&nodes(&second));
                }
                ReadStep::GiveUp(failures) => {
                    let named: BTreeSet<NodeId> =
                        failures.iter().filter_map(|f| Some(f.node.as_ref()?.id)).collect();
                    prop_assert_eq!(named.len(), failures.len(), "each node is named once");
                    prop_assert_eq!(named, tried.clone());
                    break;
                }
            }
            prop_assert!(reads <= first.len() + second.len() + deliveries, "it goes in circles");
        }
        let all: BTreeSet<NodeId> =
            first.iter().chain(&second).copied().map(NodeId).collect();
        prop_assert_eq!(relocations, 1);
        prop_assert_eq!(tried, all);
    }
}
