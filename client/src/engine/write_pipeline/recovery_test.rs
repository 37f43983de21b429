//! A block that is gone on with: after failures, stalls and flushes, and behind what was there before.

use doldam_proto::id::{BlockId, Generation};

use super::tests::{
    BLOCK, LIMITS, actions, after, allocated, allocation, block, commit, failed, failure, send,
    whole,
};
use super::*;

const MANY: WriteLimits = WriteLimits { attempts_max: 9, ..LIMITS };

fn new_file(limits: WriteLimits, nodes: &[u32]) -> WritePipeline {
    let start = WriteStart::New { first: Some(block(0, 7, nodes)) };
    WritePipeline::new(limits, BlockBytes::new(BLOCK).unwrap(), start)
}

fn filled(bytes: u64) -> WriteEvent {
    WriteEvent::Available { started: 1, whole: 0, filled: bytes }
}

/// Block 0, attempted under this generation.
fn under(generation: u64, nodes: &[u32]) -> AllocatedBlock {
    AllocatedBlock { generation: Generation(generation), ..block(0, 7, nodes) }
}

fn ids(nodes: &[u32]) -> Vec<NodeId> {
    nodes.iter().copied().map(NodeId).collect()
}

fn broke(node: u32, acknowledged: u64) -> WriteEvent {
    let (node, cause) = (Some(NodeId(node)), "broke".to_owned());
    WriteEvent::Failed { index: 0, node, cause, acknowledged }
}

fn recovered(generation: u64, nodes: &[u32], length: u64, holders: &[u32]) -> WriteEvent {
    WriteEvent::Recovered { block: under(generation, nodes), length, holders: ids(holders) }
}

fn recovery(generation: u64, acknowledged: u64, survivors: &[u32], excluded: &[u32]) -> Recovery {
    Recovery {
        index: 0,
        block: BlockId(7),
        generation: Generation(generation),
        acknowledged,
        survivors: ids(survivors),
        excluded: ids(excluded),
        rounds: 0,
    }
}

fn recover(generation: u64, acknowledged: u64, survivors: &[u32], excluded: &[u32]) -> WriteAction {
    WriteAction::Recover(recovery(generation, acknowledged, survivors, excluded))
}

fn go_on(generation: u64, nodes: &[u32], length: u64, holders: &[u32]) -> WriteAction {
    let resume = Some(ResumeAt { length, holders: ids(holders) });
    WriteAction::Send { block: under(generation, nodes), resume }
}

fn part(generation: u64, length: u64) -> BlockCommit {
    BlockCommit { generation: Generation(generation), length, ..commit(7) }
}

fn reached(generation: u64, length: u64, synced: bool) -> WriteEvent {
    WriteEvent::Reached { index: 0, commit: part(generation, length), synced }
}

fn flush(length: u64, sync: bool, open: Option<BlockCommit>) -> WriteAction {
    WriteAction::Flush(Flush { length, sync, commits: vec![], open })
}

#[test]
fn what_the_survivors_have_is_gone_on_with_under_a_new_generation() {
    let mut pipeline = new_file(LIMITS, &[1, 2, 3]);
    assert_eq!(after(&mut pipeline, [whole(1)]), [send(0, 7, &[1, 2, 3])]);
    assert_eq!(after(&mut pipeline, [broke(2, 50)]), [recover(1, 50, &[1, 3], &[2])]);
    let events = [recovered(2, &[1, 3, 4], 50, &[1, 3])];
    assert_eq!(after(&mut pipeline, events), [go_on(2, &[1, 3, 4], 50, &[1, 3])]);
    let done = WriteEvent::Done { index: 0, commit: part(2, 100) };
    let complete = WriteAction::Complete { length: 100, commits: vec![part(2, 100)] };
    assert_eq!(after(&mut pipeline, [done, WriteEvent::Ended { length: 100 }]), [complete]);
    assert_eq!((pipeline.rewritten_blocks(), pipeline.recovered_blocks()), (0, 1));
}

