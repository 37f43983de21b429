//! How much each node may be asked to copy at once, so that healing does not starve clients.

use std::collections::BTreeMap;

use doldam_proto::id::NodeId;

/// What one node may send, and what one may receive, for repair at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetLimits {
    /// Copies in each direction.
    pub copies_max: usize,
    /// Bytes in each direction; a single copy may be larger.
    pub bytes_max: u64,
}

/// One direction of one node: what a block may have to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hand {
    /// The node as a source.
    Sends(NodeId),
    /// The node as a target.
    Receives(NodeId),
    /// No node: the limit of all copies together.
    Pace,
}

/// What is under way on each node.
#[derive(Debug)]
pub struct Budget {
    limits: BudgetLimits,
    outgoing: BTreeMap<NodeId, Use>,
    incoming: BTreeMap<NodeId, Use>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Use {
    copies: usize,
    bytes: u64,
}

impl Budget {
    /// Nothing is under way.
    pub fn new(limits: BudgetLimits) -> Self {
        Self { limits, outgoing: BTreeMap::new(), incoming: BTreeMap::new() }
    }

    /// Whether `node` may be the source of another copy of `bytes`.
    pub fn may_send(&self, node: NodeId, bytes: u64) -> bool {
        self.has_room(&self.outgoing, node, bytes)
    }

    /// Whether `node` may be the target of another copy of `bytes`.
    pub fn may_receive(&self, node: NodeId, bytes: u64) -> bool {
        self.has_room(&self.incoming, node, bytes)
    }

    /// Copies that `node` is sending.
    pub fn sending(&self, node: NodeId) -> usize {
        self.outgoing.get(&node).map_or(0, |used| used.copies)
    }

    /// How many more copies the hand could take, if they are small.
    pub fn room(&self, hand: Hand) -> usize {
        let used = match hand {
            Hand::Sends(node) => self.outgoing.get(&node),
            Hand::Receives(node) => self.incoming.get(&node),
            Hand::Pace => return self.limits.copies_max,
        };
        match used {
            None => self.limits.copies_max,
            Some(used) if used.bytes >= self.limits.bytes_max => 0,
            Some(used) => self.limits.copies_max.saturating_sub(used.copies),
        }
    }

    /// A copy starts.
    pub fn take(&mut self, source: NodeId, target: NodeId, bytes: u64) {
        for (uses, node) in [(&mut self.outgoing, source), (&mut self.incoming, target)] {
            let used = uses.entry(node).or_default();
            used.copies += 1;
            used.bytes = used.bytes.saturating_add(bytes);
        }
    }

    /// A copy ended, however it did.
    pub fn give_back(&mut self, source: NodeId, target: NodeId, bytes: u64) {
        for (uses, node) in [(&mut self.outgoing, source), (&mut self.incoming, target)] {
            let Some(used) = uses.get_mut(&node) else { continue };
            used.copies = used.copies.saturating_sub(1);
            used.bytes = used.bytes.saturating_sub(bytes);
            if used.copies == 0 {
                uses.remove(&node);
            }
        }
    }

    fn has_room(&self, uses: &BTreeMap<NodeId, Use>, node: NodeId, bytes: u64) -> bool {
        let used = uses.get(&node).copied().unwrap_or_default();
        used.copies == 0
            || (used.copies < self.limits.copies_max
                && used.bytes.saturating_add(bytes) <= self.limits.bytes_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BudgetLimits = BudgetLimits { copies_max: 2, bytes_max: 100 };
    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    #[test]
    fn both_limits_hold_in_each_direction_on_their_own() {
        let mut budget = Budget::new(LIMITS);
        budget.take(A, B, 60);
        assert!(budget.may_send(A, 40) && !budget.may_send(A, 41));
        assert!(budget.may_receive(B, 40) && !budget.may_receive(B, 41));
        assert!(budget.may_send(B, 1000) && budget.may_receive(A, 1000), "nothing under way");
        budget.take(A, B, 1);
        assert!(!budget.may_send(A, 1) && !budget.may_receive(B, 1));
        assert_eq!(budget.sending(A), 2);
        assert_eq!((budget.room(Hand::Sends(A)), budget.room(Hand::Receives(A))), (0, 2));
    }

    #[test]
    fn what_is_given_back_is_free_again() {
        let mut budget = Budget::new(LIMITS);
        budget.take(A, B, 1000);
        assert!(!budget.may_send(A, 0), "larger than the limit, but alone");
        budget.give_back(A, B, 1000);
        assert!(budget.may_send(A, 1000));
        budget.give_back(A, B, 1000);
        assert_eq!(budget.sending(A), 0);
    }
}
