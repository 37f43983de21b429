//! Which replica comes next, and that every plan ends.

use doldam_proto::node::NodeState;
use proptest::prelude::*;

use super::*;

const LATE: Duration = Duration::from_millis(400);

fn node(id: u32) -> NodeAddress {
    let (address, rack) = (format!("n{id}:1"), "/r".to_owned());
    NodeAddress { id: NodeId(id), address, rack, state: NodeState::Live }
}

fn nodes(ids: &[u32]) -> Vec<NodeAddress> {
    ids.iter().copied().map(node).collect()
}

fn failure(id: u32, bad_data: bool) -> NodeFailure {
    NodeFailure { node: Some(node(id)), cause: "broke".into(), bad_data }
}

fn plan(ids: &[u32]) -> ReadPlan {
    ReadPlan::new(nodes(ids))
}

fn read(id: u32) -> ReadStep {
    ReadStep::Read(node(id))
}

#[test]
fn replicas_are_tried_in_their_order_then_asked_for_once_more_then_given_up() {
    let mut plan = plan(&[3, 1]);
    assert_eq!(plan.next(), read(3));
    assert_eq!(plan.current(), Some(&node(3)));
    plan.failed(Side::Current, "broke".into(), false);
    assert_eq!(plan.current(), None);
    assert_eq!(plan.next(), read(1));
    plan.failed(Side::Current, "broke".into(), true);
    assert_eq!(plan.next(), ReadStep::Relocate);
    assert!(plan.may_recover());
    // The one with bad data is not believed again, the other may be back; whoever is new comes first.
    plan.relocate(nodes(&[1, 3, 2]));
    assert_eq!(plan.next(), read(2));
    plan.failed(Side::Current, "broke".into(), false);
    assert_eq!(plan.next(), read(3));
    plan.failed(Side::Current, "broke".into(), false);
    let tried = vec![failure(1, true), failure(2, false), failure(3, false)];
    assert_eq!(plan.next(), ReadStep::GiveUp(tried));
}

#[test]
fn a_block_without_replicas_is_asked_for_once_more() {
    let mut plan = plan(&[]);
    assert_eq!(plan.next(), ReadStep::Relocate);
    plan.relocate(nodes(&[]));
    assert_eq!(plan.next(), ReadStep::GiveUp(vec![]));
}

#[test]
fn a_replica_that_delivered_is_tried_again_after_the_others_and_once_per_delivery() {
    let mut plan = plan(&[1, 2]);
    assert_eq!(plan.next(), read(1));
    assert_eq!(plan.delivered(Side::Current), None);
    plan.failed(Side::Current, "broke".into(), false);
    assert_eq!(plan.next(), read(2));
    plan.failed(Side::Current, "broke".into(), false);
    assert_eq!(plan.next(), read(1));
    plan.failed(Side::Current, "broke".into(), false);
    assert_eq!(plan.next(), ReadStep::Relocate);
}

