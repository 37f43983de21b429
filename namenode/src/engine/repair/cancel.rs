//! Ends copies that nobody needs any more, because a holder is back or fewer replicas are wanted.
//!
//! Only once enough replicas are *known* to be there, by inventories that were compared: a node that returns with an
//! empty disk ends no copy. Nothing rests on a cancelled copy having ended. If it arrives all the same it is a replica
//! like any other that was not expected: it joins its set, and what is then too much is trimmed.

use doldam_proto::wire::{CancelOrder, order};

use super::assess::Assessment;
use super::task::CopyReason;
use super::{Action, RepairPlanner, SHORT_ORDER_TIMEOUT, Surroundings, trim};
use crate::engine::namespace::view::Block;

impl RepairPlanner {
    /// Ends the copies of a block beyond those it needs, the youngest first. Moves are not for the block's sake and go
    /// on.
    pub(super) fn cancel_needless(
        &mut self,
        block: &Block,
        assessment: &Assessment,
        around: &Surroundings<'_>,
    ) {
        let is_coming = |order: &u64| {
            let task = self.tasks.get(*order);
            task.is_some_and(|task| {
                task.reason != CopyReason::Balance && !block.good.contains(&task.target)
            })
        };
        let mut coming: Vec<u64> = self.tasks.orders_of_block(block.id).collect();
        coming.retain(is_coming);
        let needed = assessment.copies_needed();
        if coming.len() <= needed || self.is_doubted(block.id) {
            return;
        }
        if trim::sure_replicas(assessment, around.cluster) + needed < assessment.goal.max(1) {
            return;
        }
        let is_stored = |order: &u64| self.tasks.get(*order).is_some_and(|task| task.is_stored);
        coming.sort_by_key(|order| !is_stored(order)); // Stable: else the oldest first.
        for copy_order_id in coming.split_off(needed) {
            if self.tasks.get(copy_order_id).is_some_and(|task| !task.is_stored)
                && let Some(task) = self.release_task(copy_order_id)
            {
                let cancel = order::Kind::Cancel(CancelOrder { copy_order_id });
                let order = self.order(cancel, SHORT_ORDER_TIMEOUT);
                self.actions.push(Action::Order(task.source, order));
            }
        }
    }
}
