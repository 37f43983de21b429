//! Numbers the changing requests of this client, so that none is ever applied twice.

use std::collections::BTreeSet;

use doldam_proto::id::ClientId;
use doldam_proto::wire;
use parking_lot::Mutex;

/// Hands out request ids, and knows which are still waited for.
#[derive(Debug)]
pub(super) struct RequestIds {
    client: ClientId,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    next: u64,
    waiting: BTreeSet<u64>,
}

impl RequestIds {
    pub(super) fn new(client: ClientId) -> Self {
        Self { client, state: Mutex::new(State { next: 1, waiting: BTreeSet::new() }) }
    }

    /// Who sends these requests.
    pub(super) fn client(&self) -> ClientId {
        self.client
    }

    /// A new request, which counts as waited for until the guard is dropped.
    pub(super) fn begin(&self) -> RequestGuard<'_> {
        let mut state = self.state.lock();
        let sequence = state.next;
        state.next += 1;
        state.waiting.insert(sequence);
        let answered_below = state.waiting.first().copied().unwrap_or(sequence);
        RequestGuard { ids: self, sequence, answered_below }
    }
}

/// A request under way. When it is dropped nobody waits for the outcome any more.
#[derive(Debug)]
pub(super) struct RequestGuard<'a> {
    ids: &'a RequestIds,
    sequence: u64,
    answered_below: u64,
}

impl RequestGuard<'_> {
    /// The id to send, the same with every try.
    // An `Option` because every request message has the field as one.
    #[expect(clippy::unnecessary_wraps, reason = "the shape of the field it fills")]
    pub(super) fn id(&self) -> Option<wire::RequestId> {
        Some(wire::RequestId {
            client_id: self.ids.client.to_bytes(),
            sequence: self.sequence,
            answered_below: self.answered_below,
        })
    }
}

impl Drop for RequestGuard<'_> {
    fn drop(&mut self) {
        self.ids.state.lock().waiting.remove(&self.sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_still_waited_for_is_never_called_answered() {
        let ids = RequestIds::new(ClientId([7; 16]));
        let numbers = |guard: &RequestGuard<'_>| {
            let id = guard.id().unwrap();
            (id.sequence, id.answered_below)
        };
        let first = ids.begin();
        let second = ids.begin();
        assert_eq!((numbers(&first), numbers(&second)), ((1, 1), (2, 1)));
        drop(second);
        assert_eq!(numbers(&ids.begin()), (3, 1));
        drop(first);
        let fourth = ids.begin();
        assert_eq!(numbers(&fourth), (4, 4));
        assert_eq!(numbers(&fourth), (4, 4), "a retry is the same request");
        assert_eq!(fourth.id().unwrap().client_id[..], [7; 16]);
    }
}
