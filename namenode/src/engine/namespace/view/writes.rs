//! Unfinished writes, who holds them, and what is being written.

use doldam_proto::digest::{ChainingValue, FileDigest};
use doldam_proto::file::Durability;
use doldam_proto::id::{BlockId, ClientId, Generation, InodeId, NodeId};
use doldam_proto::path::FsPath;
use doldam_proto::wire::BlockRecord;

use super::blocks::{Block, block, find};
use crate::engine::namespace::NamespaceError;
use crate::engine::namespace::append::tail_of;
use crate::engine::namespace::lease::{Write, find_write};
use crate::engine::namespace::open_block::{
    floor, floor_holders, has_flushed, in_progress, writing_nodes,
};
use crate::engine::namespace::recovery::NAMENODE;
use crate::engine::namespace::resolve::{ascend, lookup, place};
use crate::engine::records::{BREAK, CONTINUE, blocks, children, damaged, inodes, leases, pending};
use crate::engine::tables::{StoreError, Table, Tables};

/// A write as whoever places its blocks needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteView {
    /// The handle.
    pub inode: InodeId,
    /// Where the file will appear, for people.
    pub path: String,
    /// Who writes.
    pub client: ClientId,
    /// Who writes, for people.
    pub holder: String,
    /// Wanted replicas.
    pub replication: u32,
    /// Block size.
    pub block_bytes: u64,
    /// What the writer asked for.
    pub durability: Durability,
    /// Whether readers see the file: then it is recovered if its writer is gone, else given up.
    pub visible: bool,
}

impl WriteView {
    /// Whether the writer is gone, and the namenode closes the file.
    pub fn is_in_recovery(&self) -> bool {
        self.client == NAMENODE
    }
}

/// The write with the handle `inode`; `None` if it was completed, given up or never started.
///
/// # Errors
/// If the store fails.
pub fn unfinished_write(
    tables: &dyn Tables,
    inode: InodeId,
) -> Result<Option<WriteView>, NamespaceError> {
    let Some(write) = find_write(tables, inode)? else { return Ok(None) };
    from_write(tables, write).map(Some)
}

/// The write that holds the name `path`: that of the file which is there, or one that waits to take the name.
///
/// # Errors
/// If the store fails.
pub fn writer_of_path(
    tables: &dyn Tables,
    path: &FsPath,
) -> Result<Option<WriteView>, NamespaceError> {
    let place = match place(tables, path) {
        Ok(Some(place)) => place,
        Ok(None) | Err(NamespaceError::Refused(_)) => return Ok(None),
        Err(error @ NamespaceError::Store(_)) => return Err(error),
    };
    if let Some(inode) = children::get(tables, place.parent, place.name)?
        && let Some(write) = unfinished_write(tables, inode)?
    {
        return Ok(Some(write));
    }
    match pending::get(tables, place.parent, place.name)? {
        Some(inode) => unfinished_write(tables, inode),
        None => Ok(None),
    }
}

/// A block that is being written, as whoever places its next generation needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WritingBlock {
    /// Position in the file.
    pub index: u32,
    /// The nodes it is written to.
    pub targets: Vec<NodeId>,
    /// Bytes that any further generation starts with.
    pub floor: u64,
    /// Nodes that have those.
    pub holders: Vec<NodeId>,
}

/// What is being written of the block `id` of the write `inode`; `None` if nothing is.
///
/// # Errors
/// If the store fails.
pub fn writing_block(
    tables: &dyn Tables,
    inode: InodeId,
    id: BlockId,
) -> Result<Option<WritingBlock>, StoreError> {
    let Some((owner, index, record)) = find(tables, id)? else { return Ok(None) };
    let Some(writing) = in_progress(&record).filter(|_| owner == inode) else { return Ok(None) };
    Ok(Some(WritingBlock {
        index,
        targets: node_ids(writing.targets),
        floor: floor(&record),
        holders: node_ids(floor_holders(&record)),
    }))
}

/// A file to be appended to, as whoever chooses the nodes needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// Wanted replicas of the file.
    pub replication: u32,
    /// Block size of the file.
    pub block_bytes: u64,
    /// The block that the first new byte falls into, if it is not at a block's bound.
    pub block: Option<Block>,
}

