//! What comes over a block stream.

use bytes::BytesMut;
use doldam_proto::digest::block::stored_nodes;
use doldam_proto::digest::proof::{proof_places, verify_proof};
use doldam_proto::digest::{ChainingValue, VALUE_BYTES};
use doldam_proto::frame::codec::{PREFIX_BYTES, decode_message, decode_prefix, encode_message};
use doldam_proto::frame::handshake::{self as greeting, HANDSHAKE_BYTES};
use doldam_proto::frame::header::{FrameHeader, FrameKind, HEADER_BYTES};
use doldam_proto::id::ClusterId;
use doldam_proto::limits::{BLOCK_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX, STREAM_MESSAGE_BYTES_MAX};
use doldam_proto::wire::{
    BlockFailure, BlockRequest, BlockResponse, NodeAddress, NodeTiming, ReadBlock, ReadStart,
    ReplicaReceipt, Resume, WriteBlock, WriteDone, WriteProgress, block_failure, block_request,
    block_response,
};
use prost::Message;

const CLUSTER: ClusterId = ClusterId([7; 16]);

/// A frame header: what is accepted is within the limits and encodes to the same bytes.
pub fn frame_header(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else { return };
    if let Ok(header) = FrameHeader::decode(bytes) {
        assert!(header.payload_bytes as usize <= FRAME_PAYLOAD_BYTES_MAX);
        assert!(header.offset + u64::from(header.payload_bytes) <= BLOCK_BYTES_MAX);
        assert_eq!(header.encode(), *bytes);
    }
}

pub(super) fn frame_header_seeds() -> Vec<Vec<u8>> {
    [
        FrameHeader::data(0, 1 << 20, false),
        FrameHeader::data(1 << 20, 0, true),
        FrameHeader::sync(1 << 20, 0),
        FrameHeader::plain(FrameKind::Proof, 64),
        FrameHeader::plain(FrameKind::Error, 10),
    ]
    .map(|header| header.encode().to_vec())
    .to_vec()
}

/// A handshake: only our own is accepted.
pub fn handshake(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk::<HANDSHAKE_BYTES>() else { return };
    if greeting::check(bytes, CLUSTER).is_ok() {
        assert_eq!(greeting::encode(CLUSTER), *bytes);
    }
}

pub(super) fn handshake_seeds() -> Vec<Vec<u8>> {
    vec![greeting::encode(CLUSTER).to_vec(), greeting::encode(ClusterId([0; 16])).to_vec()]
}

/// A length prefix and the message behind it, as a request and as an answer.
pub fn stream_message(bytes: &[u8]) {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else { return };
    let Ok(length) = decode_prefix(*prefix) else { return };
    assert!(length <= STREAM_MESSAGE_BYTES_MAX, "never allocate for more");
    let Some(message) = rest.get(..length) else { return };
    message_survives::<BlockRequest>(message);
    message_survives::<BlockResponse>(message);
    message_survives::<BlockFailure>(message);
}

/// What decodes has the same meaning after another trip. It may have grown (numbers in their shortest form never
/// do, but a text repeated in a field counts once), so only the bound of the encoder is allowed to refuse it.
fn message_survives<M: Message + Default + PartialEq>(bytes: &[u8]) {
    let Ok(message) = decode_message::<M>(bytes) else { return };
    let mut buffer = BytesMut::new();
    if encode_message(&message, &mut buffer).is_ok() {
        assert!(decode_message::<M>(&buffer[PREFIX_BYTES..]).is_ok_and(|again| again == message));
    } else {
        assert!(message.encoded_len() > STREAM_MESSAGE_BYTES_MAX);
    }
}

fn prefixed(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    [&(body.len() as u32).to_le_bytes()[..], &body].concat()
}

