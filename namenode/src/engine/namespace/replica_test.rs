//! Replica sets of committed blocks.

use doldam_proto::FsError;
use doldam_proto::fingerprint::{Fingerprint, ReplicaId};
use doldam_proto::id::{BlockId, Generation, NodeId};
use doldam_proto::wire::command::Change;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{
    AddReplicaCommand, MarkBadReplicaCommand, Outcome, RemoveReplicaCommand, ReplicaOutcome,
};

use super::view::{self, Block, Standing};
use super::world::{World, commit, create, delete, dropped, without_why};

fn added(node_id: u32, replaces_node_id: u32) -> AddReplicaCommand {
    let content = commit(1, 0, 5, &[]);
    AddReplicaCommand {
        block_id: 1,
        generation: 1,
        length: 5,
        chaining_value: content.chaining_value,
        node_id,
        replaces_node_id,
    }
}

fn add(node: u32, replaces: u32) -> Change {
    Change::AddReplica(added(node, replaces))
}

fn remove(node_id: u32) -> Change {
    Change::RemoveReplica(RemoveReplicaCommand { block_id: 1, generation: 1, node_id })
}

fn mark_bad(node_id: u32) -> Change {
    Change::MarkBadReplica(MarkBadReplicaCommand { block_id: 1, generation: 1, node_id })
}

/// One file of one block of 5 bytes on nodes 1 and 2, as wanted.
fn world() -> World {
    let mut world = World::new();
    world.write_file("/f", &[5]);
    world
}

fn block(world: &World) -> (Vec<u32>, Vec<u32>) {
    let Block { good, bad, .. } = view::block(&world.tables, BlockId(1)).unwrap().unwrap();
    let ids = |nodes: Vec<NodeId>| nodes.iter().map(|node| node.0).collect();
    (ids(good), ids(bad))
}

fn in_debt(world: &World) -> bool {
    !view::debts(&world.tables, BlockId(0), 9).unwrap().is_empty()
}

fn replica(changed: bool) -> Outcome {
    let kind = Some(Kind::Replica(ReplicaOutcome { changed }));
    let touched_blocks = if changed { vec![1] } else { vec![] };
    Outcome { kind, touched_blocks, ..Outcome::default() }
}

#[test]
fn a_bad_replica_is_replaced_first_and_dropped_after() {
    let mut world = world();
    assert!(!in_debt(&world));
    assert_eq!(world.own(mark_bad(2)), Ok(replica(true)));
    assert_eq!(world.own(mark_bad(2)), Ok(replica(false)));
    assert_eq!(block(&world), (vec![1], vec![2]));
    let totals = view::totals(&world.tables).unwrap();
    assert_eq!((totals.under_replicated, totals.corrupt), (1, 1));
    assert_eq!(world.own(add(3, 0)), Ok(replica(true)));
    assert!(in_debt(&world), "the bad one is still there");
    let outcome = Outcome { dropped: vec![dropped(2, 1)], ..replica(true) };
    assert_eq!(world.own(remove(2)), Ok(outcome));
    assert_eq!(block(&world), (vec![1, 3], vec![]));
    assert!(!in_debt(&world));
    assert_eq!(world.own(remove(2)), Ok(replica(false)));
}

#[test]
fn the_last_replica_stays_good_or_bad() {
    let mut world = world();
    let stays = FsError::BlockMismatch { block: 1, generation: 1, why: String::new() };
    world.own(remove(2)).unwrap();
    assert_eq!(without_why(world.own(remove(1)).unwrap_err()), stays);
    world.own(add(2, 0)).unwrap();
    world.own(mark_bad(2)).unwrap();
    assert_eq!(without_why(world.own(remove(1)).unwrap_err()), stays, "a bad one is no copy");
    world.own(mark_bad(1)).unwrap();
    assert_eq!(block(&world), (vec![], vec![2, 1]));
    for node in [1, 2] {
        assert_eq!(without_why(world.own(remove(node)).unwrap_err()), stays);
    }
    world.own(add(1, 0)).unwrap();
    assert_eq!(block(&world), (vec![1], vec![2]), "it was found to be good again");
    world.own(remove(2)).unwrap();
    assert_eq!(block(&world), (vec![1], vec![]));
}

#[test]
fn a_copy_takes_the_place_of_a_dead_holder_in_one_step() {
    let mut world = world();
    let outcome = Outcome { dropped: vec![dropped(2, 1)], ..replica(true) };
    assert_eq!(world.own(add(3, 2)), Ok(outcome));
    assert_eq!(block(&world), (vec![1, 3], vec![]));
    assert_eq!(world.own(add(4, 2)), Ok(replica(true)), "there is nothing to replace any more");
    assert_eq!(world.own(add(4, 4)), Ok(replica(false)), "nobody replaces himself");
    assert_eq!(world.own(add(4, 0)), Ok(replica(false)));
    assert_eq!(block(&world), (vec![1, 3, 4], vec![]));
    assert!(in_debt(&world), "one too many");
    assert_eq!(view::totals(&world.tables).unwrap().under_replicated, 0);
}

