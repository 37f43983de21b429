//! What the namenode orders of a datanode.

use std::time::Duration;

use super::BadMessage;
use super::types::{nodes, value32};
use crate::block::BlockBytes;
use crate::digest::ChainingValue;
use crate::id::{BlockId, Generation};
use crate::limits::REPLICATION_MAX;
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
            None => return Err(BadMessage::new("kind", "an order unknown to this version")),
        };
        let deadline = Duration::from_millis(u64::from(order.deadline_ms));
        Ok(Self { id: order.order_id, deadline, kind })
    }
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
        let end = copy.file_offset.checked_add(block_bytes.get());
        if !copy.file_offset.is_multiple_of(block_bytes.get()) || end.is_none() {
            return Err(BadMessage::new("file_offset", "not a multiple of the block size"));
        }
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
    fn an_order_of_a_later_version_is_refused_by_name() {
        let order = wire::Order { order_id: 1, deadline_ms: 5, kind: None };
        assert_eq!(Order::try_from(order).unwrap_err().field, "kind");
    }
}
