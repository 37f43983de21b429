//! Waits for one piece of a block: from the replica being read and, when that is late, from a second one beside it.
//!
//! The first that delivers verified bytes wins, and the other's connection is closed. What to do when is decided in
//! [`ReadPlan`](crate::engine::read_plan::ReadPlan) and [`Hedging`](crate::engine::hedge::Hedging).

use std::future::{Future, pending};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use doldam_proto::block::LocatedBlock;
use doldam_proto::node::NodeAddress;

use super::BlockReader;
use crate::block_stream::StreamFailure;
use crate::block_stream::receive::VerifiedStream;
use crate::engine::hedge::Piece;
use crate::engine::read_plan::{LateStep, Side, silence};
use crate::open_file::OpenFile;

/// A replica that was asked for the next piece. Dropping it closes the connection.
type Attempt = Pin<Box<dyn Future<Output = Result<Delivery, StreamFailure>> + Send>>;

/// What a replica delivered.
struct Delivery {
    stream: VerifiedStream,
    bytes: Bytes,
    /// To be used again.
    buffer: BytesMut,
    /// From the request to the first byte of its answer, if there was a request.
    answered_after: Option<Duration>,
    /// From asking to this piece.
    took: Duration,
}

/// The replicas that are asked for one piece, as in the plan.
#[derive(Default)]
struct Asked {
    current: Option<Attempt>,
    second: Option<Attempt>,
}

impl Asked {
    /// What comes next of either. Cancel-safe.
    async fn outcome(&mut self) -> (Side, Result<Delivery, StreamFailure>) {
        async fn of(attempt: Option<&mut Attempt>) -> Result<Delivery, StreamFailure> {
            match attempt {
                Some(attempt) => attempt.await,
                None => pending().await,
            }
        }
        tokio::select! {
            biased;
            outcome = of(self.current.as_mut()) => (Side::Current, outcome),
            outcome = of(self.second.as_mut()) => (Side::Second, outcome),
        }
    }
}

impl BlockReader {
    /// The next piece and where it starts in the block; `None` if no replica is being read any more. Each replica
    /// has the deadlines of its connection.
    pub(super) async fn race(&mut self, buffer: &mut BytesMut) -> Option<(u64, Bytes)> {
        self.plan.call_off(); // Of a race that was dropped half-way.
        let file = Arc::clone(&self.file);
        let (choice, node) = (&file.inner.choice, self.plan.current()?.clone());
        // Taken out while in use: if this future is dropped half-way, so is the stream.
        let stream = self.stream.take();
        let piece = if stream.is_some() { Piece::Next } else { Piece::First };
        let (started, late_after) = (choice.now(), choice.late_after(piece));
        let current = self.ask(&node, stream, std::mem::take(buffer));
        let mut asked = Asked { current: Some(current), second: None };
        while asked.current.is_some() {
            let ended = tokio::select! {
                biased;
                ended = asked.outcome() => Some(ended),
                () = sleep(late_after) => None,
            };
            match ended {
                Some((side, Ok(delivery))) => {
                    choice.waited(piece, choice.now().saturating_sub(started));
                    return Some(self.won(side, delivery, buffer));
                }
                Some((side, Err(failure))) => self.lost(&mut asked, side, failure).await,
                None => self.late(&mut asked, late_after.unwrap_or_default()),
            }
        }
        None
    }

    /// Asks `node` for what is left of the range, or for the next piece of `stream`.
    fn ask(&self, node: &NodeAddress, stream: Option<VerifiedStream>, buffer: BytesMut) -> Attempt {
        let (file, block) = (Arc::clone(&self.file), Arc::clone(&self.block));
        let range = self.position..self.end;
        Box::pin(ask(file, block, node.address.clone(), range, stream, buffer))
    }

