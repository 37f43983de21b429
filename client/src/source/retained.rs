//! A block as an application writes it: kept in pieces until it is acknowledged.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use doldam_proto::limits::GROUP_BYTES;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::{Mark, Next, Payload, SourceFailure};

/// What comes behind what was written so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// Nothing: the block ends here.
    End,
    /// A flush waits for it.
    Flush { sync: bool },
}

/// Grows at its end, and is read from where it is to be sent (again).
///
/// Each piece starts with a group, and is a whole frame unless a flush cut it. Where it was cut inside a group, the
/// next piece has the bytes of that group again, and replaces them here as it does on the wire.
#[derive(Debug, Default)]
pub(crate) struct RetainedBlock {
    content: Mutex<Content>,
    grown: Notify,
}

#[derive(Debug, Default)]
struct Content {
    pieces: VecDeque<Piece>,
    /// Bytes so far, those that were there before included.
    length: u64,
    /// Bytes all of the pipeline has.
    acknowledged: u64,
    /// Whether any piece was given up before the block was acknowledged.
    shortened: bool,
    /// The length that a flush waits for.
    mark: Option<Mark>,
    ended: bool,
}

#[derive(Debug)]
struct Piece {
    offset: u64,
    bytes: Bytes,
    /// What it takes of the bound on memory.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Piece {
    fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

impl RetainedBlock {
    /// Goes on behind `length` bytes that the cluster has.
    pub(crate) fn behind(length: u64) -> Self {
        let content = Content { length, acknowledged: length, ..Content::default() };
        Self { content: Mutex::new(content), grown: Notify::new() }
    }

    /// Appends a piece that starts at `offset`, where the last group before it ended or starts.
    pub(crate) fn push(
        &self,
        offset: u64,
        bytes: Bytes,
        permit: Option<OwnedSemaphorePermit>,
        then: Option<Then>,
    ) {
        let mut content = self.content.lock();
        while content.pieces.back().is_some_and(|last| last.offset >= offset) {
            content.pieces.pop_back();
        }
        if let Some(last) = content.pieces.back_mut() {
            last.bytes.truncate((offset - last.offset) as usize);
        }
        content.length = content.length.max(offset + bytes.len() as u64);
        content.pieces.push_back(Piece { offset, bytes, _permit: permit });
        content.note(then);
        drop(content);
        self.grown.notify_waiters();
    }

    /// Nothing is there that was not pushed before.
    pub(crate) fn then(&self, then: Then) {
        self.content.lock().note(Some(then));
        self.grown.notify_waiters();
    }

    /// Bytes so far.
    pub(crate) fn length(&self) -> u64 {
        self.content.lock().length
    }

    /// See [`BlockSource::next`](super::BlockSource::next).
    pub(super) async fn next(
        &self,
        position: u64,
        noted: Option<Mark>,
    ) -> Result<Next, SourceFailure> {
        loop {
            let grown = self.grown.notified();
            if let Some(next) = self.content.lock().next(position, noted)? {
                return Ok(next);
            }
            grown.await;
        }
    }

    /// The bytes of the group that `length` cuts.
    pub(super) fn cut_group(&self, length: u64) -> Result<Bytes, SourceFailure> {
        let start = length - length % GROUP_BYTES;
        let bytes = self.content.lock().bytes_at(start)?;
        Ok(bytes.slice(..((length - start) as usize).min(bytes.len())))
    }

    /// All of the pipeline has the first `bytes`.
    pub(crate) fn acknowledged(&self, bytes: u64) {
        let mut content = self.content.lock();
        content.acknowledged = content.acknowledged.max(bytes);
    }

    /// Whether it can no longer be sent from its start, which a later piece less does not make worse.
    pub(crate) fn is_shortened(&self) -> bool {
        self.content.lock().shortened
    }

    /// Gives up the first piece, if it is acknowledged and no group of it would have to be sent again; says whether
    /// it was.
    pub(crate) fn give_up_piece(&self) -> bool {
        let mut content = self.content.lock();
        let whole = content.acknowledged - content.acknowledged % GROUP_BYTES;
        let given_up = content.pieces.pop_front_if(|piece| piece.end() <= whole).is_some();
        content.shortened |= given_up;
        given_up
    }

    /// Gives the memory back; to be called when the block is acknowledged.
    pub(crate) fn release(&self, buffers: &Buffers) {
        let pieces = std::mem::take(&mut self.content.lock().pieces);
        for piece in pieces {
            // Still held elsewhere only if a try is being cancelled right now; then it is simply dropped there.
            if let Ok(mut buffer) = piece.bytes.try_into_mut() {
                buffer.clear();
                buffers.put(buffer);
            }
        }
    }
}

impl Content {
    fn note(&mut self, then: Option<Then>) {
        match then {
            Some(Then::End) => self.ended = true,
            Some(Then::Flush { sync }) => self.mark = Some(Mark { length: self.length, sync }),
            None => {}
        }
    }

    /// What there is from the group of `start` on, in one piece; nothing if that is where the block ends so far.
    fn bytes_at(&self, start: u64) -> Result<Bytes, SourceFailure> {
        let kept_from = self.pieces.front().map_or(self.length, |piece| piece.offset);
        if start < kept_from {
            return Err(SourceFailure::Gone { kept_from });
        }
        let after = self.pieces.partition_point(|piece| piece.offset <= start);
        let piece = after.checked_sub(1).and_then(|at| self.pieces.get(at));
        Ok(piece
            .filter(|piece| piece.end() > start)
            .map_or_else(Bytes::new, |piece| piece.bytes.slice((start - piece.offset) as usize..)))
    }

    fn next(&self, position: u64, noted: Option<Mark>) -> Result<Option<Next>, SourceFailure> {
        let start = position - position % GROUP_BYTES;
        let bytes = self.bytes_at(start)?;
        let end = start + bytes.len() as u64;
        let last = self.ended && end == self.length;
        let mark = self.mark.filter(|mark| mark.length == end && noted != Some(*mark) && !last);
        let new = end > position || last || mark.is_some();
        Ok(new.then_some(Next { payload: Payload::Kept(bytes), last, mark }))
    }
}

/// Buffers that are used again: on virtual machines memory that was given back is dear to touch again.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    free: Mutex<Vec<BytesMut>>,
}

impl Buffers {
    /// A buffer with nothing in it; small if none is free, as most files are.
    pub(crate) fn take(&self) -> BytesMut {
        self.free.lock().pop().unwrap_or_default()
    }

    fn put(&self, buffer: BytesMut) {
        self.free.lock().push(buffer);
    }
}

#[cfg(test)]
#[path = "retained_test.rs"]
mod tests;
