//! What the medium may do to a journal: each bit, each length, each sector, each file.

use std::sync::Arc;

use doldam_proto::id::{Epoch, JournalIndex};

use super::JournalError;
use super::record::{Record, SECTOR_BYTES};
use super::segment::RECORDS_START;
use super::test_disk::CrashDisk;
use super::test_journal::{FOLDER, journal_of, read_all, record_of, segment_path, start_small};

/// Two segments; the second has room left.
const BATCHES: &[&[usize]] =
    &[&[100, 50], &[700], &[1500, 20, 3], &[900], &[600, 10], &[40], &[300, 0, 1, 250]];

/// Bytes of the file up to the end of its last record.
fn used_bytes(disk: &CrashDisk, number: u64) -> usize {
    let bytes = disk.bytes_of(&segment_path(number));
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Either all records are there, or the journal refuses to be read.
fn assert_nothing_is_lost(disk: &Arc<CrashDisk>, records: &[Record], what: &str) -> bool {
    match read_all(disk, 1) {
        Ok((found, _)) => {
            assert!(found == records, "{what}: {} of {}", found.len(), records.len());
            false
        }
        Err(JournalError::Io { source, .. }) => panic!("{what}: {source}"),
        Err(_) => true,
    }
}

fn flip_every_bit(marked: bool, segments: &[u64]) {
    let (disk, records) = journal_of(BATCHES, marked);
    assert_eq!(disk.paths().len(), 2);
    for number in segments.iter().copied() {
        let path = segment_path(number);
        let used = used_bytes(&disk, number);
        let untouched = disk.bytes_of(&path);
        for bit in 0..untouched.len() * 8 {
            disk.damage(&path, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            let what = format!("segment {number}, bit {bit}, marked {marked}");
            let refused = assert_nothing_is_lost(&disk, &records, &what);
            let in_header = bit / 8 < SECTOR_BYTES;
            let in_records = (RECORDS_START as usize..used).contains(&(bit / 8));
            assert!(refused || !(in_header || in_records), "{what} went unnoticed");
            // The end may have been mended: begin again with the same bytes.
            disk.damage(&path, |bytes| bytes.clone_from(&untouched));
        }
    }
}

#[test]
fn every_flipped_bit_of_a_sealed_segment_is_noticed_or_harmless() {
    flip_every_bit(true, &[1]);
}

#[test]
fn every_flipped_bit_of_the_newest_segment_is_noticed_or_harmless() {
    flip_every_bit(true, &[2]);
}

#[test]
fn every_flipped_bit_is_noticed_or_harmless_before_the_mark_is_written() {
    flip_every_bit(false, &[2]);
}

#[test]
fn a_segment_cut_at_any_byte_is_refused() {
    let (disk, records) = journal_of(BATCHES, true);
    for number in [1, 2] {
        let path = segment_path(number);
        let untouched = disk.bytes_of(&path);
        for length in 0..untouched.len() {
            disk.damage(&path, |bytes| bytes.truncate(length));
            let refused = assert_nothing_is_lost(&disk, &records, "cut");
            assert!(refused, "segment {number} cut to {length} bytes went unnoticed");
            disk.damage(&path, |bytes| bytes.clone_from(&untouched));
        }
    }
}

/// Whether losing each sector of the records is noticed, in order.
fn lose_each_sector(marked: bool) -> Vec<bool> {
    let (disk, records) = journal_of(BATCHES, marked);
    let mut noticed = Vec::new();
    for number in [1, 2] {
        let path = segment_path(number);
        let used = used_bytes(&disk, number);
        let untouched = disk.bytes_of(&path);
        for start in (RECORDS_START as usize..used).step_by(SECTOR_BYTES) {
            disk.damage(&path, |bytes| bytes[start..start + SECTOR_BYTES].fill(0));
            noticed.push(read_all(&disk, 1).map_or(true, |(found, _)| found == records));
            disk.damage(&path, |bytes| bytes.clone_from(&untouched));
        }
    }
    noticed
}

#[test]
fn a_lost_sector_is_noticed() {
    assert!(lose_each_sector(true).into_iter().all(|noticed| noticed));
}

#[test]
fn before_the_mark_only_the_last_batch_looks_torn() {
    let noticed = lose_each_sector(false);
    // The last batch has 896 bytes: it touches the last two or three sectors.
    let missed = noticed.iter().filter(|noticed| !**noticed).count();
    assert!((1..=3).contains(&missed), "{noticed:?}");
    assert!(noticed[..noticed.len() - missed].iter().all(|noticed| *noticed), "{noticed:?}");
}

#[test]
fn a_torn_mark_leaves_the_one_before() {
    let disk = CrashDisk::with_folder(FOLDER);
    let (_, end) = read_all(&disk, 1).unwrap();
    let (_writer, mut commit_loop, _) = start_small(end).unwrap();
    for index in 1..=3 {
        commit_loop.appender.append(&[record_of(index, 10)]).unwrap();
        commit_loop.appender.mark().unwrap();
    }
    let path = segment_path(1);
    let untouched = disk.bytes_of(&path);
    for mark in [512, 1024] {
        // One mark is torn, and the second record with all after it is gone.
        disk.damage(&path, |bytes| {
            bytes[mark + 8..mark + 32].fill(0);
            bytes[4096 + 64..].fill(0);
        });
        let error = read_all(&disk, 1).unwrap_err();
        assert!(matches!(error, JournalError::Damaged { index: JournalIndex(2), .. }), "{error}");
        disk.damage(&path, |bytes| bytes.clone_from(&untouched));
    }
}

#[test]
fn records_in_another_order_are_damage() {
    let (disk, _) = journal_of(&[&[10], &[10], &[10]], false);
    disk.damage(&segment_path(1), |bytes| {
        let (first, second) = bytes[4096..4096 + 128].split_at_mut(64);
        first.swap_with_slice(second);
    });
    let error = read_all(&disk, 1).unwrap_err();
    assert!(error.to_string().ends_with("another record stands in its place"), "{error}");
}

#[test]
fn a_record_of_an_earlier_epoch_than_the_one_before_is_damage() {
    let disk = CrashDisk::with_folder(FOLDER);
    let (_, end) = read_all(&disk, 1).unwrap();
    let (_writer, mut commit_loop, _) = start_small(end).unwrap();
    for (index, epoch) in [(1, 5), (2, 4)] {
        let record = Record { epoch: Epoch(epoch), ..record_of(index, 10) };
        commit_loop.appender.append(&[record]).unwrap();
    }
    let error = read_all(&disk, 1).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { index: JournalIndex(2), .. }), "{error}");
}

