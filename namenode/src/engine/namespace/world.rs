//! A namespace in memory for tests: runs commands, and checks after each what holds after all of
//! them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use doldam_proto::FsError;
use doldam_proto::fingerprint::ReplicaId;
use doldam_proto::id::{BlockId, ClientId, Generation, InodeId, NodeId};
use doldam_proto::path::FsPath;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{
    AllocateBlockCommand, AllocateOutcome, AppendCommand, AppendOutcome, BlockCommit,
    CollectGarbageCommand, Command, CommitBlocksCommand, CompleteCommand, CompleteOutcome,
    CreateCommand, CreateOutcome, DeleteCommand, DroppedReplica, FileStatus, FlushCommand,
    FormatCommand, GarbageOutcome, MkdirCommand, Outcome, RecoverBlockCommand, RegisterNodeCommand,
    RenameCommand, RequestId,
};

use super::view::{self, Standing};
use super::{Applied, apply, open_block};
use crate::engine::invariant;
use crate::engine::records::{CONTINUE, blocks};
use crate::engine::tables::{MemoryTables, Table};

/// Block size of the files of tests.
pub(super) const BLOCK: u64 = 64 * 1024;
/// Datanodes of a new world: 1 to 4.
pub(super) const NODES: u32 = 4;

pub(super) struct World {
    pub(super) tables: MemoryTables,
    /// Every command that was not refused, in order.
    pub(super) history: Vec<Command>,
    /// Replicas that were written or may have been, and not dropped since.
    pub(super) on_disk: BTreeSet<(u32, u64)>,
    time_ms: u64,
    sequences: BTreeMap<u8, u64>,
}

pub(super) fn client_id(client: u8) -> ClientId {
    ClientId([client; 16])
}

pub(super) fn path(text: &str) -> FsPath {
    FsPath::parse(text).unwrap()
}

impl World {
    /// Formatted, with [`NODES`] datanodes.
    pub(super) fn new() -> Self {
        let mut world = Self {
            tables: MemoryTables::new(),
            history: Vec::new(),
            on_disk: BTreeSet::new(),
            time_ms: 1000,
            sequences: BTreeMap::new(),
        };
        let format = FormatCommand { cluster_id: Bytes::from_static(&[7; 16]) };
        world.own(Change::Format(format)).unwrap();
        for node in 1..=NODES {
            let outcome = world.own(register(node)).unwrap();
            let Some(Kind::RegisterNode(registered)) = outcome.kind else { panic!("{outcome:?}") };
            assert_eq!(registered.node_id, node);
        }
        world
    }

    /// Runs a command of the namenode's own.
    pub(super) fn own(&mut self, change: Change) -> Result<Outcome, FsError> {
        self.time_ms += 1;
        let command = Command { time_ms: self.time_ms, request: None, change: Some(change) };
        self.run(command)
    }

    /// Runs a new request of `client`.
    pub(super) fn request(&mut self, client: u8, change: Change) -> Result<Outcome, FsError> {
        self.time_ms += 1;
        let command = self.command(client, change);
        self.run(command)
    }

    /// A new request of `client`, not run yet.
    pub(super) fn command(&mut self, client: u8, change: Change) -> Command {
        let sequence = self.sequences.entry(client).or_default();
        *sequence += 1;
        let request = RequestId {
            client_id: client_id(client).to_bytes(),
            sequence: *sequence,
            answered_below: 0,
        };
        Command { time_ms: self.time_ms, request: Some(request), change: Some(change) }
    }

    /// Runs a command twice on the same state, takes the changes over, and checks what always
    /// holds.
    pub(super) fn run(&mut self, command: Command) -> Result<Outcome, FsError> {
        let Applied { outcome, changes } = apply(&self.tables, &command).unwrap();
        let again = apply(&self.tables, &command).unwrap();
        assert_eq!((&again.outcome, &again.changes), (&outcome, &changes), "not deterministic");
        if outcome.is_err() {
            assert!(changes.is_empty(), "a refusal changed something");
            return outcome;
        }
        self.tables.apply_changes(changes);
        let violations = invariant::check(&self.tables);
        assert!(violations.is_empty(), "{command:?}: {violations:#?}");
        if command.request.is_some() {
            let retried = apply(&self.tables, &command).unwrap();
            assert!(retried.changes.is_empty(), "a retry changed something: {command:?}");
            assert_eq!(
                retried.outcome.map(|outcome| outcome.kind).as_ref(),
                outcome.as_ref().map(|outcome| &outcome.kind),
            );
        }
        self.note_replicas(outcome.as_ref().unwrap());
        self.history.push(command);
        outcome
    }