/// What a write at `cut`, or at the end of the file at `path`, goes on with. The block is `None` also for a file that
/// is being written.
///
/// # Errors
/// `NotFound`, `NotADirectory`, `IsADirectory`, or the store failed.
pub fn tail(tables: &dyn Tables, path: &FsPath, cut: Option<u64>) -> Result<Tail, NamespaceError> {
    let inode = lookup(tables, path)?;
    let record = inodes::require(tables, inode)?;
    let Some(file) = &record.file else {
        let path = path.as_str().to_owned();
        return Err(doldam_proto::FsError::IsADirectory { path }.into());
    };
    let length = cut.map_or(file.length, |cut| cut.min(file.length));
    let found = match &file.pending {
        Some(_) => None,
        None => tail_of(tables, inode, file, length)?,
    };
    let found = match found {
        Some((_, record)) => block(tables, BlockId(record.block_id))?,
        None => None,
    };
    let (replication, block_bytes) = (file.replication, file.block_bytes);
    Ok(Tail { replication, block_bytes, block: found })
}

/// What of a block in recovery is on stable storage, as far as the namenode knows: the file never ends before that by
/// itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Floor {
    /// Nothing: the file may end with the block before.
    Nothing,
    /// All that was committed before it was written on.
    Committed {
        /// Under which generation.
        generation: Generation,
        /// In bytes.
        length: u64,
        /// Their value.
        chaining_value: ChainingValue,
        /// Block 0: the digest of the file if it is so long.
        root_value: Option<FileDigest>,
    },
    /// What a sync told.
    Synced {
        /// In bytes.
        length: u64,
        /// Their value.
        chaining_value: ChainingValue,
        /// Block 0: the digest of the file if it is so long.
        root_value: Option<FileDigest>,
    },
    /// So many bytes of what was committed before they were cut off there; their value is not known.
    Cut {
        /// In bytes.
        length: u64,
    },
}

impl Floor {
    /// In bytes.
    pub fn length(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Committed { length, .. } | Self::Synced { length, .. } | Self::Cut { length } => {
                length
            }
        }
    }

    /// The value of so many bytes, if it is known.
    pub fn chaining_value(self) -> Option<ChainingValue> {
        match self {
            Self::Committed { chaining_value, .. } | Self::Synced { chaining_value, .. } => {
                Some(chaining_value)
            }
            Self::Nothing | Self::Cut { .. } => None,
        }
    }

    fn of(block: &BlockRecord) -> Option<Self> {
        let value = |bytes: &[u8]| ChainingValue::from_slice(bytes);
        Some(match (&block.synced, &block.open) {
            (Some(synced), _) => Self::Synced {
                length: synced.length,
                chaining_value: value(&synced.chaining_value)?,
                root_value: FileDigest::from_slice(&synced.root_value),
            },
            (None, Some(open)) if open.start < block.length => Self::Cut { length: open.start },
            (None, Some(_)) => Self::Committed {
                generation: Generation(block.generation),
                length: block.length,
                chaining_value: value(&block.chaining_value)?,
                root_value: FileDigest::from_slice(&block.root_value),
            },
            (None, None) => Self::Nothing,
        })
    }
}

/// A file that is being recovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovering {
    /// The file.
    pub inode: InodeId,
    /// Its last block.
    pub block: BlockId,
    /// The generation that no writer has.
    pub generation: Generation,
    /// Where the block starts in the file.
    pub file_offset: u64,
    /// Block size of the file.
    pub block_bytes: u64,
    /// Bytes of the block that readers see.
    pub length: u64,
    /// Their value.
    pub chaining_value: ChainingValue,
    /// Block 0: the digest of the file if it is so long.
    pub root_value: Option<FileDigest>,
    /// Nodes that may have some of the block.
    pub nodes: Vec<NodeId>,
    /// Those that may have what readers see of it.
    pub must_answer: Vec<NodeId>,
    /// What is on stable storage.
    pub floor: Floor,
}

/// What is to be found out of the file `inode`; `None` if it is not being recovered.
///
/// # Errors
/// If the store fails.
pub fn recovering(tables: &dyn Tables, inode: InodeId) -> Result<Option<Recovering>, StoreError> {
    let Some(file) = inodes::get(tables, inode)?.and_then(|record| record.file) else {
        return Ok(None);
    };
    let is_ours = |write: &doldam_proto::wire::PendingWrite| {
        write.client_id == NAMENODE.0.as_slice() && write.visible
    };
    if !file.pending.as_ref().is_some_and(is_ours) {
        return Ok(None);
    }
    let last = file.block_count.saturating_sub(1);
    let mut open = None;
    blocks::scan(tables, inode, last, &mut |index, record| {
        let is_open = in_progress(&record).is_some();
        if is_open {
            open = Some((index, record));
        }
        if is_open { BREAK } else { CONTINUE }
    })?;
    let wrong = || damaged(Table::Blocks, format!("{inode} is recovered and has no open block"));
    let (index, record) = open.ok_or_else(wrong)?;
    let (Some(writing), Some(flushed)) = (in_progress(&record), &record.flushed) else {
        return Err(wrong());
    };
    let mut nodes = writing_nodes(&record);
    if record.committed {
        nodes.extend(&record.replicas);
    }
    let nodes = each_once(&nodes);
    // What was committed has it too, if it was only cut.
    let is_old = record.committed && flushed.length <= record.length;
    let must_answer = if is_old { nodes.clone() } else { node_ids(&flushed.nodes) };
    Ok(Some(Recovering {
        inode,
        block: BlockId(record.block_id),
        generation: Generation(writing.generation),
        file_offset: u64::from(index) * file.block_bytes,
        block_bytes: file.block_bytes,
        length: flushed.length,
        chaining_value: ChainingValue::from_slice(&flushed.chaining_value).ok_or_else(wrong)?,
        root_value: FileDigest::from_slice(&flushed.root_value),
        nodes,
        must_answer,
        floor: Floor::of(&record).ok_or_else(wrong)?,
    }))
}

