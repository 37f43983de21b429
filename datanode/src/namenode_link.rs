//! The link to the namenode: registers, then keeps one stream of heartbeats one way and orders the
//! other.
//!
//! When the stream breaks, the node registers again, with the next namenode if several are known.
//! What was sent shortly before is sent again ([`Outbox`](crate::engine::outbox)). Only two things
//! end the link, and with it the process: the node belongs to another cluster, or the namenode
//! speaks another version; neither mends itself.

mod message;
mod session;

use std::sync::Arc;
use std::time::Duration;

use doldam_proto::FsError;
use doldam_proto::id::{ClusterId, NodeId};
use doldam_proto::limits::{GRPC_MESSAGE_BYTES_MAX, PROTOCOL_VERSION};
use doldam_proto::wire;
use doldam_proto::wire::datanode_service_client::DatanodeServiceClient;
use doldam_runtime::grpc;
use doldam_runtime::leader::{Leader, NoNamenode};
use doldam_runtime::retry::Backoff;
use doldam_runtime::tasks::run_blocking;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tracing::{info, warn};

use crate::blocks::version_file::FolderIdentity;
use crate::blocks::volume::FolderError;
use crate::driver::LinkEvent;
use crate::node::Node;
use crate::stream::failure::chain;

/// How long a registration may take.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses between attempts.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Bounds of what a namenode may ask for.
const HEARTBEAT_MIN: Duration = Duration::from_millis(20);
const HEARTBEAT_MAX: Duration = Duration::from_mins(1);

/// Why the node cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It belongs to another cluster than the namenode.
    #[error(
        "the namenode at {namenode} refuses this datanode ({why}); \
         start it with the namenode of its own cluster, or with empty data folders"
    )]
    WrongCluster {
        /// Which namenode.
        namenode: String,
        /// Both clusters.
        why: String,
    },
    /// The namenode is of another release.
    #[error(
        "the namenode at {namenode} speaks another version ({why}); use the same release on both"
    )]
    WrongVersion {
        /// Which namenode.
        namenode: String,
        /// Both versions.
        why: String,
    },
    /// That the node joined the cluster cannot be written down.
    #[error("cannot write the id of the cluster to a data folder")]
    Join {
        /// Which folder, and what failed.
        #[source]
        source: FolderError,
    },
    /// No namenode was named.
    #[error(transparent)]
    NoNamenode(#[from] NoNamenode),
    /// A setting is no address.
    #[error(transparent)]
    BadAddress(#[from] grpc::BadAddress),
}

/// How an attempt ended.
pub(crate) enum End {
    /// The server is stopping.
    Stopping,
    /// Another attempt may succeed.
    Lost(Status),
    /// No attempt will.
    Fatal(LinkError),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self::Lost(status)
    }
}

/// What the namenode answered to a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Registration {
    pub(crate) node: NodeId,
    pub(crate) epoch: u64,
    pub(crate) heartbeat: Duration,
}

/// Keeps the link until the server stops.
///
/// # Errors
/// If this node and the namenode can never work together.
pub(crate) async fn keep_link(
    node: Arc<Node>,
    driver: mpsc::Sender<LinkEvent>,
) -> Result<(), LinkError> {
    let mut leader = Leader::new(node.config.namenodes.clone())?;
    for address in leader.addresses() {
        grpc::channel(Arc::clone(&node.seams.net), address, PAUSE_MAX)?; // Only to check it.
    }
    let mut backoff = Backoff::new(PAUSE_FIRST, PAUSE_MAX);
    loop {
        let namenode = leader.current().to_owned();
        let end = attempt(&node, &driver, &namenode, &mut backoff).await;
        node.membership.set_connected(false);
        node.store.news().stream_lost();
        match end {
            End::Stopping => return Ok(()),
            End::Fatal(cause) => return Err(cause),
            End::Lost(status) => {
                match FsError::from_status(&status) {
                    Some(FsError::NotLeader { leader: hint }) => {
                        leader.handle_redirect(&namenode, &hint);
                    }
                    _ => {
                        leader.handle_silence(&namenode);
                    }
                }
                let pause = backoff.next_pause(&*node.seams.random);
                let why = chain(&status);
                warn!(namenode, why, ?pause, "no link to the namenode; trying again");
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(pause) => {}
                    () = node.stopping.cancelled() => return Ok(()),
                }
            }
        }
    }
}

