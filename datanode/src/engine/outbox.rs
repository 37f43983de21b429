//! What the namenode has to be told of single replicas, until it surely was.
//!
//! The heartbeat stream has no acknowledgements, and what was sent just before it broke may be
//! lost. So an event stays here for a while after it was sent; if the stream breaks meanwhile, it
//! is sent again. Only the last event of a replica counts, so this is a map, and what is sent again
//! is never older news than what was sent before. Whatever is lost nevertheless, the comparison of
//! fingerprints finds.

use std::collections::BTreeMap;
use std::time::Duration;

use doldam_proto::digest::ChainingValue;
use doldam_runtime::clock::Uptime;

use super::replica::ReplicaKey;

/// How long the stream must live on after an event was sent for it to count as received.
const KEPT_AFTER_SENDING: Duration = Duration::from_secs(10);
/// Replicas with news at once. Beyond it the oldest are left to the comparison of fingerprints.
const EVENTS_MAX: usize = 100_000;

/// What happened to a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReplicaEvent {
    /// A repair copy is whole and published here.
    Stored {
        /// In bytes.
        length: u64,
        /// The block's value.
        value: ChainingValue,
    },
    /// The start of a block, left by its writer, is kept here.
    Open {
        /// Verified bytes.
        length: u64,
    },
    /// It was removed as ordered.
    Dropped,
    /// It is known to be bad, and in quarantine.
    Bad {
        /// In bytes.
        length: u64,
        /// What is wrong with it.
        what: String,
    },
}

#[derive(Debug)]
struct Entry {
    number: u64,
    event: ReplicaEvent,
    sent_at: Option<Uptime>,
}

/// News of replicas that the namenode may not have.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    entries: BTreeMap<ReplicaKey, Entry>,
    /// Keys by number: the order in which things happened.
    order: BTreeMap<u64, ReplicaKey>,
    next_number: u64,
    unsent: usize,
}

impl Outbox {
    /// Something happened to a replica.
    pub(crate) fn push(&mut self, key: ReplicaKey, event: ReplicaEvent) {
        self.remove(key);
        if self.entries.len() >= EVENTS_MAX
            && let Some(oldest) = self.order.first_key_value().map(|(_, key)| *key)
        {
            self.remove(oldest);
        }
        let number = self.next_number;
        self.next_number += 1;
        self.order.insert(number, key);
        self.entries.insert(key, Entry { number, event, sent_at: None });
        self.unsent += 1;
    }

    /// Whether there is news of a replica that the namenode may not have.
    pub(crate) fn contains(&self, key: ReplicaKey) -> bool {
        self.entries.contains_key(&key)
    }

    /// Takes up to `events_max` events that have not been sent on this stream, in the order they
    /// happened.
    pub(crate) fn take_unsent(
        &mut self,
        now: Uptime,
        events_max: usize,
    ) -> Vec<(ReplicaKey, ReplicaEvent)> {
        let mut taken = Vec::new();
        if self.unsent == 0 {
            return taken;
        }
        for key in self.order.values() {
            if taken.len() == events_max {
                break;
            }
            if let Some(entry) = self.entries.get_mut(key)
                && entry.sent_at.is_none()
            {
                entry.sent_at = Some(now);
                taken.push((*key, entry.event.clone()));
            }
        }
        self.unsent -= taken.len();
        taken
    }

    /// Whether something waits to be sent.
    pub(crate) fn has_unsent(&self) -> bool {
        self.unsent > 0
    }

    /// The stream lives: forgets what was sent on it long enough ago.
    pub(crate) fn stream_alive(&mut self, now: Uptime) {
        let received = |entry: &Entry| {
            entry.sent_at.is_some_and(|sent| now >= sent.saturating_add(KEPT_AFTER_SENDING))
        };
        let keys: Vec<ReplicaKey> = self
            .entries
            .iter()
            .filter_map(|(key, entry)| received(entry).then_some(*key))
            .collect();
        for key in keys {
            self.remove(key);
        }
    }

    /// The stream broke: everything that is still here is to be sent again.
    pub(crate) fn stream_lost(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.sent_at = None);
        self.unsent = self.entries.len();
    }

    fn remove(&mut self, key: ReplicaKey) {
        if let Some(entry) = self.entries.remove(&key) {
            self.order.remove(&entry.number);
            self.unsent -= usize::from(entry.sent_at.is_none());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(block: u64) -> ReplicaKey {
        ReplicaKey::new(block, 1)
    }

    fn at(secs: u64) -> Uptime {
        Duration::from_secs(secs)
    }

    fn blocks(taken: Vec<(ReplicaKey, ReplicaEvent)>) -> Vec<u64> {
        taken.into_iter().map(|(key, _)| key.block.0).collect()
    }

    #[test]
    fn events_are_sent_once_in_the_order_they_happened() {
        let mut outbox = Outbox::default();
        for block in [9, 1, 5] {
            outbox.push(key(block), ReplicaEvent::Dropped);
        }
        assert_eq!(blocks(outbox.take_unsent(at(0), 2)), [9, 1]);
        assert!(outbox.has_unsent());
        assert_eq!(blocks(outbox.take_unsent(at(0), 2)), [5]);
        assert!(!outbox.has_unsent());
        assert!(outbox.take_unsent(at(0), 2).is_empty());
    }

    #[test]
    fn what_was_sent_shortly_before_the_stream_broke_is_sent_again() {
        let mut outbox = Outbox::default();
        outbox.push(key(1), ReplicaEvent::Dropped);
        outbox.take_unsent(at(0), 10);
        outbox.push(key(2), ReplicaEvent::Dropped);
        outbox.take_unsent(at(5), 10);
        outbox.stream_alive(at(10));
        outbox.stream_lost();
        assert_eq!(blocks(outbox.take_unsent(at(11), 10)), [2]);
    }

    #[test]
    fn only_the_last_event_of_a_replica_counts() {
        let mut outbox = Outbox::default();
        outbox.push(key(1), ReplicaEvent::Bad { length: 1, what: "rot".to_owned() });
        outbox.push(key(2), ReplicaEvent::Dropped);
        outbox.push(key(1), ReplicaEvent::Dropped);
        let taken = outbox.take_unsent(at(0), 10);
        assert_eq!(taken, [(key(2), ReplicaEvent::Dropped), (key(1), ReplicaEvent::Dropped)]);
        outbox.stream_lost();
        assert_eq!(outbox.take_unsent(at(0), 10).len(), 2);
    }

    #[test]
    fn the_outbox_is_bounded_and_keeps_the_newest() {
        let mut outbox = Outbox::default();
        for block in 0..=EVENTS_MAX as u64 {
            outbox.push(key(block), ReplicaEvent::Dropped);
        }
        let taken = blocks(outbox.take_unsent(at(0), usize::MAX));
        assert_eq!((taken.len(), taken[0]), (EVENTS_MAX, 1));
    }
}
