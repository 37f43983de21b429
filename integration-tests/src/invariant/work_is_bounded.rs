//! No server piles up work: the number of its tasks has a bound, however long the trouble.

use crate::simulation::Violation;
use crate::simulation::world::World;

/// Far more than so small a cluster has to do.
const TASKS_MAX: usize = 400;

/// Checks it.
pub(super) fn check(world: &World) -> Result<(), Violation> {
    for server in world.servers.borrow().iter() {
        let tasks = server.tasks_running();
        if tasks > TASKS_MAX {
            let what = format!("{} has {tasks} tasks", server.name);
            return Err(Violation::new("work is bounded", what));
        }
    }
    Ok(())
}
