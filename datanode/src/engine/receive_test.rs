//! What a receiver accepts, and everything it refuses.

use doldam_proto::digest::block::subtree_value;
use doldam_proto::digest::group::group_chaining_value;
use proptest::prelude::*;

use super::*;

const GROUP: usize = GROUP_BYTES as usize;

fn values(file_offset: u64, bytes: &[u8]) -> Vec<ChainingValue> {
    let groups = bytes.chunks(GROUP).zip(0..);
    groups.map(|(group, i)| group_chaining_value(file_offset + i * GROUP_BYTES, group)).collect()
}

/// A frame as an honest sender makes it; `whole` is the block so far, for the last frame.
fn frame(
    file_offset: u64,
    offset: u64,
    payload: &[u8],
    whole: Option<&[u8]>,
) -> (FrameHeader, Vec<u8>) {
    let header = FrameHeader::data(offset, payload.len(), whole.is_some());
    let mut body = Vec::new();
    for value in values(file_offset + offset, payload) {
        body.extend_from_slice(&value.0);
    }
    body.extend_from_slice(payload);
    if let Some(whole) = whole {
        body.extend_from_slice(&subtree_value(&values(file_offset, whole)).unwrap().0);
    }
    (header, body)
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 % 251) as u8).collect()
}

fn take(receiver: &mut BlockReceiver, frame: &(FrameHeader, Vec<u8>)) -> Result<u64, ReceiveError> {
    receiver.check_header(&frame.0)?;
    let verified = receiver.verify(&frame.0, &frame.1)?;
    Ok(verified.offset + verified.payload.len() as u64)
}

#[test]
fn a_block_in_frames_of_any_size_ends_with_its_value() {
    for length in [1, GROUP - 1, GROUP, GROUP + 1, 3 * GROUP, 3 * GROUP + 7] {
        for frame_groups in [1, 2, 4] {
            let (block, file_offset) = (bytes(length), 8 * GROUP_BYTES);
            let mut receiver = BlockReceiver::new(file_offset, 4 * GROUP_BYTES, None).unwrap();
            let pieces: Vec<&[u8]> = block.chunks(frame_groups * GROUP).collect();
            for (index, piece) in pieces.iter().enumerate() {
                let whole = (index + 1 == pieces.len()).then_some(block.as_slice());
                let offset = (index * frame_groups * GROUP) as u64;
                let (header, body) = frame(file_offset, offset, piece, whole);
                receiver.check_header(&header).unwrap();
                let verified = receiver.verify(&header, &body).unwrap();
                assert_eq!((verified.offset, verified.payload), (offset, *piece));
                let value = verified.finished.map(|digest| digest.chaining_value);
                let expected = whole.and_then(|whole| subtree_value(&values(file_offset, whole)));
                assert_eq!(value, expected);
            }
            assert_eq!(receiver.length(), length as u64);
        }
    }
}

#[test]
fn an_empty_last_frame_ends_a_block() {
    let block = bytes(GROUP + 5);
    let mut receiver = BlockReceiver::new(0, 2 * GROUP_BYTES, None).unwrap();
    take(&mut receiver, &frame(0, 0, &block, None)).unwrap();
    let last = frame(0, 0, &[], Some(&block));
    receiver.check_header(&last.0).unwrap();
    let root = receiver.verify(&last.0, &last.1).unwrap().finished.unwrap().root_value;
    assert_eq!(root.unwrap().0, *blake3::hash(&block).as_bytes());
}

#[test]
fn frames_that_cannot_follow_are_refused_by_their_header() {
    let receiver = BlockReceiver::new(0, 4 * GROUP_BYTES, None).unwrap();
    assert_eq!(
        receiver.check_header(&FrameHeader::data(0, 0, true)),
        Err(ReceiveError::Protocol { what: "a block without a byte" })
    );
    assert!(receiver.check_header(&FrameHeader::plain(FrameKind::Proof, 32)).is_err());
    assert!(receiver.check_header(&FrameHeader::plain(FrameKind::Error, 32)).is_err());
    assert_eq!(
        receiver.check_header(&FrameHeader::data(GROUP_BYTES, 10, false)),
        Err(ReceiveError::OutOfOrder { expected: 0, found: GROUP_BYTES })
    );
    assert_eq!(
        receiver.check_header(&FrameHeader::data(0, 4 * GROUP + 1, false)),
        Err(ReceiveError::TooLong { max: 4 * GROUP_BYTES, found: 4 * GROUP_BYTES + 1 })
    );
}

