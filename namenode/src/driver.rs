//! Request or event to engine, journal, store and answer: the one write path of the namenode.
//!
//! ```text
//!  propose ──► queue ──► driver thread: apply, commit to the store ──► journal thread: write, sync ──► answer
//!  read ─────► store, inline; the answer waits until all it may have seen is durable
//! ```
//!
//! One thread owns writes. While the journal syncs one batch it decides the next, so the state runs a little ahead
//! of the disk; nothing leaves the process before what it rests on is durable: not an outcome, not a refusal, not a
//! read, not an order. If the journal or the store fails, the process stops: nothing is answered from a state that
//! may be lost, and a restart replays what was acknowledged.

mod checkpoint;
pub mod identity;
mod open;
mod progress;
mod queue;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use doldam_proto::FsError;
use doldam_proto::id::{BlockId, ClusterId, Epoch, Generation, JournalIndex, NodeId};
use doldam_proto::wire::command::Change;
use doldam_proto::wire::{Command, Outcome, RequestId};
use doldam_runtime::Seams;
use doldam_runtime::tasks::BackgroundTasks;
use parking_lot::{Mutex, RwLock};
use prost::Message;
use tokio::sync::{Notify, oneshot};
use tracing::error;

pub use self::open::{DriverOptions, StartError};
use self::progress::Progress;
use self::queue::{Proposal, ProposalQueue, Refused};
use crate::engine::namespace::NamespaceError;
use crate::engine::tables::Tables;
use crate::journal::JournalWriter;
use crate::metrics::Metrics;
use crate::store::Store;

/// The way to the state. Cheap to clone; clones are the same driver.
#[derive(Debug, Clone)]
pub struct Driver {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: ClusterId,
    epoch: Epoch,
    seams: Seams,
    store: RwLock<Store>,
    journal: JournalWriter,
    queue: ProposalQueue,
    progress: Progress,
    news: Mutex<News>,
    has_news: Notify,
    failed: AtomicBool,
    tasks: BackgroundTasks,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Driver").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// What applied commands mean for repair; all of it is durable.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Blocks that came into debt or out of it.
    pub touched: Vec<BlockId>,
    /// Replicas that are nobody's any more.
    pub unowned: Vec<(NodeId, BlockId, Generation)>,
    /// More happened than is kept here; the durable debts and the inventories tell of it.
    pub overflowed: bool,
}

/// Most news kept until somebody takes them.
const NEWS_MAX: usize = 100_000;
/// Most bytes of one command: a request's own limits keep it far below.
const COMMAND_BYTES_MAX: usize = 2 << 20;

impl Driver {
    /// Opens the folder (or formats it), replays the journal, and starts to take proposals.
    ///
    /// # Errors
    /// If the folder is another's or damaged, or the medium fails.
    pub async fn start(
        options: DriverOptions,
        seams: Seams,
        tasks: &BackgroundTasks,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        open::start(options, seams, tasks, metrics).await
    }

    /// Applies `change` and answers once that is durable. With a request id it is applied at most once, however
    /// often it is proposed. Cancel-safe in that a dropped proposal may still be applied.
    ///
    /// # Errors
    /// The refusal; `Unavailable` if too much is waiting or the namenode is stopping, and then the change may yet
    /// have been applied if it was accepted before.
    pub async fn propose(
        &self,
        request: Option<RequestId>,
        change: Change,
    ) -> Result<Outcome, FsError> {
        let time_ms = self.shared.seams.clock.wall_ms();
        let command = Command { time_ms, request, change: Some(change) };
        let payload = command.encode_to_vec();
        if payload.len() > COMMAND_BYTES_MAX {
            let why = format!("{} bytes are more than {COMMAND_BYTES_MAX}", payload.len());
            return Err(FsError::InvalidArgument { field: "request".to_owned(), why });
        }
        let (answer, answered) = oneshot::channel();
        let proposal = Proposal { command, payload: payload.into(), answer };
        self.shared.queue.push(proposal).map_err(|refused| match refused {
            Refused::Full => unavailable("too many changes are waiting"),
            Refused::Closed => stopping(),
        })?;
        answered.await.unwrap_or_else(|_closed| Err(stopping()))
    }