#[test]
fn damage_is_told_with_file_offset_and_index() {
    let (disk, _) = journal_of(&[&[10], &[10], &[10]], true);
    let path = segment_path(1);
    disk.damage(&path, |bytes| bytes[4096 + 64 + 40] ^= 1);
    let error = read_all(&disk, 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/journal/0000000000000001.journal is damaged at offset 4160, where record 2 is expected: \
         a record that was acknowledged is missing or cut"
    );
}

#[test]
fn a_missing_segment_is_noticed() {
    let batch: &[usize] = &[1500, 1500];
    for number in 1..=3 {
        let (disk, records) = journal_of(&[batch, batch, batch], true);
        assert_eq!(disk.paths().len(), 3);
        doldam_runtime::disk::Disk::remove_file(disk.as_ref(), &segment_path(number)).unwrap();
        let refused = assert_nothing_is_lost(&disk, &records, "missing");
        assert!(refused, "segment {number} is gone and nobody cares");
    }
}

#[test]
fn a_journal_that_does_not_reach_what_the_state_has_is_refused() {
    let (disk, records) = journal_of(&[&[10], &[10]], true);
    assert_eq!(read_all(&disk, 3).unwrap().0, []);
    assert_eq!(read_all(&disk, 2).unwrap().0, records[1..]);
    let error = read_all(&disk, 4).unwrap_err();
    assert!(matches!(error, JournalError::MissingEnd { .. }), "{error}");
    let empty = CrashDisk::with_folder(FOLDER);
    let error = read_all(&empty, 2).unwrap_err();
    assert!(matches!(error, JournalError::MissingEnd { .. }), "{error}");
}

#[test]
fn a_torn_end_is_cut_off_and_does_not_come_back() {
    let (disk, records) = journal_of(&[&[10], &[600, 600, 600]], false);
    let path = segment_path(1);
    // Of the second batch the sector with the second header did not arrive.
    let second = 4096 + 64 + 640;
    let sector = second / SECTOR_BYTES * SECTOR_BYTES;
    disk.damage(&path, |bytes| bytes[sector..sector + SECTOR_BYTES].fill(0));
    let (found, end) = read_all(&disk, 1).unwrap();
    assert_eq!(found, records[..1]);
    let cut = end.cut_tail().cloned().unwrap();
    assert_eq!((cut.path, cut.offset, cut.bytes), (path.clone(), 4160, 3 * 640));
    assert_eq!(used_bytes(&disk, 1), 4160);
    let (found, end) = read_all(&disk, 1).unwrap();
    assert_eq!(found, records[..1]);
    assert_eq!(end.cut_tail(), None);
}
