//! Why a block stream failed. Each error names the peer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use doldam_proto::frame::FrameError;

/// A block stream failed; the connection is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Nobody listens there, or the way is barred.
    #[error("cannot connect to {peer}")]
    Connect {
        /// The address.
        peer: Arc<str>,
        /// What the system says.
        source: io::Error,
    },
    /// The peer did nothing for too long.
    #[error("{peer} did not answer within {after:?} ({during})")]
    TimedOut {
        /// Its address.
        peer: Arc<str>,
        /// What was waited for.
        during: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// The peer closed the connection in the middle of an exchange.
    #[error("{peer} closed the connection ({during})")]
    Closed {
        /// Its address.
        peer: Arc<str>,
        /// What was waited for.
        during: &'static str,
    },
    /// The connection broke.
    #[error("the connection to {peer} failed ({during})")]
    Io {
        /// Its address.
        peer: Arc<str>,
        /// What was going on.
        during: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// The peer sent what the protocol does not allow, or belongs to another cluster.
    #[error("{peer} cannot be talked to ({during})")]
    Protocol {
        /// Its address.
        peer: Arc<str>,
        /// What was expected.
        during: &'static str,
        /// The rule that was broken.
        source: FrameError,
    },
    /// An earlier call on this connection failed or was cancelled halfway.
    #[error("the connection to {peer} was left in the middle of an exchange")]
    Unusable {
        /// Its address.
        peer: Arc<str>,
    },
}

impl StreamError {
    /// Who is at the other end, `HOST:PORT`.
    pub fn peer(&self) -> &str {
        match self {
            Self::Connect { peer, .. }
            | Self::TimedOut { peer, .. }
            | Self::Closed { peer, .. }
            | Self::Io { peer, .. }
            | Self::Protocol { peer, .. }
            | Self::Unusable { peer } => peer,
        }
    }

    /// Whether a retry is useless because the peer is not one of ours, or is out of its mind.
    pub fn is_protocol(&self) -> bool {
        matches!(self, Self::Protocol { .. })
    }

    /// Whether this is how a connection fails that the peer had closed before we used it.
    pub(crate) fn is_disconnect(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::Io { .. })
    }
}
