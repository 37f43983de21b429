//! Random commands on few names, clients and nodes: every answer, the whole tree and every
//! invariant are compared with the model after each step, and at the end everything is deleted and
//! must be gone.

use std::collections::{BTreeMap, BTreeSet};

use doldam_proto::FsError;
use doldam_proto::id::{BlockId, InodeId};
use doldam_proto::wire::command::Change;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{
    AbandonCommand, AddReplicaCommand, AllocateBlockCommand, Command, CreateCommand,
    ExpireLeaseCommand, MarkBadReplicaCommand, Outcome, RemoveReplicaCommand,
    SetReplicationCommand,
};
use proptest::prelude::*;
use proptest::sample::Index;

use super::apply;
use super::model::{Answer, Model, NewFile};
use super::view;
use super::world::{
    BLOCK, World, client_id, commit, commit_blocks, complete, create_command, delete, mkdir, path,
    rename, without_why,
};
use crate::engine::tables::{Change as KeyChange, Changes, MemoryTables, WriteSet};

type Nodes = BTreeSet<u32>;

#[derive(Debug, Clone)]
enum Op {
    Mkdir { path: String, parents: bool },
    Create { path: String, new: NewFile },
    Allocate { client: u8, write: Index, index: u32, replace: bool, targets: Nodes },
    Commit { client: u8, write: Index, index: u32, full: bool, nodes: Nodes },
    Complete { client: u8, write: Index, off_by: u64 },
    Abandon { client: u8, write: Index },
    Expire { client: u8 },
    Rename { from: String, to: String, replace: bool },
    Delete { path: String, recursive: bool },
    SetReplication { path: String, replication: u32 },
    AddReplica { block: Index, node: u32, replaces: u32 },
    RemoveReplica { block: Index, node: u32 },
    MarkBad { block: Index, node: u32 },
    Collect { max_items: u32 },
    Retry { earlier: Index },
}

fn any_path() -> impl Strategy<Value = String> {
    prop::collection::vec("[abc]", 0..4).prop_map(|names| match names[..] {
        [] => "/".to_owned(),
        _ => names.iter().fold(String::new(), |path, name| path + "/" + name),
    })
}

fn nodes(least: usize) -> impl Strategy<Value = Nodes> {
    prop::collection::btree_set(1..=4_u32, least..4)
}

