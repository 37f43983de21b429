//! Settings of a datanode. What a file, the environment and flags say is put together by the
//! command line; what they do not say keeps the defaults here.

use std::path::PathBuf;
use std::time::Duration;

use doldam_runtime::config::{ByteSize, HumanDuration};
use doldam_runtime::connection::Deadlines;
use serde::{Deserialize, Serialize};

use crate::engine::repair_share::RepairShare;

/// Address at which a datanode listens if it is not told.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:8030";
/// Largest share of a disk that the default reserve takes.
pub(crate) const RESERVE_PERCENT_MAX: u64 = 5;

/// Settings of a datanode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatanodeConfig {
    /// Data folders; created if missing. Best one per disk.
    pub dirs: Vec<PathBuf>,
    /// `HOST:PORT` of the block stream server; port 0 takes any free one.
    pub listen: String,
    /// `HOST:PORT` under which clients and other datanodes reach it. By default `listen`, with this
    /// machine's name in place of an address that stands for all.
    pub advertise: Option<String>,
    /// `HOST:PORT` of each namenode.
    pub namenodes: Vec<String>,
    /// Place in the network, such as `/r1`: replicas of a block are spread over racks.
    pub rack: String,
    /// `HOST:PORT` of the pages for people and monitors; off by default.
    pub http: Option<String>,
    /// Kept free on the disk of each data folder, but never more than 5 % of the disk.
    pub reserve_bytes: ByteSize,
    /// How fast the scrubber of each data folder reads, per second; a quarter of it while blocks are written, read or
    /// copied.
    pub scrub_bytes_per_sec: ByteSize,
    /// From the start of a verification of all replicas to the start of the next.
    pub scrub_interval: HumanDuration,
    /// From one check of a data folder (is it there, can it be written, synced and read) to the next.
    pub disk_check_interval: HumanDuration,
    /// After which a data folder that does not answer a check is given up.
    pub disk_timeout: HumanDuration,
    /// Threads that serve block streams; 0 means one per processor.
    pub data_threads: usize,
    /// Blocks that are written, read or copied at once; more requests are refused as busy. Each
    /// takes up to about 1.2 MiB of memory.
    pub streams_max: usize,
    /// Connections at once, busy or not; more are closed.
    pub connections_max: usize,
    /// Repair copies that are sent at once.
    pub copies_max: usize,
    /// Share of the time in which repair copies are sent, and received, while blocks of clients are written or read, in
    /// percent; without them copies go at full speed.
    pub repair_share_percent: u32,
    /// What each repair copy may move per second in any case. Above the namenode's `repair_rate_min`, below which it
    /// gives a copy up.
    pub repair_bytes_per_sec_min: ByteSize,
    /// After which a replica whose writer did not wait for a sync is synced.
    pub late_sync_after: HumanDuration,
    /// For a connection to another datanode.
    pub connect_timeout: HumanDuration,
    /// Silence of a client in the middle of a block after which it counts as gone.
    pub client_timeout: HumanDuration,
    /// Silence of the next datanode of a pipeline, while it owes an acknowledgement, after which it
    /// counts as gone.
    pub downstream_timeout: HumanDuration,
    /// How long the next datanode of a pipeline may take to sync and publish a block.
    pub sync_timeout: HumanDuration,
    /// After which a connection without a request is closed.
    pub idle_timeout: HumanDuration,
}

impl Default for DatanodeConfig {
    fn default() -> Self {
        let secs = |secs| HumanDuration(Duration::from_secs(secs));
        Self {
            dirs: Vec::new(),
            listen: LISTEN_DEFAULT.to_owned(),
            advertise: None,
            namenodes: vec!["127.0.0.1:8020".to_owned()],
            rack: "/default".to_owned(),
            http: None,
            reserve_bytes: ByteSize(1 << 30),
            scrub_bytes_per_sec: ByteSize(20_000_000),
            scrub_interval: HumanDuration(Duration::from_hours(24)),
            disk_check_interval: secs(10),
            disk_timeout: secs(30),
            data_threads: 0,
            streams_max: 128,
            connections_max: 2048,
            copies_max: 4,
            repair_share_percent: 30,
            repair_bytes_per_sec_min: ByteSize(8 << 20),
            late_sync_after: secs(2),
            connect_timeout: secs(3),
            client_timeout: secs(60),
            downstream_timeout: secs(10),
            sync_timeout: secs(60),
            idle_timeout: secs(120),
        }
    }
}

/// A setting that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {why}")]
pub struct BadSetting {
    /// Its name.
    pub setting: &'static str,
    /// What is wrong, and what would be right.
    pub why: String,
}

