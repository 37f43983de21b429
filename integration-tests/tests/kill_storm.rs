//! `kill -9` of any process at any time, again and again, while clients write, overwrite, rename, delete and read.
//!
//! `DOLDAM_STORM_KILLS` says how many kills, `DOLDAM_STORM_SEED` which; the seed is printed.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::env;
use std::io::Write;
use std::time::Duration;

use doldam_client::{Client, ClientConfig, NodeState};
use doldam_integration_tests::cluster::disk_fault::stored_bytes;
use doldam_integration_tests::cluster::{Cluster, is_whole, live};
use doldam_integration_tests::oracle::{Content, History};
use doldam_integration_tests::workload::{Load, Workload, read};
use doldam_runtime::random::{Random, SeededRandom, SystemRandom};
use futures::TryStreamExt;

const DATANODES: usize = 5;
const KILLS_DEFAULT: u64 = 40;
/// Between two kills so many changes and reads get through, and at the most this many more.
const STEPS_MIN: u64 = 3;
const STEPS_MORE: u64 = 40;

/// Kills servers, and starts them again.
struct Storm {
    cluster: Cluster,
    random: SeededRandom,
    workload: Workload,
    kills: u64,
    /// Datanodes that are down, to be started later.
    down: Vec<usize>,
}

impl Storm {
    async fn rage(&mut self, kills: u64) {
        while self.kills < kills {
            self.let_work().await;
            self.workload.assert_no_violation();
            match self.random.below(20) {
                0..=2 => self.restart_namenode(),
                3 => {
                    // Everything at once, as when the power of a machine room goes.
                    self.kill_datanodes(DATANODES);
                    self.restart_namenode();
                    self.start_all();
                }
                4 => {
                    self.kill_datanodes(DATANODES);
                    self.start_all();
                }
                5..=7 => self.kill_datanodes(2),
                _ => self.kill_datanodes(1),
            }
            // Two of five may stay down for a while: what has three replicas goes on.
            if self.down.len() >= 2 || self.random.below(2) == 0 {
                self.start_all();
            }
        }
        self.start_all();
    }

    /// Waits until clients got something done since the last kill.
    async fn let_work(&self) {
        let steps = STEPS_MIN + self.random.below(STEPS_MORE);
        let done = || self.workload.changes() + self.workload.reads();
        let goal = done() + steps;
        let what = format!("clients get {steps} more things done after {} kills", self.kills);
        self.cluster
            .until(&what, || async {
                self.workload.assert_no_violation();
                (done() >= goal).then_some(())
            })
            .await;
    }

    fn restart_namenode(&mut self) {
        self.cluster.namenode.kill();
        self.cluster.namenode.restart();
        self.kills += 1;
    }

    /// Kills so many of those that run.
    fn kill_datanodes(&mut self, count: usize) {
        for _ in 0..count {
            let running: Vec<usize> =
                (0..DATANODES).filter(|index| !self.down.contains(index)).collect();
            let Some(last) = running.len().checked_sub(1) else { return };
            let victim = running[self.random.below(last as u64 + 1) as usize];
            self.cluster.datanodes[victim].server.kill();
            self.down.push(victim);
            self.kills += 1;
        }
    }

    fn start_all(&mut self) {
        for index in self.down.drain(..) {
            self.cluster.datanodes[index].server.restart();
        }
    }
}

async fn patient_client(cluster: &Cluster) -> Client {
    let config = ClientConfig {
        operation_timeout: Duration::from_mins(1),
        placement_timeout: Duration::from_secs(30),
        attempt_timeout: Duration::from_secs(3),
        ..ClientConfig::default()
    };
    let builder = Client::builder().namenodes([cluster.address()]).config(config);
    builder.connect().await.unwrap()
}

/// Everything the cluster lists, with what is read there.
async fn everything(client: &Client, writers: u64) -> BTreeMap<String, Content> {
    let mut found = BTreeMap::new();
    for writer in 0..writers {
        let directory = format!("/w{writer}");
        let entries: Vec<_> = client.list(&directory).try_collect().await.unwrap();
        for entry in entries {
            let path = format!("{directory}/{}", entry.path);
            let content = read(client, &path).await.unwrap();
            if let Content::File { length, digest } = &content {
                assert_eq!(
                    (entry.length, entry.digest.unwrap().to_string()),
                    (*length, digest.clone())
                );
            }
            found.insert(path, content);
        }
    }
    found
}

/// All servers run, clients have ended: the cluster comes to full health, and holds what was promised and no more.
async fn check(cluster: &Cluster, history: &History, load: Load) {
    cluster
        .until("every datanode is live", || async {
            let report = cluster.report().await?;
            let all = report.datanodes.iter().all(|node| node.node.state == NodeState::Live);
            (all && live(&report) == DATANODES).then_some(())
        })
        .await;
    let files = cluster.wait_until_healed("/").await;
    assert!(files.iter().all(is_whole));
    let client = patient_client(cluster).await;
    let found = everything(&client, load.writers).await;
    let verdict = history.check_all(&found);
    let violations = verdict.err().unwrap_or_default();
    assert!(violations.is_empty(), "{violations:#?}");

    let needed: u64 = files.iter().map(|file| file.length * u64::from(file.replication)).sum();
    let held = || cluster.datanodes.iter().map(|node| stored_bytes(&node.dir)).sum::<u64>();
    let what = format!("the disks hold the {needed} bytes that are needed and no others");
    cluster.until(&what, || async { (held() == needed).then_some(()) }).await;
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_kills_loses_nothing_that_was_acknowledged() {
    let kills = number("DOLDAM_STORM_KILLS").unwrap_or(KILLS_DEFAULT);
    let seed = number("DOLDAM_STORM_SEED").unwrap_or_else(|| SystemRandom.next_u64() >> 32);
    // Past the test harness, which keeps what passing tests print to itself.
    let line = format!("{kills} kills, DOLDAM_STORM_SEED={seed}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    let cluster = Cluster::start(DATANODES).await;
    let load = Load::default();
    let workload = Workload::start(seed, load, async || patient_client(&cluster).await).await;
    let random = SeededRandom::new(seed);
    let mut storm = Storm { cluster, random, workload, kills: 0, down: Vec::new() };
    storm.rage(kills).await;
    let Storm { cluster, workload, .. } = storm;
    let (changes, reads, failures) = (workload.changes(), workload.reads(), workload.failures());
    let history = workload.stop().await;
    let (acknowledged, unknown) = history.counts();
    eprintln!(
        "{changes} changes ({acknowledged} acknowledged, {unknown} without an answer), {reads} reads, \
         {failures} failures"
    );
    check(&cluster, &history, load).await;
}
