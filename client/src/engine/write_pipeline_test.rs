//! Exact actions for events, and both sides of every bound.

use doldam_proto::digest::BlockTree;
use doldam_proto::id::{BlockId, Generation};
use doldam_proto::node::{NodeAddress, NodeState};

use super::*;

pub(super) const LIMITS: WriteLimits =
    WriteLimits { sending_max: 1, unfinished_max: 2, attempts_max: 3 };
pub(super) const BLOCK: u64 = 1 << 16;

fn pipeline(limits: WriteLimits, first: Option<AllocatedBlock>) -> WritePipeline {
    let block_bytes = BlockBytes::new(BLOCK).unwrap();
    WritePipeline::new(limits, block_bytes, WriteStart::New { first })
}

pub(super) fn node(id: u32) -> NodeAddress {
    let (address, rack) = (format!("n{id}:1"), "/r".to_owned());
    NodeAddress { id: NodeId(id), address, rack, state: NodeState::Live }
}

pub(super) fn block(index: u32, id: u64, nodes: &[u32]) -> AllocatedBlock {
    let targets = nodes.iter().copied().map(node).collect();
    AllocatedBlock { id: BlockId(id), generation: Generation(1), index, targets }
}

pub(super) fn commit(id: u64) -> BlockCommit {
    BlockCommit {
        id: BlockId(id),
        generation: Generation(1),
        length: 100,
        chaining_value: ChainingValue([id as u8; 32]),
        root_value: Some(FileDigest([id as u8; 32])),
        nodes: vec![NodeId(1)],
    }
}

pub(super) fn allocation(index: u32) -> Allocation {
    let (commits, excluded) = (Vec::new(), Vec::new());
    Allocation { index, commits, replaces: None, excluded, rounds: 0 }
}

pub(super) fn actions(pipeline: &mut WritePipeline) -> Vec<WriteAction> {
    std::iter::from_fn(|| pipeline.poll()).collect()
}

/// Hands over events one by one and returns all that is to be done.
pub(super) fn after(
    pipeline: &mut WritePipeline,
    events: impl IntoIterator<Item = WriteEvent>,
) -> Vec<WriteAction> {
    let mut found = actions(pipeline);
    for event in events {
        pipeline.handle(event);
        found.extend(actions(pipeline));
    }
    found
}

pub(super) fn whole(blocks: u32) -> WriteEvent {
    WriteEvent::Available { started: blocks, whole: blocks, filled: 0 }
}

pub(super) fn allocated(index: u32, id: u64, nodes: &[u32]) -> WriteEvent {
    WriteEvent::Allocated { block: block(index, id, nodes) }
}

pub(super) fn failed(index: u32, node: Option<u32>) -> WriteEvent {
    WriteEvent::Failed { index, node: node.map(NodeId), cause: "broke".into(), acknowledged: 0 }
}

pub(super) fn failure(id: u32) -> NodeFailure {
    NodeFailure { node: Some(node(id)), cause: "broke".into(), bad_data: false }
}

pub(super) fn send(index: u32, id: u64, nodes: &[u32]) -> WriteAction {
    WriteAction::Send { block: block(index, id, nodes), resume: None }
}

#[test]
fn a_small_file_with_its_block_needs_no_allocation() {
    let mut pipeline = pipeline(LIMITS, Some(block(0, 7, &[1, 2])));
    assert_eq!(after(&mut pipeline, []), []);
    let events = [whole(1), WriteEvent::Ended { length: 100 }];
    assert_eq!(after(&mut pipeline, events), [send(0, 7, &[1, 2])]);
    assert_eq!(after(&mut pipeline, [WriteEvent::Sent { index: 0 }]), []);
    let done = WriteEvent::Done { index: 0, commit: commit(7) };
    assert_eq!(
        after(&mut pipeline, [done]),
        [WriteAction::Complete { length: 100, commits: vec![commit(7)] }]
    );
    assert_eq!(pipeline.digest(), Some(FileDigest([7; 32])));
    assert_eq!((pipeline.rewritten_blocks(), actions(&mut pipeline)), (0, vec![]));
}

#[test]
fn an_empty_file_is_completed_without_a_block() {
    let mut pipeline = pipeline(LIMITS, Some(block(0, 7, &[1])));
    let ended = WriteEvent::Ended { length: 0 };
    let complete = WriteAction::Complete { length: 0, commits: vec![] };
    assert_eq!(after(&mut pipeline, [ended]), [complete]);
    assert_eq!(pipeline.digest(), Some(FileDigest::empty()));
}

