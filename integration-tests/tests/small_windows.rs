//! Things that arrive late or come back: nodes after a long absence, duplicates of old requests. Nothing is lost by
//! them, and nothing that is gone is revived.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use doldam_client::Client;
use doldam_integration_tests::cluster::Cluster;
use doldam_integration_tests::cluster::content::bytes;
use doldam_integration_tests::cluster::disk_fault::stored_bytes;
use doldam_proto::wire::client_service_client::ClientServiceClient;
use doldam_proto::wire::{DeleteRequest, MkdirRequest, RenameRequest, RequestId};
use futures::TryStreamExt;
use tokio::io::AsyncWriteExt;
use tonic::Code;
use tonic::transport::Channel;

const MIB: usize = 1 << 20;

async fn put(client: &Client, path: &str, content: &[u8]) {
    let create = client.create(path).parents(true).replication(3).block_bytes(MIB as u64);
    let mut file = create.overwrite(true).open().await.unwrap();
    file.write_all(content).await.unwrap();
    file.close().await.unwrap();
}

async fn get(client: &Client, path: &str) -> Vec<u8> {
    let reader = client.open(path).await.unwrap();
    reader.read_at(0, reader.status().length as usize + 1).await.unwrap().to_vec()
}

async fn names(client: &Client, path: &str) -> Vec<String> {
    let listed: Vec<_> = client.list(path).try_collect().await.unwrap();
    listed.into_iter().map(|entry| entry.path).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datanode_back_from_a_long_absence_loses_nothing_and_revives_nothing() {
    let mut cluster = Cluster::start(4).await;
    let client = cluster.client().await;
    for index in 0..8 {
        put(&client, &format!("/d/{index}"), &bytes(index, 2 * MIB + 17)).await;
    }
    cluster.wait_until_healed("/").await;
    let before = stored_bytes(&cluster.datanodes[0].dir);
    assert!(before > 0, "the node that leaves holds something");

    cluster.datanodes[0].server.kill();
    cluster.wait_until_live(3).await;
    cluster.wait_until_healed("/").await;
    // While it is away: deleted, replaced, moved, and new. The namenode forgets what it had in memory, too.
    client.delete("/d/0", false).await.unwrap();
    client.delete("/d/1", false).await.unwrap();
    put(&client, "/d/2", &bytes(102, MIB + 1)).await;
    client.rename("/d/3", "/d/moved", false).await.unwrap();
    put(&client, "/d/new", &bytes(103, 3 * MIB)).await;
    cluster.namenode.kill();
    cluster.namenode.restart();
    cluster.wait_until_live(3).await;

    cluster.datanodes[0].server.restart();
    cluster.wait_until_live(4).await;
    let expected: Vec<(String, Vec<u8>)> = (4..8)
        .map(|index| (index.to_string(), bytes(index, 2 * MIB + 17)))
        .chain([
            ("2".to_owned(), bytes(102, MIB + 1)),
            ("moved".to_owned(), bytes(3, 2 * MIB + 17)),
            ("new".to_owned(), bytes(103, 3 * MIB)),
        ])
        .collect();
    let wanted = 3 * expected.iter().map(|(_, content)| content.len() as u64).sum::<u64>();
    cluster
        .until("what is nobody's is dropped, and nothing else", || async {
            let stored: u64 = cluster.datanodes.iter().map(|node| stored_bytes(&node.dir)).sum();
            (stored == wanted).then_some(())
        })
        .await;
    cluster.wait_until_healed("/").await;
    assert_eq!(names(&client, "/d").await, ["2", "4", "5", "6", "7", "moved", "new"]);
    for (name, content) in expected {
        assert!(get(&client, &format!("/d/{name}")).await == content, "{name}");
    }
}

/// A client that numbers its requests itself, as a network that delays and repeats them does.
struct Raw {
    service: ClientServiceClient<Channel>,
}

impl Raw {
    async fn connect(cluster: &Cluster) -> Self {
        let address = format!("http://{}", cluster.address());
        let service = cluster
            .until("the namenode answers", || async {
                ClientServiceClient::connect(address.clone()).await.ok()
            })
            .await;
        Self { service }
    }

    fn id(sequence: u64, answered_below: u64) -> RequestId {
        let client_id = vec![7; 16].into();
        RequestId { client_id, sequence, answered_below }
    }

    async fn mkdir(
        &mut self,
        path: &str,
        sequence: u64,
        answered_below: u64,
    ) -> Result<bool, Code> {
        let request = Some(Self::id(sequence, answered_below));
        let request = MkdirRequest { request, path: path.to_owned(), parents: false };
        let answer = self.service.mkdir(request).await.map_err(|status| status.code())?;
        Ok(answer.into_inner().created)
    }

    async fn delete(&mut self, path: &str, sequence: u64) -> Result<(), Code> {
        let request = Some(Self::id(sequence, 1));
        let request = DeleteRequest { request, path: path.to_owned(), recursive: true };
        self.service.delete(request).await.map(|_| ()).map_err(|status| status.code())
    }

    async fn rename(&mut self, from: &str, to: &str, sequence: u64) -> Result<(), Code> {
        let (from, to) = (from.to_owned(), to.to_owned());
        let request = Some(Self::id(sequence, 1));
        let request = RenameRequest { request, from, to, replace: false };
        self.service.rename(request).await.map(|_| ()).map_err(|status| status.code())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_duplicate_of_a_request_never_takes_effect_again() {
    let mut cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    let mut raw = Raw::connect(&cluster).await;
    assert_eq!(raw.mkdir("/a", 1, 1).await, Ok(true));
    assert_eq!(raw.rename("/a", "/b", 2).await, Ok(()));
    assert_eq!(raw.delete("/b", 3).await, Ok(()));
    for restarted in [false, true] {
        if restarted {
            cluster.namenode.kill();
            cluster.namenode.restart();
            raw = Raw::connect(&cluster).await;
        }
        // Each gets its first answer once more, and changes nothing.
        assert_eq!(raw.delete("/b", 3).await, Ok(()));
        assert_eq!(raw.mkdir("/a", 1, 1).await, Ok(true));
        assert_eq!(raw.rename("/a", "/b", 2).await, Ok(()));
        assert_eq!(names(&client, "/").await, Vec::<String>::new(), "restarted: {restarted}");
    }
    // Once the client has said that it has the answers, a duplicate is refused instead.
    for sequence in 4..200 {
        let created = raw.mkdir(&format!("/{sequence}"), sequence, sequence).await;
        assert_eq!(created, Ok(true));
    }
    for restarted in [false, true] {
        if restarted {
            cluster.namenode.kill();
            cluster.namenode.restart();
            raw = Raw::connect(&cluster).await;
        }
        assert_eq!(raw.mkdir("/a", 1, 1).await, Err(Code::InvalidArgument));
        assert_eq!(raw.rename("/4", "/b", 2).await, Err(Code::InvalidArgument));
        assert_eq!(raw.delete("/5", 3).await, Err(Code::InvalidArgument));
    }
    let mut expected: Vec<String> = (4..200).map(|sequence| sequence.to_string()).collect();
    expected.sort();
    assert_eq!(names(&client, "/").await, expected);
}
