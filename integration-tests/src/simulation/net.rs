//! A network in memory: connections with latency, and all that a network may do to them.
//!
//! Bytes of one connection arrive in order, each piece after a latency of its own; those of different connections
//! overtake each other. A blocked link, one way or both, delivers nothing until it heals; then what was under way
//! arrives, or the connection is reset. A killed process resets its connections; a machine without power is silent,
//! and its peers learn of it only when they talk to it again.

mod pipe;
mod stream;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use doldam_runtime::net::{BoxFuture, BoxStream, Incoming, Listener, Net};
use doldam_runtime::random::{Random, SeededRandom};
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::pipe::Pipe;
use self::stream::SimStream;
use super::process::Incarnation;
use super::trace::Trace;

/// Connections that nobody has accepted yet.
const BACKLOG: usize = 128;

/// What links do to what is sent over them.
#[derive(Debug, Clone)]
pub struct LinkFaults {
    /// The least a piece takes.
    pub latency_min_ms: u64,
    /// The most a piece takes.
    pub latency_max_ms: u64,
    /// Of a thousand connections, how many are refused.
    pub refused: u64,
    /// Of a thousand pieces, how many reset their connection.
    pub resets: u64,
}

impl Default for LinkFaults {
    fn default() -> Self {
        Self { latency_min_ms: 0, latency_max_ms: 2, refused: 0, resets: 0 }
    }
}

/// All machines and what is between them.
#[derive(Debug)]
pub struct Network {
    state: Mutex<State>,
    changed: Notify,
    chance: SeededRandom,
    trace: Arc<Trace>,
}

#[derive(Debug, Default)]
struct State {
    listeners: BTreeMap<String, Arc<Port>>,
    blocked: BTreeSet<(String, String)>,
    off: BTreeSet<String>,
    slow: BTreeMap<String, Duration>,
    faults: LinkFaults,
    connections: Vec<Connection>,
    opened: u64,
}

#[derive(Debug)]
struct Connection {
    ends: [Arc<Incarnation>; 2],
    pipes: [Weak<Pipe>; 2],
}

#[derive(Debug)]
struct Port {
    process: Arc<Incarnation>,
    waiting: Mutex<VecDeque<Arrived>>,
    arrived: Notify,
}

