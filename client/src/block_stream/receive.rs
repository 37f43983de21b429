//! Receives a range of a block from one replica and verifies every byte of it.
//!
//! The datanode grows the range to whole groups and sends the values that tie these to the block's value
//! (`doldam_proto::digest::proof`). The block's value, length and place come from the namenode, so a replica that is
//! rotten, stale, swapped or cut short cannot pass.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use doldam_proto::block::LocatedBlock;
use doldam_proto::convert::block_stream::{BlockOperation, BlockRequest, ReadBlock};
use doldam_proto::digest::ChainingValue;
use doldam_proto::digest::group::group_chaining_value;
use doldam_proto::digest::proof::verify_proof;
use doldam_proto::frame::codec::decode_message;
use doldam_proto::frame::header::{FrameHeader, FrameKind};
use doldam_proto::limits::GROUP_BYTES;
use doldam_proto::wire::{self, block_response::Kind};
use doldam_runtime::pool::PooledConnection;

use super::{StreamFailure, Streams};

/// The verified values of some groups of a block.
#[derive(Debug, Default)]
pub(crate) struct GroupValues {
    first: usize,
    values: Vec<ChainingValue>,
}

impl GroupValues {
    /// The values of `groups`; nothing unless all of them are here.
    pub(crate) fn of(&self, groups: Range<usize>) -> &[ChainingValue] {
        let (start, end) =
            (groups.start.checked_sub(self.first), groups.end.checked_sub(self.first));
        start.zip(end).and_then(|(start, end)| self.values.get(start..end)).unwrap_or(&[])
    }
}

/// A range of a block on its way. Hands out verified bytes only.
#[derive(Debug)]
pub(crate) struct VerifiedStream {
    connection: PooledConnection,
    values: GroupValues,
    /// Whether the replica is of another generation than the one that was asked for.
    foreign: bool,
    file_offset: u64,
    /// In the block, at group bounds, `end` also at the block's.
    position: u64,
    end: u64,
}

impl VerifiedStream {
    /// Asks the datanode at `address` for `range` of `block`, and checks what it announces.
    pub(crate) async fn open(
        streams: &Streams,
        address: &str,
        block: &LocatedBlock,
        range: Range<u64>,
        trace: &str,
    ) -> Result<Self, StreamFailure> {
        let start = range.start - range.start % GROUP_BYTES;
        let end = range.end.next_multiple_of(GROUP_BYTES).min(block.length);
        let (mut connection, foreign) =
            request(streams, address, block, range, false, trace).await?;
        let values = receive_proof(&mut connection, block, start..end).await;
        let values = values.map_err(|failure| failure.unless(foreign))?;
        let file_offset = block.offset;
        Ok(Self { connection, values, foreign, file_offset, position: start, end })
    }

    /// Where the next bytes are in the block.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes, verified; `None` at the end. `buffer` is room to be used again: it is not allocated anew if
    /// what was handed out before has been dropped.
    ///
    /// Not cancel-safe: if dropped half-way, drop the stream too.
    pub(crate) async fn next(
        &mut self,
        buffer: &mut BytesMut,
    ) -> Result<Option<Bytes>, StreamFailure> {
        if self.position == self.end {
            return Ok(None);
        }
        let header = self.connection.recv_frame_header().await?;
        let bytes = u64::from(header.payload_bytes);
        buffer.clear();
        if header.kind != FrameKind::Data {
            return Err(receive_failure(&mut self.connection, header, buffer).await);
        }
        let next = self.position + bytes;
        let whole_groups = next.is_multiple_of(GROUP_BYTES) || next == self.end;
        if header.offset != self.position || bytes == 0 || next > self.end || !whole_groups {
            return Err(StreamFailure::protocol(format!(
                "sent bytes {}..{next} where {}..{} were due",
                header.offset, self.position, self.end
            )));
        }
        self.connection.read_exact_into(buffer, header.payload_bytes as usize).await?;
        self.verify(buffer)?;
        self.position = next;
        Ok(Some(buffer.split().freeze()))
    }

    fn verify(&self, bytes: &[u8]) -> Result<(), StreamFailure> {
        let mut position = self.position;
        for group in bytes.chunks(GROUP_BYTES as usize) {
            let index = (position / GROUP_BYTES) as usize;
            let value = group_chaining_value(self.file_offset + position, group);
            if self.values.of(index..index + 1) != [value] {
                let end = position + group.len() as u64;
                let what = format!("bytes {position}..{end} of the replica fail verification");
                return Err(StreamFailure::bad_data(what).unless(self.foreign));
            }
            position += group.len() as u64;
        }
        Ok(())
    }

    /// Whether all of the range was handed out.
    pub(crate) fn has_ended(&self) -> bool {
        self.position == self.end
    }

