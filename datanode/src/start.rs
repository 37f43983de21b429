//! Puts the parts of a datanode together; decides nothing.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use doldam_proto::id::{ClusterId, NodeId, NodeUuid};
use doldam_runtime::Seams;
use doldam_runtime::http;
use doldam_runtime::net::Listener;
use doldam_runtime::planted::{Bug, is_planted};
use doldam_runtime::tasks::{BackgroundTasks, DataRuntimes, run_blocking};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use crate::blocks::startup::{
    Duplicate, Scan, judge_duplicate, open_folders, remove_duplicate, require_one, scan,
};
use crate::blocks::store::BlockStore;
use crate::blocks::version_file::FolderIdentity;
use crate::blocks::volume::{FolderError, Volume};
use crate::config::{BadSetting, DatanodeConfig};
use crate::driver::Driver;
use crate::engine::inventory::Inventory;
use crate::engine::replica::{Replica, ReplicaKey, ReplicaState};
use crate::folder_watch::watch_folders;
use crate::late_syncer::sync_late;
use crate::metrics::Metrics;
use crate::namenode_link::{LinkError, keep_link};
use crate::news::News;
use crate::node::{Membership, Node, Repairs};
use crate::pages::pages;
use crate::scrubber::scrub_folders;
use crate::stream::buffers::BufferPool;
use crate::stream::failure::chain;
use crate::stream::listener::listen;

/// Blocking threads of each data runtime: syncs that may run at the same time.
const BLOCKING_THREADS: usize = 16;

/// Why a datanode does not start.
#[derive(Debug, thiserror::Error)]
pub enum DatanodeError {
    /// A setting makes no sense.
    #[error(transparent)]
    Setting(#[from] BadSetting),
    /// A data folder cannot be used.
    #[error("cannot use the data folder {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: FolderError,
    },
    /// Nobody can be listened to at an address.
    #[error("cannot listen at {address}")]
    Listen {
        /// Which.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// The system gives no threads.
    #[error("cannot start the threads of the datanode")]
    Threads {
        /// What the system says.
        source: io::Error,
    },
}

/// A running datanode. Dropping this stops nothing; its tasks do.
#[derive(Clone)]
pub struct DatanodeHandle {
    node: Arc<Node>,
    local_addr: String,
    http_addr: Option<String>,
    failure: Arc<OnceLock<String>>,
}

impl DatanodeHandle {
    /// Where the block stream server listens, `HOST:PORT`.
    pub fn local_addr(&self) -> &str {
        &self.local_addr
    }

    /// Address under which others are told to reach it, `HOST:PORT`.
    pub fn advertised_addr(&self) -> &str {
        &self.node.membership.address
    }

    /// Where the pages for people and monitors are, if there are any.
    pub fn http_addr(&self) -> Option<&str> {
        self.http_addr.as_deref()
    }

    /// The node as it knows itself.
    pub fn uuid(&self) -> NodeUuid {
        self.node.membership.uuid
    }

    /// Its cluster, if it ever joined one.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.node.membership.cluster()
    }

    /// Waits until it has registered with a namenode for the first time since its start.
    /// Cancel-safe.
    pub async fn registered(&self) -> NodeId {
        self.node.membership.registered().await
    }

    /// Why it stopped by itself, if it did.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }
}

impl std::fmt::Debug for DatanodeHandle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("DatanodeHandle")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

