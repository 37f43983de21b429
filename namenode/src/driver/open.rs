//! From a folder to a running driver: lock, identity, checkpoint, replay, threads.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use doldam_proto::FsError;
use doldam_proto::id::{ClusterId, Epoch, JournalIndex};
use doldam_proto::wire::command::Change;
use doldam_proto::wire::{Command, FormatCommand};
use doldam_runtime::Seams;
use doldam_runtime::disk::{DirLock, create_dir_durably};
use doldam_runtime::tasks::{BackgroundTasks, inline, with_causes};
use parking_lot::{Mutex, RwLock};
use prost::Message;
use tokio::sync::{Notify, oneshot};
use tracing::{info, warn};

use super::checkpoint::{checkpoints, policy};
use super::identity::{self, IdentityError};
use super::progress::Progress;
use super::queue::ProposalQueue;
use super::{Driver, News, Shared, writer};
use crate::engine::namespace::{apply, view};
use crate::engine::tables::StoreError;
use crate::journal::{self, JournalEnd, JournalError, JournalOptions, Replay};
use crate::metrics::Metrics;
use crate::store::{Store, StoreOptions};

/// Folder of the journal's segments.
const JOURNAL_DIR: &str = "journal";
/// Folder of the metadata store.
const STORE_DIR: &str = "store";
/// File by which a folder is locked.
const LOCK_FILE: &str = "LOCK";

/// Settings of the driver.
#[derive(Debug, Clone)]
pub struct DriverOptions {
    /// The namenode's folder.
    pub dir: PathBuf,
    /// Memory of the overlay at which it is written to the store.
    pub overlay_bytes: usize,
    /// Memory for pages of the store.
    pub cache_bytes: usize,
    /// Longest time between two checkpoints.
    pub checkpoint_interval: Duration,
    /// Proposals that may wait.
    pub proposals_max: usize,
    /// Settings of the journal.
    pub journal: JournalOptions,
}

impl DriverOptions {
    /// The defaults, for the folder `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            overlay_bytes: crate::store::OVERLAY_BYTES_DEFAULT,
            cache_bytes: crate::store::CACHE_BYTES_DEFAULT,
            checkpoint_interval: crate::store::CHECKPOINT_INTERVAL_DEFAULT,
            proposals_max: 8192,
            journal: JournalOptions::default(),
        }
    }
}

