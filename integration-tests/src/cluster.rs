//! A cluster of real processes on this machine, in a folder of its own, that a test may hurt as it likes.
//!
//! Nothing here waits a fixed time: whatever must come true is asked for again and again until a deadline, and what
//! the servers wrote is printed when it does not. All processes end when the [`Cluster`] is dropped.
//!
//! * [`process`]: one server: start, stop, `kill -9`, its log.
//! * [`port`]: ports that no other test takes.
//! * [`disk_fault`]: what is stored where, and flipping bits of it.
//! * [`content`]: bytes that can be told from each other.

pub mod content;
pub mod disk_fault;
pub mod port;
pub mod process;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use doldam_client::{BlockHealth, Client, ClusterReport, FsckFile, NodeState};
use futures::TryStreamExt;
use tempfile::TempDir;
use tokio::time::timeout;

use port::ReservedPort;
use process::Server;

/// Longest wait for anything that takes the cluster a few seconds at most; generous, since machines are busy.
pub const DEADLINE: Duration = Duration::from_secs(90);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Timings of the test clusters: short, but with room for a busy machine.
const SETTINGS: &str = "\
[namenode]
heartbeat = \"250ms\"
suspect_after = \"2s\"
dead_after = \"4s\"
";

/// A datanode: its server, its folder and its address, whether it runs or not.
#[derive(Debug)]
pub struct Datanode {
    /// The process.
    pub server: Server,
    /// Its one data folder.
    pub dir: PathBuf,
    /// `HOST:PORT` of its block stream server.
    pub address: String,
    _port: ReservedPort,
}

/// One namenode and some datanodes.
#[derive(Debug)]
pub struct Cluster {
    /// The namenode's process.
    pub namenode: Server,
    /// All datanodes ever added, in order.
    pub datanodes: Vec<Datanode>,
    address: String,
    _port: ReservedPort,
    settings: PathBuf,
    dir: TempDir,
}

impl Cluster {
    /// Starts a namenode and `datanodes` datanodes in one rack, and waits until all are live.
    pub async fn start(datanodes: usize) -> Self {
        Self::start_in_racks(&vec!["/r1"; datanodes]).await
    }

    /// As [`start`](Self::start), a datanode in each of `racks`.
    pub async fn start_in_racks(racks: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("doldam-test-").tempdir().unwrap();
        let settings = dir.path().join("config.toml");
        std::fs::write(&settings, SETTINGS).unwrap();
        let port = ReservedPort::take();
        let address = format!("127.0.0.1:{}", port.number());
        let mut command = server_command("namenode", &settings);
        command.arg("--dir").arg(dir.path().join("namenode")).args(["--listen", &address]);
        let namenode = Server::start("namenode", command, &dir.path().join("namenode.log"));
        let datanodes = Vec::new();
        let mut cluster = Self { namenode, datanodes, address, _port: port, settings, dir };
        for rack in racks {
            cluster.add_datanode(rack);
        }
        cluster.wait_until_live(racks.len()).await;
        cluster
    }

    /// Starts one more datanode, without waiting for it; returns its index.
    pub fn add_datanode(&mut self, rack: &str) -> usize {
        let index = self.datanodes.len();
        let port = ReservedPort::take();
        let address = format!("127.0.0.1:{}", port.number());
        let dir = self.dir.path().join(format!("datanode-{index}"));
        let mut command = server_command("datanode", &self.settings);
        command.arg("--dir").arg(&dir).args(["--listen", &address, "--rack", rack]);
        command.args(["--namenode", &self.address]);
        let log = self.dir.path().join(format!("datanode-{index}.log"));
        let server = Server::start(&format!("datanode-{index}"), command, &log);
        self.datanodes.push(Datanode { server, dir, address, _port: port });
        index
    }

    /// `HOST:PORT` of the namenode.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A folder for the files of the test.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// A client of its own; panics if the namenode does not answer.
    pub async fn client(&self) -> Client {
        self.until("the namenode answers", || async { Client::connect(&self.address).await.ok() })
            .await
    }

