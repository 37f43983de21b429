//! Round trips, limits, and one flipped bit at every place of what goes over a block stream.

use bytes::BytesMut;
use proptest::prelude::*;

use super::FrameError;
use super::codec::{PREFIX_BYTES, decode_message, decode_prefix, encode_message};
use super::handshake::{self, HANDSHAKE_BYTES, STREAM_VERSION};
use super::header::{FrameHeader, FrameKind, HEADER_BYTES};
use crate::id::ClusterId;
use crate::limits::{
    BLOCK_BYTES_MAX, FRAME_PAYLOAD_BYTES, FRAME_PAYLOAD_BYTES_MAX, GROUP_BYTES,
    STREAM_MESSAGE_BYTES_MAX,
};
use crate::wire::{BlockRequest, BlockResponse, ReadBlock, block_request};

const GROUP: usize = GROUP_BYTES as usize;
const CLUSTER: ClusterId = ClusterId(*b"sixteen  letters");

fn malformed(header: FrameHeader) -> bool {
    matches!(FrameHeader::decode(&header.encode()), Err(FrameError::Malformed { .. }))
}

fn headers() -> impl Strategy<Value = FrameHeader> {
    let groups = BLOCK_BYTES_MAX / GROUP_BYTES - (FRAME_PAYLOAD_BYTES_MAX / GROUP) as u64;
    let data = (0..=groups, 1..=FRAME_PAYLOAD_BYTES_MAX, any::<bool>())
        .prop_map(|(group, bytes, last)| FrameHeader::data(group * GROUP_BYTES, bytes, last));
    let sync = (0..=groups, 0..=FRAME_PAYLOAD_BYTES_MAX)
        .prop_map(|(group, bytes)| FrameHeader::sync(group * GROUP_BYTES, bytes));
    let proof = (0..=FRAME_PAYLOAD_BYTES_MAX / 32)
        .prop_map(|values| FrameHeader::plain(FrameKind::Proof, values * 32));
    let error = (0..=STREAM_MESSAGE_BYTES_MAX)
        .prop_map(|bytes| FrameHeader::plain(FrameKind::Error, bytes));
    prop_oneof![data, sync, proof, error]
}

#[test]
fn a_header_is_laid_out_as_documented() {
    let header = FrameHeader::data(3 * GROUP_BYTES, 0x0001_0203, true);
    let expected = [1, 1, 0, 0, 3, 2, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0];
    assert_eq!(header.encode(), expected);
    assert_eq!(FrameHeader::plain(FrameKind::Proof, 32).encode()[..5], [2, 0, 0, 0, 32]);
    assert_eq!(FrameHeader::plain(FrameKind::Error, 9).encode()[..5], [3, 0, 0, 0, 9]);
}

#[test]
fn each_rule_of_a_header_refuses_what_it_forbids_and_nothing_less() {
    assert!(malformed(FrameHeader::data(0, 0, false)), "an empty data frame");
    assert!(!malformed(FrameHeader::data(0, 0, true)), "but the last may be empty");
    assert!(malformed(FrameHeader::data(GROUP_BYTES - 1, 1, false)));
    assert!(!malformed(FrameHeader::data(BLOCK_BYTES_MAX - GROUP_BYTES, GROUP, true)));
    assert!(malformed(FrameHeader::data(BLOCK_BYTES_MAX - GROUP_BYTES, GROUP + 1, true)));
    assert!(malformed(FrameHeader::data(BLOCK_BYTES_MAX, 1, true)));
    assert!(
        !malformed(FrameHeader::data(BLOCK_BYTES_MAX, 0, true)),
        "the empty end of a full block"
    );
    assert!(malformed(FrameHeader::data(u64::MAX - (GROUP_BYTES - 1), 1, true)));
    assert!(malformed(FrameHeader::plain(FrameKind::Proof, 33)));
    assert!(!malformed(FrameHeader::sync(0, 0)), "a sync alone");
    assert!(malformed(FrameHeader { last: true, ..FrameHeader::sync(0, 1) }));
    assert!(malformed(FrameHeader { sync: true, ..FrameHeader::plain(FrameKind::Proof, 32) }));
    assert!(malformed(FrameHeader { last: true, ..FrameHeader::plain(FrameKind::Proof, 32) }));
    assert!(malformed(FrameHeader { offset: 65536, ..FrameHeader::plain(FrameKind::Error, 1) }));
    assert!(malformed(FrameHeader::plain(FrameKind::Error, STREAM_MESSAGE_BYTES_MAX + 1)));

    let mut unknown = FrameHeader::data(0, 1, false).encode();
    for kind in [0, 4, 255] {
        unknown[0] = kind;
        assert!(FrameHeader::decode(&unknown).is_err());
    }
    let largest = FrameHeader::data(0, FRAME_PAYLOAD_BYTES_MAX, false);
    assert_eq!(FrameHeader::decode(&largest.encode()), Ok(largest));
    let (found, max) = (FRAME_PAYLOAD_BYTES_MAX as u64 + 1, FRAME_PAYLOAD_BYTES_MAX as u64);
    assert_eq!(
        FrameHeader::decode(&FrameHeader::data(0, FRAME_PAYLOAD_BYTES_MAX + 1, false).encode()),
        Err(FrameError::TooLarge { what: "frame payload", found, max })
    );
}

