//! What is kept of a block, from where it can be sent, and what is given up.

use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::Semaphore;

use super::*;

const GROUP: usize = GROUP_BYTES as usize;

fn bytes(length: usize) -> Bytes {
    (0..length).map(|at| (at % 251) as u8).collect()
}

fn next(block: &RetainedBlock, position: u64) -> Option<(Vec<u8>, bool, Option<Mark>)> {
    next_noted(block, position, None)
}

fn next_noted(
    block: &RetainedBlock,
    position: u64,
    noted: Option<Mark>,
) -> Option<(Vec<u8>, bool, Option<Mark>)> {
    let Next { payload, last, mark } = block.next(position, noted).now_or_never()?.unwrap();
    let Payload::Kept(bytes) = payload else { panic!("{payload:?}") };
    Some((bytes.to_vec(), last, mark))
}

const FLUSH: Then = Then::Flush { sync: false };

fn mark(length: usize) -> Mark {
    Mark { length: length as u64, sync: false }
}

#[test]
fn pieces_are_handed_out_from_the_group_of_the_position_on() {
    let (block, all) = (RetainedBlock::default(), bytes(6 * GROUP));
    assert_eq!(next(&block, 0), None);
    block.push(0, all.slice(..4 * GROUP), None, None);
    assert_eq!(next(&block, 0), Some((all[..4 * GROUP].to_vec(), false, None)));
    assert_eq!(next(&block, GROUP_BYTES), Some((all[GROUP..4 * GROUP].to_vec(), false, None)));
    assert_eq!(next(&block, GROUP_BYTES + 5), next(&block, GROUP_BYTES));
    assert_eq!(next(&block, 4 * GROUP_BYTES), None);
    block.push(4 * GROUP_BYTES, all.slice(4 * GROUP..5 * GROUP + 9), None, Some(Then::End));
    let last = all[4 * GROUP..5 * GROUP + 9].to_vec();
    assert_eq!(next(&block, 4 * GROUP_BYTES), Some((last, true, None)));
    // All is sent but for the word that it is all.
    let rest = all[5 * GROUP..5 * GROUP + 9].to_vec();
    assert_eq!(next(&block, 5 * GROUP_BYTES + 9), Some((rest, true, None)));
}

#[test]
fn a_group_that_a_flush_cut_comes_again_and_replaces_itself() {
    let (block, all) = (RetainedBlock::default(), bytes(3 * GROUP));
    block.push(0, all.slice(..GROUP + 10), None, Some(FLUSH));
    let cut = GROUP + 10;
    assert_eq!(next(&block, 0), Some((all[..cut].to_vec(), false, Some(mark(cut)))));
    assert_eq!(next_noted(&block, cut as u64, Some(mark(cut))), None, "there is no more of it");
    let mut position = cut;
    // Longer and longer: still one piece for one group.
    for longer in [GROUP + 20, 2 * GROUP - 1, 2 * GROUP + 7] {
        block.push(GROUP_BYTES, all.slice(GROUP..longer), None, Some(FLUSH));
        let expected = (all[GROUP..longer].to_vec(), false, Some(mark(longer)));
        assert_eq!(next(&block, position as u64), Some(expected));
        assert_eq!(block.content.lock().pieces.len(), 2);
        assert_eq!(block.cut_group(cut as u64).unwrap()[..], all[GROUP..cut]);
        position = longer;
    }
    assert_eq!(next(&block, 0), Some((all[..GROUP].to_vec(), false, None)));
    assert_eq!(block.length(), (2 * GROUP + 7) as u64);
}

#[test]
fn a_mark_is_told_where_it_is_and_once() {
    let (block, all) = (RetainedBlock::default(), bytes(GROUP));
    block.push(0, all.clone(), None, None);
    block.then(FLUSH);
    assert_eq!(next(&block, GROUP_BYTES), Some((vec![], false, Some(mark(GROUP)))));
    assert_eq!(next_noted(&block, GROUP_BYTES, Some(mark(GROUP))), None);
    // A sync of the same bytes is another wish.
    block.then(Then::Flush { sync: true });
    let sync = Mark { sync: true, ..mark(GROUP) };
    let found = next_noted(&block, GROUP_BYTES, Some(mark(GROUP)));
    assert_eq!(found, Some((vec![], false, Some(sync))));
    block.then(Then::End);
    assert_eq!(next(&block, GROUP_BYTES), Some((vec![], true, None)), "the end tells more");
}

#[test]
fn only_what_is_acknowledged_to_the_end_of_a_group_is_given_up() {
    let (block, all) = (RetainedBlock::default(), bytes(4 * GROUP));
    let memory = Arc::new(Semaphore::new(2));
    let permit = || Arc::clone(&memory).try_acquire_owned().ok();
    block.push(0, all.slice(..2 * GROUP), permit(), None);
    block.push(2 * GROUP_BYTES, all.slice(2 * GROUP..4 * GROUP), permit(), None);
    block.acknowledged(2 * GROUP_BYTES - 1);
    assert!(!block.give_up_piece() && !block.is_shortened());
    block.acknowledged(2 * GROUP_BYTES);
    assert_eq!(memory.available_permits(), 0);
    assert!(block.give_up_piece() && block.is_shortened());
    assert_eq!(memory.available_permits(), 1);
    assert!(!block.give_up_piece(), "the second is not acknowledged");
    assert!(matches!(
        block.next(0, None).now_or_never(),
        Some(Err(SourceFailure::Gone { kept_from })) if kept_from == 2 * GROUP_BYTES
    ));
    let rest = all[2 * GROUP..].to_vec();
    assert_eq!(next(&block, 2 * GROUP_BYTES), Some((rest, false, None)));
}

#[test]
fn a_block_that_goes_on_behind_others_starts_there() {
    let (block, all) = (RetainedBlock::behind(GROUP_BYTES + 5), bytes(2 * GROUP));
    assert_eq!(block.length(), GROUP_BYTES + 5);
    block.push(GROUP_BYTES, all.slice(GROUP..GROUP + 5), None, Some(Then::End));
    assert_eq!(block.cut_group(GROUP_BYTES + 5).unwrap()[..], all[GROUP..GROUP + 5]);
    let found = next(&block, GROUP_BYTES + 5);
    assert_eq!(found, Some((all[GROUP..GROUP + 5].to_vec(), true, None)));
    assert!(block.next(0, None).now_or_never().unwrap().is_err());
}
