//! Random histories of files that are visible and being written: what readers see of a file changes only by what
//! makes it visible, never becomes shorter but by a cut or when its end is lost, then never shorter than what was
//! synced or closed, and is as it was when a write comes to nothing. The world checks every invariant, every drop and
//! every retry on the way, and in the end nothing is left of anything.

use std::collections::BTreeMap;

use doldam_proto::digest::FileDigest;
use doldam_proto::id::{BlockId, InodeId};
use doldam_proto::wire::command::Change;
use doldam_proto::wire::{
    AbandonCommand, AppendCommand, BeginRecoveryCommand, BlockCommit, BlockRecord, CreateCommand,
    ExpireLeaseCommand, FinishRecoveryCommand, FlushCommand, MarkBadReplicaCommand,
    SetReplicationCommand,
};
use proptest::prelude::*;
use proptest::sample::Index;

use super::lease::find_write;
use super::open_block::in_progress;
use super::view::{self, Floor, Recovering, WalkCursor};
use super::world::{
    BLOCK, World, allocate, append_command, client_id, commit_blocks, commit_of, complete,
    create_command, delete, path, recover, rename,
};
use crate::engine::records::{CONTINUE, blocks};

#[derive(Debug, Clone)]
enum Op {
    Create { client: u8, name: u8, overwrite: bool },
    Append { client: u8, name: u8, cut: Option<u64> },
    Allocate { write: Index, index: u32 },
    Commit { write: Index, index: u32, length: u64 },
    Recover { write: Index, index: u32, keep: bool },
    Flush { write: Index, open: Option<u64>, is_synced: bool },
    Complete { write: Index },
    Abandon { write: Index },
    Begin { write: Index },
    Finish { write: Index, more: u64 },
    Lose { write: Index, more: u64 },
    Expire { client: u8 },
    Rename { from: u8, to: u8 },
    Delete { name: u8 },
    MarkBad { write: Index, node: u32 },
    SetReplication { name: u8, replication: u32 },
    Collect,
}

/// Short, full, and between.
fn length() -> impl Strategy<Value = u64> {
    prop_oneof![1 => Just(9), 1 => Just(20), 3 => Just(BLOCK)]
}

fn op() -> impl Strategy<Value = Op> {
    let write = || any::<Index>();
    let name = || 0..3_u8;
    prop_oneof![
        3 => (1..3_u8, name(), any::<bool>())
            .prop_map(|(client, name, overwrite)| Op::Create { client, name, overwrite }),
        4 => (1..3_u8, name(), prop::option::of(0..3 * BLOCK))
            .prop_map(|(client, name, cut)| Op::Append { client, name, cut }),
        3 => (write(), 0..4_u32).prop_map(|(write, index)| Op::Allocate { write, index }),
        8 => (write(), 0..4_u32, length())
            .prop_map(|(write, index, length)| Op::Commit { write, index, length }),
        3 => (write(), 0..4_u32, any::<bool>())
            .prop_map(|(write, index, keep)| Op::Recover { write, index, keep }),
        8 => (write(), prop::option::weighted(0.8, length()), any::<bool>())
            .prop_map(|(write, open, is_synced)| Op::Flush { write, open, is_synced }),
        4 => write().prop_map(|write| Op::Complete { write }),
        1 => write().prop_map(|write| Op::Abandon { write }),
        2 => write().prop_map(|write| Op::Begin { write }),
        4 => (write(), 0..30_u64).prop_map(|(write, more)| Op::Finish { write, more }),
        4 => (write(), 0..12_u64).prop_map(|(write, more)| Op::Lose { write, more }),
        1 => (1..3_u8).prop_map(|client| Op::Expire { client }),
        1 => (name(), name()).prop_map(|(from, to)| Op::Rename { from, to }),
        1 => name().prop_map(|name| Op::Delete { name }),
        1 => (write(), 1..5_u32).prop_map(|(write, node)| Op::MarkBad { write, node }),
        1 => (name(), 1..4_u32)
            .prop_map(|(name, replication)| Op::SetReplication { name, replication }),
        1 => Just(Op::Collect),
    ]
}

/// Length and digest of each file, as readers see it.
type Shown = BTreeMap<InodeId, (u64, Option<FileDigest>)>;

struct History {
    world: World,
    /// All that were ever begun: client and inode.
    writes: Vec<(u8, u64)>,
    /// Bytes of each file that were synced, or there when it was closed.
    durable: BTreeMap<InodeId, u64>,
}

