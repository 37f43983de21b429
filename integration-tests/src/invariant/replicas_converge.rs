//! After all healed the disks hold what the namenode lists, good and durable, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use doldam_client::{BlockHealth, FsckFile};

use super::{Copy, replica_copies};
use crate::simulation::world::World;

/// Checks it.
///
/// # Errors
/// Why it is not so yet.
pub fn check(world: &World, files: &[FsckFile]) -> Result<(), String> {
    let copies = replica_copies(world);
    let mut listed: BTreeSet<(usize, String)> = BTreeSet::new();
    for file in files {
        if file.health != BlockHealth::Healthy {
            return Err(format!("{} is {:?}: {:?}", file.path, file.health, file.blocks));
        }
        for block in &file.blocks {
            for node in &block.replicas {
                let found = find(world, &copies, &node.address, block.id.0, block.generation.0)?;
                listed.insert(found);
            }
        }
    }
    for (stem, copies) in &copies {
        for copy in copies {
            if !listed.contains(&(copy.server, stem.clone())) {
                let machine = &world.servers.borrow()[copy.server].machine;
                let beside: Vec<_> = machine.files_below(copy.path.parent().unwrap_or(&copy.path));
                return Err(format!("nobody lists {copy:?}, beside it: {beside:?}"));
            }
            if !copy.is_good || !copy.is_durable {
                return Err(format!("a bad or volatile replica is left: {copy:?}"));
            }
        }
    }
    nothing_is_left_over(world)
}

/// The good copy that the datanode at `address` has of a block.
fn find(
    world: &World,
    copies: &BTreeMap<String, Vec<Copy>>,
    address: &str,
    block: u64,
    generation: u64,
) -> Result<(usize, String), String> {
    let prefix = format!("{block:016x}_{generation}_");
    let servers = world.servers.borrow();
    let name = address.split(':').next().unwrap_or_default();
    for (stem, copies) in
        copies.range(prefix.clone()..).take_while(|(stem, _)| stem.starts_with(&prefix))
    {
        if let Some(copy) = copies.iter().find(|copy| servers[copy.server].name == name) {
            return Ok((copy.server, stem.clone()));
        }
    }
    Err(format!("{address} is listed with {prefix} and does not have it"))
}

/// Nothing waits in the folders of what comes and goes.
fn nothing_is_left_over(world: &World) -> Result<(), String> {
    for server in world.servers.borrow().iter().skip(1) {
        for (path, _) in server.machine.files_below(Path::new("/")) {
            let place = path.iter().nth(2).and_then(|place| place.to_str());
            if matches!(place, Some("writing" | "trash" | "quarantine")) {
                return Err(format!("{} still has {}", server.name, path.display()));
            }
        }
    }
    Ok(())
}