async fn attempt(
    node: &Arc<Node>,
    driver: &mpsc::Sender<LinkEvent>,
    namenode: &str,
    backoff: &mut Backoff,
) -> End {
    let connect_timeout = node.config.connect_timeout.0;
    let channel = match grpc::channel(Arc::clone(&node.seams.net), namenode, connect_timeout) {
        Ok(channel) => channel,
        Err(bad) => return End::Fatal(bad.into()),
    };
    let mut client = DatanodeServiceClient::new(channel)
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    let registered = tokio::select! {
        biased;
        () = node.stopping.cancelled() => return End::Stopping,
        registered = register(node, &mut client, namenode) => registered,
    };
    let registration = match registered {
        Ok(registration) => registration,
        Err(end) => return end,
    };
    info!(namenode, node = %registration.node, epoch = registration.epoch, "registered");
    if driver.send(LinkEvent::Registered(registration.epoch)).await.is_err() {
        return End::Stopping; // The driver ends only then.
    }
    tell_what_may_go(node);
    backoff.reset();
    session::run(node, driver, &mut client, registration).await
}

async fn register(
    node: &Arc<Node>,
    client: &mut DatanodeServiceClient<Channel>,
    namenode: &str,
) -> Result<Registration, End> {
    let mut request = Request::new(wire::RegisterRequest {
        protocol_version: PROTOCOL_VERSION,
        node_uuid: node.membership.uuid.to_bytes(),
        cluster_id: node.membership.cluster().map(ClusterId::to_bytes).unwrap_or_default(),
        address: node.membership.address.clone(),
        rack: node.config.rack.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    });
    request.set_timeout(REGISTER_TIMEOUT);
    let answered = tokio::time::timeout(REGISTER_TIMEOUT, client.register(request)).await;
    let response = match answered {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return Err(refused(namenode, status)),
        Err(_elapsed) => return Err(Status::deadline_exceeded("registering took too long").into()),
    };
    let cluster = ClusterId::from_slice(&response.cluster_id);
    let (Some(cluster), true) = (cluster, response.node_id != 0) else {
        return Err(Status::internal("the namenode gave no cluster or node id").into());
    };
    join(node, namenode, cluster).await?;
    node.membership.register(NodeId(response.node_id));
    let heartbeat = Duration::from_millis(u64::from(response.heartbeat_ms));
    Ok(Registration {
        node: NodeId(response.node_id),
        epoch: response.epoch,
        heartbeat: heartbeat.clamp(HEARTBEAT_MIN, HEARTBEAT_MAX),
    })
}

/// What a refused registration means.
fn refused(namenode: &str, status: Status) -> End {
    let namenode = namenode.to_owned();
    match FsError::from_status(&status) {
        Some(cause @ FsError::WrongCluster { .. }) => {
            End::Fatal(LinkError::WrongCluster { namenode, why: cause.to_string() })
        }
        Some(cause @ FsError::WrongVersion { .. }) => {
            End::Fatal(LinkError::WrongVersion { namenode, why: cause.to_string() })
        }
        _ if status.code() == Code::Unimplemented => {
            let why = status.message().to_owned();
            End::Fatal(LinkError::WrongVersion { namenode, why })
        }
        _ => End::Lost(status),
    }
}

/// Writes down to which cluster this node belongs, before anything is done in its name. A node
/// joins once.
async fn join(node: &Arc<Node>, namenode: &str, cluster: ClusterId) -> Result<(), End> {
    match node.membership.cluster() {
        Some(ours) if ours == cluster => return Ok(()),
        Some(ours) => {
            let (namenode, why) = (namenode.to_owned(), format!("it is {cluster}, we are {ours}"));
            return Err(End::Fatal(LinkError::WrongCluster { namenode, why }));
        }
        None => {}
    }
    let identity = FolderIdentity { node: node.membership.uuid, cluster: Some(cluster) };
    let store = Arc::clone(&node.store);
    let adopt = move || {
        // A folder that fails now is given up, like at any other time; the others carry the node.
        for volume in store.volumes().iter().filter(|volume| !volume.has_failed()) {
            match volume.adopt(&identity) {
                Err(cause) if cause.is_broken_disk() => volume.give_up(&cause),
                adopted => adopted?,
            }
        }
        Ok(())
    };
    match run_blocking(adopt).await {
        Ok(Ok(())) => {}
        Ok(Err(source)) => return Err(End::Fatal(LinkError::Join { source })),
        Err(_panicked) => return Err(Status::internal("joining the cluster panicked").into()),
    }
    info!(%cluster, "joined a cluster");
    node.membership.join(cluster, &node.seams, node.config.forwarding_deadlines());
    Ok(())
}

/// Has the namenode told of bad replicas and of blocks that writers left, which it orders dropped once it can do
/// without them. It may have been told before, or not: these are few, and telling again does no harm.
/// What is known of a bad one in more detail is not replaced by this.
fn tell_what_may_go(node: &Node) {
    node.store.tell_open();
    let bad: Vec<_> = node.store.state().inventory.quarantined().map(|(key, _)| key).collect();
    for key in bad.into_iter().filter(|key| !node.store.news().has_news_of(*key)) {
        node.store.report_bad(key, "found bad before");
    }
}

#[cfg(test)]
#[path = "namenode_link/link_test.rs"]
mod tests;
