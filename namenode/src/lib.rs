//! The metadata server of Doldam: namespace, block map, placement and repair.
//!
//! [`engine`] decides and does nothing else; [`journal`] and [`store`] keep what was decided; [`rpc`] speaks with
//! clients and datanodes; the [`driver`] is the one write path between them. [`run`] puts the parts together.

pub mod config;
mod control;
pub mod driver;
pub mod engine;
mod health;
pub mod journal;
pub mod metrics;
pub mod rpc;
pub mod store;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use doldam_proto::FsError;
use doldam_proto::id::ClusterId;
use doldam_runtime::Seams;
use doldam_runtime::net::Listener;
use doldam_runtime::tasks::BackgroundTasks;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tracing::info;

pub use self::config::{BadSetting, NamenodeConfig};
use self::control::hub::Hub;
use self::control::leases::Leases;
use self::control::questions::QUESTIONS_WAITING_MAX;
use self::control::upkeep::Upkeep;
use self::control::{Control, MESSAGES_WAITING_MAX};
pub use self::driver::StartError;
use self::driver::{Driver, DriverOptions};
use self::engine::cluster::{Cluster, Mode, NodeIdentity};
use self::engine::namespace::view;
use self::health::Status;
use self::metrics::Metrics;
use self::rpc::Context;

/// Time that requests in progress have to end when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// Writing clients read at a time when the leases of an earlier run are taken over.
const LEASES_AT_ONCE: usize = 1000;

/// A namenode that is up. It runs until the tasks it was started with are stopped.
#[derive(Debug, Clone)]
pub struct NamenodeHandle {
    local_addr: String,
    http_addr: Option<String>,
    cluster: ClusterId,
    #[cfg(feature = "simulation")]
    driver: Driver,
}

impl NamenodeHandle {
    /// `HOST:PORT` for clients and datanodes, with the port that was really taken.
    pub fn local_addr(&self) -> &str {
        &self.local_addr
    }

    /// `HOST:PORT` of metrics and health page, if there is one.
    pub fn http_addr(&self) -> Option<&str> {
        self.http_addr.as_deref()
    }

    /// The cluster it leads.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster
    }

    /// What does not hold in its state that must. Reads all of it: for a simulator.
    #[cfg(feature = "simulation")]
    pub fn violations(&self) -> Vec<String> {
        let (found, _) = self.driver.peek(|tables| Ok(engine::invariant::check(tables)));
        match found {
            Ok(found) => found.into_iter().map(|found| format!("{found:?}")).collect(),
            Err(_stopping) => Vec::new(),
        }
    }
}