#[test]
fn a_replacement_survives_only_once_something_new_is_acknowledged() {
    let resumed = || {
        let mut pipeline = new_file(MANY, &[1, 2]);
        after(&mut pipeline, [whole(1), broke(2, 50), recovered(2, &[1, 4], 50, &[1])]);
        pipeline
    };
    // It fails without a word: node 4 need not have what node 1 has; nobody else does.
    assert_eq!(after(&mut resumed(), [broke(4, 50)]), [recover(2, 50, &[1], &[2, 4])]);
    let again = Allocation { replaces: Some(BlockId(7)), excluded: ids(&[1, 2]), ..allocation(0) };
    assert_eq!(after(&mut resumed(), [broke(1, 50)]), [WriteAction::Allocate(again)]);
    // Beyond it whatever is acknowledged, all have.
    assert_eq!(after(&mut resumed(), [broke(1, 51)]), [recover(2, 51, &[4], &[1, 2])]);
}

#[test]
fn without_survivors_the_block_starts_again() {
    let mut pipeline = new_file(LIMITS, &[1]);
    let again = Allocation { replaces: Some(BlockId(7)), excluded: ids(&[1]), ..allocation(0) };
    let found = after(&mut pipeline, [whole(1), broke(1, 50)]);
    assert_eq!(found, [send(0, 7, &[1]), WriteAction::Allocate(again)]);
    assert_eq!(after(&mut pipeline, [allocated(0, 8, &[2])]), [send(0, 8, &[2])]);
    after(&mut pipeline, [WriteEvent::Done { index: 0, commit: commit(8) }]);
    assert_eq!((pipeline.rewritten_blocks(), pipeline.recovered_blocks()), (1, 0));
}

#[test]
fn any_number_of_failures_up_to_the_bound_is_survived() {
    let mut pipeline = new_file(LIMITS, &[1, 2]);
    after(&mut pipeline, [whole(1)]);
    assert_eq!(after(&mut pipeline, [broke(1, 10)]), [recover(1, 10, &[2], &[1])]);
    after(&mut pipeline, [recovered(2, &[2, 3], 10, &[2])]);
    assert_eq!(after(&mut pipeline, [broke(2, 20)]), [recover(2, 20, &[3], &[1, 2])]);
    after(&mut pipeline, [recovered(3, &[3, 4], 20, &[3])]);
    let tried = vec![failure(1), failure(2), failure(3)];
    assert_eq!(after(&mut pipeline, [broke(3, 30)]), [WriteAction::Fail { index: 0, tried }]);
}

#[test]
fn a_namenode_that_knows_of_less_is_followed_to_the_start_if_need_be() {
    let mut pipeline = new_file(MANY, &[1, 2]);
    after(&mut pipeline, [whole(1), broke(1, 50)]);
    let events = [recovered(2, &[3], 20, &[3])];
    assert_eq!(after(&mut pipeline, events), [go_on(2, &[3], 20, &[3])]);
    // What is acknowledged is now what node 3 has.
    assert_eq!(after(&mut pipeline, [broke(9, 20)]).len(), 1);
    let mut pipeline = new_file(MANY, &[1, 2]);
    after(&mut pipeline, [whole(1), broke(1, 50)]);
    let again = WriteAction::Send { block: under(2, &[3]), resume: None };
    assert_eq!(after(&mut pipeline, [recovered(2, &[3], 0, &[])]), [again]);
}

#[test]
fn a_stalled_block_is_gone_on_with_when_there_is_more_of_it() {
    let mut pipeline = new_file(LIMITS, &[1, 2]);
    let stalled = WriteEvent::Stalled { index: 0, acknowledged: 50 };
    let found = after(&mut pipeline, [filled(50), stalled, filled(50)]);
    assert_eq!(found, [send(0, 7, &[1, 2])], "there is nothing to send");
    assert_eq!(after(&mut pipeline, [filled(51)]), [recover(1, 50, &[1, 2], &[])]);
    let events = [recovered(2, &[1, 2], 50, &[1, 2])];
    assert_eq!(after(&mut pipeline, events), [go_on(2, &[1, 2], 50, &[1, 2])]);
    after(&mut pipeline, [whole(1), WriteEvent::Done { index: 0, commit: part(2, 51) }]);
    assert_eq!((pipeline.rewritten_blocks(), pipeline.recovered_blocks()), (0, 0));
}

