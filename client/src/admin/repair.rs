//! What is at risk, what is done about it, and how far nodes and balancing are.

use doldam_proto::id::BlockId;
use doldam_proto::node::NodeAddress;
use doldam_proto::wire;
use serde::{Deserialize, Serialize};

use super::DatanodeReport;
use crate::error::ClientError;
use crate::metadata::bad_answer;

/// What an administrator decided about a datanode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeMode {
    /// Nothing.
    InService,
    /// It is read but gets no new replica; what it holds is made elsewhere, then dropped.
    Draining,
    /// It may be away until a time without its replicas being made elsewhere.
    Maintenance,
}

impl TryFrom<i32> for NodeMode {
    type Error = ClientError;

    fn try_from(mode: i32) -> Result<Self, ClientError> {
        match wire::NodeMode::try_from(mode) {
            Ok(wire::NodeMode::Unspecified) => Ok(Self::InService),
            Ok(wire::NodeMode::Draining) => Ok(Self::Draining),
            Ok(wire::NodeMode::Maintenance) => Ok(Self::Maintenance),
            Err(_) => Err(bad_answer(format!("a datanode in the unknown mode {mode}"))),
        }
    }
}

/// Repair at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepairReport {
    /// So many datanodes vanished at once that nothing is copied.
    pub paused: bool,
    /// Why it is paused and what to do; empty if it is not.
    pub alarm: String,
    /// How many blocks have how many good replicas on live nodes, of those that have too few; fewest first.
    pub at_risk: Vec<AtRisk>,
    /// Copies under way.
    pub running: u64,
    /// Blocks that wait.
    pub waiting: u64,
    /// The oldest of the copies under way.
    pub copies: Vec<RunningCopy>,
    /// The blocks that wait, the nearest to loss first.
    pub blocks: Vec<WaitingBlock>,
    /// Bytes of copies that wait or run.
    pub todo_bytes: u64,
    /// Bytes of copies that were confirmed within the last minute.
    pub minute_bytes: u64,
    /// Their number.
    pub minute_copies: u64,
    /// Until `todo_bytes` are copied at the rate of the last minute; `None` if that is unknown or nothing is to do.
    pub estimate_ms: Option<u64>,
    /// Datanodes that are draining or in maintenance.
    pub leaving: Vec<DatanodeReport>,
    /// The latest balancing.
    pub balance: BalanceReport,
    /// Limit of all repair copies together; 0: none.
    pub bytes_per_sec: u64,
    /// Replicas that datanodes are yet to be told to drop.
    pub drops_waiting: u64,
    /// Abandoned files that wait for datanodes to be closed.
    pub stuck: u64,
    /// Some of them.
    pub stuck_files: Vec<StuckFile>,
}

/// A file whose writer is gone, and of whose end no datanode that answered has what readers see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StuckFile {
    /// Which.
    pub path: String,
    /// Datanodes that may have it and did not answer. None: not even what was synced is there any more.
    pub missing: Vec<String>,
}

/// A number of blocks that have too few replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AtRisk {
    /// Good replicas on live nodes.
    pub live: u32,
    /// Blocks that have so many.
    pub blocks: u64,
}

/// What a copy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyReason {
    /// There are too few replicas.
    Repair,
    /// A holder is draining.
    Drain,
    /// A holder may go away for a while.
    Maintenance,
    /// All replicas are on one rack.
    Spread,
    /// A datanode is fuller than others.
    Balance,
}

/// A copy under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunningCopy {
    /// Of which block.
    pub block: BlockId,
    /// Who sends.
    pub source: NodeAddress,
    /// Who receives.
    pub target: NodeAddress,
    /// How much.
    pub bytes: u64,
    /// Since it was ordered.
    pub age_ms: u64,
    /// What for.
    pub reason: CopyReason,
    /// The target has it, and it is about to count.
    pub stored: bool,
}

/// A block that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WaitingBlock {
    /// Which.
    pub block: BlockId,
    /// Its file; empty if that has no name any more.
    pub path: String,
    /// Good replicas on live nodes.
    pub live: u32,
    /// Replicas its file asks for.
    pub wanted: u32,
    /// Why it waits.
    pub why: String,
    /// What stands against each datanode that could help.
    pub nodes: Vec<NodeReason>,
    /// It is looked at again after this time at the latest; `None`: as soon as something changes.
    pub retry_ms: Option<u64>,
}

