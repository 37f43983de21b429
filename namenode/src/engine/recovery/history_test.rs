//! Random replicas with parts of one stream, some of them damaged; random losses of orders and nodes, and restarts.
//! In the end the file is closed, not shorter than readers saw it, and with nothing but what was written. If all nodes
//! lost power it may be shorter, but not before all have answered, and not shorter than what was on stable storage.

use std::time::Duration;

use doldam_proto::id::NodeId;
use proptest::prelude::*;
use proptest::sample::Index;

use super::test_world::{BLOCK_BYTES, World};

#[derive(Debug, Clone)]
enum Op {
    Arrive(Index),
    Lose(Index),
    Leave(u32),
    Come(u32),
    Restart,
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => any::<Index>().prop_map(Op::Arrive),
        1 => any::<Index>().prop_map(Op::Lose),
        1 => (1..4_u32).prop_map(Op::Leave),
        1 => (1..4_u32).prop_map(Op::Come),
        1 => Just(Op::Restart),
        2 => (0..30_u64).prop_map(Op::Pass),
    ]
}

/// Near the bounds of groups more often than not.
fn length() -> impl Strategy<Value = u64> {
    prop_oneof![
        1..=BLOCK_BYTES,
        (1..=4_u64, 0..3_u64).prop_map(|(groups, more)| {
            (groups * super::test_world::GROUP + more).min(BLOCK_BYTES)
        }),
    ]
}

fn step(world: &mut World, op: &Op) {
    let waiting = world.orders.len();
    match op {
        Op::Arrive(index) if waiting > 0 => world.arrive(index.index(waiting)),
        Op::Lose(index) if waiting > 0 => _ = world.orders.remove(index.index(waiting)),
        Op::Leave(node) if world.is_there(NodeId(*node)) => world.leave(NodeId(*node)),
        Op::Come(node) => world.come(NodeId(*node)),
        Op::Restart => world.restart(),
        Op::Pass(secs) => world.pass(Duration::from_secs(*secs)),
        Op::Arrive(_) | Op::Lose(_) | Op::Leave(_) => {}
    }
    world.poll();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn a_file_ends_as_a_start_of_what_was_written_and_not_before_what_readers_saw(
        flushed in length(),
        written in prop::collection::vec(length(), 2..3),
        damages in prop::collection::vec((1..3_u32, any::<Index>()), 0..3),
        ops in prop::collection::vec(op(), 0..40),
    ) {
        // One node has it all, and is not damaged.
        let lengths: Vec<u64> = std::iter::once(flushed.max(written[0])).chain(written).collect();
        let mut world = World::new(&lengths, flushed);
        for (node, at) in damages {
            let bytes = world.bytes.get_mut(&NodeId(node + 1)).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 0x20;
        }
        world.poll();
        for op in &ops {
            step(&mut world, op);
            if let Some((length, _)) = world.closed() {
                prop_assert!(length >= flushed);
                return Ok(());
            }
        }
        for node in 1..=3 {
            if !world.is_there(NodeId(node)) {
                world.come(NodeId(node));
            }
        }
        for _ in 0..20 {
            world.pass(Duration::from_secs(30));
            world.settle();
        }
        let (length, _) = world.closed().expect("everybody is there, and it is not closed");
        prop_assert!(length >= flushed);
    }

    #[test]
    fn a_file_that_lost_its_end_is_closed_at_a_start_that_is_not_shorter_than_what_was_synced(
        (synced, flushed) in (length(), length()),
        left in prop::collection::vec((length(), any::<bool>(), any::<Index>()), 3),
        closed in any::<bool>(),
        ops in prop::collection::vec(op(), 0..40),
    ) {
        // Each has at least what is on stable storage, and behind that what the power loss left.
        let (synced, flushed) = (synced.min(flushed), synced.max(flushed));
        let lengths: Vec<u64> = left.iter().map(|(length, ..)| synced.max(*length)).collect();
        let mut world = if closed && synced < flushed {
            World::appended(&lengths, synced, 0, flushed)
        } else {
            World::synced(&lengths, synced, flushed)
        };
        for (node, (_, is_torn, at)) in (1..).zip(&left) {
            let bytes = world.bytes.get_mut(&NodeId(node)).unwrap();
            let behind = bytes.len() - synced as usize;
            if *is_torn && behind > 0 {
                bytes[synced as usize + at.index(behind)] ^= node as u8;
            }
        }
        let has_all = |bytes: &Vec<u8>| bytes.starts_with(&world.stream[..flushed as usize]);
        let least = if world.bytes.values().any(has_all) { flushed } else { synced };
        let mut answered = std::collections::BTreeSet::new();
        world.poll();
        for op in &ops {
            if let Op::Arrive(index) = op && !world.orders.is_empty() {
                answered.insert(world.orders[index.index(world.orders.len())].0);
            }
            step(&mut world, op);
            if let Some(length) = world.ended() {
                prop_assert!(length >= least, "{} of {}", length, least);
                prop_assert!(length >= flushed || answered.len() == 3, "not all have answered");
                return Ok(());
            }
        }
        for node in 1..=3 {
            if !world.is_there(NodeId(node)) {
                world.come(NodeId(node));
            }
        }
        for _ in 0..20 {
            world.pass(Duration::from_secs(30));
            world.settle();
        }
        let length = world.ended().expect("everybody is there, and it is not closed");
        prop_assert!(length >= least, "{} of {}", length, least);
        world.closed();
    }
}
