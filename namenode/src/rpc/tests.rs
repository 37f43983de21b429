//! Tests of the services: a real server over loopback, real clients, and datanodes that speak the real protocol and
//! otherwise do as the test says.

mod client_test;
mod datanode_test;
mod fake_datanode;
mod limits_test;
mod operations_test;
mod repair_test;
mod write_test;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use doldam_proto::FsError;
use doldam_proto::digest::FileDigest;
use doldam_proto::wire;
use doldam_proto::wire::admin_service_client::AdminServiceClient;
use doldam_proto::wire::client_service_client::ClientServiceClient;
use doldam_runtime::Seams;
use doldam_runtime::clock::ManualClock;
use doldam_runtime::config::HumanDuration;
use doldam_runtime::disk::RealDisk;
use doldam_runtime::net::RealNet;
use doldam_runtime::random::SeededRandom;
use doldam_runtime::tasks::BackgroundTasks;
use futures::StreamExt;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::{NamenodeConfig, NamenodeHandle};

/// Nothing here takes as long unless it hangs.
const PATIENCE: Duration = Duration::from_mins(1);
/// The digest of a file of one block.
const ROOT: FileDigest = FileDigest([8; 32]);

/// A namenode over loopback, on a clock that the test moves.
struct Server {
    handle: NamenodeHandle,
    clock: Arc<ManualClock>,
    tasks: BackgroundTasks,
    dir: Arc<TempDir>,
    sequence: AtomicU64,
}

impl Server {
    async fn start() -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap())).await
    }

    async fn start_in(dir: Arc<TempDir>) -> Self {
        let clock = Arc::new(ManualClock::default());
        let seams = Seams {
            clock: clock.clone(),
            random: Arc::new(SeededRandom::new(1)),
            disk: Arc::new(RealDisk),
            net: Arc::new(RealNet),
        };
        let config = NamenodeConfig {
            dir: dir.path().join("namenode"),
            listen: "127.0.0.1:0".to_owned(),
            http: Some("127.0.0.1:0".to_owned()),
            dead_after: HumanDuration(Duration::from_secs(10)),
            ..NamenodeConfig::default()
        };
        let tasks = BackgroundTasks::default();
        let handle = crate::run(config, seams, &tasks).await.unwrap();
        Self { handle, clock, tasks, dir, sequence: AtomicU64::new(0) }
    }

    /// Stops it and starts another one in the same folder.
    async fn restart(self) -> Self {
        let dir = Arc::clone(&self.dir);
        self.stop().await;
        Self::start_in(dir).await
    }

    async fn stop(self) {
        self.tasks.shutdown(PATIENCE).await.unwrap();
    }

    fn channel(&self) -> Channel {
        let address = self.handle.local_addr();
        doldam_runtime::grpc::channel(Arc::new(RealNet), address, PATIENCE).unwrap()
    }

    fn client(&self) -> ClientServiceClient<Channel> {
        ClientServiceClient::new(self.channel())
    }

    fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel())
    }

    /// A request id of the client `[id; 16]` that was never used.
    fn request(&self, id: u8) -> wire::RequestId {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        wire::RequestId { client_id: vec![id; 16].into(), sequence, answered_below: 0 }
    }

    fn create_request(&self, client: u8, path: &str) -> wire::CreateRequest {
        wire::CreateRequest {
            request: Some(self.request(client)),
            path: path.to_owned(),
            allocate_first: true,
            holder: format!("client {client}"),
            ..wire::CreateRequest::default()
        }
    }

    /// Creates a file and gets its first block.
    async fn create(&self, path: &str) -> wire::CreateResponse {
        answer(self.client().create(self.create_request(1, path)).await).unwrap()
    }

    /// Completes a write of one block that `nodes` acknowledged.
    async fn complete(&self, created: &wire::CreateResponse, nodes: &[u32]) {
        let request = wire::CompleteRequest {
            request: Some(self.request(1)),
            inode_id: created.inode_id,
            length: fake_datanode::LENGTH,
            commits: vec![commit(created.first.as_ref().unwrap(), nodes)],
        };
        answer(self.client().complete(request).await).unwrap();
    }

    async fn report(&self) -> wire::ReportResponse {
        answer(self.admin().report(wire::ReportRequest {}).await).unwrap()
    }

    /// Asks for reports until one is as it should be.
    async fn until(&self, what: &str, is_so: impl Fn(&wire::ReportResponse) -> bool) {
        let asking = async {
            while !is_so(&self.report().await) {
                tokio::task::yield_now().await;
            }
        };
        in_time(what, asking).await;
    }

    async fn fsck(&self, only_findings: bool) -> Vec<wire::FsckFile> {
        let request = wire::FsckRequest { path: "/".to_owned(), only_findings };
        let files = self.admin().fsck(request).await.unwrap().into_inner();
        files.map(Result::unwrap).collect().await
    }

    /// What its page at `path` answers.
    async fn page(&self, path: &str) -> String {
        let mut stream =
            tokio::net::TcpStream::connect(self.handle.http_addr().unwrap()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn locate(&self, path: &str) -> wire::LocateResponse {
        let request = wire::LocateRequest { path: path.to_owned(), ..Default::default() };
        answer(self.client().locate(request).await).unwrap()
    }
}

/// What a call answered, with our own error.
fn answer<T>(result: Result<Response<T>, Status>) -> Result<T, FsError> {
    result.map(Response::into_inner).map_err(|status| {
        FsError::from_status(&status).unwrap_or_else(|| panic!("a foreign error: {status}"))
    })
}

/// The commit of a block whose content is always the same.
fn commit(block: &wire::AllocatedBlock, nodes: &[u32]) -> wire::BlockCommit {
    let root = if block.index == 0 { ROOT.to_bytes() } else { bytes::Bytes::new() };
    wire::BlockCommit {
        block_id: block.block_id,
        generation: block.generation,
        length: fake_datanode::LENGTH,
        chaining_value: fake_datanode::VALUE.to_bytes(),
        root_value: root,
        node_ids: nodes.to_vec(),
    }
}

/// Fails with `what` instead of hanging.
async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    let in_time = tokio::time::timeout(PATIENCE, future).await;
    in_time.unwrap_or_else(|_elapsed| panic!("did not happen: {what}"))
}
