//! The journal with its threads: order, sharing of syncs, limits, failure and closing.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use doldam_proto::id::{Epoch, JournalIndex};
use doldam_runtime::clock::ManualClock;
use parking_lot::Mutex;

use super::test_disk::{CrashDisk, Fault};
use super::test_journal::{
    FOLDER, journal_of, read_all, record_of, segment_path, small, start_small,
};
use super::{AppendDone, CommitLoop, JournalError, JournalOptions, JournalWriter, Record, start};

fn new_journal(disk: &Arc<CrashDisk>, options: JournalOptions) -> (JournalWriter, CommitLoop) {
    let (_, end) = read_all(disk, 1).unwrap();
    let clock = Arc::new(ManualClock::default());
    let (writer, commit_loop, _) = start(end, Epoch(1), options, clock, Box::new(|_| ())).unwrap();
    (writer, commit_loop)
}

/// What a callback was told, with its tag.
type Told = (u64, Result<(), JournalError>);

/// Makes callbacks that send what they are told.
fn told() -> (impl Fn(u64) -> AppendDone, Receiver<Told>) {
    let (sender, receiver) = channel();
    let done = move |tag| -> AppendDone {
        let sender = sender.clone();
        Box::new(move |result| sender.send((tag, result)).unwrap_or_default())
    };
    (done, receiver)
}

#[test]
fn everything_that_waits_shares_one_sync() {
    let disk = CrashDisk::with_folder(FOLDER);
    let (writer, commit_loop) = new_journal(&disk, JournalOptions::default());
    let (done, told) = told();
    for index in 1..=100 {
        writer.append(vec![record_of(index, 40)], done(index)).unwrap();
    }
    let before = disk.syncs();
    writer.close();
    commit_loop.run().unwrap();
    assert_eq!(disk.syncs() - before, 2, "the batch, and the mark at the end");
    let order: Vec<u64> =
        told.try_iter().map(|(index, result)| result.map(|()| index).unwrap()).collect();
    assert_eq!(order, (1..=100).collect::<Vec<_>>());
    assert_eq!(writer.durable_index(), JournalIndex(100));
}

#[test]
fn many_producers_and_segments_keep_the_order() {
    let disk = CrashDisk::with_folder(FOLDER);
    let (_, end) = read_all(&disk, 1).unwrap();
    let (writer, commit_loop, keeper) = start_small(end).unwrap();
    let (done, told) = told();
    let next = Mutex::new(1);
    thread::scope(|scope| {
        scope.spawn(|| commit_loop.run().unwrap());
        scope.spawn(|| keeper.run().unwrap());
        let producers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let mut next = next.lock();
                        let index = *next;
                        *next += 2;
                        let records = vec![record_of(index, 100), record_of(index + 1, 300)];
                        writer.append(records, done(index)).unwrap();
                    }
                })
            })
            .collect();
        for producer in producers {
            producer.join().unwrap();
        }
        writer.close();
    });
    let order: Vec<u64> =
        told.try_iter().map(|(index, result)| result.map(|()| index).unwrap()).collect();
    assert_eq!(order, (1..=800).step_by(2).collect::<Vec<_>>());
    let (found, end) = read_all(&disk, 1).unwrap();
    assert_eq!(found.len(), 800);
    assert!(found.iter().zip(1..).all(|(record, index)| record.index == JournalIndex(index)));
    assert!(writer.segment_count() > 10);
    assert_eq!(disk.paths().len(), writer.segment_count(), "no spare is left behind");
    assert_eq!(end.last_index(), JournalIndex(800));
}

#[test]
fn a_failed_sync_is_final() {
    let disk = CrashDisk::with_folder(FOLDER);
    let (writer, commit_loop) = new_journal(&disk, small());
    let (done, told) = told();
    writer.append(vec![record_of(1, 3000)], done(1)).unwrap();
    writer.append(vec![record_of(2, 3000)], done(2)).unwrap();
    disk.fail_after_syncs(0, Fault::Medium);
    let error = commit_loop.run().unwrap_err();
    assert!(matches!(error, JournalError::Failed { .. }), "{error}");
    // Both are refused, the one that was being written and the one that waited.
    for index in [1, 2] {
        let (tag, result) = told.try_recv().unwrap();
        assert_eq!(tag, index);
        assert!(matches!(result, Err(JournalError::Failed { .. })), "{result:?}");
    }
    assert_eq!(writer.durable_index(), JournalIndex(0));
    disk.heal();
    let error = writer.append(vec![record_of(3, 10)], done(3)).unwrap_err();
    assert!(matches!(error, JournalError::Failed { .. }), "{error}");
    assert!(told.try_recv().is_err());
}

#[test]
fn a_loop_that_vanishes_leaves_nobody_waiting() {
    let disk = CrashDisk::with_folder(FOLDER);
    let (writer, commit_loop) = new_journal(&disk, small());
    let (done, told) = told();
    writer.append(vec![record_of(1, 10)], done(1)).unwrap();
    drop(commit_loop);
    assert!(matches!(told.try_recv().unwrap(), (1, Err(JournalError::Closed))));
    let error = writer.append(vec![record_of(2, 10)], done(2)).unwrap_err();
    assert!(matches!(error, JournalError::Closed), "{error}");
}

