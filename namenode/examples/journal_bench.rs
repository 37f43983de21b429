//! How fast the journal is, beside what the disk alone can do, in one run of a few seconds.
//!
//! `cargo run --release -p doldam-namenode --example journal_bench [FOLDER]`

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use doldam_namenode::journal::{
    self, JournalError, JournalOptions, JournalWriter, Record, Replay, WrittenBatch,
};
use doldam_proto::id::{Epoch, JournalIndex};
use doldam_runtime::clock::{Clock, SystemClock};
use doldam_runtime::disk::{Disk, OpenMode, RealDisk};
use parking_lot::Mutex;

/// How long each figure is measured.
const ROUND: Duration = Duration::from_secs(1);
/// About what a small command takes.
const PAYLOAD_BYTES: usize = 160;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let parent = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    let folder = tempfile::tempdir_in(parent)?;
    let clock = Arc::new(SystemClock::default());
    let limit = bare_sync_nanos(&folder.path().join("bare"), clock.as_ref())?;
    println!("bare write and fdatasync       {limit:>9} ns each, {:>8} /s", per_second(limit));
    for producers in [1, 8, 32] {
        let dir = folder.path().join(format!("journal-{producers}"));
        RealDisk.create_dir_all(&dir)?;
        let appended = measure_appends(&dir, producers, limit, &clock)?;
        measure_replay(&dir, appended, clock.as_ref())?;
    }
    Ok(())
}

fn since(clock: &dyn Clock, started: Duration) -> Duration {
    clock.now().saturating_sub(started)
}

fn per_second(nanos: u128) -> u128 {
    1_000_000_000 / nanos.max(1)
}

/// One write and one sync after another in a file that is already there: what no journal can beat.
fn bare_sync_nanos(path: &Path, clock: &dyn Clock) -> Result<u128, Failure> {
    const FILE_BYTES: u64 = 64 << 20;
    let file = RealDisk.open(path, OpenMode::CreateNew)?;
    file.preallocate_zeroed(FILE_BYTES)?;
    file.sync_all()?;
    let bytes = [7; PAYLOAD_BYTES + 64];
    let (started, mut offset, mut count) = (clock.now(), 0, 0);
    while since(clock, started) < ROUND {
        file.write_all_at(&bytes, offset)?;
        file.sync_data()?;
        offset = (offset + bytes.len() as u64) % (FILE_BYTES - bytes.len() as u64);
        count += 1;
    }
    Ok(since(clock, started).as_nanos() / count)
}

#[derive(Default)]
struct Totals {
    batches: u128,
    took: Duration,
}

fn measure_appends(
    dir: &Path,
    producers: usize,
    limit: u128,
    clock: &Arc<SystemClock>,
) -> Result<u64, Failure> {
    let totals = Arc::new(Mutex::new(Totals::default()));
    let counted = Arc::clone(&totals);
    let on_batch = Box::new(move |batch: WrittenBatch| {
        let mut totals = counted.lock();
        totals.batches += 1;
        totals.took += batch.took;
    });
    let end = Replay::open(Arc::new(RealDisk), dir, JournalIndex(1))?.finish()?;
    let of_journal = Arc::clone(clock) as Arc<dyn Clock>;
    let options = JournalOptions::default();
    let (writer, commit_loop, keeper) =
        journal::start(end, Epoch(1), options, of_journal, on_batch)?;
    let next = Mutex::new(JournalIndex(1));
    let started = clock.now();
    let mut elapsed = Duration::ZERO;
    thread::scope(|scope| -> Result<(), Failure> {
        let threads = [scope.spawn(move || commit_loop.run()), scope.spawn(move || keeper.run())];
        let producing: Vec<_> = (0..producers)
            .map(|_| scope.spawn(|| produce(&writer, &next, clock.as_ref(), started + ROUND)))
            .collect();
        for producer in producing {
            producer.join().map_err(|_panic| "a producer panicked")??;
        }
        elapsed = since(clock.as_ref(), started);
        writer.close();
        for thread in threads {
            thread.join().map_err(|_panic| "a thread of the journal panicked")??;
        }
        Ok(())
    })?;
    let (appended, totals) = (next.lock().0 - 1, totals.lock());
    let rate = u128::from(appended) * 1_000_000_000 / elapsed.as_nanos();
    let sync = totals.took.as_nanos() / totals.batches.max(1);
    println!(
        "{producers:>2} producers  {rate:>8} appends/s  {:>6.1} per sync  {sync:>9} ns per sync \
         ({:.2} of bare)",
        appended as f64 / totals.batches as f64,
        sync as f64 / limit as f64,
    );
    Ok(appended)
}

/// Appends one record after another, each when the one before is durable.
fn produce(
    writer: &JournalWriter,
    next: &Mutex<JournalIndex>,
    clock: &dyn Clock,
    until: Duration,
) -> Result<(), Failure> {
    let payload = Bytes::from_static(&[42; PAYLOAD_BYTES]);
    let (sender, receiver) = channel::<Result<(), JournalError>>();
    while clock.now() < until {
        let sender = sender.clone();
        let done = Box::new(move |result| {
            // A producer that has gone does not care.
            let _ = sender.send(result);
        });
        {
            let mut next = next.lock();
            let record = Record { index: *next, epoch: Epoch(1), payload: payload.clone() };
            *next = next.next();
            writer.append(vec![record], done)?;
        }
        receiver.recv()??;
    }
    Ok(())
}

fn measure_replay(dir: &Path, appended: u64, clock: &dyn Clock) -> Result<(), Failure> {
    let started = clock.now();
    let mut replay = Replay::open(Arc::new(RealDisk), dir, JournalIndex(1))?;
    let mut count = 0;
    while let Some(record) = replay.next_record()? {
        count += u64::from(record.payload.len() == PAYLOAD_BYTES);
    }
    let elapsed = since(clock, started);
    if count != appended {
        return Err(format!("appended {appended} records and found {count}").into());
    }
    let rate = u128::from(count) * 1_000_000_000 / elapsed.as_nanos().max(1);
    println!("              {rate:>8} records/s replayed, {count} in {elapsed:.1?}");
    Ok(())
}
