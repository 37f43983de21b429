//! What ties a range of groups to the value of their block.
//!
//! A proof for the groups `first..end` of a block is the values of those groups, in order, followed by the
//! values of the largest subtrees outside the range, in order. With the number of groups, which follows from
//! the length of the block, the shape of the tree is known, so nothing else is sent, and the verifier rebuilds
//! the block's value from it. Groups are then checked one by one as their bytes arrive.

use std::ops::Range;

use super::block::{GROUPS_MAX, left_leaves, merge, node_place};
use super::{ChainingValue, VALUE_BYTES};

/// Why a proof does not prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The range is empty or beyond the block, or the block is larger than any may be.
    #[error("the range of groups is empty or beyond the block")]
    BadRange,
    /// Too few or too many values for this range of this block.
    #[error("{found} bytes of proof where {expected} are needed")]
    WrongLength {
        /// Bytes needed.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The values do not lead to the value of the block.
    #[error("the values do not lead to the value of the block")]
    Mismatch,
}

/// Places, in the stored order of [`node_count`](super::block::node_count), of a proof's values.
///
/// # Errors
/// [`ProofError::BadRange`].
pub fn proof_places(leaves: usize, range: Range<usize>) -> Result<Vec<usize>, ProofError> {
    if range.is_empty() || range.end > leaves || leaves > GROUPS_MAX {
        return Err(ProofError::BadRange);
    }
    let mut places: Vec<usize> = range.clone().map(|leaf| 2 * leaf).collect();
    outside(0, leaves, &range, &mut |start, end| places.push(node_place(start, end)));
    Ok(places)
}

/// Calls `visit` for each largest subtree of `start..end` without a leaf in `range`, in order.
fn outside(start: usize, end: usize, range: &Range<usize>, visit: &mut impl FnMut(usize, usize)) {
    if end <= range.start || start >= range.end {
        visit(start, end);
    } else if end - start > 1 {
        let middle = start + left_leaves(end - start);
        outside(start, middle, range, visit);
        outside(middle, end, range, visit);
    }
}

/// Checks `proof` against the value of a block of `leaves` groups; returns the values of the groups in `range`.
///
/// `block` and `leaves` must come from whoever is trusted (the namenode's value and length of the block), never
/// from the peer that sent the proof.
///
/// # Errors
/// If the range or the length is wrong, or the values do not lead to `block`. Never panics, whatever the peer sent.
pub fn verify_proof(
    block: &ChainingValue,
    leaves: usize,
    range: Range<usize>,
    proof: &[u8],
) -> Result<Vec<ChainingValue>, ProofError> {
    let expected = VALUE_BYTES * proof_places(leaves, range.clone())?.len();
    if proof.len() != expected {
        return Err(ProofError::WrongLength { expected, found: proof.len() });
    }
    let mut values = proof.chunks_exact(VALUE_BYTES).filter_map(ChainingValue::from_slice);
    let groups: Vec<ChainingValue> = values.by_ref().take(range.len()).collect();
    let rebuilt = rebuild(0, leaves, &range, &groups, &mut values).ok_or(ProofError::Mismatch)?;
    if rebuilt == *block { Ok(groups) } else { Err(ProofError::Mismatch) }
}

fn rebuild(
    start: usize,
    end: usize,
    range: &Range<usize>,
    groups: &[ChainingValue],
    siblings: &mut impl Iterator<Item = ChainingValue>,
) -> Option<ChainingValue> {
    if end <= range.start || start >= range.end {
        return siblings.next();
    }
    if end - start == 1 {
        return groups.get(start - range.start).copied();
    }
    let middle = start + left_leaves(end - start);
    let left = rebuild(start, middle, range, groups, siblings)?;
    let right = rebuild(middle, end, range, groups, siblings)?;
    Some(merge(&left, &right))
}
