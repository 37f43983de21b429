//! The calls of administrators.

use doldam_proto::FsError;
use doldam_proto::limits::GRPC_MESSAGE_BYTES_MAX;
use doldam_proto::path::FsPath;
use doldam_proto::wire::{self, admin_service_client::AdminServiceClient};
use futures::{Stream, StreamExt};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::retry::{Retry, cause_of};
use super::{Endpoint, Metadata, bad_answer, prepare, within_deadline};
use crate::admin::{BalanceReport, ClusterReport, DatanodeReport, RepairReport};
use crate::error::{ClientError, NamenodeFailure};

fn service(endpoint: &Endpoint) -> AdminServiceClient<Channel> {
    AdminServiceClient::new(endpoint.channel())
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX)
}

impl Metadata {
    pub(crate) async fn report(&self) -> Result<ClusterReport, ClientError> {
        let request = wire::ReportRequest {};
        let answer = self.ask("report", request, |mut service, request| async move {
            service.report(request).await
        });
        answer.await?.try_into()
    }

    pub(crate) async fn repair(
        &self,
        request: wire::RepairRequest,
    ) -> Result<RepairReport, ClientError> {
        let answer = self.ask("repair", request, |mut service, request| async move {
            service.repair(request).await
        });
        answer.await?.try_into()
    }

    pub(crate) async fn set_node_mode(
        &self,
        request: wire::SetNodeModeRequest,
    ) -> Result<DatanodeReport, ClientError> {
        let answer = self.ask("set node mode", request, |mut service, request| async move {
            service.set_node_mode(request).await
        });
        let node = answer.await?.node.ok_or_else(|| bad_answer("no datanode"))?;
        node.try_into()
    }

    pub(crate) async fn balance(
        &self,
        request: wire::BalanceRequest,
    ) -> Result<BalanceReport, ClientError> {
        let answer = self.ask("balance", request, |mut service, request| async move {
            service.balance(request).await
        });
        Ok(answer.await?.status.unwrap_or_default().into())
    }

    /// Makes one call, again after failures that may pass: none of them does harm if it is made twice.
    async fn ask<Q: Clone, A, F>(
        &self,
        operation: &'static str,
        question: Q,
        call: impl Fn(AdminServiceClient<Channel>, Request<Q>) -> F,
    ) -> Result<A, ClientError>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let trace = self.new_trace();
        let mut retry = Retry::new(self, operation, self.patience());
        loop {
            let (endpoint, within) = retry.next().await?;
            let request = prepare(question.clone(), within, &trace);
            match within_deadline(within, call(service(endpoint), request)).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => retry.failed(endpoint, &status)?,
            }
        }
    }

    /// Starts a walk; each file of it has to come within the deadline of one try. A walk that broke off is not
    /// taken up again: the caller has seen a part of it.
    pub(crate) async fn fsck(
        &self,
        path: &FsPath,
        only_findings: bool,
    ) -> Result<impl Stream<Item = Result<wire::FsckFile, ClientError>> + use<>, ClientError> {
        let trace = self.new_trace();
        let mut retry = Retry::new(self, "fsck", self.patience());
        let (endpoint, files) = loop {
            let (endpoint, within) = retry.next().await?;
            let mut request =
                Request::new(wire::FsckRequest { path: path.to_string(), only_findings });
            // Its deadline is that of each file, not of the walk.
            doldam_runtime::telemetry::inject_trace(request.metadata_mut(), &trace);
            let mut service = service(endpoint);
            match within_deadline(within, service.fsck(request)).await {
                Ok(files) => break (endpoint, files.into_inner()),
                Err(status) => retry.failed(endpoint, &status)?,
            }
        };
        let (address, limit) = (endpoint.address.clone(), self.config.operation_timeout);
        let broken = move |status: &Status| match FsError::from_status(status) {
            Some(refusal) => ClientError::Refused(refusal),
            None => ClientError::Unreachable {
                operation: "fsck",
                tried: vec![NamenodeFailure { address: address.clone(), cause: cause_of(status) }],
                waited: limit,
            },
        };
        Ok(futures::stream::unfold(Some(files), move |files| {
            let broken = broken.clone();
            async move {
                let mut files = files?;
                match within_deadline(limit, async { Ok(files.next().await) }).await {
                    Ok(Some(Ok(file))) => Some((Ok(file), Some(files))),
                    Ok(None) => None,
                    Ok(Some(Err(status))) | Err(status) => Some((Err(broken(&status)), None)),
                }
            }
        }))
    }
}