/// What a change may do to what readers see of one file.
enum May {
    Nothing,
    /// It shows so many bytes.
    Show(InodeId, u64),
    /// It shows so many bytes, and others are lost.
    Lose(InodeId, u64),
    /// It ends the write of a file that may become longer, or of all.
    Lengthen(Option<InodeId>),
}

fn file(name: u8) -> String {
    format!("/{}", char::from(b'a' + name))
}

fn part((index, block): &(u32, BlockRecord), length: u64) -> BlockCommit {
    let writing = in_progress(block);
    let generation = writing.map_or(block.generation, |writing| writing.generation);
    let nodes = writing.map_or(&block.replicas[..], |writing| writing.targets);
    commit_of(generation, block.block_id, *index, length, nodes)
}

impl History {
    fn shown(&self) -> Shown {
        let mut shown = BTreeMap::new();
        let walked = view::walk(&self.world.tables, &path("/"), None::<WalkCursor>, 1000).unwrap();
        for status in walked.files {
            assert!(
                view::locate(&self.world.tables, &path(&status.path), 0, 0, status.inode).is_ok()
            );
            self.world.shown(&status.path);
            shown.insert(status.inode, (status.length, status.digest));
        }
        shown
    }

    fn of_write(&self, index: u32, inode: u64) -> Option<(u32, BlockRecord)> {
        let found = blocks::get(&self.world.tables, InodeId(inode), index).unwrap();
        found.map(|block| (index, block))
    }

    /// The block that a flush would end inside of, and the bytes before it.
    fn open(&self, inode: u64) -> (Option<(u32, BlockRecord)>, u64) {
        let (mut open, mut before, mut next) = (None, 0, 0);
        blocks::scan(&self.world.tables, InodeId(inode), 0, &mut |index, block| {
            if index == next && open.is_none() {
                next += 1;
                if in_progress(&block).is_some() {
                    open = Some((index, block));
                } else {
                    let commit = block.open.as_ref().and_then(|open| open.commit.as_ref());
                    before += commit.map_or(block.length, |commit| commit.length);
                }
            }
            CONTINUE
        })
        .unwrap();
        (open, before)
    }

    fn step(&mut self, op: &Op) {
        let before = self.shown();
        let untouched = |inode: &InodeId| {
            let write = find_write(&self.world.tables, *inode).unwrap();
            write.map(|write| (write.pending.untouched, write.pending.least_length))
        };
        let opened: BTreeMap<InodeId, (bool, u64)> =
            before.keys().filter_map(|inode| Some((*inode, untouched(inode)?))).collect();
        let may = self.run(op);
        for (inode, (length, digest)) in self.shown() {
            let Some((length_before, digest_before)) = before.get(&inode) else { continue };
            let is_same = length == *length_before && digest == *digest_before;
            let (was_untouched, least) = opened.get(&inode).copied().unwrap_or_default();
            match &may {
                May::Show(shown, bytes) if *shown == inode => {
                    assert_eq!(length, *bytes, "{op:?}");
                    assert!(length >= if was_untouched { least } else { *length_before }, "{op:?}");
                }
                May::Lose(lost, bytes) if *lost == inode => {
                    assert_eq!(length, *bytes, "{op:?}");
                    assert!(length >= self.durable[&inode], "{op:?}");
                }
                May::Lengthen(of) if of.is_none_or(|of| of == inode) && !was_untouched => {
                    assert!(length >= *length_before, "{op:?}");
                }
                May::Show(..) | May::Lose(..) | May::Lengthen(_) | May::Nothing => {
                    assert!(is_same, "{op:?} {inode}");
                }
            }
        }
        self.note_durable(op, &may, &opened);
    }

    fn note_durable(&mut self, op: &Op, may: &May, opened: &BTreeMap<InodeId, (bool, u64)>) {
        let is_synced =
            matches!(op, Op::Flush { is_synced: true, open: Some(_), .. } | Op::Complete { .. });
        for (inode, (length, _)) in self.shown() {
            let known = self.durable.entry(inode).or_default();
            let is_shown = matches!(may, May::Show(shown, _) if *shown == inode);
            let is_closed = find_write(&self.world.tables, inode).unwrap().is_none();
            if is_closed || (is_shown && is_synced) {
                *known = length;
            } else if let Some((true, least)) = opened.get(&inode)
                && is_shown
            {
                *known = *least.min(known); // What was cut off is gone.
            }
        }
    }

