//! `kill -9` of any process at any time, again and again, while clients write, overwrite, rename, delete and read.
//!
//! `DOLDAM_STORM_KILLS` says how many kills, `DOLDAM_STORM_SEED` which; the seed is printed.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::env;
use std::io::Write;

use doldam_integration_tests::cluster::Cluster;
use doldam_integration_tests::cluster::layout::{Layout, SHORT_LEASES};
use doldam_integration_tests::workload::verdict::{check, patient_client};
use doldam_integration_tests::workload::{Load, Workload};
use doldam_runtime::random::{Random, SeededRandom, SystemRandom};

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
    let cluster = Cluster::start_as(Layout::new(DATANODES).settings(SHORT_LEASES)).await;
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
