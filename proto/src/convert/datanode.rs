//! What the namenode orders of a datanode.

use std::time::Duration;

use super::BadMessage;
use super::types::{nodes, value32};
use crate::block::BlockBytes;
use crate::digest::ChainingValue;
use crate::id::{BlockId, Generation};
use crate::limits::{BLOCK_BYTES_MAX, GROUP_BYTES, REPLICATION_MAX};
use crate::node::NodeAddress;
use crate::wire;

/// Something a datanode is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Names the order within the epoch of the message it came in.
    pub id: u64,
    /// From its receipt; what is not done by then is not done at all.
    pub deadline: Duration,
    /// What to do.
    pub kind: OrderKind,
}

/// What a datanode is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderKind {
    /// Send a replica to other nodes.
    Copy(CopyOrder),
    /// Remove a replica.
    Drop {
        /// Whether a replica that the node holds for good is to stay.
        only_bad: bool,
        /// The block.
        block: BlockId,
        /// Its generation; a replica of another one stays.
        generation: Generation,
    },
    /// Read a replica and its sidecar and compare them with the namenode's value.
    Verify(VerifyOrder),
    /// Send the fingerprints of all buckets.
    ReportBuckets,
    /// List what is in these buckets.
    ListBuckets(Vec<u32>),
    /// Fence off the writers of a block and say what is there.
    Recover(RecoverOrder),
    /// Make a replica of what is there.
    Finish(FinishOrder),
    /// End the copy of this order, if it has not ended.
    Cancel(u64),
}

/// A block whose writer left: nobody may go on with it under an older generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoverOrder {
    /// The block.
    pub block: BlockId,
    /// Writers under an older one are fenced off.
    pub generation: Generation,
    /// Where the block starts in its file.
    pub file_offset: u64,
    /// Block size of the file.
    pub block_bytes: BlockBytes,
    /// What readers see: of several copies one that has it is told of.
    pub shown: Option<BlockStart>,
    /// What is on stable storage somewhere: if none has the other, a copy that has this is told of.
    pub floor: Option<BlockStart>,
}

/// The first bytes of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockStart {
    /// How many, not 0.
    pub length: u64,
    /// What they must lead to.
    pub chaining_value: ChainingValue,
}

/// A replica to be made of the start of a block that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FinishOrder {
    /// The block.
    pub block: BlockId,
    /// The replica's.
    pub generation: Generation,
    /// Where the block starts in its file; a multiple of a group.
    pub file_offset: u64,
    /// Bytes to keep, not 0.
    pub length: u64,
    /// What they must lead to.
    pub chaining_value: ChainingValue,
}

/// A replica to send to other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOrder {
    /// The block.
    pub block: BlockId,
    /// Its generation.
    pub generation: Generation,
    /// In bytes, not 0.
    pub length: u64,
    /// What the source must have and the targets must get.
    pub chaining_value: ChainingValue,
    /// Where the block starts in its file.
    pub file_offset: u64,
    /// Block size of the file.
    pub block_bytes: BlockBytes,
    /// The pipeline to send it through; not empty.
    pub targets: Vec<NodeAddress>,
}

/// A replica to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyOrder {
    /// The block.
    pub block: BlockId,
    /// Its generation.
    pub generation: Generation,
    /// In bytes.
    pub length: u64,
    /// What the bytes must lead to.
    pub chaining_value: ChainingValue,
}

impl TryFrom<wire::Order> for Order {
    type Error = BadMessage;