#[test]
fn records_that_do_not_follow_or_fit_are_refused_whole() {
    let disk = CrashDisk::with_folder(FOLDER);
    let (writer, commit_loop) = new_journal(&disk, small());
    let (done, told) = told();
    let error = writer.append(vec![record_of(1, 10), record_of(3, 10)], done(1)).unwrap_err();
    assert_eq!(error.to_string(), "record 3 was appended where 2 is next");
    let error = writer.append(vec![record_of(1, 5000)], done(1)).unwrap_err();
    assert!(matches!(error, JournalError::TooLarge { bytes_max: 4096, .. }), "{error}");
    writer.append(vec![record_of(1, 4063)], done(1)).unwrap();
    writer.append(Vec::new(), done(9)).unwrap();
    writer.close();
    commit_loop.run().unwrap();
    let order: Vec<u64> = told.try_iter().map(|(tag, _)| tag).collect();
    assert_eq!(order, [9, 1], "nothing to write is done at once");
    assert_eq!(read_all(&disk, 1).unwrap().0, [record_of(1, 4063)]);
}

#[test]
fn who_appends_too_much_waits_for_room() {
    let disk = CrashDisk::with_folder(FOLDER);
    let options = JournalOptions { queue_bytes_max: 4096, ..small() };
    let (writer, commit_loop) = new_journal(&disk, options);
    let (done, told) = told();
    thread::scope(|scope| {
        // More than the queue holds: this ends only because the loop makes room.
        let producer = scope.spawn(|| {
            for index in 1..=50 {
                writer.append(vec![record_of(index, 1000)], done(index)).unwrap();
            }
            writer.close();
        });
        scope.spawn(|| commit_loop.run().unwrap());
        producer.join().unwrap();
    });
    assert_eq!(told.try_iter().count(), 50);
}

#[test]
fn an_idle_journal_marks_what_it_has_acknowledged() {
    let disk = CrashDisk::with_folder(FOLDER);
    let options = JournalOptions { mark_after: std::time::Duration::ZERO, ..small() };
    let (writer, commit_loop) = new_journal(&disk, options);
    let (done, told) = told();
    thread::scope(|scope| {
        scope.spawn(|| commit_loop.run().unwrap());
        writer.append(vec![record_of(1, 10)], done(1)).unwrap();
        told.recv().unwrap().1.unwrap();
        writer.close();
    });
    // The whole record is gone, and it is missed.
    disk.damage(&segment_path(1), |bytes| bytes[4096..].fill(0));
    assert!(matches!(read_all(&disk, 1), Err(JournalError::Damaged { .. })));
}

#[test]
fn old_segments_are_removed_and_the_rest_is_read_from_where_it_begins() {
    let batch: &[usize] = &[1800, 1800];
    let (disk, records) = journal_of(&[batch, batch, batch], true);
    let (_, end) = read_all(&disk, 1).unwrap();
    let (writer, _commit_loop, _) = start_small(end).unwrap();
    assert_eq!(writer.remove_before(JournalIndex(2)).unwrap(), 0);
    assert_eq!(writer.remove_before(JournalIndex(3)).unwrap(), 1);
    assert_eq!(read_all(&disk, 3).unwrap().0, records[2..]);
    let error = read_all(&disk, 2).unwrap_err();
    assert!(matches!(error, JournalError::MissingStart { .. }), "{error}");
    assert_eq!(writer.remove_before(JournalIndex(100)).unwrap(), 1, "the newest one stays");
    assert_eq!(writer.segment_count(), 1);
}

#[test]
fn a_new_epoch_is_remembered_without_any_record() {
    let (disk, _) = journal_of(&[&[10]], true);
    let clock = Arc::new(ManualClock::default());
    let (_, end) = read_all(&disk, 1).unwrap();
    assert_eq!(end.last_epoch(), Epoch(1));
    drop(start(end, Epoch(2), small(), clock, Box::new(|_| ())).unwrap());
    assert_eq!(read_all(&disk, 1).unwrap().1.last_epoch(), Epoch(2));
}

#[test]
fn a_journal_of_several_epochs_is_read_from_its_start() {
    let disk = CrashDisk::with_folder(FOLDER);
    let mut appended = Vec::new();
    for epoch in 1..=4 {
        let clock = Arc::new(ManualClock::default());
        let (_, end) = read_all(&disk, 1).unwrap();
        let (_writer, mut commit_loop, _) =
            start(end, Epoch(epoch), small(), clock, Box::new(|_| ())).unwrap();
        let record = Record { epoch: Epoch(epoch), ..record_of(epoch, 1500) };
        commit_loop.appender.append(std::slice::from_ref(&record)).unwrap();
        appended.push(record);
    }
    assert_eq!(disk.paths().len(), 2);
    let (found, end) = read_all(&disk, 1).unwrap();
    assert_eq!(found, appended);
    assert_eq!(end.last_epoch(), Epoch(4));
}
