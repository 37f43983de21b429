//! Tests of what there is of a block besides its replicas: parts that writers left, and commits that wait.

use std::collections::BTreeSet;
use std::time::Duration;

use doldam_proto::id::{Generation, NodeId};
use doldam_proto::wire;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::order;

use super::test_world::{BLOCK_BYTES, VALUE, World, copies, drops, proposals};
use super::{Action, Event};
use crate::engine::cluster::inventory::Finding;

#[test]
fn a_part_of_a_finished_block_is_dropped_unless_its_holder_or_a_copy_may_need_it() {
    let mut world = World::new(&["/a", "/b", "/c", "/d"]);
    let block = world.file("/f", 3, &[1, 2]);
    let open = |node| Event::Open(NodeId(node), block, Generation(1));
    let actions = world.poll();
    let copied_to = copies(&actions)[0].2;
    world.event(open(copied_to));
    world.event(open(1));
    assert_eq!(drops(&world.poll()), [], "a copy is on its way, and node 1 counts");
    let other = [3, 4].into_iter().find(|node| *node != copied_to).unwrap();
    world.event(open(other));
    assert_eq!(drops(&world.poll()), [(block.0, other)]);
}

#[test]
fn a_part_of_a_block_without_a_good_replica_is_made_one_again_if_it_is_whole() {
    let mut world = World::new(&["/a", "/b"]);
    let block = world.file("/f", 1, &[1]);
    world.event(Event::Found(NodeId(1), Finding::Missing(block, Generation(1))));
    let marked = proposals(&world.poll());
    world.carry_out(marked[0].clone());
    assert_eq!(world.block(block).good, []);

    world.event(Event::Open(NodeId(1), block, Generation(1)));
    let actions = world.poll();
    let [Action::Order(NodeId(1), order)] = &actions[..] else { panic!("{actions:?}") };
    let Some(order::Kind::Finish(finish)) = &order.kind else { panic!("{order:?}") };
    let known = world.block(block);
    assert_eq!((finish.block_id, finish.generation), (block.0, 1));
    assert_eq!((finish.file_offset, finish.length), (known.offset, known.length));
    assert_eq!(finish.chaining_value, known.chaining_value.to_bytes());

    world.store(block, 1);
    let added = proposals(&world.poll());
    world.carry_out(added[0].clone());
    assert_eq!(world.good(block), BTreeSet::from([1]));
}

#[test]
fn a_part_of_a_block_is_left_to_its_writer_whatever_is_left_of_its_replicas() {
    let mut world = World::new(&["/a", "/b"]);
    let block = world.file("/f", 1, &[1]);
    world.apply(Change::Append(wire::AppendCommand {
        path: "/f".to_owned(),
        tail_block_id: block.0,
        tail_generation: 1,
        tail_holders: vec![1],
        tail_targets: vec![1, 2],
        ..wire::AppendCommand::default()
    }));
    world.event(Event::Found(NodeId(1), Finding::Missing(block, Generation(1))));
    let marked = proposals(&world.poll());
    world.carry_out(marked[0].clone());
    let known = world.block(block);
    assert_eq!((known.good, known.being_written), (vec![], true));
    world.event(Event::Open(NodeId(1), block, Generation(1)));
    assert_eq!(world.poll(), [], "its writer may go on with that part");

    let inode_id = known.inode.0;
    world.apply(Change::Abandon(wire::AbandonCommand { inode_id }));
    world.poll();
    world.event(Event::Open(NodeId(1), block, Generation(1)));
    let actions = world.poll();
    let [Action::Order(NodeId(1), order)] = &actions[..] else { panic!("{actions:?}") };
    assert!(matches!(order.kind, Some(order::Kind::Finish(_))), "{order:?}");
}

#[test]
fn a_commit_that_comes_into_force_late_is_looked_at_again() {
    let mut world = World::new(&["/a", "/b", "/c", "/d"]);
    let block = world.file("/f", 2, &[1, 3]);
    let inode_id = world.block(block).inode.0;
    world.apply(Change::Append(wire::AppendCommand {
        path: "/f".to_owned(),
        tail_block_id: block.0,
        tail_generation: 1,
        tail_holders: vec![1],
        tail_targets: vec![1, 2],
        ..wire::AppendCommand::default()
    }));
    let commit = wire::BlockCommit {
        block_id: block.0,
        generation: 2,
        length: BLOCK_BYTES,
        chaining_value: VALUE.to_bytes(),
        root_value: vec![8; 32].into(),
        node_ids: vec![1, 2],
    };
    let commits = vec![commit];
    world.apply(Change::CommitBlocks(wire::CommitBlocksCommand { inode_id, commits }));
    // One of those that have it is lost, and nothing that is in force so far.
    world.lose(2);
    world.advance_to(Duration::from_mins(10));
    assert_eq!(copies(&world.poll()), []);
    let flush = wire::FlushCommand { inode_id, length: BLOCK_BYTES, ..Default::default() };
    assert_eq!(world.apply(Change::Flush(flush)).late_commits, [block.0]);
    assert_eq!(copies(&world.poll()), [(block.0, 1, 4)], "3 has it under the older generation");
}

#[test]
fn a_node_that_drops_an_old_part_of_a_block_may_take_the_block_as_soon_as_it_has() {
    let mut world = World::new(&["/a", "/a", "/a"]);
    let block = world.file("/f", 2, &[2, 3]);
    world.event(Event::Unowned(vec![(NodeId(1), block, Generation(7))]));
    assert_eq!(drops(&world.poll()), [(block.0, 1)]);
    let path = "/f".to_owned();
    world.apply(Change::SetReplication(wire::SetReplicationCommand { path, replication: 3 }));
    assert_eq!(
        world.poll(),
        [],
        "what it drops and what it gets must not be taken for one another"
    );
    world.event(Event::Dropped(NodeId(1), block, Generation(7)));
    let copied = copies(&world.poll());
    assert_eq!(copied.iter().map(|copy| copy.2).collect::<Vec<_>>(), [1]);
}
