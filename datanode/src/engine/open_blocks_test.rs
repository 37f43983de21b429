//! Who may have a block in hand, and which copy of it is gone on with, read or recovered.

use super::*;

type Blocks = OpenBlocks<&'static str, u8>;

fn key(generation: u64) -> ReplicaKey {
    ReplicaKey::new(7, generation)
}

const FIVE: Option<Generation> = Some(Generation(5));

fn held(generation: u64, length: u64, is_open: bool) -> Held {
    Held { generation: Generation(generation), length, is_open }
}

#[test]
fn the_newest_generation_that_was_seen_refuses_all_older_ones_wherever_it_was_seen() {
    let newer = Err(Refusal::Newer(Generation(5)));
    let claim = |blocks: &mut Blocks| blocks.claim(key(4), Claimed::Writer(1), None);

    let mut stored = Blocks::default();
    assert_eq!(stored.claim(key(4), Claimed::Writer(1), FIVE), newer);
    let mut claimed = Blocks::default();
    claimed.claim(key(5), Claimed::Writer(1), None).unwrap();
    assert_eq!(claim(&mut claimed), newer);
    let mut open = Blocks::default();
    open.insert(key(5), "file");
    assert_eq!(claim(&mut open), newer);
    let mut fenced = Blocks::default();
    fenced.fence(key(5));
    fenced.fence(key(3));
    assert_eq!(claim(&mut fenced), newer);
    // Neighbours are none of its business, and its own generation may go on.
    fenced.claim(ReplicaKey::new(6, 1), Claimed::Writer(1), None).unwrap();
    fenced.claim(ReplicaKey::new(8, 1), Claimed::Writer(1), None).unwrap();
    fenced.claim(key(5), Claimed::Writer(1), None).unwrap();
}

#[test]
fn a_repair_copy_is_refused_by_replicas_and_other_copies_only() {
    let mut blocks = Blocks::default();
    blocks.insert(key(9), "file");
    blocks.claim(key(8), Claimed::Writer(1), None).unwrap_err();
    blocks.take(key(9), Claimed::Writer(1)).unwrap();
    blocks.fence(key(9));
    blocks.claim(key(4), Claimed::Copy, None).unwrap();
    let refused = blocks.claim(key(3), Claimed::Copy, None);
    assert_eq!(refused, Err(Refusal::Newer(Generation(4))));
    let refused = blocks.claim(key(5), Claimed::Copy, Some(Generation(6)));
    assert_eq!(refused, Err(Refusal::Newer(Generation(6))));
    // Nor does a writer of a newer generation wait for a copy.
    assert!(!blocks.is_claimed_below(key(5)));
}

#[test]
fn what_was_left_is_not_begun_anew_and_what_is_in_hand_is_nobody_elses() {
    let mut blocks = Blocks::default();
    blocks.claim_anew(key(1), 1, None).unwrap();
    blocks.insert(key(1), "file");
    assert_eq!(blocks.claim_anew(key(1), 2, None), Err(Refusal::Claimed));
    assert_eq!(blocks.take(key(1), Claimed::Taken), Err(Refusal::Claimed));
    assert_eq!(blocks.without_writer().count(), 0);
    blocks.release(key(1));
    assert_eq!(blocks.without_writer().collect::<Vec<_>>(), [(key(1), &"file")]);
    assert_eq!(blocks.claim_anew(key(1), 2, None), Err(Refusal::Left));
    blocks.take(key(1), Claimed::Taken).unwrap();
    blocks.remove(key(1));
    blocks.release(key(1));
    blocks.claim_anew(key(1), 2, None).unwrap();
}

#[test]
fn writers_of_older_generations_are_told_to_leave_and_waited_for() {
    let mut blocks = Blocks::default();
    for (of, signal) in [(1, 11), (2, 12), (4, 14)] {
        blocks.claim(key(of), Claimed::Writer(signal), None).unwrap();
    }
    blocks.take(key(3), Claimed::Taken).unwrap();
    blocks.claim(ReplicaKey::new(6, 1), Claimed::Writer(16), None).unwrap();
    assert_eq!(blocks.writers_below(key(4)).collect::<Vec<_>>(), [&11, &12]);
    for of in [1, 2, 3] {
        assert!(blocks.is_claimed_below(key(4)));
        blocks.release(key(of));
    }
    assert!(!blocks.is_claimed_below(key(4)));
}

#[test]
fn fences_are_bounded_and_the_oldest_goes_first() {
    let mut blocks = Blocks::default();
    for block in 0..=FENCES_MAX as u64 {
        blocks.fence(ReplicaKey::new(block, 2));
    }
    assert_eq!(blocks.newer_than(ReplicaKey::new(0, 1), None), None);
    assert_eq!(blocks.newer_than(ReplicaKey::new(1, 1), None), Some(Generation(2)));
    assert_eq!(blocks.fences.len(), FENCES_MAX);
}

#[test]
fn the_newest_copy_that_has_the_bytes_is_gone_on_with_and_older_ones_after_it() {
    let all = vec![
        held(1, 100, false),
        held(2, 90, false),
        held(2, 95, true),
        held(3, 10, true),
        held(5, 100, true),
    ];
    let found = sources(all.clone(), Generation(4), 90);
    assert_eq!(found, [held(2, 95, true), held(2, 90, false), held(1, 100, false)]);
    assert_eq!(sources(all, Generation(5), 101), []);
}

#[test]
fn a_file_is_shared_only_if_no_byte_of_another_copy_can_change() {
    let replica = held(1, 100, false);
    // Append goes on behind the replica, in its file; to cut it takes a file of its own.
    assert!(may_share_file(&[replica], replica, 100));
    assert!(!may_share_file(&[replica], replica, 99));
    // A longer replica may be the same file; so may what somebody left.
    assert!(!may_share_file(&[replica, held(2, 101, false)], replica, 100));
    assert!(may_share_file(&[replica, held(2, 50, false)], replica, 100));
    assert!(!may_share_file(&[replica, held(2, 100, true)], replica, 100));
    // What was left is gone on with in place, unless it would be cut below a replica.
    let left = held(2, 150, true);
    assert!(may_share_file(&[replica, left], left, 100));
    assert!(!may_share_file(&[replica, left], left, 99));
    assert!(!may_share_file(&[held(1, 0, true), left], left, 100));
}

#[test]
fn a_read_prefers_what_was_asked_for_then_the_newest_and_replicas_to_open_blocks() {
    let all = [held(1, 100, false), held(2, 100, false), held(2, 100, true), held(3, 50, true)];
    assert_eq!(to_read(&all, Generation(1), 100), Some(held(1, 100, false)));
    assert_eq!(to_read(&all, Generation(2), 100), Some(held(2, 100, false)));
    assert_eq!(to_read(&all, Generation(3), 50), Some(held(3, 50, true)));
    assert_eq!(to_read(&all, Generation(3), 51), Some(held(2, 100, false)));
    assert_eq!(to_read(&all, Generation(9), 50), Some(held(3, 50, true)));
    assert_eq!(to_read(&all, Generation(1), 101), None);
}

#[test]
fn what_was_written_last_is_recovered_first() {
    let all = [held(1, 100, false), held(2, 80, false), held(2, 90, true), held(3, 0, true)];
    let newest_first = [held(2, 90, true), held(2, 80, false), held(1, 100, false)];
    assert_eq!(to_recover(all.to_vec(), Generation(4)), newest_first);
    assert_eq!(to_recover(all.to_vec(), Generation(1)), [held(1, 100, false)]);
    assert_eq!(to_recover(vec![held(3, 0, true)], Generation(4)), []);
}
