//! Proposals on their way to the driver's thread: bounded, and refused when full.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use doldam_proto::FsError;
use doldam_proto::wire::{Command, Outcome};
use doldam_runtime::tasks::Signal;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Where the outcome goes.
pub(super) type Answer = oneshot::Sender<Result<Outcome, FsError>>;

/// A command and who waits for its outcome.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) command: Command,
    /// The command as the journal keeps it.
    pub(super) payload: Bytes,
    pub(super) answer: Answer,
}

/// Why a proposal was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Closed,
}

/// See the module.
#[derive(Debug)]
pub(super) struct ProposalQueue {
    inner: Mutex<Inner>,
    arrived: Signal,
    count: AtomicUsize,
    count_max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Proposal>,
    closed: bool,
}

/// What there is to do.
pub(super) enum Taken {
    /// These, in order; none if nothing came for a while.
    Proposals(VecDeque<Proposal>),
    /// The queue was closed and is empty.
    Closed,
}

impl ProposalQueue {
    /// Takes up to `count_max` proposals.
    pub(super) fn new(count_max: usize) -> Self {
        let (inner, count) = (Mutex::default(), AtomicUsize::new(0));
        Self { inner, arrived: Signal::default(), count, count_max }
    }

    pub(super) fn push(&self, proposal: Proposal) -> Result<(), Refused> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(Refused::Closed);
        }
        if inner.waiting.len() >= self.count_max {
            return Err(Refused::Full);
        }
        inner.waiting.push_back(proposal);
        self.count.store(inner.waiting.len(), Ordering::Relaxed);
        let was_empty = inner.waiting.len() == 1;
        drop(inner);
        if was_empty {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// All that waits; comes back after `patience` if nothing does.
    pub(super) async fn take(&self, patience: Duration) -> Taken {
        let taken = self.arrived.wait_for(&self.inner, patience, |inner| {
            if inner.waiting.is_empty() {
                return inner.closed.then_some(Taken::Closed);
            }
            self.count.store(0, Ordering::Relaxed);
            Some(Taken::Proposals(std::mem::take(&mut inner.waiting)))
        });
        taken.await.unwrap_or_else(|| Taken::Proposals(VecDeque::new()))
    }

    /// Refuses all that comes from now on; what waits is still taken.
    pub(super) fn close(&self) {
        self.inner.lock().closed = true;
        self.arrived.notify_one();
    }

    /// Refuses all that comes from now on and all that waits: who proposed it is told by its channel's end.
    pub(super) fn abandon(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        let waiting = std::mem::take(&mut inner.waiting);
        self.count.store(0, Ordering::Relaxed);
        drop(inner);
        self.arrived.notify_one();
        drop(waiting);
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use doldam_runtime::tasks::inline::block_on;

    use super::*;

    fn proposal() -> (Proposal, oneshot::Receiver<Result<Outcome, FsError>>) {
        let (answer, answered) = oneshot::channel();
        (Proposal { command: Command::default(), payload: Bytes::new(), answer }, answered)
    }

    #[test]
    fn what_waits_is_taken_after_a_close_and_refused_when_it_is_abandoned() {
        let queue = ProposalQueue::new(2);
        let (first, mut answered) = proposal();
        queue.push(first).unwrap();
        queue.close();
        assert_eq!(queue.push(proposal().0), Err(Refused::Closed));
        assert_eq!(answered.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        let take = |queue: &ProposalQueue| block_on(queue.take(Duration::ZERO));
        let Taken::Proposals(taken) = take(&queue) else { panic!("one waits") };
        assert_eq!(taken.len(), 1);

        let queue = ProposalQueue::new(1);
        let (first, mut answered) = proposal();
        queue.push(first).unwrap();
        assert_eq!(queue.push(proposal().0), Err(Refused::Full));
        queue.abandon();
        assert_eq!(answered.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert!(matches!(take(&queue), Taken::Closed));
    }
}
