//! Records as bytes: round trip, and every bit and cut.

use bytes::Bytes;
use doldam_proto::id::{Epoch, JournalIndex};
use proptest::prelude::*;

use super::record::{
    AtBody, AtHeader, HEADER_BYTES, PAYLOAD_BYTES_MAX, Record, SECTOR_BYTES, check_body, encode,
    extent_bytes, parse_header,
};

fn encoded(record: &Record, unacknowledged: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(record, unacknowledged, &mut bytes);
    bytes
}

fn sample(payload_bytes: usize) -> Record {
    let payload: Vec<u8> = (0..payload_bytes).map(|at| at as u8 | 1).collect();
    Record { index: JournalIndex(77), epoch: Epoch(3), payload: payload.into() }
}

#[derive(Debug, PartialEq, Eq)]
enum Read {
    Whole(Record),
    Empty,
    Torn,
    Damaged,
}

/// Reads a record that stands at `offset` of a file, followed by zeros.
fn read(bytes: &[u8], offset: u64) -> Read {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().max(HEADER_BYTES), 0);
    let header = match parse_header(bytes.first_chunk().unwrap()) {
        AtHeader::Header(header) => header,
        AtHeader::Empty => return Read::Empty,
        AtHeader::Torn => return Read::Torn,
        AtHeader::Damaged(_) => return Read::Damaged,
    };
    bytes.resize(header.extent_bytes(), 0);
    match check_body(&header, &bytes, offset) {
        AtBody::Whole => Read::Whole(Record {
            index: header.index,
            epoch: header.epoch,
            payload: Bytes::copy_from_slice(
                &bytes[HEADER_BYTES..HEADER_BYTES + header.payload_bytes],
            ),
        }),
        AtBody::Torn => Read::Torn,
        AtBody::Damaged(_) => Read::Damaged,
    }
}

#[test]
fn every_flipped_bit_of_a_record_is_damage() {
    for payload_bytes in [0, 1, 30, 31, 32, 200, 1000] {
        let bytes = encoded(&sample(payload_bytes), 5);
        assert_eq!(bytes.len(), extent_bytes(payload_bytes));
        for offset in [0, 96, 480] {
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let found = read(&flipped, offset);
                assert_eq!(found, Read::Damaged, "{payload_bytes} bytes at {offset}, bit {bit}");
            }
        }
    }
}

#[test]
fn a_record_cut_at_any_byte_is_torn() {
    let bytes = encoded(&sample(700), 1);
    for cut in 0..bytes.len() {
        let found = read(&bytes[..cut], 64);
        // Its first byte may be zero by chance; no later cut is without any.
        let expected =
            if bytes[..cut].iter().all(|byte| *byte == 0) { Read::Empty } else { Read::Torn };
        assert_eq!(found, expected, "cut at {cut}");
    }
}

#[test]
fn a_record_without_one_of_its_sectors_is_torn() {
    let offset = 5 * 32;
    let bytes = encoded(&sample(1500), 1);
    let mut start = SECTOR_BYTES - offset;
    while start < bytes.len() {
        let end = bytes.len().min(start + SECTOR_BYTES);
        let mut torn = bytes.clone();
        torn[start..end].fill(0);
        assert_eq!(read(&torn, offset as u64), Read::Torn, "sector at {start}");
        start = end;
    }
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_anything_is_read() {
    let mut bytes = encoded(&sample(10), 1);
    bytes[24..28].copy_from_slice(&(PAYLOAD_BYTES_MAX as u32 + 1).to_le_bytes());
    let crc = crc32c::crc32c(&bytes[4..HEADER_BYTES]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(parse_header(bytes.first_chunk().unwrap()), AtHeader::Damaged(_)));
}

proptest! {
    #[test]
    fn a_record_comes_back_as_it_was(
        index in 70_000_u64..,
        epoch in 1_u64..,
        unacknowledged in 1_u16..,
        payload in prop::collection::vec(any::<u8>(), 0..2000),
        slot in 0_u64..64,
    ) {
        let (index, epoch) = (JournalIndex(index), Epoch(epoch));
        let record = Record { index, epoch, payload: payload.into() };
        let bytes = encoded(&record, unacknowledged);
        let AtHeader::Header(header) = parse_header(bytes.first_chunk().unwrap()) else {
            return Err(TestCaseError::fail("no header"));
        };
        prop_assert_eq!(header.acknowledged.0, index.0 - u64::from(unacknowledged));
        prop_assert_eq!(read(&bytes, slot * 32), Read::Whole(record));
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 32..600),
    ) {
        prop_assert!(!matches!(read(&bytes, 0), Read::Whole(_)));
    }
}
