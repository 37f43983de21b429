//! What a peer sends: handshake, messages, frame headers, bodies.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use doldam_proto::frame::header::{FrameHeader, HEADER_BYTES};
use doldam_proto::frame::{FrameError, codec, handshake};
use doldam_proto::id::ClusterId;
use prost::Message;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::deadline::Deadline;
use super::{Deadlines, StreamError};
use crate::net::BoxReadHalf;

/// Bytes asked for when a header or message is due. What comes with it of a body is copied once, so this is
/// small beside a frame, and large beside the messages, several of which then come with one call.
const READ_AHEAD_BYTES: usize = 4096;

/// The receiving direction of a [`BlockConnection`](super::BlockConnection).
pub struct ConnectionReader {
    stream: BoxReadHalf,
    peer: Arc<str>,
    deadlines: Deadlines,
    deadline: Deadline,
    /// Received and not yet consumed.
    ahead: BytesMut,
    /// Whose handshake has still to come before anything else.
    handshake_due: Option<ClusterId>,
    /// Within a body, or after an error.
    unusable: bool,
}

impl ConnectionReader {
    pub(super) fn new(
        stream: BoxReadHalf,
        peer: Arc<str>,
        cluster: ClusterId,
        deadlines: Deadlines,
    ) -> Self {
        let (deadline, ahead) = (Deadline::default(), BytesMut::new());
        let handshake_due = Some(cluster);
        Self { stream, peer, deadlines, deadline, ahead, handshake_due, unusable: false }
    }

    /// Who is at the other end, `HOST:PORT`.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Changes how long the peer may be silent within an exchange.
    pub fn set_progress_deadline(&mut self, after: Duration) {
        self.deadlines.progress = after;
    }

    /// The next message. Cancel-safe.
    ///
    /// # Errors
    /// If the peer is silent for too long, closes the connection or sends no such message; and whatever speaks
    /// against its handshake, if that comes only now.
    pub async fn recv_message<M: Message + Default>(&mut self) -> Result<M, StreamError> {
        self.recv_handshake().await?;
        self.take_message().await
    }

    /// The next request, for the side that serves; `None` if the peer has closed the connection between two
    /// requests, as it should. The first byte may take as long as the idle deadline allows. Cancel-safe.
    ///
    /// # Errors
    /// As [`recv_message`](Self::recv_message).
    pub async fn recv_request<M: Message + Default>(&mut self) -> Result<Option<M>, StreamError> {
        const DURING: &str = "waiting for a request";
        self.recv_handshake().await?;
        if self.ahead.is_empty() && self.fill_some(1, self.deadlines.idle, DURING).await? == 0 {
            return Ok(None);
        }
        self.take_message().await.map(Some)
    }

    /// The header of the next frame. Cancel-safe.
    ///
    /// # Errors
    /// As [`recv_message`](Self::recv_message).
    pub async fn recv_frame_header(&mut self) -> Result<FrameHeader, StreamError> {
        const DURING: &str = "waiting for a frame";
        self.recv_handshake().await?;
        self.fill(HEADER_BYTES, DURING).await?;
        let mut header = [0; HEADER_BYTES];
        self.ahead.copy_to_slice(&mut header);
        FrameHeader::decode(&header).map_err(|source| self.protocol(DURING, source))
    }

    /// Appends the next `bytes` bytes to `buffer`, reading them into its spare room, which is neither zeroed nor
    /// allocated anew if it suffices. Not cancel-safe: what came stays in `buffer`, the connection is unusable.
    ///
    /// `bytes` must come from a checked header: it is allocated at once.
    ///
    /// # Errors
    /// If the peer makes no progress for too long, or closes the connection.
    pub async fn read_exact_into(
        &mut self,
        buffer: &mut BytesMut,
        bytes: usize,
    ) -> Result<(), StreamError> {
        self.begin_body()?;
        buffer.reserve(bytes);
        let ready = self.ahead.len().min(bytes);
        buffer.put_slice(&self.ahead[..ready]);
        self.ahead.advance(ready);

        let mut rest = buffer.limit(bytes - ready);
        while rest.has_remaining_mut() {
            let stream = &mut self.stream;
            let read = read_within(&mut self.deadline, self.deadlines.progress, |cx| {
                poll_read_buf(Pin::new(&mut *stream), cx, &mut rest)
            });
            let read = read.await;
            self.check_body(read)?;
        }
        self.unusable = false;
        Ok(())
    }

