//! The configuration file: what `[client]`, `[namenode]` and `[datanode]` may say.
//!
//! ```toml
//! [client]
//! namenodes = ["nn1:8020"]   # also: timeout, replication, block_size, durability, parallel, hedge, host, rack
//!
//! [namenode]                 # every setting of the server, by the names of its documentation
//! dead_after = "30s"
//!
//! [datanode]
//! rack = "/r1"
//! ```

use std::path::Path;
use std::time::Duration;

use doldam_client::Durability;
use doldam_datanode::DatanodeConfig;
use doldam_namenode::NamenodeConfig;
use doldam_proto::block::BlockBytes;
use doldam_proto::limits::REPLICATION_MAX;
use doldam_runtime::config::{ByteSize, HumanDuration, find_config, load_toml};
use serde::Deserialize;

use crate::args::{GlobalArgs, ParallelArgs, WriteArgs, parse_address};
use crate::error::CommandError;
use crate::hedge::HedgeChoice;

/// Where the namenode is if nobody says.
pub(crate) const NAMENODE_DEFAULT: &str = "127.0.0.1:8020";

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConfigFile {
    /// What client commands go by.
    pub(crate) client: ClientSection,
    /// Settings of `doldam namenode` and `doldam local`.
    pub(crate) namenode: NamenodeConfig,
    /// Settings of `doldam datanode` and `doldam local`.
    pub(crate) datanode: DatanodeConfig,
}

/// What client commands go by.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ClientSection {
    /// `HOST:PORT` of each namenode.
    pub(crate) namenodes: Vec<String>,
    /// Longest wait for one answer.
    pub(crate) timeout: Option<HumanDuration>,
    /// Replicas of new files.
    pub(crate) replication: Option<u32>,
    /// Block size of new files.
    pub(crate) block_size: Option<ByteSize>,
    /// When a new file counts as stored.
    pub(crate) durability: Option<Durability>,
    /// Blocks and files in flight.
    pub(crate) parallel: Option<u16>,
    /// When to ask a second replica.
    pub(crate) hedge: Option<HedgeChoice>,
    /// Names of this host, with commas.
    pub(crate) host: Option<String>,
    /// Rack of this host.
    pub(crate) rack: Option<String>,
}

/// What a client command goes by, after flags, environment and file have been merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `HOST:PORT` of each namenode, never empty.
    pub(crate) namenodes: Vec<String>,
    /// Longest wait for one answer.
    pub(crate) timeout: Option<Duration>,
    /// Replicas of new files.
    pub(crate) replication: Option<u32>,
    /// Block size of new files.
    pub(crate) block_bytes: Option<u64>,
    /// When a new file counts as stored.
    pub(crate) durability: Durability,
    /// Blocks and files in flight.
    pub(crate) parallel: Option<usize>,
    /// When to ask a second replica.
    pub(crate) hedge: Option<HedgeChoice>,
    /// Names of this host, with commas.
    pub(crate) host: Option<String>,
    /// Rack of this host.
    pub(crate) rack: Option<String>,
}

impl ConfigFile {
    /// Reads `explicit`, else the first file there is, else nothing.
    ///
    /// # Errors
    /// If `explicit` is not there, or a file does not parse or says what cannot be.
    pub(crate) fn load(explicit: Option<&Path>) -> Result<Self, CommandError> {
        let found = match explicit {
            Some(path) => Some(path.to_owned()),
            None => find_config(|name| std::env::var_os(name)),
        };
        let Some(path) = found else { return Ok(Self::default()) };
        let file: Self = load_toml(&path).map_err(|error| {
            CommandError::request(
                format!("cannot use the configuration file {}: {error}", path.display()),
                "correct the file, or name another with --config",
            )
        })?;
        file.client.check(&path)?;
        Ok(file)
    }
}

impl ClientSection {
    fn check(&self, path: &Path) -> Result<(), CommandError> {
        let refuse = |key: &str, why: String| {
            Err(CommandError::request(
                format!("{}: [client] {key}: {why}", path.display()),
                "correct the file, or name another with --config",
            ))
        };
        for address in &self.namenodes {
            if let Err(why) = parse_address(address) {
                return refuse("namenodes", why);
            }
        }
        match (self.replication, self.block_size, self.parallel) {
            (Some(replication), ..) if !(1..=REPLICATION_MAX).contains(&replication) => {
                refuse("replication", format!("{replication} is not in 1..={REPLICATION_MAX}"))
            }
            (_, Some(size), _) if BlockBytes::new(size.0).is_none() => {
                refuse("block_size", format!("{} is no power of two from 64KiB to 1GiB", size.0))
            }
            (.., Some(parallel)) if !(1..=64).contains(&parallel) => {
                refuse("parallel", format!("{parallel} is not in 1..=64"))
            }
            _ => Ok(()),
        }
    }
}

impl Settings {
    /// Merges what was typed or set in the environment with the file.
    pub(crate) fn merge(global: &GlobalArgs, file: &ClientSection) -> Self {
        let namenodes = [&global.namenode, &file.namenodes].into_iter().find(|n| !n.is_empty());
        Self {
            namenodes: namenodes.cloned().unwrap_or_else(|| vec![NAMENODE_DEFAULT.to_owned()]),
            timeout: global.timeout.or(file.timeout.map(|timeout| timeout.0)),
            replication: file.replication,
            block_bytes: file.block_size.map(|size| size.0),
            durability: file.durability.unwrap_or_default(),
            parallel: file.parallel.map(usize::from),
            hedge: global.hedge.or(file.hedge),
            host: global.client_host.clone().or_else(|| file.host.clone()),
            rack: global.client_rack.clone().or_else(|| file.rack.clone()),
        }
    }

    /// With what was typed for one command.
    pub(crate) fn with_write(mut self, typed: &WriteArgs) -> Self {
        self.replication = typed.replication.or(self.replication);
        self.block_bytes = typed.block_size.or(self.block_bytes);
        self.durability = typed.durability.map_or(self.durability, Into::into);
        self
    }

    /// With what was typed for one command.
    pub(crate) fn with_parallel(mut self, typed: &ParallelArgs) -> Self {
        self.parallel = typed.parallel.map(usize::from).or(self.parallel);
        self
    }
}
