//! The first bytes of a block stream, each way, 24 bytes:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `DLDM` |
//! | 4 | 2 | version, little-endian |
//! | 6 | 2 | reserved, 0 |
//! | 8 | 16 | cluster id |
//!
//! Both sides send theirs at once and check the other's; neither waits, so it costs no round trip.

use super::FrameError;
use crate::id::ClusterId;

/// Length of the handshake.
pub const HANDSHAKE_BYTES: usize = 24;
/// Version of the block stream.
pub const STREAM_VERSION: u16 = 2;
const MAGIC: [u8; 4] = *b"DLDM";

/// What this side sends first.
pub fn encode(cluster: ClusterId) -> [u8; HANDSHAKE_BYTES] {
    let mut bytes = [0; HANDSHAKE_BYTES];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&STREAM_VERSION.to_le_bytes());
    bytes[8..].copy_from_slice(&cluster.0);
    bytes
}

/// Checks what the peer sent.
///
/// # Errors
/// If it speaks something else, another version, or belongs to another cluster than `expected`.
pub fn check(bytes: &[u8; HANDSHAKE_BYTES], expected: ClusterId) -> Result<(), FrameError> {
    let found = [bytes[0], bytes[1], bytes[2], bytes[3]];
    if found != MAGIC {
        return Err(FrameError::BadMagic { found });
    }
    let found = u16::from_le_bytes([bytes[4], bytes[5]]);
    if found != STREAM_VERSION {
        return Err(FrameError::WrongVersion { expected: STREAM_VERSION, found });
    }
    if bytes[6..8] != [0, 0] {
        return Err(FrameError::Malformed { what: "reserved bytes of the handshake are set" });
    }
    let mut found = ClusterId([0; 16]);
    found.0.copy_from_slice(&bytes[8..]);
    if found == expected { Ok(()) } else { Err(FrameError::WrongCluster { expected, found }) }
}
