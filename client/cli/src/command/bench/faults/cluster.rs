//! A cluster of processes of its own, that a measurement may kill and stop. All of them end when it is dropped.

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use doldam_client::{Client, ClientConfig, ClusterReport, NodeState};
use doldam_runtime::clock::Uptime;
use rustix::process::{Pid, Signal, kill_process};

use crate::error::CommandError;
use crate::session::Session;

/// How long anything may take that has to come true before a measurement goes on.
const TRUE_WITHIN: Duration = Duration::from_mins(5);
/// Between two looks whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A server: the command that starts it, and the process while it runs.
struct Server {
    command: Command,
    child: Option<Child>,
}

impl Server {
    fn start(mut command: Command, log: &Path) -> Result<Self, CommandError> {
        let file = std::fs::File::create(log).map_err(CommandError::local("write", log))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let mut server = Self { command, child: None };
        server.restart()?;
        Ok(server)
    }

    fn restart(&mut self) -> Result<(), CommandError> {
        let program = PathBuf::from(self.command.get_program());
        let child = self.command.spawn().map_err(CommandError::local("start", program))?;
        self.child = Some(child);
        Ok(())
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Fails only if it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), CommandError> {
        let pid = self.child.as_ref().and_then(|child| Pid::from_raw(child.id().cast_signed()));
        let sent = pid.map_or(Ok(()), |pid| kill_process(pid, signal));
        sent.map_err(|cause| CommandError::local("signal", "a server")(cause.into()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a measurement does to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// `kill -9`.
    Killed,
    /// `kill -STOP`: it is there, and does nothing.
    Stopped,
}

/// A namenode and datanodes.
pub(super) struct Cluster<'a> {
    session: &'a Session,
    /// `HOST:PORT` of the namenode.
    address: String,
    namenode: Server,
    datanodes: Vec<Server>,
    folder: PathBuf,
}

impl<'a> Cluster<'a> {
    /// Starts one below `folder`, and waits until every datanode takes blocks.
    pub(super) async fn start(
        session: &'a Session,
        folder: &Path,
        datanodes: usize,
        settings: &str,
    ) -> Result<Self, CommandError> {
        let config = folder.join("config.toml");
        std::fs::write(&config, settings).map_err(CommandError::local("write", &config))?;
        let program = std::env::current_exe().map_err(CommandError::local("find", "doldam"))?;
        let command = |kind: &str, dir: &str| {
            let mut command = Command::new(&program);
            for (name, _) in std::env::vars_os() {
                if name.to_string_lossy().starts_with("DOLDAM_") {
                    command.env_remove(name);
                }
            }
            command.arg("--config").arg(&config).arg(kind).arg("--dir").arg(folder.join(dir));
            command
        };
        let mut addresses = free_addresses(datanodes + 1)?;
        let address = addresses.remove(0);
        let mut namenode = command("namenode", "namenode");
        namenode.args(["--listen", &address]);
        let namenode = Server::start(namenode, &folder.join("namenode.log"))?;
        let mut servers = Vec::new();
        for (index, listen) in addresses.iter().enumerate() {
            let name = format!("datanode-{index}");
            let mut datanode = command("datanode", &name);
            datanode.args(["--listen", listen, "--namenode", &address]);
            servers.push(Server::start(datanode, &folder.join(format!("{name}.log")))?);
        }
        let folder = folder.to_owned();
        let datanodes = servers;
        let cluster = Self { session, address, namenode, datanodes, folder };
        cluster.wait_until_live(cluster.datanodes.len()).await?;
        Ok(cluster)
    }

    /// A client of its own.
    pub(super) async fn client(&self) -> Result<Client, CommandError> {
        let config = ClientConfig { connect_timeout: TRUE_WITHIN, ..ClientConfig::default() };
        let builder = Client::builder().namenodes([&self.address]).config(config);
        builder.connect().await.map_err(CommandError::cluster("reach", &self.address))
    }

    /// The datanode that is receiving a block right now, else the first.
    pub(super) fn busy(&self) -> usize {
        let is_busy = |index: &usize| {
            let writing = self.folder.join(format!("datanode-{index}/writing"));
            std::fs::read_dir(writing).is_ok_and(|mut entries| entries.next().is_some())
        };
        (0..self.datanodes.len()).find(is_busy).unwrap_or(0)
    }

    /// Bytes of the copies that wait or run.
    pub(super) async fn to_be_copied(&self) -> Result<u64, CommandError> {
        let repair = self.client().await?.repair(0, 0).await;
        Ok(repair.map_err(CommandError::cluster("ask", &self.address))?.todo_bytes)
    }

    /// Does `fault` to a datanode.
    pub(super) fn hurt(&mut self, datanode: usize, fault: Fault) -> Result<(), CommandError> {
        match fault {
            Fault::Killed => {
                self.datanodes[datanode].kill();
                Ok(())
            }
            Fault::Stopped => self.datanodes[datanode].signal(Signal::STOP),
        }
    }

    /// Undoes it, and waits until the cluster is whole again.
    pub(super) async fn mend(&mut self, datanode: usize, fault: Fault) -> Result<(), CommandError> {
        match fault {
            Fault::Killed => self.datanodes[datanode].restart()?,
            Fault::Stopped => self.datanodes[datanode].signal(Signal::CONT)?,
        }
        self.wait_until_live(self.datanodes.len()).await?;
        self.wait_until_whole().await
    }

    /// `kill -9` of the namenode, and a new start.
    pub(super) fn restart_namenode(&mut self) -> Result<(), CommandError> {
        self.namenode.kill();
        self.namenode.restart()
    }

    /// Waits until so many datanodes are live.
    async fn wait_until_live(&self, count: usize) -> Result<(), CommandError> {
        let live = |report: &ClusterReport| {
            let live = report.datanodes.iter().filter(|node| node.node.state == NodeState::Live);
            live.count() == count
        };
        self.until("all datanodes are live", live).await.map(drop)
    }

    /// Waits until no block lacks a replica.
    pub(super) async fn wait_until_whole(&self) -> Result<(), CommandError> {
        let whole = |report: &ClusterReport| report.under_replicated + report.missing == 0;
        self.until("every block has its replicas", whole).await.map(drop)
    }

    /// Waits until nothing is copied, and nothing waits to be.
    pub(super) async fn wait_until_idle(&self) -> Result<(), CommandError> {
        let idle = |report: &ClusterReport| {
            let lacking = report.under_replicated + report.missing;
            lacking + report.repairs_running + report.repairs_waiting == 0
        };
        self.until("nothing is repaired", idle).await.map(drop)
    }

    /// Waits until a report of the namenode says so; returns when that was.
    pub(super) async fn until(
        &self,
        what: &str,
        is_true: impl Fn(&ClusterReport) -> bool,
    ) -> Result<Uptime, CommandError> {
        let client = self.client().await?;
        let deadline = self.session.now() + TRUE_WITHIN;
        while self.session.now() < deadline {
            if client.report().await.is_ok_and(|report| is_true(&report)) {
                return Ok(self.session.now());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(CommandError::Unmet {
            what: format!("not within {TRUE_WITHIN:?}: {what}"),
            next_step: format!("see the logs in {}", self.folder.display()),
        })
    }
}

/// Addresses of this machine: taken and given up again; nobody else gets them within the moment until the servers do.
fn free_addresses(count: usize) -> Result<Vec<String>, CommandError> {
    let taken: io::Result<Vec<TcpListener>> =
        (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let addresses = taken.and_then(|taken| {
        taken.iter().map(|listener| listener.local_addr().map(|it| it.to_string())).collect()
    });
    addresses.map_err(CommandError::local("listen at", "127.0.0.1"))
}