#[test]
fn a_stalled_block_that_turns_out_to_be_whole_is_ended() {
    let mut pipeline = new_file(LIMITS, &[1]);
    after(&mut pipeline, [filled(50), WriteEvent::Stalled { index: 0, acknowledged: 50 }]);
    assert_eq!(after(&mut pipeline, [whole(1)]), [recover(1, 50, &[1], &[])]);
}

#[test]
fn a_flush_is_told_when_all_before_its_end_is_acknowledged() {
    let mut pipeline = new_file(LIMITS, &[1, 2]);
    after(&mut pipeline, [filled(50)]);
    let wanted = WriteEvent::FlushWanted { length: 50, sync: false };
    assert_eq!(after(&mut pipeline, [wanted, reached(1, 49, true)]), []);
    let found = after(&mut pipeline, [reached(1, 50, false)]);
    assert_eq!(found, [flush(50, false, Some(part(1, 50)))]);
    assert_eq!(after(&mut pipeline, [WriteEvent::Flushed { length: 50, sync: false }]), []);
    // Nothing is told twice.
    assert_eq!(after(&mut pipeline, [reached(1, 50, false)]), []);
}

#[test]
fn a_sync_waits_for_stable_storage() {
    let mut pipeline = new_file(LIMITS, &[1, 2]);
    after(&mut pipeline, [filled(50), WriteEvent::FlushWanted { length: 50, sync: true }]);
    assert_eq!(after(&mut pipeline, [reached(1, 50, false)]), []);
    let found = after(&mut pipeline, [reached(1, 50, true)]);
    assert_eq!(found, [flush(50, true, Some(part(1, 50)))]);
}

#[test]
fn a_flush_at_the_bound_of_a_block_waits_for_it_and_tells_its_commit() {
    let mut pipeline = new_file(LIMITS, &[1]);
    let wanted = WriteEvent::FlushWanted { length: BLOCK, sync: true };
    assert_eq!(after(&mut pipeline, [whole(1), wanted]), [send(0, 7, &[1])]);
    let done = WriteEvent::Done { index: 0, commit: part(1, BLOCK) };
    let commits = vec![part(1, BLOCK)];
    let expected = Flush { length: BLOCK, sync: true, commits, open: None };
    assert_eq!(after(&mut pipeline, [done]), [WriteAction::Flush(expected)]);
    // Told is told.
    let events =
        [WriteEvent::Flushed { length: BLOCK, sync: true }, WriteEvent::Ended { length: BLOCK }];
    let complete = WriteAction::Complete { length: BLOCK, commits: vec![] };
    assert_eq!(after(&mut pipeline, events), [complete]);
}

#[test]
fn an_empty_file_is_flushed_without_a_block() {
    let mut pipeline = new_file(LIMITS, &[1]);
    let wanted = WriteEvent::FlushWanted { length: 0, sync: false };
    assert_eq!(after(&mut pipeline, [wanted]), [flush(0, false, None)]);
}

#[test]
fn a_pipeline_that_broke_tells_no_flush() {
    let mut pipeline = new_file(MANY, &[1, 2]);
    after(&mut pipeline, [filled(50)]);
    // The next block's request keeps the namenode busy meanwhile? There is none: only the failure comes first.
    pipeline.handle(reached(1, 50, true));
    pipeline.handle(broke(1, 50));
    pipeline.handle(WriteEvent::FlushWanted { length: 50, sync: true });
    assert_eq!(actions(&mut pipeline), [recover(1, 50, &[2], &[1])]);
    let events = [recovered(2, &[2, 3], 50, &[2]), reached(1, 50, true)];
    let found = after(&mut pipeline, events);
    assert_eq!(found, [go_on(2, &[2, 3], 50, &[2])], "what the old pipeline had is not told");
    let found = after(&mut pipeline, [reached(2, 50, true)]);
    assert_eq!(found, [flush(50, true, Some(part(2, 50)))]);
}

