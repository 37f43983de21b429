//! One thread writes for all: everything that waits becomes one batch, one write and one sync.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use doldam_proto::id::{Epoch, JournalIndex};
use doldam_runtime::clock::Clock;
use doldam_runtime::tasks::{Signal, inline};
use parking_lot::Mutex;

use super::appender::{Appender, BATCH_RECORDS_MAX};
use super::keeper::{SegmentKeeper, SegmentList, Spares};
use super::record::Record;
use super::replay::JournalEnd;
use super::{JournalError, JournalOptions};

/// Called on the journal's thread, once, with what became of the records; in order of appending. It
/// must not block, nor append to the journal.
pub type AppendDone = Box<dyn FnOnce(Result<(), JournalError>) + Send>;

/// Called on the journal's thread after each batch that became durable.
pub type OnBatch = Box<dyn Fn(WrittenBatch) + Send>;

/// Figures of one batch, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenBatch {
    /// How many records it has.
    pub records: usize,
    /// Bytes on disk.
    pub bytes: usize,
    /// Time of writing and syncing, and of beginning a segment if that was needed.
    pub took: Duration,
}

/// Begins to write at the end of a journal, in `epoch`, which is durable when this returns.
///
/// The [`CommitLoop`] must be run, on a thread of its own; the [`SegmentKeeper`] should be, on
/// another.
///
/// # Errors
/// If the medium fails.
///
/// # Panics
/// If `epoch` is 0 or less than [`JournalEnd::last_epoch`].
pub fn start(
    end: JournalEnd,
    epoch: Epoch,
    options: JournalOptions,
    clock: Arc<dyn Clock>,
    on_batch: OnBatch,
) -> Result<(JournalWriter, CommitLoop, SegmentKeeper), JournalError> {
    assert!(epoch >= end.last_epoch && epoch > Epoch(0), "epoch {epoch} is not new");
    let options = options.checked();
    let spares =
        Arc::new(Spares::new(Arc::clone(&end.disk), end.dir.clone(), options.segment_bytes));
    let appender = open_appender(end, &spares, epoch)?;
    let shared = Arc::new(Shared {
        queue: Mutex::new(Queue::after(appender.last, epoch)),
        arrived: Signal::default(),
        room: Signal::default(),
        durable: AtomicU64::new(appender.last.0),
        options,
    });
    let writer = JournalWriter { shared: Arc::clone(&shared), list: Arc::clone(&appender.list) };
    let commit_loop = CommitLoop { shared, appender, clock, on_batch };
    Ok((writer, commit_loop, SegmentKeeper(spares)))
}

fn open_appender(
    end: JournalEnd,
    spares: &Arc<Spares>,
    epoch: Epoch,
) -> Result<Appender, JournalError> {
    let JournalEnd { disk, dir, segments, segment, position, last_index, .. } = end;
    let Some(segment) = segment else {
        return Appender::begin(disk, dir, Arc::clone(spares), epoch);
    };
    let list = Arc::new(SegmentList::new(Arc::clone(&disk), dir.clone(), segments));
    let mut appender = Appender {
        disk,
        dir,
        spares: Arc::clone(spares),
        list,
        segment,
        position,
        last: last_index,
        epoch,
        buffer: Vec::new(),
    };
    appender.mark()?;
    Ok(appender)
}

/// Where records are appended; shared by all who do. Dropping it closes the journal.
pub struct JournalWriter {
    shared: Arc<Shared>,
    list: Arc<SegmentList>,
}

impl std::fmt::Debug for JournalWriter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("JournalWriter")
            .field("durable", &self.durable_index())
            .finish_non_exhaustive()
    }
}

impl JournalWriter {
    /// Hands over records that follow the last ones handed over. `done` is called when all of them
    /// are durable, or will never be. Waits while too much is waiting already.
    ///
    /// Without records `done` is called at once.
    ///
    /// # Errors
    /// If the records do not follow or are too large, the journal has failed or was closed. Nothing
    /// was appended then, and `done` is not called.
    pub fn append(&self, records: Vec<Record>, done: AppendDone) -> Result<(), JournalError> {
        if records.is_empty() {
            done(Ok(()));
            return Ok(());
        }
        let shared = &self.shared;
        let mut queue = shared.queue.lock();
        queue.check_open()?;
        queue.check_records(&records, shared.options.batch_bytes_max)?;
        let bytes: usize = records.iter().map(Record::extent_bytes).sum();
        while !queue.waiting.is_empty() && queue.bytes + bytes > shared.options.queue_bytes_max {
            shared.room.block_once(&mut queue);
            queue.check_open()?;
            // Another one may have appended meanwhile.
            queue.check_records(&records, shared.options.batch_bytes_max)?;
        }
        queue.push(records, bytes, done);
        drop(queue);
        shared.arrived.notify_one();
        Ok(())
    }

