//! What the fake servers share: nodes, replicas, files.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use doldam_proto::block::{AllocatedBlock, BlockCommit, LocatedBlock};
use doldam_proto::digest::file::file_digest;
use doldam_proto::digest::{BlockDigest, BlockTree, ChainingValue};
use doldam_proto::file::{Durability, FileKind, FileStatus};
use doldam_proto::id::{BlockId, Generation, InodeId, NodeId};
use doldam_proto::limits::GROUP_BYTES;
use doldam_proto::node::{NodeAddress, NodeState};
use parking_lot::Mutex;

/// A replica on a fake datanode.
#[derive(Clone)]
pub(crate) struct Replica {
    pub(crate) generation: Generation,
    pub(crate) file_offset: u64,
    pub(crate) content: Bytes,
}

/// A file that is visible.
#[derive(Clone)]
pub(crate) struct File {
    pub(crate) status: FileStatus,
    pub(crate) blocks: Vec<LocatedBlock>,
}

/// A file being written.
#[derive(Clone, Default)]
pub(crate) struct Pending {
    pub(crate) path: String,
    pub(crate) block_bytes: u64,
    pub(crate) replication: u32,
    pub(crate) durability: Durability,
    pub(crate) blocks: BTreeMap<u32, (AllocatedBlock, Option<BlockCommit>)>,
    /// What is visible of open blocks.
    pub(crate) parts: BTreeMap<BlockId, Part>,
}

/// The start of an open block that was flushed, or there before.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) length: u64,
    pub(crate) nodes: Vec<NodeId>,
}

#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) nodes: BTreeMap<NodeId, NodeAddress>,
    pub(crate) replicas: BTreeMap<(NodeId, BlockId), Replica>,
    pub(crate) files: BTreeMap<String, File>,
    pub(crate) directories: BTreeSet<String>,
    pub(crate) pending: BTreeMap<u64, Pending>,
    pub(crate) next_id: u64,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) tables: Mutex<Tables>,
}

impl State {
    pub(crate) fn register(&self, id: NodeId, address: String) {
        let node = NodeAddress { id, address, rack: "/r".to_owned(), state: NodeState::Live };
        self.tables.lock().nodes.insert(id, node);
    }

    /// The bytes of a visible file as its replicas on `node` hold them.
    pub(crate) fn content_on(&self, path: &str, node: u32) -> Option<Vec<u8>> {
        let tables = self.tables.lock();
        let file = tables.files.get(path)?;
        let mut content = Vec::new();
        for block in &file.blocks {
            content.extend_from_slice(&tables.replicas.get(&(NodeId(node), block.id))?.content);
        }
        Some(content)
    }

    pub(crate) fn add_file(&self, path: &str, content: &[u8], block_bytes: u64, nodes: &[u32]) {
        let mut tables = self.tables.lock();
        let holders: Vec<NodeAddress> =
            nodes.iter().map(|id| tables.nodes[&NodeId(*id)].clone()).collect();
        let inode = InodeId(tables.take_id());
        let (mut blocks, mut digests) = (Vec::new(), Vec::new());
        for (index, part) in content.chunks(block_bytes as usize).enumerate() {
            let id = BlockId(tables.take_id());
            let offset = index as u64 * block_bytes;
            let digest = digest_of(offset, part);
            let content = Bytes::copy_from_slice(part);
            let replica = Replica { generation: Generation(1), file_offset: offset, content };
            for holder in &holders {
                tables.replicas.insert((holder.id, id), replica.clone());
            }
            blocks.push(LocatedBlock {
                id,
                generation: Generation(1),
                index: index as u32,
                offset,
                length: part.len() as u64,
                chaining_value: digest.chaining_value,
                replicas: holders.clone(),
            });
            digests.push(digest);
        }
        let rest: Vec<ChainingValue> =
            digests.iter().skip(1).map(|digest| digest.chaining_value).collect();
        let status = FileStatus {
            path: path.to_owned(),
            inode,
            kind: FileKind::File,
            length: content.len() as u64,
            replication: nodes.len() as u32,
            block_bytes,
            modified_ms: 1,
            created_ms: 1,
            digest: file_digest(digests.first(), &rest),
            durability: Some(Durability::All),
            being_written: false,
        };
        tables.files.insert(path.to_owned(), File { status, blocks });
    }
}

impl Tables {
    pub(crate) fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

/// The tree over the start of a block.
pub(crate) fn tree_over(file_offset: u64, content: &[u8]) -> BlockTree {
    let mut tree = BlockTree::new(file_offset);
    for group in content.chunks(GROUP_BYTES as usize) {
        tree.push_group(group);
    }
    tree
}

pub(crate) fn digest_of(file_offset: u64, content: &[u8]) -> BlockDigest {
    tree_over(file_offset, content).digest().unwrap()
}
