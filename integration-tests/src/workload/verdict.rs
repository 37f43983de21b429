//! The end of a storm: the cluster comes to full health, and holds what clients were promised, and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use doldam_client::{Client, ClientConfig};
use futures::TryStreamExt;
use tokio::time::timeout;

use super::{Load, read};
use crate::cluster::disk_fault::files_below;
use crate::cluster::{Cluster, POLL_INTERVAL, is_whole};
use crate::oracle::{Content, History};

/// A client that sits out restarts.
pub async fn patient_client(cluster: &Cluster) -> Client {
    let config = ClientConfig {
        operation_timeout: Duration::from_mins(1),
        placement_timeout: Duration::from_secs(30),
        attempt_timeout: Duration::from_secs(3),
        ..ClientConfig::default()
    };
    let builder = || Client::builder().namenodes([cluster.address()]).config(config.clone());
    cluster.until("the namenode answers", || async { builder().connect().await.ok() }).await
}

/// All servers run and clients have ended: panics unless everything that was promised is there, with all replicas, and
/// nothing else is, neither in the namespace nor on any disk.
pub async fn check(cluster: &Cluster, history: &History, load: Load) {
    cluster.wait_until_live(cluster.datanodes.len()).await;
    let files = cluster.wait_until_healed("/").await;
    assert!(files.iter().all(is_whole));
    let client = patient_client(cluster).await;
    let found = everything(&client, load.writers).await;
    let violations = history.check_all(&found).err().unwrap_or_default();
    assert!(violations.is_empty(), "{violations:#?}");

    wait_until_nothing_is_surplus(cluster).await;
}

/// A replica whose removal was ordered of a server that died is found when lists are compared, which a namenode and a
/// datanode do once a minute if they differ; it may take two such rounds and the time of an order.
const SURPLUS_DEADLINE: Duration = Duration::from_mins(4);

/// Waits until every disk holds the replicas that are listed, and nothing else. Which those are may change meanwhile: a
/// replica that is found where one was lost is as good as the one that took its place.
pub async fn wait_until_nothing_is_surplus(cluster: &Cluster) {
    let deadline = timeout(SURPLUS_DEADLINE, async {
        loop {
            let found = stored(cluster);
            if listed(cluster).await.is_some_and(|listed| found == listed) {
                return;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    });
    if deadline.await.is_err() {
        let (found, listed) = (stored(cluster), listed(cluster).await.unwrap_or_default());
        let surplus: Vec<_> = found.difference(&listed).collect();
        let lacking: Vec<_> = listed.difference(&found).collect();
        panic!("still on disk, by datanode: {surplus:?}; not on disk: {lacking:?}");
    }
}

/// Every replica that the namenode lists, with the index of its datanode; `None` if it does not answer.
async fn listed(cluster: &Cluster) -> Option<BTreeSet<(usize, String)>> {
    let files = cluster.fsck("/").await?;
    let blocks = files.iter().flat_map(|file| &file.blocks);
    let replicas = blocks.flat_map(|block| {
        let name = format!("{:016x}_{}", block.id.0, block.generation.0);
        let nodes = block.replicas.iter();
        nodes.map(move |node| (cluster.index_of(&node.address), name.clone()))
    });
    Some(replicas.collect())
}

/// Every replica on disk, finished or not, with the index of its datanode.
fn stored(cluster: &Cluster) -> BTreeSet<(usize, String)> {
    let mut found = BTreeSet::new();
    for (index, node) in cluster.datanodes.iter().enumerate() {
        for dir in &node.dirs {
            for place in ["blocks", "writing"] {
                for file in files_below(&dir.join(place)) {
                    // BLOCK_GENERATION_LENGTH.data
                    let name = file.file_name().unwrap().to_string_lossy().into_owned();
                    let name: Vec<&str> = name.split(['_', '.']).take(2).collect();
                    let prefix = if place == "blocks" { "" } else { "writing/" };
                    found.insert((index, format!("{prefix}{}", name.join("_"))));
                }
            }
        }
    }
    found
}

/// Everything the cluster lists, with what is read there.
async fn everything(client: &Client, writers: u64) -> BTreeMap<String, Content> {
    let mut found = BTreeMap::new();
    for writer in 0..writers {
        let directory = format!("/w{writer}");
        let entries: Vec<_> = match client.list(&directory).try_collect().await {
            Ok(entries) => entries,
            // Its first file may never have come into being.
            Err(error) if error.is_not_found() => continue,
            Err(error) => panic!("{directory}: {error}"),
        };
        for entry in entries {
            let path = format!("{directory}/{}", entry.path);
            let content = read(client, &path).await.unwrap();
            if let Content::File { length, digest } = &content {
                let listed = entry.digest.unwrap().to_string();
                assert_eq!((entry.length, &listed), (*length, digest), "{path}");
            }
            found.insert(path, content);
        }
    }
    found
}
