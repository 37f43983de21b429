//! Every proof of every small tree, and everything that must not pass for one.

use std::ops::Range;

use proptest::prelude::*;

use super::block::{GROUPS_MAX, node_count, node_place, stored_nodes, subtree_value};
use super::proof::{ProofError, proof_places, verify_proof};
use super::{ChainingValue, VALUE_BYTES};

fn leaves(count: usize) -> Vec<ChainingValue> {
    (0..count).map(|leaf| ChainingValue(*blake3::hash(&leaf.to_le_bytes()).as_bytes())).collect()
}

fn prove(leaves: &[ChainingValue], range: Range<usize>) -> Vec<u8> {
    let nodes = stored_nodes(leaves);
    let places = proof_places(leaves.len(), range).unwrap();
    places.into_iter().flat_map(|place| nodes[place].0).collect()
}

fn ranges(leaves: usize) -> impl Iterator<Item = Range<usize>> {
    (0..leaves).flat_map(move |start| (start + 1..=leaves).map(move |end| start..end))
}

#[test]
fn stored_nodes_hold_every_subtree_at_its_place() {
    fn check(leaves: &[ChainingValue], start: usize, end: usize, nodes: &[ChainingValue]) -> usize {
        let place = node_place(start, end);
        assert_eq!(Some(nodes[place]), subtree_value(&leaves[start..end]), "{start}..{end}");
        if end - start == 1 {
            return 1;
        }
        let middle = start + super::block::left_leaves(end - start);
        1 + check(leaves, start, middle, nodes) + check(leaves, middle, end, nodes)
    }
    assert!(stored_nodes(&[]).is_empty());
    for count in 1..=40 {
        let leaves = leaves(count);
        let nodes = stored_nodes(&leaves);
        assert_eq!(nodes.len(), node_count(count));
        assert_eq!(check(&leaves, 0, count, &nodes), nodes.len(), "each node has its own place");
    }
}

#[test]
fn every_range_of_every_small_tree_proves_its_leaves() {
    for count in 1..=40 {
        let leaves = leaves(count);
        let block = subtree_value(&leaves).unwrap();
        for range in ranges(count) {
            let proof = prove(&leaves, range.clone());
            let proved = verify_proof(&block, count, range.clone(), &proof);
            assert_eq!(proved.as_deref(), Ok(&leaves[range]));
        }
    }
}