#[test]
fn a_replica_that_is_not_of_this_block_is_refused_and_one_of_no_block_dropped() {
    let mut world = world();
    let refused = |block| FsError::BlockMismatch { block, generation: 1, why: String::new() };
    for command in [
        AddReplicaCommand { length: 6, ..added(3, 0) },
        AddReplicaCommand { chaining_value: "x".into(), ..added(3, 0) },
        AddReplicaCommand { generation: 2, ..added(3, 0) },
    ] {
        let found = world.own(Change::AddReplica(command)).unwrap_err();
        assert_eq!(without_why(found), refused(1));
    }
    for block_id in [0, 2, u64::MAX] {
        let never = AddReplicaCommand { block_id, ..added(3, 0) };
        let found = world.own(Change::AddReplica(never)).unwrap_err();
        assert_eq!(without_why(found), refused(block_id), "a newer state knows it");
    }
    assert_eq!(world.own(add(5, 0)), Err(FsError::NotRegistered { node: 5 }));
    let nobodys = Outcome { dropped: vec![dropped(3, 1)], ..replica(false) };
    let stale = AddReplicaCommand { generation: 0, ..added(3, 0) };
    let stale = world.own(Change::AddReplica(stale)).unwrap();
    assert_eq!((stale.dropped[0].generation, stale.touched_blocks), (0, vec![]));
    world.request(1, delete("/f", false)).unwrap();
    world.collect_all(9);
    assert_eq!(world.own(add(3, 0)), Ok(nobodys));
    assert_eq!(world.own(remove(1)), Ok(replica(false)));
    assert_eq!(world.own(mark_bad(1)), Ok(replica(false)));
    world.assert_empty();
}

#[test]
fn a_block_being_written_is_left_alone() {
    let mut world = World::new();
    world.request(1, create("/f")).unwrap();
    for change in [add(3, 0), remove(1), mark_bad(1)] {
        assert_eq!(world.own(change), Ok(replica(false)));
    }
    let replica = ReplicaId { block: BlockId(1), generation: Generation(1), length: 5 };
    let standing = view::standing(&world.tables, NodeId(1), &replica).unwrap();
    assert_eq!(standing, Standing::BeingWritten);
    world.on_disk.clear();
}

#[test]
fn every_replica_a_node_reports_has_its_standing() {
    let mut world = world();
    world.own(mark_bad(2)).unwrap();
    let replica = |block, generation, length| ReplicaId {
        block: BlockId(block),
        generation: Generation(generation),
        length,
    };
    for (node, replica, expected) in [
        (1, replica(1, 1, 5), Standing::Good),
        (2, replica(1, 1, 5), Standing::Bad),
        (3, replica(1, 1, 5), Standing::Unlisted),
        (1, replica(1, 0, 5), Standing::Unowned),
        (1, replica(1, 2, 5), Standing::Contradiction),
        (1, replica(1, 1, 6), Standing::Contradiction),
        (1, replica(2, 1, 5), Standing::Contradiction),
        (1, replica(0, 1, 5), Standing::Contradiction),
    ] {
        let found = view::standing(&world.tables, NodeId(node), &replica).unwrap();
        assert_eq!(found, expected, "{node} {replica:?}");
    }
    world.request(1, delete("/f", false)).unwrap();
    let unlinked = view::standing(&world.tables, NodeId(1), &replica(1, 1, 5)).unwrap();
    assert_eq!(unlinked, Standing::Good, "until it is collected");
    world.collect_all(9);
    let collected = view::standing(&world.tables, NodeId(1), &replica(1, 1, 5)).unwrap();
    assert_eq!(collected, Standing::Unowned);
}

#[test]
fn a_node_is_known_by_the_sum_of_its_good_replicas() {
    let mut world = World::new();
    for file in 0..3 {
        world.write_file(&format!("/{file}"), &[file + 1]);
    }
    world.own(mark_bad(1)).unwrap();
    let replica =
        |block: u64| ReplicaId { block: BlockId(block), generation: Generation(1), length: block };
    let mut sum = Fingerprint::default();
    [2, 3].map(replica).iter().for_each(|replica| sum.add(replica));
    let found = view::replica_sum(&world.tables, NodeId(1)).unwrap();
    assert_eq!((found.fingerprint, found.count), (sum, 2));
    let buckets: Vec<u32> =
        view::bucket_sums(&world.tables, NodeId(1)).unwrap().iter().map(|(at, _)| *at).collect();
    assert_eq!(buckets, [2, 3]);
    assert_eq!(view::bucket(&world.tables, NodeId(1), 3).unwrap(), [replica(3)]);
    assert_eq!(view::bucket(&world.tables, NodeId(1), 1).unwrap(), []);
    let blocks = |after: Option<u64>, max| {
        view::blocks_of_node(&world.tables, NodeId(2), after.map(BlockId), max).unwrap()
    };
    assert_eq!(blocks(None, 2), [BlockId(1), BlockId(2)]);
    assert_eq!(blocks(Some(2), 2), [BlockId(3)]);
    assert_eq!(blocks(Some(3), 2), []);
    assert_eq!(view::replica_sum(&world.tables, NodeId(4)).unwrap().count, 0);
}