/// Files after `after` (0: from the first) that are being recovered, in order of ids, at most `max`.
///
/// # Errors
/// If the store fails.
pub fn in_recovery(
    tables: &dyn Tables,
    after: InodeId,
    max: usize,
) -> Result<Vec<InodeId>, StoreError> {
    let mut found = Vec::new();
    leases::scan_from(tables, NAMENODE, after.0.saturating_add(1), &mut |inode| {
        if found.len() == max {
            return BREAK;
        }
        found.push(inode);
        CONTINUE
    })?;
    Ok(found)
}

fn each_once(nodes: &[u32]) -> Vec<NodeId> {
    let mut found = Vec::new();
    for node in node_ids(nodes) {
        if !found.contains(&node) {
            found.push(node);
        }
    }
    found
}

fn node_ids(nodes: &[u32]) -> Vec<NodeId> {
    nodes.iter().map(|node| NodeId(*node)).collect()
}

/// Clients after `after` (`None`: from the first) that write anything, in order of ids, at most
/// `max`. What is being recovered is no client's.
///
/// # Errors
/// If the store fails.
pub fn lease_holders(
    tables: &dyn Tables,
    after: Option<ClientId>,
    max: usize,
) -> Result<Vec<ClientId>, StoreError> {
    let mut found = Vec::new();
    let mut last = after.or(Some(NAMENODE));
    while found.len() < max {
        let Some(client) = leases::next_client(tables, last)? else { break };
        found.push(client);
        last = Some(client);
    }
    Ok(found)
}

/// Whether `client` writes anything, that is, has a lease to renew or to lose.
///
/// # Errors
/// If the store fails.
pub fn writes_anything(tables: &dyn Tables, client: ClientId) -> Result<bool, StoreError> {
    let mut any = false;
    leases::scan(tables, client, &mut |_| {
        any = true;
        BREAK
    })?;
    Ok(any)
}

/// How many blocks are being written to `node` by the first `writes_max` unfinished writes.
///
/// # Errors
/// If the store fails.
pub fn open_blocks_on(
    tables: &dyn Tables,
    node: NodeId,
    writes_max: usize,
) -> Result<u64, StoreError> {
    let (mut writes, mut found) = (0, 0);
    leases::scan_all(tables, &mut |_, inode| {
        writes += 1;
        blocks::scan(tables, inode, 0, &mut |_, block| {
            found += u64::from(is_open_on(&block, node.0));
            CONTINUE
        })?;
        if writes == writes_max { BREAK } else { CONTINUE }
    })?;
    Ok(found)
}

/// Whether a node has, or is getting, what is not committed yet or is committed under another generation.
fn is_open_on(block: &BlockRecord, node: u32) -> bool {
    let finished = block.open.as_ref().and_then(|open| open.commit.as_ref());
    in_progress(block).is_some_and(|writing| writing.targets.contains(&node))
        || finished.is_some_and(|commit| commit.node_ids.contains(&node))
        || has_flushed(block, node)
}

fn from_write(tables: &dyn Tables, write: Write) -> Result<WriteView, NamespaceError> {
    let wrong = || damaged(Table::Inodes, format!("the writer of {} has no id", write.id));
    let client = ClientId::from_slice(&write.pending.client_id).ok_or_else(wrong)?;
    Ok(WriteView {
        inode: write.id,
        path: ascend(tables, write.id, &write.inode)?.for_people(),
        client,
        replication: write.file.replication,
        block_bytes: write.file.block_bytes,
        durability: write.file.durability().into(),
        visible: write.pending.visible,
        holder: write.pending.holder,
    })
}
