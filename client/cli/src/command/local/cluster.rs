//! The parts of a local cluster, started one after another under one set of tasks.

use std::io;

use doldam_datanode::{DatanodeConfig, DatanodeHandle};
use doldam_namenode::{NamenodeConfig, NamenodeHandle};
use doldam_runtime::tasks::BackgroundTasks;

use super::folder::{Addresses, Folder};
use crate::error::CommandError;
use crate::server::{self, io_kind};
use crate::session::Session;

/// Any free port of this machine; the choice is kept for next time.
const ANY_PORT: &str = "127.0.0.1:0";

/// All parts, serving.
pub(crate) struct Cluster {
    /// `HOST:PORT` of the namenode.
    pub(crate) namenode: String,
    /// `HOST:PORT` of its pages.
    pub(crate) http: Option<String>,
    /// `HOST:PORT` of each datanode.
    pub(crate) datanodes: Vec<String>,
    _namenode: NamenodeHandle,
    _datanodes: Vec<DatanodeHandle>,
    _folder: Folder,
}

impl Cluster {
    /// Starts a namenode with `namenode` and `count` datanodes where they were last time.
    ///
    /// # Errors
    /// If any part does not start; `tasks` then still runs what did.
    pub(crate) async fn start(
        session: &Session,
        folder: Folder,
        mut known: Addresses,
        mut namenode: NamenodeConfig,
        count: usize,
        tasks: &BackgroundTasks,
    ) -> Result<Self, CommandError> {
        namenode.dir = folder.namenode();
        // With fewer datanodes than replicas every file would be in debt for ever.
        namenode.default_replication = namenode.default_replication.min(count as u32);
        let started = doldam_namenode::run(namenode, session.seams.clone(), tasks).await;
        let namenode = started.map_err(|error| server::not_started("the namenode", error))?;
        let address = namenode.local_addr().to_owned();
        let mut handles = Vec::with_capacity(count);
        for index in 0..count {
            let config = DatanodeConfig {
                dirs: vec![folder.datanode(index)],
                namenodes: vec![address.clone()],
                data_threads: data_threads(session.file.datanode.data_threads, count),
                advertise: None,
                http: None,
                ..session.file.datanode.clone()
            };
            let last = known.datanodes.get(index).cloned();
            handles.push(start_datanode(session, config, last, tasks).await?);
        }
        let datanodes: Vec<String> =
            handles.iter().map(|node| node.local_addr().to_owned()).collect();
        known.namenode = Some(address.clone());
        // Those that are not started this time keep their places.
        known.datanodes.splice(..count.min(known.datanodes.len()), datanodes.iter().cloned());
        folder.keep(&known)?;
        Ok(Self {
            http: namenode.http_addr().map(ToOwned::to_owned),
            namenode: address,
            datanodes,
            _namenode: namenode,
            _datanodes: handles,
            _folder: folder,
        })
    }
}

/// Starts a datanode at its `last` address, or at any if someone else has taken that meanwhile.
async fn start_datanode(
    session: &Session,
    mut config: DatanodeConfig,
    last: Option<String>,
    tasks: &BackgroundTasks,
) -> Result<DatanodeHandle, CommandError> {
    let error = |error| server::not_started("a datanode", error);
    if let Some(last) = last {
        config.listen.clone_from(&last);
        match doldam_datanode::run(config.clone(), session.seams.clone(), tasks).await {
            Err(cause) if io_kind(&cause) == Some(io::ErrorKind::AddrInUse) => {
                session
                    .messages
                    .note(&format!("{last} is taken; a datanode moves to another port"));
            }
            started => return started.map_err(error),
        }
    }
    ANY_PORT.clone_into(&mut config.listen);
    doldam_datanode::run(config, session.seams.clone(), tasks).await.map_err(error)
}

/// All datanodes share the processors of this machine.
fn data_threads(configured: usize, datanodes: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if configured > 0 { configured } else { (cores / datanodes).max(1) }
}
