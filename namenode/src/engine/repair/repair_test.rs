//! Tests of the planner: what happened goes in, the exact actions come out, on both sides of each time limit.

use std::collections::BTreeSet;
use std::time::Duration;

use doldam_proto::id::{BlockId, Generation, NodeId};
use doldam_proto::wire;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::{AddReplicaCommand, MarkBadReplicaCommand, RemoveReplicaCommand, order};

use super::plan::PARKED_FOR;
use super::test_world::{
    LENGTH, LIMITS, LIVENESS, VALUE, World, copies, drops, proposals, replica,
};
use super::{Action, Event, OrderEnd};
use crate::engine::cluster::inventory::Finding;

fn just_before(time: Duration) -> Duration {
    time.saturating_sub(Duration::from_nanos(1))
}

fn set(ids: &[u32]) -> BTreeSet<u32> {
    ids.iter().copied().collect()
}

fn remove(block: BlockId, node: u32) -> Change {
    Change::RemoveReplica(RemoveReplicaCommand { block_id: block.0, generation: 1, node_id: node })
}

fn add(block: BlockId, node: u32, replaces: u32) -> Change {
    Change::AddReplica(AddReplicaCommand {
        block_id: block.0,
        generation: 1,
        length: LENGTH,
        chaining_value: VALUE.to_bytes(),
        node_id: node,
        replaces_node_id: replaces,
    })
}

#[test]
fn a_block_is_copied_when_a_holder_is_dead_and_not_while_it_is_suspect() {
    let mut world = World::new(&["/a", "/a", "/a", "/a"]);
    let block = world.file("/f", 3, &[1, 2, 3]);
    world.lose(3);
    assert_eq!(world.poll(), []);
    world.advance_to(just_before(LIVENESS.dead_after));
    assert_eq!(world.poll(), []);
    world.advance_to(LIVENESS.dead_after);
    assert_eq!(copies(&world.poll()), [(block.0, 1, 4)]);
    assert_eq!(world.poll(), [], "it is under way");
}

#[test]
fn the_last_live_replica_is_copied_as_soon_as_the_other_holders_are_suspect() {
    let mut world = World::new(&["/a", "/a", "/a", "/a", "/a"]);
    let block = world.file("/f", 3, &[1, 2, 3]);
    world.lose(3);
    assert_eq!(world.poll(), []);
    world.lose(2);
    let first = copies(&world.poll());
    assert_eq!(first.len(), 1);
    assert_eq!((first[0].0, first[0].1), (block.0, 1));
}

#[test]
fn a_copy_order_says_all_the_source_needs() {
    let mut world = World::new(&["/a", "/b"]);
    let block = world.file("/f", 2, &[1]);
    let actions = world.poll();
    let [Action::Order(NodeId(1), order)] = actions.as_slice() else { panic!("{actions:?}") };
    let target = world.cluster.address(NodeId(2)).unwrap();
    let expected = wire::CopyOrder {
        block_id: block.0,
        generation: 1,
        length: LENGTH,
        chaining_value: VALUE.to_bytes(),
        file_offset: 0,
        block_bytes: 64 << 10,
        targets: vec![target.into()],
    };
    assert_eq!(order.kind, Some(order::Kind::Copy(expected)));
    assert_eq!(order.deadline_ms, 20_000);
}

#[test]
fn the_block_nearest_to_loss_comes_first() {
    let mut world = World::new(&["/a", "/a", "/a", "/a"]);
    let two = world.file("/two", 3, &[1, 2]);
    let one = world.file("/one", 3, &[3]);
    let planned: Vec<u64> = copies(&world.poll()).iter().map(|copy| copy.0).collect();
    assert_eq!(planned, [one.0, one.0, two.0]);
}

