//! The link against a namenode that is played by the test, over real gRPC.

use std::collections::VecDeque;
use std::pin::Pin;

use doldam_proto::digest::ChainingValue;
use doldam_proto::fingerprint::{Fingerprint, bucket_of};
use doldam_proto::wire::datanode_service_server::{DatanodeService, DatanodeServiceServer};
use doldam_proto::wire::order::Kind;
use doldam_proto::wire::{DatanodeMessage, NamenodeMessage, RegisterRequest, RegisterResponse};
use doldam_runtime::Seams;
use doldam_runtime::clock::ManualClock;
use doldam_runtime::net::{Net, RealNet};
use doldam_runtime::tasks::BackgroundTasks;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio_stream::Stream;
use tonic::service::Routes;
use tonic::{Response, Streaming};

use super::*;
use crate::config::DatanodeConfig;
use crate::engine::replica::ReplicaKey;
use crate::testing::cluster::{CLUSTER, LONG, TestNode, key};
use crate::testing::{bytes, open_store, store_block, tree_of};
use crate::{DatanodeHandle, run};

/// A stream of heartbeats as the namenode sees it.
struct Conversation {
    heard: Streaming<DatanodeMessage>,
    say: mpsc::Sender<Result<NamenodeMessage, Status>>,
}

/// A namenode that does what the test says.
struct FakeNamenode {
    address: String,
    registered: mpsc::Receiver<RegisterRequest>,
    conversations: mpsc::Receiver<Conversation>,
    answers: Arc<Mutex<VecDeque<Result<RegisterResponse, Status>>>>,
    tasks: BackgroundTasks,
}

struct Service {
    registered: mpsc::Sender<RegisterRequest>,
    conversations: mpsc::Sender<Conversation>,
    answers: Arc<Mutex<VecDeque<Result<RegisterResponse, Status>>>>,
}

fn welcome(epoch: u64) -> RegisterResponse {
    RegisterResponse { cluster_id: CLUSTER.to_bytes(), node_id: 5, epoch, heartbeat_ms: 30 }
}

#[tonic::async_trait]
impl DatanodeService for Service {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        self.registered.send(request.into_inner()).await.unwrap();
        self.answers.lock().pop_front().unwrap_or_else(|| Ok(welcome(1))).map(Response::new)
    }

    type HeartbeatStream =
        Pin<Box<dyn Stream<Item = Result<NamenodeMessage, Status>> + Send + 'static>>;

    async fn heartbeat(
        &self,
        request: Request<Streaming<DatanodeMessage>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let (say, said) = mpsc::channel(8);
        let conversation = Conversation { heard: request.into_inner(), say };
        self.conversations.send(conversation).await.unwrap();
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(said))))
    }
}

impl FakeNamenode {
    async fn start(answers: Vec<Result<RegisterResponse, Status>>) -> Self {
        let listener = RealNet.bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (registered_in, registered) = mpsc::channel(100);
        let (conversations_in, conversations) = mpsc::channel(100);
        let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
        let service = Service {
            registered: registered_in,
            conversations: conversations_in,
            answers: Arc::clone(&answers),
        };
        let tasks = BackgroundTasks::default();
        let routes = Routes::new(DatanodeServiceServer::new(service));
        let connections = tasks.clone();
        tasks.spawn("fake namenode", async move {
            grpc::serve(routes, listener, Duration::ZERO, &connections).await;
        });
        Self { address, registered, conversations, answers, tasks }
    }

    async fn next_registration(&mut self) -> RegisterRequest {
        soon(self.registered.recv()).await.unwrap()
    }

    async fn next_conversation(&mut self) -> Conversation {
        soon(self.conversations.recv()).await.unwrap()
    }
}

impl Drop for FakeNamenode {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Conversation {
    async fn next(&mut self) -> DatanodeMessage {
        soon(self.heard.message()).await.unwrap().expect("the stream goes on")
    }

