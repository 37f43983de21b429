//! Taking datanodes out of service and back into it.

use std::sync::Arc;
use std::time::Duration;

use doldam_proto::FsError;
use doldam_proto::id::{BlockId, NodeId};
use doldam_proto::wire::{self, NodeMode, SetNodeModeCommand, command::Change};
use tracing::info;

use super::{Context, check_text};
use crate::engine::cluster::topology::host_of;
use crate::engine::cluster::{Cluster, Mode, Node, Uptime};
use crate::engine::namespace::view::{self, Decision};

/// Longest maintenance.
const MAINTENANCE_MAX: Duration = Duration::from_hours(24 * 365);
/// Blocks of a node that are looked at before it is drained, in slices of as many as are read at once.
const BLOCKS_LOOKED_AT: usize = 100_000;
const SLICE_BLOCKS: usize = 1000;
/// Known nodes that an error names.
const NODES_NAMED_MAX: usize = 20;
/// Unfinished writes looked at for blocks that are being written to a node.
const WRITES_MAX: usize = 10_000;

impl Context {
    /// Does what an administrator decided about a node, and answers how it is.
    pub(super) async fn set_node_mode(
        self: &Arc<Self>,
        request: wire::SetNodeModeRequest,
    ) -> Result<wire::SetNodeModeResponse, FsError> {
        check_text("node", &request.node)?;
        let mode = NodeMode::try_from(request.mode).map_err(|_| FsError::InvalidArgument {
            field: "mode".to_owned(),
            why: format!("{} is unknown", request.mode),
        })?;
        let node = find(&self.hub.cluster(), &request.node)?;
        let _deciding = self.deciding.lock().await;
        let mut command =
            SetNodeModeCommand { node_id: node.0, mode: mode as i32, ..Default::default() };
        match mode {
            NodeMode::Unspecified => {}
            NodeMode::Draining => {
                let is_draining = self.hub.cluster().mode(node).is_draining();
                if !request.force && !is_draining {
                    self.check_enough_stay(node).await?;
                }
                command.accept_fewer = request.force || self.accepts_fewer(node);
            }
            NodeMode::Maintenance => {
                command.duration_ms = check_duration(request.duration_ms)?;
                command.until_ms = self.seams.clock.wall_ms().saturating_add(command.duration_ms);
            }
        }
        self.driver.propose(None, Change::SetNodeMode(command)).await?;
        let decision = match mode {
            NodeMode::Unspecified => Decision::InService,
            NodeMode::Draining => Decision::Drain { accept_fewer: command.accept_fewer },
            NodeMode::Maintenance => {
                Decision::Maintain { until_ms: command.until_ms, duration_ms: command.duration_ms }
            }
        };
        let mode = Mode::of(decision, self.hub.now(), self.seams.clock.wall_ms());
        info!(%node, ?mode, "an administrator decided");
        self.hub.set_mode(node, mode);
        let report = self.report_of(node).await?;
        Ok(wire::SetNodeModeResponse { node: Some(report) })
    }

    fn accepts_fewer(&self, node: NodeId) -> bool {
        matches!(self.hub.cluster().mode(node), Mode::Draining { accept_fewer: true })
    }

