//! A client that does what a client must and no more: it hashes what it sends and what it reads.

use bytes::BytesMut;
use doldam_proto::block::BlockBytes;
use doldam_proto::convert::block_stream::{BlockOperation, BlockRequest, ReadBlock, WriteBlock};
use doldam_proto::digest::BlockTree;
use doldam_proto::digest::group::group_chaining_value;
use doldam_proto::digest::proof::verify_proof;
use doldam_proto::file::Durability;
use doldam_proto::frame::header::{FrameHeader, FrameKind};
use doldam_proto::id::{BlockId, ClusterId, Generation};
use doldam_proto::limits::{FRAME_PAYLOAD_BYTES, GROUP_BYTES, WRITE_WINDOW_BYTES};
use doldam_proto::node::NodeAddress;
use doldam_proto::wire;
use doldam_proto::wire::block_response::Kind;
use doldam_runtime::Seams;
use doldam_runtime::connection::{BlockConnection, ConnectionReader, ConnectionWriter, Deadlines};

use crate::Outcome;
use crate::namenode::Key;

async fn connect(seams: &Seams, node: &NodeAddress) -> Outcome<BlockConnection> {
    let cluster = ClusterId([7; 16]);
    let deadlines = Deadlines::default();
    Ok(BlockConnection::connect(&*seams.net, &node.address, cluster, deadlines).await?)
}

fn request(operation: BlockOperation) -> wire::BlockRequest {
    BlockRequest { trace: "bench".to_owned(), operation }.into()
}

/// Writes `block` again and again under new ids, one after another over one connection.
pub(crate) async fn write_blocks(
    seams: &Seams,
    pipeline: &[NodeAddress],
    block: &[u8],
    blocks: usize,
    durability: Durability,
) -> Outcome<Vec<Key>> {
    let mut connection = connect(seams, &pipeline[0]).await?;
    let mut keys = Vec::new();
    for _ in 0..blocks {
        let id = (seams.random.next_u64() >> 1) + 1;
        let write = WriteBlock {
            id: BlockId(id),
            generation: Generation(1),
            file_offset: 0,
            block_bytes: BlockBytes::new(block.len() as u64).ok_or("no block size")?,
            durability,
            downstream: pipeline[1..].to_vec(),
            position: 0,
            writer: "bench".to_owned(),
            repair: None,
            resume: None,
        };
        let (reader, writer) = connection.halves();
        writer.queue_message(&request(BlockOperation::Write(write)))?;
        send_block(reader, writer, block).await?;
        keys.push((id, 1));
    }
    Ok(keys)
}

async fn send_block(
    reader: &mut ConnectionReader,
    writer: &mut ConnectionWriter,
    block: &[u8],
) -> Outcome<()> {
    let mut tree = BlockTree::new(0);
    let (mut acknowledged, mut sent) = (0, 0);
    for payload in block.chunks(FRAME_PAYLOAD_BYTES) {
        let mut values = Vec::with_capacity(16 * 32);
        for group in payload.chunks(GROUP_BYTES as usize) {
            values.extend_from_slice(&tree.push_group(group).0);
        }
        let last = tree.length() == block.len() as u64;
        let header = FrameHeader::data(sent, payload.len(), last).encode();
        let digest = if last { tree.digest() } else { None };
        let value = digest.map(|digest| digest.chaining_value.0);
        let value: &[u8] = value.as_ref().map_or(&[], |value| value);
        writer.write_all_vectored(&[&header, &values, payload, value]).await?;
        sent += payload.len() as u64;
        while sent - acknowledged > WRITE_WINDOW_BYTES {
            acknowledged = match answer(reader).await? {
                Kind::Progress(progress) => progress.received,
                // Which says that all has come, when that is seen before the last acknowledgement goes out.
                Kind::Done(_) if last => return Ok(()),
                other => return Err(format!("{other:?}").into()),
            };
        }
    }
    loop {
        match answer(reader).await? {
            Kind::Progress(_) => {}
            Kind::Done(_) => return Ok(()),
            other => return Err(format!("{other:?}").into()),
        }
    }
}

async fn answer(reader: &mut ConnectionReader) -> Outcome<Kind> {
    let response: wire::BlockResponse = reader.recv_message().await?;
    Ok(response.kind.ok_or("an empty answer")?)
}

/// Reads and verifies blocks, one after another over one connection.
pub(crate) async fn read_blocks(
    seams: &Seams,
    node: &NodeAddress,
    keys: &[Key],
    block: &[u8],
) -> Outcome<()> {
    let mut connection = connect(seams, node).await?;
    let mut tree = BlockTree::new(0);
    for group in block.chunks(GROUP_BYTES as usize) {
        tree.push_group(group);
    }
    let value = tree.digest().ok_or("an empty block")?.chaining_value;
    let mut buffer = BytesMut::new();
    for &(id, generation) in keys {
        let read = ReadBlock {
            id: BlockId(id),
            generation: Generation(generation),
            offset: 0,
            length: block.len() as u64,
            block_length: None,
            values_only: false,
        };
        connection.send_message(&request(BlockOperation::Read(read))).await?;
        let Kind::Read(start) = answer(connection.halves().0).await? else {
            return Err("not read".into());
        };
        let groups = tree.groups().len();
        let (mut values, mut offset) = (Vec::new(), 0);
        while offset < start.byte_count {
            let header = connection.recv_frame_header().await?;
            buffer.clear();
            connection.read_exact_into(&mut buffer, header.payload_bytes as usize).await?;
            if header.kind == FrameKind::Proof {
                values = verify_proof(&value, groups, 0..groups, &buffer)?;
                continue;
            }
            for group in buffer.chunks(GROUP_BYTES as usize) {
                let expected = values.get((offset / GROUP_BYTES) as usize);
                if expected != Some(&group_chaining_value(offset, group)) {
                    return Err("a group does not match its value".into());
                }
                offset += group.len() as u64;
            }
        }
    }
    Ok(())
}
