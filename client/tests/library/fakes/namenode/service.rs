//! The calls of the fake namenode.

use doldam_proto::FsError;
use doldam_proto::file::{FileKind, FileStatus};
use doldam_proto::id::InodeId;
use doldam_proto::wire::{self, client_service_server::ClientService};
use tonic::{Request, Response, Status};

use super::super::state::Tables;
use super::{Answer, Call, Shared};

type Answered<T> = Result<Response<T>, Status>;

impl Shared {
    async fn answer<T>(
        &self,
        call: Call,
        apply: impl FnOnce() -> Result<T, FsError>,
    ) -> Answered<T> {
        match self.note(call) {
            Answer::Refuse(error) => Err(error.into()),
            Answer::Silence => std::future::pending().await,
            Answer::Lose => {
                apply()?;
                Err(Status::unavailable("the answer was lost"))
            }
            Answer::Well => Ok(Response::new(apply()?)),
        }
    }
}

fn status_of(tables: &Tables, path: &str) -> Option<FileStatus> {
    if let Some(file) = tables.files.get(path) {
        return Some(file.status.clone());
    }
    let directory = || FileStatus {
        path: path.to_owned(),
        inode: InodeId(1),
        kind: FileKind::Directory,
        length: 0,
        replication: 0,
        block_bytes: 0,
        modified_ms: 1,
        created_ms: 1,
        digest: None,
        durability: None,
        being_written: false,
    };
    (path == "/" || tables.directories.contains(path)).then(directory)
}

fn not_found(path: &str) -> FsError {
    FsError::NotFound { path: path.to_owned() }
}

#[tonic::async_trait]
impl ClientService for Shared {
    async fn hello(&self, _request: Request<wire::HelloRequest>) -> Answered<wire::HelloResponse> {
        Ok(Response::new(self.hello.lock().clone()))
    }

    async fn create(
        &self,
        request: Request<wire::CreateRequest>,
    ) -> Answered<wire::CreateResponse> {
        let request = request.into_inner();
        self.answer(Call::Create(request.clone()), || self.create(&request)).await
    }

    async fn allocate_block(
        &self,
        request: Request<wire::AllocateBlockRequest>,
    ) -> Answered<wire::AllocateBlockResponse> {
        let request = request.into_inner();
        self.answer(Call::Allocate(request.clone()), || self.allocate(&request)).await
    }

    async fn complete(
        &self,
        request: Request<wire::CompleteRequest>,
    ) -> Answered<wire::CompleteResponse> {
        let request = request.into_inner();
        self.answer(Call::Complete(request.clone()), || self.complete(&request)).await
    }

    async fn recover_block(
        &self,
        request: Request<wire::RecoverBlockRequest>,
    ) -> Answered<wire::RecoverBlockResponse> {
        let request = request.into_inner();
        self.answer(Call::Recover(request.clone()), || self.recover(&request)).await
    }

    async fn flush(&self, request: Request<wire::FlushRequest>) -> Answered<wire::FlushResponse> {
        let request = request.into_inner();
        self.answer(Call::Flush(request.clone()), || self.flush(&request)).await
    }

    async fn append(
        &self,
        request: Request<wire::AppendRequest>,
    ) -> Answered<wire::AppendResponse> {
        let request = request.into_inner();
        self.answer(Call::Append(request.clone()), || self.append(&request)).await
    }

    async fn abandon(
        &self,
        request: Request<wire::AbandonRequest>,
    ) -> Answered<wire::AbandonResponse> {
        let request = request.into_inner();
        self.answer(Call::Abandon(request.clone()), || {
            let mut tables = self.state.tables.lock();
            let pending = tables.pending.remove(&request.inode_id);
            // What is visible of it stays, and is closed.
            if let Some(file) = pending.and_then(|pending| tables.files.get_mut(&pending.path))
                && file.status.inode.0 == request.inode_id
            {
                file.status.being_written = false;
            }
            Ok(wire::AbandonResponse {})
        })
        .await
    }

    async fn report_bad_replica(
        &self,
        request: Request<wire::ReportBadReplicaRequest>,
    ) -> Answered<wire::ReportBadReplicaResponse> {
        let request = request.into_inner();
        self.answer(Call::Report(request), || Ok(wire::ReportBadReplicaResponse {})).await
    }