#[test]
fn the_limits_per_node_hold_and_a_block_that_waits_does_not_stop_others() {
    let mut world = World::new(&["/a", "/a", "/a", "/a", "/a", "/a"]);
    for file in 0..4 {
        world.file(&format!("/hot{file}"), 2, &[1]);
    }
    let other = world.file("/other", 3, &[2, 3]);
    let planned = copies(&world.poll());
    let from_first = planned.iter().filter(|copy| copy.1 == 1).count();
    assert_eq!(from_first, LIMITS.budget.copies_max);
    assert!(planned.iter().any(|copy| copy.0 == other.0), "{planned:?}");
    assert_eq!(world.planner.stats().waiting, 2);

    let (block, _, target) = planned[0];
    world.store(BlockId(block), target);
    assert_eq!(copies(&world.poll()).len(), 1, "the budget of one copy is free again");
}

#[test]
fn a_node_with_much_to_send_does_not_keep_another_from_sending() {
    let mut world = World::new(&["/a", "/a", "/a", "/a", "/a", "/a"]);
    for node in [1, 2] {
        for file in 0..6 {
            world.file(&format!("/n{node}f{file}"), 2, &[node]);
        }
    }
    let from_second = |copy: &&(u64, u32, u32)| copy.1 == 2;
    let planned = copies(&world.poll());
    assert_eq!(planned.iter().filter(from_second).count(), LIMITS.budget.copies_max);
    let (block, _, target) = *planned.iter().find(from_second).unwrap();
    world.store(BlockId(block), target);
    assert_eq!(copies(&world.poll()).iter().filter(from_second).count(), 1);
}

#[test]
fn a_copy_that_is_not_confirmed_in_time_is_given_up_and_tried_elsewhere_later() {
    let mut world = World::new(&["/a", "/a", "/a"]);
    world.file("/f", 2, &[1]);
    let (_, _, first_target) = copies(&world.poll())[0];
    world.advance_to(just_before(LIMITS.copy_timeout));
    assert_eq!(world.poll(), []);
    world.advance_to(LIMITS.copy_timeout);
    assert_eq!(world.poll(), [], "it waits a second first");
    world.advance_to(just_before(LIMITS.copy_timeout + Duration::from_secs(1)));
    assert_eq!(world.poll(), []);
    world.advance_to(LIMITS.copy_timeout + Duration::from_secs(1));
    let again = copies(&world.poll());
    assert_eq!(again.len(), 1);
    assert_ne!(again[0].2, first_target);
}

#[test]
fn a_source_that_cannot_is_believed_and_another_source_takes_over() {
    let mut world = World::new(&["/a", "/a", "/a"]);
    let block = world.file("/f", 3, &[1, 2]);
    let actions = world.poll();
    let [Action::Order(NodeId(1), order)] = actions.as_slice() else { panic!("{actions:?}") };
    let id = order.order_id;
    world.event(Event::Answered(NodeId(2), id, OrderEnd::Failed));
    assert_eq!(world.planner.stats().running, 1, "it is not the order of node 2");
    world.event(Event::Answered(NodeId(1), id, OrderEnd::Failed));
    assert_eq!(world.planner.stats().running, 0);
    world.advance_to(Duration::from_secs(1));
    assert_eq!(copies(&world.poll()), [(block.0, 2, 3)]);
}

#[test]
fn a_block_without_a_possible_target_is_parked_until_a_node_joins() {
    let mut world = World::new(&["/a", "/a"]);
    let block = world.file("/f", 3, &[1, 2]);
    assert_eq!(world.poll(), []);
    assert_eq!(world.planner.stats().waiting, 1);
    world.advance_to(just_before(PARKED_FOR));
    assert_eq!(world.poll(), []);
    world.join("/a");
    assert_eq!(copies(&world.poll()), [(block.0, 1, 3)]);
}

#[test]
fn a_block_without_a_live_replica_is_counted_and_not_planned() {
    let mut world = World::new(&["/a", "/a"]);
    world.file("/f", 1, &[1]);
    world.lose(1);
    assert_eq!(world.poll(), []);
    let counts = world.planner.stats().counts;
    assert_eq!((counts.missing, counts.under_replicated), (1, 1));
    world.come_back(1);
    assert_eq!(world.poll(), []);
    assert_eq!(world.planner.stats().counts.missing, 0);
}