#[test]
fn one_flipped_bit_in_any_value_fails() {
    for count in 1..=40 {
        let leaves = leaves(count);
        let block = subtree_value(&leaves).unwrap();
        for range in ranges(count) {
            let mut proof = prove(&leaves, range.clone());
            for value in 0..proof.len() / VALUE_BYTES {
                let bit = (value * 37 + range.start * 11 + range.end) % (8 * VALUE_BYTES);
                proof[value * VALUE_BYTES + bit / 8] ^= 1 << (bit % 8);
                let refused = verify_proof(&block, count, range.clone(), &proof);
                assert_eq!(refused, Err(ProofError::Mismatch), "{count} {range:?} {value}");
                proof[value * VALUE_BYTES + bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}

#[test]
fn any_flipped_bit_of_a_proof_or_of_the_block_value_fails() {
    let leaves = leaves(7);
    let block = subtree_value(&leaves).unwrap();
    for range in ranges(7) {
        let mut proof = prove(&leaves, range.clone());
        for bit in 0..proof.len() * 8 {
            proof[bit / 8] ^= 1 << (bit % 8);
            assert!(verify_proof(&block, 7, range.clone(), &proof).is_err());
            proof[bit / 8] ^= 1 << (bit % 8);
        }
        for bit in 0..VALUE_BYTES * 8 {
            let mut other = block;
            other.0[bit / 8] ^= 1 << (bit % 8);
            assert!(verify_proof(&other, 7, range.clone(), &proof).is_err());
        }
    }
}

#[test]
fn a_proof_cut_short_or_extended_fails() {
    let leaves = leaves(13);
    let block = subtree_value(&leaves).unwrap();
    for range in ranges(13) {
        let mut proof = prove(&leaves, range.clone());
        let expected = proof.len();
        for found in [0, 1, expected - VALUE_BYTES, expected - 1] {
            assert_eq!(
                verify_proof(&block, 13, range.clone(), &proof[..found]),
                Err(ProofError::WrongLength { expected, found })
            );
        }
        for extra in [1, VALUE_BYTES] {
            proof.resize(expected + extra, 0);
            let found = proof.len();
            assert_eq!(
                verify_proof(&block, 13, range.clone(), &proof),
                Err(ProofError::WrongLength { expected, found })
            );
        }
    }
}

/// A proof taken for another range may still be made of the right values (`0..1` and `0..2` of two leaves are
/// proved by the same two); what must never happen is that it yields a leaf that is not at that place.
#[test]
fn a_proof_for_another_range_never_yields_a_wrong_leaf() {
    let mut refused = 0;
    for count in 1..=12 {
        let leaves = leaves(count);
        let block = subtree_value(&leaves).unwrap();
        for range in ranges(count) {
            let proof = prove(&leaves, range.clone());
            for other in ranges(count).filter(|other| *other != range) {
                match verify_proof(&block, count, other.clone(), &proof) {
                    Ok(proved) => assert_eq!(proved, leaves[other]),
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(refused > 1000, "most are refused, {refused} were");
}

/// The number of leaves comes from the length that the namenode committed, never from the peer. Even if it were
/// wrong, no foreign value could pass: what is proved is a node of this very tree.
#[test]
fn a_wrong_number_of_leaves_never_lets_a_foreign_value_pass() {
    let mut refused = 0;
    for count in 1..=12 {
        let leaves = leaves(count);
        let (block, nodes) = (subtree_value(&leaves).unwrap(), stored_nodes(&leaves));
        for range in ranges(count) {
            let proof = prove(&leaves, range);
            for wrong in (1..=14).filter(|wrong| *wrong != count) {
                for claimed in ranges(wrong) {
                    match verify_proof(&block, wrong, claimed, &proof) {
                        Ok(proved) => assert!(proved.iter().all(|value| nodes.contains(value))),
                        Err(_) => refused += 1,
                    }
                }
            }
        }
    }
    assert!(refused > 10_000, "most are refused, {refused} were");
}

#[test]
#[allow(clippy::reversed_empty_ranges, reason = "a peer may send any two numbers")]
fn ranges_that_are_none_are_refused() {
    let block = ChainingValue([0; VALUE_BYTES]);
    for (leaves, range) in [
        (0, 0..0),
        (0, 0..1),
        (4, 2..2),
        (4, 3..2),
        (4, 0..5),
        (4, 4..5),
        (4, 0..usize::MAX),
        (GROUPS_MAX + 1, 0..1),
        (usize::MAX, 0..usize::MAX),
    ] {
        let refused = verify_proof(&block, leaves, range.clone(), &[]);
        assert_eq!(refused, Err(ProofError::BadRange), "{range:?} of {leaves}");
    }
}

#[test]
fn the_largest_block_is_proved_within_a_frame() {
    let leaves = leaves(GROUPS_MAX);
    let block = subtree_value(&leaves).unwrap();
    for range in [0..GROUPS_MAX, 1..GROUPS_MAX - 1, 7000..7001] {
        let proof = prove(&leaves, range.clone());
        assert!(proof.len() <= crate::limits::FRAME_PAYLOAD_BYTES_MAX);
        assert_eq!(verify_proof(&block, GROUPS_MAX, range.clone(), &proof).unwrap(), leaves[range]);
    }
}

proptest! {
    #[test]
    fn nothing_a_peer_sends_panics_or_passes(
        block: [u8; VALUE_BYTES],
        count in prop_oneof![0..100_usize, any::<usize>()],
        start in prop_oneof![0..100_usize, any::<usize>()],
        end in prop_oneof![0..100_usize, any::<usize>()],
        values in prop::collection::vec(any::<[u8; VALUE_BYTES]>(), 0..40),
        cut in 0..VALUE_BYTES,
    ) {
        let proof = values.concat();
        let proof = &proof[..proof.len().saturating_sub(cut)];
        let verified = verify_proof(&ChainingValue(block), count, start..end, proof);
        // Alone the one leaf of a tree is its own proof.
        prop_assert!(verified.is_err() || (count == 1 && proof == block));
    }

    #[test]
    fn larger_trees_prove_any_range(count in 41..2000_usize, from: prop::sample::Index, to: prop::sample::Index) {
        let leaves = leaves(count);
        let block = subtree_value(&leaves).unwrap();
        let (first, second) = (from.index(count), to.index(count));
        let range = first.min(second)..first.max(second) + 1;
        let proof = prove(&leaves, range.clone());
        prop_assert_eq!(verify_proof(&block, count, range.clone(), &proof).unwrap(), &leaves[range]);
    }
}