    fn run(&mut self, op: &Op) -> May {
        let pick = |write: &Index| {
            (!self.writes.is_empty()).then(|| self.writes[write.index(self.writes.len())])
        };
        match op {
            Op::Create { client, name, overwrite } => {
                let command =
                    CreateCommand { overwrite: *overwrite, ..create_command(&file(*name)) };
                if let Ok(outcome) = self.world.request(*client, Change::Create(command)) {
                    self.writes.push((*client, super::world::created(outcome).inode_id));
                }
            }
            Op::Append { client, name, cut } => self.append(*client, *name, *cut),
            Op::Rename { from, to } => {
                _ = self.world.request(1, rename(&file(*from), &file(*to), true));
            }
            Op::Delete { name } => _ = self.world.request(1, delete(&file(*name), false)),
            Op::SetReplication { name, replication } => {
                let (path, replication) = (file(*name), *replication);
                let command = SetReplicationCommand { path, replication };
                _ = self.world.request(1, Change::SetReplication(command));
            }
            Op::Collect => _ = self.world.collect(3),
            Op::Expire { client } => {
                let client_id = client_id(*client).to_bytes();
                self.world.own(Change::ExpireLease(ExpireLeaseCommand { client_id })).unwrap();
                return May::Lengthen(None);
            }
            Op::Allocate { write, .. }
            | Op::Commit { write, .. }
            | Op::Recover { write, .. }
            | Op::Flush { write, .. }
            | Op::Complete { write }
            | Op::Abandon { write }
            | Op::Begin { write }
            | Op::Finish { write, .. }
            | Op::Lose { write, .. }
            | Op::MarkBad { write, .. } => {
                if let Some((client, inode)) = pick(write) {
                    return self.write(op, client, inode);
                }
            }
        }
        May::Nothing
    }

    fn append(&mut self, client: u8, name: u8, cut: Option<u64>) {
        let name = file(name);
        let Ok(tail) = view::tail(&self.world.tables, &path(&name), cut) else { return };
        let mut command = append_command(&name, 0, 0);
        if let Some(block) = tail.block {
            (command.tail_block_id, command.tail_generation) = (block.id.0, block.generation.0);
            command.tail_holders = block.good.iter().map(|node| node.0).collect();
            command.tail_targets = command.tail_holders.clone();
            if let Some(other) = (1..=4).find(|node| !command.tail_targets.contains(node)) {
                command.tail_targets.push(other);
            }
        }
        let (truncate, truncate_to) = (cut.is_some(), cut.unwrap_or(0));
        let command = AppendCommand { truncate, truncate_to, ..command };
        if let Ok(outcome) = self.world.request(client, Change::Append(command)) {
            let status = super::world::appended(outcome).status.unwrap();
            self.writes.push((client, status.inode_id));
        }
    }

    fn write(&mut self, op: &Op, client: u8, inode_id: u64) -> May {
        let inode = InodeId(inode_id);
        match op {
            Op::Allocate { index, .. } => {
                _ = self.world.request(client, allocate(inode_id, *index));
            }
            Op::Commit { index, length, .. } => {
                let Some(block) = self.of_write(*index, inode_id) else { return May::Nothing };
                let commits = vec![part(&block, *length)];
                _ = self.world.request(client, commit_blocks(inode_id, commits));
            }
            Op::Recover { index, keep, .. } => self.recover(client, inode_id, *index, *keep),
            Op::Flush { open: so_far, is_synced, .. } => {
                let (open, before) = self.open(inode_id);
                let open = open.zip(*so_far).map(|(open, length)| part(&open, length));
                let length = before + open.as_ref().map_or(0, |open| open.length);
                let synced = *is_synced;
                let command = FlushCommand { inode_id, length, commits: vec![], open, synced };
                if self.world.request(client, Change::Flush(command)).is_ok() {
                    return May::Show(inode, length);
                }
            }
            Op::Complete { .. } => {
                let (_, length) = self.open(inode_id);
                if self.world.request(client, complete(inode_id, length, vec![])).is_ok() {
                    return May::Show(inode, length);
                }
            }
            Op::Abandon { .. } => {
                _ = self.world.request(client, Change::Abandon(AbandonCommand { inode_id }));
                return May::Lengthen(Some(inode));
            }
            Op::Begin { .. } => {
                let command = BeginRecoveryCommand { inode_id };
                _ = self.world.own(Change::BeginRecovery(command));
                return May::Lengthen(Some(inode));
            }
            Op::Finish { more, .. } => {
                let what = view::recovering(&self.world.tables, inode).unwrap();
                let Some(what) = what else { return May::Nothing };
                let index = (what.file_offset / BLOCK) as u32;
                let length = (what.length + more).min(BLOCK);
                let generation = what.generation.0;
                let nodes = [what.nodes[0].0];
                let block = Some(commit_of(generation, what.block.0, index, length, &nodes));
                let command = FinishRecoveryCommand { inode_id, block, ..Default::default() };
                self.world.own(Change::FinishRecovery(command)).unwrap();
                return May::Show(inode, what.file_offset + length);
            }
            Op::Lose { more, .. } => {
                let what = view::recovering(&self.world.tables, inode).unwrap();
                return what.map_or(May::Nothing, |what| self.lose(&what, *more));
            }
            Op::MarkBad { node, .. } => {
                let Some((_, block)) = self.of_write(0, inode_id) else { return May::Nothing };
                let (block_id, generation) = (block.block_id, block.generation);
                let command = MarkBadReplicaCommand { block_id, generation, node_id: *node };
                self.world.own(Change::MarkBadReplica(command)).unwrap();
            }
            other => panic!("{other:?} is of no write"),
        }
        May::Nothing
    }

