//! One record of the journal: bytes out, bytes in, and whether bytes that are no record were left
//! by a crash or by damage. Pure. The layout stands byte by byte in `docs/formats.md`.
//!
//! A record starts on a multiple of [`ALIGN_BYTES`], so that its header never straddles two
//! sectors; it goes to a place that holds zeros; and the last byte of its header and of its whole
//! extent are never zero. That is what tells the two apart: a write cut short by a crash leaves
//! zeros (a sector that was not reached, or the end that was not), while a record without such
//! zeros was written in full, and if it then fails its checksum, the medium changed it.

use bytes::Bytes;
use doldam_proto::id::{Epoch, JournalIndex};

/// Bytes of a record's header.
pub(super) const HEADER_BYTES: usize = 32;
/// Records start at multiples of this.
pub(super) const ALIGN_BYTES: usize = 32;
/// What a disk writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;
/// Most bytes of one record's payload, whatever the options say.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16 << 20;

const KIND_COMMAND: u8 = 1;
const HEADER_END: u8 = 0xD1;
const EXTENT_END: u8 = 0x1E;

const _: () = assert!(SECTOR_BYTES.is_multiple_of(ALIGN_BYTES) && HEADER_BYTES <= ALIGN_BYTES);

/// A record to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place: one more than that of the record before.
    pub index: JournalIndex,
    /// The run or leader that wrote it; never less than that of the record before.
    pub epoch: Epoch,
    /// The encoded command.
    pub payload: Bytes,
}

impl Record {
    /// Bytes it takes on disk.
    pub(super) fn extent_bytes(&self) -> usize {
        extent_bytes(self.payload.len())
    }
}

/// A record that was read; the payload is lent until the next one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Its place.
    pub index: JournalIndex,
    /// The run or leader that wrote it.
    pub epoch: Epoch,
    /// The encoded command.
    pub payload: &'a [u8],
}

/// Bytes on disk of a record with a payload of `payload_bytes`: header, payload, at least one more.
pub(super) const fn extent_bytes(payload_bytes: usize) -> usize {
    (HEADER_BYTES + payload_bytes + 1).next_multiple_of(ALIGN_BYTES)
}

/// Appends a record to `out`. `unacknowledged` is its distance from the last record known to be
/// durable when it is written: at least 1.
pub(super) fn encode(record: &Record, unacknowledged: u16, out: &mut Vec<u8>) {
    let start = out.len();
    let payload_bytes = u32::try_from(record.payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&record.index.0.to_le_bytes());
    out.extend_from_slice(&record.epoch.0.to_le_bytes());
    out.extend_from_slice(&payload_bytes.to_le_bytes());
    out.extend_from_slice(&unacknowledged.to_le_bytes());
    out.extend_from_slice(&[KIND_COMMAND, HEADER_END]);
    out.extend_from_slice(&record.payload);
    let record_crc = crc32c::crc32c(&out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&record_crc.to_le_bytes());
    let header_crc = crc32c::crc32c(&out[start + 4..start + HEADER_BYTES]);
    out[start..start + 4].copy_from_slice(&header_crc.to_le_bytes());
    out.resize(start + extent_bytes(record.payload.len()) - 1, 0);
    out.push(EXTENT_END);
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) index: JournalIndex,
    pub(super) epoch: Epoch,
    /// The last record that was durable when this one was written.
    pub(super) acknowledged: JournalIndex,
    pub(super) payload_bytes: usize,
    record_crc: u32,
}

/// What stands where a header might.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AtHeader {
    /// A header.
    Header(Header),
    /// Zeros: nothing was written here, or none of it arrived.
    Empty,
    /// A header of which only a part was written.
    Torn,
    /// A header that was written in full and changed after.
    Damaged(&'static str),
}

/// Reads a header.
pub(super) fn parse_header(bytes: &[u8; HEADER_BYTES]) -> AtHeader {
    if bytes == &[0; HEADER_BYTES] {
        return AtHeader::Empty;
    }
    if bytes[HEADER_BYTES - 1] == 0 {
        return AtHeader::Torn;
    }
    let (words, _) = bytes.as_chunks::<4>();
    let word = |at: usize| u32::from_le_bytes(words[at]);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 1)) << 32;
    if word(0) != crc32c::crc32c(&bytes[4..]) {
        return AtHeader::Damaged("the header of a record does not match its checksum");
    }
    let payload_bytes = word(6) as usize;
    let unacknowledged = u64::from(u16::from_le_bytes([bytes[28], bytes[29]]));
    let index = long(2);
    let known = bytes[30] == KIND_COMMAND && bytes[31] == HEADER_END;
    if !known || payload_bytes > PAYLOAD_BYTES_MAX || unacknowledged == 0 || unacknowledged > index
    {
        return AtHeader::Damaged("the header of a record makes no sense");
    }
    AtHeader::Header(Header {
        index: JournalIndex(index),
        epoch: Epoch(long(4)),
        acknowledged: JournalIndex(index - unacknowledged),
        payload_bytes,
        record_crc: word(1),
    })
}

impl Header {
    /// Bytes of the whole record.
    pub(super) const fn extent_bytes(&self) -> usize {
        extent_bytes(self.payload_bytes)
    }
}

/// What stands behind a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AtBody {
    /// All that was written.
    Whole,
    /// A part of it.
    Torn,
    /// What was written in full and changed after.
    Damaged(&'static str),
}

/// Checks the whole `extent` of a record, which begins at `offset` of the file.
pub(super) fn check_body(header: &Header, extent: &[u8], offset: u64) -> AtBody {
    let payload_end = HEADER_BYTES + header.payload_bytes;
    let (written, padding) = extent.split_at(payload_end);
    let padding_whole = padding
        .split_last()
        .is_some_and(|(last, zeros)| *last == EXTENT_END && zeros.iter().all(|byte| *byte == 0));
    if padding_whole && crc32c::crc32c(&written[8..]) == header.record_crc {
        return AtBody::Whole;
    }
    if extent.last() == Some(&0) || has_zero_sector(extent, offset) {
        return AtBody::Torn;
    }
    AtBody::Damaged("a record does not match its checksum")
}

/// Whether a sector, or the part of one that is in `extent`, is zeros.
fn has_zero_sector(mut extent: &[u8], offset: u64) -> bool {
    let mut piece_bytes = SECTOR_BYTES - offset as usize % SECTOR_BYTES;
    while !extent.is_empty() {
        let (piece, rest) = extent.split_at(piece_bytes.min(extent.len()));
        if piece.iter().all(|byte| *byte == 0) {
            return true;
        }
        extent = rest;
        piece_bytes = SECTOR_BYTES;
    }
    false
}
