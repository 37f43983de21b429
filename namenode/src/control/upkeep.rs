//! What is done now and then: ending leases, collecting garbage, forgetting old requests, measuring.

use std::sync::Arc;
use std::time::Duration;

use doldam_proto::FsError;
use doldam_proto::id::ClientId;
use doldam_proto::node::NodeState;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::{
    CollectGarbageCommand, ExpireLeaseCommand, ForgetRequestsCommand, GarbageOutcome, Outcome,
    outcome,
};
use doldam_runtime::clock::{Clock, Uptime};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tracing::info;

use super::hub::Hub;
use crate::driver::Driver;
use crate::engine::cluster::Mode;
use crate::engine::namespace::view;
use crate::metrics::{Gauges, Metrics};

/// Blocks, names and inodes collected by one command.
const GARBAGE_ITEMS: u32 = 500;
/// While so many drops wait for the datanodes no more garbage is collected.
const DROPS_WAITING_MAX: usize = 20_000;
/// Requests looked at by one command.
const FORGET_ITEMS: u32 = 1000;
/// Time between two rounds of forgetting.
const FORGET_EVERY: Duration = Duration::from_mins(10);
/// Time between two measurements.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Upkeep {
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    retention: Duration,
    started_wall_ms: u64,
    started: Uptime,
    collecting: bool,
    forgetting: bool,
    forget_at: Uptime,
    measure_at: Uptime,
}

impl Upkeep {
    pub(crate) fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>, retention: Duration) -> Self {
        let (started, started_wall_ms) = (clock.now(), clock.wall_ms());
        Self {
            clock,
            metrics,
            retention,
            started_wall_ms,
            started,
            collecting: false,
            forgetting: false,
            forget_at: started + FORGET_EVERY,
            measure_at: started,
        }
    }

    /// The changes that are due.
    pub(super) fn tick(&mut self, now: Uptime, driver: &Driver, hub: &Hub) -> Vec<Change> {
        let mut changes = expired_leases(now, driver, hub);
        changes.extend(self.collect(driver, hub));
        if now >= self.forget_at && !self.forgetting {
            self.forget_at = now + FORGET_EVERY;
            changes.push(self.forget(now));
        }
        if now >= self.measure_at {
            self.measure_at = now + MEASURE_EVERY;
            self.measure(driver, hub);
        }
        changes
    }

    /// A change was applied or refused; what follows from it at once.
    pub(super) fn proposed(
        &mut self,
        change: &Change,
        outcome: &Result<Outcome, FsError>,
        driver: &Driver,
        hub: &Hub,
    ) -> Option<Change> {
        let more = match outcome {
            Ok(Outcome {
                kind: Some(outcome::Kind::Garbage(GarbageOutcome { more, .. })), ..
            }) => *more,
            Ok(_) | Err(_) => false,
        };
        match change {
            Change::CollectGarbage(_) => {
                self.collecting = false;
                // What came meanwhile waits for the next tick. To ask for it and then not to propose it would leave
                // `collecting` set for ever.
                if more { self.collect(driver, hub) } else { None }
            }
            Change::ForgetRequests(_) => {
                self.forgetting = false;
                more.then(|| self.forget(self.clock.now()))
            }
            Change::ExpireLease(expire) => {
                if outcome.is_err()
                    && let Some(client) = ClientId::from_slice(&expire.client_id)
                {
                    hub.leases().renew(client, self.clock.now()); // It expires another time.
                }
                more.then(|| change.clone())
            }
            _ => None,
        }
    }

    fn collect(&mut self, driver: &Driver, hub: &Hub) -> Option<Change> {
        if self.collecting || hub.repair().drops_waiting > DROPS_WAITING_MAX {
            return None;
        }
        let (waits, _) = driver.peek(|tables| Ok(view::garbage_waits(tables)?));
        self.collecting = waits.unwrap_or(false);
        let command = CollectGarbageCommand { max_items: GARBAGE_ITEMS };
        self.collecting.then_some(Change::CollectGarbage(command))
    }

    /// What is older than the retention by both clocks: a wall clock that jumps ahead forgets nothing.
    fn forget(&mut self, now: Uptime) -> Change {
        self.forgetting = true;
        let passed_ms = now.saturating_sub(self.started).as_millis() as u64;
        let wall_ms = self.clock.wall_ms().min(self.started_wall_ms.saturating_add(passed_ms));
        let older_than_ms = wall_ms.saturating_sub(self.retention.as_millis() as u64);
        Change::ForgetRequests(ForgetRequestsCommand { older_than_ms, max_items: FORGET_ITEMS })
    }

    fn measure(&self, driver: &Driver, hub: &Hub) {
        let gauges = &self.metrics.gauges;
        {
            let cluster = hub.cluster();
            set(&gauges.nodes_live, cluster.count(NodeState::Live) as u64);
            set(&gauges.nodes_suspect, cluster.count(NodeState::Suspect) as u64);
            set(&gauges.nodes_dead, cluster.count(NodeState::Dead) as u64);
        }
        measure_leaving(gauges, driver, hub);
        let repair = hub.repair();
        set(&gauges.repair_todo_bytes, repair.todo_bytes);
        set(&gauges.balance_moves_running, repair.moves_running as u64);
        let count = |counter: &Counter, total: u64| {
            counter.inc_by(total.saturating_sub(counter.get()));
        };
        count(&gauges.repair_copies, repair.copied.copies);
        count(&gauges.repair_copied_bytes, repair.copied.bytes);
        count(&gauges.repair_failures, repair.failures);
        set(&gauges.missing, repair.counts.missing);
        set(&gauges.repairs_running, repair.running as u64);
        set(&gauges.repairs_waiting, repair.waiting as u64);
        set(&gauges.repair_paused, u64::from(repair.paused));
        set(&gauges.drops_waiting, repair.drops_waiting as u64);
        let recovery = hub.recovery();
        set(&gauges.recoveries_running, recovery.running as u64);
        set(&gauges.recoveries_waiting, recovery.waiting as u64);
        set(&gauges.recoveries_stuck, recovery.stuck as u64);
        count(&gauges.recoveries_shortened, recovery.shortened);
        count(&gauges.recoveries_lost_bytes, recovery.lost_bytes);
        set(&gauges.proposals_waiting, driver.waiting() as u64);
        let (totals, _) = driver.peek(|tables| Ok(view::totals(tables)?));
        if let Ok(totals) = totals {
            let under = totals.under_replicated.max(repair.counts.under_replicated);
            set(&gauges.under_replicated, under);
            set(&gauges.corrupt, totals.corrupt.max(repair.counts.corrupt));
            set(&gauges.files, totals.files);
            set(&gauges.directories, totals.directories);
            set(&gauges.blocks, totals.blocks);
            set(&gauges.garbage, totals.garbage);
        }
    }
}