#[test]
fn a_stalled_block_is_gone_on_with_for_a_flush_that_waits_for_it() {
    let mut pipeline = new_file(LIMITS, &[1]);
    after(&mut pipeline, [filled(50), WriteEvent::Stalled { index: 0, acknowledged: 50 }]);
    let wanted = WriteEvent::FlushWanted { length: 50, sync: true };
    assert_eq!(after(&mut pipeline, [wanted]), [recover(1, 50, &[1], &[])]);
}

#[test]
fn the_loss_of_everybody_leads_back_to_what_was_flushed() {
    let mut pipeline = new_file(MANY, &[1, 2]);
    let wanted = WriteEvent::FlushWanted { length: 40, sync: false };
    let flushed = WriteEvent::Flushed { length: 40, sync: false };
    after(&mut pipeline, [filled(40), wanted, reached(1, 40, false), flushed]);
    after(&mut pipeline, [broke(1, 60), recovered(2, &[2, 3], 60, &[2])]);
    assert_eq!(after(&mut pipeline, [broke(2, 60)]), [recover(2, 60, &[], &[1, 2])]);
    let events = [recovered(3, &[1, 4], 40, &[1])];
    assert_eq!(after(&mut pipeline, events), [go_on(3, &[1, 4], 40, &[1])]);
}

#[test]
fn a_pipeline_that_is_lost_while_a_flush_is_told_is_gone_back_to_it() {
    let mut pipeline = new_file(MANY, &[1]);
    let wanted = WriteEvent::FlushWanted { length: 40, sync: false };
    after(&mut pipeline, [filled(40), wanted, reached(1, 40, false)]);
    assert_eq!(after(&mut pipeline, [broke(1, 40)]), [], "the namenode is busy");
    let flushed = WriteEvent::Flushed { length: 40, sync: false };
    assert_eq!(after(&mut pipeline, [flushed]), [recover(1, 40, &[], &[1])]);
}

#[test]
fn nobody_left_to_take_a_block_over_is_asked_for_again_with_everybody() {
    let mut pipeline = new_file(MANY, &[1]);
    let wanted = WriteEvent::FlushWanted { length: 40, sync: false };
    let flushed = WriteEvent::Flushed { length: 40, sync: false };
    after(&mut pipeline, [filled(40), wanted, reached(1, 40, false), flushed, broke(1, 40)]);
    let again = Recovery { rounds: 1, ..recovery(1, 40, &[], &[]) };
    assert_eq!(after(&mut pipeline, [WriteEvent::NoneLeft]), [WriteAction::Recover(again)]);
}

#[test]
fn bytes_that_nobody_has_any_more_end_the_write_and_it_says_so() {
    let mut pipeline = new_file(MANY, &[1]);
    after(&mut pipeline, [filled(90), broke(1, 50), allocated(0, 8, &[2])]);
    let found = after(&mut pipeline, [WriteEvent::Gone { index: 0, kept_from: 40 }]);
    let [WriteAction::Fail { index: 0, tried }] = &found[..] else { panic!("{found:?}") };
    assert_eq!(tried[0], failure(1));
    assert!(tried[1].cause.contains("first 40 bytes"), "{tried:?}");
}

/// A file of a block and 100 bytes that is written on.
fn appended() -> WritePipeline {
    let block = AllocatedBlock { generation: Generation(5), ..block(1, 9, &[1, 2, 3]) };
    let resume = ResumeAt { length: 100, holders: ids(&[1, 2]) };
    let start = WriteStart::Behind { length: BLOCK + 100, tail: Some(OpenTail { block, resume }) };
    WritePipeline::new(MANY, BlockBytes::new(BLOCK).unwrap(), start)
}