#[test]
fn a_new_replica_takes_the_place_of_the_dead_holder() {
    let mut world = World::new(&["/a", "/a", "/a"]);
    let block = world.file("/f", 2, &[1, 2]);
    world.lose(2);
    world.poll();
    world.store(block, 3);
    let actions = world.poll();
    assert_eq!(proposals(&actions), [add(block, 3, 2)]);
    for change in proposals(&actions) {
        world.carry_out(change);
    }
    assert_eq!(world.good(block), set(&[1, 3]));
    assert_eq!(world.poll(), []);
    assert_eq!(world.planner.stats().running, 0);
}

#[test]
fn while_most_nodes_are_missing_nothing_is_copied() {
    let mut world = World::new(&["/a", "/a", "/a", "/a", "/a"]);
    let block = world.file("/f", 3, &[1, 2, 3]);
    for id in [2, 3] {
        world.lose(id);
    }
    world.lose(4);
    assert_eq!(world.poll(), []);
    assert!(world.planner.stats().paused);
    world.come_back(4);
    let copies = copies(&world.poll());
    assert!(!world.planner.stats().paused);
    assert_eq!((copies.len(), copies[0].0), (1, block.0));
}

#[test]
fn a_surplus_replica_is_dropped_only_after_it_has_left_the_set() {
    let mut world = World::new(&["/a", "/a", "/b"]);
    let block = world.file("/f", 2, &[1, 2, 3]);
    let actions = world.poll();
    assert_eq!(proposals(&actions), [remove(block, 2)], "not the only one on its rack");
    assert_eq!(drops(&actions), []);
    assert_eq!(world.poll(), []);
    world.carry_out(remove(block, 2));
    assert_eq!(drops(&world.poll()), [(block.0, 2)]);
    assert_eq!(world.good(block), set(&[1, 3]));
}

#[test]
fn a_surplus_replica_is_kept_if_another_left_before_the_drop() {
    let mut world = World::new(&["/a", "/a", "/b"]);
    let block = world.file("/f", 2, &[1, 2, 3]);
    world.poll();
    world.lose(3);
    world.carry_out(remove(block, 2));
    let actions = world.poll();
    assert_eq!(drops(&actions), []);
}

#[test]
fn nothing_is_trimmed_on_account_of_a_node_that_is_not_confirmed() {
    let mut world = World::new(&["/a", "/a", "/b"]);
    world.come_back(3);
    let block = world.file("/f", 2, &[1, 2, 3]);
    assert_eq!(proposals(&world.poll()), []);
    world.confirm(NodeId(3));
    assert_eq!(proposals(&world.poll()), [remove(block, 2)]);
}

#[test]
fn a_bad_replica_is_replaced_first_and_dropped_after() {
    let mut world = World::new(&["/a", "/a", "/a"]);
    let block = world.file("/f", 2, &[1, 2]);
    world.event(Event::Bad(NodeId(2), block, Generation(1)));
    let mark = MarkBadReplicaCommand { block_id: block.0, generation: 1, node_id: 2 };
    let marked = proposals(&world.poll());
    assert_eq!(marked, [Change::MarkBadReplica(mark)]);
    world.carry_out(marked[0].clone());
    assert_eq!(world.planner.stats().counts.corrupt, 1);

    let actions = world.poll();
    assert_eq!((copies(&actions), drops(&actions)), (vec![(block.0, 1, 3)], vec![]));
    world.store(block, 3);
    let added = proposals(&world.poll());
    assert_eq!(added, [add(block, 3, 0)]);
    world.carry_out(added[0].clone());
    assert_eq!(proposals(&world.poll()), [remove(block, 2)]);
    world.carry_out(remove(block, 2));
    assert_eq!(drops(&world.poll()), [(block.0, 2)]);
    assert_eq!(world.planner.stats().counts.corrupt, 0);
}

