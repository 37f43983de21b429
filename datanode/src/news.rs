//! What the namenode has to be told, on its way from those who cause it to the link that sends it.

use std::collections::VecDeque;

use doldam_runtime::clock::Uptime;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::engine::orders::Answer;
use crate::engine::outbox::{Outbox, ReplicaEvent};
use crate::engine::replica::ReplicaKey;

/// Answers that wait while there is no stream. The namenode that gave older orders has given up on them.
const ANSWERS_MAX: usize = 10_000;

/// Events of replicas and answers to orders that are still to be sent.
#[derive(Debug, Default)]
pub(crate) struct News {
    outbox: Mutex<Outbox>,
    answers: Mutex<VecDeque<Answer>>,
    changed: Notify,
}

impl News {
    /// Something happened to a replica.
    pub(crate) fn event(&self, key: ReplicaKey, event: ReplicaEvent) {
        self.outbox.lock().push(key, event);
        self.changed.notify_one();
    }

    /// An order was carried out, or not.
    pub(crate) fn answer(&self, answer: Answer) {
        let mut answers = self.answers.lock();
        if answers.len() >= ANSWERS_MAX {
            answers.pop_front();
        }
        answers.push_back(answer);
        self.changed.notify_one();
    }

    /// Waits until there may be something new. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What to send now, bounded.
    pub(crate) fn take(
        &self,
        now: Uptime,
        events_max: usize,
    ) -> (Vec<(ReplicaKey, ReplicaEvent)>, Vec<Answer>) {
        let (events, more_events) = {
            let mut outbox = self.outbox.lock();
            (outbox.take_unsent(now, events_max), outbox.has_unsent())
        };
        let mut waiting = self.answers.lock();
        let count = waiting.len().min(events_max);
        let answers = waiting.drain(..count).collect();
        if more_events || !waiting.is_empty() {
            self.changed.notify_one();
        }
        (events, answers)
    }

    /// The stream to the namenode lives.
    pub(crate) fn stream_alive(&self, now: Uptime) {
        self.outbox.lock().stream_alive(now);
    }

    /// The stream to the namenode broke: what it may not have is sent again.
    pub(crate) fn stream_lost(&self) {
        self.outbox.lock().stream_lost();
        self.changed.notify_one();
    }
}