    fn try_from(order: wire::Order) -> Result<Self, BadMessage> {
        use wire::order::Kind;
        let kind = match order.kind {
            Some(Kind::Copy(copy)) => OrderKind::Copy(copy.try_into()?),
            Some(Kind::Drop(drop)) => OrderKind::Drop {
                block: BlockId(drop.block_id),
                generation: Generation(drop.generation),
                only_bad: drop.only_bad,
            },
            Some(Kind::Verify(verify)) => OrderKind::Verify(VerifyOrder {
                block: BlockId(verify.block_id),
                generation: Generation(verify.generation),
                length: verify.length,
                chaining_value: ChainingValue(value32("chaining_value", &verify.chaining_value)?),
            }),
            Some(Kind::ReportBuckets(wire::ReportBuckets {})) => OrderKind::ReportBuckets,
            Some(Kind::ListBuckets(list)) => OrderKind::ListBuckets(list.buckets),
            Some(Kind::Recover(recover)) => OrderKind::Recover(recover.try_into()?),
            Some(Kind::Finish(finish)) => OrderKind::Finish(finish.try_into()?),
            Some(Kind::Cancel(cancel)) => OrderKind::Cancel(cancel.copy_order_id),
            None => return Err(BadMessage::new("kind", "an order unknown to this version")),
        };
        let deadline = Duration::from_millis(u64::from(order.deadline_ms));
        Ok(Self { id: order.order_id, deadline, kind })
    }
}

impl TryFrom<wire::RecoverOrder> for RecoverOrder {
    type Error = BadMessage;

    fn try_from(recover: wire::RecoverOrder) -> Result<Self, BadMessage> {
        let Some(block_bytes) = BlockBytes::new(recover.block_bytes) else {
            return Err(BadMessage::new("block_bytes", format!("{}", recover.block_bytes)));
        };
        check_file_offset(recover.file_offset, block_bytes)?;
        Ok(Self {
            block: BlockId(recover.block_id),
            generation: Generation(recover.generation),
            file_offset: recover.file_offset,
            block_bytes,
            shown: recover.shown.map(TryInto::try_into).transpose()?,
            floor: recover.floor.map(TryInto::try_into).transpose()?,
        })
    }
}

impl TryFrom<wire::BlockStart> for BlockStart {
    type Error = BadMessage;

    fn try_from(start: wire::BlockStart) -> Result<Self, BadMessage> {
        if !(1..=BLOCK_BYTES_MAX).contains(&start.length) {
            return Err(BadMessage::new("length", format!("{} is no block's", start.length)));
        }
        let chaining_value = ChainingValue(value32("chaining_value", &start.chaining_value)?);
        Ok(Self { length: start.length, chaining_value })
    }
}

impl TryFrom<wire::FinishOrder> for FinishOrder {
    type Error = BadMessage;

    fn try_from(finish: wire::FinishOrder) -> Result<Self, BadMessage> {
        if !(1..=BLOCK_BYTES_MAX).contains(&finish.length) {
            return Err(BadMessage::new("length", format!("{} is no block's", finish.length)));
        }
        let end = finish.file_offset.checked_add(BLOCK_BYTES_MAX);
        if !finish.file_offset.is_multiple_of(GROUP_BYTES) || end.is_none() {
            return Err(BadMessage::new("file_offset", "no block starts there"));
        }
        Ok(Self {
            block: BlockId(finish.block_id),
            generation: Generation(finish.generation),
            file_offset: finish.file_offset,
            length: finish.length,
            chaining_value: ChainingValue(value32("chaining_value", &finish.chaining_value)?),
        })
    }
}

fn check_file_offset(file_offset: u64, block_bytes: BlockBytes) -> Result<(), BadMessage> {
    let end = file_offset.checked_add(block_bytes.get());
    if !file_offset.is_multiple_of(block_bytes.get()) || end.is_none() {
        return Err(BadMessage::new("file_offset", "not a multiple of the block size"));
    }
    Ok(())
}

impl TryFrom<wire::CopyOrder> for CopyOrder {
    type Error = BadMessage;

