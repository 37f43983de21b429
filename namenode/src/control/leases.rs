//! When each writing client was last heard of.
//!
//! Counted on the leader's monotonic clock and stored nowhere: after a restart all leases count as renewed, which
//! keeps an abandoned file a little longer and never takes one from a writer that is alive.

use std::collections::BTreeMap;
use std::time::Duration;

use doldam_proto::id::ClientId;
use doldam_runtime::clock::Uptime;

/// See the module.
#[derive(Debug)]
pub(crate) struct Leases {
    soft: Duration,
    hard: Duration,
    renewed_at: BTreeMap<ClientId, Uptime>,
}

impl Leases {
    /// Leases that another may take over after `soft`, and that end after `hard`.
    pub(crate) fn new(soft: Duration, hard: Duration) -> Self {
        Self { soft, hard, renewed_at: BTreeMap::new() }
    }

    /// The client writes, or says that it still does.
    pub(crate) fn renew(&mut self, client: ClientId, now: Uptime) {
        self.renewed_at.insert(client, now);
    }

    /// Whether the client is known to write.
    pub(crate) fn is_known(&self, client: ClientId) -> bool {
        self.renewed_at.contains_key(&client)
    }

    /// Time until another client may take over; zero if it may now.
    pub(crate) fn soft_left(&self, client: ClientId, now: Uptime) -> Duration {
        let renewed_at = self.renewed_at.get(&client);
        renewed_at.map_or(Duration::ZERO, |at| (*at + self.soft).saturating_sub(now))
    }

    /// Takes out the clients whose leases have ended.
    pub(crate) fn take_expired(&mut self, now: Uptime) -> Vec<ClientId> {
        let hard = self.hard;
        let has_expired = |_: &ClientId, at: &mut Uptime| *at + hard <= now;
        self.renewed_at.extract_if(.., has_expired).map(|(client, _)| client).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOFT: Duration = Duration::from_mins(1);
    const HARD: Duration = Duration::from_mins(5);
    const CLIENT: ClientId = ClientId([1; 16]);

    fn just_before(time: Duration) -> Uptime {
        time.saturating_sub(Duration::from_nanos(1))
    }

    #[test]
    fn another_client_may_take_over_at_the_soft_limit_and_not_before() {
        let mut leases = Leases::new(SOFT, HARD);
        leases.renew(CLIENT, Duration::ZERO);
        assert!(!leases.soft_left(CLIENT, just_before(SOFT)).is_zero());
        assert!(leases.soft_left(CLIENT, SOFT).is_zero());
        leases.renew(CLIENT, SOFT);
        assert_eq!(leases.soft_left(CLIENT, SOFT), SOFT);
        assert!(leases.soft_left(ClientId([2; 16]), SOFT).is_zero(), "unknown");
    }

    #[test]
    fn a_lease_ends_once_at_the_hard_limit_and_not_before() {
        let mut leases = Leases::new(SOFT, HARD);
        leases.renew(CLIENT, Duration::ZERO);
        assert_eq!(leases.take_expired(just_before(HARD)), []);
        assert_eq!(leases.take_expired(HARD), [CLIENT]);
        assert_eq!(leases.take_expired(HARD), []);
        assert!(!leases.is_known(CLIENT));
    }
}
