//! One block stream: messages, frame headers and bodies over a connection, every wait under a deadline.
//!
//! The byte layout is `doldam_proto::frame`'s; this file and its folder are the only code that moves those bytes.
//!
//! * **No needless copies.** A body is read straight into the caller's buffer and written straight from the
//!   caller's slices; only the few KiB that arrived together with a header pass through a buffer of ours.
//! * **No round trip for the handshake.** The side that connects queues its handshake and sends it with its first
//!   request; it checks the peer's when the first answer comes.
//! * **Cheap deadlines.** A timer is touched only when the socket is not ready (see `deadline`).
//! * **Halves without a lock.** [`split`](BlockConnection::split) gives two owners that never wait for each other,
//!   and [`join`](BlockConnection::join) makes them one again.
//!
//! Who may be cancelled: [`recv_message`](ConnectionReader::recv_message) and
//! [`recv_frame_header`](ConnectionReader::recv_frame_header) at any await, they take up where they were. A body
//! or a write that was cancelled (or failed) leaves the peer in the middle of something: the connection then is
//! [unusable](BlockConnection::is_reusable) and refuses further use.

mod deadline;
mod error;
mod reader;
mod writer;

#[cfg(test)]
#[path = "connection/connection_test.rs"]
mod tests;

#[cfg(test)]
#[path = "connection/refusal_test.rs"]
mod refusal_tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use doldam_proto::frame::header::FrameHeader;
use doldam_proto::frame::{FrameError, handshake};
use doldam_proto::id::ClusterId;
use prost::Message;

pub use error::StreamError;
pub use reader::ConnectionReader;
pub use writer::ConnectionWriter;

use crate::net::{BoxStream, Net};

/// Most bytes thrown away when a connection is closed gently.
const LINGER_BYTES_MAX: usize = 16 << 20;
/// Longest time this takes.
const LINGER_MAX: Duration = Duration::from_secs(2);

/// How long to wait for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For the connection itself.
    pub connect: Duration,
    /// Within an exchange: silence after which the peer counts as gone. Each byte starts it anew.
    pub progress: Duration,
    /// Between exchanges: for the next request.
    pub idle: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            progress: Duration::from_secs(30),
            idle: Duration::from_mins(2),
        }
    }
}

/// A block stream to one peer.
#[derive(Debug)]
pub struct BlockConnection {
    reader: ConnectionReader,
    writer: ConnectionWriter,
}

impl BlockConnection {
    /// Connects to the datanode at `address` (`HOST:PORT`), of `cluster`.
    ///
    /// Nothing is sent yet, so nothing is known about the peer but that somebody listens there.
    ///
    /// # Errors
    /// If nobody answers in time, or somebody refuses.
    pub async fn connect(
        net: &dyn Net,
        address: &str,
        cluster: ClusterId,
        deadlines: Deadlines,
    ) -> Result<Self, StreamError> {
        let peer: Arc<str> = address.into();
        match tokio::time::timeout(deadlines.connect, net.connect(address)).await {
            Ok(Ok(stream)) => Ok(Self::over(stream, peer, cluster, deadlines)),
            Ok(Err(source)) => Err(StreamError::Connect { peer, source }),
            Err(_elapsed) => {
                let (during, after) = ("connecting", deadlines.connect);
                Err(StreamError::TimedOut { peer, during, after })
            }
        }
    }

    /// Greets `peer`, who connected to us, and checks its greeting.
    ///
    /// # Errors
    /// If it is silent, speaks something else or belongs to another cluster. It has been told who we are, unless
    /// it does not speak this protocol at all, and the connection is closed.
    pub async fn accept(
        stream: BoxStream,
        peer: &str,
        cluster: ClusterId,
        deadlines: Deadlines,
    ) -> Result<Self, StreamError> {
        let mut connection = Self::over(stream, peer.into(), cluster, deadlines);
        connection.writer.flush().await?;
        match connection.reader.recv_handshake().await {
            Ok(()) => Ok(connection),
            Err(refusal) => {
                let foreign = matches!(
                    &refusal,
                    StreamError::Protocol { source: FrameError::BadMagic { .. }, .. }
                );
                if refusal.is_protocol() && !foreign {
                    connection.linger().await;
                }
                Err(refusal)
            }
        }
    }

