//! Of every block of an acknowledged file there is a good copy on some disk, whatever is down.
//!
//! The moment the last one goes is the moment to fail, long before anybody misses it. Files that were written with
//! less durability than the power loss that came are left out: they were promised nothing.

use std::collections::BTreeSet;

use super::replica_copies;
use crate::simulation::Violation;
use crate::simulation::oracle::content::ContentId;
use crate::simulation::oracle::tree::{Node, Tree};
use crate::simulation::world::World;

/// Checks it.
pub(super) fn check(world: &World) -> Result<(), Violation> {
    let there: BTreeSet<[u8; 32]> = replica_copies(world)
        .values()
        .flatten()
        .filter(|copy| copy.is_good)
        .map(|copy| *copy.hash.as_bytes())
        .collect();
    let contents = world.contents.borrow();
    for content in certain_contents(world) {
        let facts = contents.get(content);
        if facts.acknowledged.is_none() || facts.may_be_lost {
            continue;
        }
        if let Some(index) = facts.blocks.iter().position(|hash| !there.contains(hash.as_bytes())) {
            let what = format!("{content:?}, block {index} of {}", facts.blocks.len());
            return Err(Violation::new("acknowledged bytes exist", what));
        }
    }
    Ok(())
}

/// What is in a file in every state that is possible.
fn certain_contents(world: &World) -> BTreeSet<ContentId> {
    let mut certain = BTreeSet::new();
    for history in world.histories.borrow().iter() {
        let possible = history.possible();
        let mut states = possible.iter().map(contents_of);
        let first = states.next().unwrap_or_default();
        certain.extend(states.fold(first, |both, state| &both & &state));
    }
    certain
}

fn contents_of(state: &Tree) -> BTreeSet<ContentId> {
    let content = |node: &Node| match node {
        Node::File { content, .. } => Some(*content),
        Node::Folder => None,
    };
    state.values().filter_map(content).collect()
}
