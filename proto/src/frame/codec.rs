//! Length-prefixed protobuf messages between frames: a little-endian u32, then so many bytes.

use bytes::{BufMut, BytesMut};
use prost::Message;

use super::FrameError;
use crate::limits::STREAM_MESSAGE_BYTES_MAX;

/// Length of the prefix.
pub const PREFIX_BYTES: usize = 4;

/// Appends `message` with its prefix to `buffer`.
///
/// # Errors
/// If it is larger than the protocol allows.
pub fn encode_message(message: &impl Message, buffer: &mut BytesMut) -> Result<(), FrameError> {
    let bytes = message.encoded_len();
    check_length(bytes)?;
    buffer.reserve(PREFIX_BYTES + bytes);
    buffer.put_u32_le(bytes as u32);
    message.encode_raw(buffer);
    Ok(())
}

/// The length announced by a prefix.
///
/// # Errors
/// If it is larger than the protocol allows: nothing may be allocated for it.
pub fn decode_prefix(prefix: [u8; PREFIX_BYTES]) -> Result<usize, FrameError> {
    let bytes = u32::from_le_bytes(prefix) as usize;
    check_length(bytes)?;
    Ok(bytes)
}

/// Decodes the bytes behind a prefix.
///
/// # Errors
/// If they are no such message.
pub fn decode_message<M: Message + Default>(bytes: &[u8]) -> Result<M, FrameError> {
    Ok(M::decode(bytes)?)
}

fn check_length(bytes: usize) -> Result<(), FrameError> {
    if bytes > STREAM_MESSAGE_BYTES_MAX {
        let (found, max) = (bytes as u64, STREAM_MESSAGE_BYTES_MAX as u64);
        return Err(FrameError::TooLarge { what: "message", found, max });
    }
    Ok(())
}
