//! What a cluster is like before it starts.

use std::path::PathBuf;

use super::network::Network;

/// Timings of the test clusters: short, but with room for a busy machine.
const SETTINGS: &str = "\
[namenode]
heartbeat = \"250ms\"
suspect_after = \"2s\"
dead_after = \"4s\"
";

/// For tests that wait until nothing unneeded is left: a write that was given up while the namenode was down ends with
/// its lease only.
pub const SHORT_LEASES: &str = "lease_soft = \"5s\"\nlease_hard = \"15s\"";

/// Where servers keep their data, how they are set, and which network they are in.
#[derive(Debug)]
#[must_use = "nothing starts before `Cluster::start_as`"]
pub struct Layout {
    pub(super) racks: Vec<String>,
    pub(super) settings: String,
    pub(super) namenode_dir: Option<PathBuf>,
    pub(super) datanode_dirs: Vec<Vec<PathBuf>>,
    pub(super) network: Option<Network>,
}

impl Layout {
    /// So many datanodes in one rack, each with a folder in a place for temporary files, all on loopback.
    pub fn new(datanodes: usize) -> Self {
        Self::in_racks(&vec!["/r1"; datanodes])
    }

    /// As [`new`](Self::new), a datanode in each of `racks`.
    pub fn in_racks(racks: &[&str]) -> Self {
        Self {
            racks: racks.iter().map(|rack| (*rack).to_owned()).collect(),
            settings: SETTINGS.to_owned(),
            namenode_dir: None,
            datanode_dirs: Vec::new(),
            network: None,
        }
    }

    /// Adds lines to the settings; the section `[namenode]` is open.
    pub fn settings(mut self, lines: &str) -> Self {
        self.settings.push_str(lines);
        self.settings.push('\n');
        self
    }

    /// The namenode keeps its state here.
    pub fn namenode_dir(mut self, dir: PathBuf) -> Self {
        self.namenode_dir = Some(dir);
        self
    }

    /// Data folders of one datanode after another; those that have none get one as usual.
    pub fn datanode_dirs(mut self, dirs: Vec<Vec<PathBuf>>) -> Self {
        self.datanode_dirs = dirs;
        self
    }

    /// Each server gets a host of its own in `network`.
    pub fn network(mut self, network: Network) -> Self {
        self.network = Some(network);
        self
    }
}
