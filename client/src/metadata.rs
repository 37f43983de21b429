//! Talks to the namenodes: finds the one that leads, tries again within a deadline, and never applies twice.
//!
//! * Several addresses are tried in turn; a namenode that does not lead names the one that does, and is followed
//!   if that one was configured.
//! * Every changing call carries a [`RequestId`](wire::RequestId) that stays the same on every try, so that a try
//!   whose answer was lost changes nothing more.
//! * Before the first call to a namenode, and again after it was lost, `Hello` makes sure that it speaks our
//!   protocol and serves our cluster.
//!
//! Dropping a call half-way is safe for the client; whether the change was made is then unknown.

mod admin_calls;
mod calls;
mod lease;
mod requests;
mod retry;
mod write_calls;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use doldam_proto::FsError;
use doldam_proto::block::BlockBytes;
use doldam_proto::id::{ClientId, ClusterId};
use doldam_proto::limits::{GRPC_MESSAGE_BYTES_MAX, PROTOCOL_VERSION};
use doldam_proto::node::{Nearness, NodeAddress};
use doldam_proto::wire::{self, client_service_client::ClientServiceClient};
use doldam_runtime::Seams;
use doldam_runtime::grpc;
use doldam_runtime::leader::Leader;
use doldam_runtime::telemetry::{TraceId, inject_trace};
use parking_lot::Mutex;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

pub(crate) use calls::{Created, Page, bad_answer};
pub(crate) use lease::Lease;
use lease::Leases;
use requests::RequestIds;
use retry::Retry;
pub(crate) use write_calls::{Appended, Recovered};

use crate::config::ClientConfig;
use crate::error::ClientError;

/// How long to look for the names of our own host.
const HOSTS_PATIENCE: Duration = Duration::from_millis(500);

/// The service every call but the administrators' goes to.
type Service = ClientServiceClient<Channel>;

/// What the cluster said of itself when it was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) cluster: ClusterId,
    pub(crate) lease_soft: Duration,
    pub(crate) default_replication: u32,
    pub(crate) default_block_bytes: u64,
}

/// The namenodes of one cluster.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) seams: Seams,
    config: ClientConfig,
    holder: String,
    leader: Mutex<Leader>,
    endpoints: BTreeMap<String, Endpoint>,
    requests: RequestIds,
    leases: Leases,
    hello: OnceLock<Hello>,
    /// Names of our host, with commas; empty if unknown.
    hosts: OnceLock<String>,
    /// Our rack, as the namenode said last; empty if unknown.
    rack: Mutex<String>,
}

/// One namenode.
#[derive(Debug)]
struct Endpoint {
    address: String,
    channels: Vec<Channel>,
    turn: AtomicUsize,
    /// Whether it has proved to be one of ours since it was last lost.
    greeted: AtomicBool,
}

impl Endpoint {
    fn channel(&self) -> Channel {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.channels[turn % self.channels.len()].clone()
    }
}

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// All tries together.
    total: Duration,
    /// How long to ask again while no datanode can take a block.
    placement: Duration,
}

impl Metadata {
    /// Reaches one of the namenodes at `addresses`.
    pub(crate) async fn connect(
        addresses: Vec<String>,
        config: ClientConfig,
        seams: Seams,
    ) -> Result<(Arc<Self>, Hello), ClientError> {
        let mut endpoints = BTreeMap::new();
        for address in &addresses {
            endpoints.insert(address.clone(), endpoint(address, &config, &seams)?);
        }
        let leader = Leader::new(addresses).map_err(|none| ClientError::InvalidOption {
            option: "namenode",
            why: none.to_string(),
        })?;
        let requests = RequestIds::new(ClientId(seams.random.next_id()));
        let metadata = Arc::new(Self {
            holder: config.holder.clone().unwrap_or_else(default_holder),
            config,
            leader: Mutex::new(leader),
            endpoints,
            requests,
            leases: Leases::default(),
            hello: OnceLock::new(),
            hosts: OnceLock::new(),
            rack: Mutex::default(),
            seams,
        });
        let hello = metadata.first_hello().await?;
        metadata.find_hosts().await;
        Ok((metadata, hello))
    }

    /// Who writes, for people.
    pub(crate) fn holder(&self) -> &str {
        &self.holder
    }

    /// Id of an operation, for every log it leaves a trace in.
    pub(crate) fn new_trace(&self) -> TraceId {
        TraceId::new(&*self.seams.random)
    }

    fn patience(&self) -> Patience {
        Patience { total: self.config.operation_timeout, placement: Duration::ZERO }
    }

    fn client_host(&self) -> String {
        self.hosts.get().cloned().unwrap_or_default()
    }

    /// Finds out what others may call this host, once, with one lookup of the namenode's name at the most.
    async fn find_hosts(&self) {
        let hosts = if let Some(configured) = &self.config.client_host {
            configured.clone()
        } else {
            let namenode = self.leader.lock().current().to_owned();
            let names = self.seams.net.local_names(&namenode);
            // Not to know costs a longer way, no more.
            tokio::time::timeout(HOSTS_PATIENCE, names).await.unwrap_or_default().join(",")
        };
        self.hosts.get_or_init(|| hosts);
    }

