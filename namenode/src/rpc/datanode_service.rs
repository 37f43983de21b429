//! Registration and heartbeats of datanodes.
//!
//! The stream of heartbeats and the stream of orders are one call. What comes in is handled by the same future that
//! waits for orders to go out, so there is no task beside the call: when the call ends, in whatever way, the node is
//! suspect at once.

use std::pin::Pin;
use std::sync::Arc;

use doldam_proto::FsError;
use doldam_proto::convert::BadMessage;
use doldam_proto::id::{ClusterId, NodeId, NodeUuid};
use doldam_proto::limits::PROTOCOL_VERSION;
use doldam_proto::wire;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::datanode_service_server::DatanodeService;
use doldam_proto::wire::{DatanodeMessage, NamenodeMessage, RegisterNodeCommand, outcome};
use futures::{Stream, stream};
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::{Context, check_text, report, wrong_outcome};
use crate::control::hub::{Hub, NodeMessage};
use crate::control::links::LinkEnd;
use crate::engine::cluster::topology::{host_of, normal_rack};
use crate::engine::cluster::{NodeIdentity, Session};
use crate::metrics::{CallOutcome, Method};

/// The service.
pub(super) struct DatanodeApi(pub(super) Arc<Context>);

#[tonic::async_trait]
impl DatanodeService for DatanodeApi {
    async fn register(
        &self,
        request: Request<wire::RegisterRequest>,
    ) -> Result<Response<wire::RegisterResponse>, Status> {
        self.0.answer(Method::Register, self.0.register(request.into_inner())).await
    }

    type HeartbeatStream = Pin<Box<dyn Stream<Item = Result<NamenodeMessage, Status>> + Send>>;

    async fn heartbeat(
        &self,
        request: Request<Streaming<DatanodeMessage>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let link = Link { context: Arc::clone(&self.0), inbound: request.into_inner(), open: None };
        let orders = stream::unfold(Some(link), |link| async {
            let mut link = link?;
            match link.next_orders().await {
                Ok(Some(orders)) => Some((Ok(orders), Some(link))),
                Ok(None) => None,
                Err(refusal) => Some((Err(link.refuse(refusal)), None)),
            }
        });
        Ok(Response::new(Box::pin(orders)))
    }
}

impl Context {
    async fn register(
        &self,
        request: wire::RegisterRequest,
    ) -> Result<wire::RegisterResponse, FsError> {
        if request.protocol_version != PROTOCOL_VERSION {
            let (expected, found) = (PROTOCOL_VERSION, request.protocol_version);
            return Err(FsError::WrongVersion { expected, found });
        }
        let cluster = self.driver.cluster_id();
        check_cluster(cluster, &request.cluster_id)?;
        let uuid = NodeUuid::from_slice(&request.node_uuid)
            .ok_or_else(|| BadMessage::new("node_uuid", "not 16 bytes"))?;
        check_text("address", &request.address)?;
        check_text("version", &request.version)?;
        if host_of(&request.address).is_none() {
            let why = format!("{:?} is no HOST:PORT", request.address);
            return Err(BadMessage::new("address", why).into());
        }
        let rack = normal_rack(&request.rack).map_err(|why| BadMessage::new("rack", why))?;
        let address = request.address;
        let change = Change::RegisterNode(RegisterNodeCommand {
            node_uuid: uuid.to_bytes(),
            address: address.clone(),
            rack: rack.clone(),
        });
        let outcome = self.driver.propose(None, change).await?;
        let Some(outcome::Kind::RegisterNode(registered)) = outcome.kind else {
            return Err(wrong_outcome());
        };
        let id = NodeId(registered.node_id);
        info!(node = %id, address, rack, %uuid, "a datanode registered");
        self.hub.register(NodeIdentity { id, uuid, address, rack }, request.version);
        Ok(wire::RegisterResponse {
            cluster_id: cluster.to_bytes(),
            node_id: id.0,
            epoch: self.driver.epoch().0,
            heartbeat_ms: self.config.heartbeat.0.as_millis() as u32,
        })
    }
}

