//! One file that is flushed, synced, written on, cut, left and recovered, with real bytes, beside a model of it: what
//! readers see, as bytes, and how many of them are on stable storage. After each step length, digest and blocks are
//! the model's.

use doldam_proto::digest::{BlockTree, FileDigest};
use doldam_proto::id::{BlockId, InodeId};
use doldam_proto::limits::GROUP_BYTES;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::{
    AbandonCommand, AppendCommand, BeginRecoveryCommand, BlockCommit, BlockRecord,
    FinishRecoveryCommand, FlushCommand,
};
use proptest::prelude::*;

use super::open_block::{InProgress, in_progress};
use super::view::{self, Floor};
use super::world::{
    BLOCK, World, append_command, appended, complete, create, created, delete, path, recover,
};
use crate::engine::records::blocks;

#[derive(Debug, Clone)]
enum Op {
    /// Opens it, behind a part of what is there if it is there.
    Open {
        cut: Option<u32>,
    },
    Write {
        length: u32,
    },
    Flush {
        is_synced: bool,
    },
    /// The pipeline of the open block breaks.
    Break,
    Close,
    Abandon,
    Begin,
    Finish {
        more: u32,
    },
    Lose {
        more: u32,
    },
}

fn length() -> impl Strategy<Value = u32> {
    let block = BLOCK as u32;
    prop_oneof![2 => 1..30_u32, 1 => Just(block), 2 => 1..block + 5]
}

