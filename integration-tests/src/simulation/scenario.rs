//! One run from the start to the verdict.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{LocalBoxFuture, select_all, try_join, try_join_all};
use tokio::time::sleep;

use super::trace::Trace;
use super::workload::Actor;
use super::world::World;
use super::{Summary, Violation, convergence, schedule};

/// Longest start of the whole cluster.
const START_MAX_SECS: u64 = 60;

/// Runs `seed`.
///
/// # Errors
/// The first promise that is broken.
pub async fn run(seed: u64, trace: &Arc<Trace>) -> Result<Summary, Violation> {
    let world = World::new(seed, trace);
    let servers = (0..=world.settings.datanodes).map(|index| {
        let supervised = Rc::clone(&world).supervise(index);
        supervised.map(|ended| ended.map(|never| match never {})).boxed_local()
    });
    let mut parts: Vec<LocalBoxFuture<'_, Result<Summary, Violation>>> = servers.collect();
    parts.push(story(&world).boxed_local());
    let (result, _, _) = select_all(parts).await;
    result
}

async fn story(world: &Rc<World>) -> Result<Summary, Violation> {
    for _ in 0..START_MAX_SECS {
        if world.all_up() {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    if !world.all_up() {
        return Err(Violation::new("the cluster starts", "a server is down"));
    }
    let mut actors: Vec<Actor> =
        (0..world.settings.clients).map(|number| Actor::new(world, number)).collect();
    let working = try_join_all(actors.iter_mut().map(Actor::work));
    try_join(schedule::run(world), working).await?;
    convergence::check(world).await?;
    let mut summary = *world.summary.borrow();
    summary.secs = world.now().as_secs();
    Ok(summary)
}