    /// The next message of which `wanted` makes something.
    async fn until<T>(&mut self, wanted: impl Fn(&DatanodeMessage) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(&self.next().await) {
                return found;
            }
        }
    }

    async fn order(&self, epoch: u64, orders: Vec<(u64, Kind)>) {
        let orders = orders
            .into_iter()
            .map(|(order_id, kind)| wire::Order { order_id, deadline_ms: 20_000, kind: Some(kind) })
            .collect();
        self.say.send(Ok(NamenodeMessage { epoch, orders })).await.unwrap();
    }

    async fn result_of(&mut self, order: u64) -> wire::OrderResult {
        let of = |message: &DatanodeMessage| {
            message.results.iter().find(|result| result.order_id == order).cloned()
        };
        self.until(of).await
    }
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("it never came")
}

struct Datanode {
    handle: DatanodeHandle,
    dir: TempDir,
    tasks: BackgroundTasks,
}

async fn start_in(dir: TempDir, namenodes: &[&FakeNamenode]) -> Datanode {
    start_with(Seams::system(), dir, namenodes).await
}

async fn start_with(seams: Seams, dir: TempDir, namenodes: &[&FakeNamenode]) -> Datanode {
    let tasks = BackgroundTasks::default();
    let config = DatanodeConfig {
        dirs: vec![dir.path().into()],
        listen: "127.0.0.1:0".to_owned(),
        namenodes: namenodes.iter().map(|namenode| namenode.address.clone()).collect(),
        data_threads: 1,
        ..Default::default()
    };
    let handle = run(config, seams, &tasks).await.unwrap();
    Datanode { handle, dir, tasks }
}

async fn start(namenode: &FakeNamenode) -> Datanode {
    start_in(tempfile::tempdir().unwrap(), &[namenode]).await
}

/// A folder with replicas 1 to `count`.
fn folder_with(count: u64) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = open_store(Arc::new(doldam_runtime::disk::RealDisk), &[dir.path()]);
    for block in 1..=count {
        store_block(&store, key(block), &bytes(1000 + block as usize), true);
    }
    dir
}

