//! After the trouble the cluster must come to full health in bounded simulated time, and keep every promise.

use std::rc::Rc;
use std::time::Duration;

use doldam_client::{Client, Durability, FsckFile, NodeState};
use futures::TryStreamExt;
use tokio::time::{Instant, sleep, timeout};

use super::Violation;
use super::workload::Actor;
use super::world::{World, chain, home};
use crate::invariant::{self, replicas_converge};
use crate::simulation::oracle::content::ContentId;
use crate::simulation::oracle::history::Answer;
use crate::simulation::oracle::tree::{Change, Node};

/// Longest way to full health.
const HEALING_MAX: Duration = Duration::from_mins(4);
/// Longest write of a small file to a healthy cluster.
const PUT_MAX: Duration = Duration::from_secs(3);
/// Files written at the end.
const LAST_PUTS: usize = 6;

/// Waits for health, then holds the cluster to what it promised.
///
/// # Errors
/// If it does not become healthy in time, or a promise is broken.
pub async fn check(world: &Rc<World>) -> Result<(), Violation> {
    let began = Instant::now();
    let deadline = began + HEALING_MAX;
    let mut actors = Vec::new();
    for number in 0..world.settings.clients {
        actors.push((Actor::new(world, number), connect(world, number, deadline).await?));
    }
    for (actor, client) in &actors {
        actor.settle(client, deadline).await?;
        actor.give_up_lost(client, deadline).await?;
    }
    for file in 0..world.stream_count() {
        let (actor, client) = &actors[0];
        actor.settle_stream(client, file, deadline).await?;
    }
    until_healthy(world, &actors[0].1, deadline).await?;
    world.summary.borrow_mut().healing_secs = began.elapsed().as_secs();
    for (actor, client) in &actors {
        last_puts(world, actor, client).await?;
        actor.read_all(client).await?;
    }
    until_healthy(world, &actors[0].1, Instant::now() + HEALING_MAX).await?;
    invariant::check(world)
}

/// Also makes the home of a client that could never connect before.
async fn connect(world: &World, number: usize, deadline: Instant) -> Result<Client, Violation> {
    loop {
        let connected = match world.connect(number).await {
            Ok(client) => client.mkdir(home(number), true).await.map(|_| client),
            Err(error) => Err(error),
        };
        match connected {
            Ok(client) => return Ok(client),
            Err(_) if Instant::now() < deadline => sleep(Duration::from_secs(1)).await,
            Err(error) => return Err(unhealthy(&chain(&error))),
        }
    }
}

fn unhealthy(why: &str) -> Violation {
    Violation::new("the cluster heals", format!("not after {HEALING_MAX:?}: {why}"))
}

async fn until_healthy(world: &World, client: &Client, deadline: Instant) -> Result<(), Violation> {
    loop {
        invariant::check(world)?;
        match is_healthy(world, client).await {
            Ok(()) => return Ok(()),
            Err(why) if Instant::now() >= deadline => return Err(unhealthy(&why)),
            Err(_) => sleep(Duration::from_secs(1)).await,
        }
    }
}

async fn is_healthy(world: &World, client: &Client) -> Result<(), String> {
    if !world.all_up() {
        return Err("a server is down".to_owned());
    }
    let report = client.report().await.map_err(|error| chain(&error))?;
    let live = report.datanodes.iter().filter(|node| node.node.state == NodeState::Live).count();
    let sick = report.under_replicated + report.corrupt + report.missing;
    if live != world.settings.datanodes
        || sick + report.repairs_running + report.repairs_waiting > 0
    {
        let found: Result<Vec<FsckFile>, _> = client.fsck("/", true).try_collect().await;
        return Err(format!("{live} datanodes are live, found is {found:?}: {report:?}"));
    }
    let files: Result<Vec<FsckFile>, _> = client.fsck("/", false).try_collect().await;
    replicas_converge::check(world, &files.map_err(|error| chain(&error))?)
}

