//! The namenode's tables agree with each other: what its own `engine/invariant.rs` recomputes.

use crate::simulation::Violation;
use crate::simulation::world::World;

/// Checks it, if the namenode runs.
pub(super) fn check(world: &World) -> Result<(), Violation> {
    let servers = world.servers.borrow();
    let Some(namenode) = &servers[0].namenode else { return Ok(()) };
    if !servers[0].incarnation.is_alive() {
        return Ok(());
    }
    match namenode.violations().into_iter().next() {
        Some(what) => Err(Violation::new("the namenode's state is sound", what)),
        None => Ok(()),
    }
}