impl Drop for Datanode {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

impl Datanode {
    async fn stop(self) -> TempDir {
        self.tasks.shutdown(LONG).await.unwrap();
        std::mem::replace(&mut { self }.dir, tempfile::tempdir().unwrap())
    }
}

fn replica_id(block: u64) -> doldam_proto::fingerprint::ReplicaId {
    let ReplicaKey { block, generation } = key(block);
    doldam_proto::fingerprint::ReplicaId { block, generation, length: 1000 + block.0 }
}

#[tokio::test]
async fn a_node_joins_once_and_keeps_its_name_and_cluster() {
    let mut namenode = FakeNamenode::start(vec![]).await;
    let datanode = start(&namenode).await;
    let first = namenode.next_registration().await;
    assert_eq!((first.protocol_version, first.cluster_id.len()), (PROTOCOL_VERSION, 0));
    assert_eq!(first.address, datanode.handle.local_addr());
    assert_eq!(soon(datanode.handle.registered()).await, NodeId(5));
    assert_eq!(datanode.handle.cluster(), Some(CLUSTER));

    let dir = datanode.stop().await;
    let datanode = start_in(dir, &[&namenode]).await;
    let again = namenode.next_registration().await;
    assert_eq!((again.node_uuid, again.cluster_id), (first.node_uuid, CLUSTER.to_bytes()));
    drop(datanode);
}

#[tokio::test]
async fn heartbeats_tell_what_is_held() {
    let mut namenode = FakeNamenode::start(vec![]).await;
    let datanode = start_in(folder_with(3), &[&namenode]).await;
    let mut stream = namenode.next_conversation().await;
    let (one, two) = (stream.next().await, stream.next().await);
    assert_eq!((one.node_id, one.epoch, one.replica_count), (5, 1, 3));
    assert_eq!((one.sequence, two.sequence), (1, 2));
    let mut expected = Fingerprint::default();
    (1..=3).for_each(|block| expected.add(&replica_id(block)));
    assert_eq!(one.fingerprint[..], expected.to_bytes());
    let [volume] = &one.volumes[..] else { panic!("{:?}", one.volumes) };
    assert_eq!((volume.used, volume.failed), (3006, false));
    assert!(volume.capacity > 0 && volume.available <= volume.capacity);
    drop(datanode);
}

#[tokio::test]
async fn buckets_and_listings_are_reported_when_asked_for() {
    let mut namenode = FakeNamenode::start(vec![]).await;
    let datanode = start_in(folder_with(3), &[&namenode]).await;
    let mut stream = namenode.next_conversation().await;
    stream.order(1, vec![(7, Kind::ReportBuckets(wire::ReportBuckets {}))]).await;
    let buckets =
        stream.until(|message| message.buckets_answered.then(|| message.buckets.clone())).await;
    let expected: Vec<_> = (1..=3)
        .map(|block| {
            let mut sum = Fingerprint::default();
            sum.add(&replica_id(block));
            let hash = sum.to_bytes().to_vec().into();
            wire::BucketHash { bucket: bucket_of(key(block).block), hash }
        })
        .collect();
    assert_eq!(buckets, expected);

    let list = wire::ListBuckets { buckets: vec![2, 900] };
    stream.order(1, vec![(8, Kind::ListBuckets(list))]).await;
    let listings = stream
        .until(|message| (!message.listings.is_empty()).then(|| message.listings.clone()))
        .await;
    let entry = wire::ReplicaEntry { block_id: 2, generation: 1, length: 1002 };
    assert_eq!(
        listings,
        [
            wire::BucketListing { bucket: 2, replicas: vec![entry] },
            wire::BucketListing { bucket: 900, replicas: vec![] },
        ]
    );
    drop(datanode);
}

#[tokio::test]
async fn a_drop_order_removes_only_what_it_names_and_is_reported() {
    let mut namenode = FakeNamenode::start(vec![]).await;
    let datanode = start_in(folder_with(2), &[&namenode]).await;
    let mut stream = namenode.next_conversation().await;
    let drop_order = |block_id, generation| {
        Kind::Drop(wire::DropOrder { block_id, generation, only_bad: false })
    };
    stream.order(1, vec![(1, drop_order(1, 9)), (2, drop_order(2, 1))]).await;
    let event = stream.until(|message| message.events.first().cloned()).await;
    let expected = (2, 1, wire::replica_event::Kind::Dropped);
    assert_eq!((event.block_id, event.generation, event.kind()), expected);
    let count = stream.until(|message| (message.replica_count == 1).then_some(1)).await;
    assert_eq!(count, 1);
    let folder = datanode.dir.path().join("blocks");
    assert!(folder.join("01/0000000000000001_1_1001.data").exists());
    assert!(!folder.join("02/0000000000000002_1_1002.data").exists());
}

#[tokio::test]
async fn a_verify_order_finds_what_differs_from_the_namenodes_value() {
    let mut namenode = FakeNamenode::start(vec![]).await;
    let datanode = start_in(folder_with(2), &[&namenode]).await;
    let mut stream = namenode.next_conversation().await;
    let verify = |block_id: u64, chaining_value: ChainingValue| {
        Kind::Verify(wire::VerifyOrder {
            block_id,
            generation: 1,
            length: 1000 + block_id,
            chaining_value: chaining_value.to_bytes(),
        })
    };
    let value = |block: usize| tree_of(0, &bytes(1000 + block)).1.chaining_value;
    stream.order(1, vec![(1, verify(1, value(1)))]).await;
    assert!(stream.result_of(1).await.done);
    stream.order(1, vec![(2, verify(2, ChainingValue([1; 32])))]).await;
    let event = stream.until(|message| message.events.first().cloned()).await;
    assert_eq!((event.block_id, event.kind()), (2, wire::replica_event::Kind::Bad));
    assert!(event.what.contains("committed"), "{}", event.what);
    // Bad, but still held: until the namenode orders it dropped.
    assert_eq!(stream.next().await.replica_count, 2);
    drop(datanode);
}

#[tokio::test]
async fn a_copy_order_reaches_its_target() {
    let mut namenode = FakeNamenode::start(vec![]).await;
    let datanode = start_in(folder_with(1), &[&namenode]).await;
    let mut stream = namenode.next_conversation().await;
    let target = TestNode::start(8).await;
    let copy = wire::CopyOrder {
        block_id: 1,
        generation: 1,
        length: 1001,
        chaining_value: tree_of(0, &bytes(1001)).1.chaining_value.to_bytes(),
        file_offset: 0,
        block_bytes: 1 << 20,
        targets: vec![target.address().into()],
    };
    stream.order(1, vec![(1, Kind::Copy(copy.clone()))]).await;
    let result = stream.result_of(1).await;
    assert!(result.done, "{result:?}");
    target.store.verify(key(1), None).unwrap();

    let unknown = wire::CopyOrder { block_id: 77, ..copy.clone() };
    let senseless = wire::CopyOrder { length: 0, ..copy };
    stream.order(1, vec![(2, Kind::Copy(unknown)), (3, Kind::Copy(senseless))]).await;
    let mut failed = Vec::new();
    while failed.len() < 2 {
        failed.extend(stream.next().await.results);
    }
    assert!(failed.iter().all(|result| !result.done), "{failed:?}");
    drop(datanode);
}

#[tokio::test]
async fn orders_of_an_earlier_epoch_are_refused() {
    let mut namenode = FakeNamenode::start(vec![Ok(welcome(4))]).await;
    let datanode = start_in(folder_with(1), &[&namenode]).await;
    let mut stream = namenode.next_conversation().await;
    let drop_order = Kind::Drop(wire::DropOrder { block_id: 1, generation: 1, only_bad: false });
    stream.order(3, vec![(1, drop_order)]).await;
    let result = stream.result_of(1).await;
    assert!(!result.done && result.error.contains("epoch"), "{result:?}");
    assert_eq!(stream.next().await.replica_count, 1);
    drop(datanode);
}

#[tokio::test]
async fn after_a_broken_stream_the_node_registers_again_and_repeats_its_last_news() {
    let mut namenode = FakeNamenode::start(vec![Ok(welcome(1)), Ok(welcome(2))]).await;
    let datanode = start_in(folder_with(2), &[&namenode]).await;
    let mut stream = namenode.next_conversation().await;
    let drop_order = Kind::Drop(wire::DropOrder { block_id: 2, generation: 1, only_bad: false });
    stream.order(1, vec![(1, drop_order)]).await;
    stream.until(|message| message.events.first().cloned()).await;
    drop(stream);

    let mut stream = namenode.next_conversation().await;
    let repeated = stream
        .until(|message| message.events.first().map(|event| (message.epoch, event.block_id)))
        .await;
    assert_eq!(repeated, (2, 2));
    assert_eq!(namenode.registered.len(), 2);
    drop(datanode);
}

#[tokio::test]
async fn replicas_found_bad_are_reported_at_every_registration() {
    let dir = folder_with(1);
    std::fs::remove_file(dir.path().join("blocks/01/0000000000000001_1_1001.side")).unwrap();
    let mut namenode = FakeNamenode::start(vec![]).await;
    let datanode = start_in(dir, &[&namenode]).await;
    for _ in 0..2 {
        let mut stream = namenode.next_conversation().await;
        let event = stream.until(|message| message.events.first().cloned()).await;
        assert_eq!((event.block_id, event.kind()), (1, wire::replica_event::Kind::Bad));
    }
    drop(datanode);
}

#[tokio::test]
async fn what_may_go_is_told_again_now_and_then_while_the_stream_lives() {
    let dir = folder_with(1);
    std::fs::remove_file(dir.path().join("blocks/01/0000000000000001_1_1001.side")).unwrap();
    std::fs::write(dir.path().join("writing/0000000000000002_1@0.data"), bytes(70_000)).unwrap();
    let mut namenode = FakeNamenode::start(vec![]).await;
    let clock = Arc::new(ManualClock::default());
    let seams = Seams { clock: Arc::<ManualClock>::clone(&clock), ..Seams::system() };
    let datanode = start_with(seams, dir, &[&namenode]).await;
    let mut stream = namenode.next_conversation().await;
    for _ in 0..2 {
        let kinds = |message: &DatanodeMessage| {
            let mut kinds: Vec<_> = message.events.iter().map(wire::ReplicaEvent::kind).collect();
            kinds.sort_unstable_by_key(|kind| *kind as i32);
            (!kinds.is_empty()).then_some(kinds)
        };
        let told = stream.until(kinds).await;
        assert_eq!(told, [wire::replica_event::Kind::Bad, wire::replica_event::Kind::Open]);
        clock.advance(Duration::from_mins(1));
    }
    drop(datanode);
}

/// A folder with the first 70,000 bytes of block 1, as a writer left them that was killed.
fn folder_with_open_block() -> (TempDir, Vec<u8>) {
    let (dir, content) = (folder_with(0), bytes(70_000));
    std::fs::write(dir.path().join("writing/0000000000000001_1@0.data"), &content).unwrap();
    (dir, content)
}

#[tokio::test]
async fn a_copy_that_runs_is_cut_when_it_is_cancelled() {
    let mut namenode = FakeNamenode::start(vec![]).await;
    let datanode = start_in(folder_with(1), &[&namenode]).await;
    let mut stream = namenode.next_conversation().await;
    // Takes the connection, and says nothing.
    let target = RealNet.bind("127.0.0.1:0").await.unwrap();
    let node = wire::NodeAddress {
        node_id: 8,
        address: target.local_addr().unwrap(),
        ..wire::NodeAddress::default()
    };
    let copy = wire::CopyOrder {
        block_id: 1,
        generation: 1,
        length: 1001,
        chaining_value: tree_of(0, &bytes(1001)).1.chaining_value.to_bytes(),
        file_offset: 0,
        block_bytes: 1 << 20,
        targets: vec![node],
    };
    stream.order(1, vec![(1, Kind::Copy(copy))]).await;
    let _connection = soon(target.accept()).await.unwrap();
    let cancel = Kind::Cancel(wire::CancelOrder { copy_order_id: 1 });
    stream.order(1, vec![(2, cancel)]).await;
    let result = stream.result_of(1).await;
    assert_eq!((result.done, &result.error[..]), (false, "cancelled by the namenode"));
    drop(datanode);
}

#[tokio::test]
async fn what_writers_left_is_told_at_every_registration_and_recovered_and_finished_by_order() {
    let (dir, content) = folder_with_open_block();
    let mut namenode = FakeNamenode::start(vec![]).await;
    let datanode = start_in(dir, &[&namenode]).await;
    for _ in 0..2 {
        let mut stream = namenode.next_conversation().await;
        let event = stream.until(|message| message.events.first().cloned()).await;
        assert_eq!((event.block_id, event.kind()), (1, wire::replica_event::Kind::Open));
        assert_eq!((event.generation, event.length), (1, 70_000));
    }
    let mut stream = namenode.next_conversation().await;
    let (block_id, generation, block_bytes) = (1, 3, 1 << 20);
    let recover = wire::RecoverOrder { block_id, generation, block_bytes, ..Default::default() };
    stream.order(1, vec![(1, Kind::Recover(recover))]).await;
    let found = stream.until(|message| message.recovered.first().cloned()).await;
    assert_eq!((found.order_id, found.block_id, found.generation), (1, 1, 1));
    assert_eq!((found.length, found.group_values.len()), (70_000, 64));

    let digest = tree_of(0, &content[..66_000]).1;
    let finish = wire::FinishOrder {
        block_id,
        generation,
        length: 66_000,
        chaining_value: digest.chaining_value.to_bytes(),
        ..Default::default()
    };
    stream.order(1, vec![(2, Kind::Finish(finish))]).await;
    let is_stored = |event: &wire::ReplicaEvent| event.kind() == wire::replica_event::Kind::Stored;
    let stored = stream.until(|message| message.events.iter().find(|it| is_stored(it)).cloned());
    let stored = stored.await;
    assert_eq!((stored.generation, stored.length), (3, 66_000));
    assert_eq!(stored.chaining_value, digest.chaining_value.to_bytes());
    let held =
        stream.until(|message| (message.replica_count == 1).then(|| message.volumes.clone()));
    assert_eq!(held.await[0].used, 66_000);
    drop(datanode);
}

#[tokio::test]
async fn what_a_writer_left_is_dropped_by_order() {
    let (dir, _) = folder_with_open_block();
    let mut namenode = FakeNamenode::start(vec![]).await;
    let datanode = start_in(dir, &[&namenode]).await;
    let mut stream = namenode.next_conversation().await;
    assert_eq!(stream.next().await.volumes[0].used, 70_000);
    let (block_id, generation, only_bad) = (1, 1, false);
    let drop_order = Kind::Drop(wire::DropOrder { block_id, generation, only_bad });
    stream.order(1, vec![(1, drop_order)]).await;
    assert!(stream.result_of(1).await.done);
    stream.until(|message| (message.volumes[0].used == 0).then_some(())).await;
    let left = std::fs::read_dir(datanode.dir.path().join("writing")).unwrap().count();
    assert_eq!(left, 0);
    drop(datanode);
}

#[tokio::test]
async fn a_namenode_that_does_not_lead_or_does_not_answer_is_passed_over() {
    let not_leader = FsError::NotLeader { leader: String::new() };
    let mut follower = FakeNamenode::start(vec![Err(not_leader.into())]).await;
    let mut leader = FakeNamenode::start(vec![]).await;
    let datanode = start_in(tempfile::tempdir().unwrap(), &[&follower, &leader]).await;
    follower.next_registration().await;
    leader.next_conversation().await.next().await;
    drop(datanode);
}

#[tokio::test]
async fn a_node_of_another_cluster_ends_with_a_clear_reason() {
    let refusal = FsError::WrongCluster { expected: "aa".into(), found: "bb".into() };
    let namenode = FakeNamenode::start(vec![Err(refusal.into())]).await;
    let datanode = start(&namenode).await;
    soon(datanode.tasks.stopping().cancelled()).await;
    let failure = datanode.handle.failure().unwrap().to_owned();
    assert!(failure.contains("this is cluster aa, the peer belongs to bb"), "{failure}");

    // And so does one whose namenode was replaced by that of another cluster.
    let mut namenode = FakeNamenode::start(vec![]).await;
    let datanode = start(&namenode).await;
    namenode.next_conversation().await;
    let dir = datanode.stop().await;
    let other = RegisterResponse { cluster_id: vec![9; 16].into(), ..welcome(1) };
    namenode.answers.lock().push_back(Ok(other));
    let datanode = start_in(dir, &[&namenode]).await;
    soon(datanode.tasks.stopping().cancelled()).await;
    assert!(datanode.handle.failure().unwrap().contains("own cluster"));
}

#[tokio::test]
async fn the_end_of_the_datanode_ends_the_stream_at_once() {
    let mut namenode = FakeNamenode::start(vec![]).await;
    let datanode = start(&namenode).await;
    let mut stream = namenode.next_conversation().await;
    stream.next().await;
    datanode.stop().await;
    let end = async { while let Ok(Some(_)) = stream.heard.message().await {} };
    soon(end).await;
}