/// Why the driver does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has the folder.
    #[error("{dir} is in use by another namenode", dir = dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// The medium failed.
    #[error("{what} {path} failed", path = path.display())]
    Io {
        /// Which operation.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The folder cannot be used.
    #[error("{dir} cannot be used as a namenode's folder", dir = dir.display())]
    Identity {
        /// The folder.
        dir: PathBuf,
        /// Why.
        source: IdentityError,
    },
    /// Journal and `VERSION` are of different clusters.
    #[error("the folder is of cluster {folder}, its state of cluster {state}")]
    MixedUp {
        /// What `VERSION` says.
        folder: ClusterId,
        /// What the state says.
        state: ClusterId,
    },
    /// The store failed or is damaged.
    #[error("the metadata store cannot be used")]
    Store(#[from] StoreError),
    /// The journal failed or is damaged.
    #[error("the journal cannot be used")]
    Journal(#[from] JournalError),
    /// A record that was acknowledged does not fit the state.
    #[error("record {index} of the journal does not apply: {what}")]
    Replay {
        /// Which.
        index: JournalIndex,
        /// Why.
        what: String,
    },
    /// The first command was refused.
    #[error("the new namenode could not be formatted")]
    Format(#[source] FsError),
    /// A thread of the driver panicked.
    #[error("a thread of the namenode panicked")]
    Panicked,
}

impl StartError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// What was found in the folder.
struct Opened {
    lock: DirLock,
    cluster: ClusterId,
    store: Store,
    end: JournalEnd,
}

pub(super) async fn start(
    options: DriverOptions,
    seams: Seams,
    tasks: &BackgroundTasks,
    metrics: Arc<Metrics>,
) -> Result<Driver, StartError> {
    let opened = open_in_thread(options.clone(), seams.clone(), tasks).await?;
    let driver = start_threads(opened, &options, seams, tasks, metrics)?;
    let format = |tables: &dyn crate::engine::tables::Tables| Ok(view::cluster_id(tables)?);
    let cluster = driver.read(format).await.map_err(StartError::Format)?;
    let folder = driver.cluster_id();
    match cluster {
        Some(state) if state == folder => {}
        Some(state) => return Err(StartError::MixedUp { folder, state }),
        None => {
            let change = Change::Format(FormatCommand { cluster_id: folder.to_bytes() });
            driver.propose(None, change).await.map_err(StartError::Format)?;
            info!(cluster = %folder, "formatted a new namenode");
        }
    }
    Ok(driver)
}

/// Reading checkpoint and journal takes time and blocks: it has a thread of its own.
async fn open_in_thread(
    options: DriverOptions,
    seams: Seams,
    tasks: &BackgroundTasks,
) -> Result<Opened, StartError> {
    let dir = options.dir.clone();
    let (done, opened) = oneshot::channel();
    let work = move || _ = done.send(open(&options, &seams));
    tasks.spawn_thread("start", work).map_err(StartError::io("starting a thread for", &dir))?;
    opened.await.unwrap_or(Err(StartError::Panicked))
}

fn open(options: &DriverOptions, seams: &Seams) -> Result<Opened, StartError> {
    let (dir, disk) = (&options.dir, &seams.disk);
    create_dir_durably(disk.as_ref(), dir).map_err(StartError::io("creating", dir))?;
    let lock = disk.lock_dir(dir).map_err(|cause| match cause.kind() {
        io::ErrorKind::WouldBlock => StartError::InUse { dir: dir.clone() },
        _ => StartError::io("locking", dir)(cause),
    })?;
    let new_id = || ClusterId(seams.random.next_id());
    let cluster = identity::open(disk.as_ref(), dir, &[LOCK_FILE], new_id)
        .map_err(|source| StartError::Identity { dir: dir.clone(), source })?;
    let [journal_dir, store_dir] = [JOURNAL_DIR, STORE_DIR].map(|name| dir.join(name));
    for folder in [&journal_dir, &store_dir] {
        create_dir_durably(disk.as_ref(), folder).map_err(StartError::io("creating", folder))?;
    }
    let store_options = StoreOptions { cache_bytes: options.cache_bytes, ..Default::default() };
    let mut store = Store::open(disk, &store_dir, store_options)?;
    let end = replay(&mut store, options, seams, &journal_dir)?;
    Ok(Opened { lock, cluster, store, end })
}

/// Applies what the journal has and the checkpoint has not.
fn replay(
    store: &mut Store,
    options: &DriverOptions,
    seams: &Seams,
    journal_dir: &Path,
) -> Result<JournalEnd, StartError> {
    let started = seams.clock.now();
    let checkpoint = store.applied_index();
    let mut replay = Replay::open(Arc::clone(&seams.disk), journal_dir, checkpoint.next())?;
    while let Some(record) = replay.next_record()? {
        let index = record.index;
        let refuse = |what: String| StartError::Replay { index, what };
        let command = Command::decode(record.payload)
            .map_err(|cause| refuse(format!("it does not decode: {cause}")))?;
        let applied = apply(&*store, &command)?;
        applied.outcome.map_err(|refusal| refuse(refusal.to_string()))?;
        store.commit(applied.changes, index);
        if store.load().active_bytes >= options.overlay_bytes {
            store.checkpoint(index)?;
        }
    }
    let end = replay.finish()?;
    if let Some(cut) = end.cut_tail() {
        let (path, offset, bytes) = (cut.path.display(), cut.offset, cut.bytes);
        warn!(%path, offset, bytes, "cut off records that were never acknowledged");
    }
    let took = seams.clock.now().saturating_sub(started);
    info!(%checkpoint, last = %end.last_index(), ?took, "replayed the journal");
    Ok(end)
}

fn start_threads(
    opened: Opened,
    options: &DriverOptions,
    seams: Seams,
    tasks: &BackgroundTasks,
    metrics: Arc<Metrics>,
) -> Result<Driver, StartError> {
    let Opened { lock, cluster, store, end } = opened;
    let epoch = Epoch(end.last_epoch().0 + 1);
    let (applied, journal_metrics) = (store.applied_index(), Arc::clone(&metrics));
    let on_batch = Box::new(move |batch| journal_metrics.journal_batch(batch));
    let clock = Arc::clone(&seams.clock);
    let (journal, commit_loop, keeper) =
        journal::start(end, epoch, options.journal, clock, on_batch)?;
    let policy = policy(options.overlay_bytes, options.checkpoint_interval);
    let (checkpoints, flusher) = checkpoints(policy, seams.clock.now());
    let shared = Arc::new(Shared {
        cluster,
        epoch,
        store: RwLock::new(store),
        journal,
        queue: ProposalQueue::new(options.proposals_max),
        progress: Progress::new(applied),
        news: Mutex::new(News::default()),
        has_news: Notify::new(),
        failed: AtomicBool::new(false),
        tasks: tasks.clone(),
        metrics,
        seams,
    });
    let failed = StartError::io("starting a thread for", &options.dir);
    let on_journal = Arc::downgrade(&shared);
    let threads = || -> io::Result<()> {
        tasks.spawn_critical_loop("journal", async move { told(commit_loop.work().await) })?;
        if !inline::is_entered() {
            // Without it segments are prepared when they are needed.
            tasks.spawn_critical_thread("journal segments", move || told(keeper.run()))?;
        }
        let flushing = Arc::clone(&shared);
        tasks.spawn_critical_loop(
            "checkpoints",
            async move { told(flusher.run(&flushing).await) },
        )?;
        let writing = Arc::clone(&shared);
        tasks.spawn_critical_loop("driver", async move {
            let _lock = lock; // Held until the last checkpoint is written.
            told(writer::run(&writing, checkpoints).await)
        })
    };
    threads().map_err(failed)?;
    let stopping = tasks.stopping();
    tasks.spawn("driver stop", async move {
        stopping.cancelled().await;
        if let Some(shared) = on_journal.upgrade() {
            shared.queue.close();
        }
    });
    Ok(Driver { shared })
}

/// As the last line of the log is to say it: a full disk, say, is some causes below the journal's failure.
fn told<E: Error + 'static>(ended: Result<(), E>) -> Result<(), String> {
    ended.map_err(|error| with_causes(&error))
}
