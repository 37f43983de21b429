//! What decides, without doing: no I/O, no clock, no task. See the two halves.

#![deny(clippy::wildcard_enum_match_arm)]

pub(crate) mod hedge;
pub(crate) mod latency;
pub(crate) mod ranges;
pub(crate) mod read_plan;
pub(crate) mod silence;
pub(crate) mod slow_node;
pub(crate) mod write_pipeline;