    /// Waits until the queue has room for a batch, so that [`append`](Self::append) of the next one need not wait,
    /// unless another one appends too. Returns at once if the journal is closed.
    pub async fn room(&self) {
        let shared = &self.shared;
        let bytes_max = shared.options.queue_bytes_max - shared.options.batch_bytes_max;
        let has_room = |queue: &mut Queue| {
            (queue.waiting.is_empty() || queue.bytes <= bytes_max || queue.closed).then_some(())
        };
        shared.room.wait(&shared.queue, has_room).await;
    }

    /// The last record that is durable.
    pub fn durable_index(&self) -> JournalIndex {
        JournalIndex(self.shared.durable.load(Ordering::Acquire))
    }

    /// Removes the segments that hold only records before `index`; returns how many. Blocks on the
    /// disk.
    ///
    /// # Errors
    /// If the medium fails: the process should stop, as it does when a write fails.
    pub fn remove_before(&self, index: JournalIndex) -> Result<usize, JournalError> {
        self.list.remove_before(index)
    }

    /// How many segments there are.
    pub fn segment_count(&self) -> usize {
        self.list.count()
    }

    /// Takes no more records; those handed over are still written. The [`CommitLoop`] then ends.
    pub fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.arrived.notify_one();
        self.shared.room.notify_all();
    }
}

impl Drop for JournalWriter {
    fn drop(&mut self) {
        self.close();
    }
}

struct Shared {
    queue: Mutex<Queue>,
    /// Something is waiting, or the journal was closed.
    arrived: Signal,
    /// Something was taken, or nothing will be any more.
    room: Signal,
    durable: AtomicU64,
    options: JournalOptions,
}

struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    next_index: JournalIndex,
    epoch: Epoch,
    closed: bool,
    failed: Option<Arc<JournalError>>,
}

struct Waiting {
    record: Record,
    /// With the last record of those handed over together.
    done: Option<AppendDone>,
}

impl Queue {
    fn after(last: JournalIndex, epoch: Epoch) -> Self {
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
            next_index: last.next(),
            epoch,
            closed: false,
            failed: None,
        }
    }

    fn check_open(&self) -> Result<(), JournalError> {
        match &self.failed {
            Some(source) => Err(JournalError::Failed { source: Arc::clone(source) }),
            None if self.closed => Err(JournalError::Closed),
            None => Ok(()),
        }
    }

    fn check_records(&self, records: &[Record], bytes_max: usize) -> Result<(), JournalError> {
        let (mut expected, mut epoch) = (self.next_index, self.epoch);
        for record in records {
            let (index, bytes) = (record.index, record.extent_bytes());
            if index != expected || record.epoch < epoch {
                return Err(JournalError::OutOfOrder { expected, found: index });
            }
            if bytes > bytes_max {
                return Err(JournalError::TooLarge { index, bytes, bytes_max });
            }
            (expected, epoch) = (index.next(), record.epoch);
        }
        Ok(())
    }

    fn push(&mut self, records: Vec<Record>, bytes: usize, done: AppendDone) {
        self.bytes += bytes;
        self.waiting.extend(records.into_iter().map(|record| Waiting { record, done: None }));
        if let Some(newest) = self.waiting.back_mut() {
            self.next_index = newest.record.index.next();
            self.epoch = newest.record.epoch;
            newest.done = Some(done);
        }
    }

    /// Moves what waits to `batch`, as much as fits.
    fn take(&mut self, batch: &mut Batch, bytes_max: usize) {
        let mut bytes = 0;
        while let Some(next) = self.waiting.front() {
            bytes += next.record.extent_bytes();
            if bytes > bytes_max || batch.records.len() == BATCH_RECORDS_MAX {
                break;
            }
            self.bytes -= next.record.extent_bytes();
            if let Some(Waiting { record, done }) = self.waiting.pop_front() {
                batch.records.push(record);
                batch.done.extend(done);
            }
        }
    }
}