fn new_file() -> impl Strategy<Value = NewFile> {
    (1..3_u8, 1..4_u32, any::<[bool; 3]>(), nodes(0)).prop_map(
        |(client, replication, [overwrite, parents, take_over], targets)| NewFile {
            client,
            replication,
            overwrite,
            parents,
            take_over,
            targets,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let of_write = || (1..3_u8, any::<Index>(), 0..3_u32);
    let of_block = || (any::<Index>(), 1..5_u32);
    prop_oneof![
        4 => (any_path(), any::<bool>()).prop_map(|(path, parents)| Op::Mkdir { path, parents }),
        6 => (any_path(), new_file()).prop_map(|(path, new)| Op::Create { path, new }),
        4 => (of_write(), any::<bool>(), nodes(1)).prop_map(
            |((client, write, index), replace, targets)| {
                Op::Allocate { client, write, index, replace, targets }
            }
        ),
        8 => (of_write(), any::<bool>(), nodes(1)).prop_map(
            |((client, write, index), full, nodes)| Op::Commit { client, write, index, full, nodes }
        ),
        8 => (of_write(), prop_oneof![9 => Just(0), 1 => Just(1_u64)]).prop_map(
            |((client, write, _), off_by)| Op::Complete { client, write, off_by }
        ),
        1 => of_write().prop_map(|(client, write, _)| Op::Abandon { client, write }),
        1 => (1..3_u8).prop_map(|client| Op::Expire { client }),
        4 => (any_path(), any_path(), any::<bool>())
            .prop_map(|(from, to, replace)| Op::Rename { from, to, replace }),
        3 => (any_path(), any::<bool>())
            .prop_map(|(path, recursive)| Op::Delete { path, recursive }),
        1 => (any_path(), 0..4_u32)
            .prop_map(|(path, replication)| Op::SetReplication { path, replication }),
        2 => (of_block(), 0..5_u32)
            .prop_map(|((block, node), replaces)| Op::AddReplica { block, node, replaces }),
        2 => of_block().prop_map(|(block, node)| Op::RemoveReplica { block, node }),
        2 => of_block().prop_map(|(block, node)| Op::MarkBad { block, node }),
        2 => (1..6_u32).prop_map(|max_items| Op::Collect { max_items }),
        2 => any::<Index>().prop_map(|earlier| Op::Retry { earlier }),
    ]
}

/// The world and the model side by side, and what was ever handed out.
struct Pair {
    world: World,
    model: Model,
    writes: Vec<u64>,
    blocks: Vec<u64>,
}

impl Pair {
    fn step(&mut self, op: Op) {
        match op {
            Op::Mkdir { path, parents } => {
                let found = self.world.request(1, mkdir(&path, parents));
                let expected = self.model.mkdir(&path, parents);
                compare(found, expected);
            }
            Op::Create { path, new } => self.create(&path, &new),
            Op::Rename { from, to, replace } => {
                let found = self.world.request(1, rename(&from, &to, replace));
                compare(found, self.model.rename(&from, &to, replace));
            }
            Op::Delete { path, recursive } => {
                let found = self.world.request(1, delete(&path, recursive));
                compare(found, self.model.delete(&path, recursive));
            }
            Op::SetReplication { path, replication } => {
                let command = SetReplicationCommand { path: path.clone(), replication };
                let found = self.world.request(1, Change::SetReplication(command));
                compare(found, self.model.set_replication(&path, replication));
            }
            Op::Expire { client } => {
                let client_id = client_id(client).to_bytes();
                self.world.own(Change::ExpireLease(ExpireLeaseCommand { client_id })).unwrap();
                self.model.expire(client);
            }
            Op::Collect { max_items } => _ = self.world.collect(max_items),
            Op::Retry { earlier } => self.retry(earlier),
            Op::AddReplica { block, node, .. }
            | Op::RemoveReplica { block, node }
            | Op::MarkBad { block, node } => self.replica(&op, block, node),
            Op::Allocate { client, write, .. }
            | Op::Commit { client, write, .. }
            | Op::Complete { client, write, .. }
            | Op::Abandon { client, write } => self.write(&op, client, write),
        }
        self.compare_trees();
    }

    fn create(&mut self, path: &str, new: &NewFile) {
        let change = Change::Create(CreateCommand {
            replication: new.replication,
            overwrite: new.overwrite,
            parents: new.parents,
            take_over: new.take_over,
            holder: format!("client {}", new.client),
            allocate_first: !new.targets.is_empty(),
            first_targets: new.targets.iter().copied().collect(),
            ..create_command(path)
        });
        let found = self.world.request(new.client, change);
        let expected = self.model.create(path, new);
        if let Ok(Answer::Handle { inode, block }) = expected {
            self.writes.push(inode);
            self.blocks.extend((block != 0).then_some(block));
        }
        compare(found, expected);
    }

    fn write(&mut self, op: &Op, client: u8, write: Index) {
        let Some(inode) = (!self.writes.is_empty()).then(|| *write.get(&self.writes)) else {
            return;
        };
        let blocks = self.model.writes.get(&inode).map(|write| write.blocks.clone());
        let blocks = blocks.unwrap_or_default();
        let block_at = |index: u32| blocks.get(&index).copied().unwrap_or(77_777);
        let length_of = |block: &u64| self.model.blocks[block].committed.unwrap_or(0);
        let length: u64 = blocks.values().map(length_of).sum();
        let change = match op {
            Op::Allocate { index, replace, targets, .. } => {
                Change::AllocateBlock(AllocateBlockCommand {
                    inode_id: inode,
                    index: *index,
                    replaces_block_id: if *replace { block_at(*index) } else { 0 },
                    targets: targets.iter().copied().collect(),
                    ..AllocateBlockCommand::default()
                })
            }
            Op::Commit { index, full, nodes, .. } => {
                let nodes: Vec<u32> = nodes.iter().copied().collect();
                let length = if *full { BLOCK } else { 9 };
                commit_blocks(inode, vec![commit(block_at(*index), *index, length, &nodes)])
            }
            Op::Complete { off_by, .. } => complete(inode, length + off_by, vec![]),
            _ => Change::Abandon(AbandonCommand { inode_id: inode }),
        };
        let found = self.world.request(client, change);
        if self.model.is_lost(inode) && found == Err(FsError::LeaseLost { inode }) {
            // Collected, or another client's; either way the model learns nothing else from it.
            if view::unfinished_write(&self.world.tables, InodeId(inode)).unwrap().is_none() {
                self.model.forget_write(inode);
            }
            return;
        }
        let expected = match op {
            Op::Allocate { index, replace, .. } => {
                let replaces = if *replace { block_at(*index) } else { 0 };
                self.model.allocate(client, inode, *index, replaces)
            }
            Op::Commit { index, full, nodes, .. } => {
                let length = if *full { BLOCK } else { 9 };
                self.model.commit(client, inode, block_at(*index), length, nodes)
            }
            Op::Complete { off_by, .. } => self.model.complete(client, inode, length + off_by),
            _ => self.model.abandon(client, inode),
        };
        if let Ok(Answer::Allocated(block)) = expected {
            self.blocks.push(block);
        }
        compare(found, expected);
    }

    fn replica(&mut self, op: &Op, block: Index, node_id: u32) {
        let Some(block_id) = (!self.blocks.is_empty()).then(|| *block.get(&self.blocks)) else {
            return;
        };
        let in_use = self.model.block_in_use(block_id).cloned();
        let length = in_use.as_ref().and_then(|block| block.committed).unwrap_or(9);
        let generation = 1;
        let change = match *op {
            Op::AddReplica { replaces: replaces_node_id, .. } => {
                let chaining_value = commit(block_id, 1, length, &[]).chaining_value;
                Change::AddReplica(AddReplicaCommand {
                    block_id,
                    generation,
                    length,
                    chaining_value,
                    node_id,
                    replaces_node_id,
                })
            }
            Op::RemoveReplica { .. } => {
                Change::RemoveReplica(RemoveReplicaCommand { block_id, generation, node_id })
            }
            _ => Change::MarkBadReplica(MarkBadReplicaCommand { block_id, generation, node_id }),
        };
        let found = self.world.own(change);
        if in_use.is_none() {
            return;
        }
        compare(
            found,
            match *op {
                Op::AddReplica { replaces, .. } => {
                    Ok(self.model.add_replica(block_id, node_id, replaces))
                }
                Op::RemoveReplica { .. } => self.model.remove_replica(block_id, node_id),
                _ => Ok(self.model.mark_bad(block_id, node_id)),
            },
        );
        let model = &self.model.blocks[&block_id];
        let stored = view::block(&self.world.tables, BlockId(block_id)).unwrap();
        assert_eq!(stored.is_some(), model.committed.is_some());
        if let Some(stored) = stored {
            let ids =
                |nodes: &[doldam_proto::id::NodeId]| nodes.iter().map(|node| node.0).collect();
            let (good, bad): (Nodes, Nodes) = (ids(&stored.good), ids(&stored.bad));
            assert_eq!((&good, &bad), (&model.good, &model.bad));
        }
    }

    fn retry(&mut self, earlier: Index) {
        let requests: Vec<&Command> =
            self.world.history.iter().filter(|command| command.request.is_some()).collect();
        if let Some(command) = (!requests.is_empty()).then(|| *earlier.get(&requests)) {
            let applied = apply(&self.world.tables, command).unwrap();
            assert!(applied.outcome.is_ok() && applied.changes.is_empty());
        }
    }

    fn compare_trees(&self) {
        let tables = &self.world.tables;
        let tree = self.model.tree();
        let mut found = BTreeMap::new();
        let mut waiting = vec!["/".to_owned()];
        while let Some(directory) = waiting.pop() {
            for entry in view::list(tables, &path(&directory), "", 0).unwrap().entries {
                let path = format!("{}/{}", directory.trim_end_matches('/'), entry.path);
                if entry.is_dir() {
                    waiting.push(path.clone());
                } else {
                    let file = &self.model.files[&entry.inode.0];
                    let expected = (file.length, file.replication);
                    assert_eq!((entry.length, entry.replication), expected, "{path}");
                    let blocks = view::file_blocks(tables, entry.inode, 0, 9).unwrap();
                    let ids: Vec<u64> = blocks.iter().map(|block| block.id.0).collect();
                    assert_eq!(ids, file.blocks, "{path}");
                }
                assert_eq!(view::path_of(tables, entry.inode).unwrap().as_ref(), Some(&path));
                found.insert(path, entry.inode.0);
            }
        }
        assert_eq!(found, tree);
        let walked = view::walk(tables, &path("/"), None, 1000).unwrap().files;
        assert_eq!(
            walked.len(),
            tree.values().filter(|id| self.model.files.contains_key(id)).count()
        );
    }

    fn delete_everything(&mut self) {
        for client in 1..3 {
            self.step(Op::Expire { client });
        }
        for name in ["/a", "/b", "/c"] {
            self.step(Op::Delete { path: name.to_owned(), recursive: true });
        }
        self.world.collect_all(2);
        self.world.assert_empty();
    }
}

fn compare(found: Result<Outcome, FsError>, expected: Result<Answer, FsError>) {
    match (found, expected) {
        (Ok(outcome), Ok(expected)) => {
            let answer = match outcome.kind.unwrap() {
                Kind::Mkdir(made) => Answer::Created(made.created),
                Kind::Create(made) => Answer::Handle { inode: made.inode_id, block: made.block_id },
                Kind::Allocate(made) => Answer::Allocated(made.block_id),
                Kind::Complete(done) => {
                    let status = done.status.unwrap();
                    Answer::Completed {
                        path: status.path,
                        length: status.length,
                        under_replicated: done.under_replicated_blocks,
                    }
                }
                Kind::SetReplication(set) => Answer::Previous(set.previous),
                Kind::Replica(replica) => Answer::Changed(replica.changed),
                Kind::Flush(_) | Kind::Append(_) | Kind::Recovery(_) | Kind::RecoverBlock(_) => {
                    Answer::Done
                }
                Kind::Done(_) | Kind::RegisterNode(_) | Kind::Garbage(_) => Answer::Done,
            };
            assert_eq!(answer, expected);
        }
        (Err(FsError::NotFound { path }), Err(FsError::NotFound { path: expected }))
            if path.starts_with('…') =>
        {
            assert_eq!(expected, "…");
        }
        (found, expected) => assert_eq!(found.map_err(without_why).err(), expected.err()),
    }
}

fn run(ops: Vec<Op>) -> World {
    let mut pair =
        Pair { world: World::new(), model: Model::new(), writes: vec![], blocks: vec![] };
    for op in ops {
        pair.step(op);
    }
    pair.delete_everything();
    pair.world
}

/// The state after `history` when every command sees the changes of those before as uncommitted.
fn chained(history: &[Command]) -> MemoryTables {
    let mut base = MemoryTables::new();
    let mut pending = Changes::new();
    for command in history {
        let mut above = WriteSet::new(&base);
        for (table, key, change) in pending.iter() {
            match change {
                KeyChange::Put(value) => above.put(table, key, value.clone()),
                KeyChange::Delete => above.delete(table, key),
            }
        }
        let changes = apply(&above, command).unwrap().changes;
        pending.merge(changes);
    }
    base.apply_changes(pending);
    base
}

fn one_by_one(history: &[Command]) -> MemoryTables {
    let mut tables = MemoryTables::new();
    for command in history {
        let changes = apply(&tables, command).unwrap().changes;
        tables.apply_changes(changes);
    }
    tables
}

proptest! {
    #[test]
    fn every_answer_and_every_state_is_the_models(ops in prop::collection::vec(op(), 1..90)) {
        let world = run(ops);
        prop_assert_eq!(&one_by_one(&world.history), &world.tables, "replayed");
        prop_assert_eq!(&chained(&world.history), &world.tables, "chained");
    }
}
