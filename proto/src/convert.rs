//! From wire to domain and back. Only the receiver checks; senders convert infallibly.

pub mod block_stream;
pub mod datanode;
pub mod types;

#[cfg(test)]
mod types_test;

/// A message from a peer breaks a rule of its `.proto` file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct BadMessage {
    /// Which field.
    pub field: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl BadMessage {
    /// `field` is wrong because of `why`.
    pub fn new(field: &'static str, why: impl Into<String>) -> Self {
        Self { field, why: why.into() }
    }
}

impl From<BadMessage> for crate::FsError {
    fn from(bad: BadMessage) -> Self {
        Self::InvalidArgument { field: bad.field.to_owned(), why: bad.why }
    }
}
