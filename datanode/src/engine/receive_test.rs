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
    let mut receiver = BlockReceiver::new(0, 4 * GROUP_BYTES, None).unwrap();
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
    take(&mut receiver, &frame(0, 0, &bytes(GROUP - 1), None)).unwrap();
    assert_eq!(
        receiver.check_header(&FrameHeader::data(GROUP_BYTES - 1, 1, false)),
        Err(ReceiveError::Protocol { what: "bytes after a group that was not full" })
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

#[test]
fn acknowledged_is_what_both_sides_have() {
    let mut progress = Progress::new(true);
    progress.local(100);
    assert_eq!(progress.next_ack(), None);
    progress.downstream(60, 100).unwrap();
    assert_eq!((progress.next_ack(), progress.outstanding(100)), (Some(60), 40));
    assert_eq!(progress.next_ack(), None);
    progress.downstream(100, 100).unwrap();
    assert_eq!((progress.next_ack(), progress.outstanding(100)), (Some(100), 0));

    let mut alone = Progress::new(false);
    alone.local(5);
    assert_eq!((alone.next_ack(), alone.outstanding(5)), (Some(5), 0));
}

#[test]
fn a_downstream_that_acknowledges_nonsense_is_refused() {
    let mut progress = Progress::new(true);
    assert!(progress.downstream(101, 100).is_err());
    progress.downstream(50, 100).unwrap();
    assert!(progress.downstream(49, 100).is_err());
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
            let payload = vec![filling; payload_bytes as usize];
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
