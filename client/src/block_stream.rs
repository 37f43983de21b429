//! Exchanges with datanodes: a block to a pipeline, a range of a block from a replica.
//!
//! Each is one try at one place. What happens after a failure is decided in [`crate::engine`].

mod probe;
pub(crate) mod receive;
pub(crate) mod send;

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use doldam_proto::id::NodeId;
use doldam_proto::wire::{self, block_failure::Code};
use doldam_runtime::connection::StreamError;
use doldam_runtime::pool::ConnectionPool;

use crate::engine::slow_node::SlowNodeLimits;

/// What every exchange needs.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    pub(crate) pool: ConnectionPool,
    /// How long a datanode may be silent while it owes bytes.
    pub(crate) read_timeout: Duration,
    /// How long each datanode of a pipeline may be silent while it owes an acknowledgement.
    pub(crate) write_timeout: Duration,
    /// How long each may take from the last byte to the acknowledgement of the whole block.
    pub(crate) sync_timeout: Duration,
    /// After how long a silent pipeline is looked into.
    pub(crate) probe_after: Duration,
    /// When a datanode is too slow for its pipeline.
    pub(crate) slow_node: SlowNodeLimits,
    /// How long an application may have nothing to send.
    pub(crate) stall_timeout: Duration,
    /// Who writes, for people.
    pub(crate) writer: Arc<str>,
}

/// Why an exchange failed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct StreamFailure {
    /// The node at fault, if it is another than the one that was talked to.
    pub(crate) node: Option<NodeId>,
    /// For people.
    pub(crate) cause: String,
    /// Whether the node's *data* is wrong or missing, which the namenode wants to know.
    pub(crate) bad_data: bool,
    /// Whether the node says that it has nothing of the block.
    pub(crate) missing: bool,
    /// Whether the node does not answer at all.
    pub(crate) stuck: bool,
}

impl StreamFailure {
    /// The node broke the protocol.
    fn protocol(cause: impl Into<String>) -> Self {
        Self { cause: cause.into(), ..Self::default() }
    }

    /// If `foreign`, nobody is accused of wrong data.
    fn unless(mut self, foreign: bool) -> Self {
        self.bad_data &= !foreign;
        self
    }

    /// The node has not got what the namenode says it has.
    fn bad_data(cause: impl Into<String>) -> Self {
        Self { cause: cause.into(), bad_data: true, ..Self::default() }
    }
}

impl From<StreamError> for StreamFailure {
    fn from(error: StreamError) -> Self {
        Self { cause: with_causes(&error), ..Self::default() }
    }
}

impl From<wire::BlockFailure> for StreamFailure {
    fn from(failure: wire::BlockFailure) -> Self {
        let code = failure.code();
        let bad_data = match code {
            Code::NotFound | Code::Checksum | Code::Corrupt => true,
            // The block was written on meanwhile: the locations are old.
            Code::StaleGeneration
            | Code::Unspecified
            | Code::BadRequest
            | Code::NoSpace
            | Code::Disk
            | Code::Downstream
            | Code::Busy
            | Code::Stopping
            | Code::Exists => false,
        };
        let node = (failure.node_id != 0).then_some(NodeId(failure.node_id));
        let name = code.as_str_name().trim_start_matches("CODE_").to_lowercase();
        let mut cause = failure.message;
        truncate(&mut cause);
        if cause.is_empty() {
            cause = name;
        } else {
            _ = write!(cause, " ({name})"); // Writing to a string cannot fail.
        }
        let missing = code == Code::NotFound;
        Self { node, cause, bad_data, missing, stuck: false }
    }
}

/// A peer's text in an error stays readable.
fn truncate(text: &mut String) {
    const CAUSE_BYTES_MAX: usize = 512;
    let end = (0..=text.len().min(CAUSE_BYTES_MAX)).rev().find(|&at| text.is_char_boundary(at));
    text.truncate(end.unwrap_or(0));
}

/// An error with all its causes, on one line.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        _ = write!(text, ": {error}"); // Writing to a string cannot fail.
        cause = error.source();
    }
    text
}

/// Whether a connection that had been idle turned out to be closed, which says nothing about the node.
fn is_disconnect(error: &StreamError) -> bool {
    matches!(error, StreamError::Closed { .. } | StreamError::Io { .. })
}
