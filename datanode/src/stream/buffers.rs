//! The memory of block streams, used over and over: on a virtual machine, memory that was given
//! back to the system is dear to touch again, and a server whose buffers come and go has no bound
//! one could name.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::BytesMut;
use doldam_proto::limits::FRAME_PAYLOAD_BYTES;
use parking_lot::Mutex;

/// Buffers kept for the next stream. More exist only while more streams run.
const IDLE_MAX: usize = 16;
/// Largest buffer that is kept: a frame of the usual size with its header and values. A peer that
/// sends larger ones has its buffer given back to the system.
const KEPT_BYTES_MAX: usize = FRAME_PAYLOAD_BYTES + (64 << 10);

/// Buffers between two uses.
#[derive(Debug, Clone, Default)]
pub(crate) struct BufferPool {
    idle: Arc<Mutex<Vec<BytesMut>>>,
}

impl BufferPool {
    /// A buffer of whatever size and content; its stream makes of it what it needs. It is not
    /// emptied, so that filling it again up to the same size costs no zeroing.
    pub(crate) fn take(&self) -> PooledBuffer {
        let buffer = self.idle.lock().pop().unwrap_or_default();
        PooledBuffer { buffer, pool: self.clone() }
    }
}

/// A buffer on loan.
#[derive(Debug)]
pub(crate) struct PooledBuffer {
    buffer: BytesMut,
    pool: BufferPool,
}

impl Deref for PooledBuffer {
    type Target = BytesMut;

    fn deref(&self) -> &BytesMut {
        &self.buffer
    }
}

impl DerefMut for PooledBuffer {
    fn deref_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.capacity() > KEPT_BYTES_MAX {
            return;
        }
        let mut idle = self.pool.idle.lock();
        if idle.len() < IDLE_MAX {
            // The largest are taken first: they need not grow.
            let place = idle.partition_point(|kept| kept.capacity() < buffer.capacity());
            idle.insert(place, buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_with_their_memory() {
        let pool = BufferPool::default();
        let mut buffer = pool.take();
        buffer.resize(100_000, 1);
        let memory = buffer.as_ptr();
        drop(buffer);
        let again = pool.take();
        assert!(again.capacity() >= 100_000);
        assert_eq!(again.as_ptr(), memory);
    }

    #[test]
    fn neither_many_nor_huge_buffers_are_kept() {
        let pool = BufferPool::default();
        let all: Vec<_> = (0..2 * IDLE_MAX).map(|_| pool.take()).collect();
        drop(all);
        assert_eq!(pool.idle.lock().len(), IDLE_MAX);
        pool.idle.lock().clear();
        let mut huge = pool.take();
        huge.reserve(KEPT_BYTES_MAX + 1);
        drop(huge);
        assert_eq!(pool.idle.lock().len(), 0);
    }
}