    /// Runs `doldam` with `arguments` against this cluster, to its end.
    pub fn doldam<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> Output {
        let mut command = Command::new(process::binary());
        command.args(["--namenode", &self.address]).args(arguments);
        process::clean_environment(&mut command).output().unwrap()
    }

    /// As [`doldam`](Self::doldam); panics unless it exits with 0, and returns what it printed.
    pub fn doldam_ok<S: AsRef<std::ffi::OsStr> + std::fmt::Debug>(
        &self,
        arguments: &[S],
    ) -> String {
        let output = self.doldam(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "doldam {arguments:?}: {}\n{errors}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// What the namenode reports, or `None` while it does not answer.
    pub async fn report(&self) -> Option<ClusterReport> {
        let client = Client::connect(&self.address).await.ok()?;
        client.report().await.ok()
    }

    /// Waits until exactly `count` datanodes are live.
    pub async fn wait_until_live(&self, count: usize) {
        self.until(&format!("{count} datanodes are live"), || async {
            let report = self.report().await?;
            (live(&report) == count).then_some(())
        })
        .await;
    }

    /// What `fsck` finds under `path`, each file with all its blocks.
    pub async fn fsck(&self, path: &str) -> Option<Vec<FsckFile>> {
        let client = Client::connect(&self.address).await.ok()?;
        client.fsck(path, false).try_collect().await.ok()
    }

    /// Waits until every block under `path` has all its replicas, good and on live nodes, and none too many.
    pub async fn wait_until_healed(&self, path: &str) -> Vec<FsckFile> {
        let what = format!("everything under {path} has its replicas");
        self.until(&what, || async {
            self.fsck(path).await.filter(|files| files.iter().all(is_whole))
        })
        .await
    }

    /// Asks `question` again and again until it has an answer; panics with all logs if it has none in time.
    pub async fn until<T, F: Future<Output = Option<T>>>(
        &self,
        what: &str,
        mut question: impl FnMut() -> F,
    ) -> T {
        let answer = timeout(DEADLINE, async {
            loop {
                if let Some(answer) = question().await {
                    return answer;
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        });
        let Ok(answer) = answer.await else {
            panic!("not within {DEADLINE:?}: {what}{}", self.state().await)
        };
        answer
    }

    /// Index of the datanode at `address`.
    pub fn index_of(&self, address: &str) -> usize {
        self.datanodes.iter().position(|node| node.address == address).unwrap()
    }

    /// For a failed test: what the namenode reports and what each server wrote last.
    async fn state(&self) -> String {
        let report = timeout(Duration::from_secs(5), self.report()).await.ok().flatten();
        let findings = timeout(Duration::from_secs(5), self.fsck("/")).await.ok().flatten();
        let findings: Vec<FsckFile> = findings
            .unwrap_or_default()
            .into_iter()
            .filter(|file| !is_whole(file))
            .take(3)
            .collect();
        format!("\nreport: {report:#?}\nnot whole: {findings:#?}")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for server in self.datanodes.iter().map(|node| &node.server).chain([&self.namenode]) {
                server.print_log();
            }
        }
    }
}

/// How many datanodes of a report are live.
pub fn live(report: &ClusterReport) -> usize {
    report.datanodes.iter().filter(|node| node.node.state == NodeState::Live).count()
}

/// Whether each block has exactly the replicas it should have, all good and on live nodes.
pub fn is_whole(file: &FsckFile) -> bool {
    let blocks_are_whole = file.blocks.iter().all(|block| {
        block.health == BlockHealth::Healthy
            && block.bad_replicas.is_empty()
            && block.live == file.replication
            && block.replicas.len() == file.replication as usize
    });
    file.health == BlockHealth::Healthy && blocks_are_whole
}

fn server_command(kind: &str, settings: &Path) -> Command {
    let mut command = Command::new(process::binary());
    command.arg("--config").arg(settings).arg(kind);
    process::clean_environment(&mut command);
    command
}
