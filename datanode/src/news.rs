//! What the namenode has to be told, on its way from those who cause it to the link that sends it.

use std::collections::VecDeque;

use doldam_proto::wire;
use doldam_runtime::clock::Uptime;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::engine::orders::Answer;
use crate::engine::outbox::{Outbox, ReplicaEvent};
use crate::engine::replica::ReplicaKey;

/// Answers that wait while there is no stream. The namenode that gave older orders has given up on
/// them.
const ANSWERS_MAX: usize = 10_000;

/// Parts of reports that wait to be sent; a namenode asks for the next only when it has the one
/// before.
const REPORTS_MAX: usize = 4096;

/// A part of a report that fits one message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Report {
    /// Fingerprints of all buckets that are not empty.
    Buckets(Vec<wire::BucketHash>),
    /// What is in some buckets; each bucket is listed whole.
    Listings(Vec<wire::BucketListing>),
    /// What was found of a block whose writer left.
    Recovered(wire::RecoveredReplica),
}

/// What is to be sent in one message.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Bundle {
    /// What happened to replicas.
    pub(crate) events: Vec<(ReplicaKey, ReplicaEvent)>,
    /// A part of a report.
    pub(crate) report: Option<Report>,
    /// Answers to orders; those of reports only once all their parts are sent.
    pub(crate) answers: Vec<Answer>,
}

/// Events of replicas, reports and answers to orders that are still to be sent.
#[derive(Debug, Default)]
pub(crate) struct News {
    outbox: Mutex<Outbox>,
    replies: Mutex<Replies>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Replies {
    reports: VecDeque<Report>,
    answers: VecDeque<Answer>,
}

impl News {
    /// Something happened to a replica.
    pub(crate) fn event(&self, key: ReplicaKey, event: ReplicaEvent) {
        self.outbox.lock().push(key, event);
        self.changed.notify_one();
    }

    /// Whether there is news of a replica that the namenode may not have.
    pub(crate) fn has_news_of(&self, key: ReplicaKey) -> bool {
        self.outbox.lock().contains(key)
    }

    /// An order was carried out, or not.
    pub(crate) fn answer(&self, answer: Answer) {
        let answers = &mut self.replies.lock().answers;
        if answers.len() >= ANSWERS_MAX {
            answers.pop_front();
        }
        answers.push_back(answer);
        self.changed.notify_one();
    }

    /// A report was made. One that does not fit is not sent at all: it would be taken for the
    /// whole.
    ///
    /// # Errors
    /// If too many parts wait already.
    pub(crate) fn report(&self, parts: Vec<Report>) -> Result<(), String> {
        let reports = &mut self.replies.lock().reports;
        if reports.len() + parts.len() > REPORTS_MAX {
            return Err(format!("{} parts of reports wait already", reports.len()));
        }
        reports.extend(parts);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits until there may be something new. Cancel-safe.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What to send now, bounded.
    pub(crate) fn take(&self, now: Uptime, events_max: usize) -> Bundle {
        let (events, more_events) = {
            let mut outbox = self.outbox.lock();
            (outbox.take_unsent(now, events_max), outbox.has_unsent())
        };
        let mut replies = self.replies.lock();
        let report = replies.reports.pop_front();
        let answers = if replies.reports.is_empty() {
            let count = replies.answers.len().min(events_max);
            replies.answers.drain(..count).collect()
        } else {
            Vec::new()
        };
        if more_events || !replies.reports.is_empty() || !replies.answers.is_empty() {
            self.changed.notify_one();
        }
        Bundle { events, report, answers }
    }

    /// The stream to the namenode lives.
    pub(crate) fn stream_alive(&self, now: Uptime) {
        self.outbox.lock().stream_alive(now);
    }

    /// The stream to the namenode broke: what it may not have is sent again. Reports and answers
    /// are not: who asked for them asks again, or is gone.
    pub(crate) fn stream_lost(&self) {
        self.outbox.lock().stream_lost();
        *self.replies.lock() = Replies::default();
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn answer(order: u64) -> Answer {
        Answer { order, result: Ok(()) }
    }

    #[test]
    fn an_answer_follows_the_last_part_of_its_report() {
        let news = News::default();
        let part =
            |bucket| Report::Listings(vec![wire::BucketListing { bucket, replicas: Vec::new() }]);
        news.report(vec![part(1), part(2)]).unwrap();
        news.answer(answer(7));
        let first = news.take(Duration::ZERO, 10);
        assert_eq!((first.report, first.answers), (Some(part(1)), vec![]));
        let second = news.take(Duration::ZERO, 10);
        assert_eq!((second.report, second.answers), (Some(part(2)), vec![answer(7)]));
        assert_eq!(news.take(Duration::ZERO, 10), Bundle::default());
    }

    #[test]
    fn a_report_too_many_is_refused_whole() {
        let news = News::default();
        let parts = vec![Report::Buckets(Vec::new()); REPORTS_MAX];
        news.report(parts).unwrap();
        assert!(news.report(vec![Report::Buckets(Vec::new())]).is_err());
    }

    #[test]
    fn a_broken_stream_takes_answers_with_it_and_keeps_events() {
        let news = News::default();
        let key = ReplicaKey::new(1, 1);
        news.event(key, ReplicaEvent::Dropped);
        news.answer(answer(7));
        assert_eq!(news.take(Duration::ZERO, 10).events.len(), 1);
        news.answer(answer(8));
        news.stream_lost();
        let again = news.take(Duration::ZERO, 10);
        assert_eq!(again.events, [(key, ReplicaEvent::Dropped)]);
        assert_eq!(again.answers, []);
    }
}
