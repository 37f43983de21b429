//! What a datanode is asked on a block stream.

use super::BadMessage;
use super::types::{nodes, short_text, value32};
use crate::block::BlockBytes;
use crate::digest::ChainingValue;
use crate::file::Durability;
use crate::id::{BlockId, Generation, NodeId};
use crate::limits::{BLOCK_BYTES_MAX, REPLICATION_MAX};
use crate::node::NodeAddress;
use crate::wire;

/// One request on a block stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRequest {
    /// Id of the request this belongs to, for the logs.
    pub trace: String,
    /// What is asked.
    pub operation: BlockOperation,
}

/// What is asked of a datanode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlockOperation {
    /// To store a block, and to forward it.
    Write(WriteBlock),
    /// To send a range of a replica.
    Read(ReadBlock),
}

/// A block to store; data frames follow at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteBlock {
    /// The block.
    pub id: BlockId,
    /// The attempt.
    pub generation: Generation,
    /// Where the block starts in its file; a multiple of the block size.
    pub file_offset: u64,
    /// The most that may come.
    pub block_bytes: BlockBytes,
    /// Of the write as a whole.
    pub durability: Durability,
    /// Nodes to forward to: to the first of them, with the rest.
    pub downstream: Vec<NodeAddress>,
    /// In the pipeline; 0 is the first datanode.
    pub position: u32,
    /// Who writes, for people.
    pub writer: String,
    /// For a copy ordered by the namenode: what it must turn out to be.
    pub repair: Option<ExpectedBlock>,
    /// Set if the write goes on behind bytes that some of the nodes have.
    pub resume: Option<Resume>,
}

/// Where a write goes on, and who has what comes before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// Bytes before, not 0.
    pub length: u64,
    /// Value of the tree over them.
    pub chaining_value: ChainingValue,
    /// The first nodes of the pipeline, which have them; never empty. The others get them from the node before.
    pub holders: Vec<NodeId>,
}

/// What a repair copy must turn out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedBlock {
    /// In bytes, not 0.
    pub length: u64,
    /// The block's value.
    pub chaining_value: ChainingValue,
}

/// A range of a replica to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadBlock {
    /// The block.
    pub id: BlockId,
    /// The attempt.
    pub generation: Generation,
    /// In the block.
    pub offset: u64,
    /// In bytes, not 0.
    pub length: u64,
    /// What the reader knows the block's length to be: the proof is for the tree over so many bytes, and another
    /// generation may answer. `None`: the replica's own length, and this generation only.
    pub block_length: Option<u64>,
    /// The proof alone, without the bytes.
    pub values_only: bool,
}

impl TryFrom<wire::BlockRequest> for BlockRequest {
    type Error = BadMessage;

    fn try_from(request: wire::BlockRequest) -> Result<Self, BadMessage> {
        let trace = short_text("trace", request.trace)?;
        let operation = match request.operation {
            Some(wire::block_request::Operation::Write(write)) => {
                BlockOperation::Write(write.try_into()?)
            }
            Some(wire::block_request::Operation::Read(read)) => {
                BlockOperation::Read(read.try_into()?)
            }
            None => return Err(BadMessage::new("operation", "neither a write nor a read")),
        };
        Ok(Self { trace, operation })
    }
}

impl TryFrom<wire::WriteBlock> for WriteBlock {
    type Error = BadMessage;

    fn try_from(write: wire::WriteBlock) -> Result<Self, BadMessage> {
        let durability = write.durability().into();
        let Some(block_bytes) = BlockBytes::new(write.block_bytes) else {
            return Err(BadMessage::new("block_bytes", format!("{}", write.block_bytes)));
        };
        let end = write.file_offset.checked_add(block_bytes.get());
        if !write.file_offset.is_multiple_of(block_bytes.get()) || end.is_none() {
            return Err(BadMessage::new("file_offset", "not a multiple of the block size"));
        }
        if write.downstream.len() > REPLICATION_MAX as usize || write.position > REPLICATION_MAX {
            return Err(BadMessage::new("downstream", "a longer pipeline than any block has"));
        }
        let repair = match write.repair {
            false => None,
            true if (1..=block_bytes.get()).contains(&write.expected_length) => {
                let value = value32("expected_chaining_value", &write.expected_chaining_value)?;
                let chaining_value = ChainingValue(value);
                Some(ExpectedBlock { length: write.expected_length, chaining_value })
            }
            true => return Err(BadMessage::new("expected_length", "not the length of a block")),
        };
        let resume = write.resume.map(|resume| check_resume(resume, block_bytes)).transpose()?;
        if resume.is_some() && repair.is_some() {
            return Err(BadMessage::new("resume", "a repair copy starts at the first byte"));
        }
        Ok(Self {
            id: block_id(write.block_id)?,
            generation: Generation(write.generation),
            file_offset: write.file_offset,
            block_bytes,
            durability,
            downstream: nodes(write.downstream)?,
            position: write.position,
            writer: short_text("writer", write.writer)?,
            repair,
            resume,
        })
    }
}

