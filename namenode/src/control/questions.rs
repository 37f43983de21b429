//! What administrators want to know of repair: only the control loop can tell, for it owns the planner.

use std::time::Duration;

use doldam_proto::id::NodeId;
use tokio::sync::{mpsc, oneshot};

use super::Control;
use crate::engine::namespace::view;
use crate::engine::recovery::StuckFile;
use crate::engine::repair::explain::Explanation;
use crate::engine::repair::moves::BalanceStatus;
use crate::engine::repair::progress::Copied;
use crate::engine::repair::task::CopyTask;
use crate::engine::repair::{RepairStats, Surroundings, pause};
use crate::engine::tables::StoreError;

/// Questions that wait; who asks beyond that is told so.
pub(crate) const QUESTIONS_WAITING_MAX: usize = 16;

/// What is asked.
#[derive(Debug)]
pub(crate) struct Question {
    /// Waiting blocks to explain, and stuck files to name, at the most.
    pub(crate) blocks_max: usize,
    /// Running copies to tell of at the most.
    pub(crate) copies_max: usize,
    /// Where the answer goes.
    pub(crate) answer: oneshot::Sender<RepairView>,
}

/// Where the asking side puts questions in.
pub(crate) type Questions = mpsc::Sender<Question>;

/// Repair at one moment.
#[derive(Debug)]
pub(crate) struct RepairView {
    pub(crate) stats: RepairStats,
    /// How many blocks have how many live good replicas, of those that have too few.
    pub(crate) at_risk: Vec<(usize, u64)>,
    /// The oldest first, each with its age.
    pub(crate) copies: Vec<(CopyTask, Duration)>,
    /// The nearest to loss first, with the path of their file.
    pub(crate) waiting: Vec<(Explanation, Option<String>)>,
    /// Abandoned files that wait for datanodes, with their paths.
    pub(crate) stuck: Vec<(StuckFile, Option<String>)>,
    pub(crate) last_minute: Copied,
    pub(crate) estimate: Option<Duration>,
    /// Nodes whose sudden absence makes repair hold still.
    pub(crate) vanished: Vec<NodeId>,
    /// For how long it does so at the most.
    pub(crate) pause_window: Duration,
    pub(crate) bytes_per_sec: u64,
    pub(crate) balance: BalanceStatus,
}

impl Control {
    /// Answers one question.
    pub(super) fn answer(&self, question: Question) {
        let Question { blocks_max, copies_max, answer } = question;
        let now = self.hub.now();
        let reserved = self.hub.reserved();
        let (explained, _) = self.driver.peek(|tables| {
            let cluster = self.hub.cluster();
            let around = Surroundings { cluster: &cluster, reserved: &reserved, tables };
            let explanations = self.planner.explain_waiting(now, blocks_max, &around)?;
            let with_path = |explanation: Explanation| {
                let path = view::path_of(tables, explanation.block.inode)?;
                Ok((explanation, path))
            };
            let waiting: Result<Vec<_>, StoreError> =
                explanations.into_iter().map(with_path).collect();
            let with_path = |file: StuckFile| {
                let path = view::path_of(tables, file.inode)?;
                Ok((file, path))
            };
            let stuck = self.recovery.stuck(blocks_max).into_iter().map(with_path);
            Ok((waiting?, stuck.collect::<Result<Vec<_>, StoreError>>()?))
        });
        // A store that failed has stopped the process already.
        let Ok((waiting, stuck)) = explained else { return };
        let cluster = self.hub.cluster();
        let stats = self.planner.stats();
        let limits = self.planner.limits();
        let age = |task: &CopyTask| (*task, now.saturating_sub(task.started));
        let vanished = pause::vanished(&cluster, &limits.pause, now);
        let vanished = vanished.filter(|_| stats.paused).map(|node| node.identity.id);
        let view = RepairView {
            at_risk: self.planner.at_risk().iter().map(|(live, blocks)| (*live, *blocks)).collect(),
            copies: self.planner.copies().take(copies_max).map(age).collect(),
            waiting,
            stuck,
            last_minute: self.planner.progress().last_minute(now),
            estimate: self.planner.progress().estimate(now, stats.todo_bytes),
            vanished: vanished.collect(),
            pause_window: limits.pause.window,
            bytes_per_sec: limits.bytes_per_sec,
            balance: self.planner.balance_status(now, &cluster),
            stats,
        };
        let _ = answer.send(view); // Who asked may have gone.
    }

    /// How far the nodes are that are in maintenance.
    pub(super) fn note_maintenance(&self) {
        let cluster = self.hub.cluster();
        let nodes = cluster.nodes().filter(|node| node.mode.is_maintenance());
        let left = |id: NodeId| Some((id, self.planner.left_on(id)?));
        let left = nodes.filter_map(|node| left(node.identity.id)).collect();
        drop(cluster);
        self.hub.set_maintenance_left(left);
    }
}
