//! Messages of the gRPC services, from wire to domain, and errors on their way back.

use doldam_client::{ClusterReport, FsckFile};
use doldam_proto::FsError;
use doldam_proto::block::{AllocatedBlock, BlockCommit, LocatedBlock};
use doldam_proto::convert::block_stream::{BlockOperation, BlockRequest, ReadBlock};
use doldam_proto::convert::datanode::Order;
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
        9 => survives::<wire::BlockRequest, BlockRequest>(bytes),
        10 => is_read::<wire::Order, Order>(bytes),
        11 => is_read::<wire::ReportResponse, ClusterReport>(bytes),
        12 => is_read::<wire::FsckFile, FsckFile>(bytes),
        13 => decodes::<wire::Command>(bytes),
        14 => decodes::<wire::LocateResponse>(bytes),
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

/// What has only one way: it is read, or refused.
fn is_read<W: Message + Default, D: TryFrom<W>>(bytes: &[u8]) {
    if let Ok(message) = W::decode(bytes) {
        let _ = D::try_from(message);
    }
}

fn decodes<M: Message + Default + PartialEq>(bytes: &[u8]) {
    let Ok(message) = M::decode(bytes) else { return };
    assert!(M::decode(message.encode_to_vec().as_slice()).is_ok_and(|again| again == message));
}

pub(super) fn wire_message_seeds() -> Vec<Vec<u8>> {
    let messages = [shared_types(), requests(), answers()].concat();
    let numbered = messages.into_iter().zip([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    numbered.map(|(message, kind)| [&[kind][..], &message].concat()).collect()
}

fn node() -> NodeAddress {
    let (address, rack) = ("a:8030".into(), "/r1".into());
    NodeAddress { id: NodeId(3), address, rack, state: NodeState::Live }
}

fn located() -> LocatedBlock {
    LocatedBlock {
        id: BlockId(7),
        generation: Generation(1),
        index: 2,
        offset: 2 << 20,
        length: 4096,
        chaining_value: ChainingValue([9; 32]),
        replicas: vec![node()],
    }
}

fn status() -> FileStatus {
    FileStatus {
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
    }
}

/// Kinds 0 to 4.
fn shared_types() -> Vec<Vec<u8>> {
    let (id, generation) = (BlockId(7), Generation(1));
    let allocated = AllocatedBlock { id, generation, index: 2, targets: vec![node()] };
    let commit = BlockCommit {
        id,
        generation,
        length: 4096,
        chaining_value: ChainingValue([9; 32]),
        root_value: Some(FileDigest([8; 32])),
        nodes: vec![NodeId(3), NodeId(4)],
    };
    vec![
        wire::NodeAddress::from(node()).encode_to_vec(),
        wire::AllocatedBlock::from(allocated).encode_to_vec(),
        wire::BlockCommit::from(commit).encode_to_vec(),
        wire::LocatedBlock::from(located()).encode_to_vec(),
        wire::FileStatus::from(status()).encode_to_vec(),
    ]
}

/// Kinds 5 to 10.
fn requests() -> Vec<Vec<u8>> {
    let create = wire::CreateRequest { path: "/ü".into(), ..wire::CreateRequest::default() };
    let register = wire::RegisterRequest {
        protocol_version: 1,
        node_uuid: vec![1; 16].into(),
        address: "a:8030".into(),
        ..wire::RegisterRequest::default()
    };
    let recovered = wire::RecoveredReplica {
        order_id: 4,
        block_id: 7,
        generation: 1,
        length: 4096,
        group_values: vec![9; 32].into(),
        first_root: vec![8; 32].into(),
        starts: Some(wire::StartsFound { shown: true, floor: true, is_replica: true }),
    };
    let heartbeat = wire::DatanodeMessage {
        node_id: 3,
        fingerprint: vec![0; 32].into(),
        buckets: vec![wire::BucketHash { bucket: 1, hash: vec![5; 32].into() }],
        recovered: vec![recovered],
        ..wire::DatanodeMessage::default()
    };
    let drop = wire::DropOrder { block_id: 7, generation: 1, only_bad: true };
    let order =
        wire::Order { order_id: 1, deadline_ms: 5000, kind: Some(wire::order::Kind::Drop(drop)) };
    let recover = wire::RecoverOrder {
        block_id: 7,
        generation: 2,
        file_offset: 1 << 20,
        block_bytes: 1 << 20,
        shown: Some(wire::BlockStart { length: 9, chaining_value: vec![6; 32].into() }),
        floor: None,
    };
    let finish = wire::FinishOrder {
        block_id: 7,
        generation: 2,
        file_offset: 1 << 20,
        length: 4096,
        chaining_value: vec![9; 32].into(),
    };
    let of_kind = |kind| wire::Order { kind: Some(kind), ..order.clone() };
    let recover = of_kind(wire::order::Kind::Recover(recover));
    let finish = of_kind(wire::order::Kind::Finish(finish));
    let cancel = of_kind(wire::order::Kind::Cancel(wire::CancelOrder { copy_order_id: 1 }));
    let orders = vec![order.clone(), recover, finish, cancel];
    let orders = wire::NamenodeMessage { epoch: 1, orders };
    let (id, generation) = (BlockId(7), Generation(1));
    let read = ReadBlock {
        id,
        generation,
        offset: 65_536,
        length: 4096,
        block_length: Some(80_000),
        values_only: false,
    };
    let read = BlockRequest { trace: "4bf92f35".into(), operation: BlockOperation::Read(read) };
    vec![
        create.encode_to_vec(),
        register.encode_to_vec(),
        heartbeat.encode_to_vec(),
        orders.encode_to_vec(),
        wire::BlockRequest::from(read).encode_to_vec(),
        order.encode_to_vec(),
    ]
}

/// Kinds 11 to 14.
fn answers() -> Vec<Vec<u8>> {
    let datanode = wire::DatanodeReport {
        node: Some(node().into()),
        node_uuid: vec![1; 16].into(),
        ..wire::DatanodeReport::default()
    };
    let report = wire::ReportResponse {
        cluster_id: vec![3; 16].into(),
        datanodes: vec![datanode],
        ..wire::ReportResponse::default()
    };
    let health = wire::BlockHealth::Healthy as i32;
    let block = wire::FsckBlock { block_id: 7, health, ..wire::FsckBlock::default() };
    let file = wire::FsckFile { health, blocks: vec![block], ..wire::FsckFile::default() };
    let delete = wire::DeleteCommand { path: "/ü".into(), recursive: true };
    let change = Some(wire::command::Change::Delete(delete));
    let command = wire::Command { change, time_ms: 1, ..wire::Command::default() };
    let found = wire::LocateResponse {
        status: Some(status().into()),
        blocks: vec![located().into()],
        client_rack: "/r1".into(),
    };
    vec![
        report.encode_to_vec(),
        file.encode_to_vec(),
        command.encode_to_vec(),
        found.encode_to_vec(),
    ]
}
