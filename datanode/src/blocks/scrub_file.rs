//! `SCRUB`: how far the scrubber of a folder came. 64 bytes, all numbers little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `DLDC` |
//! | 4 | 2 | version, 2 |
//! | 6 | 2 | flags: bit 0, a pass is under way; bit 1, a replica was verified in it |
//! | 8 | 8 | block verified last; 0 without bit 1 |
//! | 16 | 8 | its generation; 0 without bit 1 |
//! | 24 | 8 | passes completed |
//! | 32 | 8 | start of the pass, in milliseconds since the Unix epoch |
//! | 40 | 8 | start of the last completed pass, likewise; 0 if there is none |
//! | 48 | 8 | bytes verified in the pass |
//! | 56 | 8 | checksum: the first bytes of the BLAKE3 hash of all before |
//!
//! Version 1 had one file for all folders of a node, without the two numbers before the checksum.
//!
//! Nothing depends on it but the scrubber's own time: one that cannot be read costs a pass from the
//! beginning.

use std::io;

use doldam_runtime::disk::{read_file_bounded, write_file_durably};
use tracing::{debug, warn};

use super::volume::Volume;
use crate::engine::replica::ReplicaKey;
use crate::engine::scrub_plan::ScrubPosition;

/// Length of the file.
pub(crate) const SCRUB_FILE_BYTES: usize = 64;
const MAGIC: [u8; 4] = *b"DLDC";
const VERSION: u16 = 2;
const FLAG_UNDER_WAY: u16 = 1;
const FLAG_HAS_LAST: u16 = 2;
const CHECKED_BYTES: usize = 56;

/// The bytes of the file.
pub(crate) fn encode_position(position: &ScrubPosition) -> [u8; SCRUB_FILE_BYTES] {
    let mut bytes = [0; SCRUB_FILE_BYTES];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
    let mut flags = if position.under_way { FLAG_UNDER_WAY } else { 0 };
    if let Some(last) = position.last {
        flags |= FLAG_HAS_LAST;
        bytes[8..16].copy_from_slice(&last.block.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&last.generation.0.to_le_bytes());
    }
    bytes[6..8].copy_from_slice(&flags.to_le_bytes());
    bytes[24..32].copy_from_slice(&position.passes.to_le_bytes());
    bytes[32..40].copy_from_slice(&position.started_ms.to_le_bytes());
    bytes[40..48].copy_from_slice(&position.completed_ms.to_le_bytes());
    bytes[48..56].copy_from_slice(&position.pass_bytes.to_le_bytes());
    let hash = blake3::hash(&bytes[..CHECKED_BYTES]);
    bytes[CHECKED_BYTES..].copy_from_slice(&hash.as_bytes()[..8]);
    bytes
}

/// Reads what [`encode_position`] wrote; `None` if it is anything else.
pub(crate) fn decode_position(bytes: &[u8]) -> Option<ScrubPosition> {
    let bytes: &[u8; SCRUB_FILE_BYTES] = bytes.try_into().ok()?;
    let hash = blake3::hash(&bytes[..CHECKED_BYTES]);
    let version = u16::from_le_bytes([bytes[4], bytes[5]]);
    if bytes[..4] != MAGIC || version != VERSION || hash.as_bytes()[..8] != bytes[CHECKED_BYTES..] {
        return None;
    }
    let number = |offset: usize| {
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[offset..offset + 8]);
        u64::from_le_bytes(number)
    };
    let flags = u16::from_le_bytes([bytes[6], bytes[7]]);
    let last = (flags & FLAG_HAS_LAST != 0).then(|| ReplicaKey::new(number(8), number(16)));
    let under_way = flags & FLAG_UNDER_WAY != 0;
    Some(ScrubPosition {
        last,
        passes: number(24),
        started_ms: number(32),
        under_way,
        completed_ms: number(40),
        pass_bytes: number(48),
    })
}

/// The position that is saved in a folder; that of one never verified if there is none, or it cannot be read. Blocks
/// on the disk.
pub(crate) fn load_position(volume: &Volume) -> ScrubPosition {
    let path = volume.layout().scrub_file();
    let decoded = match read_file_bounded(volume.disk(), &path, SCRUB_FILE_BYTES as u64) {
        Ok(bytes) => decode_position(&bytes),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return ScrubPosition::default(),
        Err(cause) => {
            debug!(path = %path.display(), %cause, "cannot be read");
            None
        }
    };
    decoded.unwrap_or_else(|| {
        warn!(path = %path.display(), "cannot be understood; verifying from the start");
        ScrubPosition::default()
    })
}

/// Saves the position in its folder. Blocks on the disk.
///
/// # Errors
/// If the disk is full or fails; the position saved before is still there.
pub(crate) fn save_position(volume: &Volume, position: &ScrubPosition) -> io::Result<()> {
    let bytes = encode_position(position);
    write_file_durably(volume.disk(), &volume.layout().scrub_file(), &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_nothing_else_is_read() {
        for last in [None, Some(ReplicaKey::new(5, 6))] {
            let position = ScrubPosition {
                last,
                passes: 3,
                started_ms: 99,
                under_way: true,
                pass_bytes: 7,
                completed_ms: 50,
            };
            let bytes = encode_position(&position);
            assert_eq!(decode_position(&bytes), Some(position));
            for place in 0..bytes.len() {
                let mut flipped = bytes;
                flipped[place] ^= 0x10;
                assert_eq!(decode_position(&flipped), None, "byte {place}");
                assert_eq!(decode_position(&bytes[..place]), None);
            }
        }
    }
}
