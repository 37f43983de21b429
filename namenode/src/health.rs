//! The health page: not ready before the journal was replayed, unhealthy once the namenode cannot go on.

use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use doldam_proto::node::NodeState;
use doldam_runtime::http::{Health, Pages, escape_html};
use prometheus_client::registry::Registry;

use crate::control::hub::Hub;
use crate::driver::Driver;
use crate::engine::cluster::Mode;

/// What is said while repair holds still.
const PAUSED: &str =
    "repair holds still: so many datanodes vanished at once that it may be the network";

/// What the pages look at.
#[derive(Default)]
pub(crate) struct Status {
    serving: OnceLock<(Driver, Arc<Hub>)>,
}

impl Status {
    /// The namenode serves from now on.
    pub(crate) fn serve(&self, driver: Driver, hub: Arc<Hub>) {
        // Set once, at the start.
        let _ = self.serving.set((driver, hub));
    }

    fn health(&self) -> Health {
        let Some((driver, hub)) = self.serving.get() else {
            return Health::new(false).with("state", "starting");
        };
        if driver.has_failed() {
            return Health::new(false).with("state", "failed");
        }
        let repair = hub.repair();
        let cluster = hub.cluster();
        Health::new(true)
            .with("state", if repair.paused { "degraded" } else { "serving" })
            .with("cluster", driver.cluster_id().to_string())
            .with("nodes_live", cluster.count(NodeState::Live))
            .with("nodes_suspect", cluster.count(NodeState::Suspect))
            .with("nodes_dead", cluster.count(NodeState::Dead))
            .with("under_replicated_blocks", repair.counts.under_replicated)
            .with("missing_blocks", repair.counts.missing)
            .with("repair_paused", repair.paused)
            .with("alarm", if repair.paused { PAUSED } else { "" })
    }

    fn page(&self) -> String {
        let Some((_, hub)) = self.serving.get() else { return "<p>starting</p>".to_owned() };
        let mut page = "<table><tr><th>datanode<th>address<th>rack<th>state<th>replicas<th>used\
                        <th>available</tr>\n"
            .to_owned();
        for node in hub.cluster().nodes() {
            let address = node.to_address();
            let state = match address.state {
                NodeState::Live => "live",
                NodeState::Suspect => "suspect",
                NodeState::Dead => "dead",
            };
            let mode = match node.mode {
                Mode::InService => "",
                Mode::Draining { .. } => ", draining",
                Mode::Maintenance { .. } => ", in maintenance",
            };
            let load = &node.load;
            // Writing to a string cannot fail.
            let _ = writeln!(
                page,
                "<tr><td>{}<td>{}<td>{}<td>{state}{mode}<td>{}<td>{}<td>{}</tr>",
                address.id,
                escape_html(&address.address),
                escape_html(&address.rack),
                load.replicas,
                load.used,
                load.available,
            );
        }
        page.push_str("</table>");
        page
    }
}

/// The pages of a namenode.
pub(crate) fn pages(registry: Arc<Registry>, status: Arc<Status>) -> Pages {
    let shown = Arc::clone(&status);
    Pages {
        title: "Doldam namenode".to_owned(),
        registry,
        health: Box::new(move || status.health()),
        page: Some(Box::new(move || shown.page())),
    }
}
