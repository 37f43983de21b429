//! Tests of what administrators ask for: draining, maintenance, racks, balancing, and the answer to "why does it wait".

use std::collections::BTreeSet;
use std::time::Duration;

use doldam_proto::id::{BlockId, Generation, NodeId};
use doldam_proto::wire::RemoveReplicaCommand;
use doldam_proto::wire::command::Change;

use super::explain::{Explanation, Why};
use super::moves::BalanceEnd;
use super::plan::PARKED_FOR;
use super::test_world::{LENGTH, LIMITS, LIVENESS, World, copies, drops, proposals};
use super::{Event, OrderEnd};
use crate::engine::cluster::Mode;

const DRAINING: Mode = Mode::Draining { accept_fewer: false };
const MAINTENANCE: Mode = Mode::Maintenance { until: Duration::from_hours(1), until_ms: 1 };
const IN_A_MOMENT: Duration = Duration::from_secs(2);

fn set(ids: &[u32]) -> BTreeSet<u32> {
    ids.iter().copied().collect()
}

fn remove(block: BlockId, node: u32) -> Change {
    Change::RemoveReplica(RemoveReplicaCommand { block_id: block.0, generation: 1, node_id: node })
}

/// Carries out what is proposed and stores what is copied, until there is nothing more to do; all drops on the way.
fn settle(world: &mut World) -> Vec<(u64, u32)> {
    let mut dropped = Vec::new();
    for _ in 0..1000 {
        let actions = world.poll();
        if actions.is_empty() {
            return dropped;
        }
        dropped.extend(drops(&actions));
        for change in proposals(&actions) {
            world.carry_out(change);
        }
        for (block, _, target) in copies(&actions) {
            world.store(BlockId(block), target);
        }
    }
    panic!("no end of actions");
}

fn explain(world: &World, block: BlockId) -> Explanation {
    world.explain(block).unwrap()
}