impl Network {
    /// One without machines.
    pub fn new(seed: u64, trace: Arc<Trace>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: Notify::new(),
            chance: SeededRandom::new(seed),
            trace,
        })
    }

    /// The network as a process sees it.
    pub fn net_of(self: &Arc<Self>, process: &Arc<Incarnation>) -> SimNet {
        SimNet { network: Arc::clone(self), process: Arc::clone(process) }
    }

    /// Sets what all links do.
    pub fn set_faults(&self, faults: LinkFaults) {
        self.trace.line("net", format_args!("{faults:?}"));
        self.state.lock().faults = faults;
    }

    /// Delays all that a machine sends and receives.
    pub fn set_slow(&self, machine: &str, delay: Duration) {
        self.trace.line("net", format_args!("{machine} is {delay:?} slower"));
        self.state.lock().slow.insert(machine.to_owned(), delay);
    }

    /// Delivers nothing from one machine to another.
    pub fn block(&self, from: &str, to: &str) {
        self.trace.line("net", format_args!("{from} cannot reach {to}"));
        self.state.lock().blocked.insert((from.to_owned(), to.to_owned()));
    }

    /// Delivers everywhere again; of the connections that were held up, some are reset.
    pub fn heal(&self) {
        self.trace.line("net", format_args!("heals"));
        let mut state = self.state.lock();
        let blocked = std::mem::take(&mut state.blocked);
        state.slow.clear();
        state.faults = LinkFaults::default();
        for connection in &state.connections {
            for pipe in connection.pipes.iter().filter_map(Weak::upgrade) {
                let link = (pipe.from.name().to_owned(), pipe.to.name().to_owned());
                if blocked.contains(&link) {
                    if self.chance.below(2) == 0 {
                        pipe.reset();
                    } else {
                        pipe.wake();
                    }
                }
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Resets some of the open connections.
    pub fn reset_some(&self, one_in: u64) {
        let state = self.state.lock();
        for connection in &state.connections {
            if self.chance.below(one_in) == 0 {
                connection.reset();
            }
        }
    }

    /// Ends all that a process had open: at once by a kill, unheard if its machine lost power.
    pub fn drop_process(&self, process: &Arc<Incarnation>, loud: bool) {
        let mut state = self.state.lock();
        state.listeners.retain(|_, port| !Arc::ptr_eq(&port.process, process));
        if !loud {
            state.off.insert(process.name().to_owned());
        }
        for connection in &state.connections {
            if connection.ends.iter().any(|end| Arc::ptr_eq(end, process)) {
                if loud {
                    connection.reset();
                } else {
                    connection.silence();
                }
            }
        }
        state
            .connections
            .retain(|connection| connection.pipes.iter().any(|pipe| pipe.strong_count() > 0));
        drop(state);
        self.changed.notify_waiters();
    }

    /// The machine has power again: connections from before are unknown to it.
    pub fn power_on(&self, machine: &str) {
        let mut state = self.state.lock();
        if state.off.remove(machine) {
            for connection in &state.connections {
                let is_old = |end: &Arc<Incarnation>| end.name() == machine && !end.is_alive();
                if connection.ends.iter().any(is_old) {
                    connection.reset();
                }
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// How long a piece from one machine to another takes; `None` while nothing gets there.
    fn latency(&self, from: &str, to: &str) -> Option<Duration> {
        let state = self.state.lock();
        if state.is_blocked(from, to) {
            return None;
        }
        let spread = state.faults.latency_max_ms - state.faults.latency_min_ms + 1;
        let slow =
            [from, to].iter().filter_map(|machine| state.slow.get(*machine)).sum::<Duration>();
        Some(Duration::from_millis(state.faults.latency_min_ms + self.chance.below(spread)) + slow)
    }

    fn is_blocked(&self, from: &str, to: &str) -> bool {
        self.state.lock().is_blocked(from, to)
    }

    /// Whether the network resets a connection now that a piece is sent over it.
    fn resets(&self) -> bool {
        let resets = self.state.lock().faults.resets;
        resets > 0 && self.chance.below(1000) < resets
    }

    fn refuses(&self) -> bool {
        let refused = self.state.lock().faults.refused;
        refused > 0 && self.chance.below(1000) < refused
    }

    /// Waits until something gets from one machine to the other and back, and for that long.
    async fn round_trip(&self, from: &str, to: &str) {
        loop {
            let changed = self.changed.notified();
            if let (Some(there), Some(back)) = (self.latency(from, to), self.latency(to, from)) {
                return tokio::time::sleep(there + back).await;
            }
            changed.await;
        }
    }
}

impl State {
    fn is_blocked(&self, from: &str, to: &str) -> bool {
        self.off.contains(to)
            || self.off.contains(from)
            || self.blocked.contains(&(from.to_owned(), to.to_owned()))
    }
}

impl Connection {
    fn reset(&self) {
        self.pipes.iter().filter_map(Weak::upgrade).for_each(|pipe| pipe.reset());
    }

    fn silence(&self) {
        self.pipes.iter().filter_map(Weak::upgrade).for_each(|pipe| pipe.silence());
    }
}

/// The network, as one process sees it.
#[derive(Debug, Clone)]
pub struct SimNet {
    network: Arc<Network>,
    process: Arc<Incarnation>,
}

impl SimNet {
    /// Opens a connection to `port`, which is there.
    fn open(&self, address: &str, port: &Arc<Port>) -> io::Result<BoxStream> {
        let network = &self.network;
        let mut state = network.state.lock();
        state.opened += 1;
        let number = state.opened;
        let (us, them) = (&self.process, &port.process);
        let pipe = |from, to, label| {
            Pipe::new(
                Arc::clone(network),
                Arc::clone(from),
                Arc::clone(to),
                format!("#{number}{label}"),
            )
        };
        let (there, back) = (pipe(us, them, '>'), pipe(them, us, '<'));
        let pipes = [Arc::downgrade(&there), Arc::downgrade(&back)];
        state
            .connections
            .retain(|connection| connection.pipes.iter().any(|pipe| pipe.strong_count() > 0));
        state.connections.push(Connection { ends: [Arc::clone(us), Arc::clone(them)], pipes });
        drop(state);
        network.trace.line(us.name(), format_args!("connects to {address} #{number}"));
        let ours = SimStream::new(Arc::clone(&back), Arc::clone(&there));
        let arrived = Arrived {
            stream: SimStream::new(there, back),
            peer: format!("{}:{number}", us.name()),
        };
        let mut waiting = port.waiting.lock();
        if waiting.len() == BACKLOG {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        waiting.push_back(arrived);
        drop(waiting);
        port.arrived.notify_one();
        Ok(Box::new(ours))
    }
}

impl Net for SimNet {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            self.process.check()?;
            let machine = address.split(':').next().unwrap_or_default();
            self.network.round_trip(self.process.name(), machine).await;
            self.process.check()?;
            let port = self.network.state.lock().listeners.get(address).cloned();
            let port = port.filter(|port| port.process.is_alive() && !self.network.refuses());
            if let Some(port) = port {
                return self.open(address, &port);
            }
            let us = self.process.name();
            self.network.trace.line(us, format_args!("is refused by {address}"));
            Err(ErrorKind::ConnectionRefused.into())
        })
    }

    fn bind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            self.process.check()?;
            let mut state = self.network.state.lock();
            if state.listeners.get(address).is_some_and(|port| port.process.is_alive()) {
                return Err(ErrorKind::AddrInUse.into());
            }
            let process = Arc::clone(&self.process);
            let port =
                Arc::new(Port { process, waiting: Mutex::default(), arrived: Notify::new() });
            state.listeners.insert(address.to_owned(), Arc::clone(&port));
            let (network, address) = (Arc::clone(&self.network), address.to_owned());
            Ok(Box::new(SimListener { network, address, port }) as Box<dyn Listener>)
        })
    }
}

struct SimListener {
    network: Arc<Network>,
    address: String,
    port: Arc<Port>,
}

impl Listener for SimListener {
    fn local_addr(&self) -> io::Result<String> {
        Ok(self.address.clone())
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Box<dyn Incoming>>> {
        Box::pin(async move {
            loop {
                let arrived = self.port.arrived.notified();
                let next = self.port.waiting.lock().pop_front();
                match next {
                    Some(next) => return Ok(Box::new(next) as Box<dyn Incoming>),
                    None => arrived.await,
                }
            }
        })
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let listeners = &mut self.network.state.lock().listeners;
        if listeners.get(&self.address).is_some_and(|port| Arc::ptr_eq(port, &self.port)) {
            listeners.remove(&self.address);
        }
    }
}

#[derive(Debug)]
struct Arrived {
    stream: SimStream,
    peer: String,
}

impl Incoming for Arrived {
    fn peer(&self) -> String {
        self.peer.clone()
    }

    fn register(self: Box<Self>) -> io::Result<BoxStream> {
        Ok(Box::new(self.stream))
    }
}
