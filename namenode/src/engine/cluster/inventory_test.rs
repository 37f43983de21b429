//! Tests of the inventory: when a node is asked, what for, and what is concluded from its answers.

use std::collections::BTreeMap;
use std::time::Duration;

use doldam_proto::fingerprint::{Fingerprint, ReplicaId, bucket_of};
use doldam_proto::id::{BlockId, Generation, NodeId};

use super::{ANSWER_MAX, Finding, Inventory, RECONCILE_EVERY, RECONCILE_PAUSE, Step};
use crate::engine::records::fingerprints::{self, ReplicaSum, WHOLE_NODE};
use crate::engine::records::replicas;
use crate::engine::tables::{MemoryTables, WriteSet};

const NODE: NodeId = NodeId(3);
const ZERO: Duration = Duration::ZERO;

fn replica(block: u64) -> ReplicaId {
    ReplicaId { block: BlockId(block), generation: Generation(1), length: 100 }
}

fn sum(blocks: &[u64]) -> Fingerprint {
    let mut sum = Fingerprint::default();
    for block in blocks {
        sum.add(&replica(*block));
    }
    sum
}

fn buckets(blocks: &[u64]) -> BTreeMap<u32, Fingerprint> {
    let mut buckets: BTreeMap<u32, Fingerprint> = BTreeMap::new();
    for block in blocks {
        buckets.entry(bucket_of(BlockId(*block))).or_default().add(&replica(*block));
    }
    buckets
}

/// A state in which the node holds these blocks.
fn state(blocks: &[u64]) -> MemoryTables {
    let mut tables = MemoryTables::new();
    let mut set = WriteSet::new(&tables);
    for block in blocks {
        replicas::put(&mut set, NODE, &replica(*block));
    }
    for (bucket, fingerprint) in buckets(blocks) {
        fingerprints::put(&mut set, NODE, bucket, &ReplicaSum { fingerprint, count: 1 });
    }
    let whole = ReplicaSum { fingerprint: sum(blocks), count: blocks.len() as u64 };
    fingerprints::put(&mut set, NODE, WHOLE_NODE, &whole);
    let changes = set.into_changes();
    tables.apply_changes(changes);
    tables
}

fn beat(inventory: &mut Inventory, now: Duration, theirs: &[u64], ours: &[u64]) -> Option<Step> {
    let root = (sum(theirs), theirs.len() as u64);
    inventory.heartbeat(now, NODE, root, &state(ours)).unwrap()
}

/// An inventory that waits for the lists of the buckets in which `theirs` and `ours` differ.
fn asked_for_lists(theirs: &[u64], ours: &[u64]) -> (Inventory, Vec<u32>) {
    let mut inventory = Inventory::default();
    inventory.registered(NODE);
    assert_eq!(beat(&mut inventory, ZERO, theirs, ours), Some(Step::ReportBuckets));
    let step = inventory.buckets(ZERO, NODE, &buckets(theirs), &state(ours)).unwrap();
    let Some(Step::ListBuckets(asked)) = step else { panic!("{step:?}") };
    (inventory, asked)
}

#[test]
fn equal_hashes_confirm_a_node_without_a_question() {
    let mut inventory = Inventory::default();
    inventory.registered(NODE);
    assert_eq!(beat(&mut inventory, ZERO, &[1, 2], &[1, 2]), Some(Step::Confirmed));
}

#[test]
fn a_node_that_just_registered_is_asked_at_its_first_heartbeat() {
    let mut inventory = Inventory::default();
    inventory.registered(NODE);
    assert_eq!(beat(&mut inventory, ZERO, &[1], &[1, 2]), Some(Step::ReportBuckets));
}

#[test]
fn while_its_hash_moves_a_node_is_asked_only_when_the_last_comparison_is_old() {
    let mut inventory = Inventory::default();
    inventory.registered(NODE);
    beat(&mut inventory, ZERO, &[1], &[1]);
    let just_before = RECONCILE_EVERY.saturating_sub(Duration::from_nanos(1));
    assert_eq!(beat(&mut inventory, just_before, &[1, 2], &[1]), None);
    assert_eq!(beat(&mut inventory, RECONCILE_EVERY, &[1, 2, 3], &[1]), Some(Step::ReportBuckets));
}

#[test]
fn a_hash_that_differs_and_stands_still_is_asked_about() {
    let mut inventory = Inventory::default();
    inventory.registered(NODE);
    beat(&mut inventory, ZERO, &[1], &[1]);
    assert_eq!(beat(&mut inventory, ZERO, &[1, 2], &[1]), None);
    assert_eq!(beat(&mut inventory, ZERO, &[1, 2], &[1]), Some(Step::ReportBuckets));
}