#[test]
fn a_bad_replica_that_left_its_set_or_lost_its_block_is_dropped_when_it_is_told_of_again() {
    let mut world = World::new(&["/a", "/a", "/a"]);
    let block = world.file("/f", 2, &[1, 2]);
    world.event(Event::Bad(NodeId(3), block, Generation(1)));
    assert_eq!(drops(&world.poll()), [(block.0, 3)]);
    world.event(Event::Bad(NodeId(3), BlockId(block.0 + 1000), Generation(1)));
    assert_eq!(drops(&world.poll()), [], "a block that was never allocated is no reason to delete");
}

#[test]
fn a_bad_replica_that_its_node_does_not_list_is_dropped_whichever_is_heard_first() {
    for listing_first in [true, false] {
        let mut world = World::new(&["/a", "/a", "/a"]);
        let block = world.file("/f", 2, &[1, 2]);
        let listed = Event::Found(NodeId(2), Finding::Missing(block, Generation(1)));
        let told = Event::Bad(NodeId(2), block, Generation(1));
        let (first, second) = if listing_first { (listed, told) } else { (told, listed) };
        world.event(first);
        world.event(second);
        let proposed = proposals(&world.poll());
        assert_eq!(proposed.len(), 2);
        for change in proposed {
            world.carry_out(change);
        }
        assert_eq!(world.block(block).good, [NodeId(1)]);
        assert_eq!(world.block(block).bad, []);
        let actions = world.poll();
        assert_eq!(drops(&actions), [(block.0, 2)]);
        let only_bad = |action: &Action| match action {
            Action::Order(_, order) => match &order.kind {
                Some(order::Kind::Drop(drop)) => drop.only_bad,
                _ => true,
            },
            Action::Propose(_) => true,
        };
        assert!(actions.iter().all(only_bad), "it may have a good one by now");
    }
}

#[test]
fn nothing_is_dropped_while_a_replica_that_was_to_stay_is_said_to_be_lost() {
    let mut world = World::new(&["/a", "/a"]);
    let block = world.file("/f", 1, &[1, 2]);
    let removal = proposals(&world.poll()).remove(0);
    let Change::RemoveReplica(command) = &removal else { panic!("{removal:?}") };
    let kept = NodeId(3 - command.node_id);
    world.carry_out(removal);
    world.event(Event::Found(kept, Finding::Missing(block, Generation(1))));
    let actions = world.poll();
    assert_eq!(proposals(&actions).len(), 1, "it is the last of the set, and is marked bad");
    assert_eq!(drops(&actions), []);
}

#[test]
fn where_there_is_no_other_node_the_new_replica_goes_where_the_bad_one_is() {
    let mut world = World::new(&["/a", "/a"]);
    let block = world.file("/f", 2, &[1, 2]);
    world.carry_out(Change::MarkBadReplica(MarkBadReplicaCommand {
        block_id: block.0,
        generation: 1,
        node_id: 2,
    }));
    assert_eq!(copies(&world.poll()), [(block.0, 1, 2)]);
    world.store(block, 2);
    world.settle();
    let healed = world.block(block);
    assert_eq!((healed.good.len(), healed.bad.len()), (2, 0));
}

#[test]
fn the_last_replica_is_never_dropped_even_if_it_is_bad() {
    let mut world = World::new(&["/a", "/a"]);
    let block = world.file("/f", 1, &[1]);
    world.carry_out(Change::MarkBadReplica(MarkBadReplicaCommand {
        block_id: block.0,
        generation: 1,
        node_id: 1,
    }));
    assert_eq!(world.poll(), []);
    world.event(Event::Found(NodeId(1), Finding::Missing(block, Generation(1))));
    for change in proposals(&world.poll()) {
        world.carry_out(change);
    }
    assert_eq!(world.block(block).bad, [NodeId(1)]);
}

