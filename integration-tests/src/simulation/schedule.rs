//! Which trouble comes when: chosen by the seed, each seed with a mix of its own.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use doldam_runtime::random::{Random, SeededRandom};
use tokio::time::sleep;

use super::Violation;
use super::disk::Faults;
use super::net::LinkFaults;
use super::world::World;
use crate::invariant;
use crate::invariant::replica_copies;

/// How far a wall clock jumps at the most.
const HOUR_MS: i64 = 3_600_000;

/// Kinds of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    KillDatanode,
    KillNamenode,
    KillClient,
    DieAtDisk,
    PowerOfOne,
    PowerOfAll,
    StopServer,
    Partition,
    OneWay,
    SlowLinks,
    SlowMachine,
    Resets,
    Refusals,
    Flip,
    ReadErrors,
    SyncError,
    FullDisk,
    SlowDisk,
    ClockJump,
    Calm,
}

const TROUBLES: [Trouble; 20] = [
    Trouble::KillDatanode,
    Trouble::KillNamenode,
    Trouble::KillClient,
    Trouble::DieAtDisk,
    Trouble::PowerOfOne,
    Trouble::PowerOfAll,
    Trouble::StopServer,
    Trouble::Partition,
    Trouble::OneWay,
    Trouble::SlowLinks,
    Trouble::SlowMachine,
    Trouble::Resets,
    Trouble::Refusals,
    Trouble::Flip,
    Trouble::ReadErrors,
    Trouble::SyncError,
    Trouble::FullDisk,
    Trouble::SlowDisk,
    Trouble::ClockJump,
    Trouble::Calm,
];

/// Makes trouble for as long as the settings say, then heals everything.
///
/// # Errors
/// At the first invariant that does not hold.
pub async fn run(world: &Rc<World>) -> Result<(), Violation> {
    let chance = world.chance("schedule");
    // Some kinds only: what hides behind one shows without it.
    let mix: Vec<Trouble> = TROUBLES.into_iter().filter(|_| chance.below(3) > 0).collect();
    world.trace.line("world", format_args!("mix: {mix:?}"));
    let end = world.now() + world.settings.trouble;
    while world.now() < end {
        sleep(Duration::from_millis(100 + chance.below(4000))).await;
        if let Some(trouble) = mix.get(chance.below(mix.len().max(1) as u64) as usize) {
            world.summary.borrow_mut().faults += 1;
            world.trace.line("world", format_args!("{trouble:?}"));
            make(world, *trouble, &chance);
        }
        invariant::check(world)?;
    }
    world.trace.line("world", format_args!("heals"));
    calm(world);
    world.allow_all();
    world.is_troubled.set(false);
    Ok(())
}

/// Everything but what is broken already behaves again.
fn calm(world: &World) {
    world.network.heal();
    for server in world.servers.borrow().iter() {
        server.machine.set_faults(Faults::default());
    }
}

fn make(world: &World, trouble: Trouble, chance: &SeededRandom) {
    let datanodes = world.settings.datanodes;
    let server = chance.below(datanodes as u64 + 1) as usize;
    let datanode = 1 + chance.below(datanodes as u64) as usize;
    let down = Duration::from_millis(chance.below(15_000));
    match trouble {
        Trouble::KillDatanode => world.kill(datanode, false, down),
        Trouble::KillNamenode => world.kill(0, false, down / 4),
        Trouble::KillClient => {
            let clients = world.clients.borrow();
            let client = &clients[chance.below(clients.len() as u64) as usize];
            world.trace.line(client.name(), format_args!("is killed"));
            client.die();
            world.network.drop_process(client, true);
        }
        Trouble::PowerOfOne => world.kill(server, true, down),
        Trouble::PowerOfAll => {
            for index in 0..=datanodes {
                world.kill(index, true, down / 4);
            }
        }
        Trouble::StopServer => world.stop(server),
        Trouble::Partition
        | Trouble::OneWay
        | Trouble::SlowLinks
        | Trouble::SlowMachine
        | Trouble::Resets
        | Trouble::Refusals => trouble_network(world, trouble, chance),
        Trouble::Flip => flip(world, chance),
        Trouble::ClockJump => {
            world.jump(server, HOUR_MS - i64::from(chance.below(7_200_000) as u32));
        }
        Trouble::DieAtDisk
        | Trouble::ReadErrors
        | Trouble::SyncError
        | Trouble::FullDisk
        | Trouble::SlowDisk => trouble_disk(world, trouble, chance, server),
        Trouble::Calm => calm(world),
    }
}

