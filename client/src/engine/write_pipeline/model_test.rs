//! Random failures at random points, against a namenode and datanodes that are too simple to be wrong and believe
//! nothing: whoever is said to have bytes must have them.

use doldam_proto::id::{BlockId, Generation};
use doldam_proto::node::NodeAddress;
use proptest::prelude::*;

use super::tests::{BLOCK, commit, node};
use super::*;

const NODES: u32 = 6;
/// Bytes move in pieces of this size.
const PIECE: u64 = BLOCK / 4;
const STEPS_MAX: usize = 5_000;

/// What a datanode has of a block: under which generation, and how much.
type Replicas = BTreeMap<(BlockId, NodeId), (Generation, u64)>;

/// A pipeline that is being sent to.
#[derive(Debug)]
struct Pipe {
    block: AllocatedBlock,
    acknowledged: u64,
}

/// What the namenode knows of an open block.
#[derive(Debug)]
struct Open {
    id: BlockId,
    generation: Generation,
    flushed: u64,
    holders: Vec<NodeId>,
}

struct Model {
    pipeline: WritePipeline,
    script: Box<dyn Iterator<Item = u8>>,
    length: u64,
    /// Written by the application so far.
    written: u64,
    replicas: Replicas,
    pipes: BTreeMap<u32, Pipe>,
    open: BTreeMap<u32, Open>,
    next_id: u64,
    request: Option<WriteAction>,
    told: Vec<BlockCommit>,
    flushed: u64,
    wanted: Option<(u64, bool)>,
}

impl Model {
    fn new(limits: WriteLimits, length: u64, script: Vec<u8>) -> Self {
        let start = WriteStart::New { first: None };
        Self {
            pipeline: WritePipeline::new(limits, BlockBytes::new(BLOCK).unwrap(), start),
            // After the script all goes well.
            script: Box::new(script.into_iter().chain(std::iter::repeat(0))),
            length,
            written: 0,
            replicas: BTreeMap::new(),
            pipes: BTreeMap::new(),
            open: BTreeMap::new(),
            next_id: 1,
            request: None,
            told: Vec::new(),
            flushed: 0,
            wanted: None,
        }
    }

    fn step(&mut self) -> u8 {
        self.script.next().unwrap()
    }

    /// Runs the write; returns its commits, in the order in which they were told.
    fn run(mut self) -> Vec<BlockCommit> {
        for _ in 0..STEPS_MAX {
            self.write();
            while let Some(action) = self.pipeline.poll() {
                match action {
                    WriteAction::Send { block, resume } => self.send(block, resume.as_ref()),
                    WriteAction::Complete { length, commits } => {
                        assert_eq!(length, self.length);
                        assert!(self.pipes.is_empty() && self.request.is_none());
                        self.tell(commits);
                        return self.told;
                    }
                    WriteAction::Fail { .. } => panic!("the script fails less often than that"),
                    request @ (WriteAction::Allocate(_)
                    | WriteAction::Recover(_)
                    | WriteAction::Flush(_)) => {
                        assert_eq!(self.request.replace(request), None, "one request at a time");
                    }
                }
            }
            let answer =
                self.request.is_some() && (self.pipes.is_empty() || self.step().is_multiple_of(2));
            if answer {
                self.answer();
            } else if let Some(index) = self.some_pipe() {
                self.advance(index);
            }
        }
        panic!("it does not end");
    }

    fn some_pipe(&mut self) -> Option<u32> {
        let at = usize::from(self.step()) % self.pipes.len().max(1);
        self.pipes.keys().nth(at).copied()
    }

    /// The application writes a piece, or waits for a flush, or ends.
    fn write(&mut self) {
        let step = self.step();
        if self.wanted.is_none() && step % 3 != 1 {
            self.written = (self.written + PIECE).min(self.length);
        }
        let (started, whole) = (self.written.div_ceil(BLOCK) as u32, (self.written / BLOCK) as u32);
        let ended = self.written == self.length && self.wanted.is_none();
        let whole = if ended { started } else { whole };
        let filled = self.written - u64::from(started.saturating_sub(1)) * BLOCK;
        self.pipeline.handle(WriteEvent::Available { started, whole, filled });
        if ended {
            self.pipeline.handle(WriteEvent::Ended { length: self.length });
        } else if self.wanted.is_none() && step % 5 == 2 && self.written > self.flushed {
            let (length, sync) = (self.written, step.is_multiple_of(2));
            self.wanted = Some((length, sync));
            self.pipeline.handle(WriteEvent::FlushWanted { length, sync });
        }
    }