#[derive(Default)]
struct Batch {
    records: Vec<Record>,
    done: Vec<AppendDone>,
}

/// What the thread does next.
enum Work {
    Write,
    Mark,
    End,
}

/// Writes what is appended. [`run`](Self::run) it on a thread of its own.
pub struct CommitLoop {
    shared: Arc<Shared>,
    pub(super) appender: Appender,
    clock: Arc<dyn Clock>,
    on_batch: OnBatch,
}

impl std::fmt::Debug for CommitLoop {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("CommitLoop").finish_non_exhaustive()
    }
}

impl CommitLoop {
    /// Works until the journal is closed and everything is written, or fails.
    ///
    /// # Errors
    /// If the medium fails: everything waiting and everything after is refused, and the process
    /// should stop.
    pub fn run(self) -> Result<(), JournalError> {
        inline::block_on(self.work())
    }

    /// The same, as a loop for [`BackgroundTasks::spawn_critical_loop`].
    ///
    /// [`BackgroundTasks::spawn_critical_loop`]: doldam_runtime::tasks::BackgroundTasks::spawn_critical_loop
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn work(mut self) -> Result<(), JournalError> {
        let mut batch = Batch::default();
        loop {
            let result = match self.wait(&mut batch).await {
                Work::Write => self.write(&mut batch).await,
                Work::End if self.appender.is_marked() => return Ok(()),
                Work::End | Work::Mark => self.appender.mark(),
            };
            if let Err(error) = result {
                return Err(self.fail(error, batch.done));
            }
        }
    }

    async fn wait(&mut self, batch: &mut Batch) -> Work {
        let is_marked = self.appender.is_marked();
        let shared = &self.shared;
        let take = |queue: &mut Queue| {
            if queue.waiting.is_empty() {
                return queue.closed.then_some(Work::End);
            }
            queue.take(batch, shared.options.batch_bytes_max);
            Some(Work::Write)
        };
        let work = if is_marked {
            shared.arrived.wait(&shared.queue, take).await
        } else {
            let taken = shared.arrived.wait_for(&shared.queue, shared.options.mark_after, take);
            taken.await.unwrap_or(Work::Mark)
        };
        if matches!(work, Work::Write) {
            shared.room.notify_all();
        }
        work
    }

    async fn write(&mut self, batch: &mut Batch) -> Result<(), JournalError> {
        inline::pause().await;
        let before = self.clock.now();
        let bytes = self.appender.append(&batch.records)?;
        inline::pause().await;
        let took = self.clock.now().saturating_sub(before);
        self.shared.durable.store(self.appender.last.0, Ordering::Release);
        (self.on_batch)(WrittenBatch { records: batch.records.len(), bytes, took });
        batch.records.clear();
        batch.done.drain(..).for_each(|done| done(Ok(())));
        Ok(())
    }

    /// Refuses the batch that failed, what waits, and what comes.
    fn fail(&self, error: JournalError, batch: Vec<AppendDone>) -> JournalError {
        let source = Arc::new(error);
        let waiting = self.shared.refuse(Some(Arc::clone(&source)));
        for done in batch.into_iter().chain(waiting) {
            done(Err(JournalError::Failed { source: Arc::clone(&source) }));
        }
        JournalError::Failed { source }
    }
}

impl Shared {
    /// Takes nothing any more, and returns the callbacks of what waits.
    fn refuse(&self, failed: Option<Arc<JournalError>>) -> Vec<AppendDone> {
        let mut queue = self.queue.lock();
        queue.closed = true;
        if queue.failed.is_none() {
            queue.failed = failed;
        }
        queue.bytes = 0;
        let waiting = std::mem::take(&mut queue.waiting);
        self.room.notify_all();
        waiting.into_iter().filter_map(|waiting| waiting.done).collect()
    }
}

impl Drop for CommitLoop {
    /// Leaves nobody waiting, however the loop ended.
    fn drop(&mut self) {
        for done in self.shared.refuse(None) {
            done(Err(JournalError::Closed));
        }
        self.appender.spares.close();
    }
}
