//! A datanode that speaks the protocol and holds what the test says.

use std::collections::{BTreeMap, VecDeque};

use doldam_proto::FsError;
use doldam_proto::digest::ChainingValue;
use doldam_proto::fingerprint::{Fingerprint, ReplicaId, bucket_of};
use doldam_proto::id::{BlockId, Generation};
use doldam_proto::limits::PROTOCOL_VERSION;
use doldam_proto::wire;
use doldam_proto::wire::datanode_service_client::DatanodeServiceClient;
use doldam_proto::wire::order::Kind;
use doldam_proto::wire::replica_event;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Server, answer, in_time};

/// Length and value of every block.
pub(super) const LENGTH: u64 = 1000;
pub(super) const VALUE: ChainingValue = ChainingValue([7; 32]);

pub(super) struct FakeDatanode {
    pub(super) id: u32,
    pub(super) epoch: u64,
    outbound: mpsc::Sender<wire::DatanodeMessage>,
    inbound: Streaming<wire::NamenodeMessage>,
    replicas: Vec<ReplicaId>,
    sequence: u64,
    /// Came with an earlier message and not yet looked at.
    ahead: VecDeque<wire::Order>,
}

/// The registration of node `number`, on host `h<number>` in rack `/r<number>`.
pub(super) fn registration(number: u8) -> wire::RegisterRequest {
    wire::RegisterRequest {
        protocol_version: PROTOCOL_VERSION,
        node_uuid: vec![number; 16].into(),
        cluster_id: bytes::Bytes::new(),
        address: format!("h{number}:9000"),
        rack: format!("/r{number}"),
        version: "test".to_owned(),
    }
}

pub(super) async fn register(
    server: &Server,
    request: wire::RegisterRequest,
) -> Result<wire::RegisterResponse, FsError> {
    answer(DatanodeServiceClient::new(server.channel()).register(request).await)
}

impl FakeDatanode {
    /// Registers, opens the stream and is live.
    pub(super) async fn join(server: &Server, number: u8) -> Self {
        Self::join_with(server, number, &[]).await
    }

    /// The same for a node that holds these blocks already.
    pub(super) async fn join_with(server: &Server, number: u8, blocks: &[u64]) -> Self {
        Self::start(server, registration(number), blocks).await
    }

    /// The same for a node that says this of itself.
    pub(super) async fn join_as(server: &Server, request: wire::RegisterRequest) -> Self {
        Self::start(server, request, &[]).await
    }

    async fn start(server: &Server, request: wire::RegisterRequest, blocks: &[u64]) -> Self {
        let registered = register(server, request).await.unwrap();
        let mut node = Self::open(server, registered.node_id, registered.epoch).await;
        node.replicas = blocks.iter().map(|block| replica(*block)).collect();
        node.beat().await;
        let is_live = |report: &wire::ReportResponse| {
            report.datanodes.iter().any(|each| {
                let address = each.node.as_ref().unwrap();
                address.node_id == registered.node_id && address.state() == wire::NodeState::Live
            })
        };
        server.until("the node is live", is_live).await;
        node
    }

    /// Opens a stream without saying anything.
    pub(super) async fn open(server: &Server, id: u32, epoch: u64) -> Self {
        let (outbound, messages) = mpsc::channel(16);
        let messages = ReceiverStream::new(messages);
        let mut client = DatanodeServiceClient::new(server.channel());
        let opened = client.heartbeat(messages);
        let inbound = in_time("the stream opens", opened).await.unwrap().into_inner();
        Self {
            id,
            epoch,
            outbound,
            inbound,
            replicas: Vec::new(),
            sequence: 0,
            ahead: VecDeque::new(),
        }
    }

    /// A message with the present state of the node and nothing else.
    pub(super) fn message(&mut self) -> wire::DatanodeMessage {
        self.sequence += 1;
        let mut sum = Fingerprint::default();
        self.replicas.iter().for_each(|replica| sum.add(replica));
        wire::DatanodeMessage {
            node_id: self.id,
            epoch: self.epoch,
            sequence: self.sequence,
            volumes: vec![wire::VolumeStatus {
                path: "/data".to_owned(),
                capacity: 1 << 40,
                used: 0,
                available: 1 << 39,
                ..wire::VolumeStatus::default()
            }],
            fingerprint: sum.to_bytes().to_vec().into(),
            replica_count: self.replicas.len() as u64,
            ..wire::DatanodeMessage::default()
        }
    }

    pub(super) async fn send(&mut self, message: wire::DatanodeMessage) {
        self.outbound.send(message).await.unwrap();
    }

    pub(super) async fn beat(&mut self) {
        let message = self.message();
        self.send(message).await;
    }

    /// The node stored a copy as ordered.
    pub(super) async fn stored(&mut self, block: u64) {
        self.hold(block);
        self.tell(replica_event::Kind::Stored, block).await;
    }

    /// The node no longer has it, and says why.
    pub(super) async fn tell(&mut self, kind: replica_event::Kind, block: u64) {
        if kind != replica_event::Kind::Stored {
            self.replicas.retain(|replica| replica.block.0 != block);
        }
        let mut message = self.message();
        message.events.push(wire::ReplicaEvent {
            kind: kind as i32,
            block_id: block,
            generation: 1,
            length: LENGTH,
            chaining_value: VALUE.to_bytes(),
            what: "as the test says".to_owned(),
        });
        self.send(message).await;
    }

