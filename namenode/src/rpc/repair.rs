//! Repair and balancing as administrators see and steer them.

use std::sync::Arc;
use std::time::Duration;

use doldam_proto::FsError;
use doldam_proto::id::NodeId;
use doldam_proto::wire::{self, balance_request::Action};

use super::Context;
use crate::control::questions::RepairView;
use crate::engine::repair::Event;
use crate::engine::repair::balance::WHOLE_PPM;
use crate::engine::repair::explain::Explanation;
use crate::engine::repair::moves::{BalanceEnd, BalanceStatus};
use crate::engine::repair::task::{CopyReason, CopyTask};

/// Most blocks and copies of one answer.
const LISTED_MAX: u32 = 1000;
/// Nodes that the alarm names.
const NODES_NAMED_MAX: usize = 20;

impl Context {
    /// What is at risk, what is done about it, and why the rest waits.
    pub(super) async fn repair(
        self: &Arc<Self>,
        request: wire::RepairRequest,
    ) -> Result<wire::RepairResponse, FsError> {
        let (blocks, copies) =
            (request.blocks_max.min(LISTED_MAX), request.copies_max.min(LISTED_MAX));
        let view = self.repair_view(blocks as usize, copies as usize).await?;
        let leaving = self.reports_of(|node| !node.mode.is_in_service()).await?;
        let at_risk = view.at_risk.iter().map(|(live, blocks)| {
            let live = u32::try_from(*live).unwrap_or(u32::MAX);
            wire::AtRisk { live, blocks: *blocks }
        });
        Ok(wire::RepairResponse {
            paused: view.stats.paused,
            alarm: self.alarm(&view),
            at_risk: at_risk.collect(),
            running: view.stats.running as u64,
            waiting: view.stats.waiting as u64,
            copies: view.copies.iter().map(|(task, age)| self.copy(task, *age)).collect(),
            blocks: view
                .waiting
                .iter()
                .map(|(why, path)| self.waiting(why, path.as_deref()))
                .collect(),
            todo_bytes: view.stats.todo_bytes,
            minute_bytes: view.last_minute.bytes,
            minute_copies: view.last_minute.copies,
            estimate_ms: view
                .estimate
                .map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            leaving,
            balance: Some(status(&view.balance)),
            bytes_per_sec: view.bytes_per_sec,
            drops_waiting: view.stats.drops_waiting as u64,
            stuck: self.hub.recovery().stuck as u64,
            stuck_files: view
                .stuck
                .iter()
                .map(|(file, path)| wire::StuckFile {
                    path: path.clone().unwrap_or_default(),
                    missing: file.missing.iter().map(|node| self.name(*node)).collect(),
                })
                .collect(),
        })
    }

    /// Starts or stops balancing, or only looks.
    pub(super) async fn balance(
        self: &Arc<Self>,
        request: wire::BalanceRequest,
    ) -> Result<wire::BalanceResponse, FsError> {
        let event = match request.action() {
            Action::Unspecified => None,
            Action::Start => Some(self.start_of_balance(&request)?),
            Action::Stop => Some(Event::BalanceStopped),
        };
        if let Some(event) = event
            && !self.hub.tell(event).await
        {
            return Err(FsError::Unavailable { why: "the namenode is stopping".to_owned() });
        }
        let view = self.repair_view(0, 0).await?;
        Ok(wire::BalanceResponse { status: Some(status(&view.balance)) })
    }

    fn start_of_balance(&self, request: &wire::BalanceRequest) -> Result<Event, FsError> {
        let threshold_ppm = u64::from(request.threshold_ppm);
        if !(1..WHOLE_PPM).contains(&threshold_ppm) {
            let field = "threshold_ppm".to_owned();
            let why = format!("{threshold_ppm} is not from 1 to {}", WHOLE_PPM - 1);
            return Err(FsError::InvalidArgument { field, why });
        }
        let bytes_per_sec = match request.bytes_per_sec {
            0 => self.config.balance_bytes_per_sec.0,
            limit => limit,
        };
        Ok(Event::BalanceStarted { threshold_ppm, bytes_per_sec })
    }

    async fn repair_view(&self, blocks: usize, copies: usize) -> Result<RepairView, FsError> {
        let view = self.hub.ask_repair(blocks, copies).await;
        view.ok_or_else(|| FsError::Unavailable { why: "too many ask about repair".to_owned() })
    }

    /// Why repair holds still, and what is to be done; empty if it does not.
    fn alarm(&self, view: &RepairView) -> String {
        if !view.stats.paused {
            return String::new();
        }
        let names: Vec<String> =
            view.vanished.iter().take(NODES_NAMED_MAX).map(|id| self.name(*id)).collect();
        format!(
            "{} datanodes vanished at once, which looks like the network and not the nodes: nothing is copied until \
             some are back, or until they have been away for {} s. Missing: {}",
            view.vanished.len(),
            view.pause_window.as_secs(),
            names.join(", ")
        )
    }

    fn name(&self, id: NodeId) -> String {
        match self.hub.cluster().address(id) {
            Some(node) => node.to_string(),
            None => format!("datanode {id}"),
        }
    }

    fn copy(&self, task: &CopyTask, age: Duration) -> wire::RunningCopy {
        let address = |id| self.hub.cluster().address(id).map(Into::into);
        let reason = match task.reason {
            CopyReason::Repair => wire::CopyReason::Repair,
            CopyReason::Drain => wire::CopyReason::Drain,
            CopyReason::Maintenance => wire::CopyReason::Maintenance,
            CopyReason::Spread => wire::CopyReason::Spread,
            CopyReason::Balance => wire::CopyReason::Balance,
        };
        wire::RunningCopy {
            block_id: task.block.0,
            source: address(task.source),
            target: address(task.target),
            bytes: task.bytes,
            age_ms: age.as_millis() as u64,
            reason: reason as i32,
            stored: task.is_stored,
        }
    }

    fn waiting(&self, explained: &Explanation, path: Option<&str>) -> wire::WaitingBlock {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let nodes = explained.nodes.iter().map(|(node, reason)| wire::NodeReason {
            node: self.name(*node),
            reason: reason.clone(),
        });
        wire::WaitingBlock {
            block_id: explained.block.id.0,
            path: path.unwrap_or_default().to_owned(),
            live: count(explained.live),
            wanted: count(explained.wanted),
            why: explained.why.sentence(),
            nodes: nodes.collect(),
            retry_ms: explained.retry_in.map_or(0, |time| time.as_millis() as u64),
        }
    }
}

fn status(status: &BalanceStatus) -> wire::BalanceStatus {
    let ppm = |share: u64| u32::try_from(share).unwrap_or(u32::MAX);
    let ended = match status.ended {
        None => "",
        Some(BalanceEnd::Reached) => "every datanode is within the threshold",
        Some(BalanceEnd::Stopped) => "stopped",
        Some(BalanceEnd::NothingFits) => {
            "no block that may be moved is small enough for what is left to move"
        }
    };
    wire::BalanceStatus {
        running: status.is_running,
        threshold_ppm: ppm(status.threshold_ppm),
        bytes_per_sec: status.bytes_per_sec,
        mean_ppm: ppm(status.balance.mean_ppm),
        farthest_ppm: ppm(status.balance.farthest_ppm),
        left_bytes: status.balance.left_bytes,
        moves_running: status.moves_running as u64,
        moved_blocks: status.moved.copies,
        moved_bytes: status.moved.bytes,
        elapsed_ms: status.elapsed.as_millis() as u64,
        ended: ended.to_owned(),
    }
}