/// Starts a datanode. When this returns, it listens and its replicas are known; it registers in the
/// background, and again whenever it has to. It stops with `tasks`, and stops them if it cannot go
/// on ([`DatanodeHandle::failure`]).
///
/// # Errors
/// If a setting makes no sense, a data folder cannot be used, or an address cannot be listened at.
pub async fn run(
    config: DatanodeConfig,
    seams: Seams,
    tasks: &BackgroundTasks,
) -> Result<DatanodeHandle, DatanodeError> {
    config.check()?;
    // The port first: a second process for the same node then fails before it touches the folders.
    let (listener, local_addr) = bind(&seams, &config.listen).await?;
    let http = match &config.http {
        Some(address) => Some(bind(&seams, address).await?),
        None => None,
    };
    let (store, identity) = open_store(&config, &seams).await?;
    let (metrics, registry) = Metrics::new();
    let address = config.advertise.clone().unwrap_or_else(|| reachable(&local_addr));
    let membership = Membership::new(identity.node, address);
    if let Some(cluster) = identity.cluster {
        membership.join(cluster, &seams, config.forwarding_deadlines());
    }
    let threads = match config.data_threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let runtimes = DataRuntimes::start(tasks, "data", threads, BLOCKING_THREADS)
        .map_err(|source| DatanodeError::Threads { source })?;
    let node = Arc::new(Node {
        streams: Arc::new(Semaphore::new(config.streams_max)),
        config,
        seams,
        store,
        metrics,
        buffers: BufferPool::default(),
        repairs: Repairs::default(),
        membership,
        stopping: tasks.stopping(),
    });
    let failure = Arc::new(OnceLock::new());
    let handle = DatanodeHandle {
        node: Arc::clone(&node),
        local_addr,
        http_addr: http.as_ref().map(|(_, address)| address.clone()),
        failure: Arc::clone(&failure),
    };
    if let Some((listener, _)) = http {
        http::serve(listener, pages(&node, registry), tasks);
    }
    start_tasks(&node, listener, Arc::new(runtimes), tasks, failure);
    Ok(handle)
}

fn start_tasks(
    node: &Arc<Node>,
    listener: Box<dyn Listener>,
    runtimes: Arc<DataRuntimes>,
    tasks: &BackgroundTasks,
    failure: Arc<OnceLock<String>>,
) {
    let (driver, heard) = Driver::new(Arc::clone(node), Arc::clone(&runtimes), tasks.clone());
    let link = keep_link(Arc::clone(node), heard);
    tasks.spawn_critical("block stream listener", listen(Arc::clone(node), listener, runtimes));
    tasks.spawn_critical("order driver", driver.run());
    tasks.spawn_critical("namenode link", async move {
        let ended: Result<(), LinkError> = link.await;
        ended.map_err(|cause| failure.get_or_init(|| chain(&cause)).clone())
    });
    tasks.spawn_critical("late syncer", sync_late(Arc::clone(node)));
    tasks.spawn_critical("folder watch", watch_folders(Arc::clone(node)));
    tasks.spawn_critical("scrubber", scrub_folders(Arc::clone(node)));
}

async fn bind(seams: &Seams, address: &str) -> Result<(Box<dyn Listener>, String), DatanodeError> {
    let failed = |source| DatanodeError::Listen { address: address.to_owned(), source };
    let listener = seams.net.bind(address).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    Ok((listener, local))
}

/// `local` as others can reach it: the name of this machine in place of an address that stands for
/// all.
fn reachable(local: &str) -> String {
    match local.parse::<std::net::SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => {
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            format!("{name}:{}", address.port())
        }
        _ => local.to_owned(),
    }
}

async fn open_store(
    config: &DatanodeConfig,
    seams: &Seams,
) -> Result<(Arc<BlockStore>, FolderIdentity), DatanodeError> {
    let failed = |(path, source)| DatanodeError::Folder { path, source };
    let (dirs, reserve, opening) = (config.dirs.clone(), config.reserve_bytes.0, seams.clone());
    let opened = in_thread(move || open_folders(&opening, &dirs, reserve)).await?;
    let (volumes, identity) = opened.map_err(failed)?;

    let started = seams.clock.now();
    // All folders at once: they are on different disks, if the advice was followed.
    let scan_one = |volume: &Arc<Volume>| {
        let volume = Arc::clone(volume);
        let usable = !volume.has_failed();
        run_blocking(move || if usable { scan(&volume) } else { Ok(Scan::default()) })
    };
    let scans: Vec<_> = volumes.iter().map(scan_one).collect();
    let mut found = Vec::new();
    for (volume, scan) in volumes.iter().zip(scans) {
        let scanned = scan
            .await
            .map_err(|panicked| DatanodeError::Threads { source: io::Error::other(panicked) })?;
        match scanned.map_err(FolderError::io("listing its replicas")) {
            Ok(scan) => found.push(scan),
            Err(cause) if cause.is_broken_disk() => {
                volume.give_up(&cause);
                found.push(Scan::default());
            }
            Err(cause) => return Err(failed((volume.layout().root().to_owned(), cause))),
        }
    }
    require_one(&volumes).map_err(failed)?;
    let store = in_thread(move || take_in(volumes, found)).await?;
    let took = seams.clock.now().saturating_sub(started);
    let replicas = store.state().inventory.len();
    info!(node = %identity.node, replicas, ?took, "data folders read");
    Ok((store, identity))
}