/// A node that never joined a cluster names none.
fn check_cluster(expected: ClusterId, found: &[u8]) -> Result<(), FsError> {
    if found.is_empty() || ClusterId::from_slice(found) == Some(expected) {
        return Ok(());
    }
    let found = match ClusterId::from_slice(found) {
        Some(found) => found.to_string(),
        None => return Err(BadMessage::new("cluster_id", "neither empty nor 16 bytes").into()),
    };
    Err(FsError::WrongCluster { expected: expected.to_string(), found })
}

/// One call of `Heartbeat`.
struct Link {
    context: Arc<Context>,
    inbound: Streaming<DatanodeMessage>,
    /// From the first message on.
    open: Option<OpenLink>,
}

struct OpenLink {
    node: NodeId,
    session: Session,
    orders: LinkEnd,
    hub: Arc<Hub>,
}

impl Drop for OpenLink {
    fn drop(&mut self) {
        info!(node = %self.node, "the heartbeat stream of a datanode ended");
        self.hub.stream_closed(self.node, self.session);
    }
}

impl Link {
    /// Takes heartbeats in until there are orders to hand out; `None` at the end of the stream.
    async fn next_orders(&mut self) -> Result<Option<NamenodeMessage>, FsError> {
        let stopping = self.context.stopping.clone();
        loop {
            let orders = async {
                match &mut self.open {
                    Some(open) => open.orders.next().await.ok_or(open.node),
                    None => std::future::pending().await,
                }
            };
            let message = tokio::select! {
                biased;
                () = stopping.cancelled() => return Ok(None),
                orders = orders => {
                    // Without a sender it was superseded, or its node has been silent for too long.
                    return orders.map(Some).map_err(|node| FsError::NotRegistered { node: node.0 });
                }
                message = self.inbound.message() => message,
            };
            match message {
                Ok(Some(message)) => self.take(message).await?,
                Ok(None) => return Ok(None),
                Err(cause) => {
                    tracing::debug!(%cause, "a heartbeat stream broke");
                    return Ok(None);
                }
            }
        }
    }

    async fn take(&mut self, message: DatanodeMessage) -> Result<(), FsError> {
        let context = Arc::clone(&self.context);
        let started = context.seams.clock.now();
        let node = NodeId(message.node_id);
        let session = self.session(node, message.epoch)?;
        let report = report::check(node, message)?;
        let registered = context.hub.heartbeat(node, session, report.load);
        registered.map_err(|_| FsError::NotRegistered { node: node.0 })?;
        let message = NodeMessage {
            node,
            session,
            sum: report.sum,
            events: report.events,
            buckets: report.buckets,
            listings: report.listings,
            recovered: report.recovered,
        };
        if !context.hub.deliver(message).await {
            return Err(FsError::Unavailable { why: "the namenode is stopping".to_owned() });
        }
        let took = context.seams.clock.now().saturating_sub(started);
        context.metrics.call(Method::Heartbeat, CallOutcome::Done, took);
        Ok(())
    }

    /// The session of this stream, which its first message opens.
    fn session(&mut self, node: NodeId, epoch: u64) -> Result<Session, FsError> {
        let refused = FsError::NotRegistered { node: node.0 };
        if epoch != self.context.driver.epoch().0 {
            return Err(refused);
        }
        if let Some(open) = &self.open {
            return if open.node == node { Ok(open.session) } else { Err(refused) };
        }
        let hub = Arc::clone(&self.context.hub);
        let session = hub.open_stream(node).map_err(|_| refused)?;
        let orders = hub.links.open(node, session);
        self.open = Some(OpenLink { node, session, orders, hub });
        Ok(session)
    }

    fn refuse(&self, refusal: FsError) -> Status {
        let outcome = CallOutcome::of(refusal.kind());
        self.context.metrics.call(Method::Heartbeat, outcome, std::time::Duration::ZERO);
        warn!(%refusal, "a heartbeat stream was ended");
        refusal.into()
    }
}