#[test]
fn a_replica_with_bad_data_is_out_even_if_it_delivered() {
    let mut plan = plan(&[1]);
    assert_eq!(plan.next(), read(1));
    assert_eq!(plan.delivered(Side::Current), None);
    plan.failed(Side::Current, "broke".into(), true);
    assert_eq!(plan.next(), ReadStep::Relocate);
    assert!(!plan.may_recover());
    plan.relocate(nodes(&[1]));
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

/// A plan in which 1 is read and 2 asked beside it.
fn hedged(ids: &[u32]) -> ReadPlan {
    let mut plan = plan(ids);
    assert_eq!(plan.next(), read(ids[0]));
    assert_eq!(plan.late(LATE, false, || true), LateStep::Hedge(node(ids[1])));
    plan
}

#[test]
fn the_second_that_delivers_is_read_on_and_the_late_one_goes_to_the_end_of_the_line() {
    let mut plan = hedged(&[1, 2, 3]);
    assert_eq!(
        (plan.node(Side::Current), plan.node(Side::Second)),
        (Some(&node(1)), Some(&node(2)))
    );
    assert_eq!(plan.delivered(Side::Second), Some(node(1)));
    assert_eq!((plan.current(), plan.node(Side::Second)), (Some(&node(2)), None));
    assert_eq!(plan.late(LATE, false, || true), LateStep::Hedge(node(3)));
    plan.failed(Side::Current, "broke".into(), true);
    assert_eq!(plan.current(), Some(&node(3)));
    plan.failed(Side::Current, "broke".into(), false);
    assert_eq!(plan.next(), read(1));
}

#[test]
fn the_first_that_delivers_after_all_is_read_on_and_the_second_waits_for_its_turn() {
    let mut plan = hedged(&[1, 2, 3]);
    assert_eq!(plan.delivered(Side::Current), Some(node(2)));
    assert_eq!((plan.current(), plan.node(Side::Second)), (Some(&node(1)), None));
    assert_eq!(plan.late(LATE, false, || true), LateStep::Hedge(node(2)));
    plan.call_off();
    assert_eq!(plan.node(Side::Second), None);
    assert_eq!(plan.late(LATE, false, || true), LateStep::Hedge(node(2)));
}

#[test]
fn when_one_of_two_fails_the_other_is_read() {
    let mut plan = hedged(&[1, 2]);
    plan.failed(Side::Second, "broke".into(), false);
    assert_eq!((plan.current(), plan.node(Side::Second)), (Some(&node(1)), None));
    assert_eq!(plan.late(LATE, false, || true), LateStep::Wait, "nobody is left to ask");
    let mut plan = hedged(&[1, 2]);
    plan.failed(Side::Current, "broke".into(), false);
    assert_eq!((plan.current(), plan.node(Side::Second)), (Some(&node(2)), None));
    plan.failed(Side::Current, "broke".into(), false);
    assert_eq!(plan.next(), ReadStep::Relocate);
    plan.relocate(vec![]);
    assert_eq!(plan.next(), ReadStep::GiveUp(vec![failure(1, false), failure(2, false)]));
}

#[test]
fn when_both_are_late_the_older_makes_room_for_the_next() {
    let mut plan = hedged(&[1, 2, 3]);
    assert_eq!(plan.late(LATE, false, || true), LateStep::Replace(node(3)));
    assert_eq!(
        (plan.node(Side::Current), plan.node(Side::Second)),
        (Some(&node(2)), Some(&node(3)))
    );
    assert_eq!(plan.late(LATE, false, || true), LateStep::Wait);
    assert_eq!(plan.delivered(Side::Second), Some(node(2)));
    plan.failed(Side::Current, "broke".into(), true);
    assert_eq!(plan.next(), read(2), "it was late, but did not fail");
    plan.failed(Side::Current, "broke".into(), true);
    assert_eq!(plan.next(), ReadStep::Relocate);
    plan.relocate(nodes(&[2, 3, 1]));
    assert_eq!(plan.next(), read(1), "it was out");
}

#[test]
fn without_a_hedge_left_only_one_that_is_known_to_be_silent_is_left() {
    let mut plan = plan(&[1, 2, 3]);
    assert_eq!(plan.late(LATE, true, || true), LateStep::Wait, "nothing is being read");
    assert_eq!(plan.next(), read(1));
    assert_eq!(plan.late(LATE, false, || false), LateStep::Wait);
    assert_eq!(plan.late(LATE, true, || false), LateStep::Leave);
    assert_eq!(plan.current(), Some(&node(1)), "the caller says why");
    assert_eq!(plan.late(LATE, true, || true), LateStep::Hedge(node(2)));
    assert_eq!(plan.late(LATE, true, || false), LateStep::Wait);
    assert_eq!(plan.late(LATE, true, || true), LateStep::Replace(node(3)));
    assert_eq!(plan.late(LATE, true, || panic!("nobody is left to ask")), LateStep::Wait);
}

#[test]
fn a_hedge_goes_to_the_best_of_the_line_as_it_is_then() {
    let mut plan = plan(&[1, 2, 3]);
    assert_eq!(plan.next(), read(1));
    plan.line_mut().reverse();
    assert_eq!(plan.late(LATE, false, || true), LateStep::Hedge(node(3)));
}

proptest! {
    /// Each step of the script says what happens to a replica being read: 0 and 1 fail, 2 fails with bad data, 3 and 4
    /// deliver and then fail; 5 is late, and the rest happens to the second, if there is one.
    #[test]
    fn a_plan_ends_after_every_replica_was_tried_and_never_reads_bad_data_twice(
        first in proptest::collection::vec(1_u32..6, 0..5),
        second in proptest::collection::vec(1_u32..6, 0..5),
        script in proptest::collection::vec(0_u8..7, 0..60),
    ) {
        let mut plan = ReadPlan::new(nodes(&first));
        let mut script = script.into_iter().chain(std::iter::repeat(0));
        let (mut tried, mut bad) = (BTreeSet::new(), BTreeSet::new());
        let (mut deliveries, mut reads, mut relocations) = (0, 0, 0);
        loop {
            if plan.current().is_none() {
                match plan.next() {
                    ReadStep::Read(node) => {
                        reads += 1;
                        prop_assert!(!bad.contains(&node.id), "bad data is read again");
                        tried.insert(node.id);
                    }
                    ReadStep::Relocate => {
                        relocations += 1;
                        plan.relocate(nodes(&second));
                        continue;
                    }
                    ReadStep::GiveUp(failures) => {
                        let named: BTreeSet<NodeId> =
                            failures.iter().filter_map(|f| Some(f.node.as_ref()?.id)).collect();
                        prop_assert_eq!(named.len(), failures.len(), "each node is named once");
                        prop_assert_eq!(named, tried.clone());
                        break;
                    }
                }
            }
            let step = script.next().unwrap_or(0);
            if step >= 5 {
                match plan.late(LATE, step == 6, || step == 5) {
                    LateStep::Hedge(node) | LateStep::Replace(node) => {
                        reads += 1;
                        prop_assert!(!bad.contains(&node.id), "bad data is read again");
                        tried.insert(node.id);
                    }
                    LateStep::Leave => plan.failed(Side::Current, "late".into(), false),
                    LateStep::Wait => {}
                }
                continue;
            }
            let side = if plan.node(Side::Second).is_some() && step % 2 == 1 {
                Side::Second
            } else {
                Side::Current
            };
            if step > 2 {
                deliveries += 1;
                let other = plan.delivered(side);
                prop_assert_ne!(other.as_ref(), plan.current());
                prop_assert_eq!(plan.node(Side::Second), None);
                plan.failed(Side::Current, "broke".into(), false);
            } else {
                bad.extend(plan.node(side).filter(|_| step == 2).map(|node| node.id));
                plan.failed(side, "broke".into(), step == 2);
            }
            // A delivery gives two another turn: who delivered, and who lost.
            prop_assert!(reads <= first.len() + second.len() + 2 * deliveries, "it goes in circles");
        }
        let all: BTreeSet<NodeId> =
            first.iter().chain(&second).copied().map(NodeId).collect();
        prop_assert_eq!(relocations, 1);
        prop_assert_eq!(tried, all);
    }
}
