//! Header of a frame, 16 bytes, all numbers little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | kind: 1 data, 2 proof, 3 error |
//! | 1 | 1 | flags: bit 0 LAST, bit 1 SYNC (data frames of a write, not both) |
//! | 2 | 2 | reserved, 0 |
//! | 4 | 4 | payload bytes |
//! | 8 | 8 | offset of the payload in the block; a multiple of 64 KiB (0 for proof and error) |
//!
//! After the header of a *write's* data frame come the 32-byte values of its groups (one per started 64 KiB), then
//! the payload; after the payload of the one with LAST, the 32-byte value of the block. With SYNC all that came so far
//! is put on stable storage before `WriteProgress.synced` says so. With LAST or SYNC the payload may be empty.
//! A *read's* data frames carry the payload alone: a proof frame before them holds the values, whole ones.
//! The payload of an error frame is a `BlockFailure` message, no longer than any message; the connection is closed
//! after it.

use super::FrameError;
use crate::digest::VALUE_BYTES;
use crate::limits::{
    BLOCK_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX, GROUP_BYTES, STREAM_MESSAGE_BYTES_MAX,
};

/// Length of the header.
pub const HEADER_BYTES: usize = 16;
const FLAG_LAST: u8 = 1;
const FLAG_SYNC: u8 = 2;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Bytes of the block.
    Data,
    /// Values that prove the data frames behind it.
    Proof,
    /// A `BlockFailure`: nothing follows.
    Error,
}

/// The checked header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it carries.
    pub kind: FrameKind,
    /// Whether it ends a write.
    pub last: bool,
    /// Whether everything up to its end is to be put on stable storage, while the write goes on.
    pub sync: bool,
    /// Bytes of payload, values not counted.
    pub payload_bytes: u32,
    /// Where the payload belongs in the block.
    pub offset: u64,
}

impl FrameHeader {
    /// Header of a data frame.
    pub fn data(offset: u64, payload_bytes: usize, last: bool) -> Self {
        let payload_bytes = payload_bytes as u32;
        Self { kind: FrameKind::Data, last, sync: false, payload_bytes, offset }
    }

    /// Header of a data frame after which everything sent so far is to be put on stable storage.
    pub fn sync(offset: u64, payload_bytes: usize) -> Self {
        Self { sync: true, ..Self::data(offset, payload_bytes, false) }
    }

    /// Header of a proof or error frame.
    pub fn plain(kind: FrameKind, payload_bytes: usize) -> Self {
        Self { kind, last: false, sync: false, payload_bytes: payload_bytes as u32, offset: 0 }
    }

    /// Number of groups the payload of a data frame has a share in.
    pub fn groups(&self) -> usize {
        (self.payload_bytes as usize).div_ceil(GROUP_BYTES as usize)
    }

    /// Bytes that follow the header of a *write's* data frame: values, payload, and the block's value with LAST.
    pub fn write_body_bytes(&self) -> usize {
        self.groups() * VALUE_BYTES
            + self.payload_bytes as usize
            + if self.last { VALUE_BYTES } else { 0 }
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = match self.kind {
            FrameKind::Data => 1,
            FrameKind::Proof => 2,
            FrameKind::Error => 3,
        };
        bytes[1] = if self.last { FLAG_LAST } else { 0 } | if self.sync { FLAG_SYNC } else { 0 };
        bytes[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[8..].copy_from_slice(&self.offset.to_le_bytes());
        bytes
    }

    /// Checks what a peer sent, before anything is allocated for it.
    ///
    /// # Errors
    /// If any field breaks the rules above.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, FrameError> {
        let kind = match bytes[0] {
            1 => FrameKind::Data,
            2 => FrameKind::Proof,
            3 => FrameKind::Error,
            _ => return Err(FrameError::Malformed { what: "unknown kind of frame" }),
        };
        let (last, sync) = (bytes[1] & FLAG_LAST != 0, bytes[1] & FLAG_SYNC != 0);
        if bytes[1] & !(FLAG_LAST | FLAG_SYNC) != 0 || bytes[2..4] != [0, 0] {
            return Err(FrameError::Malformed { what: "reserved bits are set" });
        }
        let payload_bytes = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        if payload_bytes as usize > FRAME_PAYLOAD_BYTES_MAX {
            let (found, max) = (u64::from(payload_bytes), FRAME_PAYLOAD_BYTES_MAX as u64);
            return Err(FrameError::TooLarge { what: "frame payload", found, max });
        }
        let mut offset = [0; 8];
        offset.copy_from_slice(&bytes[8..]);
        let header = Self { kind, last, sync, payload_bytes, offset: u64::from_le_bytes(offset) };
        header.check().map_err(|what| FrameError::Malformed { what })?;
        Ok(header)
    }

    fn check(&self) -> Result<(), &'static str> {
        match self.kind {
            FrameKind::Data if self.last && self.sync => Err("both LAST and SYNC"),
            FrameKind::Data if self.payload_bytes == 0 && !self.last && !self.sync => {
                Err("an empty data frame")
            }
            FrameKind::Data if !self.offset.is_multiple_of(GROUP_BYTES) => {
                Err("a data frame starts inside a group")
            }
            FrameKind::Data => {
                let end = self.offset.checked_add(u64::from(self.payload_bytes));
                let fits = end.is_some_and(|end| end <= BLOCK_BYTES_MAX);
                if fits { Ok(()) } else { Err("beyond any block") }
            }
            FrameKind::Proof | FrameKind::Error if self.last || self.sync || self.offset != 0 => {
                Err("LAST, SYNC or an offset where none belongs")
            }
            FrameKind::Proof if !(self.payload_bytes as usize).is_multiple_of(VALUE_BYTES) => {
                Err("a proof is made of whole values")
            }
            FrameKind::Error if self.payload_bytes as usize > STREAM_MESSAGE_BYTES_MAX => {
                Err("an error is no longer than a message")
            }
            FrameKind::Proof | FrameKind::Error => Ok(()),
        }
    }
}
