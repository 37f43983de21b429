//! A segment in memory, a piece at a time: what bounds the memory of a replay.

use super::JournalError;
use super::segment::Segment;

/// Read at a time; more only for a record that is longer.
const WINDOW_BYTES: usize = 1 << 20;

/// The part of a segment that is in memory.
#[derive(Debug, Default)]
pub(super) struct Window {
    buffer: Vec<u8>,
    offset: u64,
}

impl Window {
    /// Forgets what it holds: it belongs to another segment now.
    pub(super) fn clear(&mut self) {
        self.buffer.clear();
    }

    /// The `count` bytes at `offset`, which are within the segment.
    pub(super) fn read(
        &mut self,
        segment: &Segment,
        offset: u64,
        count: usize,
    ) -> Result<&[u8], JournalError> {
        let end = offset + count as u64;
        if offset < self.offset || end > self.offset + self.buffer.len() as u64 {
            let rest = (segment.header.bytes - offset) as usize;
            self.buffer.resize(count.max(WINDOW_BYTES.min(rest)), 0);
            self.offset = offset;
            if let Err(error) = segment.file.read_exact_at(&mut self.buffer, offset) {
                self.buffer.clear();
                return Err(JournalError::io("reading", &segment.path)(error));
            }
        }
        Ok(self.held(offset, count))
    }

    /// The `count` bytes at `offset`, which were just read.
    pub(super) fn held(&self, offset: u64, count: usize) -> &[u8] {
        let start = (offset - self.offset) as usize;
        &self.buffer[start..start + count]
    }
}
