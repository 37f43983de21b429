//! Settings of the namenode: read from file, environment and flags, checked once.

use std::path::PathBuf;
use std::time::Duration;

use doldam_proto::block::BlockBytes;
use doldam_proto::limits::{
    BLOCK_BYTES_DEFAULT, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, LEASE_HARD, LEASE_SOFT,
    REPLICATION_DEFAULT, REPLICATION_MAX,
};
use doldam_runtime::config::{ByteSize, HumanDuration};
use serde::{Deserialize, Serialize};

use crate::engine::cluster::LivenessLimits;
use crate::engine::repair::RepairLimits;
use crate::engine::repair::budget::BudgetLimits;
use crate::engine::repair::pause::PauseLimits;

/// Settings of one namenode. What is left out has the value of [`default`](Self::default).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NamenodeConfig {
    /// Folder of the journal and the metadata store; created if missing, used by one namenode at a time.
    pub dir: PathBuf,
    /// `HOST:PORT` for clients and datanodes.
    pub listen: String,
    /// `HOST:PORT` of metrics and health page; off unless given.
    pub http: Option<String>,
    /// Time between two heartbeats of a datanode.
    pub heartbeat: HumanDuration,
    /// Silence after which a datanode gets no new blocks and is read last.
    pub suspect_after: HumanDuration,
    /// Silence after which what a datanode held is copied elsewhere.
    pub dead_after: HumanDuration,
    /// Silence of a writing client after which another may take over its path.
    pub lease_soft: HumanDuration,
    /// Silence of a writing client after which its unfinished files are collected.
    pub lease_hard: HumanDuration,
    /// Replicas of a file whose creator does not choose.
    pub default_replication: u32,
    /// Block size of a file whose creator does not choose.
    pub default_block_bytes: ByteSize,
    /// Memory of changes that are not yet in the metadata store on disk. Twice this much may be used.
    pub overlay_bytes: ByteSize,
    /// Memory for pages of the metadata store.
    pub cache_bytes: ByteSize,
    /// Longest time between two checkpoints, and so about the most that a restart replays.
    pub checkpoint_interval: HumanDuration,
    /// Copies that one datanode sends, and that one receives, for repair at once.
    pub repair_copies_per_node: usize,
    /// Bytes that one datanode sends, and that one receives, for repair at once.
    pub repair_bytes_per_node: ByteSize,
    /// Time for any repair copy, besides the time for its bytes at `repair_rate_min`.
    pub repair_copy_timeout: HumanDuration,
    /// Bytes per second below which a repair copy is given up.
    pub repair_rate_min: ByteSize,
    /// Bytes per second of all repair copies of the cluster together; 0 is no limit.
    pub repair_bytes_per_sec: ByteSize,
    /// Bytes per second of all copies that balance the cluster, unless `admin balance` says otherwise; 0 is no limit.
    pub balance_bytes_per_sec: ByteSize,
    /// Live replicas that a block must have elsewhere while a datanode that holds it is in maintenance.
    pub maintenance_live_replicas: usize,
    /// Repair holds still while more than this share of the nodes, in percent, vanished at once...
    pub repair_pause_percent: usize,
    /// ... and at least this many...
    pub repair_pause_nodes: usize,
    /// ... until they have been missing for this long.
    pub repair_pause_window: HumanDuration,
    /// How long the outcome of a request is kept for a client that never asks again.
    pub request_retention: HumanDuration,
}

impl Default for NamenodeConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("doldam-namenode"),
            listen: "127.0.0.1:8020".to_owned(),
            http: None,
            heartbeat: HumanDuration(Duration::from_secs(1)),
            suspect_after: HumanDuration(Duration::from_secs(3)),
            dead_after: HumanDuration(Duration::from_secs(30)),
            lease_soft: HumanDuration(LEASE_SOFT),
            lease_hard: HumanDuration(LEASE_HARD),
            default_replication: REPLICATION_DEFAULT,
            default_block_bytes: ByteSize(BLOCK_BYTES_DEFAULT),
            overlay_bytes: ByteSize(64 << 20),
            cache_bytes: ByteSize(128 << 20),
            checkpoint_interval: HumanDuration(Duration::from_mins(5)),
            repair_copies_per_node: 8,
            repair_bytes_per_node: ByteSize(512 << 20),
            repair_copy_timeout: HumanDuration(Duration::from_secs(30)),
            repair_rate_min: ByteSize(4 << 20),
            repair_bytes_per_sec: ByteSize(0),
            balance_bytes_per_sec: ByteSize(64 << 20),
            maintenance_live_replicas: 1,
            repair_pause_percent: 50,
            repair_pause_nodes: 3,
            repair_pause_window: HumanDuration(Duration::from_mins(10)),
            request_retention: HumanDuration(Duration::from_hours(24)),
        }
    }
}