    /// The node tells of a part of a block, or of a replica, of any generation.
    pub(super) async fn tell_of(
        &mut self,
        kind: replica_event::Kind,
        block_id: u64,
        generation: u64,
        length: u64,
    ) {
        let mut message = self.message();
        message.events.push(wire::ReplicaEvent {
            kind: kind as i32,
            block_id,
            generation,
            length,
            chaining_value: VALUE.to_bytes(),
            what: String::new(),
        });
        self.send(message).await;
    }

    /// Waits for the order to say what it has of a block, and answers with the content of all blocks. Returns the
    /// generation that fences.
    pub(super) async fn recover(&mut self, block: u64) -> u64 {
        let order = self.next_whole_order().await;
        let Some(Kind::Recover(recover)) = order.kind else { panic!("{order:?}") };
        assert_eq!(recover.block_id, block);
        let mut message = self.message();
        message.recovered.push(wire::RecoveredReplica {
            order_id: order.order_id,
            block_id: block,
            generation: 1,
            length: LENGTH,
            group_values: VALUE.to_bytes(),
            first_root: super::ROOT.to_bytes(),
            starts: Some(wire::StartsFound { shown: true, ..Default::default() }),
        });
        self.send(message).await;
        recover.generation
    }

    /// Waits for the order to say what it has of a block, and answers that it has nothing.
    pub(super) async fn lost(&mut self, block: u64) {
        let order = self.next_whole_order().await;
        let Some(Kind::Recover(recover)) = order.kind else { panic!("{order:?}") };
        assert_eq!(recover.block_id, block);
        assert_eq!(recover.shown.map(|shown| shown.length), Some(LENGTH));
        let mut message = self.message();
        message.recovered.push(wire::RecoveredReplica {
            order_id: order.order_id,
            block_id: block,
            starts: Some(wire::StartsFound::default()),
            ..Default::default()
        });
        self.send(message).await;
    }

    /// Waits for the order to finish a block, and does so.
    pub(super) async fn finish(&mut self, block: u64, generation: u64) {
        match self.next_order().await {
            Kind::Finish(finish) => {
                let expected = (block, generation, LENGTH, VALUE.to_bytes());
                let found =
                    (finish.block_id, finish.generation, finish.length, finish.chaining_value);
                assert_eq!(found, expected);
            }
            other => panic!("{other:?}"),
        }
        let generation_of = Generation(generation);
        self.replicas.push(ReplicaId {
            block: BlockId(block),
            generation: generation_of,
            length: LENGTH,
        });
        self.tell_of(replica_event::Kind::Stored, block, generation, LENGTH).await;
    }

    /// It holds the block from now on, and says nothing of it but the hash.
    pub(super) fn hold(&mut self, block: u64) {
        self.replicas.push(replica(block));
    }

    /// The next order that is not about the inventory; questions about that are answered on the way.
    pub(super) async fn next_order(&mut self) -> Kind {
        self.next_whole_order().await.kind.unwrap()
    }

    /// The same with its id and deadline.
    pub(super) async fn next_whole_order(&mut self) -> wire::Order {
        loop {
            if let Some(order) = self.ahead.pop_front() {
                return order;
            }
            let message = in_time("an order comes", self.inbound.message()).await.unwrap();
            let message = message.expect("the stream ended");
            assert_eq!(message.epoch, self.epoch);
            for order in message.orders {
                match order.kind.clone().unwrap() {
                    Kind::ReportBuckets(_) => self.report_buckets().await,
                    Kind::ListBuckets(list) => self.list_buckets(&list.buckets).await,
                    _ => self.ahead.push_back(order),
                }
            }
        }
    }

    /// The error the stream ends with.
    pub(super) async fn refusal(&mut self) -> FsError {
        loop {
            match in_time("the stream ends", self.inbound.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without an error"),
                Err(status) => return FsError::from_status(&status).unwrap(),
            }
        }
    }

    async fn report_buckets(&mut self) {
        let mut buckets: BTreeMap<u32, Fingerprint> = BTreeMap::new();
        for replica in &self.replicas {
            buckets.entry(bucket_of(replica.block)).or_default().add(replica);
        }
        let mut message = self.message();
        message.buckets_answered = true;
        message.buckets = buckets
            .into_iter()
            .map(|(bucket, hash)| wire::BucketHash {
                bucket,
                hash: hash.to_bytes().to_vec().into(),
            })
            .collect();
        self.send(message).await;
    }

    async fn list_buckets(&mut self, buckets: &[u32]) {
        let mut message = self.message();
        for &bucket in buckets {
            let there = self.replicas.iter().filter(|replica| bucket_of(replica.block) == bucket);
            let replicas = there.map(|replica| wire::ReplicaEntry {
                block_id: replica.block.0,
                generation: replica.generation.0,
                length: replica.length,
            });
            let replicas = replicas.collect();
            message.listings.push(wire::BucketListing { bucket, replicas });
        }
        self.send(message).await;
    }
}

fn replica(block: u64) -> ReplicaId {
    ReplicaId { block: BlockId(block), generation: Generation(1), length: LENGTH }
}