    /// What is dropped is owned by nobody; whatever was owned at some time and not dropped is on
    /// disk.
    fn note_replicas(&mut self, outcome: &Outcome) {
        blocks::scan_all(&self.tables, &mut |_, _, block| {
            let nodes = block.replicas.iter().chain(&block.bad_replicas).copied();
            let nodes = nodes.chain(open_block::writing_nodes(&block));
            self.on_disk.extend(nodes.map(|node| (node, block.block_id)));
            CONTINUE
        })
        .unwrap();
        for dropped in &outcome.dropped {
            let block = BlockId(dropped.block_id);
            let generation = Generation(dropped.generation);
            let length = view::block(&self.tables, block).unwrap().map_or(0, |block| block.length);
            let replica = ReplicaId { block, generation, length };
            let standing = view::standing(&self.tables, NodeId(dropped.node_id), &replica).unwrap();
            assert!(
                matches!(standing, Standing::Unowned | Standing::Unlisted),
                "{dropped:?} is dropped and {standing:?}"
            );
            self.on_disk.remove(&(dropped.node_id, dropped.block_id));
        }
    }

    /// What readers see of a file: generation, length and good holders of each block.
    pub(super) fn shown(&self, text: &str) -> Vec<(u64, u64, Vec<u32>)> {
        let located = view::locate(&self.tables, &path(text), 0, 0, InodeId(0)).unwrap();
        let length: u64 = located.blocks.iter().map(|block| block.length).sum();
        assert_eq!(length, located.status.length);
        let good = |block: &view::Block| block.good.iter().map(|node| node.0).collect();
        let blocks = located.blocks.iter();
        blocks.map(|block| (block.generation.0, block.length, good(block))).collect()
    }

    /// What a replica of a block that a node reports is to the state.
    pub(super) fn standing(&self, node: u32, block: u64, generation: u64, length: u64) -> Standing {
        let (block, generation) = (BlockId(block), Generation(generation));
        let replica = ReplicaId { block, generation, length };
        view::standing(&self.tables, NodeId(node), &replica).unwrap()
    }

    pub(super) fn time_ms(&self) -> u64 {
        self.time_ms
    }

    pub(super) fn stat(&self, text: &str) -> doldam_proto::file::FileStatus {
        view::stat(&self.tables, &path(text)).unwrap()
    }

    pub(super) fn exists(&self, text: &str) -> bool {
        view::stat_if_exists(&self.tables, &path(text)).unwrap().is_some()
    }

    pub(super) fn mkdir(&mut self, path: &str) {
        self.request(1, mkdir(path, true)).unwrap();
    }

    /// Starts to write `path` with a first block on nodes 1 and 2.
    pub(super) fn create(&mut self, client: u8, path: &str) -> CreateOutcome {
        created(self.request(client, create(path)).unwrap())
    }

    /// Writes a whole file of `lengths`, each block on nodes 1 and 2.
    pub(super) fn write_file(&mut self, path: &str, lengths: &[u64]) -> FileStatus {
        self.write_over(path, lengths, false)
    }

    pub(super) fn write_over(&mut self, path: &str, lengths: &[u64], over: bool) -> FileStatus {
        let command = CreateCommand { overwrite: over, ..create_command(path) };
        let write = created(self.request(1, Change::Create(command)).unwrap());
        let mut commits = Vec::new();
        for (index, length) in lengths.iter().enumerate() {
            let block = match index {
                0 => write.block_id,
                _ => self.allocate(1, write.inode_id, index as u32).block_id,
            };
            commits.push(commit(block, index as u32, *length, &[1, 2]));
        }
        let length = lengths.iter().sum();
        let completed = self.request(1, complete(write.inode_id, length, commits)).unwrap();
        completed_status(completed).status.unwrap()
    }