impl DatanodeConfig {
    /// Checks what can be checked without looking at the machine.
    ///
    /// # Errors
    /// Names the first setting that makes no sense.
    pub fn check(&self) -> Result<(), BadSetting> {
        let bad = |setting, why: &str| Err(BadSetting { setting, why: why.to_owned() });
        let mut sorted = self.dirs.clone();
        sorted.sort_unstable();
        if self.dirs.is_empty() {
            return bad("dirs", "name at least one data folder");
        }
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            return bad("dirs", "a data folder is named twice");
        }
        if self.dirs.len() > usize::from(u16::MAX) {
            return bad("dirs", "too many data folders");
        }
        if self.namenodes.is_empty() {
            return bad("namenodes", "name at least one namenode as HOST:PORT");
        }
        if !self.rack.starts_with('/') {
            return bad("rack", "a rack is a path such as /r1");
        }
        let limits = [
            ("streams_max", self.streams_max),
            ("connections_max", self.connections_max),
            ("copies_max", self.copies_max),
        ];
        if let Some((setting, _)) = limits.into_iter().find(|(_, limit)| *limit == 0) {
            return bad(setting, "0 would serve nobody");
        }
        if self.scrub_bytes_per_sec.0 == 0 {
            return bad("scrub_bytes_per_sec", "0 would never verify anything");
        }
        if !(1..=100).contains(&self.repair_share_percent) {
            return bad("repair_share_percent", "a share is 1 to 100 percent");
        }
        if self.repair_bytes_per_sec_min.0 == 0 {
            return bad("repair_bytes_per_sec_min", "0 would let a copy starve");
        }
        if self.disk_timeout.0.is_zero() {
            return bad("disk_timeout", "0 would give up every folder");
        }
        Ok(())
    }

    /// What repair copies may take.
    pub(crate) fn repair_share(&self) -> RepairShare {
        RepairShare {
            percent: self.repair_share_percent,
            bytes_per_sec_min: self.repair_bytes_per_sec_min.0,
        }
    }

    /// Deadlines of connections that others open to this node.
    pub(crate) fn serving_deadlines(&self) -> Deadlines {
        Deadlines {
            connect: self.connect_timeout.0,
            progress: self.client_timeout.0,
            idle: self.idle_timeout.0,
        }
    }

    /// Deadlines of connections that this node opens to others.
    pub(crate) fn forwarding_deadlines(&self) -> Deadlines {
        Deadlines {
            connect: self.connect_timeout.0,
            progress: self.downstream_timeout.0,
            idle: self.idle_timeout.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use doldam_runtime::config::parse_toml;

    use super::*;

    fn good() -> DatanodeConfig {
        DatanodeConfig { dirs: vec!["/d1".into(), "/d2".into()], ..Default::default() }
    }

    #[test]
    fn the_defaults_with_a_folder_make_sense() {
        assert_eq!(good().check(), Ok(()));
    }

    #[test]
    fn each_senseless_setting_is_named() {
        let setting = |config: DatanodeConfig| config.check().unwrap_err().setting;
        assert_eq!(setting(DatanodeConfig { dirs: vec![], ..good() }), "dirs");
        let twice = vec!["/d".into(), "/e".into(), "/d".into()];
        assert_eq!(setting(DatanodeConfig { dirs: twice, ..good() }), "dirs");
        assert_eq!(setting(DatanodeConfig { namenodes: vec![], ..good() }), "namenodes");
        assert_eq!(setting(DatanodeConfig { rack: "r1".to_owned(), ..good() }), "rack");
        assert_eq!(setting(DatanodeConfig { streams_max: 0, ..good() }), "streams_max");
        let never = ByteSize(0);
        let config = DatanodeConfig { scrub_bytes_per_sec: never, ..good() };
        assert_eq!(setting(config), "scrub_bytes_per_sec");
        for percent in [0, 101] {
            let config = DatanodeConfig { repair_share_percent: percent, ..good() };
            assert_eq!(setting(config), "repair_share_percent");
        }
        let config = DatanodeConfig { repair_bytes_per_sec_min: never, ..good() };
        assert_eq!(setting(config), "repair_bytes_per_sec_min");
        let at_once = HumanDuration(Duration::ZERO);
        let config = DatanodeConfig { disk_timeout: at_once, ..good() };
        assert_eq!(setting(config), "disk_timeout");
    }

    #[test]
    fn a_file_sets_what_it_names_and_refuses_what_it_misspells() {
        let text = "dirs = [\"/d\"]\nscrub_interval = \"7d\"\nreserve_bytes = \"10GiB\"\n";
        let config: DatanodeConfig = parse_toml(Path::new("x"), text).unwrap();
        assert_eq!(config.scrub_interval.0, Duration::from_hours(7 * 24));
        assert_eq!(config.reserve_bytes, ByteSize(10 << 30));
        assert!(parse_toml::<DatanodeConfig>(Path::new("x"), "dir = \"/d\"").is_err());
    }
}