#[test]
fn the_next_block_starts_when_the_one_before_is_sent_and_not_before() {
    let mut pipeline = pipeline(LIMITS, Some(block(0, 7, &[1])));
    assert_eq!(after(&mut pipeline, [whole(3)]), [send(0, 7, &[1])]);
    assert_eq!(
        after(&mut pipeline, [WriteEvent::Sent { index: 0 }]),
        [WriteAction::Allocate(allocation(1))]
    );
    assert_eq!(after(&mut pipeline, [allocated(1, 8, &[2])]), [send(1, 8, &[2])]);
    // Two are unfinished: the third has to wait for the first, though the second is sent.
    assert_eq!(after(&mut pipeline, [WriteEvent::Sent { index: 1 }]), []);
    let expected = Allocation { commits: vec![commit(7)], ..allocation(2) };
    assert_eq!(
        after(&mut pipeline, [WriteEvent::Done { index: 0, commit: commit(7) }]),
        [WriteAction::Allocate(expected)]
    );
}

#[test]
fn a_pipeline_that_acknowledged_nothing_is_replaced_without_the_node_it_names() {
    let mut pipeline = pipeline(LIMITS, Some(block(0, 7, &[1, 2, 3])));
    after(&mut pipeline, [whole(1), WriteEvent::Ended { length: 100 }]);
    let expected =
        Allocation { replaces: Some(BlockId(7)), excluded: vec![NodeId(2)], ..allocation(0) };
    assert_eq!(after(&mut pipeline, [failed(0, Some(2))]), [WriteAction::Allocate(expected)]);
    assert_eq!(after(&mut pipeline, [allocated(0, 8, &[1, 3])]), [send(0, 8, &[1, 3])]);
    let done = WriteEvent::Done { index: 0, commit: commit(8) };
    let complete = WriteAction::Complete { length: 100, commits: vec![commit(8)] };
    assert_eq!(after(&mut pipeline, [done]), [complete]);
    assert_eq!((pipeline.rewritten_blocks(), pipeline.recovered_blocks()), (1, 0));
}

#[test]
fn a_failure_without_a_name_or_with_a_foreign_one_blames_the_first_node() {
    for named in [None, Some(9)] {
        let mut pipeline = pipeline(LIMITS, Some(block(0, 7, &[4, 5])));
        after(&mut pipeline, [whole(1)]);
        let found = after(&mut pipeline, [failed(0, named)]);
        let [WriteAction::Allocate(allocation)] = &found[..] else { panic!("{found:?}") };
        assert_eq!(allocation.excluded, [NodeId(4)]);
    }
}

#[test]
fn exclusions_hold_for_later_blocks_and_are_dropped_when_nobody_is_left() {
    let limits = WriteLimits { attempts_max: 9, ..LIMITS };
    let mut pipeline = pipeline(limits, Some(block(0, 7, &[1])));
    after(&mut pipeline, [whole(2)]);
    after(&mut pipeline, [failed(0, None), allocated(0, 8, &[2])]);
    // Block 1 is asked for without node 1, with the commit of block 0.
    let expected =
        Allocation { commits: vec![commit(8)], excluded: vec![NodeId(1)], ..allocation(1) };
    let done = WriteEvent::Done { index: 0, commit: commit(8) };
    assert_eq!(after(&mut pipeline, [done]), [WriteAction::Allocate(expected.clone())]);
    // None is left: everybody may serve again, after a pause, and the commit is told once more.
    let again = Allocation { excluded: vec![], rounds: 1, ..expected };
    assert_eq!(after(&mut pipeline, [WriteEvent::NoneLeft]), [WriteAction::Allocate(again)]);
    assert_eq!(after(&mut pipeline, [allocated(1, 9, &[1])]), [send(1, 9, &[1])]);
}

#[test]
fn a_node_that_failed_is_passed_over_for_some_blocks_and_not_for_ever() {
    let mut pipeline = pipeline(LIMITS, Some(block(0, 1, &[1])));
    after(&mut pipeline, [whole(20), failed(0, None), allocated(0, 100, &[2])]);
    let mut excluded = Vec::new();
    for index in 0..18 {
        let id = 100 + u64::from(index);
        let done = WriteEvent::Done { index, commit: commit(id) };
        let found = after(&mut pipeline, [done]);
        let [WriteAction::Allocate(allocation)] = &found[..] else { panic!("{found:?}") };
        excluded.push(allocation.excluded.len());
        after(&mut pipeline, [allocated(index + 1, id + 1, &[2])]);
    }
    assert_eq!(excluded, [[1; 15].as_slice(), &[0; 3]].concat());
}