    /// Speaks the block stream over `stream`; both sides may start this way.
    fn over(stream: BoxStream, peer: Arc<str>, cluster: ClusterId, deadlines: Deadlines) -> Self {
        let (read, write) = stream.into_halves();
        let mut writer = ConnectionWriter::new(write, Arc::clone(&peer), deadlines);
        writer.queue_bytes(&handshake::encode(cluster));
        Self { reader: ConnectionReader::new(read, peer, cluster, deadlines), writer }
    }

    /// The two directions, to be used by two tasks.
    pub fn split(self) -> (ConnectionReader, ConnectionWriter) {
        (self.reader, self.writer)
    }

    /// Both directions, to be used side by side in one task.
    pub fn halves(&mut self) -> (&mut ConnectionReader, &mut ConnectionWriter) {
        (&mut self.reader, &mut self.writer)
    }

    /// Undoes [`split`](Self::split). The halves must belong together.
    pub fn join(reader: ConnectionReader, writer: ConnectionWriter) -> Self {
        debug_assert_eq!(reader.peer(), writer.peer(), "halves of two connections");
        Self { reader, writer }
    }

    /// Who is at the other end, `HOST:PORT`.
    pub fn peer(&self) -> &str {
        self.reader.peer()
    }

    /// Whether another exchange may follow on this connection: nothing failed, nothing was cut short, nothing is
    /// left over in either direction, and the peer has proved to be of our cluster.
    pub fn is_reusable(&self) -> bool {
        self.reader.is_between_exchanges() && self.writer.is_between_exchanges()
    }

    /// Whether the peer has closed the connection, or said something that nobody asked for, as far as is known
    /// here without waiting.
    pub fn is_stale(&mut self) -> bool {
        !self.reader.is_quiet()
    }

    /// Closes our direction and throws away what the peer still sends, for a bounded time and size.
    ///
    /// To be used after a failure was sent to a peer that may be in the middle of sending: if the connection were
    /// just closed, the system would tell the peer so at once, and the failure could be lost before it is read.
    pub async fn linger(mut self) {
        let drain = async {
            self.writer.shutdown().await?;
            self.reader.discard(LINGER_BYTES_MAX).await
        };
        // Closed after this in any case, and the failure has been reported already.
        _ = tokio::time::timeout(LINGER_MAX, drain).await;
    }

    /// See [`ConnectionWriter::send_message`].
    ///
    /// # Errors
    /// As there.
    pub async fn send_message(&mut self, message: &impl Message) -> Result<(), StreamError> {
        self.writer.send_message(message).await
    }

    /// See [`ConnectionWriter::write_all_vectored`].
    ///
    /// # Errors
    /// As there.
    pub async fn write_all_vectored(&mut self, parts: &[&[u8]]) -> Result<(), StreamError> {
        self.writer.write_all_vectored(parts).await
    }

    /// See [`ConnectionReader::recv_message`].
    ///
    /// # Errors
    /// As there.
    pub async fn recv_message<M: Message + Default>(&mut self) -> Result<M, StreamError> {
        self.reader.recv_message().await
    }

    /// See [`ConnectionReader::recv_request`].
    ///
    /// # Errors
    /// As there.
    pub async fn recv_request<M: Message + Default>(&mut self) -> Result<Option<M>, StreamError> {
        self.reader.recv_request().await
    }

    /// See [`ConnectionReader::recv_frame_header`].
    ///
    /// # Errors
    /// As there.
    pub async fn recv_frame_header(&mut self) -> Result<FrameHeader, StreamError> {
        self.reader.recv_frame_header().await
    }

    /// See [`ConnectionReader::read_exact_into`].
    ///
    /// # Errors
    /// As there.
    pub async fn read_exact_into(
        &mut self,
        buffer: &mut BytesMut,
        bytes: usize,
    ) -> Result<(), StreamError> {
        self.reader.read_exact_into(buffer, bytes).await
    }
}
