//! Waiting for a change of shared state, in a thread of one's own or, under a simulator, in a task.

use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;

use super::inline;

/// A condition variable that does not block a simulator's thread. In production it is one, and nothing else: the
/// futures below then block their thread until they are ready.
#[derive(Debug, Default)]
pub struct Signal {
    changed: Condvar,
    changed_inline: Notify,
}

impl Signal {
    /// Wakes one who waits. Call it after the state was changed.
    pub fn notify_one(&self) {
        if inline::is_entered() {
            self.changed_inline.notify_one();
        } else {
            self.changed.notify_one();
        }
    }

    /// Wakes all who wait. Call it after the state was changed.
    pub fn notify_all(&self) {
        if inline::is_entered() {
            self.changed_inline.notify_waiters();
            self.changed_inline.notify_one(); // Who is about to wait.
        } else {
            self.changed.notify_all();
        }
    }

    /// Waits until `take` finds in `state` what it looks for.
    pub async fn wait<T, R>(
        &self,
        state: &Mutex<T>,
        mut take: impl FnMut(&mut T) -> Option<R>,
    ) -> R {
        if !inline::is_entered() {
            return self.block(state, take);
        }
        loop {
            let changed = self.changed_inline.notified();
            if let Some(found) = take(&mut state.lock()) {
                return found;
            }
            changed.await;
        }
    }

    /// As [`wait`](Self::wait); `None` if nothing changed for `patience`.
    pub async fn wait_for<T, R>(
        &self,
        state: &Mutex<T>,
        patience: Duration,
        mut take: impl FnMut(&mut T) -> Option<R>,
    ) -> Option<R> {
        if !inline::is_entered() {
            return self.block_for(state, patience, take);
        }
        loop {
            let changed = self.changed_inline.notified();
            if let Some(found) = take(&mut state.lock()) {
                return Some(found);
            }
            if tokio::time::timeout(patience, changed).await.is_err() {
                return take(&mut state.lock());
            }
        }
    }

    /// Gives `guard` up until something changes, as a condition variable does. Only for threads.
    ///
    /// # Panics
    /// If the thread is a simulator's, where nothing may block.
    pub fn block_once<T>(&self, guard: &mut MutexGuard<'_, T>) {
        assert!(!inline::is_entered(), "nothing may block in a simulation");
        self.changed.wait(guard);
    }

    fn block<T, R>(&self, state: &Mutex<T>, mut take: impl FnMut(&mut T) -> Option<R>) -> R {
        let mut guard = state.lock();
        loop {
            if let Some(found) = take(&mut guard) {
                return found;
            }
            self.changed.wait(&mut guard);
        }
    }

    fn block_for<T, R>(
        &self,
        state: &Mutex<T>,
        patience: Duration,
        mut take: impl FnMut(&mut T) -> Option<R>,
    ) -> Option<R> {
        let mut guard = state.lock();
        loop {
            if let Some(found) = take(&mut guard) {
                return Some(found);
            }
            if self.changed.wait_for(&mut guard, patience).timed_out() {
                return take(&mut guard);
            }
        }
    }
}