#[test]
fn commits_of_a_refused_request_stay_in_order_before_newer_ones() {
    let limits = WriteLimits { sending_max: 3, unfinished_max: 4, attempts_max: 9 };
    let mut pipeline = pipeline(limits, Some(block(0, 7, &[1])));
    after(&mut pipeline, [whole(3), allocated(1, 8, &[1])]);
    after(&mut pipeline, [allocated(2, 9, &[1]), failed(2, None)]);
    after(&mut pipeline, [WriteEvent::NoneLeft, allocated(2, 10, &[1])]);
    after(&mut pipeline, [WriteEvent::Done { index: 0, commit: commit(7) }, failed(2, None)]);
    // The request for block 2 carries commit 7 while block 1 ends.
    let events = [WriteEvent::Done { index: 1, commit: commit(8) }, WriteEvent::NoneLeft];
    let found = after(&mut pipeline, events);
    let [WriteAction::Allocate(allocation)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(allocation.commits, [commit(7), commit(8)]);
}

#[test]
fn a_write_fails_at_the_bound_of_attempts_and_not_before() {
    let mut pipeline = pipeline(LIMITS, Some(block(0, 7, &[1])));
    after(&mut pipeline, [whole(1)]);
    after(&mut pipeline, [failed(0, None), allocated(0, 8, &[2])]);
    let third = after(&mut pipeline, [failed(0, None), allocated(0, 9, &[3])]);
    assert_eq!(third.last(), Some(&send(0, 9, &[3])));
    let tried = vec![failure(1), failure(2), failure(3)];
    assert_eq!(after(&mut pipeline, [failed(0, None)]), [WriteAction::Fail { index: 0, tried }]);
    assert_eq!(after(&mut pipeline, [WriteEvent::Ended { length: 100 }]), []);
}

#[test]
fn a_stalled_block_of_which_nothing_is_acknowledged_is_sent_again_and_blames_nobody() {
    let mut pipeline = pipeline(LIMITS, Some(block(0, 7, &[1])));
    let started = WriteEvent::Available { started: 1, whole: 0, filled: 50 };
    assert_eq!(after(&mut pipeline, [started]), [send(0, 7, &[1])]);
    let expected = Allocation { replaces: Some(BlockId(7)), ..allocation(0) };
    let stalled = WriteEvent::Stalled { index: 0, acknowledged: 0 };
    assert_eq!(after(&mut pipeline, [stalled]), [WriteAction::Allocate(expected)]);
    let events = [allocated(0, 8, &[1]), WriteEvent::Ended { length: 100 }];
    assert_eq!(after(&mut pipeline, events), [send(0, 8, &[1])]);
    let complete = WriteAction::Complete { length: 100, commits: vec![commit(8)] };
    let done = WriteEvent::Done { index: 0, commit: commit(8) };
    assert_eq!(after(&mut pipeline, [done]), [complete]);
    assert_eq!(pipeline.rewritten_blocks(), 0);
}

#[test]
fn late_events_about_a_finished_block_change_nothing() {
    let mut pipeline = pipeline(LIMITS, Some(block(0, 7, &[1])));
    after(&mut pipeline, [whole(1), WriteEvent::Done { index: 0, commit: commit(7) }]);
    let late = [
        WriteEvent::Sent { index: 0 },
        failed(0, None),
        WriteEvent::Stalled { index: 0, acknowledged: 0 },
        allocated(0, 9, &[1]),
        WriteEvent::NoneLeft,
        WriteEvent::Done { index: 0, commit: commit(9) },
    ];
    assert_eq!(after(&mut pipeline, late), []);
    let complete = WriteAction::Complete { length: 100, commits: vec![commit(7)] };
    assert_eq!(after(&mut pipeline, [WriteEvent::Ended { length: 100 }]), [complete]);
}

#[test]
fn the_digest_is_that_of_the_blocks_in_order_whenever_they_end() {
    let bytes: Vec<u8> = (0..400_000_u32).map(|at| (at % 251) as u8).collect();
    let commits: Vec<BlockCommit> = bytes
        .chunks(1 << 17)
        .enumerate()
        .map(|(index, content)| {
            let mut tree = BlockTree::new(index as u64 * (1 << 17));
            content.chunks(1 << 16).for_each(|group| _ = tree.push_group(group));
            let digest = tree.digest().unwrap();
            let (chaining_value, root_value) = (digest.chaining_value, digest.root_value);
            BlockCommit { chaining_value, root_value, ..commit(index as u64 + 1) }
        })
        .collect();
    let limits = WriteLimits { sending_max: 9, unfinished_max: 9, attempts_max: 1 };
    let mut pipeline = pipeline(limits, None);
    after(&mut pipeline, [whole(4)]);
    for index in 0..4 {
        after(&mut pipeline, [allocated(index, u64::from(index) + 1, &[1])]);
    }
    for (index, commit) in commits.iter().cloned().enumerate().rev() {
        pipeline.handle(WriteEvent::Done { index: index as u32, commit });
    }
    assert_eq!(pipeline.digest().unwrap().to_string(), blake3::hash(&bytes).to_string());
}