    /// Refuses to drain a node if some block of it could then never have all its replicas.
    async fn check_enough_stay(&self, node: NodeId) -> Result<(), FsError> {
        let (stay, address) = {
            let cluster = self.hub.cluster();
            let mode = cluster.mode(node);
            let counts = mode.is_in_service() && cluster.standing(node).is_present();
            let address = cluster.address(node).map(|node| node.address).unwrap_or_default();
            (cluster.nodes_in_service() - usize::from(counts), address)
        };
        let mut after: Option<BlockId> = None;
        for _ in 0..BLOCKS_LOOKED_AT / SLICE_BLOCKS {
            let (last, wanted) = self
                .driver
                .read(|tables| {
                    let blocks = view::blocks_of_node(tables, node, after, SLICE_BLOCKS)?;
                    let mut wanted = 0;
                    for block in &blocks {
                        let block = view::block(tables, *block)?.filter(|block| !block.unlinked);
                        wanted = wanted.max(block.map_or(0, |block| block.wanted as usize));
                    }
                    Ok((blocks.last().copied().filter(|_| blocks.len() == SLICE_BLOCKS), wanted))
                })
                .await?;
            if wanted > stay {
                let why = format!(
                    "it holds blocks that are to have {wanted} replicas, and without it {stay} \
                     datanodes are in service: add datanodes or lower the replication of these \
                     files, or force it to accept fewer replicas"
                );
                return Err(FsError::NotAllowed {
                    path: format!("datanode {node} ({address})"),
                    why,
                });
            }
            match last {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// A node for reports.
    async fn report_of(&self, id: NodeId) -> Result<wire::DatanodeReport, FsError> {
        let reports = self.reports_of(|node| node.identity.id == id).await?;
        reports.into_iter().next().ok_or(FsError::NotRegistered { node: id.0 })
    }

    /// The nodes that `is_wanted`, for reports.
    pub(super) async fn reports_of(
        &self,
        is_wanted: impl Fn(&Node) -> bool,
    ) -> Result<Vec<wire::DatanodeReport>, FsError> {
        let now = self.hub.now();
        let nodes: Vec<Node> =
            self.hub.cluster().nodes().filter(|node| is_wanted(node)).cloned().collect();
        let mut reports = Vec::with_capacity(nodes.len());
        for node in nodes {
            let mut report = datanode(&node, now);
            if !node.mode.is_in_service() {
                self.add_progress(&node, now, &mut report).await?;
            }
            reports.push(report);
        }
        Ok(reports)
    }

    /// How far a node is that is draining or in maintenance.
    async fn add_progress(
        &self,
        node: &Node,
        now: Uptime,
        report: &mut wire::DatanodeReport,
    ) -> Result<(), FsError> {
        let id = node.identity.id;
        let (replicas, open) = self
            .driver
            .read(|tables| {
                let open = view::open_blocks_on(tables, id, WRITES_MAX)?;
                Ok((view::replica_sum(tables, id)?.count, open))
            })
            .await?;
        report.open_blocks_left = open;
        match node.mode {
            Mode::InService => {}
            Mode::Draining { .. } => {
                report.mode = NodeMode::Draining as i32;
                report.blocks_left = replicas;
                report.safe_to_stop = replicas + open == 0;
            }
            Mode::Maintenance { until, until_ms } => {
                report.mode = NodeMode::Maintenance as i32;
                report.maintenance_until_ms = until_ms;
                report.maintenance_left_ms = until.saturating_sub(now).as_millis() as u64;
                // Until its blocks were gone through once any of them may be in need.
                let left = self.hub.maintenance_left(id);
                report.blocks_left = left.unwrap_or(replicas);
                report.safe_to_stop = open == 0 && (left == Some(0) || replicas == 0);
            }
        }
        Ok(())
    }
}

fn check_duration(duration_ms: u64) -> Result<u64, FsError> {
    let max = MAINTENANCE_MAX.as_millis() as u64;
    if (1..=max).contains(&duration_ms) {
        return Ok(duration_ms);
    }
    let why = format!("{duration_ms} ms is not from 1 ms to {max} ms, a year");
    Err(FsError::InvalidArgument { field: "duration_ms".to_owned(), why })
}

/// The node that is meant by its id, its address, or the host that it alone runs on.
fn find(cluster: &Cluster, text: &str) -> Result<NodeId, FsError> {
    let named = |node: &Node| format!("{} ({})", node.identity.id, node.identity.address);
    let refuse = |what: &str, nodes: Vec<String>| {
        let more = if nodes.len() > NODES_NAMED_MAX { ", ..." } else { "" };
        let nodes: Vec<String> = nodes.into_iter().take(NODES_NAMED_MAX).collect();
        let nodes = if nodes.is_empty() { "none".to_owned() } else { nodes.join(", ") };
        let why = format!("{text:?} {what}: {nodes}{more}");
        Err(FsError::InvalidArgument { field: "node".to_owned(), why })
    };
    let by_id = text.parse().ok().and_then(|id| cluster.node(NodeId(id)));
    let by_address = || cluster.nodes().find(|node| node.identity.address == text);
    if let Some(node) = by_id.or_else(by_address) {
        return Ok(node.identity.id);
    }
    let on_host: Vec<&Node> =
        cluster.nodes().filter(|node| host_of(&node.identity.address) == Some(text)).collect();
    match on_host.as_slice() {
        [node] => Ok(node.identity.id),
        [] => refuse("is no datanode; there are", cluster.nodes().map(named).collect()),
        several => refuse(
            "runs several datanodes; name one",
            several.iter().map(|node| named(node)).collect(),
        ),
    }
}

/// A node as it is, without how far an administrator's decision about it is.
fn datanode(node: &Node, now: Uptime) -> wire::DatanodeReport {
    wire::DatanodeReport {
        node: Some(node.to_address().into()),
        node_uuid: node.identity.uuid.to_bytes(),
        capacity: node.load.capacity,
        used: node.load.used,
        available: node.load.available,
        replicas: node.load.replicas,
        silent_ms: now.saturating_sub(node.heard_at()).as_millis() as u64,
        active_streams: node.load.active_streams,
        version: node.version.clone(),
        failed_volumes: node.load.failed_volumes.clone(),
        scrub_passes: node.load.scrub_passes,
        scrub_oldest_secs: node.load.scrub_oldest_secs,
        ..wire::DatanodeReport::default()
    }
}