#[test]
fn the_body_of_a_write_is_values_payload_and_the_last_value() {
    for (payload, last, groups) in [
        (1, false, 1),
        (GROUP, false, 1),
        (GROUP + 1, true, 2),
        (FRAME_PAYLOAD_BYTES, false, 16),
        (0, true, 0),
    ] {
        let header = FrameHeader::data(0, payload, last);
        assert_eq!(header.groups(), groups);
        let expected = groups * 32 + payload + if last { 32 } else { 0 };
        assert_eq!(header.write_body_bytes(), expected);
    }
}

#[test]
fn a_handshake_is_accepted_by_its_own_cluster_and_version_only() {
    let bytes = handshake::encode(CLUSTER);
    assert_eq!(handshake::check(&bytes, CLUSTER), Ok(()));
    let other = ClusterId([0; 16]);
    assert_eq!(
        handshake::check(&bytes, other),
        Err(FrameError::WrongCluster { expected: other, found: CLUSTER })
    );
    let mut newer = bytes;
    newer[4] += 1;
    assert_eq!(
        handshake::check(&newer, CLUSTER),
        Err(FrameError::WrongVersion { expected: STREAM_VERSION, found: STREAM_VERSION + 1 })
    );
    assert_eq!(
        handshake::check(b"GET / HTTP/1.1\r\nHost: ab", CLUSTER).unwrap_err().to_string(),
        "the peer does not speak the Doldam block stream (its first bytes are [47, 45, 54, 20])"
    );
}

#[test]
fn any_flipped_bit_of_a_handshake_is_refused() {
    for bit in 0..HANDSHAKE_BYTES * 8 {
        let mut bytes = handshake::encode(CLUSTER);
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(handshake::check(&bytes, CLUSTER).is_err(), "bit {bit}");
    }
}

#[test]
fn messages_are_bounded_both_ways() {
    assert_eq!(decode_prefix(0_u32.to_le_bytes()), Ok(0));
    let max = STREAM_MESSAGE_BYTES_MAX;
    assert_eq!(decode_prefix((max as u32).to_le_bytes()), Ok(max));
    for found in [max as u32 + 1, u32::MAX] {
        let error =
            FrameError::TooLarge { what: "message", found: u64::from(found), max: max as u64 };
        assert_eq!(decode_prefix(found.to_le_bytes()), Err(error));
    }
    let mut buffer = BytesMut::new();
    let request = BlockRequest { trace: "t".repeat(max), operation: None };
    assert!(matches!(encode_message(&request, &mut buffer), Err(FrameError::TooLarge { .. })));
    assert!(buffer.is_empty(), "nothing of a refused message is left behind");
}

#[test]
fn a_message_follows_its_prefix() {
    let read =
        ReadBlock { block_id: 7, generation: 1, offset: 4096, length: 10, ..Default::default() };
    let operation = Some(block_request::Operation::Read(read));
    let request = BlockRequest { trace: "4bf9".into(), operation };
    let mut buffer = BytesMut::from(&b"before"[..]);
    encode_message(&request, &mut buffer).unwrap();
    let (prefix, message) = buffer[6..].split_at(PREFIX_BYTES);
    assert_eq!(decode_prefix(prefix.try_into().unwrap()), Ok(message.len()));
    assert_eq!(decode_message::<BlockRequest>(message), Ok(request));
    assert!(matches!(
        decode_message::<BlockRequest>(&message[..message.len() - 1]),
        Err(FrameError::BadMessage(_))
    ));
}

proptest! {
    #[test]
    fn headers_survive_and_every_flipped_bit_shows(header in headers()) {
        let bytes = header.encode();
        prop_assert_eq!(FrameHeader::decode(&bytes), Ok(header));
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = FrameHeader::decode(&flipped) {
                prop_assert_ne!(other, header);
                prop_assert_eq!(other.encode(), flipped);
            }
        }
    }

    #[test]
    fn an_accepted_header_is_within_every_limit(bytes: [u8; HEADER_BYTES]) {
        if let Ok(header) = FrameHeader::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
            prop_assert!(header.payload_bytes as usize <= FRAME_PAYLOAD_BYTES_MAX);
            prop_assert!(header.offset + u64::from(header.payload_bytes) <= BLOCK_BYTES_MAX);
            prop_assert!(header.write_body_bytes() <= FRAME_PAYLOAD_BYTES_MAX + (64 + 1) * 32);
        }
    }

    #[test]
    fn any_bytes_are_a_message_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_message::<BlockRequest>(&bytes);
        let _ = decode_message::<BlockResponse>(&bytes);
        if let Ok(start) = <[u8; HANDSHAKE_BYTES]>::try_from(bytes.as_slice()) {
            prop_assert!(handshake::check(&start, CLUSTER).is_err());
        }
    }
}
