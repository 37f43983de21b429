//! The three gRPC services: decode and check, ask the driver or the control loop, encode.
//!
//! Every limit of the protocol is enforced here or in the engine before anything is done. Nothing here panics on
//! what a peer sends. The span of a request, with its trace id, is made by the server
//! ([`doldam_runtime::grpc::serve`]).

mod admin_service;
mod client_service;
mod datanode_service;
mod fsck;
mod locate;
mod node_mode;
mod repair;
mod report;
#[cfg(test)]
mod tests;
mod write;

use std::future::Future;
use std::sync::Arc;

use doldam_proto::FsError;
use doldam_proto::id::{BlockId, ClientId, NodeId};
use doldam_proto::limits::{GRPC_MESSAGE_BYTES_MAX, TEXT_BYTES_MAX};
use doldam_proto::wire;
use doldam_proto::wire::admin_service_server::AdminServiceServer;
use doldam_proto::wire::client_service_server::ClientServiceServer;
use doldam_proto::wire::datanode_service_server::DatanodeServiceServer;
use doldam_runtime::Seams;
use doldam_runtime::tasks::BackgroundTasks;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Response, Status};

use crate::config::NamenodeConfig;
use crate::control::hub::Hub;
use crate::driver::Driver;
use crate::engine::placement::Chance;
use crate::engine::repair::rack_repair;
use crate::metrics::{CallOutcome, Method, Metrics};

/// What the services work with.
pub(crate) struct Context {
    pub(crate) driver: Driver,
    pub(crate) hub: Arc<Hub>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) seams: Seams,
    pub(crate) config: NamenodeConfig,
    pub(crate) stopping: CancellationToken,
    /// Held while an administrator's decision about a node is made durable and told to the cluster view: the two are of
    /// one order.
    pub(crate) deciding: tokio::sync::Mutex<()>,
}

/// The services, ready to be served.
pub(crate) fn routes(context: &Arc<Context>) -> Routes {
    let client = ClientServiceServer::new(client_service::ClientApi(Arc::clone(context)))
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    let datanode = DatanodeServiceServer::new(datanode_service::DatanodeApi(Arc::clone(context)))
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    let admin = AdminServiceServer::new(admin_service::AdminApi(Arc::clone(context)))
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    Routes::new(client).add_service(datanode).add_service(admin)
}

impl Context {
    pub(crate) fn new(
        driver: Driver,
        hub: Arc<Hub>,
        metrics: Arc<Metrics>,
        seams: Seams,
        config: NamenodeConfig,
        tasks: &BackgroundTasks,
    ) -> Self {
        let (stopping, deciding) = (tasks.stopping(), tokio::sync::Mutex::default());
        Self { driver, hub, metrics, seams, config, stopping, deciding }
    }

    /// Answers a call and counts it.
    async fn answer<T>(
        &self,
        method: Method,
        call: impl Future<Output = Result<T, FsError>>,
    ) -> Result<Response<T>, Status> {
        let started = self.seams.clock.now();
        let result = call.await;
        let took = self.seams.clock.now().saturating_sub(started);
        match result {
            Ok(answer) => {
                self.metrics.call(method, CallOutcome::Done, took);
                Ok(Response::new(answer))
            }
            Err(refusal) => {
                self.metrics.call(method, CallOutcome::of(refusal.kind()), took);
                tracing::debug!(?method, %refusal, "refused");
                Err(refusal.into())
            }
        }
    }

    fn chance(&self) -> Chance {
        Chance::new(self.seams.random.next_u64())
    }

    /// The nodes as peers need them, in the same order; those that are not known are left out.
    fn addresses(&self, nodes: &[u32]) -> Vec<wire::NodeAddress> {
        let cluster = self.hub.cluster();
        let address = |node: &u32| cluster.address(NodeId(*node)).map(Into::into);
        nodes.iter().filter_map(address).collect()
    }

    /// Sees to it that blocks are looked at by repair that were committed with a holder that is not live or not in
    /// service, or on one rack while there are others.
    fn look_at_commits(&self, commits: &[wire::BlockCommit]) {
        let cluster = self.hub.cluster();
        let is_sound = |node: &NodeId| {
            cluster.standing(*node).is_live() && cluster.mode(*node).is_in_service()
        };
        let is_doubtful = |commit: &&wire::BlockCommit| {
            let holders: Vec<NodeId> = commit.node_ids.iter().copied().map(NodeId).collect();
            !holders.iter().all(is_sound) || rack_repair::needs_spreading(&holders, &cluster)
        };
        let doubtful = commits.iter().filter(is_doubtful).map(|commit| BlockId(commit.block_id));
        let doubtful: Vec<BlockId> = doubtful.collect();
        drop(cluster);
        for block in doubtful {
            self.hub.note_doubtful(block);
        }
    }
}

/// The request id that every changing call carries, and the client it names.
fn request_of(request: Option<wire::RequestId>) -> Result<(wire::RequestId, ClientId), FsError> {
    let refuse = |why: &str| FsError::InvalidArgument { field: "request".into(), why: why.into() };
    let request = request.ok_or_else(|| refuse("every change carries a request id"))?;
    let client = ClientId::from_slice(&request.client_id)
        .ok_or_else(|| refuse("the client id has 16 bytes"))?;
    if client == ClientId([0; 16]) {
        return Err(refuse("all zeros are no client's id"));
    }
    Ok((request, client))
}

/// Refuses a text that is too long.
fn check_text(field: &str, text: &str) -> Result<(), FsError> {
    if text.len() <= TEXT_BYTES_MAX {
        return Ok(());
    }
    let why = format!("{} bytes are more than {TEXT_BYTES_MAX}", text.len());
    Err(FsError::InvalidArgument { field: field.to_owned(), why })
}

/// An outcome of another kind than the command has: a bug.
fn wrong_outcome() -> FsError {
    FsError::Internal { what: "the outcome is of another kind than the command".to_owned() }
}
