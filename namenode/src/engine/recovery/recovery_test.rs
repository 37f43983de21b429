//! Exact actions, and what becomes of a file.

use std::collections::BTreeMap;
use std::time::Duration;

use doldam_proto::id::{BlockId, Generation, InodeId, NodeId};
use doldam_proto::wire::command::Change;
use doldam_proto::wire::order::Kind;
use doldam_proto::wire::{BeginRecoveryCommand, BlockStart, FinishOrder, Order, RecoverOrder};

use super::agree::{Agreed, agree};
use super::test_world::{BLOCK_BYTES, GROUP, World, digest, stream};
use super::{
    ANSWER_MAX, FIRST_ORDER, PARKED_FOR, RecoveredReplica, RecoveryStats, STRAGGLERS_MAX, StuckFile,
};
use crate::engine::namespace::view::{self, Floor, Recovering};
use crate::engine::repair::{Action, Event, OrderEnd};

fn nodes(ids: &[u32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn start(length: u64) -> BlockStart {
    let chaining_value = digest(&stream(BLOCK_BYTES)[..length as usize]).chaining_value.to_bytes();
    BlockStart { length, chaining_value }
}

fn order(id: u64, kind: Kind) -> Order {
    let timeout = ANSWER_MAX.as_millis() as u32;
    Order { order_id: FIRST_ORDER + id, deadline_ms: timeout, kind: Some(kind) }
}

#[test]
fn every_node_is_asked_under_a_new_generation_then_finishes_what_all_have() {
    let mut world = World::new(&[3 * GROUP, 3 * GROUP, 2 * GROUP + 5], GROUP + 1);
    let begin = Change::BeginRecovery(BeginRecoveryCommand { inode_id: world.inode.0 });
    assert_eq!(world.actions(), [Action::Propose(begin.clone())]);
    assert_eq!(world.actions(), [], "once");
    world.propose(begin);
    let block_id = world.block.0;
    // 1 was the writer's, 2 took it from the writer, 3 is this attempt's.
    let recover = Kind::Recover(RecoverOrder {
        block_id,
        generation: 3,
        file_offset: 0,
        block_bytes: BLOCK_BYTES,
        shown: Some(start(GROUP + 1)),
        floor: None,
    });
    let asked = [1, 2, 3]
        .map(|node| Action::Order(NodeId(node), order(u64::from(node) - 1, recover.clone())));
    let actions = world.actions();
    assert_eq!(actions, asked);
    for action in actions {
        let Action::Order(node, order) = action else { panic!("{action:?}") };
        world.orders.push_back((node, order));
    }
    world.arrive(0);
    world.arrive(0);
    assert_eq!(world.orders.len(), 1, "two answers of three decide nothing");
    world.arrive(0);
    let kinds: Vec<Kind> =
        world.orders.iter().map(|(_, order)| order.kind.clone().unwrap()).collect();
    let value = digest(&world.stream[..2 * GROUP as usize]).chaining_value;
    let finish = Kind::Finish(FinishOrder {
        block_id,
        generation: 3,
        file_offset: 0,
        length: 2 * GROUP,
        chaining_value: value.to_bytes(),
    });
    assert_eq!(kinds, [finish.clone(), finish.clone(), finish]);
    world.settle();
    assert_eq!(world.closed(), Some((2 * GROUP, nodes(&[1, 2, 3]))));
    assert_eq!(world.planner.stats(), RecoveryStats::default());
}

#[test]
fn a_node_that_does_not_lead_to_what_readers_see_has_no_part() {
    for flushed in [2 * GROUP, 2 * GROUP + 9] {
        let mut world = World::new(&[3 * GROUP, GROUP, 3 * GROUP, 3 * GROUP], flushed);
        world.bytes.get_mut(&NodeId(3)).unwrap()[7] ^= 1;
        world.settle();
        let (length, good) = world.closed().unwrap();
        assert!(length >= flushed && length <= 3 * GROUP);
        assert_eq!(good, nodes(&[1, 4]), "2 is too short, 3 is damaged; flushed {flushed}");
    }
}

#[test]
fn one_node_alone_is_believed_no_further_than_readers_saw() {
    let mut world = World::new(&[3 * GROUP + 1, 5], GROUP + 7);
    world.settle();
    assert_eq!(world.closed(), Some((GROUP + 7, nodes(&[1]))));
}

#[test]
fn a_file_waits_for_a_node_that_has_what_readers_saw() {
    let mut world = World::new(&[GROUP + 7, 5, 5], GROUP + 7);
    world.leave(NodeId(1));
    world.settle();
    assert_eq!(world.closed(), None, "never shorter than readers saw it");
    let stats = RecoveryStats { waiting: 1, stuck: 1, ..RecoveryStats::default() };
    assert_eq!(world.planner.stats(), stats);
    let (inode, missing) = (world.inode, nodes(&[1]));
    assert_eq!(world.planner.stuck(9), [StuckFile { inode, missing }]);
    world.pass(PARKED_FOR);
    world.settle();
    assert_eq!(world.closed(), None);
    world.come(NodeId(1));
    world.settle();
    assert_eq!(world.closed(), Some((GROUP + 7, nodes(&[1]))), "at once");
}

#[test]
fn silent_nodes_hold_nothing_up_for_ever() {
    let mut world = World::new(&[GROUP, GROUP, GROUP], GROUP);
    world.poll();
    world.orders.remove(2);
    world.arrive(0);
    world.arrive(0);
    assert!(world.orders.is_empty(), "the third may still answer");
    world.pass(ANSWER_MAX);
    assert_eq!(world.orders.len(), 2, "it had its time");
    world.arrive(0);
    world.orders.clear();
    world.pass(STRAGGLERS_MAX.saturating_sub(Duration::from_nanos(1)));
    assert_eq!(world.closed(), None, "the other may still finish");
    world.pass(Duration::from_nanos(1));
    assert_eq!(world.closed(), Some((GROUP, nodes(&[1]))));
}

#[test]
fn a_node_that_fails_or_leaves_is_not_waited_for() {
    let mut world = World::new(&[GROUP, GROUP, GROUP], GROUP);
    world.poll();
    let (_, order) = world.orders.remove(2).unwrap();
    world.event(&Event::Answered(NodeId(3), order.order_id, OrderEnd::Failed));
    world.arrive(0);
    world.leave(NodeId(2));
    world.settle();
    assert_eq!(world.closed(), Some((GROUP, nodes(&[1]))));
}

#[test]
fn a_restart_begins_anew_and_late_answers_to_older_orders_say_nothing() {
    let mut world = World::new(&[2 * GROUP, 2 * GROUP], GROUP);
    world.poll();
    world.arrive(0);
    world.arrive(0);
    assert_eq!(world.orders.len(), 2, "finish");
    let late = world.orders.clone();
    world.orders.clear();
    world.restart();
    assert_eq!(world.orders.len(), 2, "asked again");
    world.orders.extend(late);
    world.arrive(2); // What it stores is of an older generation.
    assert_eq!(world.closed(), None);
    let late = world.orders.remove(2).unwrap();
    world.arrive(0);
    world.arrive(0);
    assert_eq!(world.orders.len(), 2, "finish again");
    world.orders.push_front(late);
    world.arrive(0);
    world.leave(NodeId(1));
    world.poll();
    assert_eq!(world.closed(), None, "node 2 has made nothing of this generation yet");
    world.settle();
    assert_eq!(world.closed(), Some((2 * GROUP, nodes(&[2]))));
    let block = view::block(&world.tables, world.block).unwrap().unwrap();
    assert_eq!(block.generation, Generation(4));
}

/// What a file ends as of which node 1 is away, and comes back, and none of the nodes has what readers saw.
fn ends_once_all_have_answered(mut world: World) -> Option<u64> {
    world.leave(NodeId(1));
    world.settle();
    world.pass(PARKED_FOR);
    world.settle();
    assert_eq!(world.ended(), None, "node 1 may have it");
    assert_eq!(world.planner.stuck(9)[0].missing, nodes(&[1]));
    world.come(NodeId(1));
    world.settle();
    let ended = world.ended();
    if ended.is_none() {
        assert_eq!(world.planner.stuck(9)[0].missing, [], "it is there no more");
    }
    let stats = world.planner.stats();
    assert_eq!((stats.shortened, stats.stuck), if ended.is_some() { (1, 0) } else { (0, 1) });
    ended
}

#[test]
fn what_nobody_has_any_more_is_given_up_down_to_what_is_on_stable_storage() {
    // Groups are believed on which two agree; else what was synced, else nothing.
    for (written, synced, expected) in [
        ([GROUP + 5, GROUP + 4, GROUP + 3], GROUP + 3, Some(GROUP + 3)),
        ([2 * GROUP + 1, 2 * GROUP, GROUP + 3], GROUP + 3, Some(2 * GROUP)),
        ([2 * GROUP + 1, GROUP + 4, GROUP], GROUP + 3, Some(GROUP + 3)),
        ([GROUP + 2, GROUP + 2, 0], GROUP + 3, None),
        ([GROUP, GROUP, GROUP], 3 * GROUP, None),
        ([0, 0, 0], 0, Some(0)),
        ([GROUP + 7, 9, 9], 0, Some(0)),
        ([2 * GROUP + 7, 2 * GROUP + 7, 9], 0, Some(2 * GROUP)),
    ] {
        let world = World::synced(&written, synced, 3 * GROUP);
        assert_eq!(ends_once_all_have_answered(world), expected, "{written:?} {synced}");
    }
}

#[test]
fn an_append_that_nobody_has_any_more_leaves_the_file_as_it_was() {
    for (written, synced, expected) in [
        ([GROUP, GROUP, GROUP], 0, Some(GROUP)),
        ([GROUP, 0, 0], 0, Some(GROUP)),
        ([0, GROUP - 1, 0], 0, None),
        ([2 * GROUP + 1, 2 * GROUP, 0], 0, Some(2 * GROUP)),
        ([GROUP + 9, GROUP, GROUP], GROUP + 9, Some(GROUP + 9)),
        ([GROUP + 8, GROUP, GROUP], GROUP + 9, None),
    ] {
        for replicas in [&[][..], &[1], &[2]] {
            let mut world = World::appended(&written, GROUP, synced, 3 * GROUP);
            world.replicas = nodes(replicas).into_iter().collect();
            assert_eq!(ends_once_all_have_answered(world), expected, "{written:?} {synced}");
        }
    }
}

#[test]
fn what_was_committed_stays_as_it_is_only_if_a_replica_of_it_is_there() {
    for (replicas, generation) in [(&[2][..], 1), (&[], 4)] {
        let mut world = World::appended(&[GROUP, GROUP, 0], GROUP, 0, 2 * GROUP);
        world.replicas = nodes(replicas).into_iter().collect();
        world.settle();
        assert_eq!(world.ended(), Some(GROUP));
        let block = view::block(&world.tables, world.block).unwrap().unwrap();
        assert_eq!(block.generation.0, generation, "the names may be all that was lost");
    }
}

#[test]
fn a_damaged_part_is_not_believed_because_two_nodes_have_the_same() {
    let mut world = World::new(&[2 * GROUP + 7, 2 * GROUP + 7, 0], 3 * GROUP);
    for node in [1, 2] {
        let bytes = world.bytes.get_mut(&NodeId(node)).unwrap();
        bytes[GROUP as usize..2 * GROUP as usize].fill(0);
    }
    world.settle();
    assert_eq!(world.ended(), Some(GROUP), "a group of zeros was never written back");

    let mut world = World::new(&[3 * GROUP, 3 * GROUP, 0], 3 * GROUP);
    for node in [1, 2] {
        world.bytes.get_mut(&NodeId(node)).unwrap()[2 * GROUP as usize] ^= 1;
    }
    world.settle();
    assert_eq!(world.ended(), Some(0), "something before the end is not what readers saw");
}

#[test]
fn a_node_that_fails_is_slow_or_says_nothing_of_it_has_not_answered() {
    let mut world = World::new(&[9, 9, 9], GROUP);
    world.poll();
    world.arrive(0);
    world.arrive(0);
    let (node, order) = world.orders.pop_front().unwrap();
    world.event(&Event::Answered(node, order.order_id, OrderEnd::Failed));
    world.settle();
    assert_eq!((world.ended(), world.planner.stuck(9)[0].missing.clone()), (None, nodes(&[3])));
    world.pass(PARKED_FOR);
    world.arrive(0);
    world.arrive(0);
    world.orders.clear();
    world.pass(ANSWER_MAX);
    assert_eq!(world.ended(), None, "an answer that does not come says nothing");

    world.is_old = true;
    world.pass(PARKED_FOR);
    world.settle();
    assert_eq!(world.ended(), None, "an answer of an older version does not say that it is all");
    world.is_old = false;
    world.pass(PARKED_FOR);
    world.settle();
    assert_eq!(world.ended(), Some(0));
}

#[test]
fn a_node_that_has_it_and_comes_back_ends_the_wait_with_all_of_it() {
    let mut world = World::synced(&[GROUP, 2 * GROUP + 5, GROUP], GROUP, 2 * GROUP + 5);
    world.leave(NodeId(2));
    world.settle();
    assert_eq!(world.ended(), None);
    world.come(NodeId(2));
    world.settle();
    assert_eq!(world.closed(), Some((2 * GROUP + 5, nodes(&[2]))));
    assert_eq!(world.planner.stats(), RecoveryStats::default());
}

fn what(length: u64) -> Recovering {
    let seen = digest(&stream(BLOCK_BYTES)[..length as usize]);
    Recovering {
        inode: InodeId(2),
        block: BlockId(1),
        generation: Generation(2),
        file_offset: 0,
        block_bytes: BLOCK_BYTES,
        length,
        chaining_value: seen.chaining_value,
        root_value: seen.root_value,
        nodes: nodes(&[1, 2]),
        must_answer: nodes(&[1, 2]),
        floor: Floor::Nothing,
    }
}

fn replicas(lengths: &[u64]) -> BTreeMap<NodeId, RecoveredReplica> {
    let replica = |length: u64| {
        let mut tree = doldam_proto::digest::BlockTree::new(0);
        for group in stream(BLOCK_BYTES)[..length as usize].chunks(GROUP as usize) {
            tree.push_group(group);
        }
        RecoveredReplica {
            order: 0,
            block: BlockId(1),
            generation: Generation(1),
            length,
            groups: tree.groups().to_vec(),
            first_root: tree.first_root(),
            starts: None,
        }
    };
    (1..).map(NodeId).zip(lengths.iter().map(|length| replica(*length))).collect()
}

#[test]
fn what_replicas_agree_on_is_told_by_whole_groups_or_by_equal_lengths() {
    let agreed = |flushed, lengths: &[u64]| {
        let Agreed { length, chaining_value, root_value, .. } =
            agree(&what(flushed), &replicas(lengths))?;
        let expected = digest(&stream(BLOCK_BYTES)[..length as usize]);
        assert_eq!((chaining_value, root_value), (expected.chaining_value, expected.root_value));
        Some(length)
    };
    assert_eq!(agreed(5, &[100, 100]), Some(100));
    assert_eq!(agreed(5, &[100, 101]), Some(5), "parts of one group have nothing in common");
    assert_eq!(agreed(5, &[GROUP, 2 * GROUP]), Some(GROUP));
    assert_eq!(agreed(5, &[2 * GROUP - 1, 2 * GROUP]), Some(GROUP));
    assert_eq!(agreed(GROUP, &[3 * GROUP - 1, 3 * GROUP]), Some(2 * GROUP));
    assert_eq!(agreed(GROUP + 1, &[GROUP, GROUP - 1]), None);
    assert_eq!(agreed(BLOCK_BYTES, &[BLOCK_BYTES, BLOCK_BYTES]), Some(BLOCK_BYTES));
    assert_eq!(agreed(1, &[]), None);
}