    pub(super) fn allocate(&mut self, client: u8, inode: u64, index: u32) -> AllocateOutcome {
        allocated(self.request(client, allocate(inode, index)).unwrap())
    }

    pub(super) fn collect(&mut self, max_items: u32) -> (GarbageOutcome, Vec<DroppedReplica>) {
        let change = Change::CollectGarbage(CollectGarbageCommand { max_items });
        let outcome = self.own(change).unwrap();
        match outcome.kind {
            Some(Kind::Garbage(collected)) => (collected, outcome.dropped),
            other => panic!("{other:?}"),
        }
    }

    /// Collects until nothing is left.
    pub(super) fn collect_all(&mut self, slice: u32) {
        while self.collect(slice).0.more {}
    }

    /// Nothing is left but the root, datanodes and answers.
    pub(super) fn assert_empty(&self) {
        for table in [
            Table::Children,
            Table::Pending,
            Table::Leases,
            Table::Blocks,
            Table::BlockOwners,
            Table::Replicas,
            Table::Fingerprints,
            Table::Garbage,
            Table::Debts,
        ] {
            assert!(self.tables.entries(table).is_empty(), "{table:?} is not empty");
        }
        assert_eq!(self.tables.entries(Table::Inodes).len(), 1);
        assert_eq!(self.on_disk, BTreeSet::new(), "replicas were forgotten and never dropped");
    }
}

pub(super) fn register(node: u32) -> Change {
    Change::RegisterNode(RegisterNodeCommand {
        node_uuid: Bytes::copy_from_slice(&[node as u8; 16]),
        address: format!("10.0.0.{node}:9000"),
        rack: "/r1".to_owned(),
    })
}

pub(super) fn mkdir(path: &str, parents: bool) -> Change {
    Change::Mkdir(MkdirCommand { path: path.to_owned(), parents })
}

pub(super) fn create_command(path: &str) -> CreateCommand {
    CreateCommand {
        path: path.to_owned(),
        replication: 2,
        block_bytes: BLOCK,
        holder: "writer".to_owned(),
        allocate_first: true,
        first_targets: vec![1, 2],
        ..CreateCommand::default()
    }
}

pub(super) fn create(path: &str) -> Change {
    Change::Create(create_command(path))
}

pub(super) fn created(outcome: Outcome) -> CreateOutcome {
    match outcome.kind {
        Some(Kind::Create(created)) => created,
        other => panic!("{other:?}"),
    }
}

pub(super) fn allocate(inode_id: u64, index: u32) -> Change {
    let targets = vec![1, 2];
    Change::AllocateBlock(AllocateBlockCommand {
        inode_id,
        index,
        targets,
        ..AllocateBlockCommand::default()
    })
}

pub(super) fn allocated(outcome: Outcome) -> AllocateOutcome {
    match outcome.kind {
        Some(Kind::Allocate(allocated)) => allocated,
        other => panic!("{other:?}"),
    }
}

/// A commit whose values are made up from the id of the block.
pub(super) fn commit(block_id: u64, index: u32, length: u64, nodes: &[u32]) -> BlockCommit {
    let value = |tag: u8| Bytes::copy_from_slice(&[block_id as u8 ^ tag; 32]);
    BlockCommit {
        block_id,
        generation: 1,
        length,
        chaining_value: value(0),
        root_value: if index == 0 { value(0x80) } else { Bytes::new() },
        node_ids: nodes.to_vec(),
    }
}

pub(super) fn commit_blocks(inode_id: u64, commits: Vec<BlockCommit>) -> Change {
    Change::CommitBlocks(CommitBlocksCommand { inode_id, commits })
}

/// The same of another generation than the first.
pub(super) fn commit_of(
    generation: u64,
    block_id: u64,
    index: u32,
    length: u64,
    nodes: &[u32],
) -> BlockCommit {
    BlockCommit { generation, ..commit(block_id, index, length, nodes) }
}

pub(super) fn flush(inode_id: u64, length: u64, open: Option<BlockCommit>) -> Change {
    Change::Flush(FlushCommand { inode_id, length, commits: vec![], open, synced: false })
}

