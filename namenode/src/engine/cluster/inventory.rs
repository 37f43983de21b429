//! Does a datanode hold what the durable state says it holds? Found out by set hashes, bucket by bucket.
//!
//! Each heartbeat carries the set hash over all final replicas of the node. If it differs from ours, the node is
//! asked for the hashes of its buckets, then for the contents of those that differ; each entry that is not as it
//! should be is a [`Finding`]. While blocks come and go the hashes differ all the time without anything being
//! wrong, so a node is asked when it just registered, when its hash stood still since its last heartbeat, or when
//! the last comparison is [`RECONCILE_EVERY`] ago.
//!
//! What must be on the node is noted when its list is *asked for*: whatever was in its set then was stored before
//! the node reads the question, so a list without it proves that it is gone. What was added later proves nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use doldam_proto::fingerprint::{Fingerprint, ReplicaId};
use doldam_proto::id::{BlockId, Generation, NodeId};

use super::Uptime;
use crate::engine::namespace::view;
use crate::engine::tables::{StoreError, Tables};

/// A node whose hash never stands still is compared this often.
pub const RECONCILE_EVERY: Duration = Duration::from_mins(1);
/// An answer that does not come within this time is asked for anew.
pub const ANSWER_MAX: Duration = Duration::from_secs(30);
/// A node is asked no more often than this, unless it registers: a difference that only time mends (a drop that was
/// ordered and may be lost) would else be compared as fast as the network carries it.
pub const RECONCILE_PAUSE: Duration = Duration::from_secs(1);
/// About how many replicas one question may list, in the answer and in our own memory.
const LISTED_REPLICAS_MAX: u64 = 50_000;

/// The comparisons with all nodes.
#[derive(Debug, Default)]
pub struct Inventory {
    nodes: BTreeMap<NodeId, Progress>,
}

/// What to do next with a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask for the hashes of all its buckets.
    ReportBuckets,
    /// Ask for the contents of these buckets.
    ListBuckets(Vec<u32>),
    /// All buckets were compared: what the node holds is known.
    Confirmed,
}

/// A replica that is not as the durable state says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The node holds it and is not in its set, or holds another length.
    Unexpected(ReplicaId),
    /// The node is in its set and does not hold it.
    Missing(BlockId, Generation),
}

#[derive(Debug)]
struct Progress {
    phase: Phase,
    last_root: Option<Fingerprint>,
    replicas: u64,
    compared_at: Option<Uptime>,
    asked_at: Option<Uptime>,
}

#[derive(Debug)]
enum Phase {
    Idle,
    AwaitBuckets { until: Uptime },
    AwaitLists(Lists),
}

#[derive(Debug)]
struct Lists {
    /// Asked for and not yet answered, each with what must be in the answer.
    asked: BTreeMap<u32, BTreeMap<BlockId, (Generation, u64)>>,
    /// Not yet asked for.
    waiting: VecDeque<u32>,
    until: Uptime,
}

impl Progress {
    fn new() -> Self {
        let phase = Phase::Idle;
        Self { phase, last_root: None, replicas: 0, compared_at: None, asked_at: None }
    }
}

impl Inventory {
    /// The node registered: all that was known of it is to be found out anew.
    pub fn registered(&mut self, node: NodeId) {
        self.nodes.insert(node, Progress::new());
    }

    /// A heartbeat with the hash `root` over `count` replicas came.
    ///
    /// # Errors
    /// If the store fails.
    pub fn heartbeat(
        &mut self,
        now: Uptime,
        node: NodeId,
        (root, count): (Fingerprint, u64),
        tables: &dyn Tables,
    ) -> Result<Option<Step>, StoreError> {
        let progress = self.nodes.entry(node).or_insert_with(Progress::new);
        progress.replicas = count;
        let stood_still = progress.last_root.replace(root) == Some(root);
        let is_waiting = match &progress.phase {
            Phase::Idle => false,
            Phase::AwaitBuckets { until } => now < *until,
            Phase::AwaitLists(lists) => now < lists.until,
        };
        if is_waiting {
            return Ok(None);
        }
        progress.phase = Phase::Idle;
        let ours = view::replica_sum(tables, node)?;
        if ours.fingerprint == root {
            progress.compared_at = Some(now);
            return Ok(Some(Step::Confirmed));
        }
        let is_old = progress.compared_at.is_none_or(|at| now >= at + RECONCILE_EVERY);
        let is_soon = progress.asked_at.is_some_and(|at| now < at + RECONCILE_PAUSE);
        if is_soon || (!stood_still && !is_old) {
            return Ok(None);
        }
        progress.asked_at = Some(now);
        progress.phase = Phase::AwaitBuckets { until: now + ANSWER_MAX };
        Ok(Some(Step::ReportBuckets))
    }