fn trouble_network(world: &World, trouble: Trouble, chance: &SeededRandom) {
    let servers = world.servers.borrow();
    let mut machines: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
    let clients = world.clients.borrow();
    machines.extend(clients.iter().map(|client| client.name()));
    let any = || machines[chance.below(machines.len() as u64) as usize];
    match trouble {
        Trouble::Partition => {
            let cut: Vec<bool> = machines.iter().map(|_| chance.below(3) == 0).collect();
            for (from, from_is_cut) in machines.iter().zip(&cut) {
                for (to, to_is_cut) in machines.iter().zip(&cut) {
                    if from_is_cut != to_is_cut {
                        world.network.block(from, to);
                    }
                }
            }
        }
        Trouble::OneWay => world.network.block(any(), any()),
        Trouble::SlowMachine => {
            world.network.set_slow(any(), Duration::from_millis(50 + chance.below(3000)));
        }
        Trouble::SlowLinks => {
            let latency_max_ms = 10 + chance.below(500);
            world.network.set_faults(LinkFaults { latency_max_ms, ..LinkFaults::default() });
        }
        Trouble::Refusals => {
            let refused = 100 + chance.below(800);
            world.network.set_faults(LinkFaults { refused, ..LinkFaults::default() });
        }
        _ => {
            world.network.reset_some(1 + chance.below(4));
            let resets = chance.below(20);
            world.network.set_faults(LinkFaults { resets, ..LinkFaults::default() });
        }
    }
}

fn trouble_disk(world: &World, trouble: Trouble, chance: &SeededRandom, server: usize) {
    let faults = match trouble {
        Trouble::DieAtDisk => {
            world.dies_by_power(server, chance.below(2) == 0);
            Faults { crash_after: Some(chance.below(60)), ..Faults::default() }
        }
        Trouble::ReadErrors => Faults { read_errors: 1 + chance.below(100), ..Faults::default() },
        Trouble::SyncError => {
            world.drops_memory.set(true);
            Faults { sync_fails_after: Some(chance.below(10)), ..Faults::default() }
        }
        Trouble::FullDisk => Faults { room: Some(chance.below(400_000)), ..Faults::default() },
        _ => Faults { slow: Duration::from_millis(20 + chance.below(4000)), ..Faults::default() },
    };
    world.servers.borrow()[server].machine.set_faults(faults);
}

/// Flips a bit of a replica of which two other good ones are durable: nobody promises more.
fn flip(world: &World, chance: &SeededRandom) {
    let copies = replica_copies(world);
    let mut flipped = world.flipped.borrow_mut();
    let candidates: Vec<(usize, PathBuf, &String)> = copies
        .iter()
        .filter(|(name, _)| !flipped.contains(*name))
        .filter(|(_, all)| all.iter().filter(|copy| copy.is_good && copy.is_durable).count() >= 3)
        .flat_map(|(name, all)| {
            all.iter().filter(|copy| copy.is_good).map(move |copy| (name, copy))
        })
        .map(|(name, copy)| (copy.server, copy.path.clone(), name))
        .collect();
    if candidates.is_empty() {
        return;
    }
    let (server, data, name) = &candidates[chance.below(candidates.len() as u64) as usize];
    let path = if chance.below(4) == 0 { data.with_extension("side") } else { data.clone() };
    world.servers.borrow()[*server].machine.flip(Path::new(&path));
    flipped.insert((*name).clone());
}
