//! What administrators do: take datanodes out of service and back, and balance.

use std::time::Duration;

use doldam_proto::wire;

use super::{BalanceReport, DatanodeReport, RepairReport};
use crate::client::Client;
use crate::error::ClientError;

impl Client {
    /// What repair does and what waits, with up to so many blocks and copies one by one (1000 at most).
    ///
    /// # Errors
    /// If no namenode answers.
    pub async fn repair(
        &self,
        blocks_max: u32,
        copies_max: u32,
    ) -> Result<RepairReport, ClientError> {
        let request = wire::RepairRequest { blocks_max, copies_max };
        self.metadata().repair(request).await
    }

    /// Begins to empty a datanode, named by its id, its address, or its host if it alone runs there. It goes on serving
    /// until [`DatanodeReport::safe_to_stop`]. Asking again changes nothing.
    ///
    /// With `force` also if some blocks can then not have all their replicas.
    ///
    /// # Errors
    /// If the datanode is unknown, or too few others are in service and it is not forced.
    pub async fn decommission(
        &self,
        node: &str,
        force: bool,
    ) -> Result<DatanodeReport, ClientError> {
        let request =
            wire::SetNodeModeRequest { force, ..mode_request(node, wire::NodeMode::Draining) };
        self.metadata().set_node_mode(request).await
    }

    /// Takes a datanode that is draining or in maintenance back into service.
    ///
    /// # Errors
    /// If the datanode is unknown.
    pub async fn recommission(&self, node: &str) -> Result<DatanodeReport, ClientError> {
        self.metadata().set_node_mode(mode_request(node, wire::NodeMode::Unspecified)).await
    }

    /// Lets a datanode be away for `duration` from now without its replicas being made elsewhere, as long as each of
    /// its blocks has a live replica elsewhere; it may go when it is [`DatanodeReport::safe_to_stop`].
    ///
    /// # Errors
    /// If the datanode is unknown or the duration is 0 or more than a year.
    pub async fn maintain(
        &self,
        node: &str,
        duration: Duration,
    ) -> Result<DatanodeReport, ClientError> {
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let request = mode_request(node, wire::NodeMode::Maintenance);
        self.metadata().set_node_mode(wire::SetNodeModeRequest { duration_ms, ..request }).await
    }

    /// Begins to move blocks until the used share of each datanode is within `threshold_ppm` millionths of the share
    /// of all together; a balancing that is under way goes on with these settings. It ends with the namenode's process.
    ///
    /// # Errors
    /// If the threshold makes no sense or no namenode answers.
    pub async fn start_balance(
        &self,
        threshold_ppm: u32,
        bytes_per_sec: Option<u64>,
    ) -> Result<BalanceReport, ClientError> {
        let bytes_per_sec = bytes_per_sec.unwrap_or(0);
        let action = wire::balance_request::Action::Start as i32;
        self.metadata().balance(wire::BalanceRequest { action, threshold_ppm, bytes_per_sec }).await
    }

    /// Begins no more moves; those under way end by themselves.
    ///
    /// # Errors
    /// If no namenode answers.
    pub async fn stop_balance(&self) -> Result<BalanceReport, ClientError> {
        let action = wire::balance_request::Action::Stop as i32;
        self.metadata().balance(wire::BalanceRequest { action, ..Default::default() }).await
    }

    /// How far the latest balancing is.
    ///
    /// # Errors
    /// If no namenode answers.
    pub async fn balance(&self) -> Result<BalanceReport, ClientError> {
        self.metadata().balance(wire::BalanceRequest::default()).await
    }
}

fn mode_request(node: &str, mode: wire::NodeMode) -> wire::SetNodeModeRequest {
    wire::SetNodeModeRequest { node: node.to_owned(), mode: mode as i32, ..Default::default() }
}
