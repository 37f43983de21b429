//! A cluster in memory: honest unless told otherwise.

pub(crate) mod admin;
pub(crate) mod datanode;
pub(crate) mod datanode_write;
pub(crate) mod namenode;
pub(crate) mod net;
pub(crate) mod state;

use std::sync::Arc;
use std::time::Duration;

use doldam_client::{Client, ClientConfig};
use doldam_proto::id::{ClusterId, NodeId};
use doldam_runtime::net::RealNet;

pub(crate) use datanode::{FakeDatanode, Fault};
pub(crate) use namenode::{Answer, FakeNamenode};
pub(crate) use net::MemoryNet;
use net::virtual_seams;
pub(crate) use state::State;

pub(crate) const CLUSTER: ClusterId = ClusterId([3; 16]);
pub(crate) const BLOCK: u64 = 128 << 10;

/// A namenode and some datanodes.
pub(crate) struct FakeCluster {
    pub(crate) state: Arc<State>,
    pub(crate) namenode: FakeNamenode,
    pub(crate) datanodes: Vec<FakeDatanode>,
    /// In which time passes only when nothing else can happen; `None`: the real world.
    virtual_net: Option<Arc<MemoryNet>>,
}

impl FakeCluster {
    pub(crate) async fn start(datanodes: u32) -> Self {
        let state = Arc::new(State::default());
        let namenode = FakeNamenode::start(Arc::clone(&state)).await;
        let mut started = Vec::new();
        for id in 1..=datanodes {
            let state = Arc::clone(&state);
            started.push(FakeDatanode::start(NodeId(id), state, &RealNet, "127.0.0.1:0").await);
        }
        Self { state, namenode, datanodes: started, virtual_net: None }
    }

    /// As [`start`](Self::start), over connections in memory, for a runtime whose time is paused.
    pub(crate) async fn start_virtual(datanodes: u32) -> Self {
        let (state, net) = (Arc::new(State::default()), Arc::new(MemoryNet::default()));
        let namenode = FakeNamenode::start_over(Arc::clone(&state), &*net).await;
        let mut started = Vec::new();
        for id in 1..=datanodes {
            let (state, address) = (Arc::clone(&state), format!("datanode{id}:1"));
            started.push(FakeDatanode::start(NodeId(id), state, &*net, &address).await);
        }
        Self { state, namenode, datanodes: started, virtual_net: Some(net) }
    }

    /// The network of a virtual cluster.
    pub(crate) fn net(&self) -> &MemoryNet {
        self.virtual_net.as_ref().unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        self.client_with(config()).await
    }

    pub(crate) async fn client_with(&self, config: ClientConfig) -> Client {
        let builder = Client::builder().namenodes([self.namenode.address()]).config(config);
        let builder = match &self.virtual_net {
            Some(net) => builder.seams(virtual_seams(Arc::clone(net))),
            None => builder,
        };
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

/// Short deadlines, so that tests of silence are quick, and no hedges: on a busy machine an honest node is late now and
/// then. They have tests in virtual time.
pub(crate) fn config() -> ClientConfig {
    ClientConfig {
        connect_timeout: Duration::from_secs(2),
        operation_timeout: Duration::from_secs(5),
        placement_timeout: Duration::from_millis(100),
        read_timeout: Duration::from_secs(1),
        write_timeout: Duration::from_secs(1),
        sync_timeout: Duration::from_secs(1),
        stall_timeout: Duration::from_millis(900),
        hedged_reads: false,
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
