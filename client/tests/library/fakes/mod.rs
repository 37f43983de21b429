//! A cluster in memory: honest unless told otherwise.

pub(crate) mod admin;
pub(crate) mod datanode;
pub(crate) mod datanode_write;
pub(crate) mod namenode;
pub(crate) mod state;

use std::sync::Arc;
use std::time::Duration;

use doldam_client::{Client, ClientConfig};
use doldam_proto::id::{ClusterId, NodeId};

pub(crate) use datanode::{FakeDatanode, Fault};
pub(crate) use namenode::{Answer, FakeNamenode};
pub(crate) use state::State;

pub(crate) const CLUSTER: ClusterId = ClusterId([3; 16]);
pub(crate) const BLOCK: u64 = 128 << 10;

/// A namenode and some datanodes.
pub(crate) struct FakeCluster {
    pub(crate) state: Arc<State>,
    pub(crate) namenode: FakeNamenode,
    pub(crate) datanodes: Vec<FakeDatanode>,
}

impl FakeCluster {
    pub(crate) async fn start(datanodes: u32) -> Self {
        let state = Arc::new(State::default());
        let namenode = FakeNamenode::start(Arc::clone(&state)).await;
        let mut started = Vec::new();
        for id in 1..=datanodes {
            started.push(FakeDatanode::start(NodeId(id), Arc::clone(&state)).await);
        }
        Self { state, namenode, datanodes: started }
    }

    pub(crate) async fn client(&self) -> Client {
        self.client_with(config()).await
    }

    pub(crate) async fn client_with(&self, config: ClientConfig) -> Client {
        let builder = Client::builder().namenodes([self.namenode.address()]).config(config);
        builder.connect().await.unwrap()
    }

    pub(crate) fn datanode(&self, id: u32) -> &FakeDatanode {
        &self.datanodes[id as usize - 1]
    }

    /// A file that is there already, as if written by somebody else; node ids in the order of reading.
    pub(crate) fn add_file(&self, path: &str, content: &[u8], block_bytes: u64, nodes: &[u32]) {
        self.state.add_file(path, content, block_bytes, nodes);
    }
}

/// Short deadlines, so that tests of silence are quick.
pub(crate) fn config() -> ClientConfig {
    ClientConfig {
        connect_timeout: Duration::from_secs(2),
        operation_timeout: Duration::from_secs(5),
        placement_timeout: Duration::from_millis(100),
        read_timeout: Duration::from_secs(1),
        write_timeout: Duration::from_secs(1),
        sync_timeout: Duration::from_secs(1),
        stall_timeout: Duration::from_millis(900),
        ..ClientConfig::default()
    }
}

/// Bytes without a pattern that a mix-up could hide behind.
pub(crate) fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

pub(crate) fn b3sum(content: &[u8]) -> String {
    blake3::hash(content).to_string()
}