#[test]
fn the_report_of_a_reader_is_checked_by_the_node_itself_once() {
    let mut world = World::new(&["/a", "/a"]);
    let block = world.file("/f", 2, &[1, 2]);
    let report = Event::Suspected(NodeId(2), block, Generation(1));
    world.event(report.clone());
    world.event(report.clone());
    world.event(Event::Suspected(NodeId(2), block, Generation(9)));
    let actions = world.poll();
    let [Action::Order(NodeId(2), order)] = actions.as_slice() else { panic!("{actions:?}") };
    let expected = wire::VerifyOrder {
        block_id: block.0,
        generation: 1,
        length: LENGTH,
        chaining_value: VALUE.to_bytes(),
    };
    assert_eq!(order.kind, Some(order::Kind::Verify(expected)));
    world.advance_to(just_before(Duration::from_mins(1)));
    world.event(report.clone());
    assert_eq!(world.poll(), []);
    world.advance_to(Duration::from_mins(1));
    world.event(report);
    assert_eq!(world.poll().len(), 1, "the first order was lost");
}

#[test]
fn what_an_inventory_shows_is_put_right() {
    let mut world = World::new(&["/a", "/a", "/a"]);
    let block = world.file("/f", 2, &[1, 2]);
    let found = |world: &mut World, node, finding| {
        world.event(Event::Found(NodeId(node), finding));
        world.poll()
    };
    let listed = found(&mut world, 3, Finding::Unexpected(replica(block)));
    assert_eq!(proposals(&listed), [add(block, 3, 0)]);
    let gone = found(&mut world, 2, Finding::Missing(block, Generation(1)));
    assert_eq!(proposals(&gone), [remove(block, 2)]);
    let never = found(&mut world, 3, Finding::Unexpected(replica(BlockId(999))));
    assert_eq!(never, [], "this state may be older than the datanode's");
    world.apply(Change::Delete(wire::DeleteCommand { path: "/f".into(), recursive: false }));
    world.apply(Change::CollectGarbage(wire::CollectGarbageCommand { max_items: 100 }));
    world.poll();
    world.event(Event::Dropped(NodeId(1), block, Generation(1)));
    let unowned = found(&mut world, 1, Finding::Unexpected(replica(block)));
    assert_eq!(drops(&unowned), [(block.0, 1)]);
}

#[test]
fn a_replica_on_its_way_out_is_not_taken_back_by_an_old_inventory() {
    let mut world = World::new(&["/a", "/a", "/b"]);
    let block = world.file("/f", 2, &[1, 2, 3]);
    world.poll();
    world.carry_out(remove(block, 2));
    assert_eq!(drops(&world.poll()), [(block.0, 2)]);
    let finding = Event::Found(NodeId(2), Finding::Unexpected(replica(block)));
    world.event(finding.clone());
    assert_eq!(world.poll(), []);
    world.event(Event::Dropped(NodeId(2), block, Generation(1)));
    world.event(finding);
    assert_eq!(proposals(&world.poll()), [add(block, 2, 0)], "then it is back for real");
}

#[test]
fn replicas_of_deleted_files_are_dropped_where_there_is_a_stream() {
    let mut world = World::new(&["/a", "/a"]);
    let block = world.file("/f", 2, &[1, 2]);
    world.lose(2);
    world.apply(Change::Delete(wire::DeleteCommand { path: "/f".into(), recursive: false }));
    assert_eq!(copies(&world.poll()), [], "repairing it would be wasted");
    world.apply(Change::CollectGarbage(wire::CollectGarbageCommand { max_items: 100 }));
    assert_eq!(drops(&world.poll()), [(block.0, 1)]);
}

#[test]
fn debts_of_an_earlier_run_are_found_at_the_start() {
    let mut world = World::new(&["/a", "/a", "/a"]);
    let block = world.file("/f", 3, &[1, 2]);
    world.planner = super::RepairPlanner::new(LIMITS, world.now);
    assert_eq!(copies(&world.poll()), [(block.0, 1, 3)]);
}

#[test]
fn a_lower_replication_is_trimmed_and_a_higher_one_copied() {
    let mut world = World::new(&["/a", "/a", "/a"]);
    let block = world.file("/f", 2, &[1, 2]);
    let replication = |world: &mut World, replication| {
        let path = "/f".to_owned();
        let command = wire::SetReplicationCommand { path, replication };
        world.apply(Change::SetReplication(command));
        world.settle();
        world.good(block).len()
    };
    assert_eq!(replication(&mut world, 3), 3);
    assert_eq!(replication(&mut world, 1), 1);
}