/// Blocks that the repair planner tracks at the most; about 100 bytes of memory each.
const REPAIR_TRACKED_MAX: usize = 200_000;

/// A setting that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {why}")]
pub struct BadSetting {
    /// Which.
    pub setting: &'static str,
    /// What is wrong, with both numbers.
    pub why: String,
}

impl NamenodeConfig {
    /// Checks each setting and how they fit together.
    ///
    /// # Errors
    /// The first setting that makes no sense.
    pub fn check(&self) -> Result<(), BadSetting> {
        let refuse = |setting, why| Err(BadSetting { setting, why });
        if self.heartbeat.0.is_zero() {
            return refuse("heartbeat", "must not be 0".to_owned());
        }
        let ordered = [
            ("suspect_after", self.suspect_after, "heartbeat", self.heartbeat),
            ("dead_after", self.dead_after, "suspect_after", self.suspect_after),
            ("lease_hard", self.lease_hard, "lease_soft", self.lease_soft),
        ];
        for (setting, longer, other, shorter) in ordered {
            if longer.0 <= shorter.0 {
                return refuse(setting, format!("{longer} is not more than {other}, {shorter}"));
            }
        }
        if self.lease_soft.0.is_zero() {
            return refuse("lease_soft", "must not be 0".to_owned());
        }
        if !(1..=REPLICATION_MAX).contains(&self.default_replication) {
            let why = format!("{} is not from 1 to {REPLICATION_MAX}", self.default_replication);
            return refuse("default_replication", why);
        }
        if BlockBytes::new(self.default_block_bytes.0).is_none() {
            let why = format!(
                "{} is no power of two from {} to {}",
                self.default_block_bytes,
                ByteSize(BLOCK_BYTES_MIN),
                ByteSize(BLOCK_BYTES_MAX)
            );
            return refuse("default_block_bytes", why);
        }
        let positive = [
            ("repair_copies_per_node", self.repair_copies_per_node as u64),
            ("repair_bytes_per_node", self.repair_bytes_per_node.0),
            ("repair_rate_min", self.repair_rate_min.0),
            ("overlay_bytes", self.overlay_bytes.0),
        ];
        for (setting, value) in positive {
            if value == 0 {
                return refuse(setting, "must not be 0".to_owned());
            }
        }
        Ok(())
    }

    /// What liveness needs of it.
    pub(crate) fn liveness(&self) -> LivenessLimits {
        LivenessLimits { suspect_after: self.suspect_after.0, dead_after: self.dead_after.0 }
    }

    /// What repair needs of it.
    pub(crate) fn repair(&self) -> RepairLimits {
        RepairLimits {
            budget: BudgetLimits {
                copies_max: self.repair_copies_per_node,
                bytes_max: self.repair_bytes_per_node.0,
            },
            pause: PauseLimits {
                share_percent: self.repair_pause_percent,
                nodes_min: self.repair_pause_nodes,
                window: self.repair_pause_window.0,
            },
            copy_timeout: self.repair_copy_timeout.0,
            copy_rate_min: self.repair_rate_min.0,
            bytes_per_sec: self.repair_bytes_per_sec.0,
            tracked_max: REPAIR_TRACKED_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut NamenodeConfig)) -> &'static str {
        let mut config = NamenodeConfig::default();
        change(&mut config);
        config.check().unwrap_err().setting
    }

    #[test]
    fn the_defaults_make_sense() {
        assert_eq!(NamenodeConfig::default().check(), Ok(()));
    }

    #[test]
    fn each_setting_that_makes_no_sense_is_named() {
        let secs = |secs| HumanDuration(Duration::from_secs(secs));
        assert_eq!(refused(|config| config.heartbeat = secs(0)), "heartbeat");
        assert_eq!(refused(|config| config.suspect_after = secs(1)), "suspect_after");
        assert_eq!(refused(|config| config.dead_after = secs(3)), "dead_after");
        assert_eq!(refused(|config| config.lease_hard = config.lease_soft), "lease_hard");
        assert_eq!(refused(|config| config.default_replication = 0), "default_replication");
        assert_eq!(refused(|config| config.default_replication = 17), "default_replication");
        let odd = ByteSize(BLOCK_BYTES_MIN + 1);
        assert_eq!(refused(|config| config.default_block_bytes = odd), "default_block_bytes");
        assert_eq!(refused(|config| config.repair_copies_per_node = 0), "repair_copies_per_node");
    }
}
