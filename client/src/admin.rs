//! What administrators see: the cluster's report, the health of files, and repair; and what they do about it.

mod operations;
mod repair;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use doldam_proto::id::{BlockId, ClusterId, Generation, NodeUuid};
use doldam_proto::node::NodeAddress;
use doldam_proto::path::FsPath;
use doldam_proto::wire;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt};
use serde::Serialize;

pub use self::repair::{
    AtRisk, BalanceReport, CopyReason, NodeMode, NodeReason, RepairReport, RunningCopy, StuckFile,
    WaitingBlock,
};
use crate::error::ClientError;
use crate::metadata::{Metadata, bad_answer};

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
    /// Data folders it gave up, and why.
    pub failed_volumes: Vec<String>,
    /// Complete verifications of all it holds, by the working folder that had the fewest.
    pub scrub_passes: u64,
    /// None of its replicas has gone unverified for longer; 0 before the first verification began.
    pub scrub_oldest_secs: u64,
    /// What an administrator decided about it.
    pub mode: NodeMode,
    /// Of its maintenance.
    pub maintenance_left_ms: u64,
    /// The end of its maintenance, since the Unix epoch; 0 if it is in none.
    pub maintenance_until_ms: u64,
    /// Draining: blocks that still have a replica here. In maintenance: blocks with too few live replicas elsewhere.
    pub blocks_left: u64,
    /// Draining or in maintenance: blocks that are being written here.
    pub open_blocks_left: u64,
    /// Draining or in maintenance, and nothing is left to be done: it is decommissioned, or may go for a while.
    pub safe_to_stop: bool,
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
    pub(crate) fn new(metadata: Arc<Metadata>, path: FsPath, only_findings: bool) -> Self {
        let start = async move {
            let files = metadata.fsck(&path, only_findings).await?;
            Ok::<_, ClientError>(files.and_then(|file| async { file.try_into() }))
        };
        Self(stream::once(start).try_flatten().boxed())
    }

    /// No findings, but the reason.
    pub(crate) fn failed(error: ClientError) -> Self {
        Self(stream::iter([Err(error)]).boxed())
    }
}

impl fmt::Debug for FsckStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FsckStream").finish_non_exhaustive()
    }
}

impl Stream for FsckStream {
    type Item = Result<FsckFile, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

impl TryFrom<wire::ReportResponse> for ClusterReport {
    type Error = ClientError;

    fn try_from(report: wire::ReportResponse) -> Result<Self, ClientError> {
        let cluster = ClusterId::from_slice(&report.cluster_id)
            .ok_or_else(|| bad_answer("a report without a cluster id"))?;
        let datanodes = report.datanodes.into_iter().map(TryInto::try_into);
        Ok(Self {
            cluster_id: cluster.to_string(),
            version: report.version,
            uptime_ms: report.uptime_ms,
            files: report.files,
            directories: report.directories,
            blocks: report.blocks,
            under_replicated: report.under_replicated,
            corrupt: report.corrupt,
            missing: report.missing,
            repairs_running: report.repairs_running,
            repairs_waiting: report.repairs_waiting,
            repair_paused: report.repair_paused,
            capacity: report.capacity,
            used: report.used,
            available: report.available,
            datanodes: datanodes.collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<wire::DatanodeReport> for DatanodeReport {
    type Error = ClientError;

    fn try_from(report: wire::DatanodeReport) -> Result<Self, ClientError> {
        let node = report.node.ok_or_else(|| bad_answer("a datanode without an address"))?;
        let uuid = NodeUuid::from_slice(&report.node_uuid)
            .ok_or_else(|| bad_answer("a datanode without a uuid"))?;
        Ok(Self {
            node: node.try_into()?,
            uuid: uuid.to_string(),
            capacity: report.capacity,
            used: report.used,
            available: report.available,
            replicas: report.replicas,
            silent_ms: report.silent_ms,
            active_streams: report.active_streams,
            version: report.version,
            failed_volumes: report.failed_volumes,
            scrub_passes: report.scrub_passes,
            scrub_oldest_secs: report.scrub_oldest_secs,
            mode: report.mode.try_into()?,
            maintenance_left_ms: report.maintenance_left_ms,
            maintenance_until_ms: report.maintenance_until_ms,
            blocks_left: report.blocks_left,
            open_blocks_left: report.open_blocks_left,
            safe_to_stop: report.safe_to_stop,
        })
    }
}

fn health(health: wire::BlockHealth) -> Result<BlockHealth, ClientError> {
    match health {
        wire::BlockHealth::Healthy => Ok(BlockHealth::Healthy),
        wire::BlockHealth::UnderReplicated => Ok(BlockHealth::UnderReplicated),
        wire::BlockHealth::Corrupt => Ok(BlockHealth::Corrupt),
        wire::BlockHealth::Missing => Ok(BlockHealth::Missing),
        wire::BlockHealth::Unspecified => Err(bad_answer("an unknown state of health")),
    }
}

impl TryFrom<wire::FsckFile> for FsckFile {
    type Error = ClientError;

    fn try_from(file: wire::FsckFile) -> Result<Self, ClientError> {
        Ok(Self {
            health: health(file.health())?,
            path: file.path,
            length: file.length,
            replication: file.replication,
            block_count: file.block_count,
            blocks: file.blocks.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<wire::FsckBlock> for FsckBlock {
    type Error = ClientError;

    fn try_from(block: wire::FsckBlock) -> Result<Self, ClientError> {
        let nodes = |nodes: Vec<wire::NodeAddress>| {
            nodes.into_iter().map(NodeAddress::try_from).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            health: health(block.health())?,
            id: BlockId(block.block_id),
            generation: Generation(block.generation),
            index: block.index,
            live: block.live,
            replicas: nodes(block.replicas)?,
            bad_replicas: nodes(block.bad_replicas)?,
        })
    }
}