    /// The pipeline of a block breaks: it goes on behind what is flushed, or what all have.
    fn recover(&mut self, client: u8, inode_id: u64, index: u32, keep: bool) {
        let Some((_, block)) = self.of_write(index, inode_id) else { return };
        let id = BlockId(block.block_id);
        let writing = view::writing_block(&self.world.tables, InodeId(inode_id), id).unwrap();
        let Some(writing) = writing else { return };
        let first = if keep { writing.targets.first() } else { writing.holders.first() };
        let other = (1..=4).rev().find(|node| Some(*node) != first.map(|first| first.0));
        let targets: Vec<u32> = first.map(|node| node.0).into_iter().chain(other).collect();
        let length = if keep { writing.floor.max(30) } else { writing.floor };
        let holders = usize::from(first.is_some());
        let change = recover(inode_id, id.0, 1, length, (holders, &targets));
        _ = self.world.request(client, change);
    }

    /// The end of a file is lost, down to `more` bytes behind what is on stable storage.
    fn lose(&mut self, what: &Recovering, more: u64) -> May {
        let index = (what.file_offset / BLOCK) as u32;
        let (generation, floor) = (what.generation.0, what.floor.length());
        let part = |length| commit_of(generation, what.block.0, index, length, &[what.nodes[0].0]);
        let finish = |block, lost| {
            let inode_id = what.inode.0;
            Change::FinishRecovery(FinishRecoveryCommand { inode_id, block, lost, generation })
        };
        let mut refused = vec![finish(None, false)];
        if floor > 1 {
            refused.push(finish(Some(part(floor - 1)), true));
        }
        if what.length > 1 {
            refused.push(finish(Some(part(what.length - 1)), false));
        }
        let may_vanish = matches!(what.floor, Floor::Nothing | Floor::Committed { .. });
        if !may_vanish {
            refused.push(finish(None, true));
        }
        for change in refused {
            assert!(self.world.own(change.clone()).is_err(), "{change:?} {what:?}");
        }
        let length = (floor + more).min(BLOCK);
        let block = (!may_vanish || more > 0).then(|| part(length));
        self.world.own(finish(block, true)).unwrap();
        May::Lose(what.inode, what.file_offset + length)
    }

    fn end(&mut self, any_write: Index) {
        for client in 1..3 {
            self.step(&Op::Expire { client });
        }
        for inode in view::in_recovery(&self.world.tables, InodeId(0), 99).unwrap() {
            self.writes = vec![(1, inode.0)];
            self.step(&Op::Finish { write: any_write, more: 3 });
        }
        assert_eq!(view::in_recovery(&self.world.tables, InodeId(0), 99).unwrap(), []);
        for name in 0..3 {
            self.step(&Op::Delete { name });
        }
        self.world.collect_all(2);
        self.world.assert_empty();
    }
}

proptest! {
    #[test]
    fn readers_see_what_was_shown_to_them_and_nothing_is_left_behind(
        ops in prop::collection::vec(op(), 1..80),
        any_write in any::<Index>(),
    ) {
        let mut history = History {
            world: World::new(),
            writes: vec![],
            durable: BTreeMap::new(),
        };
        for op in &ops {
            history.step(op);
        }
        history.end(any_write);
    }
}