    async fn locate(
        &self,
        request: Request<wire::LocateRequest>,
    ) -> Answered<wire::LocateResponse> {
        let request = request.into_inner();
        self.answer(Call::Other("locate", None), || {
            let tables = self.state.tables.lock();
            let status =
                status_of(&tables, &request.path).ok_or_else(|| not_found(&request.path))?;
            let changed =
                request.expected_inode_id != 0 && request.expected_inode_id != status.inode.0;
            if changed {
                return Err(FsError::FileChanged { path: request.path.clone() });
            }
            let blocks = tables.files.get(&request.path).map_or(&[][..], |file| &file.blocks);
            let blocks = blocks
                .iter()
                .filter(|block| block.offset + block.length > request.offset)
                .take(request.max_blocks as usize)
                .cloned()
                .map(Into::into)
                .collect();
            let client_rack = request.client_rack.clone();
            Ok(wire::LocateResponse { status: Some(status.into()), blocks, client_rack })
        })
        .await
    }

    async fn stat(&self, request: Request<wire::StatRequest>) -> Answered<wire::StatResponse> {
        let path = request.into_inner().path;
        self.answer(Call::Other("stat", None), || {
            let status = status_of(&self.state.tables.lock(), &path);
            let status = status.ok_or_else(|| not_found(&path))?;
            Ok(wire::StatResponse { status: Some(status.into()) })
        })
        .await
    }

    async fn stat_batch(
        &self,
        request: Request<wire::StatBatchRequest>,
    ) -> Answered<wire::StatBatchResponse> {
        let paths = request.into_inner().paths;
        self.answer(Call::Other("stat batch", None), || {
            let tables = self.state.tables.lock();
            let entry = |path: &String| wire::StatEntry {
                status: status_of(&tables, path).map(Into::into),
            };
            Ok(wire::StatBatchResponse { entries: paths.iter().map(entry).collect() })
        })
        .await
    }

    async fn list(&self, request: Request<wire::ListRequest>) -> Answered<wire::ListResponse> {
        let request = request.into_inner();
        self.answer(Call::Other("list", None), || {
            let tables = self.state.tables.lock();
            let prefix = format!("{}/", request.path.trim_end_matches('/'));
            let inside = |path: &String| path.strip_prefix(&prefix).map(str::to_owned);
            let mut names: Vec<String> = tables.files.keys().filter_map(inside).collect();
            names.retain(|name| !name.contains('/') && *name > request.start_after);
            let page = *self.page.lock();
            let more = names.len() > page;
            names.truncate(page);
            let entry = |name: String| {
                let status = status_of(&tables, &format!("{prefix}{name}"))?;
                Some(FileStatus { path: name, ..status }.into())
            };
            let entries = names.into_iter().filter_map(entry).collect();
            Ok(wire::ListResponse { entries, more, inode_id: 1 })
        })
        .await
    }

    async fn mkdir(&self, request: Request<wire::MkdirRequest>) -> Answered<wire::MkdirResponse> {
        let request = request.into_inner();
        let call = Call::Other("mkdir", request.request.clone());
        self.answer(call, || {
            let created = self.state.tables.lock().directories.insert(request.path);
            Ok(wire::MkdirResponse { created })
        })
        .await
    }

    async fn commit_blocks(
        &self,
        _request: Request<wire::CommitBlocksRequest>,
    ) -> Answered<wire::CommitBlocksResponse> {
        Err(Status::unimplemented("the client commits along with other calls"))
    }

    async fn renew_lease(
        &self,
        _request: Request<wire::RenewLeaseRequest>,
    ) -> Answered<wire::RenewLeaseResponse> {
        self.answer(Call::Other("renew", None), || Ok(wire::RenewLeaseResponse {})).await
    }

    async fn rename(
        &self,
        request: Request<wire::RenameRequest>,
    ) -> Answered<wire::RenameResponse> {
        let call = Call::Other("rename", request.into_inner().request);
        self.answer(call, || Ok(wire::RenameResponse {})).await
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteRequest>,
    ) -> Answered<wire::DeleteResponse> {
        let request = request.into_inner();
        let call = Call::Other("delete", request.request.clone());
        self.answer(call, || {
            let removed = self.state.tables.lock().files.remove(&request.path);
            removed.ok_or_else(|| not_found(&request.path))?;
            Ok(wire::DeleteResponse {})
        })
        .await
    }

    async fn set_replication(
        &self,
        request: Request<wire::SetReplicationRequest>,
    ) -> Answered<wire::SetReplicationResponse> {
        let call = Call::Other("set replication", request.into_inner().request);
        self.answer(call, || Ok(wire::SetReplicationResponse { previous: 3 })).await
    }

    async fn set_times(
        &self,
        request: Request<wire::SetTimesRequest>,
    ) -> Answered<wire::SetTimesResponse> {
        let call = Call::Other("set times", request.into_inner().request);
        self.answer(call, || Ok(wire::SetTimesResponse {})).await
    }
}
