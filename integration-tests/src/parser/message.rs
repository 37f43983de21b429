//! Messages of the gRPC services, from wire to domain, and errors on their way back.

use doldam_proto::FsError;
use doldam_proto::block::{AllocatedBlock, BlockCommit, LocatedBlock};
use doldam_proto::digest::{ChainingValue, FileDigest};
use doldam_proto::error::Refusal;
use doldam_proto::file::{Durability, FileKind, FileStatus};
use doldam_proto::id::{BlockId, Generation, InodeId, NodeId};
use doldam_proto::node::{NodeAddress, NodeState};
use doldam_proto::wire;
use prost::Message;
use tonic::{Code, Status};

/// Details of a gRPC status: what is read as one of our errors can be sent and read again.
pub fn error_status(bytes: &[u8]) {
    let status = Status::with_details(Code::Aborted, "", bytes.to_vec().into());
    let Some(error) = FsError::from_status(&status) else { return };
    let again = FsError::from_status(&Status::from(error));
    assert!(again.is_some(), "an error that was read can be sent on");
}

pub(super) fn error_status_seeds() -> Vec<Vec<u8>> {
    let refusals = vec![Refusal { node: "a:8030".into(), reason: "full".into() }];
    [
        FsError::NotFound { path: "/ü".into() },
        FsError::LeaseHeld { path: "/a".into(), holder: "host:1".into(), ends_in_secs: 42 },
        FsError::LeaseLost { inode: 7 },
        FsError::NoDatanodes { path: "/a".into(), refusals },
        FsError::WrongVersion { expected: 1, found: 2 },
    ]
    .map(|error| Status::from(error).details().to_vec())
    .to_vec()
}

/// A message, its kind chosen by the first byte: what passes the checks is the same after another trip.
pub fn wire_message(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind {
        0 => survives::<wire::NodeAddress, NodeAddress>(bytes),
        1 => survives::<wire::AllocatedBlock, AllocatedBlock>(bytes),
        2 => survives::<wire::BlockCommit, BlockCommit>(bytes),
        3 => survives::<wire::LocatedBlock, LocatedBlock>(bytes),
        4 => survives::<wire::FileStatus, FileStatus>(bytes),
        5 => decodes::<wire::CreateRequest>(bytes),
        6 => decodes::<wire::RegisterRequest>(bytes),
        7 => decodes::<wire::DatanodeMessage>(bytes),
        8 => decodes::<wire::NamenodeMessage>(bytes),
        _ => {}
    }
}

fn survives<W, D>(bytes: &[u8])
where
    W: Message + Default + From<D>,
    D: TryFrom<W> + Clone + PartialEq,
{
    let Ok(message) = W::decode(bytes) else { return };
    let Ok(domain) = D::try_from(message) else { return };
    let again = D::try_from(W::from(domain.clone()));
    assert!(again.is_ok_and(|again| again == domain));
}

fn decodes<M: Message + Default + PartialEq>(bytes: &[u8]) {
    let Ok(message) = M::decode(bytes) else { return };
    assert!(M::decode(message.encode_to_vec().as_slice()).is_ok_and(|again| again == message));
}

pub(super) fn wire_message_seeds() -> Vec<Vec<u8>> {
    let node = NodeAddress {
        id: NodeId(3),
        address: "a:8030".into(),
        rack: "/r1".into(),
        state: NodeState::Live,
    };
    let (id, generation) = (BlockId(7), Generation(1));
    let allocated = AllocatedBlock { id, generation, index: 2, targets: vec![node.clone()] };
    let chaining_value = ChainingValue([9; 32]);
    let commit = BlockCommit {
        id,
        generation,
        length: 4096,
        chaining_value,
        root_value: Some(FileDigest([8; 32])),
        nodes: vec![NodeId(3), NodeId(4)],
    };
    let located = LocatedBlock {
        id,
        generation,
        index: 2,
        offset: 2 << 20,
        length: 4096,
        chaining_value,
        replicas: vec![node.clone()],
    };
    let status = FileStatus {
        path: "/ü".into(),
        inode: InodeId(5),
        kind: FileKind::File,
        length: 4096,
        replication: 3,
        block_bytes: 1 << 20,
        modified_ms: 1,
        created_ms: 1,
        digest: Some(FileDigest([8; 32])),
        durability: Some(Durability::One),
        being_written: true,
    };
    let create = wire::CreateRequest { path: "/ü".into(), ..wire::CreateRequest::default() };
    let register = wire::RegisterRequest {
        protocol_version: 1,
        node_uuid: vec![1; 16].into(),
        address: "a:8030".into(),
        ..wire::RegisterRequest::default()
    };
    let heartbeat = wire::DatanodeMessage {
        node_id: 3,
        fingerprint: vec![0; 32].into(),
        buckets: vec![wire::BucketHash { bucket: 1, hash: vec![5; 32].into() }],
        ..wire::DatanodeMessage::default()
    };
    let drop = wire::DropOrder { block_id: 7, generation: 1, only_bad: true };
    let order =
        wire::Order { order_id: 1, deadline_ms: 5000, kind: Some(wire::order::Kind::Drop(drop)) };
    let orders = wire::NamenodeMessage { epoch: 1, orders: vec![order] };
    [
        wire::NodeAddress::from(node).encode_to_vec(),
        wire::AllocatedBlock::from(allocated).encode_to_vec(),
        wire::BlockCommit::from(commit).encode_to_vec(),
        wire::LocatedBlock::from(located).encode_to_vec(),
        wire::FileStatus::from(status).encode_to_vec(),
        create.encode_to_vec(),
        register.encode_to_vec(),
        heartbeat.encode_to_vec(),
        orders.encode_to_vec(),
    ]
    .into_iter()
    .enumerate()
    .map(|(kind, message)| [&[kind as u8][..], &message].concat())
    .collect()
}
