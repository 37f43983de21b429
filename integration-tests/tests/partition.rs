//! Wires that are cut, one by one and in one direction, that are slow or lose packets: each server on a host of its own
//! in a network of its own. Whatever is cut, nothing acknowledged is lost, nobody waits for ever, and all heals.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::time::Duration;

use doldam_client::{Client, ClientConfig, ClientError, ErrorKind, GetOptions};
use doldam_integration_tests::cluster::content::{b3sum, write_file};
use doldam_integration_tests::cluster::layout::{Layout, SHORT_LEASES};
use doldam_integration_tests::cluster::midway::{Midway, put_options};
use doldam_integration_tests::cluster::network::{Host, Network};
use doldam_integration_tests::cluster::relay::Relay;
use doldam_integration_tests::cluster::{Cluster, sandbox};
use doldam_integration_tests::workload::verdict::{check, patient_client};
use doldam_integration_tests::workload::{Load, Workload};

const DATANODES: usize = 4;
const BLOCK_BYTES: u64 = 1 << 20;
const FILE_BYTES: u64 = 24 << 20;

async fn cluster() -> Cluster {
    let network = Network::build(DATANODES);
    Cluster::start_as(Layout::new(DATANODES).settings(SHORT_LEASES).network(network)).await
}

fn network(cluster: &Cluster) -> &Network {
    cluster.network.as_ref().unwrap()
}

/// Puts a file, disturbed by `disturb` when a part of it is there.
async fn put_while(
    cluster: &Cluster,
    client: &Client,
    path: &str,
    disturb: impl FnOnce(&Network),
) -> (Result<(), ClientError>, String) {
    let source = cluster.folder().join("source");
    let digest = write_file(&source, path.len() as u64, FILE_BYTES as usize);
    let midway = Arc::new(Midway::default());
    let options = put_options(BLOCK_BYTES, midway.progress(FILE_BYTES / 4));
    let put = client.put_file(&source, path, options);
    let cut = async {
        midway.reached().await;
        disturb(network(cluster));
    };
    let (report, ()) = tokio::join!(put, cut);
    (report.map(drop), digest)
}

async fn assert_identical(cluster: &Cluster, client: &Client, path: &str, digest: &str) {
    let target = cluster.folder().join("got");
    let options = GetOptions { overwrite: true, ..GetOptions::default() };
    let report = client.get_file(path, &target, options).await.unwrap();
    assert_eq!(b3sum(&target), digest, "{path}");
    assert!(report.verification.bad_replicas.is_empty(), "a cut wire makes no bad replica");
}

/// A put and a get succeed although `cut` happens in the middle of the put, and after the wires are whole again
/// everything heals.
async fn cut_is_survived(cut: impl FnOnce(&Network)) {
    let cluster = cluster().await;
    let client = cluster.client().await;
    let (put, digest) = put_while(&cluster, &client, "/file", cut).await;
    put.unwrap();
    assert_identical(&cluster, &client, "/file", &digest).await;
    network(&cluster).heal();
    cluster.wait_until_live(DATANODES).await;
    cluster.wait_until_healed("/").await;
    assert_identical(&cluster, &client, "/file", &digest).await;
}

#[test]
fn a_datanode_that_loses_the_namenode_is_left_out_and_back_in_time() {
    sandbox::run(sandbox::NETWORK, || {
        cut_is_survived(|network| network.cut(Host::Datanode(0), Host::Namenode))
    });
}

#[test]
fn a_datanode_that_hears_the_namenode_no_more_is_left_out_and_back_in_time() {
    sandbox::run(sandbox::NETWORK, || {
        cut_is_survived(|network| network.cut_one_way(Host::Namenode, Host::Datanode(0)))
    });
}

#[test]
fn a_datanode_that_clients_cannot_reach_is_written_and_read_around() {
    sandbox::run(sandbox::NETWORK, || {
        cut_is_survived(|network| network.cut(Host::Datanode(0), Host::Client))
    });
}

#[test]
fn a_datanode_whose_answers_get_lost_is_written_and_read_around() {
    sandbox::run(sandbox::NETWORK, || {
        cut_is_survived(|network| network.cut_one_way(Host::Datanode(0), Host::Client))
    });
}

#[test]
fn a_datanode_that_other_datanodes_cannot_reach_is_written_around() {
    sandbox::run(sandbox::NETWORK, || {
        cut_is_survived(|network| {
            for other in 1..DATANODES {
                network.cut(Host::Datanode(0), Host::Datanode(other));
            }
        })
    });
}

