//! The machines, the processes on them, and what all parts of a run share.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use doldam_client::{Client, ClientConfig, ClientError};
use doldam_datanode::DatanodeConfig;
use doldam_namenode::{NamenodeConfig, NamenodeHandle};
use doldam_runtime::Seams;
use doldam_runtime::config::{ByteSize, HumanDuration};
use doldam_runtime::random::{Random, SeededRandom};
use doldam_runtime::tasks::BackgroundTasks;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{Instrument, info_span};

use super::clock::SimClock;
use super::disk::Machine;
use super::net::Network;
use super::process::Incarnation;
use super::trace::Trace;
use super::{Summary, Violation};
use crate::simulation::oracle::content::Contents;
use crate::simulation::oracle::history::History;
use crate::simulation::oracle::stream::StreamFile;

/// Where the namenode listens.
const NAMENODE: &str = "nn:8020";
/// From the end of a process to its next start.
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// Time for a process to start or to stop; those that take longer are killed.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a write that was acknowledged before its sync may be lost by a power loss.
const LATE_SYNC_WINDOW: Duration = Duration::from_secs(40);

/// Files that any client streams into.
const STREAMS: usize = 3;

/// What the seed decides about the cluster.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Datanodes.
    pub datanodes: usize,
    /// Data folders of each.
    pub folders: usize,
    /// Clients, each with a home that only it changes.
    pub clients: usize,
    /// How long there is trouble.
    pub trouble: Duration,
}

/// A server, whether it runs or not. The first is the namenode.
#[derive(Debug)]
pub struct Server {
    /// Of its machine.
    pub name: String,
    /// Its disks.
    pub machine: Arc<Machine>,
    /// Its present or last run.
    pub incarnation: Arc<Incarnation>,
    /// It has started and not ended.
    pub is_up: bool,
    /// The namenode, while it is up.
    pub namenode: Option<NamenodeHandle>,
    tasks: BackgroundTasks,
    /// Its end is a power loss.
    loses_power: bool,
    down_until: Instant,
    jumped_ms: Arc<AtomicI64>,
}

impl Server {
    /// Its tasks at present.
    pub fn tasks_running(&self) -> usize {
        self.tasks.running().len()
    }
}

/// See the module.
#[derive(Debug)]
pub struct World {
    /// The seed.
    pub seed: u64,
    /// What it decides about the cluster.
    pub settings: Settings,
    /// What happens.
    pub trace: Arc<Trace>,
    /// Between the machines.
    pub network: Arc<Network>,
    /// The servers.
    pub servers: RefCell<Vec<Server>>,
    /// The present run of each client.
    pub clients: RefCell<Vec<Arc<Incarnation>>>,
    /// What was written.
    pub contents: RefCell<Contents>,
    /// What each client was told.
    pub histories: RefCell<Vec<History>>,
    /// What may be seen of the files that any client streams into.
    pub streams: RefCell<Vec<StreamFile>>,
    /// A disk may have dropped what it was to sync.
    pub drops_memory: Cell<bool>,
    /// What was done.
    pub summary: RefCell<Summary>,
    /// Of the bytes of files, by what changes with them.
    pub hashes: RefCell<BTreeMap<(u64, u64, u64), blake3::Hash>>,
    /// Replicas of which a bit was flipped, by their names.
    pub flipped: RefCell<BTreeSet<String>>,
    /// Whether there is trouble.
    pub is_troubled: Cell<bool>,
    began: Instant,
    allowed: Notify,
}

