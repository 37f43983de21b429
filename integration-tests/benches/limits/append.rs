//! Appends to a log that was filled with zeros before, many of them synced together, as a journal does it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use crate::disk::PIECE_BYTES;
use crate::{Bench, Outcome};

/// Bytes of a record.
const RECORD_BYTES: usize = 128;

/// A record, and who waits for it.
type Append = ([u8; RECORD_BYTES], Sender<()>);

pub(crate) fn one(bench: &Bench) -> Outcome<()> {
    append(bench, 1)
}

pub(crate) fn many(bench: &Bench) -> Outcome<()> {
    append(bench, 32)
}

/// Each producer appends a record and waits until it is on stable storage, again and again.
fn append(bench: &Bench, producers: u64) -> Outcome<()> {
    let path = bench.dir.path().join("log");
    let log = File::create(&path)?;
    let pieces = (bench.calls * RECORD_BYTES as u64).div_ceil(PIECE_BYTES as u64);
    let zeros = vec![0; PIECE_BYTES];
    for index in 0..pieces {
        log.write_all_at(&zeros, index * PIECE_BYTES as u64)?;
    }
    log.sync_all()?;
    let (appends, queue) = channel();
    thread::scope(|scope| {
        let writer = scope.spawn(move || write(&log, &queue));
        for producer in 0..producers {
            let appends = appends.clone();
            let count = bench.calls / producers + u64::from(producer < bench.calls % producers);
            scope.spawn(move || produce(&appends, count));
        }
        drop(appends);
        writer.join().map_err(|_panicked| io::Error::other("a thread panicked"))?
    })?;
    Ok(std::fs::remove_file(path)?)
}

fn produce(appends: &Sender<Append>, count: u64) {
    let (done, is_done) = channel();
    for _ in 0..count {
        if appends.send(([7; RECORD_BYTES], done.clone())).is_err() || is_done.recv().is_err() {
            return; // The writer failed, which it says itself.
        }
    }
}

/// Writes all that waits, syncs once, and tells who waited.
fn write(log: &File, queue: &Receiver<Append>) -> io::Result<()> {
    let (mut offset, mut batch, mut waiting) = (0, Vec::new(), Vec::new());
    while let Ok(first) = queue.recv() {
        batch.clear();
        for (record, done) in std::iter::once(first).chain(queue.try_iter()) {
            batch.extend_from_slice(&record);
            waiting.push(done);
        }
        log.write_all_at(&batch, offset)?;
        log.sync_data()?;
        offset += batch.len() as u64;
        for done in waiting.drain(..) {
            _ = done.send(()); // Who asked may have ended.
        }
    }
    Ok(())
}