async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, DatanodeError> {
    let panicked = |cause| DatanodeError::Threads { source: io::Error::other(cause) };
    run_blocking(work).await.map_err(panicked)
}

/// Makes one store of what was found in all folders.
pub(crate) fn take_in(volumes: Vec<Arc<Volume>>, found: Vec<Scan>) -> Arc<BlockStore> {
    let mut inventory = Inventory::new();
    let (mut duplicates, mut damage, mut unsynced) = (Vec::new(), Vec::new(), Vec::new());
    let mut open = Vec::new();
    for (scan, volume) in found.into_iter().zip(&volumes) {
        open.extend(scan.open.into_iter().map(|found| (Arc::clone(volume), found)));
        for (key, replica) in scan.replicas {
            if inventory.get(key).is_some() {
                duplicates.push((key, replica));
                continue;
            }
            if replica.state == ReplicaState::Unsynced {
                if is_planted(Bug::DeleteOnHint) {
                    remove_duplicate(&volumes[usize::from(replica.volume.0)], key, &replica);
                    continue;
                }
                unsynced.push(key);
            }
            inventory.insert(key, replica);
        }
        damage.extend(scan.damage);
        if scan.removed > 0 {
            info!(blocks = scan.removed, "removed what a crash left of unfinished blocks");
        }
    }
    let store = Arc::new(BlockStore::new(volumes, inventory, Arc::new(News::default())));
    let left: Vec<ReplicaKey> = open.iter().map(|(_, found)| found.key).collect();
    for (volume, found) in open {
        store.take_in_open(&volume, found);
    }
    for (key, replica) in duplicates {
        settle_duplicate(&store, key, replica);
    }
    for key in left {
        store.remove_left_beside(key);
    }
    for key in unsynced {
        store.late_syncs().push(key, true);
    }
    for (key, what) in damage {
        store.report_bad(key, &what);
    }
    store
}

fn settle_duplicate(store: &Arc<BlockStore>, key: ReplicaKey, second: Replica) {
    let folder = |replica: &Replica| store.volume(replica.volume).layout().root().to_owned();
    let held = |store: &BlockStore| store.state().inventory.get(key);
    let Some(first) = held(store) else { return };
    let mut judged = judge_duplicate(&first, &second, || store.verify(key, None).is_ok());
    // If the first was verified and found bad, it is in quarantine now, and the second may stand in
    // for it.
    let first = held(store).unwrap_or(first);
    if judged == Duplicate::LeaveSecond && !first.is_good() {
        judged = judge_duplicate(&first, &second, || false);
    }
    let (kept, other) = (folder(&first), folder(&second));
    let (kept, other) = (kept.display(), other.display());
    warn!(%key, first = %kept, second = %other, ?judged, "replica in two folders");
    match judged {
        Duplicate::RemoveSecond => remove_duplicate(store.volume(second.volume), key, &second),
        Duplicate::RemoveFirst => {
            remove_duplicate(store.volume(first.volume), key, &first);
            store.state().inventory.insert(key, second);
        }
        Duplicate::LeaveSecond => {}
    }
}

#[cfg(test)]
#[path = "start_test.rs"]
mod tests;
