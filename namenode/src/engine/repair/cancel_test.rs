//! Tests of copies that a node's return makes needless.

use doldam_proto::id::{BlockId, NodeId};

use super::test_world::{LIVENESS, World, cancelled, copies};
use super::{Action, Event, OrderEnd};

#[test]
fn when_the_node_is_back_what_waited_for_it_is_cancelled() {
    let mut world = World::new(&["/a", "/a", "/a", "/a", "/a"]);
    for file in 0..6 {
        world.file(&format!("/f{file}"), 3, &[1, 2, 3]);
    }
    world.lose(3);
    world.advance_to(LIVENESS.dead_after);
    let started = copies(&world.poll()).len();
    assert!(started < 6, "the budget does not last for all");
    assert_eq!(world.planner.stats().waiting, 6 - started);
    world.come_back(3);
    assert_eq!(copies(&world.poll()), []);
    assert_eq!(world.planner.stats().waiting, 0);
}

/// A block of nodes 1 to 3 that is being copied since node 3 died, and the order of the copy.
fn copied_for_a_dead_node() -> (World, BlockId, u64, u32) {
    let mut world = World::new(&["/a", "/a", "/a", "/a"]);
    let block = world.file("/f", 3, &[1, 2, 3]);
    world.lose(3);
    world.advance_to(LIVENESS.dead_after);
    let actions = world.poll();
    let [Action::Order(source, order)] = actions.as_slice() else { panic!("{actions:?}") };
    (world, block, order.order_id, source.0)
}

#[test]
fn a_running_copy_is_cancelled_once_it_is_known_that_the_node_still_has_its_replica() {
    let (mut world, _, order, source) = copied_for_a_dead_node();
    world.come_back(3);
    assert_eq!(world.poll(), [], "it may have come back with an empty disk");
    assert_eq!(world.planner.stats().running, 1);
    world.confirm(NodeId(3));
    let actions = world.poll();
    assert_eq!((cancelled(&actions), actions.len()), (vec![(order, source)], 1));
    assert_eq!(world.planner.stats().running, 0);
    assert_eq!(world.planner.stats().failures, 0);
    world.event(Event::Answered(NodeId(source), order, OrderEnd::Failed));
    assert_eq!(world.poll(), [], "nothing is tried again");
}

#[test]
fn a_copy_that_was_cancelled_too_late_is_a_surplus_that_is_trimmed() {
    let (mut world, block, order, source) = copied_for_a_dead_node();
    world.come_back(3);
    world.confirm(NodeId(3));
    assert_eq!(cancelled(&world.poll()), [(order, source)]);
    world.store(block, 4);
    world.settle();
    assert_eq!(world.good(block).len(), 3);
}

#[test]
fn a_copy_whose_replica_is_stored_already_is_not_cancelled() {
    let (mut world, block, ..) = copied_for_a_dead_node();
    world.store(block, 4);
    world.come_back(3);
    world.confirm(NodeId(3));
    assert_eq!(cancelled(&world.poll()), []);
    world.settle();
    assert_eq!(world.good(block).len(), 3);
}

#[test]
fn of_two_copies_one_goes_on_when_one_node_is_back() {
    let mut world = World::new(&["/a", "/a", "/a", "/a", "/a"]);
    world.file("/f", 3, &[1, 2, 3]);
    world.lose(3);
    world.lose(2);
    world.advance_to(LIVENESS.dead_after);
    let actions = world.poll();
    let [Action::Order(_, _), Action::Order(source, second)] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    let second = (second.order_id, source.0);
    world.come_back(3);
    world.confirm(NodeId(3));
    let actions = world.poll();
    assert_eq!((cancelled(&actions), actions.len()), (vec![second], 1));
    assert_eq!(world.planner.stats().running, 1);
}
