//! A cluster of real processes on this machine, in a folder of its own, that a test may hurt as it likes.
//!
//! Nothing here waits a fixed time: whatever must come true is asked for again and again until a deadline, and what
//! the servers wrote is printed when it does not. All processes end when the [`Cluster`] is dropped.
//!
//! * [`layout`]: what a cluster is like before it starts.
//! * [`process`]: one server: start, stop, `kill -9`, its log.
//! * [`port`]: ports that no other test takes.
//! * [`disk_fault`]: what is stored where, and flipping bits of it.
//! * [`content`]: bytes that can be told from each other.
//! * [`midway`]: to disturb a transfer when it has come far enough.
//! * [`sandbox`]: a test in a world of its own, whose mounts and networks end with it.
//! * [`mount`]: small disks, disks that fill up, disks that lose power.
//! * [`network`]: hosts of their own, and the wires between them, to be cut one by one.
//! * [`relay`]: a wire that is slow or silent, without any privilege.

pub mod content;
pub mod disk_fault;
pub mod layout;
pub mod midway;
pub mod mount;
pub mod network;
pub mod port;
pub mod process;
pub mod relay;
pub mod sandbox;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use doldam_client::{BlockHealth, Client, ClusterReport, FsckFile, NodeState};
use futures::TryStreamExt;
use tempfile::TempDir;
use tokio::time::timeout;

use layout::Layout;
use network::{Host, Network};
use port::ReservedPort;
use process::Server;

/// Longest wait for anything that takes the cluster a few seconds at most; generous, since machines are busy.
pub const DEADLINE: Duration = Duration::from_secs(90);
/// Between two looks whether something has come true.
pub const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A datanode: its server, its folders and its address, whether it runs or not.
#[derive(Debug)]
pub struct Datanode {
    /// The process.
    pub server: Server,
    /// Its first data folder, and the only one unless the [`Layout`] says otherwise.
    pub dir: PathBuf,
    /// All its data folders.
    pub dirs: Vec<PathBuf>,
    /// `HOST:PORT` of its block stream server.
    pub address: String,
    _port: Option<ReservedPort>,
}

/// One namenode and some datanodes.
#[derive(Debug)]
pub struct Cluster {
    /// The namenode's process.
    pub namenode: Server,
    /// All datanodes ever added, in order.
    pub datanodes: Vec<Datanode>,
    /// The network they are in, if they are not all on loopback.
    pub network: Option<Network>,
    address: String,
    _port: Option<ReservedPort>,
    settings: PathBuf,
    datanode_dirs: Vec<Vec<PathBuf>>,
    dir: TempDir,
}

impl Cluster {
    /// Starts a namenode and `datanodes` datanodes in one rack, and waits until all are live.
    pub async fn start(datanodes: usize) -> Self {
        Self::start_as(Layout::new(datanodes)).await
    }

    /// As [`start`](Self::start), a datanode in each of `racks`.
    pub async fn start_in_racks(racks: &[&str]) -> Self {
        Self::start_as(Layout::in_racks(racks)).await
    }

    /// As [`start`](Self::start), in all detail.
    pub async fn start_as(layout: Layout) -> Self {
        let dir = tempfile::Builder::new().prefix("doldam-test-").tempdir().unwrap();
        let settings = dir.path().join("config.toml");
        std::fs::write(&settings, &layout.settings).unwrap();
        let network = layout.network;
        let (address, port) = place(network.as_ref(), Host::Namenode);
        let mut command = server_command(network.as_ref(), Host::Namenode, "namenode", &settings);
        let namenode_dir = layout.namenode_dir.unwrap_or_else(|| dir.path().join("namenode"));
        command.arg("--dir").arg(namenode_dir).args(["--listen", &address]);
        let namenode = Server::start("namenode", command, &dir.path().join("namenode.log"));
        let (datanodes, datanode_dirs) = (Vec::new(), layout.datanode_dirs);
        let mut cluster = Self {
            namenode,
            datanodes,
            network,
            address,
            _port: port,
            settings,
            datanode_dirs,
            dir,
        };
        for rack in &layout.racks {
            cluster.add_datanode(rack);
        }
        cluster.wait_until_live(layout.racks.len()).await;
        cluster
    }

    /// Starts one more datanode, without waiting for it; returns its index.
    pub fn add_datanode(&mut self, rack: &str) -> usize {
        let index = self.datanodes.len();
        let namenode = self.address.clone();
        self.add_datanode_with(rack, &namenode, None);
        index
    }

    /// As [`add_datanode`](Self::add_datanode), one that finds the namenode at `namenode`; others are told to find it
    /// where `advertise` says, given its own address.
    pub fn add_datanode_with(
        &mut self,
        rack: &str,
        namenode: &str,
        advertise: Option<&mut dyn FnMut(&str) -> String>,
    ) {
        let index = self.datanodes.len();
        let host = Host::Datanode(index);
        let (listen, port) = place(self.network.as_ref(), host);
        let address = advertise.map_or_else(|| listen.clone(), |advertise| advertise(&listen));
        let name = format!("datanode-{index}");
        let usual = vec![self.dir.path().join(&name)];
        let dirs = self.datanode_dirs.get(index).cloned().unwrap_or(usual);
        let mut command = server_command(self.network.as_ref(), host, "datanode", &self.settings);
        for dir in &dirs {
            command.arg("--dir").arg(dir);
        }
        command.args(["--listen", &listen, "--advertise", &address, "--rack", rack]);
        command.args(["--namenode", namenode]);
        let log = self.dir.path().join(format!("{name}.log"));
        let server = Server::start(&name, command, &log);
        let dir = dirs[0].clone();
        self.datanodes.push(Datanode { server, dir, dirs, address, _port: port });
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

/// Where a server listens.
fn place(network: Option<&Network>, host: Host) -> (String, Option<ReservedPort>) {
    if let Some(network) = network {
        return (network.address(host), None);
    }
    let port = ReservedPort::take();
    (format!("127.0.0.1:{}", port.number()), Some(port))
}

fn server_command(network: Option<&Network>, host: Host, kind: &str, settings: &Path) -> Command {
    let mut command = match network {
        Some(network) => network.command(host, process::binary()),
        None => Command::new(process::binary()),
    };
    command.arg("--config").arg(settings).arg(kind);
    process::clean_environment(&mut command);
    command
}
