//! What stands behind the last whole record: nothing, what a crash left of a batch, or damage.

use doldam_proto::id::JournalIndex;
use doldam_runtime::disk::DiskFile;

use super::JournalError;
use super::record::{self, ALIGN_BYTES, AtHeader, HEADER_BYTES};
use super::segment::Segment;

/// Read and written at a time.
const CHUNK_BYTES: usize = 1 << 20;
static ZEROS: [u8; CHUNK_BYTES] = [0; CHUNK_BYTES];

const _: () = assert!(CHUNK_BYTES.is_multiple_of(ALIGN_BYTES) && HEADER_BYTES == ALIGN_BYTES);

/// Why there is no further record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Nothing is written there, or there is no room.
    Empty,
    /// A part of a record.
    Torn,
    /// A record that was written in full and changed after.
    Damaged(&'static str),
}

/// The end of the newest segment.
#[derive(Debug)]
pub(super) struct Tail<'a> {
    pub(super) segment: &'a Segment,
    /// Where the next record would be.
    pub(super) position: u64,
    /// The record that would be there.
    pub(super) expected: JournalIndex,
    /// The last record known to have been durable.
    pub(super) acknowledged: JournalIndex,
    pub(super) stop: Stop,
}

impl Tail<'_> {
    /// Decides: the end of what a crash left behind, equal to `position` if it left nothing.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] if the expected record was acknowledged, or was written in full.
    pub(super) fn judge(&self) -> Result<u64, JournalError> {
        if self.acknowledged >= self.expected {
            return Err(self.damaged("a record that was acknowledged is missing or cut"));
        }
        let leftover = self.scan_rest()?;
        match self.stop {
            Stop::Damaged(what) => Err(self.damaged(what)),
            Stop::Empty | Stop::Torn => Ok(leftover),
        }
    }

    fn damaged(&self, what: &'static str) -> JournalError {
        JournalError::damaged(&self.segment.path, self.position, self.expected, what)
    }

    /// Looks at all that follows, for the last byte that is not zero and for proof that the
    /// expected record was durable: a later one that says so.
    fn scan_rest(&self) -> Result<u64, JournalError> {
        let end = self.segment.header.bytes;
        let mut chunk = vec![0; CHUNK_BYTES.min((end - self.position) as usize)];
        let (mut offset, mut leftover) = (self.position, self.position);
        while offset < end {
            let count = chunk.len().min((end - offset) as usize);
            let bytes = &mut chunk[..count];
            self.segment
                .file
                .read_exact_at(bytes, offset)
                .map_err(JournalError::io("reading", &self.segment.path))?;
            if bytes != &ZEROS[..count] {
                for (slot, at) in bytes.as_chunks::<HEADER_BYTES>().0.iter().zip(0..) {
                    if slot != &[0; HEADER_BYTES] {
                        leftover = offset + (at + 1) * HEADER_BYTES as u64;
                        self.check_later(slot)?;
                    }
                }
            }
            offset += count as u64;
        }
        Ok(leftover)
    }

    fn check_later(&self, slot: &[u8; HEADER_BYTES]) -> Result<(), JournalError> {
        match record::parse_header(slot) {
            AtHeader::Header(later)
                if later.index > self.expected && later.acknowledged >= self.expected =>
            {
                Err(self.damaged("later records say that this one was acknowledged"))
            }
            AtHeader::Header(_) | AtHeader::Empty | AtHeader::Torn | AtHeader::Damaged(_) => Ok(()),
        }
    }
}

/// Overwrites `from..to` with zeros; durable with the next sync.
pub(super) fn erase(file: &dyn DiskFile, from: u64, to: u64) -> std::io::Result<()> {
    let mut offset = from;
    while offset < to {
        let count = CHUNK_BYTES.min((to - offset) as usize);
        file.write_all_at(&ZEROS[..count], offset)?;
        offset += count as u64;
    }
    Ok(())
}

/// Writes `from..to` again as it reads. What was written before a failed sync may be in memory
/// only, and the system may believe it clean; only what is written anew reaches the medium with the
/// next sync.
pub(super) fn write_again(file: &dyn DiskFile, from: u64, to: u64) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES.min((to - from) as usize)];
    let mut offset = from;
    while offset < to {
        let count = chunk.len().min((to - offset) as usize);
        file.read_exact_at(&mut chunk[..count], offset)?;
        file.write_all_at(&chunk[..count], offset)?;
        offset += count as u64;
    }
    Ok(())
}
