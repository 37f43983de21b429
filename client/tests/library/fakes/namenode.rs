//! A namenode that keeps files in memory, remembers what it was asked, and answers wrongly when told to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use doldam_proto::FsError;
use doldam_proto::block::{AllocatedBlock, BlockCommit, LocatedBlock};
use doldam_proto::digest::FileDigest;
use doldam_proto::file::{FileKind, FileStatus};
use doldam_proto::id::{BlockId, Generation, InodeId, NodeId};
use doldam_proto::wire::admin_service_server::AdminServiceServer;
use doldam_proto::wire::{self, client_service_server::ClientServiceServer};
use doldam_runtime::grpc;
use doldam_runtime::net::{Net, RealNet};
use doldam_runtime::tasks::{BackgroundTasks, spawn_detached};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tonic::service::Routes;

use super::admin::FakeAdmin;
use super::state::{File, Pending, State, Tables, digest_of};
use super::{BLOCK, CLUSTER};

mod service;
mod writes;

/// How a call is answered.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// With this refusal, and nothing is done.
    Refuse(FsError),
    /// What was asked for is done, but the answer is lost.
    Lose,
    /// Never.
    Silence,
    /// As it should be.
    Well,
}

/// A call as it came in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    Create(wire::CreateRequest),
    Allocate(wire::AllocateBlockRequest),
    Complete(wire::CompleteRequest),
    Recover(wire::RecoverBlockRequest),
    Flush(wire::FlushRequest),
    Append(wire::AppendRequest),
    Abandon(wire::AbandonRequest),
    Report(wire::ReportBadReplicaRequest),
    Other(&'static str, Option<wire::RequestId>),
}

impl Call {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Allocate(_) => "allocate",
            Self::Complete(_) => "complete",
            Self::Recover(_) => "recover",
            Self::Flush(_) => "flush",
            Self::Append(_) => "append",
            Self::Abandon(_) => "abandon",
            Self::Report(_) => "report",
            Self::Other(name, _) => name,
        }
    }
}

pub(crate) struct FakeNamenode {
    address: String,
    pub(crate) admin: FakeAdmin,
    shared: Arc<Shared>,
    /// Of its own, so that it can end with all its connections.
    runtime: Mutex<Option<Runtime>>,
}

pub(crate) struct Shared {
    state: Arc<State>,
    calls: Mutex<Vec<Call>>,
    answers: Mutex<BTreeMap<&'static str, VecDeque<Answer>>>,
    hello: Mutex<wire::HelloResponse>,
    called: tokio::sync::Notify,
    /// What became of requests, so that a retry is not applied again.
    outcomes: Mutex<BTreeMap<(Vec<u8>, u64), Outcome>>,
    page: Mutex<usize>,
}

#[derive(Clone)]
enum Outcome {
    Create(wire::CreateResponse),
    Allocate(wire::AllocateBlockResponse),
    Complete(wire::CompleteResponse),
    Recover(wire::RecoverBlockResponse),
    Flush(wire::FlushResponse),
    Append(wire::AppendResponse),
}

impl FakeNamenode {
    pub(crate) async fn start(state: Arc<State>) -> Self {
        let (shared, admin) = (Shared::new(state), FakeAdmin::new());
        let (runtime, address) = serve(&shared, &admin, "127.0.0.1:0".to_owned()).await;
        Self { address, admin, shared, runtime: Mutex::new(Some(runtime)) }
    }

    /// Over `net` and on the current runtime, so that it shares its time; ends with it.
    pub(crate) async fn start_over(state: Arc<State>, net: &dyn Net) -> Self {
        let (shared, admin) = (Shared::new(state), FakeAdmin::new());
        let address = listen(&shared, &admin, net, "namenode:1").await;
        Self { address, admin, shared, runtime: Mutex::new(None) }
    }

    /// Is back at the same address.
    pub(crate) async fn revive(&self) {
        let (runtime, _) = serve(&self.shared, &self.admin, self.address.clone()).await;
        *self.runtime.lock() = Some(runtime);
    }

    pub(crate) fn address(&self) -> String {
        self.address.clone()
    }

    /// Dies.
    pub(crate) async fn kill(&self) {
        let runtime = self.runtime.lock().take();
        tokio::task::spawn_blocking(move || drop(runtime)).await.unwrap();
    }

    /// The next call of this name is answered so; several are answered in turn.
    pub(crate) fn answer_next(&self, call: &'static str, answer: Answer) {
        self.shared.answers.lock().entry(call).or_default().push_back(answer);
    }

    pub(crate) fn set_hello(&self, change: impl FnOnce(&mut wire::HelloResponse)) {
        change(&mut self.shared.hello.lock());
    }

    pub(crate) fn set_page(&self, entries: usize) {
        *self.shared.page.lock() = entries;
    }