    /// Goes on with the replica that delivered first.
    fn won(&mut self, side: Side, delivery: Delivery, buffer: &mut BytesMut) -> (u64, Bytes) {
        let choice = &self.file.inner.choice;
        let Delivery { stream, bytes, buffer: used, answered_after, took } = delivery;
        if let Some(node) = self.plan.node(side) {
            choice.delivered(node.id, answered_after, bytes.len() as u64, took);
        }
        let other = self.plan.delivered(side);
        if side == Side::Second {
            self.file.note_hedge_won();
            if let Some(late) = other {
                tracing::debug!(block = %self.block.id, node = %late, "a second replica was faster");
                choice.failed(late.id);
            }
        }
        *buffer = used;
        let start = stream.position() - bytes.len() as u64;
        if stream.has_ended() {
            self.values = stream.finish();
        } else {
            self.stream = Some(stream);
        }
        (start, bytes)
    }

    /// Takes note of a failure; whoever else is asked is the current one now.
    async fn lost(&mut self, asked: &mut Asked, side: Side, mut failure: StreamFailure) {
        // The end of a file that is being written moves from node to node.
        failure.bad_data &= !(failure.missing && self.file.status.being_written);
        let second = asked.second.take();
        match side {
            Side::Current => asked.current = second,
            Side::Second => {}
        }
        let node = self.plan.node(side).cloned();
        let goes_on = side == Side::Current && asked.current.is_some();
        if goes_on {
            self.file.note_failover();
        }
        self.failed_over |= asked.current.is_none();
        self.plan.failed(side, failure.cause.clone(), failure.bad_data);
        if let Some(node) = node {
            self.file.note_failure(&self.block, &node, &failure).await;
        }
    }

    /// Everybody who is asked has been silent for `late_after`.
    fn late(&mut self, asked: &mut Asked, late_after: Duration) {
        let Some(current) = self.plan.current().cloned() else { return };
        let file = Arc::clone(&self.file);
        let choice = &file.inner.choice;
        let line = self.plan.line_mut();
        file.order(line);
        // To one that is no better there is no point in turning: it would be waited for from the start.
        let is_better = line.first().is_some_and(|next| !choice.is_held(next.id));
        let known_silent = is_better && choice.is_held(current.id);
        match self.plan.late(late_after, known_silent, || choice.take_hedge()) {
            LateStep::Wait => {}
            LateStep::Hedge(node) => {
                asked.second = Some(self.ask(&node, None, BytesMut::new()));
                file.note_hedge();
            }
            LateStep::Replace(node) => {
                choice.failed(current.id);
                asked.current = asked.second.replace(self.ask(&node, None, BytesMut::new()));
                file.note_failover();
                file.note_hedge();
            }
            LateStep::Leave => {
                asked.current = None;
                self.failed_over = true;
                self.plan.failed(Side::Current, silence(late_after), false);
            }
        }
    }
}

/// One replica's part in a race.
async fn ask(
    file: Arc<OpenFile>,
    block: Arc<LocatedBlock>,
    address: String,
    range: Range<u64>,
    stream: Option<VerifiedStream>,
    mut buffer: BytesMut,
) -> Result<Delivery, StreamFailure> {
    let choice = &file.inner.choice;
    let started = choice.now();
    let since = |started| choice.now().saturating_sub(started);
    let (mut stream, answered_after) = if let Some(stream) = stream {
        (stream, None)
    } else {
        let (streams, trace) = (&file.inner.streams, file.trace.as_str());
        let stream = VerifiedStream::open(streams, &address, &block, range, trace).await?;
        (stream, Some(since(started)))
    };
    let Some(bytes) = stream.next(&mut buffer).await? else {
        let cause = "ended without a byte".to_owned();
        return Err(StreamFailure { cause, ..StreamFailure::default() });
    };
    Ok(Delivery { stream, bytes, buffer, answered_after, took: since(started) })
}

/// For ever, if there is no time after which a replica is late.
async fn sleep(late_after: Option<Duration>) {
    match late_after {
        Some(late_after) => tokio::time::sleep(late_after).await,
        None => pending().await,
    }
}
