//! Wall clocks that jump, in both directions, under a cluster that runs in this process: they are for people, and
//! decide nothing.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use doldam_client::{Client, NodeState};
use doldam_datanode::DatanodeConfig;
use doldam_integration_tests::cluster::DEADLINE;
use doldam_integration_tests::cluster::content::bytes;
use doldam_namenode::NamenodeConfig;
use doldam_runtime::Seams;
use doldam_runtime::clock::{Clock, SystemClock, Uptime};
use doldam_runtime::tasks::BackgroundTasks;
use tokio::io::AsyncWriteExt;

const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;
const NOW_MS: u64 = 57 * YEAR_MS;

/// Monotonic time as it is, wall time as a test says.
#[derive(Default)]
struct JumpingClock {
    monotonic: SystemClock,
    wall_ms: AtomicU64,
}

impl Clock for JumpingClock {
    fn now(&self) -> Uptime {
        self.monotonic.now()
    }

    fn wall_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::Relaxed)
    }
}

struct InProcess {
    tasks: BackgroundTasks,
    address: String,
}

/// Starts a namenode and three datanodes over the folders below `dir`.
async fn start(dir: &Path, seams: &Seams) -> InProcess {
    let tasks = BackgroundTasks::default();
    let listen = "127.0.0.1:0".to_owned();
    let config = NamenodeConfig {
        dir: dir.join("namenode"),
        listen: listen.clone(),
        ..NamenodeConfig::default()
    };
    let namenode = doldam_namenode::run(config, seams.clone(), &tasks).await.unwrap();
    let address = namenode.local_addr().to_owned();
    for index in 0..3 {
        let config = DatanodeConfig {
            dirs: vec![dir.join(format!("datanode-{index}"))],
            listen: listen.clone(),
            namenodes: vec![address.clone()],
            data_threads: 1,
            ..DatanodeConfig::default()
        };
        let datanode = doldam_datanode::run(config, seams.clone(), &tasks).await.unwrap();
        tokio::time::timeout(DEADLINE, datanode.registered()).await.unwrap();
    }
    InProcess { tasks, address }
}

impl InProcess {
    async fn client(&self) -> Client {
        Client::connect(&self.address).await.unwrap()
    }

    async fn stop(self) {
        self.tasks.shutdown(DEADLINE).await.unwrap();
    }
}

/// Waits until the namenode says that so much time has passed for it.
async fn wait_for_namenode_to_age(client: &Client, by_ms: u64) {
    let started = client.report().await.unwrap().uptime_ms;
    while client.report().await.unwrap().uptime_ms < started + by_ms {
        tokio::task::yield_now().await;
    }
}

async fn all_are_live(client: &Client) -> bool {
    let report = client.report().await.unwrap();
    report.datanodes.iter().all(|node| node.node.state == NodeState::Live)
}

async fn put(client: &Client, path: &str, content: &[u8]) {
    let mut file = client.create(path).overwrite(true).open().await.unwrap();
    file.write_all(content).await.unwrap();
    file.close().await.unwrap();
}

async fn get(client: &Client, path: &str) -> Vec<u8> {
    let reader = client.open(path).await.unwrap();
    reader.read_at(0, 1 << 22).await.unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn wall_clocks_that_jump_end_no_lease_kill_no_node_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(JumpingClock::default());
    clock.wall_ms.store(NOW_MS, Ordering::Relaxed);
    let seams = Seams { clock: Arc::<JumpingClock>::clone(&clock), ..Seams::system() };
    let content = |seed| bytes(seed, (1 << 20) + 13);

    let mut cluster = start(dir.path(), &seams).await;
    let mut client = cluster.client().await;
    put(&client, "/before", &content(0)).await;
    // Ten years ahead, before the epoch, and back: each while a file is being written.
    let jumps = [NOW_MS + 10 * YEAR_MS, 0, NOW_MS, u64::MAX / 2, 1];
    for (index, jump) in (1_u64..).zip(jumps) {
        let path = format!("/file-{index}");
        let mut file = client.create(&path).open().await.unwrap();
        file.write_all(&content(index)[..70_000]).await.unwrap();
        clock.wall_ms.store(jump, Ordering::Relaxed);
        // The namenode looks at leases and liveness ten times a second, on its monotonic clock.
        wait_for_namenode_to_age(&client, 1000).await;
        assert!(all_are_live(&client).await, "after a jump to {jump}");
        file.write_all(&content(index)[70_000..]).await.unwrap();
        file.close().await.unwrap();
        client.rename(&path, &format!("/renamed-{index}"), false).await.unwrap();

        // The namenode's next run starts with this clock, and has everything.
        cluster.stop().await;
        cluster = start(dir.path(), &seams).await;
        client = cluster.client().await;
        assert!(get(&client, "/before").await == content(0));
        for earlier in 1..=index {
            assert!(get(&client, &format!("/renamed-{earlier}")).await == content(earlier));
        }
    }
    cluster.stop().await;
}