    /// Fills `buffer` with the next bytes. Not cancel-safe, as [`read_exact_into`](Self::read_exact_into).
    ///
    /// # Errors
    /// As there.
    pub async fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), StreamError> {
        self.begin_body()?;
        let ready = self.ahead.len().min(buffer.len());
        self.ahead.copy_to_slice(&mut buffer[..ready]);

        let mut rest = ReadBuf::new(&mut buffer[ready..]);
        while rest.remaining() > 0 {
            let (stream, before) = (&mut self.stream, rest.filled().len());
            let read = read_within(&mut self.deadline, self.deadlines.progress, |cx| {
                let polled = Pin::new(&mut *stream).poll_read(cx, &mut rest);
                polled.map_ok(|()| rest.filled().len() - before)
            });
            let read = read.await;
            self.check_body(read)?;
        }
        self.unusable = false;
        Ok(())
    }

    /// Receives and checks the peer's handshake, unless that was done. Cancel-safe.
    pub(super) async fn recv_handshake(&mut self) -> Result<(), StreamError> {
        const DURING: &str = "waiting for its handshake";
        let Some(cluster) = self.handshake_due else { return Ok(()) };
        // Fewer bytes are enough to see that this is another protocol, whose peer may wait for us to answer.
        self.fill(4, DURING).await?;
        if self.ahead[..4] == handshake::encode(cluster)[..4] {
            self.fill(handshake::HANDSHAKE_BYTES, DURING).await?;
        }
        let mut bytes = [0; handshake::HANDSHAKE_BYTES];
        let found = self.ahead.len().min(bytes.len());
        self.ahead.copy_to_slice(&mut bytes[..found]);
        handshake::check(&bytes, cluster).map_err(|source| self.protocol(DURING, source))?;
        self.handshake_due = None;
        Ok(())
    }

    /// Reads and forgets until the peer closes the connection, at most about `bytes_max`.
    pub(super) async fn discard(&mut self, bytes_max: usize) -> Result<(), StreamError> {
        let mut discarded = 0;
        while discarded < bytes_max {
            self.ahead.clear();
            match self.fill_some(64 << 10, self.deadlines.progress, "closing").await? {
                0 => break,
                read => discarded += read,
            }
        }
        Ok(())
    }

    /// Nothing failed, nothing is left over, and the peer has proved to be of our cluster.
    pub(super) fn is_between_exchanges(&self) -> bool {
        !self.unusable && self.ahead.is_empty() && self.handshake_due.is_none()
    }

    /// Whether nothing, not even the end, has come in, as far as is known without waiting.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0; 1];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(&mut self.stream).poll_read(&mut cx, &mut buffer).is_pending()
    }

    async fn take_message<M: Message + Default>(&mut self) -> Result<M, StreamError> {
        const DURING: &str = "waiting for a message";
        self.fill(codec::PREFIX_BYTES, DURING).await?;
        let mut prefix = [0; codec::PREFIX_BYTES];
        prefix.copy_from_slice(&self.ahead[..codec::PREFIX_BYTES]);
        // Consumed only once it is whole: a cancelled call loses nothing.
        let end = match codec::decode_prefix(prefix) {
            Ok(bytes) => codec::PREFIX_BYTES + bytes,
            Err(source) => return Err(self.protocol(DURING, source)),
        };
        self.fill(end, DURING).await?;
        let message = codec::decode_message(&self.ahead[codec::PREFIX_BYTES..end]);
        self.ahead.advance(end);
        message.map_err(|source| self.protocol(DURING, source))
    }

    /// Waits until `bytes` bytes are in `ahead`. Cancel-safe.
    async fn fill(&mut self, bytes: usize, during: &'static str) -> Result<(), StreamError> {
        while self.ahead.len() < bytes {
            let missing = bytes - self.ahead.len();
            if self.fill_some(missing, self.deadlines.progress, during).await? == 0 {
                self.unusable = true;
                return Err(StreamError::Closed { peer: Arc::clone(&self.peer), during });
            }
        }
        Ok(())
    }

    /// Takes in what comes next, whose expected length is `bytes`; 0 at the end. Cancel-safe.
    async fn fill_some(
        &mut self,
        bytes: usize,
        after: Duration,
        during: &'static str,
    ) -> Result<usize, StreamError> {
        self.check_usable()?;
        // Not all the room there is: after a long message that would be much of a body.
        let room = bytes.max(READ_AHEAD_BYTES);
        self.ahead.reserve(room);
        let mut ahead = (&mut self.ahead).limit(room);
        let stream = &mut self.stream;
        let read = read_within(&mut self.deadline, after, |cx| {
            poll_read_buf(Pin::new(&mut *stream), cx, &mut ahead)
        });
        let read = read.await;
        read.map_err(|failure| self.failed(failure, after, during))
    }

    fn begin_body(&mut self) -> Result<(), StreamError> {
        self.check_usable()?;
        self.unusable = true; // Until the body is whole.
        Ok(())
    }

    fn check_body(&mut self, read: Result<usize, ReadFailure>) -> Result<(), StreamError> {
        const DURING: &str = "receiving a body";
        match read {
            Ok(0) => Err(StreamError::Closed { peer: Arc::clone(&self.peer), during: DURING }),
            Ok(_) => Ok(()),
            Err(failure) => Err(self.failed(failure, self.deadlines.progress, DURING)),
        }
    }

    fn check_usable(&self) -> Result<(), StreamError> {
        if self.unusable {
            return Err(StreamError::Unusable { peer: Arc::clone(&self.peer) });
        }
        Ok(())
    }

    fn failed(
        &mut self,
        failure: ReadFailure,
        after: Duration,
        during: &'static str,
    ) -> StreamError {
        self.unusable = true;
        let peer = Arc::clone(&self.peer);
        match failure {
            ReadFailure::TimedOut => StreamError::TimedOut { peer, during, after },
            ReadFailure::Io(source) => StreamError::Io { peer, during, source },
        }
    }

    fn protocol(&mut self, during: &'static str, source: FrameError) -> StreamError {
        self.unusable = true;
        StreamError::Protocol { peer: Arc::clone(&self.peer), during, source }
    }
}

impl fmt::Debug for ConnectionReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ConnectionReader").field("peer", &self.peer).finish_non_exhaustive()
    }
}

enum ReadFailure {
    TimedOut,
    Io(io::Error),
}

/// Polls `read` until it is ready, `after` at the most.
async fn read_within(
    deadline: &mut Deadline,
    after: Duration,
    mut read: impl FnMut(&mut Context<'_>) -> Poll<io::Result<usize>>,
) -> Result<usize, ReadFailure> {
    deadline.restart();
    poll_fn(|cx| match read(cx) {
        Poll::Ready(result) => Poll::Ready(result.map_err(ReadFailure::Io)),
        Poll::Pending => deadline.poll_elapsed(cx, after).map(|()| Err(ReadFailure::TimedOut)),
    })
    .await
}