#[test]
fn a_drained_replica_is_copied_first_then_leaves_its_set_then_is_dropped() {
    let mut world = World::new(&["/a", "/a", "/a", "/a"]);
    let block = world.file("/f", 3, &[1, 2, 3]);
    world.poll();
    world.set_mode(1, DRAINING);
    let actions = world.poll();
    let [(copied, _, 4)] = copies(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!((copied, drops(&actions)), (block.0, vec![]));
    world.store(block, 4);
    let [add] = &proposals(&world.poll())[..] else { panic!("no proposal") };
    world.carry_out(add.clone());
    assert_eq!(world.good(block), set(&[1, 2, 3, 4]), "never fewer than before");
    let actions = world.poll();
    assert_eq!((proposals(&actions), drops(&actions)), (vec![remove(block, 1)], vec![]));
    world.carry_out(remove(block, 1));
    assert_eq!(drops(&world.poll()), [(block.0, 1)]);
    assert_eq!(world.good(block), set(&[2, 3, 4]));
    assert_eq!(world.replicas_on(1), 0);
}

#[test]
fn a_draining_node_is_the_source_if_it_has_the_only_replica_and_gets_no_new_ones() {
    let mut world = World::new(&["/a", "/a", "/a"]);
    let only = world.file("/only", 1, &[1]);
    world.set_mode(1, DRAINING);
    world.set_mode(2, DRAINING);
    assert_eq!(copies(&world.poll()), [(only.0, 1, 3)]);
    world.file("/few", 2, &[3]);
    assert_eq!(copies(&world.poll()), [], "only draining nodes could take it");
}

#[test]
fn a_recommissioned_node_keeps_what_it_still_has_and_the_surplus_is_trimmed() {
    let mut world = World::new(&["/a", "/a", "/a", "/a", "/a"]);
    let blocks: Vec<BlockId> =
        (0..6).map(|file| world.file(&format!("/f{file}"), 3, &[1, 2, 3])).collect();
    world.set_mode(1, DRAINING);
    let started = copies(&world.poll());
    assert_eq!(started.len(), 2 * LIMITS.budget.copies_max, "as much as targets may receive");
    world.set_mode(1, Mode::InService);
    assert_eq!(copies(&world.poll()), []);
    for (block, _, target) in started {
        world.store(BlockId(block), target);
    }
    settle(&mut world);
    assert!(blocks.iter().all(|block| world.good(*block).len() == 3));
    assert_eq!(world.planner.stats().waiting, 0);
}

#[test]
fn a_node_that_dies_while_it_is_drained_is_replaced_like_any_other() {
    let mut world = World::new(&["/a", "/a", "/a", "/a"]);
    let block = world.file("/f", 3, &[1, 2, 3]);
    world.set_mode(1, DRAINING);
    world.lose(1);
    world.advance_to(LIVENESS.dead_after);
    settle(&mut world);
    assert_eq!(world.good(block), set(&[2, 3, 4]));
}

#[test]
fn blocks_written_to_a_node_before_it_was_drained_are_found_by_the_next_pass() {
    let mut world = World::new(&["/a", "/a", "/a", "/a"]);
    world.set_mode(1, DRAINING);
    world.poll();
    let block = world.file("/f", 3, &[1, 2, 3]);
    world.advance_to(Duration::from_mins(1));
    settle(&mut world);
    assert_eq!(world.good(block), set(&[2, 3, 4]));
}

#[test]
fn with_too_few_nodes_a_drain_waits_unless_fewer_replicas_are_accepted() {
    let mut world = World::new(&["/a", "/a", "/a"]);
    let block = world.file("/f", 3, &[1, 2, 3]);
    world.set_mode(1, DRAINING);
    assert_eq!(settle(&mut world), []);
    let explanation = explain(&world, block);
    assert_eq!((explanation.why, explanation.retry_in), (Why::NoTarget, Some(PARKED_FOR)));
    world.set_mode(1, Mode::Draining { accept_fewer: true });
    assert_eq!(settle(&mut world), [(block.0, 1)]);
    assert_eq!(world.good(block), set(&[2, 3]));
}

#[test]
fn nothing_is_copied_for_a_node_that_is_away_in_maintenance_until_its_time_is_over() {
    let mut world = World::new(&["/a", "/a", "/a", "/a"]);
    let block = world.file("/f", 3, &[1, 2, 3]);
    let end = Duration::from_mins(20);
    world.set_mode(1, Mode::Maintenance { until: end, until_ms: 1 });
    world.poll();
    assert_eq!(world.planner.left_on(NodeId(1)), Some(0), "it may go");
    world.lose(1);
    world.advance_to(Duration::from_mins(10));
    assert_eq!(world.poll(), []);
    world.advance_to(end.saturating_sub(Duration::from_nanos(1)));
    assert_eq!(world.poll(), []);
    world.advance_to(end);
    assert_eq!(copies(&world.poll()).len(), 1);
    world.store(block, 4);
    settle(&mut world);
    assert_eq!(world.good(block), set(&[2, 3, 4]));
}

#[test]
fn before_a_node_may_go_its_only_replicas_are_made_elsewhere_and_after_its_return_trimmed() {
    let mut world = World::new(&["/a", "/a", "/a"]);
    let block = world.file("/only", 1, &[1]);
    world.set_mode(1, MAINTENANCE);
    let [(_, 1, target)] = copies(&world.poll())[..] else { panic!("no copy") };
    assert_eq!(world.planner.left_on(NodeId(1)), Some(1), "it may not go yet");
    world.store(block, target);
    settle(&mut world);
    assert_eq!(world.good(block), set(&[1, target]), "both stay for now");
    world.advance_to(IN_A_MOMENT * 10);
    settle(&mut world);
    assert_eq!(world.planner.left_on(NodeId(1)), Some(0));
    world.lose(1);
    world.advance_to(Duration::from_mins(5));
    assert_eq!(settle(&mut world), []);
    world.come_back(1);
    world.confirm(NodeId(1));
    world.set_mode(1, Mode::InService);
    assert_eq!(settle(&mut world).len(), 1);
    assert_eq!(world.good(block).len(), 1);
}

#[test]
fn when_a_second_rack_joins_every_block_gets_a_replica_there_and_then_loses_one() {
    let mut world = World::new(&["/a", "/a", "/a"]);
    let blocks: Vec<BlockId> =
        (0..5).map(|file| world.file(&format!("/f{file}"), 3, &[1, 2, 3])).collect();
    let two = world.file("/two", 2, &[1, 2]);
    let one = world.file("/one", 1, &[1]);
    assert_eq!(world.poll(), []);
    world.join("/b");
    let planned = copies(&world.poll());
    assert!(planned.iter().all(|copy| copy.2 == 4), "{planned:?}");
    assert_eq!(planned.len(), LIMITS.budget.copies_max, "within the limits");
    for (block, _, target) in planned {
        world.store(BlockId(block), target);
    }
    let dropped = settle(&mut world);
    assert_eq!(dropped.len(), 6);
    for block in blocks {
        assert_eq!((world.good(block).len(), world.good(block).contains(&4)), (3, true));
    }
    assert!(world.good(two).len() == 2 && world.good(two).contains(&4));
    assert_eq!(world.good(one), set(&[1]));
}

#[test]
fn what_cannot_be_spread_waits_for_the_rack_and_for_nothing_else() {
    let mut world = World::new(&["/a", "/a", "/a", "/b"]);
    let block = world.file("/f", 3, &[1, 2, 3]);
    let touched = Event::Touched(vec![block]);
    world.set_room(4, LENGTH - 1);
    world.event(touched.clone());
    assert_eq!(world.poll(), []);
    let explanation = explain(&world, block);
    assert_eq!(explanation.why, Why::NoTarget);
    assert_eq!(explanation.nodes, [(NodeId(4), "full: 999 bytes free, 1000 needed".to_owned())]);
    world.set_room(4, LENGTH);
    world.advance_to(PARKED_FOR);
    assert_eq!(copies(&world.poll()).len(), 1);
}

#[test]
fn a_new_empty_node_gets_blocks_until_all_are_about_equally_full_and_none_are_lost_on_the_way() {
    let mut world = World::new(&["/a", "/a", "/a"]);
    world.measure_disks();
    let blocks: Vec<BlockId> =
        (0..40).map(|file| world.file(&format!("/f{file}"), 3, &[1, 2, 3])).collect();
    world.beat_all();
    world.poll();
    world.join("/a");
    world.event(Event::BalanceStarted { threshold_ppm: 20_000, bytes_per_sec: 0 });
    for _ in 0..200 {
        settle(&mut world);
        assert!(blocks.iter().all(|block| world.good(*block).len() >= 3));
        world.advance_to(world.now + Duration::from_secs(1));
        if world.balance().ended.is_some() {
            break;
        }
    }
    let status = world.balance();
    assert_eq!(status.ended, Some(BalanceEnd::Reached), "{status:?}");
    assert!(blocks.iter().all(|block| world.good(*block).len() == 3));
    let counts: Vec<u64> = (1..=4).map(|node| world.replicas_on(node)).collect();
    assert_eq!(counts.iter().sum::<u64>(), 120);
    assert!(counts.iter().all(|count| (28..=32).contains(count)), "{counts:?}");
    assert_eq!(status.moved.copies, counts[3]);
}

#[test]
fn balancing_keeps_to_its_limit_yields_to_repair_and_stops_when_told() {
    let mut world = World::new(&["/a", "/a", "/a"]);
    world.measure_disks();
    for file in 0..40 {
        world.file(&format!("/f{file}"), 3, &[1, 2, 3]);
    }
    world.beat_all();
    world.poll();
    world.join("/a");
    world.poll();
    world.event(Event::BalanceStarted { threshold_ppm: 20_000, bytes_per_sec: LENGTH });
    let first = copies(&world.poll());
    assert_eq!(first.len(), 1, "one a second");
    world.advance_to(Duration::from_millis(900));
    assert_eq!(copies(&world.poll()), []);
    world.advance_to(Duration::from_secs(1));
    assert_eq!(copies(&world.poll()).len(), 1);
    world.event(Event::BalanceStopped);
    world.advance_to(Duration::from_secs(5));
    assert_eq!(copies(&world.poll()), []);
    assert_eq!(world.balance().ended, Some(BalanceEnd::Stopped));
}

#[test]
fn the_limit_of_all_copies_together_holds_and_is_told() {
    let limits = super::RepairLimits { bytes_per_sec: LENGTH, ..LIMITS };
    let mut world = World::with_limits(&["/a", "/a", "/a"], limits);
    let files = [("/f0", 1), ("/f1", 1), ("/f2", 2)];
    let blocks = files.map(|(path, node)| world.file(path, 2, &[node]));
    world.advance_to(Duration::from_secs(10));
    assert_eq!(copies(&world.poll()).len(), 2, "one second was saved");
    assert_eq!(explain(&world, blocks[2]).why, Why::Pace);
    world.advance_to(Duration::from_millis(10_999));
    assert_eq!(copies(&world.poll()), []);
    world.advance_to(Duration::from_secs(11));
    assert_eq!(copies(&world.poll()).len(), 1);
}

#[test]
fn each_reason_to_wait_is_told() {
    let mut world = World::new(&["/a", "/a", "/a", "/a"]);
    let blocks: Vec<BlockId> =
        (0..4).map(|file| world.file(&format!("/f{file}"), 2, &[1])).collect();
    let actions = world.poll();
    assert_eq!(explain(&world, blocks[0]).why, Why::UnderWay);
    let busy = explain(&world, blocks[3]);
    assert_eq!(busy.why, Why::Busy);
    let source = (NodeId(1), "sends as much for repair as it may".to_owned());
    assert!(busy.nodes.contains(&source), "{busy:?}");

    let super::Action::Order(node, order) = &actions[0] else { panic!("{actions:?}") };
    world.event(Event::Answered(*node, order.order_id, OrderEnd::Failed));
    let failed = explain(&world, blocks[0]);
    assert_eq!(failed.why, Why::Failed { failures: 1 });
    assert_eq!(failed.retry_in, Some(Duration::from_secs(1)));

    world.lose(1);
    let missing = explain(&world, blocks[0]);
    assert_eq!(missing.why, Why::NoLiveReplica);
    assert_eq!(missing.nodes, [(NodeId(1), "has a good replica and is suspect".to_owned())]);
    let nearest = world.explain_waiting(10);
    assert_eq!(nearest.len(), 4, "blocks without a live replica wait for a node");
    for node in [2, 3] {
        world.lose(node);
    }
    let other = world.file("/other", 2, &[4]);
    world.poll();
    assert_eq!(explain(&world, other).why, Why::Paused);
    assert!(world.planner.stats().paused);
}

#[test]
fn confirmed_copies_are_counted_and_what_is_left_is_estimated() {
    let mut world = World::new(&["/a", "/a", "/a"]);
    for file in 0..10 {
        world.file(&format!("/f{file}"), 2, &[1]);
    }
    assert_eq!(world.planner.stats().todo_bytes, 10 * LENGTH);
    assert_eq!(world.planner.at_risk().get(&1), Some(&10));
    let started = copies(&world.poll());
    world.advance_to(Duration::from_secs(1));
    let (block, _, target) = started[0];
    world.store(BlockId(block), target);
    assert_eq!(world.planner.stats().copied.copies, 0, "stored is not confirmed");
    for change in proposals(&world.poll()) {
        world.carry_out(change);
    }
    assert_eq!(world.planner.stats().copied.copies, 1);
    let left = world.planner.progress().estimate(Duration::from_secs(2), 9 * LENGTH);
    assert_eq!(left, Some(Duration::from_secs(9)));
}

#[test]
fn blocks_of_a_node_that_moved_to_the_rack_of_the_others_are_spread_again() {
    let mut world = World::new(&["/a", "/a", "/b", "/b"]);
    let block = world.file("/f", 3, &[1, 2, 3]);
    world.poll();
    world.move_to_rack(3, "/a");
    assert_eq!(copies(&world.poll()).iter().map(|copy| copy.2).collect::<Vec<_>>(), [4]);
    world.store(block, 4);
    settle(&mut world);
    assert_eq!((world.good(block).len(), world.good(block).contains(&4)), (3, true));
}

#[test]
fn when_a_node_dies_every_other_one_copies_at_once_as_much_as_it_may() {
    let mut world = World::new(&["/a", "/a", "/a", "/b", "/b", "/b"]);
    for file in 0..60_u32 {
        let others = [2 + file % 2, 4 + file % 3];
        world.file(&format!("/f{file}"), 3, &[1, others[0], others[1]]);
    }
    world.poll();
    world.lose(1);
    world.advance_to(LIVENESS.dead_after);
    let started = copies(&world.poll());
    for node in 2..=6 {
        let receives = started.iter().filter(|copy| copy.2 == node).count();
        assert_eq!(receives, LIMITS.budget.copies_max, "node {node}: {started:?}");
    }
}

#[test]
fn a_stray_replica_is_not_dropped_while_another_copy_comes_to_its_node() {
    let mut world = World::new(&["/a", "/a", "/a", "/a"]);
    let block = world.file("/f", 3, &[1, 2, 3]);
    world.poll();
    world.lose(3);
    world.advance_to(LIVENESS.dead_after);
    world.event(Event::Unowned(vec![(NodeId(4), block, Generation(1))]));
    let actions = world.poll();
    assert_eq!((copies(&actions), drops(&actions)), (vec![(block.0, 1, 4)], vec![]));
}

#[test]
fn no_surplus_leaves_a_set_that_another_replica_is_about_to_leave() {
    let mut world = World::new(&["/a", "/a", "/a"]);
    let block = world.file("/f", 2, &[1, 2, 3]);
    world.event(Event::Dropped(NodeId(3), block, Generation(1)));
    let changes = proposals(&world.poll());
    assert_eq!(changes, [remove(block, 3)]);
    world.carry_out(remove(block, 3));
    assert_eq!(proposals(&world.poll()), []);
    assert_eq!(world.good(block), set(&[1, 2]));
}
