//! Segments of the namenode's journal, as a start finds them.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use doldam_namenode::journal::Replay;
use doldam_proto::id::JournalIndex;
use doldam_runtime::disk::RealDisk;

use super::memory_folder::in_empty_folder;

const GRAIN_BYTES: usize = 4096;
const SEGMENT_BYTES_MAX: usize = 64 << 10;
const RECORDS_START: usize = 4096;
const RECORD_HEADER_BYTES: usize = 32;
/// Where the two marks of what was acknowledged stand.
const MARKS: [usize; 2] = [512, 1024];
const MARK_BYTES: usize = 32;
/// Bits of the first byte of an input: make the checksums of the segment's header, of the records, or of the marks,
/// right.
const MEND_HEADER: u8 = 1;
const MEND_RECORDS: u8 = 2;
const MEND_MARKS: u8 = 4;

/// The only segment of a journal: it is replayed in order up to its end, or refused.
///
/// Checksums keep random changes out of everything behind them, so the first byte of the input says which of them
/// are made right again.
pub fn journal_segment(bytes: &[u8]) {
    let Some((mend, bytes)) = bytes.split_first() else { return };
    let mut segment = bytes[..bytes.len().min(SEGMENT_BYTES_MAX)].to_vec();
    segment.resize(segment.len().next_multiple_of(GRAIN_BYTES).max(2 * GRAIN_BYTES), 0);
    if mend & MEND_HEADER != 0 {
        mend_header(&mut segment);
    }
    if mend & MEND_RECORDS != 0 {
        mend_records(&mut segment);
    }
    if mend & MEND_MARKS != 0 {
        mend_marks(&mut segment);
    }
    in_empty_folder(|folder| {
        fs::write(folder.join(format!("{:016x}.journal", 1)), &segment).unwrap();
        replay(folder);
    });
}

fn replay(folder: &Path) {
    let Ok(mut replay) = Replay::open(Arc::new(RealDisk), folder, JournalIndex(1)) else { return };
    let mut last = 0;
    loop {
        match replay.next_record() {
            Ok(Some(record)) => {
                assert_eq!(record.index.0, last + 1, "records come in order, without gaps");
                assert!(record.payload.len() < SEGMENT_BYTES_MAX);
                last += 1;
            }
            Ok(None) => break,
            Err(_refused) => return,
        }
    }
    if let Ok(end) = replay.finish() {
        assert_eq!(end.last_index().0, last);
    }
}

fn mend_header(segment: &mut [u8]) {
    let length = segment.len() as u64;
    segment[..4].copy_from_slice(b"DLDJ");
    segment[4..8].copy_from_slice(&1_u32.to_le_bytes());
    segment[8..16].copy_from_slice(&1_u64.to_le_bytes());
    segment[16..24].copy_from_slice(&1_u64.to_le_bytes());
    segment[32..40].copy_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c(&segment[..508]);
    segment[508..512].copy_from_slice(&crc.to_le_bytes());
}

fn mend_records(segment: &mut [u8]) {
    let mut at = RECORDS_START;
    while let Some(header) = segment.get(at..at + RECORD_HEADER_BYTES) {
        if header.iter().all(|byte| *byte == 0) {
            return;
        }
        let room = segment.len() - at - RECORD_HEADER_BYTES - 1;
        let announced = u32::from_le_bytes([header[24], header[25], header[26], header[27]]);
        let payload = (announced as usize).min(room);
        segment[at + 24..at + 28].copy_from_slice(&(payload as u32).to_le_bytes());
        let end = at + RECORD_HEADER_BYTES + payload;
        let crc = crc32c::crc32c(&segment[at + 8..end]);
        segment[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32c::crc32c(&segment[at + 4..at + RECORD_HEADER_BYTES]);
        segment[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        at = (end + 1).next_multiple_of(RECORD_HEADER_BYTES);
    }
}

/// Except those of zeros, which were never written.
fn mend_marks(segment: &mut [u8]) {
    for at in MARKS {
        let mark = &mut segment[at..at + MARK_BYTES];
        if mark.iter().any(|byte| *byte != 0) {
            mark[..4].copy_from_slice(b"DLDM");
            let crc = crc32c::crc32c(&mark[8..]);
            mark[4..8].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

pub(super) fn journal_segment_seeds() -> Vec<Vec<u8>> {
    let mut segment = vec![0; RECORDS_START];
    for (index, payload) in [&b"first"[..], &[7; 700], b"third"].into_iter().enumerate() {
        let at = segment.len();
        segment.resize(at + 8, 0);
        segment.extend((index as u64 + 1).to_le_bytes());
        segment.extend(1_u64.to_le_bytes());
        segment.extend((payload.len() as u32).to_le_bytes());
        segment.extend([1, 0, 1, 0xD1]);
        segment.extend(payload);
        segment.resize((segment.len() + 1).next_multiple_of(RECORD_HEADER_BYTES) - 1, 0);
        segment.push(0x1E);
    }
    let torn = segment[..RECORDS_START + 500].to_vec();
    let mut marked = segment.clone();
    for (at, acknowledged) in MARKS.into_iter().zip([2_u64, 3]) {
        marked[at + 8..at + 16].copy_from_slice(&acknowledged.to_le_bytes());
        marked[at + 16] = 1;
    }
    [
        (MEND_HEADER | MEND_RECORDS, segment.clone()),
        (MEND_HEADER, segment),
        (3, torn),
        (3, Vec::new()),
        (7, marked),
    ]
    .map(|(mend, segment)| [&[mend][..], &segment].concat())
    .to_vec()
}
