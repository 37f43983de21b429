//! What a datanode's message means: events for the planner, and the next step of comparing inventories.

use std::collections::BTreeMap;

use doldam_proto::fingerprint::{Fingerprint, ReplicaId};
use doldam_proto::id::NodeId;
use doldam_proto::wire::{ListBuckets, ReportBuckets, order};
use tracing::debug;

use super::Control;
use super::hub::NodeMessage;
use crate::engine::cluster::inventory::{ANSWER_MAX, Inventory, Step};
use crate::engine::cluster::{Standing, Uptime};
use crate::engine::repair::Event;
use crate::engine::tables::{StoreError, Tables};

impl Control {
    /// Takes one message in.
    pub(super) fn take_message(&mut self, message: NodeMessage, events: &mut Vec<Event>) {
        let NodeMessage { node, session, sum, events: reported, buckets, listings, recovered } =
            message;
        let now = self.hub.now();
        for replica in recovered {
            self.recovery.recovered(now, node, replica);
        }
        events.extend(reported);
        let is_current = {
            let cluster = self.hub.cluster();
            cluster.node(node).is_some_and(|node| node.session() == session)
                && cluster.standing(node) != Standing::Dead
        };
        if !is_current {
            return; // What happened, happened; but the inventory starts anew with each registration.
        }
        let (compared, _) = self.driver.peek(|tables| {
            let report = Report { sum, buckets, listings };
            Ok(compare(&mut self.inventory, now, node, &report, tables)?)
        });
        // A store that failed has stopped the process already.
        let Ok((findings, steps)) = compared else { return };
        events.extend(findings);
        for step in steps {
            self.take_step(node, step, events);
        }
    }

    fn take_step(&mut self, node: NodeId, step: Step, events: &mut Vec<Event>) {
        let kind = match step {
            Step::Confirmed => {
                if self.hub.confirm(node) {
                    debug!(%node, "what the datanode holds is known");
                    events.push(Event::NodeConfirmed(node));
                }
                return;
            }
            Step::ReportBuckets => order::Kind::ReportBuckets(ReportBuckets {}),
            Step::ListBuckets(buckets) => order::Kind::ListBuckets(ListBuckets { buckets }),
        };
        let order = self.planner.order(kind, ANSWER_MAX);
        // One that is not sent is not answered, and asked for again in time.
        self.hub.links.send(node, vec![order]);
    }
}

struct Report {
    sum: (Fingerprint, u64),
    buckets: Option<BTreeMap<u32, Fingerprint>>,
    listings: Vec<(u32, Vec<ReplicaId>)>,
}

fn compare(
    inventory: &mut Inventory,
    now: Uptime,
    node: NodeId,
    report: &Report,
    tables: &dyn Tables,
) -> Result<(Vec<Event>, Vec<Step>), StoreError> {
    let (mut events, mut steps) = (Vec::new(), Vec::new());
    if let Some(buckets) = &report.buckets {
        steps.extend(inventory.buckets(now, node, buckets, tables)?);
    }
    for (bucket, replicas) in &report.listings {
        let (findings, step) = inventory.listing(now, node, (*bucket, replicas), tables)?;
        events.extend(findings.into_iter().map(|finding| Event::Found(node, finding)));
        steps.extend(step);
    }
    if report.buckets.is_none() && report.listings.is_empty() {
        steps.extend(inventory.heartbeat(now, node, report.sum, tables)?);
    }
    Ok((events, steps))
}