#[test]
fn wires_that_lose_packets_only_slow_things_down() {
    sandbox::run(sandbox::NETWORK, || {
        cut_is_survived(|network| {
            for index in 0..DATANODES {
                network.lose(Host::Client, Host::Datanode(index), 2);
                network.lose(Host::Datanode(index), Host::Datanode((index + 1) % DATANODES), 2);
                network.lose(Host::Datanode(index), Host::Namenode, 5);
            }
        })
    });
}

#[test]
fn a_client_that_is_cut_off_is_told_so_in_time_and_leaves_nothing_half_written() {
    sandbox::run(sandbox::NETWORK, || async {
        let cluster = cluster().await;
        let config = ClientConfig {
            operation_timeout: Duration::from_secs(5),
            attempt_timeout: Duration::from_secs(2),
            ..ClientConfig::default()
        };
        let builder = Client::builder().namenodes([cluster.address()]).config(config);
        let client = builder.connect().await.unwrap();
        let put = put_while(&cluster, &client, "/file", |network| {
            network.cut(Host::Client, Host::Namenode);
            for index in 0..DATANODES {
                network.cut(Host::Client, Host::Datanode(index));
            }
        });
        let (put, _) = tokio::time::timeout(Duration::from_mins(2), put).await.unwrap();
        let refusal = put.unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::Unavailable, "{refusal}");
        network(&cluster).heal();
        let what = "the cluster answers again";
        let found = cluster.until(what, || async { client.try_stat("/file").await.ok() }).await;
        assert_eq!(found, None, "half of it is visible");
        let (put, digest) = put_while(&cluster, &client, "/again", |_| {}).await;
        put.unwrap();
        assert_identical(&cluster, &client, "/again", &digest).await;
    });
}

#[test]
fn cuts_of_any_wires_while_many_clients_work_lose_nothing() {
    sandbox::run(sandbox::NETWORK, || async {
        let cluster = cluster().await;
        // Small: a block that meets a silent wire may take its writer many seconds.
        let load = Load { writers: 4, readers: 2, bytes_max: 100_000, ..Load::default() };
        let workload = Workload::start(7, load, async || patient_client(&cluster).await).await;
        for round in 0..DATANODES {
            let (one, other) = (Host::Datanode(round), Host::Datanode((round + 1) % DATANODES));
            match round {
                0 => network(&cluster).cut(one, Host::Namenode),
                1 => network(&cluster).cut_one_way(one, other),
                2 => network(&cluster).cut(one, other),
                _ => network(&cluster).cut_one_way(Host::Namenode, one),
            }
            let goal = workload.changes() + 3;
            cluster
                .until("clients get three changes made", || async {
                    workload.assert_no_violation();
                    (workload.changes() >= goal).then_some(())
                })
                .await;
            network(&cluster).heal();
        }
        let history = workload.stop().await;
        check(&cluster, &history, load).await;
    });
}

/// 200 ms there and back, on every connection.
#[tokio::test(flavor = "multi_thread")]
async fn slow_wires_only_slow_things_down() {
    const DELAY: Duration = Duration::from_millis(100);
    let mut cluster = Cluster::start(0).await;
    let namenode = Relay::start(cluster.address(), DELAY);
    let mut relays = Vec::new();
    for _ in 0..3 {
        let mut advertise = |listen: &str| {
            relays.push(Relay::start(listen, DELAY));
            relays.last().unwrap().address().to_owned()
        };
        cluster.add_datanode_with("/r1", namenode.address(), Some(&mut advertise));
    }
    cluster.wait_until_live(3).await;
    let client = Client::connect(namenode.address()).await.unwrap();
    let source = cluster.folder().join("source");
    let digest = write_file(&source, 1, 8 << 20);
    let never = Arc::new(Midway::default());
    let options = put_options(BLOCK_BYTES, never.progress(u64::MAX));
    client.put_file(&source, "/file", options).await.unwrap();
    assert_identical(&cluster, &client, "/file", &digest).await;
    cluster.datanodes[0].server.kill();
    cluster.wait_until_live(2).await;
    assert_identical(&cluster, &client, "/file", &digest).await;
    cluster.datanodes[0].server.restart();
    cluster.wait_until_live(3).await;
    cluster.wait_until_healed("/").await;
}
