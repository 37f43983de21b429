//! Random writes, flushes, pauses and failures: what others see is always exactly what was flushed.

use std::time::Duration;

use doldam_client::{Client, ClientConfig, FileWriter};
use doldam_proto::wire::block_failure::Code;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use crate::fakes::{BLOCK, FakeCluster, Fault, b3sum, bytes, config};

const NODES: u32 = 5;

/// What the application does.
#[derive(Debug, Clone)]
enum Step {
    Write {
        bytes: usize,
    },
    Flush,
    Sync,
    /// Closes the file and opens it again to write on.
    Reopen,
    /// Every connection to this node breaks.
    Break {
        node: u32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop_oneof![1_usize..200, 60_000_usize..70_000, 1_usize..300_000]
            .prop_map(|bytes| Step::Write { bytes }),
        3 => Just(Step::Flush),
        2 => Just(Step::Sync),
        1 => Just(Step::Reopen),
        2 => (1..=NODES).prop_map(|node| Step::Break { node }),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        (0_usize..4).prop_map(|frame| Fault::Reset { frame }),
        (0_usize..4, 0..=NODES).prop_map(|(frame, node)| {
            let code = if node == 0 { Code::Disk } else { Code::Downstream };
            Fault::Fail { frame, code, node }
        }),
        Just(Fault::WrongValue),
        Just(Fault::NotDurable),
    ]
}

async fn sees(client: &Client, content: &[u8]) {
    let mut file = client.open("/f").await.unwrap();
    assert_eq!(file.status().digest.unwrap().to_string(), b3sum(content));
    let mut found = Vec::new();
    while let Some(chunk) = file.read_chunk().await.unwrap() {
        found.extend_from_slice(&chunk);
    }
    assert!(found == content, "{} bytes where {} are due", found.len(), content.len());
}

async fn run(steps: Vec<Step>, faults: Vec<(u32, Fault)>, replication: u32) {
    let cluster = FakeCluster::start(NODES).await;
    let config = ClientConfig {
        block_attempts_max: 100,
        retained_bytes_max: 9 << 20,
        stall_timeout: Duration::from_millis(20),
        ..config()
    };
    let client = cluster.client_with(config).await;
    // Reads go through another client: the faults are for writes, but one may still meet a read.
    let reader = cluster.client().await;
    let content = bytes(4_000_000);
    let create = client.create("/f").replication(replication).block_bytes(BLOCK);
    let mut file: FileWriter = create.open().await.unwrap();
    for (node, fault) in faults {
        cluster.datanode(node).next_fails(fault);
    }
    for step in steps {
        let written = file.length() as usize;
        match step {
            Step::Write { bytes } => {
                let end = (written + bytes).min(content.len());
                file.write_all(&content[written..end]).await.unwrap();
                continue;
            }
            Step::Flush => file.flush().await.unwrap(),
            Step::Sync => file.sync().await.unwrap(),
            Step::Reopen => {
                file.close().await.unwrap();
                file = client.append("/f").open().await.unwrap();
                assert_eq!(file.length(), written as u64);
            }
            Step::Break { node } => {
                cluster.datanode(node).break_connections();
                continue;
            }
        }
        sees(&reader, &content[..written]).await;
    }
    let written = file.length() as usize;
    file.close().await.unwrap();
    sees(&reader, &content[..written]).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn what_is_seen_is_what_was_flushed_whatever_fails(
        steps in proptest::collection::vec(step(), 1..16),
        faults in proptest::collection::vec((1..=NODES, fault()), 0..5),
        replication in 2_u32..4,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(run(steps, faults, replication));
    }
}
