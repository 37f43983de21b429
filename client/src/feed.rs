//! What an application has written and the driver of the write takes up: the two sides of a
//! [`FileWriter`](crate::FileWriter).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

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
    /// The application waits for memory.
    pressed: AtomicBool,
}

#[derive(Debug)]
struct State {
    blocks: BTreeMap<u32, Arc<RetainedBlock>>,
    started: u32,
    whole: u32,
    length: Option<u64>,
    /// What the application waits for, and what is done of it.
    wanted: Option<(u64, bool)>,
    flushed: Option<(u64, bool)>,
    waiting: Option<Waker>,
    abandoned: bool,
}

impl Feed {
    /// Bounded by `permits`; the first block is the one at `first_index`. So much is visible already.
    pub(crate) fn new(permits: Arc<Semaphore>, first_index: u32, visible: Option<u64>) -> Self {
        let state = State {
            blocks: BTreeMap::new(),
            started: first_index,
            whole: first_index,
            length: None,
            wanted: None,
            flushed: visible.map(|length| (length, true)),
            waiting: None,
            abandoned: false,
        };
        let (state, changed) = (Mutex::new(state), Notify::new());
        let (buffers, pressed) = (Buffers::default(), AtomicBool::new(false));
        Self { state, changed, buffers, permits, pressed }
    }

    /// Buffers of acknowledged blocks, to be used again.
    pub(crate) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// The next block has its first piece.
    pub(crate) fn start(&self, block: Arc<RetainedBlock>) {
        let mut state = self.state.lock();
        let index = state.started;
        state.blocks.insert(index, block);
        state.started += 1;
        drop(state);
        self.changed.notify_one();
    }

    /// The block that was started last has another piece.
    pub(crate) fn grown(&self) {
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

    /// Whether the first `length` bytes are visible, with `sync` also on stable storage.
    pub(crate) fn is_flushed(&self, length: u64, sync: bool) -> bool {
        self.state.lock().is_flushed(length, sync)
    }

    /// The application waits for the first `length` bytes, which are all so far, to be flushed.
    pub(crate) fn want_flush(&self, length: u64, sync: bool) {
        let mut state = self.state.lock();
        if state.wanted != Some((length, sync)) {
            state.wanted = Some((length, sync));
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Resolves when so much is flushed, or the driver has ended.
    pub(crate) fn poll_flushed(
        &self,
        context: &mut Context<'_>,
        length: u64,
        sync: bool,
    ) -> Poll<()> {
        let mut state = self.state.lock();
        if state.is_flushed(length, sync) || self.is_closed() {
            return Poll::Ready(());
        }
        state.waiting = Some(context.waker().clone());
        Poll::Pending
    }

    /// The application waits for memory: from now on what is acknowledged is given up as far as it must be.
    pub(crate) fn press(&self) {
        self.pressed.store(true, Ordering::SeqCst);
        self.give_up();
    }

    /// Gives up one piece. A block that is whole ends by itself and then gives all its memory back, and can until
    /// then be sent again even if all its datanodes are lost: so that is waited for. Only a block that does not fit
    /// the bound has to lose its start, and once it has, a little more makes no difference.
    fn give_up(&self) {
        let state = self.state.lock();
        let filling = |index: u32| index >= state.whole && state.blocks.len() == 1;
        for (index, block) in &state.blocks {
            if (filling(*index) || block.is_shortened()) && block.give_up_piece() {
                self.pressed.store(false, Ordering::SeqCst);
                return;
            }
        }
    }

    /// The driver has ended: whoever waits to write is told.
    pub(crate) fn close(&self) {
        self.permits.close();
        let mut state = self.state.lock();
        state.blocks.clear();
        if let Some(waiting) = state.waiting.take() {
            waiting.wake();
        }
    }

    /// Whether the driver has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.permits.is_closed()
    }
}

impl State {
    fn is_flushed(&self, length: u64, sync: bool) -> bool {
        self.flushed.is_some_and(|(flushed, synced)| flushed >= length && (synced || !sync))
    }
}

impl Supply for Feed {
    fn poll_events(&self) -> Result<Vec<WriteEvent>, ClientError> {
        let state = self.state.lock();
        if state.abandoned {
            return Err(ClientError::Stopped { operation: "write" });
        }
        let last = state.started.checked_sub(1).and_then(|index| state.blocks.get(&index));
        let filled = last.map_or(0, |block| block.length());
        let (started, whole) = (state.started, state.whole);
        let mut events = vec![WriteEvent::Available { started, whole, filled }];
        if let Some((length, sync)) = state.wanted
            && !state.is_flushed(length, sync)
        {
            events.push(WriteEvent::FlushWanted { length, sync });
        }
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

    fn acknowledged(&self, index: u32, bytes: u64) {
        let block = self.state.lock().blocks.get(&index).map(Arc::clone);
        if let Some(block) = block {
            block.acknowledged(bytes);
        }
        if self.pressed.load(Ordering::SeqCst) {
            self.give_up();
        }
    }

    fn release(&self, index: u32) {
        let block = self.state.lock().blocks.remove(&index);
        if let Some(block) = block {
            block.release(&self.buffers);
        }
        if self.pressed.load(Ordering::SeqCst) {
            self.give_up();
        }
    }

    fn flushed(&self, length: u64, sync: bool) {
        let mut state = self.state.lock();
        // What was on stable storage before still is.
        let synced =
            sync || state.flushed.is_some_and(|(before, synced)| synced && before >= length);
        state.flushed = Some((length, synced));
        if let Some(waiting) = state.waiting.take() {
            waiting.wake();
        }
    }

    fn check(&self) -> Result<(), ClientError> {
        Ok(())
    }
}