fn check_resume(resume: wire::Resume, block_bytes: BlockBytes) -> Result<Resume, BadMessage> {
    if !(1..=block_bytes.get()).contains(&resume.length) {
        return Err(BadMessage::new("resume.length", "not the length of a block"));
    }
    let holders: Vec<NodeId> = resume.holders.into_iter().map(NodeId).collect();
    if holders.is_empty() || holders.len() > REPLICATION_MAX as usize {
        return Err(BadMessage::new("resume.holders", "nobody, or more than any pipeline has"));
    }
    let value = value32("resume.chaining_value", &resume.chaining_value)?;
    Ok(Resume { length: resume.length, chaining_value: ChainingValue(value), holders })
}

impl From<Resume> for wire::Resume {
    fn from(resume: Resume) -> Self {
        Self {
            length: resume.length,
            chaining_value: resume.chaining_value.to_bytes(),
            holders: resume.holders.into_iter().map(|node| node.0).collect(),
        }
    }
}

impl From<WriteBlock> for wire::WriteBlock {
    fn from(write: WriteBlock) -> Self {
        Self {
            block_id: write.id.0,
            generation: write.generation.0,
            file_offset: write.file_offset,
            block_bytes: write.block_bytes.get(),
            durability: wire::Durability::from(write.durability) as i32,
            downstream: write.downstream.into_iter().map(Into::into).collect(),
            position: write.position,
            repair: write.repair.is_some(),
            writer: write.writer,
            expected_length: write.repair.map_or(0, |expected| expected.length),
            expected_chaining_value: write
                .repair
                .map(|expected| expected.chaining_value.to_bytes())
                .unwrap_or_default(),
            resume: write.resume.map(Into::into),
        }
    }
}

impl TryFrom<wire::ReadBlock> for ReadBlock {
    type Error = BadMessage;

    fn try_from(read: wire::ReadBlock) -> Result<Self, BadMessage> {
        if read.length == 0 || read.offset.checked_add(read.length).is_none() {
            return Err(BadMessage::new("length", "a range has at least one byte"));
        }
        let block_length = (read.block_length != 0).then_some(read.block_length);
        if block_length
            .is_some_and(|length| length > BLOCK_BYTES_MAX || length < read.offset + read.length)
        {
            return Err(BadMessage::new(
                "block_length",
                "shorter than the range, or than no block",
            ));
        }
        Ok(Self {
            id: block_id(read.block_id)?,
            generation: Generation(read.generation),
            offset: read.offset,
            length: read.length,
            block_length,
            values_only: read.values_only,
        })
    }
}

impl From<ReadBlock> for wire::ReadBlock {
    fn from(read: ReadBlock) -> Self {
        Self {
            block_id: read.id.0,
            generation: read.generation.0,
            offset: read.offset,
            length: read.length,
            block_length: read.block_length.unwrap_or(0),
            values_only: read.values_only,
        }
    }
}

impl From<BlockRequest> for wire::BlockRequest {
    fn from(request: BlockRequest) -> Self {
        let operation = match request.operation {
            BlockOperation::Write(write) => wire::block_request::Operation::Write(write.into()),
            BlockOperation::Read(read) => wire::block_request::Operation::Read(read.into()),
        };
        Self { trace: request.trace, operation: Some(operation) }
    }
}

