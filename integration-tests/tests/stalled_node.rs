//! Datanodes that are stopped, so that their connections stay open and nothing comes: reads go on elsewhere.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::time::Duration;

use doldam_client::{Client, ClientConfig};
use doldam_integration_tests::cluster::Cluster;
use doldam_integration_tests::cluster::content::bytes;
use tokio::io::AsyncWriteExt;

const FILE_BYTES: usize = 24 << 20;
/// Longer than any test runs: whoever waits for a silent node fails.
const FOR_EVER: Duration = Duration::from_hours(1);

/// A client that has no way past a silent node but a hedge.
async fn client(cluster: &Cluster) -> Client {
    let config = ClientConfig {
        read_timeout: FOR_EVER,
        datanode_connect_timeout: FOR_EVER,
        ..ClientConfig::default()
    };
    let builder = Client::builder().namenodes([cluster.address().to_owned()]).config(config);
    builder.connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_on_though_two_of_three_datanodes_are_stopped_in_mid_file() {
    let cluster = Cluster::start(3).await;
    let client = client(&cluster).await;
    let content = bytes(3, FILE_BYTES);
    let mut file = client.create("/file").block_bytes(2 << 20).open().await.unwrap();
    file.write_all(&content).await.unwrap();
    file.close().await.unwrap();

    let mut file = client.open("/file").await.unwrap();
    let (mut found, mut frozen) = (Vec::new(), false);
    while let Some(piece) = file.read_chunk().await.unwrap() {
        found.extend_from_slice(&piece);
        // In the middle of a block, with nine more to come, whose replicas are on all three.
        if found.len() >= 5 << 20 && !frozen {
            cluster.datanodes[0].server.freeze();
            cluster.datanodes[1].server.freeze();
            frozen = true;
        }
    }
    assert!(found == content);
    let seen = file.verification();
    assert!(seen.bad_replicas.is_empty(), "who is silent is not bad");
    assert_eq!(seen.bytes_verified, FILE_BYTES as u64);
    for at in [5, FILE_BYTES / 2, FILE_BYTES - 100] {
        assert_eq!(file.read_at(at as u64, 100).await.unwrap(), content[at..at + 100]);
    }
}