/// A healthy cluster takes files at once.
async fn last_puts(world: &World, actor: &Actor, client: &Client) -> Result<(), Violation> {
    for number in 0..LAST_PUTS {
        let content = world.contents.borrow_mut().add(70_000 + number as u64, 65_536, false);
        let path = format!("{}/last{number}", home(actor.number()));
        let change = Change::Put { path, content, replication: 3, overwrite: true };
        let put = actor.change(client, &change, Durability::All);
        let answer = timeout(PUT_MAX, put).await.unwrap_or(Answer::Unknown);
        actor.note(&change, answer)?;
        if answer != Answer::Done {
            let what = format!("{answer:?} within {PUT_MAX:?}: {change:?}");
            return Err(Violation::new("a healthy cluster takes files", what));
        }
    }
    Ok(())
}

impl Actor {
    /// Finds out which of the possible states is the real one.
    async fn settle(&self, client: &Client, deadline: Instant) -> Result<(), Violation> {
        let mut paths: Vec<String> = self.states_paths();
        paths.insert(0, home(self.number()));
        for path in paths {
            while !self.list(client, &path).await? {
                if Instant::now() >= deadline {
                    return Err(unhealthy(&format!("{path} cannot be listed")));
                }
                sleep(Duration::from_secs(1)).await;
            }
        }
        match self.world().histories.borrow()[self.number()].states() {
            [state] => {
                self.world().summary.borrow_mut().files += state.len() as u64 - 1;
                Ok(())
            }
            states => Err(Violation::new("answers are true", format!("{states:#?}"))),
        }
    }

    fn states_paths(&self) -> Vec<String> {
        let histories = self.world().histories.borrow();
        let states = histories[self.number()].states().iter();
        let mut paths: Vec<String> = states.flat_map(|state| state.keys().cloned()).collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// Deletes the files that were promised too little for what came, if they are lost: as their owner would.
    async fn give_up_lost(&self, client: &Client, deadline: Instant) -> Result<(), Violation> {
        for (path, content) in self.files() {
            let facts = self.world().contents.borrow().get(content).clone();
            if !facts.may_be_lost || facts.length == 0 {
                continue;
            }
            let who = format!("c{}", self.number());
            self.world().trace.line(&who, format_args!("{path} may be lost"));
            let reader = client.open(&path).await;
            let is_there = match reader {
                Ok(reader) => reader.read_at(0, facts.length as usize).await.is_ok(),
                Err(_) => false,
            };
            let change = Change::Delete { path, recursive: false };
            if is_there {
                continue;
            }
            loop {
                let answer = self.change(client, &change, Durability::All).await;
                self.note(&change, answer)?;
                if answer == Answer::Done {
                    break;
                }
                if answer == Answer::Unknown || Instant::now() >= deadline {
                    return Err(unhealthy("a file cannot be deleted"));
                }
            }
        }
        Ok(())
    }

    fn files(&self) -> Vec<(String, ContentId)> {
        let histories = self.world().histories.borrow();
        let state = histories[self.number()].state();
        let files = state.into_iter().flatten().filter_map(|(path, node)| match node {
            Node::File { content, .. } => Some((path.clone(), *content)),
            Node::Folder => None,
        });
        files.collect()
    }

    /// Reads every file of the home, every byte.
    async fn read_all(&self, client: &Client) -> Result<(), Violation> {
        for (path, content) in self.files() {
            let facts = self.world().contents.borrow().get(content).clone();
            let lost = |why: String| Violation::new("acknowledged files are read", why);
            let reader = client.open(&path).await;
            let reader = reader.map_err(|error| lost(format!("{path}: {}", chain(&error))))?;
            let bytes = reader.read_at(0, facts.length as usize + 1).await;
            let bytes = bytes.map_err(|error| lost(format!("{path}: {}", chain(&error))))?;
            if blake3::hash(&bytes) != facts.digest {
                return Err(Violation::new("what is read was written", path));
            }
        }
        Ok(())
    }
}