/// The same with what is open on stable storage.
pub(super) fn sync(inode_id: u64, length: u64, open: BlockCommit) -> Change {
    let (open, synced) = (Some(open), true);
    Change::Flush(FlushCommand { inode_id, length, commits: vec![], open, synced })
}

/// Goes on with a block on `targets`, of which the first `holders` have `length` bytes.
pub(super) fn recover(
    inode_id: u64,
    block_id: u64,
    generation: u64,
    length: u64,
    (holders, targets): (usize, &[u32]),
) -> Change {
    Change::RecoverBlock(RecoverBlockCommand {
        inode_id,
        block_id,
        generation,
        length,
        holders: targets[..holders].to_vec(),
        targets: targets.to_vec(),
    })
}

/// Opens a file that ends inside of this block, which nodes 1 and 2 have, to be written on nodes 1 and 3.
pub(super) fn append_command(path: &str, tail: u64, generation: u64) -> AppendCommand {
    AppendCommand {
        path: path.to_owned(),
        holder: "appender".to_owned(),
        tail_block_id: tail,
        tail_generation: generation,
        tail_holders: if tail == 0 { vec![] } else { vec![1] },
        tail_targets: if tail == 0 { vec![] } else { vec![1, 3] },
        ..AppendCommand::default()
    }
}

pub(super) fn appended(outcome: Outcome) -> AppendOutcome {
    match outcome.kind {
        Some(Kind::Append(appended)) => appended,
        other => panic!("{other:?}"),
    }
}

pub(super) fn complete(inode_id: u64, length: u64, commits: Vec<BlockCommit>) -> Change {
    Change::Complete(CompleteCommand { inode_id, length, commits })
}

pub(super) fn completed_status(outcome: Outcome) -> CompleteOutcome {
    match outcome.kind {
        Some(Kind::Complete(completed)) => completed,
        other => panic!("{other:?}"),
    }
}

pub(super) fn rename(from: &str, to: &str, replace: bool) -> Change {
    Change::Rename(RenameCommand { from: from.to_owned(), to: to.to_owned(), replace })
}

pub(super) fn delete(path: &str, recursive: bool) -> Change {
    Change::Delete(DeleteCommand { path: path.to_owned(), recursive })
}

pub(super) fn dropped(node_id: u32, block_id: u64) -> DroppedReplica {
    DroppedReplica { node_id, block_id, generation: 1 }
}

/// The refusal without its reason in words.
pub(super) fn without_why(error: FsError) -> FsError {
    let empty = String::new;
    match error {
        FsError::InvalidArgument { field, .. } => FsError::InvalidArgument { field, why: empty() },
        FsError::NotAllowed { path, .. } => FsError::NotAllowed { path, why: empty() },
        FsError::BlockMismatch { block, generation, .. } => {
            FsError::BlockMismatch { block, generation, why: empty() }
        }
        other => other,
    }
}

/// A state with something in every table, and a file in each state a file can be in.
pub(in crate::engine) fn rich_state() -> MemoryTables {
    let mut world = World::new();
    let block = world.write_file("/appended", &[BLOCK, 7]);
    let cut = AppendCommand { truncate: true, truncate_to: 5, ..append_command("/appended", 1, 1) };
    assert_eq!(world.request(3, Change::Append(cut)).map(appended).unwrap().length, 5);
    assert_eq!(block.length, BLOCK + 7);
    let write = world.create(4, "/flushed");
    let open = commit(write.block_id, 0, 9, &[1]);
    world.request(4, flush(write.inode_id, 9, Some(open))).unwrap();
    world.mkdir("/d/e");
    world.write_file("/d/f", &[BLOCK, 7]);
    world.write_file("/gone", &[5]);
    world.create(2, "/d/w");
    let command = CreateCommand { replication: 3, ..create_command("/few") };
    let write = created(world.request(1, Change::Create(command)).unwrap());
    let commits = vec![commit(write.block_id, 0, 9, &[1, 2])];
    world.request(1, complete(write.inode_id, 9, commits)).unwrap();
    world.request(1, delete("/gone", false)).unwrap();
    world.tables
}