/// What stands against a datanode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeReason {
    /// Which.
    pub node: String,
    /// What.
    pub reason: String,
}

/// The latest balancing, and what is left for it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct BalanceReport {
    /// Whether it is under way.
    pub running: bool,
    /// How far the used share of a datanode may be from the mean, in millionths; 0 if there was none.
    pub threshold_ppm: u32,
    /// Limit of all moves together; 0: none.
    pub bytes_per_sec: u64,
    /// Used share of all datanodes together, in millionths.
    pub mean_ppm: u32,
    /// The largest distance of a datanode from it.
    pub farthest_ppm: u32,
    /// Bytes to be moved until every datanode is within the threshold.
    pub left_bytes: u64,
    /// Moves under way.
    pub moves_running: u64,
    /// Blocks moved so far.
    pub moved_blocks: u64,
    /// Their bytes.
    pub moved_bytes: u64,
    /// Since its start, or how long it took.
    pub elapsed_ms: u64,
    /// How it ended; empty while it runs or if there was none.
    pub ended: String,
}

impl TryFrom<wire::RepairResponse> for RepairReport {
    type Error = ClientError;

    fn try_from(report: wire::RepairResponse) -> Result<Self, ClientError> {
        let at_risk = report.at_risk.iter();
        Ok(Self {
            paused: report.paused,
            alarm: report.alarm,
            at_risk: at_risk.map(|risk| AtRisk { live: risk.live, blocks: risk.blocks }).collect(),
            running: report.running,
            waiting: report.waiting,
            copies: report.copies.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            blocks: report.blocks.into_iter().map(Into::into).collect(),
            todo_bytes: report.todo_bytes,
            minute_bytes: report.minute_bytes,
            minute_copies: report.minute_copies,
            estimate_ms: (report.estimate_ms > 0).then_some(report.estimate_ms),
            leaving: report.leaving.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            balance: report.balance.unwrap_or_default().into(),
            bytes_per_sec: report.bytes_per_sec,
            drops_waiting: report.drops_waiting,
            stuck: report.stuck,
            stuck_files: report
                .stuck_files
                .into_iter()
                .map(|wire::StuckFile { path, missing }| StuckFile { path, missing })
                .collect(),
        })
    }
}

impl TryFrom<wire::RunningCopy> for RunningCopy {
    type Error = ClientError;

    fn try_from(copy: wire::RunningCopy) -> Result<Self, ClientError> {
        let reason = match copy.reason() {
            wire::CopyReason::Repair => CopyReason::Repair,
            wire::CopyReason::Drain => CopyReason::Drain,
            wire::CopyReason::Maintenance => CopyReason::Maintenance,
            wire::CopyReason::Spread => CopyReason::Spread,
            wire::CopyReason::Balance => CopyReason::Balance,
            wire::CopyReason::Unspecified => return Err(bad_answer("a copy without a reason")),
        };
        let node = |node: Option<wire::NodeAddress>| {
            node.ok_or_else(|| bad_answer("a copy without its nodes"))
        };
        Ok(Self {
            block: BlockId(copy.block_id),
            source: node(copy.source)?.try_into()?,
            target: node(copy.target)?.try_into()?,
            bytes: copy.bytes,
            age_ms: copy.age_ms,
            reason,
            stored: copy.stored,
        })
    }
}

impl From<wire::WaitingBlock> for WaitingBlock {
    fn from(block: wire::WaitingBlock) -> Self {
        let reason = |each: wire::NodeReason| NodeReason { node: each.node, reason: each.reason };
        Self {
            block: BlockId(block.block_id),
            path: block.path,
            live: block.live,
            wanted: block.wanted,
            why: block.why,
            nodes: block.nodes.into_iter().map(reason).collect(),
            retry_ms: (block.retry_ms > 0).then_some(block.retry_ms),
        }
    }
}

impl From<wire::BalanceStatus> for BalanceReport {
    fn from(status: wire::BalanceStatus) -> Self {
        Self {
            running: status.running,
            threshold_ppm: status.threshold_ppm,
            bytes_per_sec: status.bytes_per_sec,
            mean_ppm: status.mean_ppm,
            farthest_ppm: status.farthest_ppm,
            left_bytes: status.left_bytes,
            moves_running: status.moves_running,
            moved_blocks: status.moved_blocks,
            moved_bytes: status.moved_bytes,
            elapsed_ms: status.elapsed_ms,
            ended: status.ended,
        }
    }
}