fn op() -> impl Strategy<Value = Op> {
    let more = || prop_oneof![1 => Just(0_u32), 1 => 1..9_u32];
    prop_oneof![
        4 => prop::option::of(0..3 * BLOCK as u32).prop_map(|cut| Op::Open { cut }),
        8 => length().prop_map(|length| Op::Write { length }),
        6 => any::<bool>().prop_map(|is_synced| Op::Flush { is_synced }),
        2 => Just(Op::Break),
        2 => Just(Op::Close),
        2 => Just(Op::Abandon),
        1 => Just(Op::Begin),
        2 => more().prop_map(|more| Op::Finish { more }),
        4 => more().prop_map(|more| Op::Lose { more }),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Writing,
    Recovering,
}

/// The world, and the model of its one file.
struct Pair {
    world: World,
    inode: u64,
    state: State,
    /// What the writer wrote, with what was there before.
    bytes: Vec<u8>,
    /// What readers see; `None` before they see anything.
    shown: Option<Vec<u8>>,
    /// So many of these are on stable storage.
    durable: usize,
    /// It was opened behind so many of these, and not flushed since.
    behind: Option<usize>,
    written: usize,
}

fn tree(start: usize, bytes: &[u8]) -> BlockTree {
    let mut tree = BlockTree::new(start as u64);
    for group in bytes.chunks(GROUP_BYTES as usize) {
        tree.push_group(group);
    }
    tree
}

fn commit(bytes: &[u8], index: usize, record: &BlockRecord, length: usize) -> BlockCommit {
    let start = index * BLOCK as usize;
    let digest = tree(start, &bytes[start..start + length]).digest().unwrap();
    let InProgress { generation, targets } = in_progress(record).unwrap();
    BlockCommit {
        block_id: record.block_id,
        generation,
        length: length as u64,
        chaining_value: digest.chaining_value.to_bytes(),
        root_value: digest.root_value.map(FileDigest::to_bytes).unwrap_or_default(),
        node_ids: targets.to_vec(),
    }
}

impl Pair {
    fn new() -> Self {
        let (world, state) = (World::new(), State::Closed);
        let (bytes, shown, behind) = (Vec::new(), None, None);
        Self { world, inode: 0, state, bytes, shown, durable: 0, behind, written: 0 }
    }

    fn record(&self, index: usize) -> Option<BlockRecord> {
        blocks::get(&self.world.tables, InodeId(self.inode), index as u32).unwrap()
    }

    /// The blocks below `end` that are not finished, and are now.
    fn finished(&mut self, end: usize) -> Vec<BlockCommit> {
        let block = BLOCK as usize;
        let mut commits = Vec::new();
        for index in 0..end.div_ceil(block) {
            let record = self.allocated(index);
            if in_progress(&record).is_some() {
                let length = (end - index * block).min(block);
                commits.push(commit(&self.bytes, index, &record, length));
            }
        }
        commits
    }

    fn allocated(&mut self, index: usize) -> BlockRecord {
        if let Some(record) = self.record(index) {
            return record;
        }
        self.world.allocate(1, self.inode, index as u32);
        self.record(index).unwrap()
    }

    fn step(&mut self, op: &Op) {
        match (op, self.state) {
            (Op::Open { cut }, State::Closed) => self.open(*cut),
            (Op::Write { length }, State::Writing) if self.bytes.len() < 4 * BLOCK as usize => {
                let from = self.written;
                self.written += *length as usize;
                self.bytes
                    .extend((from..self.written).map(|at| (at % 251) as u8 ^ (at >> 9) as u8));
            }
            (Op::Flush { is_synced }, State::Writing) => self.flush(*is_synced),
            (Op::Break, State::Writing) => self.break_pipeline(),
            (Op::Close, State::Writing) => self.close(),
            (Op::Abandon, State::Writing) => {
                let inode_id = self.inode;
                self.world.request(1, Change::Abandon(AbandonCommand { inode_id })).unwrap();
                self.left();
            }
            (Op::Begin, State::Writing | State::Recovering) => {
                let inode_id = self.inode;
                let begun =
                    self.world.own(Change::BeginRecovery(BeginRecoveryCommand { inode_id }));
                assert_eq!(begun.is_ok(), self.shown.is_some(), "an invisible file is given up");
                if begun.is_ok() && self.state == State::Writing {
                    self.left();
                }
            }
            (Op::Finish { more }, State::Recovering) => self.finish(*more as usize),
            (Op::Lose { more }, State::Recovering) => self.lose(*more as usize),
            _ => {}
        }
        self.compare();
    }

    fn open(&mut self, cut: Option<u32>) {
        self.state = State::Writing;
        let Some(shown) = &self.shown else {
            self.inode = created(self.world.request(1, create("/f")).unwrap()).inode_id;
            self.bytes.clear();
            return;
        };
        let cut = cut.map(|cut| (cut as usize).min(shown.len()));
        let behind = cut.unwrap_or(shown.len());
        let tail = view::tail(&self.world.tables, &path("/f"), cut.map(|cut| cut as u64)).unwrap();
        let mut command = append_command("/f", 0, 0);
        if let Some(block) = tail.block {
            (command.tail_block_id, command.tail_generation) = (block.id.0, block.generation.0);
            command.tail_holders = block.good.iter().map(|node| node.0).collect();
            command.tail_targets = command.tail_holders.clone();
        }
        let (truncate, truncate_to) = (cut.is_some(), behind as u64);
        let command = AppendCommand { truncate, truncate_to, ..command };
        let opened = appended(self.world.request(1, Change::Append(command)).unwrap());
        assert_eq!(opened.length, behind as u64);
        self.bytes = shown[..behind].to_vec();
        self.behind = Some(behind);
    }

    fn flush(&mut self, is_synced: bool) {
        if self.bytes.is_empty() || self.shown.as_ref() == Some(&self.bytes) {
            return; // A client does not ask for what is there.
        }
        let block = BLOCK as usize;
        let (end, part) = (self.bytes.len() / block * block, self.bytes.len() % block);
        let commits = self.finished(end);
        let open = (part > 0).then(|| {
            let record = self.allocated(end / block);
            commit(&self.bytes, end / block, &record, part)
        });
        let (inode_id, length) = (self.inode, self.bytes.len() as u64);
        let command = FlushCommand { inode_id, length, commits, open, synced: is_synced };
        self.world.request(1, Change::Flush(command)).unwrap();
        self.shown = Some(self.bytes.clone());
        let kept = self.behind.take().map_or(self.durable, |behind| self.durable.min(behind));
        self.durable = if is_synced { self.bytes.len() } else { kept.max(end) };
    }

    fn break_pipeline(&mut self) {
        let block = BLOCK as usize;
        let index = self.bytes.len() / block;
        let Some(record) = self.record(index) else { return };
        let id = BlockId(record.block_id);
        let writing = view::writing_block(&self.world.tables, InodeId(self.inode), id).unwrap();
        let Some(writing) = writing else { return };
        let length = writing.floor;
        let holders = writing.holders.iter().take(usize::from(length > 0)).map(|node| node.0);
        let mut targets: Vec<u32> = holders.collect();
        let count = targets.len();
        let other = (1..=4).rev().find(|node| !targets.contains(node)).unwrap();
        targets.push(other);
        let generation = in_progress(&record).unwrap().generation;
        let change = recover(self.inode, id.0, generation, length, (count, &targets));
        self.world.request(1, change).unwrap();
    }

    fn close(&mut self) {
        let commits = self.finished(self.bytes.len());
        let (inode, length) = (self.inode, self.bytes.len() as u64);
        self.world.request(1, complete(inode, length, commits)).unwrap();
        self.closed(self.bytes.clone());
    }

    fn closed(&mut self, bytes: Vec<u8>) {
        self.durable = bytes.len();
        self.shown = Some(bytes);
        self.behind = None;
        self.state = State::Closed;
    }

    /// Its writer is gone.
    fn left(&mut self) {
        match self.shown.clone() {
            None => self.state = State::Closed, // It was never there.
            Some(shown) if self.behind.is_some() || shown.len() % BLOCK as usize == 0 => {
                self.closed(shown);
            }
            Some(_) => self.state = State::Recovering,
        }
    }

    /// The end of the file as it is recovered, with `length` bytes of it.
    fn end(&mut self, length: usize, lost: bool) {
        let what = view::recovering(&self.world.tables, InodeId(self.inode)).unwrap().unwrap();
        let start = what.file_offset as usize;
        let index = start / BLOCK as usize;
        let may_vanish = match what.floor {
            Floor::Nothing | Floor::Committed { .. } => true,
            Floor::Synced { .. } | Floor::Cut { .. } => false,
        };
        assert_eq!(start + what.floor.length() as usize, self.durable, "{what:?}");
        let record = self.record(index).unwrap();
        let vanishes = lost && may_vanish && length == self.durable;
        let block = (!vanishes).then(|| commit(&self.bytes, index, &record, length - start));
        let (inode_id, generation) = (self.inode, what.generation.0);
        let command = FinishRecoveryCommand { inode_id, block, lost, generation };
        self.world.own(Change::FinishRecovery(command)).unwrap();
        self.closed(self.bytes[..length].to_vec());
    }

    fn finish(&mut self, more: usize) {
        let length = self.shown.as_ref().unwrap().len();
        let most = length.next_multiple_of(BLOCK as usize).min(self.bytes.len());
        self.end((length + more).min(most), false);
    }

    fn lose(&mut self, more: usize) {
        let shown = self.shown.as_ref().unwrap().len();
        if self.durable < shown {
            self.end((self.durable + more).min(shown - 1), true);
        }
    }

    fn compare(&self) {
        let Some(shown) = &self.shown else {
            assert!(!self.world.exists("/f"));
            return;
        };
        let status = self.world.stat("/f");
        assert_eq!(status.length, shown.len() as u64);
        let root = tree(0, shown).digest().and_then(|digest| digest.root_value);
        assert!(shown.is_empty() || status.digest == root);
        assert_eq!(status.being_written, self.state != State::Closed);
        let lengths: Vec<u64> =
            self.world.shown("/f").iter().map(|(_, length, _)| *length).collect();
        let expected: Vec<u64> =
            shown.chunks(BLOCK as usize).map(|block| block.len() as u64).collect();
        assert_eq!(lengths, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn a_file_is_what_the_model_says_byte_for_byte(ops in prop::collection::vec(op(), 1..60)) {
        let mut pair = Pair::new();
        for op in &ops {
            pair.step(op);
        }
        for op in [Op::Abandon, Op::Lose { more: 0 }, Op::Finish { more: 0 }] {
            pair.step(&op);
        }
        if pair.shown.is_some() {
            pair.world.request(1, delete("/f", false)).unwrap();
        }
        pair.world.collect_all(3);
        pair.world.assert_empty();
    }
}