    /// Reads the state. The answer is given when all changes it may rest on are durable, so nobody ever sees what
    /// could still be lost. `read` runs inline under a lock and must be short.
    ///
    /// # Errors
    /// The refusal of `read`; `Unavailable` if the namenode is stopping.
    pub async fn read<T>(
        &self,
        read: impl FnOnce(&dyn Tables) -> Result<T, NamespaceError>,
    ) -> Result<T, FsError> {
        let (result, index) = self.peek(read);
        self.durable(index).await?;
        result
    }

    /// Reads the state at once, with the last command it rests on: nothing may be told to anybody before that is
    /// [`durable`](Self::durable).
    pub fn peek<T>(
        &self,
        read: impl FnOnce(&dyn Tables) -> Result<T, NamespaceError>,
    ) -> (Result<T, FsError>, JournalIndex) {
        let store = self.shared.store.read();
        let result = read(&*store);
        let index = store.applied_index();
        drop(store);
        let result = result.map_err(|error| match error {
            NamespaceError::Refused(refusal) => refusal,
            NamespaceError::Store(cause) => {
                self.shared.fail(&cause);
                FsError::Internal { what: "the metadata store failed; see the log".to_owned() }
            }
        });
        (result, index)
    }

    /// Waits until the command `index` is durable.
    ///
    /// # Errors
    /// `Unavailable` if it never will be by this process.
    pub async fn durable(&self, index: JournalIndex) -> Result<(), FsError> {
        match self.shared.progress.reached(index) {
            None => Ok(()),
            Some(reached) => reached.await.map_err(|_closed| stopping()),
        }
    }

    /// Whether the command `index` is durable.
    pub fn is_durable(&self, index: JournalIndex) -> bool {
        self.shared.progress.durable() >= index
    }

    /// The cluster this namenode leads.
    pub fn cluster_id(&self) -> ClusterId {
        self.shared.cluster
    }

    /// Counts the starts of this namenode, from 1.
    pub fn epoch(&self) -> Epoch {
        self.shared.epoch
    }

    /// Whether journal or store failed: the process is about to stop.
    pub fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire)
    }

    /// Proposals that wait for the driver.
    pub fn waiting(&self) -> usize {
        self.shared.queue.len()
    }

    /// Takes the news that piled up.
    pub fn take_news(&self) -> News {
        std::mem::take(&mut *self.shared.news.lock())
    }

    /// Waits until there may be news. Cancel-safe.
    pub async fn has_news(&self) {
        self.shared.has_news.notified().await;
    }
}

impl Shared {
    /// The end: nothing is answered any more, and the process stops.
    fn fail(&self, cause: &dyn std::error::Error) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            let mut whole = cause.to_string();
            let mut source = cause.source();
            while let Some(cause) = source {
                whole = format!("{whole}: {cause}");
                source = cause.source();
            }
            error!(cause = whole, "the namenode cannot go on and stops");
        }
        self.queue.abandon();
        self.progress.fail();
        self.journal.close();
        self.tasks.stop();
    }

    fn add_news(&self, news: &mut News) {
        if *news == News::default() {
            return;
        }
        let mut all = self.news.lock();
        if all.touched.len() + all.unowned.len() < NEWS_MAX {
            all.touched.append(&mut news.touched);
            all.unowned.append(&mut news.unowned);
        } else {
            all.overflowed = true;
        }
        drop(all);
        self.has_news.notify_one();
    }
}

fn unavailable(why: &str) -> FsError {
    FsError::Unavailable { why: why.to_owned() }
}

fn stopping() -> FsError {
    unavailable("the namenode is stopping")
}
