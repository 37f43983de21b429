//! The block stream, as bytes: see `docs/protocol.md` for the whole conversation. No socket in here.
//!
//! * [`handshake`]: the first bytes each way.
//! * [`header`]: what precedes the payload of a frame.
//! * [`codec`]: length-prefixed messages.

pub mod codec;
pub mod handshake;
pub mod header;

#[cfg(test)]
mod frame_test;

/// What a peer sent is not the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not Doldam at all.
    #[error("the peer does not speak the Doldam block stream (its first bytes are {found:02x?})")]
    BadMagic {
        /// What came instead.
        found: [u8; 4],
    },
    /// Another version of the protocol.
    #[error("block stream version {found} where {expected} is spoken")]
    WrongVersion {
        /// Ours.
        expected: u16,
        /// The peer's.
        found: u16,
    },
    /// Another cluster.
    #[error("the peer belongs to cluster {found}, not {expected}")]
    WrongCluster {
        /// Ours.
        expected: crate::id::ClusterId,
        /// The peer's.
        found: crate::id::ClusterId,
    },
    /// An unknown kind of frame, a reserved bit set, or the like.
    #[error("malformed frame: {what}")]
    Malformed {
        /// Which rule.
        what: &'static str,
    },
    /// Larger than the protocol allows.
    #[error("{what} of {found} bytes is larger than the {max} allowed")]
    TooLarge {
        /// Frame payload or message.
        what: &'static str,
        /// As announced.
        found: u64,
        /// The limit.
        max: u64,
    },
    /// The protobuf message does not decode.
    #[error("malformed message")]
    BadMessage(#[from] prost::DecodeError),
}