    /// Bytes of a block that are there to be sent, and whether that is all of it.
    fn available(&self, index: u32) -> (u64, bool) {
        let there = self.written.saturating_sub(u64::from(index) * BLOCK).min(BLOCK);
        let ended = self.written == self.length && self.wanted.is_none();
        (there, there == BLOCK || ended)
    }

    fn send(&mut self, block: AllocatedBlock, resume: Option<&ResumeAt>) {
        let acknowledged = resume.map_or(0, |resume| resume.length);
        for holder in resume.map_or(&[][..], |resume| &resume.holders) {
            let replica = self.replicas.get_mut(&(block.id, *holder)).expect("a holder has it");
            assert!(replica.0 < block.generation, "generations only grow");
            assert!(replica.1 >= acknowledged, "a holder has all it is said to have");
            *replica = (block.generation, acknowledged);
        }
        let index = block.index;
        let before = self.pipes.insert(index, Pipe { block, acknowledged });
        assert!(before.is_none(), "one pipeline for each block");
    }

    /// Something happens to a pipeline.
    fn advance(&mut self, index: u32) {
        let (available, all) = self.available(index);
        let pipe = self.pipes.get_mut(&index).unwrap();
        let step = self.script.next().unwrap();
        let targets: Vec<NodeId> = pipe.block.targets.iter().map(|target| target.id).collect();
        let (id, generation) = (pipe.block.id, pipe.block.generation);
        let acknowledged = pipe.acknowledged;
        let some_target = targets[usize::from(step) % targets.len()];
        if step % 7 == 3 {
            // The nodes before the one that fails may have more than is acknowledged.
            self.replicas.insert((id, targets[0]), (generation, available.max(acknowledged)));
            let node = (step.is_multiple_of(2)).then_some(some_target);
            let cause = "broke".to_owned();
            self.pipes.remove(&index);
            self.pipeline.handle(WriteEvent::Failed { index, node, cause, acknowledged });
        } else if acknowledged < available {
            pipe.acknowledged = (acknowledged + PIECE).min(available);
            let replica = (generation, pipe.acknowledged);
            self.replicas.extend(targets.iter().map(|target| ((id, *target), replica)));
        } else if all {
            let done = BlockCommit { length: acknowledged, ..commit_of(&pipe.block) };
            assert!(acknowledged > 0);
            // Who is fed has it by then.
            let replica = (generation, acknowledged);
            self.replicas.extend(targets.iter().map(|target| ((id, *target), replica)));
            self.pipes.remove(&index);
            self.pipeline.handle(WriteEvent::Done { index, commit: done });
        } else if self.wanted.is_some() {
            let (_, sync) = self.wanted.unwrap();
            let reached = BlockCommit { length: acknowledged, ..commit_of(&pipe.block) };
            // An empty sync: all of the pipeline has it, fed or not.
            let replica = (generation, acknowledged);
            self.replicas.extend(targets.iter().map(|target| ((id, *target), replica)));
            self.pipeline.handle(WriteEvent::Reached { index, commit: reached, synced: sync });
        } else if step % 3 == 2 {
            self.pipes.remove(&index);
            self.pipeline.handle(WriteEvent::Stalled { index, acknowledged });
        }
    }

    fn answer(&mut self) {
        match self.request.take().unwrap() {
            WriteAction::Allocate(allocation) => self.allocate(allocation),
            WriteAction::Recover(recovery) => self.recover(&recovery),
            WriteAction::Flush(flush) => self.flush(flush),
            other @ (WriteAction::Send { .. }
            | WriteAction::Complete { .. }
            | WriteAction::Fail { .. }) => panic!("no request: {other:?}"),
        }
    }

    /// Some nodes that are not excluded, behind those that must be among them.
    fn targets(&mut self, holders: &[NodeId], excluded: &[NodeId]) -> Vec<NodeAddress> {
        let first = u32::from(self.step());
        let mut ids: Vec<NodeId> = holders.to_vec();
        for at in 0..NODES {
            let id = NodeId((first + at) % NODES + 1);
            if ids.len() < 3 && !ids.contains(&id) && !excluded.contains(&id) {
                ids.push(id);
            }
        }
        ids.into_iter().map(|id| node(id.0)).collect()
    }

