//! The pages of a datanode for people and monitors.

use std::fmt::Write as _;
use std::sync::Arc;

use doldam_proto::id::{ClusterId, NodeId};
use doldam_runtime::http::{Health, Pages, escape_html};
use prometheus_client::registry::Registry;

use crate::blocks::volume::Volume;
use crate::engine::scrub_plan::ScrubPosition;
use crate::node::Node;

/// What the pages of `node` show.
pub(crate) fn pages(node: &Arc<Node>, registry: Arc<Registry>) -> Pages {
    let (healthy, shown) = (Arc::clone(node), Arc::clone(node));
    Pages {
        title: format!("Doldam datanode {}", node.membership.address),
        registry,
        health: Box::new(move || health(&healthy)),
        page: Some(Box::new(move || page(&shown))),
    }
}

/// A datanode is well while the namenode hears from it and it can take and serve blocks.
fn health(node: &Node) -> Health {
    let failure = |volume: &Arc<Volume>| {
        let why = volume.failure()?;
        Some(format!("{}: {why}", volume.layout().root().display()))
    };
    let failed: Vec<String> = node.store.volumes().iter().filter_map(failure).collect();
    let connected = node.membership.is_connected();
    let serving = failed.len() < node.store.volumes().len();
    let (replicas, quarantined, withdrawn) = {
        let inventory = &node.store.state().inventory;
        (inventory.len(), inventory.quarantined_count(), inventory.withdrawn_count())
    };
    Health::new(connected && serving)
        .with("node_id", node.membership.node_id().map_or(0, |NodeId(id)| id))
        .with(
            "cluster",
            node.membership.cluster().map(|ClusterId(id)| hex(&id)).unwrap_or_default(),
        )
        .with("address", node.membership.address.as_str())
        .with("connected", connected)
        .with("replicas", replicas)
        .with("quarantined", quarantined)
        .with("withdrawn", withdrawn)
        .with("active_streams", node.active_streams())
        .with("failed_folders", failed)
}

/// How far the verification of a folder is.
fn scrubbed(position: &ScrubPosition, now_ms: u64) -> String {
    let ScrubPosition { passes, pass_bytes, under_way, .. } = position;
    let state = if *under_way { "under way" } else { "last" };
    let hours = position.oldest_ms(now_ms) / 3_600_000;
    format!("{passes} times, {state}: {pass_bytes} bytes, all within {hours} h")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        _ = write!(text, "{byte:02x}");
        text
    })
}

fn page(node: &Node) -> String {
    let mut rows = String::new();
    for volume in node.store.volumes() {
        let space = volume.seen_space();
        let folder = escape_html(&volume.layout().root().display().to_string());
        let state = volume.failure().map_or("ok".to_owned(), |why| escape_html(&why));
        let stored = node.store.state().inventory.stored_bytes(volume.index());
        _ = writeln!(
            rows,
            "<tr><td>{folder}</td><td>{}</td><td>{stored}</td><td>{}</td><td>{state}</td>\
             <td>{}</td></tr>",
            space.total,
            space.available,
            scrubbed(&volume.scrub(), node.seams.clock.wall_ms())
        );
    }
    let rack = escape_html(&node.config.rack);
    let replicas = node.store.state().inventory.len();
    format!(
        "<p>node {}, rack {rack}, {replicas} replicas, {} streams</p>\n\
         <table><tr><th>folder</th><th>bytes</th><th>stored</th>\
         <th>available</th><th>state</th><th>verified</th></tr>\n\
         {rows}</table>",
        node.membership.uuid,
        node.active_streams()
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::cluster::TestNode;

    #[tokio::test]
    async fn the_pages_say_which_folder_failed_and_why_and_a_node_without_any_is_not_well() {
        let node = TestNode::start(1).await;
        node.node.membership.set_connected(true);
        assert!(health(&node.node).healthy);
        node.store.volumes()[0].give_up_silent(Duration::from_secs(30));
        let health = health(&node.node);
        assert!(!health.healthy);
        let folder = node.dir.path().display().to_string();
        assert_eq!(health.details["failed_folders"][0], format!("{folder}: no answer for 30s"));
        let page = page(&node.node);
        assert!(page.contains(&folder) && page.contains("no answer for 30s"), "{page}");
    }

    #[test]
    fn the_page_says_how_far_the_verification_is() {
        let position = ScrubPosition {
            passes: 3,
            under_way: true,
            pass_bytes: 500,
            completed_ms: 3_600_000,
            ..Default::default()
        };
        let text = scrubbed(&position, 3 * 3_600_000);
        assert_eq!(text, "3 times, under way: 500 bytes, all within 2 h");
    }
}