#[test]
fn an_append_goes_on_inside_the_last_block_and_knows_no_digest() {
    let mut pipeline = appended();
    assert_eq!(after(&mut pipeline, []), []);
    let started = WriteEvent::Available { started: 2, whole: 1, filled: 150 };
    let found = after(&mut pipeline, [started]);
    let [WriteAction::Send { block, resume: Some(resume) }] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!((block.id, block.generation, resume.length), (BlockId(9), Generation(5), 100));
    let ended = WriteEvent::Ended { length: BLOCK + 150 };
    let done = WriteEvent::Done { index: 1, commit: commit(9) };
    let complete = WriteAction::Complete { length: BLOCK + 150, commits: vec![commit(9)] };
    assert_eq!(after(&mut pipeline, [done, ended]), [complete]);
    assert_eq!(pipeline.digest(), None);
}

#[test]
fn an_append_of_nothing_is_completed_as_it_was() {
    let mut pipeline = appended();
    let length = BLOCK + 100;
    let complete = WriteAction::Complete { length, commits: vec![] };
    assert_eq!(after(&mut pipeline, [WriteEvent::Ended { length }]), [complete]);
    assert_eq!(pipeline.digest(), None);
}

#[test]
fn an_append_inside_block_0_knows_the_digest_once_it_has_written_it() {
    let resume = ResumeAt { length: 40, holders: ids(&[1]) };
    let tail = Some(OpenTail { block: under(5, &[1, 2]), resume });
    let start = WriteStart::Behind { length: 40, tail };
    let mut pipeline = WritePipeline::new(MANY, BlockBytes::new(BLOCK).unwrap(), start);
    assert_eq!(pipeline.digest(), None);
    after(&mut pipeline, [whole(1), WriteEvent::Done { index: 0, commit: part(5, 100) }]);
    assert_eq!(pipeline.digest(), commit(7).root_value);
}

#[test]
fn an_append_that_loses_its_nodes_goes_back_to_what_was_there() {
    let mut pipeline = appended();
    after(&mut pipeline, [WriteEvent::Available { started: 2, whole: 1, filled: 150 }]);
    for (node, survivors) in [(1, &[2][..]), (2, &[])] {
        let (node, cause) = (Some(NodeId(node)), "broke".to_owned());
        let broke = WriteEvent::Failed { index: 1, node, cause, acknowledged: 100 };
        let found = after(&mut pipeline, [broke]);
        let [WriteAction::Recover(recovery)] = &found[..] else { panic!("{found:?}") };
        assert_eq!((recovery.acknowledged, &recovery.survivors), (100, &ids(survivors)));
        let holders = survivors.to_vec();
        let next = AllocatedBlock { generation: Generation(6), ..block(1, 9, &[2, 3]) };
        if holders.is_empty() {
            break;
        }
        let holders = ids(&holders);
        after(&mut pipeline, [WriteEvent::Recovered { block: next, length: 100, holders }]);
    }
}

#[test]
fn an_append_at_a_blocks_bound_starts_with_a_new_block() {
    let start = WriteStart::Behind { length: 2 * BLOCK, tail: None };
    let mut pipeline = WritePipeline::new(LIMITS, BlockBytes::new(BLOCK).unwrap(), start);
    let started = WriteEvent::Available { started: 3, whole: 2, filled: 10 };
    assert_eq!(after(&mut pipeline, [started]), [WriteAction::Allocate(allocation(2))]);
}

#[test]
fn late_events_of_a_block_that_waits_change_nothing() {
    let mut pipeline = new_file(MANY, &[1, 2]);
    after(&mut pipeline, [whole(1), broke(1, 50)]);
    let late = [
        failed(0, Some(2)),
        WriteEvent::Stalled { index: 0, acknowledged: 90 },
        WriteEvent::Done { index: 0, commit: commit(7) },
        WriteEvent::Sent { index: 0 },
        WriteEvent::Flushed { length: 50, sync: false },
    ];
    assert_eq!(after(&mut pipeline, late), []);
    let events = [recovered(2, &[2], 50, &[2])];
    assert_eq!(after(&mut pipeline, events), [go_on(2, &[2], 50, &[2])]);
}