fn block_id(id: u64) -> Result<BlockId, BadMessage> {
    if id == 0 { Err(BadMessage::new("block_id", "0 names no block")) } else { Ok(BlockId(id)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;
    use crate::node::NodeState;

    fn write() -> WriteBlock {
        let address = "127.0.0.1:9".to_owned();
        let rack = "/r1".to_owned();
        WriteBlock {
            id: BlockId(7),
            generation: Generation(1),
            file_offset: 3 << 20,
            block_bytes: BlockBytes::new(1 << 20).unwrap(),
            durability: Durability::One,
            downstream: vec![NodeAddress { id: NodeId(2), address, rack, state: NodeState::Live }],
            position: 1,
            writer: "put".to_owned(),
            repair: Some(ExpectedBlock { length: 5, chaining_value: ChainingValue([9; 32]) }),
            resume: None,
        }
    }

    fn resumed() -> WriteBlock {
        let (chaining_value, holders) = (ChainingValue([8; 32]), vec![NodeId(2)]);
        let resume = Some(Resume { length: 7, chaining_value, holders });
        WriteBlock { repair: None, resume, ..write() }
    }

    fn field_of(wire: wire::WriteBlock) -> &'static str {
        WriteBlock::try_from(wire).unwrap_err().field
    }

    #[test]
    fn requests_survive_the_wire() {
        let read = ReadBlock {
            id: BlockId(1),
            generation: Generation(2),
            offset: 3,
            length: 4,
            block_length: Some(7),
            values_only: true,
        };
        for operation in [
            BlockOperation::Write(write()),
            BlockOperation::Write(resumed()),
            BlockOperation::Read(read),
        ] {
            let request = BlockRequest { trace: "t".to_owned(), operation };
            assert_eq!(
                BlockRequest::try_from(wire::BlockRequest::from(request.clone())),
                Ok(request)
            );
        }
    }

    #[test]
    fn each_broken_rule_names_its_field() {
        let good = || wire::WriteBlock::from(write());
        assert_eq!(field_of(wire::WriteBlock { block_id: 0, ..good() }), "block_id");
        assert_eq!(field_of(wire::WriteBlock { block_bytes: 3 << 20, ..good() }), "block_bytes");
        assert_eq!(field_of(wire::WriteBlock { file_offset: 1 << 19, ..good() }), "file_offset");
        assert_eq!(field_of(wire::WriteBlock { position: 17, ..good() }), "downstream");
        assert_eq!(field_of(wire::WriteBlock { expected_length: 0, ..good() }), "expected_length");
        let too_long = wire::WriteBlock { expected_length: (1 << 20) + 1, ..good() };
        assert_eq!(field_of(too_long), "expected_length");
        let short = bytes::Bytes::from_static(b"short");
        let short = wire::WriteBlock { expected_chaining_value: short, ..good() };
        assert_eq!(field_of(short), "expected_chaining_value");
        let writer = "x".repeat(2000);
        assert_eq!(field_of(wire::WriteBlock { writer, ..good() }), "writer");

        let resumed = || wire::WriteBlock::from(resumed());
        let with = |resume| wire::WriteBlock { resume: Some(resume), ..resumed() };
        let resume = || resumed().resume.unwrap();
        assert_eq!(field_of(with(wire::Resume { length: 0, ..resume() })), "resume.length");
        assert_eq!(field_of(with(wire::Resume { holders: vec![], ..resume() })), "resume.holders");
        let repaired = wire::WriteBlock { repair: true, expected_length: 5, ..resumed() };
        let expected_chaining_value = ChainingValue([9; 32]).to_bytes();
        assert_eq!(field_of(wire::WriteBlock { expected_chaining_value, ..repaired }), "resume");

        let read = wire::ReadBlock {
            block_id: 1,
            generation: 1,
            offset: u64::MAX,
            length: 1,
            ..wire::ReadBlock::default()
        };
        assert_eq!(ReadBlock::try_from(read).unwrap_err().field, "length");
        let read = wire::ReadBlock { offset: 5, block_length: 5, ..read };
        assert_eq!(ReadBlock::try_from(read).unwrap_err().field, "block_length");
        let empty = wire::BlockRequest { trace: String::new(), operation: None };
        assert_eq!(BlockRequest::try_from(empty).unwrap_err().field, "operation");
    }
}
