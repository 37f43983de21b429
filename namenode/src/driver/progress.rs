//! How far the journal is durable, and who waits for that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use doldam_proto::FsError;
use doldam_proto::id::JournalIndex;
use doldam_proto::wire::Outcome;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::News;
use super::queue::Answer;

/// Answers that may go out once the command before them is durable.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) answers: Vec<(Answer, Result<Outcome, FsError>)>,
    pub(super) news: News,
}

impl Held {
    fn release(self) -> News {
        for (answer, outcome) in self.answers {
            // Who asked may have gone; what was decided stands.
            let _ = answer.send(outcome);
        }
        self.news
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Progress {
    durable: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: BTreeMap<JournalIndex, Waiting>,
    failed: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    held: Vec<Held>,
    readers: Vec<oneshot::Sender<()>>,
}

impl Progress {
    /// All up to `durable` is.
    pub(super) fn new(durable: JournalIndex) -> Self {
        let durable = AtomicU64::new(durable.0);
        Self { durable, inner: Mutex::default() }
    }

    /// The last durable command.
    pub(super) fn durable(&self) -> JournalIndex {
        JournalIndex(self.durable.load(Ordering::Acquire))
    }

    /// Resolves when `index` is durable, with an error if that cannot be any more; `None` if it is.
    pub(super) fn reached(&self, index: JournalIndex) -> Option<oneshot::Receiver<()>> {
        if self.durable() >= index {
            return None;
        }
        let (reader, reached) = oneshot::channel();
        let mut inner = self.inner.lock();
        if self.durable() >= index {
            return None;
        }
        if !inner.failed {
            inner.waiting.entry(index).or_default().readers.push(reader);
        }
        Some(reached)
    }

    /// Holds answers back until `index` is durable; returns their news if it is already.
    pub(super) fn hold(&self, index: JournalIndex, held: Held) -> Option<News> {
        let mut inner = self.inner.lock();
        if self.durable() >= index {
            drop(inner);
            return Some(held.release());
        }
        if !inner.failed {
            inner.waiting.entry(index).or_default().held.push(held);
        }
        None
    }

    /// All up to `index` is durable: lets out what waited for it, and hands its news to `tell`.
    pub(super) fn advance(&self, index: JournalIndex, mut tell: impl FnMut(&mut News)) {
        let mut inner = self.inner.lock();
        self.durable.fetch_max(index.0, Ordering::AcqRel);
        let later = inner.waiting.split_off(&index.next());
        let due = std::mem::replace(&mut inner.waiting, later);
        drop(inner);
        for waiting in due.into_values() {
            for held in waiting.held {
                tell(&mut held.release());
            }
            for reader in waiting.readers {
                let _ = reader.send(()); // Who asked may have gone.
            }
        }
    }

    /// Nothing more will be durable: who waits is told by its channel's end.
    pub(super) fn fail(&self) {
        let mut inner = self.inner.lock();
        inner.failed = true;
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        drop(waiting);
    }

    /// Waits until `index` is durable; whether it is, or never will be.
    pub(super) async fn wait(&self, index: JournalIndex) -> bool {
        match self.reached(index) {
            None => true,
            Some(reached) => reached.await.is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use doldam_runtime::tasks::inline::block_on;

    use super::*;

    const AT: JournalIndex = JournalIndex(5);

    #[test]
    fn nobody_is_let_out_before_its_command_is_durable() {
        let progress = Progress::new(JournalIndex(4));
        assert!(progress.reached(JournalIndex(4)).is_none());
        let mut reader = progress.reached(AT).unwrap();
        let (answer, mut answered) = oneshot::channel();
        let held = Held { answers: vec![(answer, Ok(Outcome::default()))], ..Held::default() };
        assert!(progress.hold(AT, held).is_none());
        progress.advance(JournalIndex(4), |_| {});
        assert!(reader.try_recv().is_err() && answered.try_recv().is_err());
        progress.advance(JournalIndex(7), |_| {});
        assert!(reader.try_recv().is_ok() && answered.try_recv().is_ok());
        assert!(block_on(progress.wait(JournalIndex(7))));
    }

    #[test]
    fn after_a_failure_everybody_is_told_and_nobody_waits() {
        let progress = Progress::new(JournalIndex(4));
        let mut before = progress.reached(AT).unwrap();
        progress.fail();
        let mut after = progress.reached(AT).unwrap();
        assert_eq!(before.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(after.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert!(!block_on(progress.wait(AT)));
        assert!(progress.reached(JournalIndex(4)).is_none(), "what is durable stays so");
    }
}
