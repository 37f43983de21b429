//! One direction of a connection.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::io::ReadBuf;
use tokio::time::Instant;

use super::Network;
use crate::simulation::process::Incarnation;

/// Bytes under way; beyond that a writer waits, as for a socket's buffers.
const ROOM_BYTES: usize = 256 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Pipe {
    network: Arc<Network>,
    pub(super) from: Arc<Incarnation>,
    pub(super) to: Arc<Incarnation>,
    label: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Piece>,
    bytes: usize,
    closed: bool,
    reset: bool,
    /// One end has lost power: nothing arrives, and nobody says so.
    silent: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Debug)]
struct Piece {
    arrives: Instant,
    bytes: Bytes,
}

/// What a reader is to do.
pub(super) enum Next {
    /// It has read something, or the end, or an error.
    Done(io::Result<()>),
    /// Wait until then.
    Until(Instant),
    /// Wait to be woken.
    Wait,
}

impl Pipe {
    pub(super) fn new(
        network: Arc<Network>,
        from: Arc<Incarnation>,
        to: Arc<Incarnation>,
        label: String,
    ) -> Arc<Self> {
        Arc::new(Self { network, from, to, label, state: Mutex::default() })
    }

    /// Breaks the connection off: both ends get an error.
    pub(super) fn reset(&self) {
        let mut state = self.state.lock();
        state.reset = true;
        state.pieces.clear();
        state.bytes = 0;
        drop(state);
        self.wake();
    }

    /// One end has lost power.
    pub(super) fn silence(&self) {
        self.state.lock().silent = true;
    }

    /// Lets both ends look again.
    pub(super) fn wake(&self) {
        let (reader, writer) = {
            let mut state = self.state.lock();
            (state.reader.take(), state.writer.take())
        };
        [reader, writer].into_iter().flatten().for_each(Waker::wake);
    }

    /// The sender sends no more.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.wake();
    }

    /// The receiver has gone: whoever sends gets an error.
    pub(super) fn abandon(&self) {
        let is_over = {
            let state = self.state.lock();
            state.closed && state.pieces.is_empty()
        };
        if !is_over && self.to.is_alive() {
            self.reset();
        }
    }

    pub(super) fn read(&self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Next {
        if !self.to.is_alive() {
            return Next::Done(Err(ErrorKind::ConnectionReset.into()));
        }
        let is_blocked = self.network.is_blocked(self.from.name(), self.to.name());
        let mut state = self.state.lock();
        if state.reset {
            return Next::Done(Err(ErrorKind::ConnectionReset.into()));
        }
        state.reader = Some(context.waker().clone());
        if is_blocked || state.silent {
            return Next::Wait;
        }
        let (now, is_closed) = (Instant::now(), state.closed);
        match state.pieces.front_mut() {
            None if is_closed => Next::Done(Ok(())),
            None => Next::Wait,
            Some(piece) if piece.arrives > now => Next::Until(piece.arrives),
            Some(piece) => {
                let count = piece.bytes.len().min(buffer.remaining());
                buffer.put_slice(&piece.bytes[..count]);
                piece.bytes.advance(count);
                if piece.bytes.is_empty() {
                    state.pieces.pop_front();
                }
                state.bytes -= count;
                let writer = state.writer.take();
                drop(state);
                writer.into_iter().for_each(Waker::wake);
                Next::Done(Ok(()))
            }
        }
    }

    pub(super) fn write(&self, context: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.from.is_alive() {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        if self.network.resets() {
            self.network.trace.line("net", format_args!("resets {}", self.label));
            self.reset();
        }
        // A blocked link delays what is sent too, by what it takes once it heals.
        let latency = self.network.latency(self.from.name(), self.to.name()).unwrap_or_default();
        let mut state = self.state.lock();
        if state.reset || state.closed {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let count = bytes.len().min(ROOM_BYTES - state.bytes);
        if count == 0 {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        // In order, however long each takes.
        let before = state.pieces.back().map(|piece| piece.arrives);
        let arrives = (Instant::now() + latency).max(before.unwrap_or_else(Instant::now));
        let bytes = Bytes::copy_from_slice(&bytes[..count]);
        let checksum = crc32c::crc32c(&bytes);
        self.network
            .trace
            .line(self.from.name(), format_args!("sends {} {count} {checksum:08x}", self.label));
        state.pieces.push_back(Piece { arrives, bytes });
        state.bytes += count;
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(count))
    }
}