    /// How near a datanode is to us.
    pub(crate) fn nearness(&self, node: &NodeAddress) -> Nearness {
        node.nearness(self.hosts.get().map_or("", String::as_str), &self.rack.lock())
    }

    async fn first_hello(&self) -> Result<Hello, ClientError> {
        let patience = Patience { total: self.config.connect_timeout, placement: Duration::ZERO };
        let trace = self.new_trace();
        let mut retry = Retry::new(self, "connect", patience);
        loop {
            let (endpoint, within) = retry.next().await?;
            match self.greet(endpoint, within, &trace).await {
                Ok(hello) => return Ok(hello),
                Err(status) => retry.failed(endpoint, &status)?,
            }
        }
    }

    /// Makes a call, as often as it takes within `patience`.
    async fn call<Q, A, F, Fut>(
        &self,
        operation: &'static str,
        patience: Patience,
        trace: &TraceId,
        request: Q,
        send: F,
    ) -> Result<A, ClientError>
    where
        Q: Clone,
        F: Fn(Service, tonic::Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<A>, Status>>,
    {
        let mut retry = Retry::new(self, operation, patience);
        loop {
            let (endpoint, within) = retry.next().await?;
            if !endpoint.greeted.load(Ordering::Acquire)
                && let Err(status) = self.greet(endpoint, within, trace).await
            {
                retry.failed(endpoint, &status)?;
                continue;
            }
            let message = prepare(request.clone(), within, trace);
            let answer = within_deadline(within, send(service(endpoint.channel()), message));
            match answer.await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => retry.failed(endpoint, &status)?,
            }
        }
    }

    /// Makes sure that a namenode is one of ours.
    async fn greet(
        &self,
        endpoint: &Endpoint,
        within: Duration,
        trace: &TraceId,
    ) -> Result<Hello, Status> {
        let request = wire::HelloRequest { protocol_version: PROTOCOL_VERSION };
        let mut service = service(endpoint.channel());
        let answer = service.hello(prepare(request, within, trace));
        let answer = within_deadline(within, answer).await?.into_inner();
        let hello = self.check_hello(&answer)?;
        endpoint.greeted.store(true, Ordering::Release);
        Ok(hello)
    }

    fn check_hello(&self, answer: &wire::HelloResponse) -> Result<Hello, FsError> {
        if answer.protocol_version != PROTOCOL_VERSION {
            let (expected, found) = (answer.protocol_version, PROTOCOL_VERSION);
            return Err(FsError::WrongVersion { expected, found });
        }
        let malformed = |field: &str, why: &str| FsError::InvalidArgument {
            field: format!("{field} of the namenode's greeting"),
            why: why.to_owned(),
        };
        let cluster = ClusterId::from_slice(&answer.cluster_id)
            .ok_or_else(|| malformed("cluster_id", "is not 16 bytes"))?;
        if BlockBytes::new(answer.default_block_bytes).is_none() {
            return Err(malformed("default_block_bytes", "is no block size"));
        }
        let hello = Hello {
            cluster,
            lease_soft: Duration::from_millis(answer.lease_soft_ms),
            default_replication: answer.default_replication,
            default_block_bytes: answer.default_block_bytes,
        };
        let ours = self.hello.get_or_init(|| hello).cluster;
        if ours != cluster {
            let (expected, found) = (cluster.to_string(), ours.to_string());
            return Err(FsError::WrongCluster { expected, found });
        }
        Ok(hello)
    }
}

fn endpoint(address: &str, config: &ClientConfig, seams: &Seams) -> Result<Endpoint, ClientError> {
    let channel = || grpc::channel(Arc::clone(&seams.net), address, config.attempt_timeout);
    let channels = (0..config.metadata_channels).map(|_| channel()).collect::<Result<_, _>>();
    let channels = channels
        .map_err(|bad| ClientError::InvalidOption { option: "namenode", why: bad.to_string() })?;
    let (turn, greeted) = (AtomicUsize::new(0), AtomicBool::new(false));
    Ok(Endpoint { address: address.to_owned(), channels, turn, greeted })
}

fn service(channel: Channel) -> Service {
    ClientServiceClient::new(channel)
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX)
}

/// A request with its deadline, which the server learns of too, and its trace.
fn prepare<Q>(message: Q, within: Duration, trace: &TraceId) -> tonic::Request<Q> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(within);
    inject_trace(request.metadata_mut(), trace);
    request
}

/// tonic's own deadline does not cover the time until a connection is there.
async fn within_deadline<A>(
    within: Duration,
    answer: impl Future<Output = Result<A, Status>>,
) -> Result<A, Status> {
    match tokio::time::timeout(within, answer).await {
        Ok(answer) => answer,
        Err(_elapsed) => {
            let message = format!("no answer within {:.1} s", within.as_secs_f64());
            Err(Status::new(Code::DeadlineExceeded, message))
        }
    }
}

fn default_holder() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "unknown host" } else { host.trim() };
    format!("{host}, process {}", std::process::id())
}
