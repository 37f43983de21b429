//! The calls of administrators.

use doldam_proto::FsError;
use doldam_proto::limits::GRPC_MESSAGE_BYTES_MAX;
use doldam_proto::path::FsPath;
use doldam_proto::wire::{self, admin_service_client::AdminServiceClient};
use futures::{Stream, StreamExt};
use tonic::Status;
use tonic::transport::Channel;

use super::retry::{Retry, cause_of};
use super::{Endpoint, Metadata, prepare, within_deadline};
use crate::admin::ClusterReport;
use crate::error::{ClientError, NamenodeFailure};

fn service(endpoint: &Endpoint) -> AdminServiceClient<Channel> {
    AdminServiceClient::new(endpoint.channel())
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX)
}

impl Metadata {
    pub(crate) async fn report(&self) -> Result<ClusterReport, ClientError> {
        let trace = self.new_trace();
        let mut retry = Retry::new(self, "report", self.patience());
        loop {
            let (endpoint, within) = retry.next().await?;
            let request = prepare(wire::ReportRequest {}, within, &trace);
            let mut service = service(endpoint);
            match within_deadline(within, service.report(request)).await {
                Ok(report) => return report.into_inner().try_into(),
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
                tonic::Request::new(wire::FsckRequest { path: path.to_string(), only_findings });
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
