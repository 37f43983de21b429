//! What must hold after every step of a simulation, seen from outside and above.
//!
//! | property | file |
//! |---|---|
//! | of every block of an acknowledged file there is a good copy on some disk | [`acknowledged_bytes_exist`] |
//! | the namenode's tables agree with each other | [`namenode_state_is_sound`] |
//! | no server piles up work | [`work_is_bounded`] |
//! | after all healed, disks hold what the namenode lists and nothing else | [`replicas_converge`] |

pub mod acknowledged_bytes_exist;
pub mod namenode_state_is_sound;
pub mod replicas_converge;
pub mod work_is_bounded;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::simulation::Violation;
use crate::simulation::world::World;

/// Checks what must hold at any time.
///
/// # Errors
/// Names the first that does not.
pub fn check(world: &World) -> Result<(), Violation> {
    namenode_state_is_sound::check(world)?;
    work_is_bounded::check(world)?;
    acknowledged_bytes_exist::check(world)
}

/// The bytes of a replica on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Whose disk, by its position among the servers.
    pub server: usize,
    /// The file.
    pub path: PathBuf,
    /// Of its bytes.
    pub hash: blake3::Hash,
    /// Whether these are bytes of a block that a client wrote.
    pub is_good: bool,
    /// Whether a power loss would change nothing.
    pub is_durable: bool,
}

/// All replicas on all disks, good or in quarantine, by their names.
pub fn replica_copies(world: &World) -> BTreeMap<String, Vec<Copy>> {
    let mut copies: BTreeMap<String, Vec<Copy>> = BTreeMap::new();
    let contents = world.contents.borrow();
    for (index, server) in world.servers.borrow().iter().enumerate().skip(1) {
        for (path, key) in server.machine.files_below(Path::new("/")) {
            let place = path.iter().nth(2).and_then(|place| place.to_str());
            let is_data = path.extension().is_some_and(|extension| extension == "data");
            if !is_data || !matches!(place, Some("blocks" | "quarantine")) {
                continue;
            }
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            // What was appended to it may be in the same file behind its end.
            let length = stem.rsplit('_').next().and_then(|length| length.parse().ok());
            let length: u64 = length.unwrap_or(u64::MAX);
            let mut cache = world.hashes.borrow_mut();
            let hash = *cache.entry((key.0, key.1, length)).or_insert_with(|| {
                let file = server.machine.file(&path).map(|file| file.bytes).unwrap_or_default();
                blake3::hash(&file[..file.len().min(length as usize)])
            });
            let is_durable = server.machine.is_durable(&path, length);
            let is_good = contents.is_block(&hash);
            copies.entry(stem).or_default().push(Copy {
                server: index,
                path,
                hash,
                is_good,
                is_durable,
            });
        }
    }
    copies
}
