//! For administrators and their tools.

use std::pin::Pin;
use std::sync::Arc;

use doldam_proto::FsError;
use doldam_proto::wire;
use doldam_proto::wire::admin_service_server::AdminService;
use futures::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use super::{Context, fsck};
use crate::engine::namespace::view;
use crate::metrics::{CallOutcome, Method};

/// The service.
pub(super) struct AdminApi(pub(super) Arc<Context>);

#[tonic::async_trait]
impl AdminService for AdminApi {
    async fn report(
        &self,
        _request: Request<wire::ReportRequest>,
    ) -> Result<Response<wire::ReportResponse>, Status> {
        self.0.answer(Method::Report, self.0.report()).await
    }

    type FsckStream = Pin<Box<dyn Stream<Item = Result<wire::FsckFile, Status>> + Send>>;

    async fn fsck(
        &self,
        request: Request<wire::FsckRequest>,
    ) -> Result<Response<Self::FsckStream>, Status> {
        let wire::FsckRequest { path, only_findings } = request.into_inner();
        let started = self.0.seams.clock.now();
        let path = view::parse_path(&path)?;
        let metrics = Arc::clone(&self.0.metrics);
        let clock = Arc::clone(&self.0.seams.clock);
        let files = fsck::files(Arc::clone(&self.0), path, only_findings);
        let files = files.map(|file| file.map_err(Status::from));
        let counted = files.chain(futures::stream::poll_fn(move |_| {
            let took = clock.now().saturating_sub(started);
            metrics.call(Method::Fsck, CallOutcome::Done, took);
            std::task::Poll::Ready(None)
        }));
        Ok(Response::new(Box::pin(counted)))
    }

    async fn repair(
        &self,
        request: Request<wire::RepairRequest>,
    ) -> Result<Response<wire::RepairResponse>, Status> {
        self.0.answer(Method::Repair, self.0.repair(request.into_inner())).await
    }

    async fn set_node_mode(
        &self,
        request: Request<wire::SetNodeModeRequest>,
    ) -> Result<Response<wire::SetNodeModeResponse>, Status> {
        self.0.answer(Method::SetNodeMode, self.0.set_node_mode(request.into_inner())).await
    }

    async fn balance(
        &self,
        request: Request<wire::BalanceRequest>,
    ) -> Result<Response<wire::BalanceResponse>, Status> {
        self.0.answer(Method::Balance, self.0.balance(request.into_inner())).await
    }
}

impl Context {
    async fn report(&self) -> Result<wire::ReportResponse, FsError> {
        let totals = self.driver.read(|tables| Ok(view::totals(tables)?)).await?;
        let repair = self.hub.repair();
        let now = self.hub.now();
        let datanodes = self.reports_of(|_| true).await?;
        let sum = |of: fn(&wire::DatanodeReport) -> u64| -> u64 {
            datanodes
                .iter()
                .filter(|node| !is_dead(node))
                .fold(0, |sum: u64, node| sum.saturating_add(of(node)))
        };
        Ok(wire::ReportResponse {
            cluster_id: self.driver.cluster_id().to_bytes(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: now.as_millis() as u64,
            files: totals.files,
            directories: totals.directories,
            blocks: totals.blocks,
            under_replicated: totals.under_replicated.max(repair.counts.under_replicated),
            corrupt: totals.corrupt.max(repair.counts.corrupt),
            missing: repair.counts.missing,
            repairs_running: repair.running as u64,
            repairs_waiting: repair.waiting as u64,
            capacity: sum(|node| node.capacity),
            used: sum(|node| node.used),
            available: sum(|node| node.available),
            repair_paused: repair.paused,
            datanodes,
        })
    }
}

fn is_dead(node: &wire::DatanodeReport) -> bool {
    node.node.as_ref().is_some_and(|node| node.state() == wire::NodeState::Dead)
}
