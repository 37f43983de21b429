//! What an application has written and the driver of the write takes up: the two sides of a
//! [`FileWriter`](crate::FileWriter).

use std::collections::BTreeMap;
use std::sync::Arc;

use doldam_runtime::net::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use crate::engine::write_pipeline::WriteEvent;
use crate::error::ClientError;
use crate::session::Supply;
use crate::source::{BlockSource, Buffers, RetainedBlock};

/// Blocks that were written and are not acknowledged.
#[derive(Debug)]
pub(crate) struct Feed {
    state: Mutex<State>,
    changed: Notify,
    buffers: Buffers,
    /// The bound on what is retained; closed when nobody takes anything up any more.
    permits: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    blocks: BTreeMap<u32, Arc<RetainedBlock>>,
    started: u32,
    whole: u32,
    length: Option<u64>,
    abandoned: bool,
}

impl Feed {
    /// Bounded by `permits`.
    pub(crate) fn new(permits: Arc<Semaphore>) -> Self {
        let (state, changed) = (Mutex::new(State::default()), Notify::new());
        Self { state, changed, buffers: Buffers::default(), permits }
    }

    /// Buffers of acknowledged blocks, to be used again.
    pub(crate) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// The next block has its first chunk.
    pub(crate) fn start(&self, block: Arc<RetainedBlock>) {
        let mut state = self.state.lock();
        let index = state.started;
        state.blocks.insert(index, block);
        state.started += 1;
        drop(state);
        self.changed.notify_one();
    }

    /// The block that was started last is whole.
    pub(crate) fn whole(&self) {
        let mut state = self.state.lock();
        state.whole = state.started;
        drop(state);
        self.changed.notify_one();
    }

    /// The application has written all it wants.
    pub(crate) fn end(&self, length: u64) {
        self.state.lock().length = Some(length);
        self.changed.notify_one();
    }

    /// The application gives up; no effect once the driver has ended.
    pub(crate) fn abandon(&self) {
        self.state.lock().abandoned = true;
        self.changed.notify_one();
    }

    /// The driver has ended: whoever waits to write is told.
    pub(crate) fn close(&self) {
        self.permits.close();
        self.state.lock().blocks.clear();
    }

    /// Whether the driver has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.permits.is_closed()
    }
}

impl Supply for Feed {
    fn poll_events(&self) -> Result<Vec<WriteEvent>, ClientError> {
        let state = self.state.lock();
        if state.abandoned {
            return Err(ClientError::Stopped { operation: "write" });
        }
        let mut events = vec![WriteEvent::Available { started: state.started, whole: state.whole }];
        events.extend(state.length.map(|length| WriteEvent::Ended { length }));
        Ok(events)
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.changed.notified())
    }

    fn block(&self, index: u32) -> Option<BlockSource> {
        let state = self.state.lock();
        state.blocks.get(&index).map(|block| BlockSource::Retained(Arc::clone(block)))
    }

    fn release(&self, index: u32) {
        let block = self.state.lock().blocks.remove(&index);
        if let Some(block) = block {
            block.release(&self.buffers);
        }
    }

    fn check(&self) -> Result<(), ClientError> {
        Ok(())
    }
}
