//! The administrators' calls of the fake namenode.

use std::sync::Arc;

use doldam_proto::FsError;
use doldam_proto::wire::{self, admin_service_server::AdminService};
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::Mutex;
use tonic::{Request, Response, Status};

use super::CLUSTER;

/// What a walk is to find; an error ends it.
#[derive(Clone, Default)]
pub(crate) struct FakeAdmin {
    pub(crate) findings: Arc<Mutex<Vec<Result<wire::FsckFile, FsError>>>>,
    pub(crate) report: Arc<Mutex<wire::ReportResponse>>,
    pub(crate) repair: Arc<Mutex<wire::RepairResponse>>,
    /// Decisions about nodes that were asked for.
    pub(crate) asked: Arc<Mutex<Vec<wire::SetNodeModeRequest>>>,
}

impl FakeAdmin {
    pub(crate) fn new() -> Self {
        let node = wire::NodeAddress {
            node_id: 7,
            address: "a:1".into(),
            rack: "/r".into(),
            state: wire::NodeState::Suspect as i32,
        };
        let datanode = wire::DatanodeReport {
            node: Some(node),
            node_uuid: vec![5; 16].into(),
            replicas: 12,
            scrub_passes: 3,
            scrub_oldest_secs: 90,
            ..Default::default()
        };
        let report = wire::ReportResponse {
            cluster_id: CLUSTER.to_bytes(),
            files: 3,
            datanodes: vec![datanode],
            ..Default::default()
        };
        Self { report: Arc::new(Mutex::new(report)), ..Self::default() }
    }
}

#[tonic::async_trait]
impl AdminService for FakeAdmin {
    async fn report(
        &self,
        _request: Request<wire::ReportRequest>,
    ) -> Result<Response<wire::ReportResponse>, Status> {
        Ok(Response::new(self.report.lock().clone()))
    }

    async fn repair(
        &self,
        request: Request<wire::RepairRequest>,
    ) -> Result<Response<wire::RepairResponse>, Status> {
        let request = request.into_inner();
        let mut answer = self.repair.lock().clone();
        answer.blocks.truncate(request.blocks_max as usize);
        Ok(Response::new(answer))
    }

    async fn set_node_mode(
        &self,
        request: Request<wire::SetNodeModeRequest>,
    ) -> Result<Response<wire::SetNodeModeResponse>, Status> {
        let request = request.into_inner();
        let mut node = self.report.lock().datanodes[0].clone();
        (node.mode, node.maintenance_left_ms) = (request.mode, request.duration_ms);
        self.asked.lock().push(request);
        Ok(Response::new(wire::SetNodeModeResponse { node: Some(node) }))
    }

    async fn balance(
        &self,
        request: Request<wire::BalanceRequest>,
    ) -> Result<Response<wire::BalanceResponse>, Status> {
        let wire::BalanceRequest { action, threshold_ppm, bytes_per_sec } = request.into_inner();
        let running = action == wire::balance_request::Action::Start as i32;
        let status =
            wire::BalanceStatus { running, threshold_ppm, bytes_per_sec, ..Default::default() };
        Ok(Response::new(wire::BalanceResponse { status: Some(status) }))
    }

    type FsckStream = BoxStream<'static, Result<wire::FsckFile, Status>>;

    async fn fsck(
        &self,
        _request: Request<wire::FsckRequest>,
    ) -> Result<Response<Self::FsckStream>, Status> {
        let findings = self.findings.lock().clone();
        let findings = findings.into_iter().map(|finding| finding.map_err(Status::from));
        Ok(Response::new(stream::iter(findings).boxed()))
    }
}