/// A number for `label`, decided by `seed`.
pub fn derive(seed: u64, label: &str, number: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).update(&number.to_le_bytes()).update(label.as_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// The home of a client.
pub fn home(client: usize) -> String {
    format!("/h{client}")
}

impl World {
    /// The machines of `seed`; nothing runs yet.
    pub fn new(seed: u64, trace: &Arc<Trace>) -> Rc<Self> {
        let chance = SeededRandom::new(derive(seed, "settings", 0));
        let settings = Settings {
            datanodes: 3 + chance.below(3) as usize,
            folders: 1 + chance.below(2) as usize,
            clients: 2 + chance.below(2) as usize,
            trouble: Duration::from_secs(20 + chance.below(30)),
        };
        let names = (0..settings.datanodes).map(|index| format!("dn{index}"));
        let server = |name: String| Server {
            machine: Machine::new(&name, derive(seed, &name, 0), Arc::clone(trace)),
            incarnation: Incarnation::new(&name, 0),
            tasks: BackgroundTasks::default(),
            is_up: false,
            namenode: None,
            loses_power: false,
            down_until: Instant::now(),
            jumped_ms: Arc::default(),
            name,
        };
        let servers = std::iter::once("nn".to_owned()).chain(names).map(server).collect();
        let clients = (0..settings.clients).map(|index| Incarnation::new(&format!("c{index}"), 0));
        trace.line("world", format_args!("seed {seed}: {settings:?}"));
        Rc::new(Self {
            seed,
            settings,
            trace: Arc::clone(trace),
            network: Network::new(derive(seed, "network", 0), Arc::clone(trace)),
            servers: RefCell::new(servers),
            clients: RefCell::new(clients.collect()),
            contents: RefCell::default(),
            histories: RefCell::new(
                (0..settings.clients).map(|it| History::new(&home(it))).collect(),
            ),
            streams: RefCell::new((0..STREAMS).map(|_| StreamFile::default()).collect()),
            drops_memory: Cell::new(false),
            summary: RefCell::default(),
            hashes: RefCell::default(),
            flipped: RefCell::default(),
            is_troubled: Cell::new(true),
            began: Instant::now(),
            allowed: Notify::new(),
        })
    }

    /// Chance for one purpose.
    pub fn chance(&self, label: &str) -> SeededRandom {
        SeededRandom::new(derive(self.seed, label, 1))
    }

    /// Since the beginning.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Lets a server end: by `kill -9`, or with the power of its machine. It stays down for `down`.
    pub fn kill(&self, index: usize, loses_power: bool, down: Duration) {
        let mut servers = self.servers.borrow_mut();
        let server = &mut servers[index];
        let how = if loses_power { "loses power" } else { "is killed" };
        self.trace.line(&server.name, format_args!("{how} for {down:?}"));
        server.loses_power = loses_power;
        server.down_until = Instant::now() + down;
        server.incarnation.die();
    }

    /// How a server that dies at its disk ends.
    pub fn dies_by_power(&self, index: usize, loses_power: bool) {
        self.servers.borrow_mut()[index].loses_power = loses_power;
    }

    /// Stops a server as its operator does.
    pub fn stop(&self, index: usize) {
        let servers = self.servers.borrow();
        self.trace.line(&servers[index].name, format_args!("is stopped"));
        servers[index].tasks.stop();
    }

    /// Lets the wall clock of a machine jump.
    pub fn jump(&self, index: usize, by_ms: i64) {
        let servers = self.servers.borrow();
        self.trace.line(&servers[index].name, format_args!("clock jumps by {by_ms} ms"));
        servers[index].jumped_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Lets every server start again at once. One whose disk failed it is started anew, as its operator would, who
    /// has put a good disk in: a data folder that failed is not used again before.
    pub fn allow_all(&self) {
        for server in self.servers.borrow_mut().iter_mut() {
            server.down_until = Instant::now();
            if server.machine.has_failed() {
                self.trace.line(&server.name, format_args!("is started anew"));
                server.incarnation.die();
            }
        }
        self.allowed.notify_waiters();
    }

    /// Whether every server runs.
    pub fn all_up(&self) -> bool {
        self.servers.borrow().iter().all(|server| server.is_up)
    }

    /// Starts a server whenever it may run and does not.
    ///
    /// # Errors
    /// None so far; it never ends.
    pub async fn supervise(self: Rc<Self>, index: usize) -> Result<Infallible, Violation> {
        loop {
            self.until_allowed(index).await;
            let (incarnation, tasks) = self.start(index).await;
            tokio::select! {
                biased;
                () = incarnation.died() => {}
                () = async {
                    tasks.stopping().cancelled().await;
                    let _ = tasks.shutdown(Duration::from_secs(10)).await; // Killed then.
                } => incarnation.die(),
            }
            self.clean_up(index);
            sleep(RESTART_PAUSE).await;
        }
    }

    async fn until_allowed(&self, index: usize) {
        loop {
            let allowed = self.allowed.notified();
            let until = self.servers.borrow()[index].down_until;
            if until <= Instant::now() {
                return;
            }
            tokio::select! {
                biased;
                () = allowed => {}
                () = sleep_until(until) => {}
            }
        }
    }

    async fn start(&self, index: usize) -> (Arc<Incarnation>, BackgroundTasks) {
        let tasks = BackgroundTasks::default();
        let (incarnation, seams) = {
            let mut servers = self.servers.borrow_mut();
            let server = &mut servers[index];
            let number = server.incarnation.number() + 1;
            server.incarnation = Incarnation::new(&server.name, number);
            server.tasks = tasks.clone();
            server.loses_power = false;
            self.network.power_on(&server.name);
            let jumped = Arc::clone(&server.jumped_ms);
            let seams = self.seams(&server.incarnation, &server.machine, jumped);
            (Arc::clone(&server.incarnation), seams)
        };
        let name = incarnation.name();
        self.trace.line(name, format_args!("starts, run {}", incarnation.number()));
        let span = info_span!("process", name);
        let started = timeout(START_TIMEOUT, self.run(index, seams, &tasks).instrument(span));
        let result = tokio::select! {
            biased;
            () = incarnation.died() => Err("it died".to_owned()),
            started = started => started.unwrap_or_else(|_| Err("it takes too long".to_owned())),
        };
        match result {
            Ok(namenode) => {
                let mut servers = self.servers.borrow_mut();
                servers[index].is_up = true;
                servers[index].namenode = namenode;
                self.trace.line(name, format_args!("is up"));
            }
            Err(why) => {
                self.trace.line(name, format_args!("does not start: {why}"));
                incarnation.die();
            }
        }
        (incarnation, tasks)
    }

    async fn run(
        &self,
        index: usize,
        seams: Seams,
        tasks: &BackgroundTasks,
    ) -> Result<Option<NamenodeHandle>, String> {
        if index == 0 {
            let started = doldam_namenode::run(namenode_config(), seams, tasks).await;
            return started.map(Some).map_err(|cause| chain(&cause));
        }
        let config = datanode_config(index - 1, &self.settings);
        let started = doldam_datanode::run(config, seams, tasks).await;
        started.map(|_| None).map_err(|cause| chain(&cause))
    }

    /// After the end of a process: what it held is gone.
    fn clean_up(&self, index: usize) {
        let mut servers = self.servers.borrow_mut();
        let server = &mut servers[index];
        server.is_up = false;
        server.namenode = None;
        server.tasks.kill();
        self.network.drop_process(&server.incarnation, !server.loses_power);
        if std::mem::take(&mut server.loses_power) {
            self.trace.line(&server.name, format_args!("has lost power"));
            server.machine.lose_power();
            self.contents.borrow_mut().power_lost(self.began.elapsed(), LATE_SYNC_WINDOW);
            if index > 0 {
                self.lose_memory();
            }
        }
    }

    /// What is in memory only may be gone.
    pub fn lose_memory(&self) {
        self.streams.borrow_mut().iter_mut().for_each(StreamFile::memory_lost);
    }

    fn seams(
        &self,
        incarnation: &Arc<Incarnation>,
        machine: &Arc<Machine>,
        jumped_ms: Arc<AtomicI64>,
    ) -> Seams {
        let seed = derive(self.seed, incarnation.name(), 1000 + incarnation.number());
        Seams {
            clock: Arc::new(SimClock::new(self.began, jumped_ms)),
            random: Arc::new(SeededRandom::new(seed)),
            disk: Arc::new(machine.disk_of(incarnation)),
            net: Arc::new(self.network.net_of(incarnation)),
        }
    }

    /// A new run of a client, connected.
    ///
    /// # Errors
    /// If no namenode answers.
    pub async fn connect(&self, client: usize) -> Result<Client, ClientError> {
        let seams = {
            let mut clients = self.clients.borrow_mut();
            let (name, number) = (format!("c{client}"), clients[client].number() + 1);
            clients[client].die();
            self.network.drop_process(&clients[client], true);
            clients[client] = Incarnation::new(&name, number);
            let machine =
                Machine::new(&name, derive(self.seed, &name, number), Arc::clone(&self.trace));
            self.seams(&clients[client], &machine, Arc::default())
        };
        let builder = Client::builder().namenodes([NAMENODE]).seams(seams);
        builder.config(client_config(client)).connect().await
    }
}

/// An error with all that caused it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn secs(secs: u64) -> HumanDuration {
    HumanDuration(Duration::from_secs(secs))
}

fn namenode_config() -> NamenodeConfig {
    NamenodeConfig {
        dir: "/nn".into(),
        listen: NAMENODE.to_owned(),
        dead_after: secs(8),
        lease_soft: secs(10),
        lease_hard: secs(20),
        default_block_bytes: ByteSize(64 << 10),
        checkpoint_interval: secs(10),
        cache_bytes: ByteSize(1 << 20),
        repair_copy_timeout: secs(10),
        repair_pause_window: secs(20),
        ..NamenodeConfig::default()
    }
}

fn datanode_config(index: usize, settings: &Settings) -> DatanodeConfig {
    DatanodeConfig {
        dirs: (0..settings.folders).map(|folder| format!("/d{folder}").into()).collect(),
        listen: format!("dn{index}:8030"),
        namenodes: vec![NAMENODE.to_owned()],
        rack: format!("/r{}", index % 2),
        reserve_bytes: ByteSize(1 << 20),
        scrub_interval: secs(20),
        data_threads: 1,
        connect_timeout: secs(2),
        client_timeout: secs(15),
        downstream_timeout: secs(4),
        sync_timeout: secs(10),
        idle_timeout: secs(30),
        ..DatanodeConfig::default()
    }
}

fn client_config(client: usize) -> ClientConfig {
    ClientConfig {
        operation_timeout: Duration::from_secs(20),
        attempt_timeout: Duration::from_secs(5),
        datanode_connect_timeout: Duration::from_secs(2),
        read_timeout: Duration::from_secs(4),
        write_timeout: Duration::from_secs(5),
        sync_timeout: Duration::from_secs(12),
        probe_after: Duration::from_secs(2),
        stall_timeout: Duration::from_secs(3),
        block_attempts_max: 4,
        retained_bytes_max: 16 << 20,
        holder: Some(format!("c{client}")),
        ..ClientConfig::default()
    }
}
