//! The power goes: each machine's file system (ext4 on a disk of its own) forgets what was not synced to it, whatever
//! the server had written. What was acknowledged with the default durability, every replica synced, is there
//! afterwards, also if all machines lose power at once.
//!
//! `DOLDAM_STORM_SEED` says what is cut when; the seed is printed.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::env;
use std::fs::{self, File};
use std::io::Write;

use doldam_client::Durability;
use doldam_integration_tests::cluster::layout::{Layout, SHORT_LEASES};
use doldam_integration_tests::cluster::mount::Disk;
use doldam_integration_tests::cluster::process::Server;
use doldam_integration_tests::cluster::{Cluster, sandbox};
use doldam_integration_tests::workload::verdict::{check, patient_client};
use doldam_integration_tests::workload::{Load, Workload};
use doldam_runtime::random::{Random, SeededRandom, SystemRandom};
use tokio::io::AsyncWriteExt;

const DATANODES: usize = 4;
const DISK_BYTES: u64 = 512 << 20;
const CUTS: usize = 8;
/// Between two cuts so many things get done by clients, and at the most this many more.
const STEPS_MIN: u64 = 10;
const STEPS_MORE: u64 = 60;

/// Machines with a disk each.
struct Machines {
    cluster: Cluster,
    /// The namenode's, then each datanode's.
    disks: Vec<Disk>,
    options: &'static str,
}

impl Machines {
    async fn start(folder: &tempfile::TempDir, options: &'static str) -> Self {
        let disk = |index: usize| {
            let path = folder.path().join(format!("disk-{index}"));
            let image = folder.path().join(format!("image-{index}"));
            Disk::ext4(path, image, DISK_BYTES, options)
        };
        let disks: Vec<Disk> = (0..=DATANODES).map(disk).collect();
        let data = |disk: &Disk| disk.path().join("data");
        let layout = Layout::new(DATANODES)
            .settings(SHORT_LEASES)
            .namenode_dir(data(&disks[0]))
            .datanode_dirs(disks[1..].iter().map(|disk| vec![data(disk)]).collect());
        Self { cluster: Cluster::start_as(layout).await, disks, options }
    }

    fn server(&mut self, machine: usize) -> &mut Server {
        match machine.checked_sub(1) {
            None => &mut self.cluster.namenode,
            Some(datanode) => &mut self.cluster.datanodes[datanode].server,
        }
    }

    /// The disks first, while the servers go on for a moment: what they do then must not count.
    fn cut_power(&mut self, machines: &[usize]) {
        for machine in machines {
            self.disks[*machine].cut_power();
        }
        for machine in machines {
            // It may have stopped by itself when its disk failed.
            if self.server(*machine).ended().is_none() {
                self.server(*machine).kill();
            }
        }
    }

    fn power_on(&mut self, machines: &[usize]) {
        let options = self.options;
        for machine in machines {
            self.disks[*machine].power_on(options);
            self.server(*machine).restart();
        }
    }
}

/// Waits until clients got something done.
async fn let_work(machines: &Machines, workload: &Workload, steps: u64) {
    let done = || workload.changes() + workload.reads();
    let goal = done() + steps;
    machines
        .cluster
        .until(&format!("clients get {steps} things done"), || async {
            workload.assert_no_violation();
            (done() >= goal).then_some(())
        })
        .await;
}

async fn cut_again_and_again(options: &'static str) {
    let seed = env::var("DOLDAM_STORM_SEED")
        .map_or_else(|_| SystemRandom.next_u64() >> 32, |seed| seed.parse().unwrap());
    eprintln!("DOLDAM_STORM_SEED={seed}");
    let random = SeededRandom::new(seed);
    let folder = tempfile::Builder::new().prefix("doldam-test-disks-").tempdir().unwrap();
    let mut machines = Machines::start(&folder, options).await;
    let load = Load { durability: &[Durability::All], ..Load::default() };
    let workload =
        Workload::start(seed, load, async || patient_client(&machines.cluster).await).await;
    for cut in 0..CUTS {
        let_work(&machines, &workload, STEPS_MIN + random.below(STEPS_MORE)).await;
        let victims: Vec<usize> = match cut % 4 {
            // All of them, every other time.
            0 | 2 => (0..=DATANODES).collect(),
            1 => vec![1 + random.below(DATANODES as u64) as usize],
            _ => vec![0],
        };
        machines.cut_power(&victims);
        machines.power_on(&victims);
    }
    let_work(&machines, &workload, STEPS_MIN).await;
    let history = workload.stop().await;
    let (acknowledged, unknown) = history.counts();
    eprintln!("{acknowledged} changes acknowledged, {unknown} without an answer");
    check(&machines.cluster, &history, load).await;
    // The servers before their disks.
    let Machines { cluster, disks, .. } = machines;
    drop(cluster);
    drop(disks);
}

