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
            ..Default::default()
        };
        let report = wire::ReportResponse {
            cluster_id: CLUSTER.to_bytes(),
            files: 3,
            datanodes: vec![datanode],
            ..Default::default()
        };
        Self { findings: Arc::default(), report: Arc::new(Mutex::new(report)) }
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
