//! What administrators see: the cluster's report, and the health of files.

use std::pin::Pin;
use std::task::{Context, Poll};

use doldam_proto::id::{BlockId, Generation};
use doldam_proto::node::NodeAddress;
use futures::Stream;
use futures::stream::BoxStream;
use serde::Serialize;

use crate::error::ClientError;

/// The cluster at one moment, as the namenode sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterReport {
    /// The cluster's id, in hexadecimal.
    pub cluster_id: String,
    /// Release of the namenode.
    pub version: String,
    /// Since the namenode started.
    pub uptime_ms: u64,
    /// Number of files.
    pub files: u64,
    /// Number of directories.
    pub directories: u64,
    /// Number of blocks.
    pub blocks: u64,
    /// Committed blocks with fewer live replicas than wanted.
    pub under_replicated: u64,
    /// Blocks with a replica known to be bad.
    pub corrupt: u64,
    /// Blocks without any live good replica.
    pub missing: u64,
    /// Copies under way.
    pub repairs_running: u64,
    /// Copies that wait.
    pub repairs_waiting: u64,
    /// Too many nodes vanished at once: nothing is copied until some are back.
    pub repair_paused: bool,
    /// Bytes of all data folders together.
    pub capacity: u64,
    /// Bytes of replicas.
    pub used: u64,
    /// Bytes that new replicas may take.
    pub available: u64,
    /// Every datanode that ever registered.
    pub datanodes: Vec<DatanodeReport>,
}

/// A datanode at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DatanodeReport {
    /// Its id, address, rack and state.
    #[serde(flatten)]
    pub node: NodeAddress,
    /// The id it chose at its first start, in hexadecimal.
    pub uuid: String,
    /// Bytes of its data folders together.
    pub capacity: u64,
    /// Bytes of its replicas.
    pub used: u64,
    /// Bytes that new replicas may take.
    pub available: u64,
    /// Number of replicas.
    pub replicas: u64,
    /// Since its last heartbeat.
    pub silent_ms: u64,
    /// Block streams that are open.
    pub active_streams: u32,
    /// Its release.
    pub version: String,
    /// Data folders it gave up.
    pub failed_volumes: Vec<String>,
}

/// How a block, or a file by the worst of its blocks, is doing; from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockHealth {
    /// As many good live replicas as wanted.
    Healthy,
    /// Fewer, but at least one.
    UnderReplicated,
    /// It has a bad replica; good ones are left.
    Corrupt,
    /// No good replica is on a live node.
    Missing,
}

/// The health of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FsckFile {
    /// Where it is.
    pub path: String,
    /// In bytes.
    pub length: u64,
    /// Wanted replicas.
    pub replication: u32,
    /// The worst of its blocks.
    pub health: BlockHealth,
    /// How many blocks it has.
    pub block_count: u32,
    /// Its blocks; only those with a finding if only findings were asked for.
    pub blocks: Vec<FsckBlock>,
}

/// The health of one block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FsckBlock {
    /// The block.
    pub id: BlockId,
    /// Its generation.
    pub generation: Generation,
    /// Position in the file.
    pub index: u32,
    /// How it is doing.
    pub health: BlockHealth,
    /// Good replicas on live nodes.
    pub live: u32,
    /// All good replicas.
    pub replicas: Vec<NodeAddress>,
    /// Replicas known to be bad.
    pub bad_replicas: Vec<NodeAddress>,
}

/// The findings of [`fsck`](crate::Client::fsck), file by file as the namenode walks the tree.
///
/// Dropping it ends the walk.
pub struct FsckStream(BoxStream<'static, Result<FsckFile, ClientError>>);

impl FsckStream {
    pub(crate) fn new(files: BoxStream<'static, Result<FsckFile, ClientError>>) -> Self {
        Self(files)
    }
}

impl Stream for FsckStream {
    type Item = Result<FsckFile, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}