#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() {
    sandbox::run(sandbox::DISKS, || cut_again_and_again("defaults"));
}

/// A file system that keeps its own log for itself as long as it may, and promises no order of data and names: it loses
/// all that nobody asked it to keep.
#[test]
fn a_power_cut_of_a_lazy_file_system_loses_nothing_that_was_acknowledged() {
    sandbox::run(sandbox::DISKS, || {
        cut_again_and_again("data=writeback,commit=900,noauto_da_alloc")
    });
}

/// Three files whose writers are at work when the power goes: what each may have lost.
async fn cut_flushed_files(options: &'static str) {
    let folder = tempfile::Builder::new().prefix("doldam-test-disks-").tempdir().unwrap();
    let mut machines = Machines::start(&folder, options).await;
    let content: Vec<u8> =
        (0..3_000_000_u32).map(|at| (at % 251) as u8 ^ (at >> 12) as u8).collect();
    let (synced, flushed) = (1_100_000, 2_200_000);
    let client = patient_client(&machines.cluster).await;
    let mut writers = Vec::new();
    for path in ["/synced", "/flushed", "/appended"] {
        let mut writer = client.create(path).open().await.unwrap();
        writer.write_all(&content[..synced]).await.unwrap();
        match path {
            "/synced" => writer.sync().await.unwrap(),
            "/flushed" => writer.flush().await.unwrap(),
            _ => {
                writer.close().await.unwrap();
                writer = client.append(path).open().await.unwrap();
            }
        }
        writer.write_all(&content[synced..flushed]).await.unwrap();
        writer.flush().await.unwrap();
        writers.push(writer);
    }
    let all: Vec<usize> = (0..=DATANODES).collect();
    machines.cut_power(&all);
    drop(writers);
    drop(client);
    machines.power_on(&all);
    let client = patient_client(&machines.cluster).await;
    for (path, least) in [("/synced", synced), ("/flushed", 0), ("/appended", synced)] {
        let what = format!("{path} is closed");
        let is_closed = || async {
            client.try_stat(path).await.ok().flatten().filter(|status| !status.being_written)
        };
        let status = machines.cluster.until(&what, is_closed).await;
        let length = usize::try_from(status.length).unwrap();
        eprintln!("{path} has {length} of {flushed} bytes");
        assert!((least..=flushed).contains(&length), "{path} has {length} bytes");
        let reader = client.open(path).await.unwrap();
        assert!(reader.read_at(0, length).await.unwrap() == content[..length], "{path}");
        assert_eq!(
            status.digest.unwrap().to_bytes(),
            blake3::hash(&content[..length]).as_bytes()[..]
        );
    }
    let Machines { cluster, disks, .. } = machines;
    drop(cluster);
    drop(disks);
}

#[test]
fn a_power_cut_ends_flushed_files_not_before_what_was_synced_or_closed() {
    sandbox::run(sandbox::DISKS, || cut_flushed_files("defaults"));
}

/// Nothing of what was only flushed reaches a disk here.
#[test]
fn a_power_cut_of_a_lazy_file_system_ends_flushed_files_where_they_were_synced_or_closed() {
    sandbox::run(sandbox::DISKS, || cut_flushed_files("data=writeback,commit=900,noauto_da_alloc"));
}

#[test]
fn a_power_cut_takes_what_was_not_synced_and_nothing_else() {
    sandbox::run(sandbox::DISKS, || async {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let disk = Disk::ext4(folder.path().join("disk"), image, 64 << 20, "defaults");
        let path = |name: &str| disk.path().join(name);
        fs::write(path("kept"), "synced").unwrap();
        File::open(path("kept")).unwrap().sync_all().unwrap();
        let mut longer = File::options().append(true).open(path("kept")).unwrap();
        longer.write_all(b" and not synced").unwrap();
        fs::write(path("lost"), "not synced").unwrap();
        disk.cut_power();
        assert!(fs::write(path("late"), "too late").is_err());
        drop(longer);
        disk.power_on("defaults");
        assert_eq!(fs::read_to_string(path("kept")).unwrap(), "synced");
        assert!(!path("lost").exists() && !path("late").exists());
    });
}