/// Why a namenode does not start.
#[derive(Debug, thiserror::Error)]
pub enum NamenodeError {
    /// A setting makes no sense.
    #[error("bad setting")]
    Config(#[from] BadSetting),
    /// The address cannot be listened at.
    #[error("cannot listen at {address}")]
    Listen {
        /// As configured.
        address: String,
        /// The system's words.
        source: io::Error,
    },
    /// The folder cannot be used.
    #[error("the namenode's folder cannot be used")]
    Start(#[from] StartError),
    /// The state cannot be read.
    #[error("the namenode's state cannot be read")]
    State(#[source] FsError),
}

/// Starts a namenode, and returns when it serves. It then works in `tasks`; if it cannot go on (its journal or store
/// failed) it stops them all.
///
/// # Errors
/// If a setting makes no sense, an address is taken, or the folder is another's, in use or damaged.
pub async fn run(
    config: NamenodeConfig,
    seams: Seams,
    tasks: &BackgroundTasks,
) -> Result<NamenodeHandle, NamenodeError> {
    config.check()?;
    let (listener, local_addr) = listen(&seams, &config.listen).await?;
    let mut registry = Registry::default();
    let metrics = Arc::new(Metrics::register(&mut registry));
    let status = Arc::new(Status::default());
    let http_addr = match &config.http {
        Some(address) => {
            let (listener, http_addr) = listen(&seams, address).await?;
            let pages = health::pages(Arc::new(registry), Arc::clone(&status));
            doldam_runtime::http::serve(listener, pages, tasks);
            Some(http_addr)
        }
        None => None,
    };
    let options = DriverOptions {
        overlay_bytes: config.overlay_bytes.0 as usize,
        cache_bytes: config.cache_bytes.0 as usize,
        checkpoint_interval: config.checkpoint_interval.0,
        ..DriverOptions::new(&config.dir)
    };
    let driver = Driver::start(options, seams.clone(), tasks, Arc::clone(&metrics)).await?;
    let hub = start_control(&config, &seams, &driver, &metrics, tasks).await?;
    status.serve(driver.clone(), Arc::clone(&hub));
    let cluster = driver.cluster_id();
    #[cfg(feature = "simulation")]
    let handle_driver = driver.clone();
    let context = Arc::new(Context::new(driver, hub, metrics, seams, config, tasks));
    serve(&context, listener, tasks);
    info!(address = local_addr, %cluster, "the namenode serves");
    Ok(NamenodeHandle {
        local_addr,
        http_addr,
        cluster,
        #[cfg(feature = "simulation")]
        driver: handle_driver,
    })
}

async fn listen(
    seams: &Seams,
    address: &str,
) -> Result<(Box<dyn Listener>, String), NamenodeError> {
    let failed = |source| NamenodeError::Listen { address: address.to_owned(), source };
    let listener = seams.net.bind(address).await.map_err(failed)?;
    let local_addr = listener.local_addr().map_err(failed)?;
    Ok((listener, local_addr))
}

/// Starts the control loop with the nodes and writers that the state knows.
async fn start_control(
    config: &NamenodeConfig,
    seams: &Seams,
    driver: &Driver,
    metrics: &Arc<Metrics>,
    tasks: &BackgroundTasks,
) -> Result<Arc<Hub>, NamenodeError> {
    let now = seams.clock.now();
    let known = driver.read(|tables| Ok(view::nodes(tables)?)).await;
    let known = known.map_err(NamenodeError::State)?;
    let identities = known.iter().map(|node| NodeIdentity {
        id: node.id,
        uuid: node.uuid,
        address: node.address.clone(),
        rack: node.rack.clone(),
    });
    let cluster = Cluster::new(config.liveness(), identities, now)
        .with_maintenance_live_min(config.maintenance_live_replicas);
    let mut leases = Leases::new(config.lease_soft.0, config.lease_hard.0);
    let mut after = None;
    loop {
        let read = driver.read(|tables| Ok(view::lease_holders(tables, after, LEASES_AT_ONCE)?));
        let writers = read.await.map_err(NamenodeError::State)?;
        for client in &writers {
            leases.renew(*client, now);
        }
        match writers.last() {
            Some(last) if writers.len() == LEASES_AT_ONCE => after = Some(*last),
            Some(_) | None => break,
        }
    }
    let (sender, messages) = mpsc::channel(MESSAGES_WAITING_MAX);
    let (asking, questions) = mpsc::channel(QUESTIONS_WAITING_MAX);
    let clock = Arc::clone(&seams.clock);
    let ways_in = (sender, asking);
    let hub = Arc::new(Hub::new(Arc::clone(&clock), cluster, leases, driver.epoch(), ways_in));
    for node in &known {
        let mode = Mode::of(node.decision, now, clock.wall_ms());
        if mode != Mode::InService {
            hub.set_mode(node.id, mode);
        }
    }
    let upkeep = Upkeep::new(clock, Arc::clone(metrics), config.request_retention.0);
    let (control_hub, seed) = (Arc::clone(&hub), seams.random.next_u64());
    let inbox = (messages, questions);
    let control = Control::new(driver.clone(), control_hub, inbox, config.repair(), upkeep, seed);
    tasks.spawn_critical("control", control.run(tasks.clone()));
    Ok(hub)
}

fn serve(context: &Arc<Context>, listener: Box<dyn Listener>, tasks: &BackgroundTasks) {
    let (routes, connections) = (rpc::routes(context), tasks.clone());
    tasks.spawn_critical("rpc", async move {
        doldam_runtime::grpc::serve(routes, listener, STOP_GRACE, &connections).await;
        Ok::<_, Infallible>(())
    });
}