    /// The values it was verified against.
    pub(crate) fn values(&self) -> &GroupValues {
        &self.values
    }

    /// Keeps the connection for the next exchange, if this one has ended.
    pub(crate) fn finish(self) -> GroupValues {
        if self.has_ended() {
            self.connection.put_back();
        }
        self.values
    }
}

/// Asks for `range` of `block`, or with `values_only` for the proof of it; also tells whether the replica is of
/// another generation than the block: then it proves itself or not, and if not that says nothing against it.
async fn request(
    streams: &Streams,
    address: &str,
    block: &LocatedBlock,
    range: Range<u64>,
    values_only: bool,
    trace: &str,
) -> Result<(PooledConnection, bool), StreamFailure> {
    let start = range.start - range.start % GROUP_BYTES;
    let end = range.end.next_multiple_of(GROUP_BYTES).min(block.length);
    let operation = BlockOperation::Read(ReadBlock {
        id: block.id,
        generation: block.generation,
        offset: range.start,
        length: range.end - range.start,
        block_length: Some(block.length),
        values_only,
    });
    let request: wire::BlockRequest = BlockRequest { trace: trace.to_owned(), operation }.into();
    let (mut connection, response) =
        streams.pool.request::<wire::BlockResponse>(address, &request).await?;
    // It may have served a write before, with other deadlines.
    connection.halves().0.set_progress_deadline(streams.read_timeout);
    match response.kind {
        Some(Kind::Read(read)) => {
            let foreign = read.generation != block.generation.0;
            check_start(&read, block, start..end).map_err(|failure| failure.unless(foreign))?;
            Ok((connection, foreign))
        }
        Some(Kind::Failure(failure)) => {
            connection.put_back();
            Err(failure.into())
        }
        Some(Kind::Progress(_) | Kind::Done(_)) | None => {
            Err(StreamFailure::protocol("answered a read with something else"))
        }
    }
}

/// The verified values of the groups of `range`, which is at group bounds, without their bytes.
pub(crate) async fn receive_values(
    streams: &Streams,
    address: &str,
    block: &LocatedBlock,
    range: Range<u64>,
    trace: &str,
) -> Result<Vec<ChainingValue>, StreamFailure> {
    let (mut connection, foreign) =
        request(streams, address, block, range.clone(), true, trace).await?;
    let values = receive_proof(&mut connection, block, range).await;
    let values = values.map_err(|failure| failure.unless(foreign))?;
    connection.put_back();
    Ok(values.values)
}

fn check_start(
    read: &wire::ReadStart,
    block: &LocatedBlock,
    expected: Range<u64>,
) -> Result<(), StreamFailure> {
    if read.block_length != block.length {
        return Err(StreamFailure::bad_data(format!(
            "the replica has {} bytes, the block {}",
            read.block_length, block.length
        )));
    }
    if read.file_offset != block.offset {
        return Err(StreamFailure::bad_data(format!(
            "the replica is for offset {} of its file, the block is at {}",
            read.file_offset, block.offset
        )));
    }
    if read.offset != expected.start || read.byte_count != expected.end - expected.start {
        return Err(StreamFailure::protocol(format!(
            "offers {} bytes from {} where {expected:?} were asked for",
            read.byte_count, read.offset
        )));
    }
    Ok(())
}

async fn receive_proof(
    connection: &mut PooledConnection,
    block: &LocatedBlock,
    range: Range<u64>,
) -> Result<GroupValues, StreamFailure> {
    let header = connection.recv_frame_header().await?;
    let mut proof = BytesMut::new();
    if header.kind != FrameKind::Proof {
        return Err(receive_failure(connection, header, &mut proof).await);
    }
    connection.read_exact_into(&mut proof, header.payload_bytes as usize).await?;
    let group = |offset: u64| offset.div_ceil(GROUP_BYTES) as usize;
    let groups = group(range.start)..group(range.end);
    let first = groups.start;
    match verify_proof(&block.chaining_value, group(block.length), groups, &proof) {
        Ok(values) => Ok(GroupValues { first, values }),
        Err(error) => Err(StreamFailure::bad_data(format!("the replica proves nothing: {error}"))),
    }
}

/// Makes of a frame that is not the one that is due what there is to be said.
async fn receive_failure(
    connection: &mut PooledConnection,
    header: FrameHeader,
    buffer: &mut BytesMut,
) -> StreamFailure {
    if header.kind != FrameKind::Error {
        return StreamFailure::protocol(format!("sent a {:?} frame out of turn", header.kind));
    }
    if let Err(error) = connection.read_exact_into(buffer, header.payload_bytes as usize).await {
        return error.into();
    }
    match decode_message::<wire::BlockFailure>(buffer) {
        Ok(failure) => failure.into(),
        Err(error) => StreamFailure::protocol(format!("sent a malformed failure: {error}")),
    }
}