fn set(gauge: &Gauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

/// Nodes that administrators took out of service, and what is left on those that are drained.
fn measure_leaving(gauges: &Gauges, driver: &Driver, hub: &Hub) {
    let (mut draining, mut in_maintenance) = (Vec::new(), 0);
    for node in hub.cluster().nodes() {
        match node.mode {
            Mode::InService => {}
            Mode::Draining { .. } => draining.push(node.identity.id),
            Mode::Maintenance { .. } => in_maintenance += 1,
        }
    }
    set(&gauges.nodes_draining, draining.len() as u64);
    set(&gauges.nodes_in_maintenance, in_maintenance);
    let (left, _) = driver.peek(|tables| {
        let mut left = 0;
        for node in &draining {
            left += view::replica_sum(tables, *node)?.count;
        }
        Ok(left)
    });
    if let Ok(left) = left {
        set(&gauges.drain_replicas_left, left);
    }
}

/// Clients that were silent for so long that what they were writing is given up, or closed if readers see it.
fn expired_leases(now: Uptime, driver: &Driver, hub: &Hub) -> Vec<Change> {
    let expired = hub.leases().take_expired(now);
    let writes = |client: &ClientId| {
        let (writes, _) = driver.peek(|tables| Ok(view::writes_anything(tables, *client)?));
        writes.unwrap_or(false)
    };
    let expire = |client: ClientId| {
        info!(%client, "a client fell silent: its unfinished writes are ended");
        Change::ExpireLease(ExpireLeaseCommand { client_id: client.to_bytes() })
    };
    expired.into_iter().filter(writes).map(expire).collect()
}