#[test]
fn an_answer_that_does_not_come_is_asked_for_again_at_its_time_and_not_before() {
    let mut inventory = Inventory::default();
    inventory.registered(NODE);
    beat(&mut inventory, ZERO, &[1], &[]);
    let just_before = ANSWER_MAX.saturating_sub(Duration::from_nanos(1));
    assert_eq!(beat(&mut inventory, just_before, &[1], &[]), None);
    assert_eq!(beat(&mut inventory, ANSWER_MAX, &[1], &[]), Some(Step::ReportBuckets));
}

#[test]
fn a_difference_that_stays_is_asked_about_after_a_pause_and_not_at_every_message() {
    let (theirs, ours) = (&[1], &[]);
    let (mut inventory, _) = asked_for_lists(theirs, ours);
    let (_, step) = inventory.listing(ZERO, NODE, (1, &[replica(1)]), &state(ours)).unwrap();
    assert_eq!(step, Some(Step::Confirmed));
    let just_before = RECONCILE_PAUSE.saturating_sub(Duration::from_nanos(1));
    assert_eq!(beat(&mut inventory, just_before, theirs, ours), None);
    assert_eq!(beat(&mut inventory, RECONCILE_PAUSE, theirs, ours), Some(Step::ReportBuckets));
}

#[test]
fn only_buckets_that_differ_are_listed_and_empty_ones_count() {
    let (_, asked) = asked_for_lists(&[1, 2, 4], &[1, 3, 4]);
    assert_eq!(asked, [2, 3]);
}

#[test]
fn lists_show_what_is_unexpected_and_what_is_missing() {
    let (theirs, ours) = (&[1, 2], &[1, 3]);
    let (mut inventory, _) = asked_for_lists(theirs, ours);
    let unexpected = inventory.listing(ZERO, NODE, (2, &[replica(2)]), &state(ours)).unwrap();
    assert_eq!(unexpected, (vec![Finding::Unexpected(replica(2))], None));
    let missing = inventory.listing(ZERO, NODE, (3, &[]), &state(ours)).unwrap();
    let finding = Finding::Missing(BlockId(3), Generation(1));
    assert_eq!(missing, (vec![finding], Some(Step::Confirmed)));
}

#[test]
fn a_replica_of_another_length_is_unexpected_and_not_missing() {
    let ours = &[7];
    let (mut inventory, _) = asked_for_lists(&[], ours);
    let cut = ReplicaId { length: 99, ..replica(7) };
    let (findings, _) = inventory.listing(ZERO, NODE, (7, &[cut]), &state(ours)).unwrap();
    assert_eq!(findings, [Finding::Unexpected(cut)]);
}

#[test]
fn what_joined_the_set_after_the_question_is_not_missing() {
    let (mut inventory, _) = asked_for_lists(&[], &[5]);
    let later = state(&[5, 5 + 1024]);
    let (findings, _) = inventory.listing(ZERO, NODE, (5, &[]), &later).unwrap();
    assert_eq!(findings, [Finding::Missing(BlockId(5), Generation(1))]);
}

#[test]
fn what_left_the_set_after_the_question_is_not_missing_either() {
    let (mut inventory, _) = asked_for_lists(&[], &[5]);
    let (findings, _) = inventory.listing(ZERO, NODE, (5, &[]), &state(&[])).unwrap();
    assert_eq!(findings, []);
}

#[test]
fn answers_nobody_asked_for_say_nothing() {
    let mut inventory = Inventory::default();
    inventory.registered(NODE);
    let ours = &[1];
    assert_eq!(inventory.buckets(ZERO, NODE, &BTreeMap::new(), &state(ours)).unwrap(), None);
    let answer = inventory.listing(ZERO, NODE, (1, &[]), &state(ours)).unwrap();
    assert_eq!(answer, (vec![], None));
}

#[test]
fn each_generation_of_a_block_is_there_or_missing_by_itself() {
    let ours = &[7];
    let newer = ReplicaId { generation: Generation(2), ..replica(7) };
    for order in [[newer, replica(7)], [replica(7), newer]] {
        let (mut inventory, _) = asked_for_lists(&[], ours);
        let (findings, _) = inventory.listing(ZERO, NODE, (7, &order), &state(ours)).unwrap();
        assert_eq!(findings, [Finding::Unexpected(newer)]);
    }
    let (mut inventory, _) = asked_for_lists(&[], ours);
    let (findings, _) = inventory.listing(ZERO, NODE, (7, &[newer]), &state(ours)).unwrap();
    let missing = Finding::Missing(BlockId(7), Generation(1));
    assert_eq!(findings, [Finding::Unexpected(newer), missing]);
}