    fn try_from(copy: wire::CopyOrder) -> Result<Self, BadMessage> {
        let Some(block_bytes) = BlockBytes::new(copy.block_bytes) else {
            return Err(BadMessage::new("block_bytes", format!("{}", copy.block_bytes)));
        };
        if !(1..=block_bytes.get()).contains(&copy.length) {
            return Err(BadMessage::new("length", format!("{} of {block_bytes:?}", copy.length)));
        }
        check_file_offset(copy.file_offset, block_bytes)?;
        if copy.targets.is_empty() || copy.targets.len() > REPLICATION_MAX as usize {
            return Err(BadMessage::new("targets", format!("{} targets", copy.targets.len())));
        }
        Ok(Self {
            block: BlockId(copy.block_id),
            generation: Generation(copy.generation),
            length: copy.length,
            chaining_value: ChainingValue(value32("chaining_value", &copy.chaining_value)?),
            file_offset: copy.file_offset,
            block_bytes,
            targets: nodes(copy.targets)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy() -> wire::CopyOrder {
        wire::CopyOrder {
            block_id: 1,
            generation: 1,
            length: 10,
            chaining_value: bytes::Bytes::from(vec![1; 32]),
            file_offset: 0,
            block_bytes: 1 << 20,
            targets: vec![wire::NodeAddress { node_id: 3, ..Default::default() }],
        }
    }

    #[test]
    fn each_broken_rule_of_a_copy_names_its_field() {
        assert!(CopyOrder::try_from(copy()).is_ok());
        let field = |copy: wire::CopyOrder| CopyOrder::try_from(copy).unwrap_err().field;
        assert_eq!(field(wire::CopyOrder { length: 0, ..copy() }), "length");
        assert_eq!(field(wire::CopyOrder { length: (1 << 20) + 1, ..copy() }), "length");
        assert_eq!(field(wire::CopyOrder { block_bytes: 5, ..copy() }), "block_bytes");
        assert_eq!(field(wire::CopyOrder { file_offset: 5, ..copy() }), "file_offset");
        assert_eq!(field(wire::CopyOrder { targets: vec![], ..copy() }), "targets");
        let value = bytes::Bytes::new();
        assert_eq!(field(wire::CopyOrder { chaining_value: value, ..copy() }), "chaining_value");
    }

    #[test]
    fn each_broken_rule_of_a_recovery_names_its_field() {
        let recover =
            wire::RecoverOrder { block_id: 1, block_bytes: 1 << 20, ..Default::default() };
        let field =
            |recover: wire::RecoverOrder| RecoverOrder::try_from(recover).unwrap_err().field;
        let known = RecoverOrder::try_from(recover.clone()).unwrap();
        assert_eq!((known.shown, known.floor), (None, None));
        assert_eq!(field(wire::RecoverOrder { block_bytes: 5, ..recover.clone() }), "block_bytes");
        assert_eq!(field(wire::RecoverOrder { file_offset: 5, ..recover.clone() }), "file_offset");
        let start = wire::BlockStart { length: 7, chaining_value: vec![1; 32].into() };
        for (length, bytes, name) in [(0, 32, "length"), (7, 31, "chaining_value")] {
            let wrong = wire::BlockStart { length, chaining_value: vec![1; bytes].into() };
            let (shown, floor) = (Some(wrong.clone()), Some(start.clone()));
            assert_eq!(field(wire::RecoverOrder { shown, floor, ..recover.clone() }), name);
            let (shown, floor) = (Some(start.clone()), Some(wrong));
            assert_eq!(field(wire::RecoverOrder { shown, floor, ..recover.clone() }), name);
        }

        let chaining_value = bytes::Bytes::from(vec![1; 32]);
        let finish = || wire::FinishOrder {
            length: 1,
            chaining_value: chaining_value.clone(),
            ..Default::default()
        };
        assert!(FinishOrder::try_from(finish()).is_ok());
        let field = |finish: wire::FinishOrder| FinishOrder::try_from(finish).unwrap_err().field;
        assert_eq!(field(wire::FinishOrder { length: 0, ..finish() }), "length");
        assert_eq!(field(wire::FinishOrder { file_offset: 5, ..finish() }), "file_offset");
        let chaining_value = bytes::Bytes::new();
        assert_eq!(field(wire::FinishOrder { chaining_value, ..finish() }), "chaining_value");
    }

    #[test]
    fn an_order_of_a_later_version_is_refused_by_name() {
        let order = wire::Order { order_id: 1, deadline_ms: 5, kind: None };
        assert_eq!(Order::try_from(order).unwrap_err().field, "kind");
    }
}