#[test]
fn a_body_of_the_wrong_length_is_refused_and_does_not_panic() {
    let (header, body) = frame(0, 0, &bytes(100), None);
    for length in [0, 31, 32, body.len() - 1] {
        let mut receiver = BlockReceiver::new(0, GROUP_BYTES, None).unwrap();
        assert!(receiver.verify(&header, &body[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn blocks_start_where_blocks_can_start() {
    assert!(BlockReceiver::new(1024, GROUP_BYTES, None).is_err());
    assert!(BlockReceiver::new(u64::MAX - GROUP_BYTES + 1, GROUP_BYTES, None).is_err());
}

#[test]
fn a_copy_must_be_the_one_that_was_ordered() {
    let block = bytes(GROUP + 1);
    let whole = frame(0, 0, &block, Some(&block));
    let value = subtree_value(&values(0, &block)).unwrap();
    let order = |length, value| Some(Ordered { length, value });
    let mut receiver =
        BlockReceiver::new(0, 4 * GROUP_BYTES, order(GROUP_BYTES + 1, value)).unwrap();
    take(&mut receiver, &whole).unwrap();

    let another = ChainingValue([7; 32]);
    let mut receiver =
        BlockReceiver::new(0, 4 * GROUP_BYTES, order(GROUP_BYTES + 1, another)).unwrap();
    assert!(matches!(take(&mut receiver, &whole), Err(ReceiveError::NotAsOrdered { .. })));
    let mut receiver =
        BlockReceiver::new(0, 4 * GROUP_BYTES, order(GROUP_BYTES + 2, value)).unwrap();
    assert!(matches!(take(&mut receiver, &whole), Err(ReceiveError::NotAsOrdered { .. })));
    let receiver = BlockReceiver::new(0, 4 * GROUP_BYTES, order(GROUP_BYTES, value)).unwrap();
    assert!(matches!(receiver.check_header(&whole.0), Err(ReceiveError::TooLong { .. })));
}

fn ack(received: u64, synced: u64) -> Ack {
    Ack { received, synced }
}

#[test]
fn acknowledged_is_what_both_sides_have() {
    let mut progress = Progress::new(0, Some(0));
    progress.local(100);
    assert_eq!(progress.next_ack(), None);
    progress.downstream(ack(60, 0), 100).unwrap();
    assert_eq!((progress.next_ack(), progress.outstanding(100, 0)), (Some(ack(60, 0)), 40));
    assert_eq!(progress.next_ack(), None);
    progress.downstream(ack(100, 0), 100).unwrap();
    assert_eq!((progress.next_ack(), progress.outstanding(100, 0)), (Some(ack(100, 0)), 0));

    let mut alone = Progress::new(0, None);
    alone.local(5);
    assert_eq!((alone.next_ack(), alone.outstanding(5, 5)), (Some(ack(5, 0)), 0));
}

#[test]
fn synced_is_what_both_sides_have_on_stable_storage() {
    let mut progress = Progress::new(0, Some(0));
    progress.local(100);
    progress.downstream(ack(100, 0), 100).unwrap();
    progress.local_synced(100);
    assert_eq!((progress.next_ack(), progress.outstanding(100, 100)), (Some(ack(100, 0)), 100));
    progress.downstream(ack(100, 70), 100).unwrap();
    assert_eq!((progress.next_ack(), progress.outstanding(100, 100)), (Some(ack(100, 70)), 30));
    progress.downstream(ack(100, 100), 100).unwrap();
    assert_eq!((progress.next_ack(), progress.outstanding(100, 100)), (Some(ack(100, 100)), 0));
}

#[test]
fn a_node_that_is_fed_holds_acknowledgements_back_until_it_has_what_was_there_before() {
    let mut progress = Progress::new(50, Some(0));
    assert_eq!(progress.acknowledged(), ack(50, 0));
    progress.downstream(ack(50, 0), 50).unwrap();
    assert_eq!(progress.next_ack(), None);
    progress.local(80);
    progress.downstream(ack(70, 0), 80).unwrap();
    assert_eq!(progress.next_ack(), Some(ack(70, 0)));
}

#[test]
fn a_downstream_that_acknowledges_nonsense_is_refused() {
    let mut progress = Progress::new(0, Some(0));
    assert!(progress.downstream(ack(101, 0), 100).is_err());
    assert!(progress.downstream(ack(50, 51), 100).is_err());
    progress.downstream(ack(50, 30), 100).unwrap();
    assert!(progress.downstream(ack(49, 30), 100).is_err());
    assert!(progress.downstream(ack(50, 29), 100).is_err());
}

/// A frame that starts where the group that is not full does, as a flushing sender makes it.
fn again(file_offset: u64, from: usize, block: &[u8], whole: bool) -> (FrameHeader, Vec<u8>) {
    let start = from / GROUP * GROUP;
    frame(file_offset, start as u64, &block[start..], whole.then_some(block))
}

#[test]
fn a_group_that_was_not_full_comes_again_and_only_what_is_new_is_stored() {
    let lengths = [1, 1024, 1025, GROUP - 1, GROUP, GROUP + 1, 2 * GROUP - 1, 2 * GROUP, 3 * GROUP];
    for file_offset in [0, 8 * GROUP_BYTES] {
        let block = bytes(3 * GROUP);
        let mut receiver = BlockReceiver::new(file_offset, 4 * GROUP_BYTES, None).unwrap();
        let mut stored = Vec::new();
        for length in lengths {
            let before = receiver.length() as usize;
            let (header, body) = again(file_offset, before, &block[..length], length == 3 * GROUP);
            receiver.check_header(&header).unwrap();
            let verified = receiver.verify(&header, &body).unwrap();
            assert_eq!(
                (verified.offset, verified.payload),
                (before as u64, &block[before..length])
            );
            stored.extend_from_slice(verified.payload);
            let expected = values(file_offset, &block[..length]);
            assert_eq!(receiver.tree().groups(), expected, "{length} bytes");
        }
        assert!(stored == block);
    }
}

#[test]
fn a_group_that_comes_again_is_what_it_was_and_no_shorter() {
    let block = bytes(GROUP + 1000);
    let begun = || {
        let mut receiver = BlockReceiver::new(0, 4 * GROUP_BYTES, None).unwrap();
        take(&mut receiver, &frame(0, 0, &block, None)).unwrap();
        receiver
    };
    // The same length again is no news, and allowed; a byte less is not.
    take(&mut begun(), &again(0, GROUP + 1000, &block, true)).unwrap();
    let shorter = again(0, GROUP + 999, &block[..GROUP + 999], false);
    assert!(matches!(take(&mut begun(), &shorter), Err(ReceiveError::Protocol { .. })));
    // Other bytes, under values that fit them.
    let mut other = bytes(GROUP + 2000);
    other[GROUP + 999] ^= 1;
    let other = again(0, GROUP + 1000, &other, false);
    let refused = take(&mut begun(), &other);
    assert_eq!(refused, Err(ReceiveError::NotTheSame { offset: GROUP_BYTES }));
    // It starts where the group does, and nowhere else.
    for offset in [0, 2 * GROUP_BYTES] {
        let refused = begun().check_header(&FrameHeader::data(offset, 2 * GROUP, false));
        let expected = GROUP_BYTES;
        assert_eq!(refused, Err(ReceiveError::OutOfOrder { expected, found: offset }));
    }
}

#[test]
fn frames_without_bytes_sync_or_end_a_block_in_the_middle_of_a_group() {
    let block = bytes(GROUP + 5);
    let mut receiver = BlockReceiver::new(0, 2 * GROUP_BYTES, None).unwrap();
    take(&mut receiver, &frame(0, 0, &block, None)).unwrap();
    let sync = FrameHeader::sync(0, 0);
    receiver.check_header(&sync).unwrap();
    let verified = receiver.verify(&sync, &[]).unwrap();
    assert_eq!(verified, Verified { offset: block.len() as u64, payload: &[], finished: None });
    take(&mut receiver, &frame(0, 0, &[], Some(&block))).unwrap();
}

#[test]
fn what_is_here_already_is_gone_on_with() {
    let block = bytes(2 * GROUP + 9);
    for here in [1, GROUP, GROUP + 7] {
        let mut tree = BlockTree::new(0);
        block[..here].chunks(GROUP).for_each(|group| {
            tree.push_group(group);
        });
        let mut receiver = BlockReceiver::resumed(tree.clone(), 4 * GROUP_BYTES).unwrap();
        take(&mut receiver, &again(0, here, &block, true)).unwrap();
        let refused = BlockReceiver::resumed(tree, here as u64 - 1).unwrap_err();
        assert_eq!(refused, ReceiveError::TooLong { max: here as u64 - 1, found: here as u64 });
    }
}

proptest! {
    #[test]
    fn one_flipped_bit_anywhere_in_a_body_is_found(
        length in 1..3 * GROUP,
        place in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let block = bytes(length);
        let (header, mut body) = frame(0, 0, &block, Some(&block));
        let place = place.index(body.len());
        body[place] ^= 1 << bit;
        let mut receiver = BlockReceiver::new(0, 4 * GROUP_BYTES, None).unwrap();
        let refused = take(&mut receiver, &(header, body)).unwrap_err();
        prop_assert!(refused.is_checksum());
    }

    #[test]
    fn whatever_comes_is_taken_or_refused_and_nothing_panics(
        frames in prop::collection::vec(
            (0..3 * GROUP_BYTES, 0..3 * GROUP as u32, any::<bool>(), any::<u8>()), 1..6,
        ),
        honest in any::<bool>(),
    ) {
        let mut receiver = BlockReceiver::new(0, 4 * GROUP_BYTES, None).unwrap();
        for (offset, payload_bytes, last, filling) in frames {
            let offset = if honest { receiver.length() } else { offset / GROUP_BYTES * GROUP_BYTES };
            let partial = (receiver.length() % GROUP_BYTES) as usize;
            let payload = vec![filling; payload_bytes as usize + if honest { partial } else { 0 }];
            let (header, body) = if honest && !payload.is_empty() {
                frame(0, offset / GROUP_BYTES * GROUP_BYTES, &payload, None)
            } else {
                let header = FrameHeader::data(offset, payload.len(), last);
                (header, vec![filling; header.write_body_bytes()])
            };
            if take(&mut receiver, &(header, body)).is_err() {
                break;
            }
            prop_assert!(receiver.length() <= 4 * GROUP_BYTES);
        }
    }
}