    /// All calls so far, without greetings.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().clone()
    }

    /// Their names.
    pub(crate) fn call_names(&self) -> Vec<&'static str> {
        self.calls().iter().map(Call::name).collect()
    }

    /// Waits until a call of this name came in.
    pub(crate) async fn wait_for(&self, name: &str) {
        loop {
            let called = self.shared.called.notified();
            if self.call_names().contains(&name) {
                return;
            }
            called.await;
        }
    }
}

async fn serve(shared: &Arc<Shared>, admin: &FakeAdmin, address: String) -> (Runtime, String) {
    let (shared, admin) = (Arc::clone(shared), admin.clone());
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let started = runtime.spawn(async move { listen(&shared, &admin, &RealNet, &address).await });
    let address = started.await.unwrap();
    (runtime, address)
}

/// Serves on the current runtime; returns where.
async fn listen(shared: &Arc<Shared>, admin: &FakeAdmin, net: &dyn Net, address: &str) -> String {
    let service = ClientServiceServer::from_arc(Arc::clone(shared));
    let admin = AdminServiceServer::new(admin.clone());
    let listener = net.bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = Routes::new(service).add_service(admin);
    drop(spawn_detached("fake namenode", async move {
        // With tasks of its own: they end with the runtime.
        let tasks = BackgroundTasks::default();
        grpc::serve(served, listener, Duration::ZERO, &tasks).await;
    }));
    address
}

impl Drop for FakeNamenode {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn new(state: Arc<State>) -> Arc<Self> {
        let hello = wire::HelloResponse {
            protocol_version: doldam_proto::limits::PROTOCOL_VERSION,
            cluster_id: CLUSTER.to_bytes(),
            lease_soft_ms: 60_000,
            default_replication: 3,
            default_block_bytes: BLOCK,
            version: "fake".to_owned(),
        };
        Arc::new(Self {
            state,
            calls: Mutex::default(),
            answers: Mutex::default(),
            hello: Mutex::new(hello),
            called: tokio::sync::Notify::new(),
            outcomes: Mutex::default(),
            page: Mutex::new(1000),
        })
    }

    /// Notes a call, and says how to answer it.
    fn note(&self, call: Call) -> Answer {
        let name = call.name();
        self.calls.lock().push(call);
        self.called.notify_waiters();
        let mut answers = self.answers.lock();
        answers.get_mut(name).and_then(VecDeque::pop_front).unwrap_or(Answer::Well)
    }

    /// The outcome of a request that was applied before.
    fn outcome(&self, request: Option<&wire::RequestId>) -> Option<Outcome> {
        let request = request.expect("a change carries its request id");
        let key = (request.client_id.to_vec(), request.sequence);
        self.outcomes.lock().get(&key).cloned()
    }

    fn keep(&self, request: Option<&wire::RequestId>, outcome: Outcome) {
        let request = request.expect("a change carries its request id");
        let key = (request.client_id.to_vec(), request.sequence);
        self.outcomes.lock().insert(key, outcome);
    }

    fn create(&self, request: &wire::CreateRequest) -> Result<wire::CreateResponse, FsError> {
        if let Some(Outcome::Create(outcome)) = self.outcome(request.request.as_ref()) {
            return Ok(outcome);
        }
        let mut tables = self.state.tables.lock();
        if tables.files.contains_key(&request.path) && !request.overwrite {
            return Err(FsError::AlreadyExists { path: request.path.clone() });
        }
        let pending = Pending {
            path: request.path.clone(),
            block_bytes: if request.block_bytes == 0 { BLOCK } else { request.block_bytes },
            replication: if request.replication == 0 { 3 } else { request.replication },
            durability: request.durability().into(),
            ..Pending::default()
        };
        let inode = tables.take_id();
        let response = wire::CreateResponse {
            inode_id: inode,
            replication: pending.replication,
            block_bytes: pending.block_bytes,
            durability: request.durability,
            first: None,
        };
        tables.pending.insert(inode, pending);
        let first = if request.allocate_first {
            Some(allocate(&mut tables, inode, 0, &request.excluded_nodes)?.into())
        } else {
            None
        };
        let response = wire::CreateResponse { first, ..response };
        self.keep(request.request.as_ref(), Outcome::Create(response.clone()));
        Ok(response)
    }

    fn allocate(
        &self,
        request: &wire::AllocateBlockRequest,
    ) -> Result<wire::AllocateBlockResponse, FsError> {
        if let Some(Outcome::Allocate(outcome)) = self.outcome(request.request.as_ref()) {
            return Ok(outcome);
        }
        let mut tables = self.state.tables.lock();
        let inode = request.inode_id;
        let before = tables.pending.get(&inode).ok_or(FsError::LeaseLost { inode })?.clone();
        commit(&mut tables, inode, &request.commits)?;
        let replaced = before.blocks.get(&request.index);
        assert_eq!(replaced.map_or(0, |(block, _)| block.id.0), request.replaces_block_id);
        let allocated = allocate(&mut tables, inode, request.index, &request.excluded_nodes);
        if allocated.is_err() {
            tables.pending.insert(inode, before);
        }
        let response = wire::AllocateBlockResponse { block: Some(allocated?.into()) };
        self.keep(request.request.as_ref(), Outcome::Allocate(response.clone()));
        Ok(response)
    }