    /// The node answered with the hashes of its buckets; those it leaves out are empty.
    ///
    /// # Errors
    /// If the store fails.
    pub fn buckets(
        &mut self,
        now: Uptime,
        node: NodeId,
        theirs: &BTreeMap<u32, Fingerprint>,
        tables: &dyn Tables,
    ) -> Result<Option<Step>, StoreError> {
        let Some(progress) = self.nodes.get_mut(&node) else { return Ok(None) };
        if !matches!(progress.phase, Phase::AwaitBuckets { .. }) {
            return Ok(None);
        }
        let mut differing = theirs.clone();
        let mut missing = BTreeSet::new();
        for (bucket, ours) in view::bucket_sums(tables, node)? {
            match differing.get(&bucket) {
                Some(found) if *found == ours.fingerprint => _ = differing.remove(&bucket),
                Some(_) => {}
                None => _ = missing.insert(bucket),
            }
        }
        missing.extend(differing.into_keys());
        let lists =
            Lists { asked: BTreeMap::new(), waiting: missing.into_iter().collect(), until: now };
        progress.phase = Phase::AwaitLists(lists);
        progress.ask_next(now, node, tables).map(Some)
    }

    /// The node answered with the contents of one bucket. Returns what is not as it should be, and the next step
    /// once all that was asked for has been answered. An answer nobody asked for says nothing.
    ///
    /// # Errors
    /// If the store fails.
    pub fn listing(
        &mut self,
        now: Uptime,
        node: NodeId,
        (bucket, theirs): (u32, &[ReplicaId]),
        tables: &dyn Tables,
    ) -> Result<(Vec<Finding>, Option<Step>), StoreError> {
        let nothing = Ok((Vec::new(), None));
        let Some(progress) = self.nodes.get_mut(&node) else { return nothing };
        let Phase::AwaitLists(lists) = &mut progress.phase else { return nothing };
        let Some(mut expected) = lists.asked.remove(&bucket) else { return nothing };
        lists.until = now + ANSWER_MAX;

        let mut current = current_replicas(tables, node, bucket)?;
        expected.retain(|block, identity| current.get(block) == Some(identity));
        let mut findings = Vec::new();
        for replica in theirs {
            let identity = (replica.generation, replica.length);
            // A block may be there under several generations.
            if expected.get(&replica.block).is_some_and(|known| known.0 == replica.generation) {
                expected.remove(&replica.block);
            }
            if current.get(&replica.block) == Some(&identity) {
                current.remove(&replica.block);
            } else {
                findings.push(Finding::Unexpected(*replica));
            }
        }
        let missing = expected.into_iter();
        findings
            .extend(missing.map(|(block, (generation, _))| Finding::Missing(block, generation)));
        let is_answered = lists.asked.is_empty();
        let step = if is_answered { Some(progress.ask_next(now, node, tables)?) } else { None };
        Ok((findings, step))
    }
}

impl Progress {
    /// Asks for as many of the waiting buckets as one answer may hold.
    fn ask_next(
        &mut self,
        now: Uptime,
        node: NodeId,
        tables: &dyn Tables,
    ) -> Result<Step, StoreError> {
        let Phase::AwaitLists(lists) = &mut self.phase else { return Ok(Step::Confirmed) };
        if lists.waiting.is_empty() {
            self.phase = Phase::Idle;
            self.compared_at = Some(now);
            return Ok(Step::Confirmed);
        }
        let per_bucket = self.replicas / u64::from(doldam_proto::limits::REPORT_BUCKETS) + 1;
        let mut room = LISTED_REPLICAS_MAX;
        let mut buckets = Vec::new();
        while let Some(bucket) = lists.waiting.pop_front() {
            let expected = current_replicas(tables, node, bucket)?;
            room = room.saturating_sub(per_bucket.max(expected.len() as u64));
            lists.asked.insert(bucket, expected);
            buckets.push(bucket);
            if room == 0 {
                break;
            }
        }
        lists.until = now + ANSWER_MAX;
        Ok(Step::ListBuckets(buckets))
    }
}

fn current_replicas(
    tables: &dyn Tables,
    node: NodeId,
    bucket: u32,
) -> Result<BTreeMap<BlockId, (Generation, u64)>, StoreError> {
    let replicas = view::bucket(tables, node, bucket)?.into_iter();
    Ok(replicas.map(|replica| (replica.block, (replica.generation, replica.length))).collect())
}

#[cfg(test)]
#[path = "inventory_test.rs"]
mod inventory_test;