    fn allocate(&mut self, allocation: Allocation) {
        let Allocation { index, commits, replaces, excluded, .. } = allocation;
        let targets = self.targets(&[], &excluded);
        if targets.is_empty() || (!excluded.is_empty() && self.step() % 5 == 3) {
            self.pipeline.handle(WriteEvent::NoneLeft);
            return;
        }
        self.tell(commits);
        let before = self.open.get(&index);
        assert_eq!(before.map(|open| open.id), replaces);
        assert!(before.is_none_or(|open| open.flushed == 0), "what is visible is never replaced");
        let id = BlockId(self.next_id);
        self.next_id += 1;
        let generation = Generation(1);
        self.open.insert(index, Open { id, generation, flushed: 0, holders: vec![] });
        let block = AllocatedBlock { id, generation, index, targets };
        self.pipeline.handle(WriteEvent::Allocated { block });
    }

    fn recover(&mut self, recovery: &Recovery) {
        let Recovery { index, block, generation, acknowledged, survivors, excluded, .. } = recovery;
        for survivor in survivors {
            let replica = self.replicas.get(&(*block, *survivor)).expect("a survivor has it");
            assert!(replica.1 >= *acknowledged, "a survivor has all that is acknowledged");
            assert!(!excluded.contains(survivor), "who failed does not survive");
        }
        let open = &self.open[index];
        assert_eq!((open.id, open.generation), (*block, *generation));
        let (length, holders) = if survivors.is_empty() {
            assert!(open.flushed > 0, "nobody has anything of it");
            (open.flushed, open.holders.clone())
        } else {
            (*acknowledged, survivors.clone())
        };
        let targets = self.targets(&holders, excluded);
        if survivors.is_empty() && !excluded.is_empty() && self.step() % 5 == 3 {
            self.pipeline.handle(WriteEvent::NoneLeft);
            return;
        }
        let open = self.open.get_mut(index).unwrap();
        open.generation = Generation(open.generation.0 + 1);
        let block =
            AllocatedBlock { id: *block, generation: open.generation, index: *index, targets };
        self.pipeline.handle(WriteEvent::Recovered { block, length, holders });
    }

    fn flush(&mut self, flush: Flush) {
        let Flush { length, sync, commits, open } = flush;
        assert!(length >= self.flushed, "a flush never shows less");
        self.tell(commits);
        let told: u64 = self.told.iter().map(|commit| commit.length).sum();
        let part = open.as_ref().map_or(0, |commit| commit.length);
        assert_eq!(told + part, length, "all before the end is told");
        if let Some(commit) = open {
            self.check(&commit);
            let open = self.open.values_mut().find(|open| open.id == commit.id).unwrap();
            assert_eq!(open.generation, commit.generation);
            (open.flushed, open.holders) = (commit.length, commit.nodes);
        }
        self.flushed = length;
        self.pipeline.handle(WriteEvent::Flushed { length, sync });
        if self.wanted == Some((length, sync)) {
            self.wanted = None;
        }
    }

    fn tell(&mut self, commits: Vec<BlockCommit>) {
        for commit in commits {
            self.check(&commit);
            self.told.push(commit);
        }
    }

    /// Who commits a block has it, under that generation.
    fn check(&self, commit: &BlockCommit) {
        for node in &commit.nodes {
            let (generation, length) = self.replicas[&(commit.id, *node)];
            assert_eq!(generation, commit.generation);
            assert!(length >= commit.length);
        }
    }
}

fn commit_of(block: &AllocatedBlock) -> BlockCommit {
    let nodes = block.targets.iter().map(|target| target.id).collect();
    BlockCommit { generation: block.generation, nodes, ..commit(block.id.0) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_byte_is_acknowledged_at_its_place_whatever_fails(
        pieces in 0_u64..30,
        sending_max in 1_usize..4,
        script in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let limits = WriteLimits { sending_max, unfinished_max: sending_max + 1, attempts_max: 400 };
        let length = pieces * PIECE;
        let told = Model::new(limits, length, script).run();
        let mut ids: Vec<u64> = told.iter().map(|commit| commit.id.0).collect();
        prop_assert_eq!(told.iter().map(|commit| commit.length).sum::<u64>(), length);
        prop_assert_eq!(ids.len() as u64, length.div_ceil(BLOCK));
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(ids.len(), told.len(), "nothing is committed twice");
    }
}
