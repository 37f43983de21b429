//! Metadata for clients.

use std::sync::Arc;

use doldam_proto::FsError;
use doldam_proto::id::{BlockId, Generation, NodeId};
use doldam_proto::limits::{PROTOCOL_VERSION, STAT_BATCH_MAX};
use doldam_proto::path::FsPath;
use doldam_proto::wire;
use doldam_proto::wire::client_service_server::ClientService;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::outcome;
use tonic::{Request, Response, Status};

use super::{Context, check_text, request_of, wrong_outcome};
use crate::engine::namespace::view;
use crate::engine::repair::Event;
use crate::metrics::Method;

/// Paths looked up under one lock.
const STATS_AT_ONCE: usize = 64;

/// The service.
pub(super) struct ClientApi(pub(super) Arc<Context>);

impl Context {
    fn hello(&self, request: wire::HelloRequest) -> Result<wire::HelloResponse, FsError> {
        check_version(request.protocol_version)?;
        Ok(wire::HelloResponse {
            protocol_version: PROTOCOL_VERSION,
            cluster_id: self.driver.cluster_id().to_bytes(),
            lease_soft_ms: self.config.lease_soft.0.as_millis() as u64,
            default_replication: self.config.default_replication,
            default_block_bytes: self.config.default_block_bytes.0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    async fn mkdir(&self, request: wire::MkdirRequest) -> Result<wire::MkdirResponse, FsError> {
        let (id, _) = request_of(request.request)?;
        let command = wire::MkdirCommand { path: request.path, parents: request.parents };
        let outcome = self.driver.propose(Some(id), Change::Mkdir(command)).await?;
        match outcome.kind {
            Some(outcome::Kind::Mkdir(made)) => Ok(wire::MkdirResponse { created: made.created }),
            _ => Err(wrong_outcome()),
        }
    }

    async fn stat(&self, request: wire::StatRequest) -> Result<wire::StatResponse, FsError> {
        let path = view::parse_path(&request.path)?;
        let status = self.driver.read(|tables| view::stat(tables, &path)).await?;
        Ok(wire::StatResponse { status: Some(status.into()) })
    }

    async fn stat_batch(
        &self,
        request: wire::StatBatchRequest,
    ) -> Result<wire::StatBatchResponse, FsError> {
        if request.paths.len() > STAT_BATCH_MAX {
            let why = format!("{} paths are more than {STAT_BATCH_MAX}", request.paths.len());
            return Err(FsError::InvalidArgument { field: "paths".to_owned(), why });
        }
        let paths: Vec<FsPath> =
            request.paths.iter().map(|path| view::parse_path(path)).collect::<Result<_, _>>()?;
        let mut entries = Vec::with_capacity(paths.len());
        for paths in paths.chunks(STATS_AT_ONCE) {
            let read = self.driver.read(|tables| {
                let stat = |path| Ok(view::stat_if_exists(tables, path)?);
                paths.iter().map(stat).collect::<Result<Vec<_>, _>>()
            });
            let found = read.await?.into_iter();
            entries.extend(found.map(|status| wire::StatEntry { status: status.map(Into::into) }));
        }
        Ok(wire::StatBatchResponse { entries })
    }

    async fn list(&self, request: wire::ListRequest) -> Result<wire::ListResponse, FsError> {
        let path = view::parse_path(&request.path)?;
        let (after, max) = (request.start_after, request.max_entries);
        let page = self.driver.read(|tables| view::list(tables, &path, &after, max)).await?;
        Ok(wire::ListResponse {
            entries: page.entries.into_iter().map(Into::into).collect(),
            more: page.more,
            inode_id: page.inode.0,
        })
    }

    async fn rename(&self, request: wire::RenameRequest) -> Result<wire::RenameResponse, FsError> {
        let (id, _) = request_of(request.request)?;
        let wire::RenameRequest { from, to, replace, .. } = request;
        let change = Change::Rename(wire::RenameCommand { from, to, replace });
        self.driver.propose(Some(id), change).await?;
        Ok(wire::RenameResponse {})
    }

    async fn delete(&self, request: wire::DeleteRequest) -> Result<wire::DeleteResponse, FsError> {
        let (id, _) = request_of(request.request)?;
        let command = wire::DeleteCommand { path: request.path, recursive: request.recursive };
        self.driver.propose(Some(id), Change::Delete(command)).await?;
        Ok(wire::DeleteResponse {})
    }

    async fn set_replication(
        &self,
        request: wire::SetReplicationRequest,
    ) -> Result<wire::SetReplicationResponse, FsError> {
        let (id, _) = request_of(request.request)?;
        let wire::SetReplicationRequest { path, replication, .. } = request;
        let change = Change::SetReplication(wire::SetReplicationCommand { path, replication });
        match self.driver.propose(Some(id), change).await?.kind {
            Some(outcome::Kind::SetReplication(set)) => {
                Ok(wire::SetReplicationResponse { previous: set.previous })
            }
            _ => Err(wrong_outcome()),
        }
    }

    async fn set_times(
        &self,
        request: wire::SetTimesRequest,
    ) -> Result<wire::SetTimesResponse, FsError> {
        let (id, _) = request_of(request.request)?;
        let wire::SetTimesRequest { path, modified_ms, .. } = request;
        let change = Change::SetTimes(wire::SetTimesCommand { path, modified_ms });
        self.driver.propose(Some(id), change).await?;
        Ok(wire::SetTimesResponse {})
    }

    async fn report_bad_replica(
        &self,
        request: wire::ReportBadReplicaRequest,
    ) -> Result<wire::ReportBadReplicaResponse, FsError> {
        check_text("what", &request.what)?;
        let wire::ReportBadReplicaRequest { block_id, generation, node_id, what } = request;
        tracing::warn!(block_id, generation, node_id, what, "a reader reports a bad replica");
        let block = (BlockId(block_id), Generation(generation));
        let event = Event::Suspected(NodeId(node_id), block.0, block.1);
        if !self.hub.tell(event).await {
            return Err(FsError::Unavailable { why: "the namenode is stopping".to_owned() });
        }
        Ok(wire::ReportBadReplicaResponse {})
    }
}

/// Refuses a peer that speaks another protocol.
pub(super) fn check_version(found: u32) -> Result<(), FsError> {
    if found == PROTOCOL_VERSION {
        return Ok(());
    }
    Err(FsError::WrongVersion { expected: PROTOCOL_VERSION, found })
}

macro_rules! calls {
    ($($method:ident $name:ident $request:ident $response:ident;)*) => {
        #[tonic::async_trait]
        impl ClientService for ClientApi {
            async fn hello(
                &self,
                request: Request<wire::HelloRequest>,
            ) -> Result<Response<wire::HelloResponse>, Status> {
                let answer = async { self.0.hello(request.into_inner()) };
                self.0.answer(Method::Hello, answer).await
            }

            $(
                async fn $name(
                    &self,
                    request: Request<wire::$request>,
                ) -> Result<Response<wire::$response>, Status> {
                    self.0.answer(Method::$method, self.0.$name(request.into_inner())).await
                }
            )*
        }
    };
}

calls! {
    Mkdir mkdir MkdirRequest MkdirResponse;
    Create create CreateRequest CreateResponse;
    AllocateBlock allocate_block AllocateBlockRequest AllocateBlockResponse;
    CommitBlocks commit_blocks CommitBlocksRequest CommitBlocksResponse;
    Complete complete CompleteRequest CompleteResponse;
    RecoverBlock recover_block RecoverBlockRequest RecoverBlockResponse;
    Flush flush FlushRequest FlushResponse;
    Append append AppendRequest AppendResponse;
    Abandon abandon AbandonRequest AbandonResponse;
    RenewLease renew_lease RenewLeaseRequest RenewLeaseResponse;
    Locate locate LocateRequest LocateResponse;
    Stat stat StatRequest StatResponse;
    StatBatch stat_batch StatBatchRequest StatBatchResponse;
    List list ListRequest ListResponse;
    Rename rename RenameRequest RenameResponse;
    Delete delete DeleteRequest DeleteResponse;
    SetReplication set_replication SetReplicationRequest SetReplicationResponse;
    SetTimes set_times SetTimesRequest SetTimesResponse;
    ReportBadReplica report_bad_replica ReportBadReplicaRequest ReportBadReplicaResponse;
}
