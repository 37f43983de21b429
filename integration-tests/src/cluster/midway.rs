//! To disturb a transfer when it has come far enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use doldam_client::{PutOptions, WriteOptions};
use tokio::sync::Notify;

/// Tells a test when a transfer has come far enough to be disturbed.
#[derive(Debug, Default)]
pub struct Midway {
    bytes: AtomicU64,
    reached: Notify,
}

impl Midway {
    /// For the transfer: [`reached`](Self::reached) returns once it has made `at_bytes`.
    pub fn progress(self: &Arc<Self>, at_bytes: u64) -> doldam_client::Progress {
        let midway = Arc::clone(self);
        Arc::new(move |more| {
            let before = midway.bytes.fetch_add(more, Ordering::Relaxed);
            if before < at_bytes && before + more >= at_bytes {
                midway.reached.notify_one();
            }
        })
    }

    /// Waits until the transfer is there.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Bytes of the transfer so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A put in blocks of `block_bytes` that tells `progress`.
pub fn put_options(block_bytes: u64, progress: doldam_client::Progress) -> PutOptions {
    let create = WriteOptions { block_bytes: Some(block_bytes), ..WriteOptions::default() };
    PutOptions { create, progress: Some(progress), ..PutOptions::default() }
}
