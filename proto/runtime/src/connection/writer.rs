//! What a peer is sent: messages, and frames straight from the caller's slices.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use doldam_proto::frame::codec;
use prost::Message;
use tokio::io::AsyncWrite;

use super::deadline::Deadline;
use super::{Deadlines, StreamError};
use crate::net::BoxWriteHalf;

/// Slices handed to the system with one call. A frame has four.
const SLICES_MAX: usize = 16;

/// The sending direction of a [`BlockConnection`](super::BlockConnection).
///
/// No call here is cancel-safe: one that is dropped before its end leaves the connection unusable.
pub struct ConnectionWriter {
    stream: BoxWriteHalf,
    peer: Arc<str>,
    deadlines: Deadlines,
    deadline: Deadline,
    /// Encoded and not yet sent.
    queued: BytesMut,
    /// Within a write, or after an error.
    unusable: bool,
}

impl ConnectionWriter {
    pub(super) fn new(stream: BoxWriteHalf, peer: Arc<str>, deadlines: Deadlines) -> Self {
        let (deadline, queued) = (Deadline::default(), BytesMut::new());
        Self { stream, peer, deadlines, deadline, queued, unusable: false }
    }

    /// Who is at the other end, `HOST:PORT`.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Changes how long the peer may take nothing.
    pub fn set_progress_deadline(&mut self, after: Duration) {
        self.deadlines.progress = after;
    }

    /// Encodes `message` to be sent in front of whatever is sent next, with the same call to the system.
    ///
    /// # Errors
    /// If it is larger than the protocol allows; nothing is queued then.
    pub fn queue_message(&mut self, message: &impl Message) -> Result<(), StreamError> {
        codec::encode_message(message, &mut self.queued).map_err(|source| StreamError::Protocol {
            peer: Arc::clone(&self.peer),
            during: "encoding a message",
            source,
        })
    }

    /// Sends `message`, and before it what is queued.
    ///
    /// # Errors
    /// If it is larger than the protocol allows; if the peer takes nothing for too long, or has closed the
    /// connection.
    pub async fn send_message(&mut self, message: &impl Message) -> Result<(), StreamError> {
        self.queue_message(message)?;
        self.flush().await
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// If the peer takes nothing for too long, or has closed the connection.
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        self.write_all_vectored(&[]).await
    }

    /// Sends what is queued, then `parts` one after another, with as few calls to the system as it allows.
    ///
    /// # Errors
    /// If the peer takes nothing for too long, or has closed the connection.
    pub async fn write_all_vectored(&mut self, parts: &[&[u8]]) -> Result<(), StreamError> {
        if self.unusable {
            return Err(StreamError::Unusable { peer: Arc::clone(&self.peer) });
        }
        self.unusable = true; // Until all is sent.
        let sent = self.write_parts(parts).await;
        self.finish(sent, "sending")?;
        self.queued.clear();
        self.unusable = false;
        Ok(())
    }

    /// Sends what is queued, then tells the peer that nothing more will come.
    ///
    /// # Errors
    /// If the peer takes nothing for too long, or has closed the connection.
    pub async fn shutdown(&mut self) -> Result<(), StreamError> {
        self.flush().await?;
        self.unusable = true;
        let (stream, after) = (&mut self.stream, self.deadlines.progress);
        let shut =
            write_within(&mut self.deadline, after, |cx| Pin::new(&mut *stream).poll_shutdown(cx));
        let shut = shut.await;
        self.finish(shut, "closing")
    }

    /// Bytes to be sent in front of whatever is sent next.
    pub(super) fn queue_bytes(&mut self, bytes: &[u8]) {
        self.queued.extend_from_slice(bytes);
    }

    /// Nothing failed and nothing is left over.
    pub(super) fn is_between_exchanges(&self) -> bool {
        !self.unusable && self.queued.is_empty()
    }

    async fn write_parts(&mut self, parts: &[&[u8]]) -> Result<(), WriteFailure> {
        let Self { stream, deadline, deadlines, queued, .. } = self;
        let after = deadlines.progress;
        // By index: an iterator of references, kept across an await, makes a future that rustc cannot prove `Send`.
        let (mut next, end) = (0, parts.len() + 1);
        while next < end {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = SLICES_MAX.min(end - next);
            for slice in &mut slices[..count] {
                *slice = IoSlice::new(if next == 0 { &queued[..] } else { parts[next - 1] });
                next += 1;
            }
            let mut unsent = &mut slices[..count];
            IoSlice::advance_slices(&mut unsent, 0); // Takes away empty ones in front.
            while !unsent.is_empty() {
                let sent = write_within(deadline, after, |cx| {
                    Pin::new(&mut *stream).poll_write_vectored(cx, unsent)
                });
                match sent.await? {
                    0 => return Err(WriteFailure::Io(io::ErrorKind::WriteZero.into())),
                    bytes => IoSlice::advance_slices(&mut unsent, bytes),
                }
            }
        }
        // Does nothing for TCP; other streams may hold bytes back until they are asked.
        write_within(deadline, after, |cx| Pin::new(&mut *stream).poll_flush(cx)).await
    }

    fn finish(
        &self,
        result: Result<(), WriteFailure>,
        during: &'static str,
    ) -> Result<(), StreamError> {
        let peer = || Arc::clone(&self.peer);
        result.map_err(|failure| match failure {
            WriteFailure::TimedOut => {
                StreamError::TimedOut { peer: peer(), during, after: self.deadlines.progress }
            }
            WriteFailure::Io(source) => StreamError::Io { peer: peer(), during, source },
        })
    }
}

impl fmt::Debug for ConnectionWriter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ConnectionWriter").field("peer", &self.peer).finish_non_exhaustive()
    }
}

enum WriteFailure {
    TimedOut,
    Io(io::Error),
}

/// Polls `write` until it is ready, `after` at the most.
async fn write_within<T>(
    deadline: &mut Deadline,
    after: Duration,
    mut write: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
) -> Result<T, WriteFailure> {
    deadline.restart();
    poll_fn(|cx| match write(cx) {
        Poll::Ready(result) => Poll::Ready(result.map_err(WriteFailure::Io)),
        Poll::Pending => deadline.poll_elapsed(cx, after).map(|()| Err(WriteFailure::TimedOut)),
    })
    .await
}