    fn complete(&self, request: &wire::CompleteRequest) -> Result<wire::CompleteResponse, FsError> {
        if let Some(Outcome::Complete(outcome)) = self.outcome(request.request.as_ref()) {
            return Ok(outcome);
        }
        let mut tables = self.state.tables.lock();
        let inode = request.inode_id;
        commit(&mut tables, inode, &request.commits)?;
        let pending = tables.pending.remove(&inode).ok_or(FsError::LeaseLost { inode })?;
        let unchanged = tables.files.get_mut(&pending.path).filter(|file| {
            let new = pending.blocks.values().all(|(_, commit)| commit.is_some());
            !new && file.status.inode.0 == inode && file.status.length == request.length
        });
        let file = match unchanged {
            Some(file) => {
                file.status.being_written = false;
                file.clone()
            }
            None => finish(&tables, InodeId(inode), &pending, request.length, None),
        };
        let under_replicated_blocks = file
            .blocks
            .iter()
            .filter(|block| block.replicas.len() < pending.replication as usize)
            .count() as u32;
        let status = Some(file.status.clone().into());
        tables.files.insert(pending.path, file);
        let response = wire::CompleteResponse { status, under_replicated_blocks };
        self.keep(request.request.as_ref(), Outcome::Complete(response.clone()));
        Ok(response)
    }
}

fn allocate(
    tables: &mut Tables,
    inode: u64,
    index: u32,
    excluded: &[u32],
) -> Result<AllocatedBlock, FsError> {
    let id = BlockId(tables.take_id());
    let nodes = tables.nodes.values().filter(|node| !excluded.contains(&node.id.0)).cloned();
    let pending = tables.pending.get_mut(&inode).ok_or(FsError::LeaseLost { inode })?;
    let targets: Vec<_> = nodes.take(pending.replication as usize).collect();
    if targets.is_empty() {
        return Err(FsError::NoDatanodes { path: pending.path.clone(), refusals: vec![] });
    }
    let block = AllocatedBlock { id, generation: Generation(1), index, targets };
    pending.blocks.insert(index, (block.clone(), None));
    Ok(block)
}

fn commit(tables: &mut Tables, inode: u64, commits: &[wire::BlockCommit]) -> Result<(), FsError> {
    for commit in commits {
        let commit = BlockCommit::try_from(commit.clone()).expect("a valid commit");
        for node in &commit.nodes {
            let replica = tables.replicas.get(&(*node, commit.id)).expect("who commits has it");
            assert_eq!(replica.generation, commit.generation);
            assert_eq!(replica.content.len() as u64, commit.length);
            let digest = digest_of(replica.file_offset, &replica.content);
            assert_eq!(commit.chaining_value, digest.chaining_value);
            assert_eq!(commit.root_value, digest.root_value);
        }
        let pending = tables.pending.get_mut(&inode).ok_or(FsError::LeaseLost { inode })?;
        let slot = pending.blocks.values_mut().find(|(block, _)| block.id == commit.id);
        let (_, committed) = slot.expect("only what was allocated is committed");
        assert!(committed.replace(commit).is_none(), "nothing is committed twice");
    }
    Ok(())
}

/// The file as it is visible from now on; with the start of the block that is open, if it is not complete.
fn finish(
    tables: &Tables,
    inode: InodeId,
    pending: &Pending,
    length: u64,
    open: Option<&BlockCommit>,
) -> File {
    let mut blocks = Vec::new();
    let mut content = Vec::new();
    for (index, (block, commit)) in &pending.blocks {
        let Some(commit) = commit.as_ref().or(open.filter(|open| open.id == block.id)) else {
            continue;
        };
        let replica = &tables.replicas[&(commit.nodes[0], commit.id)];
        content.extend_from_slice(&replica.content[..commit.length as usize]);
        blocks.push(LocatedBlock {
            id: commit.id,
            generation: commit.generation,
            index: *index,
            offset: u64::from(*index) * pending.block_bytes,
            length: commit.length,
            chaining_value: commit.chaining_value,
            replicas: commit.nodes.iter().map(|id: &NodeId| tables.nodes[id].clone()).collect(),
        });
    }
    assert_eq!(content.len() as u64, length, "the blocks make up the file");
    let status = FileStatus {
        path: pending.path.clone(),
        inode,
        kind: FileKind::File,
        length,
        replication: pending.replication,
        block_bytes: pending.block_bytes,
        modified_ms: 1,
        created_ms: 1,
        digest: Some(FileDigest(*blake3::hash(&content).as_bytes())),
        durability: Some(pending.durability),
        being_written: tables.pending.contains_key(&inode.0),
    };
    File { status, blocks }
}