fn write_request() -> BlockRequest {
    let target = NodeAddress { node_id: 2, address: "b:8030".into(), rack: "/r2".into(), state: 1 };
    let write = WriteBlock {
        block_id: 7,
        generation: 1,
        file_offset: 128 << 20,
        block_bytes: 128 << 20,
        durability: 1,
        downstream: vec![target],
        position: 0,
        repair: true,
        writer: "host".into(),
        expected_length: 4096,
        expected_chaining_value: vec![9; 32].into(),
        resume: None,
    };
    BlockRequest {
        trace: "4bf92f35".into(),
        operation: Some(block_request::Operation::Write(write)),
    }
}

fn resumed_write() -> BlockRequest {
    let resume = Resume { length: 70_000, chaining_value: vec![9; 32].into(), holders: vec![1, 2] };
    let mut request = write_request();
    if let Some(block_request::Operation::Write(write)) = &mut request.operation {
        write.repair = false;
        write.resume = Some(resume);
    }
    request
}

pub(super) fn stream_message_seeds() -> Vec<Vec<u8>> {
    let read = ReadBlock {
        block_id: 7,
        generation: 1,
        offset: 65536,
        length: 4096,
        block_length: 70_000,
        values_only: true,
    };
    let read = BlockRequest {
        trace: "4bf92f35".into(),
        operation: Some(block_request::Operation::Read(read)),
    };
    let failure = BlockFailure {
        code: block_failure::Code::Downstream as i32,
        message: "broken pipe".into(),
        node_id: 2,
        address: "b:8030".into(),
    };
    let done = WriteDone {
        length: 4096,
        chaining_value: vec![9; 32].into(),
        replicas: vec![ReplicaReceipt { node_id: 1, durable: true }],
    };
    let start = ReadStart {
        offset: 0,
        byte_count: 4096,
        block_length: 4096,
        file_offset: 0,
        generation: 2,
    };
    let timing = NodeTiming { node_id: 1, bytes: 4096, store_us: 12, forward_us: 7 };
    let progress = WriteProgress { received: 4096, synced: 1024, timings: vec![timing] };
    let mut seeds = vec![prefixed(&write_request()), prefixed(&resumed_write()), prefixed(&read)];
    for kind in [
        block_response::Kind::Progress(progress),
        block_response::Kind::Done(done),
        block_response::Kind::Read(start),
        block_response::Kind::Failure(failure),
    ] {
        seeds.push(prefixed(&BlockResponse { kind: Some(kind) }));
    }
    seeds
}

/// A proof behind the shape it claims: leaves, start and end of the range (u16 each), the block's value.
pub fn proof(bytes: &[u8]) {
    let Some((shape, rest)) = bytes.split_first_chunk::<6>() else { return };
    let Some((block, proof)) = rest.split_first_chunk::<VALUE_BYTES>() else { return };
    let number = |at: usize| usize::from(u16::from_le_bytes([shape[at], shape[at + 1]]));
    let (leaves, range) = (number(0), number(2)..number(4));
    if let Ok(groups) = verify_proof(&ChainingValue(*block), leaves, range.clone(), proof) {
        assert!(range.end <= leaves);
        assert_eq!(groups.len(), range.len());
    }
}

pub(super) fn proof_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (leaves, start, end) in [(1_u16, 0_u16, 1_u16), (2, 1, 2), (5, 1, 4), (16, 7, 8)] {
        let values: Vec<ChainingValue> =
            (0..leaves).map(|leaf| ChainingValue([leaf as u8; VALUE_BYTES])).collect();
        let nodes = stored_nodes(&values);
        let places = proof_places(usize::from(leaves), usize::from(start)..usize::from(end));
        let root = doldam_proto::digest::block::subtree_value(&values);
        let (Ok(places), Some(root)) = (places, root) else { continue };
        let mut seed: Vec<u8> = [leaves, start, end].iter().flat_map(|n| n.to_le_bytes()).collect();
        seed.extend(root.0);
        seed.extend(places.into_iter().flat_map(|place| nodes[place].0));
        seeds.push(seed);
    }
    seeds
}
