//! From data folders to the inventory: whose they are, what is in them, and the end of what a crash
//! interrupted.
//!
//! A start lists folders and reads no replica, for names carry all that the inventory needs. What
//! the files of a replica mean is decided in [`startup_plan`](crate::engine::startup_plan) and only
//! carried out here. What is none of ours is left alone, with a warning.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use doldam_proto::id::{ClusterId, NodeUuid};
use doldam_proto::limits::{BLOCK_BYTES_MAX, GROUP_BYTES};
use doldam_runtime::Seams;
use tracing::{info, warn};

use super::layout::{FileKind, ReplicaName, SHARDS};
use super::removal::{empty_trash, move_files};
use super::sidecar::sidecar_bytes;
use super::version_file::FolderIdentity;
use super::volume::{FolderError, Volume};
use crate::engine::replica::{Replica, ReplicaKey, ReplicaState, VolumeIndex};
use crate::engine::startup_plan::{Found, Place, Standing, plan};

/// What is found in one data folder.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// The replicas.
    pub(crate) replicas: BTreeMap<ReplicaKey, Replica>,
    /// Why some of them are bad, where that is known.
    pub(crate) damage: Vec<(ReplicaKey, String)>,
    /// Blocks that writers left.
    pub(crate) open: Vec<FoundOpen>,
    /// Blocks that nobody was told of and that were removed.
    pub(crate) removed: u64,
    /// Files that are none of ours.
    pub(crate) unknown: Vec<PathBuf>,
}

/// An open block, as it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FoundOpen {
    /// Which.
    pub(crate) key: ReplicaKey,
    /// Where the block starts in its file.
    pub(crate) file_offset: u64,
    /// Length of its file: every byte was verified before it was written.
    pub(crate) length: u64,
}

/// The files of one replica, by place.
#[derive(Debug, Default)]
struct Files {
    found: Found,
    data: BTreeMap<Place, Entry>,
    side: BTreeMap<Place, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    name: ReplicaName,
    kind: FileKind,
    bytes: u64,
}

/// A data folder, and why it cannot be served.
pub(crate) type Refused = (PathBuf, FolderError);

/// Opens the data folders and makes them one node's, a new node's if all are empty.
///
/// A folder whose disk is broken is passed over and reported as failed; the others are served.
///
/// # Errors
/// Names the first folder that cannot be served for another reason, or belongs to another node or
/// cluster than those before it, or the first of all if all are broken.
pub(crate) fn open_folders(
    seams: &Seams,
    dirs: &[PathBuf],
    reserve_bytes: u64,
) -> Result<(Vec<Arc<Volume>>, FolderIdentity), Refused> {
    let mut opened = Vec::new();
    for (dir, index) in dirs.iter().zip(0..) {
        let disk = Arc::clone(&seams.disk);
        let (index, stand_in) = (VolumeIndex(index), Arc::clone(&disk));
        opened.push(match Volume::open(disk, dir, index, reserve_bytes) {
            Ok(volume) => volume,
            Err(cause) if cause.is_broken_disk() => {
                (Volume::broken(stand_in, dir, index, &cause), None)
            }
            Err(cause) => return Err((dir.clone(), cause)),
        });
    }
    let mut node: Option<NodeUuid> = None;
    let mut cluster: Option<ClusterId> = None;
    for (volume, identity) in &opened {
        let Some(identity) = identity else { continue };
        let refused = |cause| (volume.layout().root().to_owned(), cause);
        let expected = *node.get_or_insert(identity.node);
        if expected != identity.node {
            return Err(refused(FolderError::OtherNode { expected, found: identity.node }));
        }
        if let Some(found) = identity.cluster {
            let expected = *cluster.get_or_insert(found);
            if expected != found {
                return Err(refused(FolderError::OtherCluster { expected, found }));
            }
        }
    }
    let node = node.unwrap_or_else(|| NodeUuid(seams.random.next_id()));
    let identity = FolderIdentity { node, cluster };
    let mut volumes = Vec::new();
    for (volume, found) in opened {
        if found != Some(identity) && !volume.has_failed() {
            let root = volume.layout().root().to_owned();
            info!(folder = %root.display(), node = %identity.node, "setting up a data folder");
            match volume.adopt(&identity) {
                Err(cause) if cause.is_broken_disk() => volume.give_up(&cause),
                adopted => adopted.map_err(|cause| (root, cause))?,
            }
        }
        volumes.push(Arc::new(volume));
    }
    require_one(&volumes)?;
    Ok((volumes, identity))
}

/// A node whose every folder failed has nothing to serve.
///
/// # Errors
/// Names the first folder.
pub(crate) fn require_one(volumes: &[Arc<Volume>]) -> Result<(), Refused> {
    let Some(first) = volumes.first() else { return Ok(()) };
    match first.failure() {
        Some(why) if volumes.iter().all(|volume| volume.has_failed()) => {
            Err((first.layout().root().to_owned(), FolderError::AllFailed { why }))
        }
        _ => Ok(()),
    }
}

/// Lists a data folder, finishes what a crash interrupted and tells what is there. Blocks on the
/// disk.
///
/// # Errors
/// If the folder cannot be listed.
pub(crate) fn scan(volume: &Volume) -> io::Result<Scan> {
    let mut scan = Scan::default();
    // These are small. The shards may be large and are taken one by one.
    let mut aside = BTreeMap::new();
    for place in [Place::Quarantine, Place::Writing, Place::Trash] {
        list(volume, place, &volume.layout().place(place), &mut aside, &mut scan)?;
    }
    for shard in 0..SHARDS {
        let folder = volume.layout().shard(shard);
        let mut files = BTreeMap::new();
        list(volume, Place::Blocks, &folder, &mut files, &mut scan)?;
        for (key, mut files) in files {
            if let Some(also) = aside.remove(&key) {
                files.unite(also);
            }
            settle(volume, key, &files, &mut scan);
        }
    }
    for (key, files) in aside {
        settle(volume, key, &files, &mut scan);
    }
    for path in &scan.unknown {
        warn!(path = %path.display(), "unknown file in a data folder; left alone");
    }
    Ok(scan)
}

fn list(
    volume: &Volume,
    place: Place,
    folder: &Path,
    files: &mut BTreeMap<ReplicaKey, Files>,
    scan: &mut Scan,
) -> io::Result<()> {
    for entry in volume.disk().list(folder)? {
        let path = folder.join(&entry.name);
        let parsed = ReplicaName::parse(&entry.name).filter(|(name, kind)| {
            // A name in the wrong folder would not be found again.
            !entry.is_dir && volume.layout().file(place, name, *kind) == path
        });
        let Some((name, kind)) = parsed.filter(|(name, kind)| belongs(place, name, *kind)) else {
            scan.unknown.push(path);
            continue;
        };
        let entry = Entry { name, kind, bytes: entry.bytes };
        if kind == FileKind::Copy {
            // Nothing of a repair copy is worth more than copying it again.
            remove(volume, place, &entry);
            scan.removed += 1;
            continue;
        }
        let of_key = files.entry(name.key).or_default();
        let (found, entries) = match kind {
            FileKind::Data | FileKind::Copy => (&mut of_key.found.data, &mut of_key.data),
            FileKind::Side | FileKind::UnsyncedSide => (&mut of_key.found.side, &mut of_key.side),
        };
        found.insert(place);
        match entries.insert(place, entry) {
            None => {}
            // Of a replica that was dropped twice before a loss of power brought both sidecars back.
            Some(other) if place == Place::Trash => remove(volume, place, &other),
            Some(_) => scan.unknown.push(path), // Only damage from outside makes two of one kind.
        }
    }
    Ok(())
}

/// Only what is being received has no length yet.
fn belongs(place: Place, name: &ReplicaName, kind: FileKind) -> bool {
    let is_whole = name.file_offset.is_none()
        && name.length.is_some_and(|length| (1..=BLOCK_BYTES_MAX).contains(&length));
    let is_open = name.length.is_none()
        && name.file_offset.is_some_and(|offset| {
            offset.is_multiple_of(GROUP_BYTES) && offset.checked_add(BLOCK_BYTES_MAX).is_some()
        });
    match (place, kind) {
        (Place::Blocks | Place::Quarantine, FileKind::Copy)
        | (Place::Writing, FileKind::UnsyncedSide) => false,
        (Place::Blocks | Place::Quarantine, _) | (Place::Writing, FileKind::Side) => is_whole,
        (Place::Writing, FileKind::Data) => is_open,
        (Place::Writing, FileKind::Copy) => name.file_offset.is_none(),
        (Place::Trash, _) => true,
    }
}

/// Carries out what is decided for the files of one replica.
fn settle(volume: &Volume, key: ReplicaKey, files: &Files, scan: &mut Scan) {
    let plan = plan(files.found);
    let removed = plan.remove_data.iter().filter_map(|place| Some((place, files.data.get(place)?)));
    let removed = removed
        .chain(plan.remove_side.iter().filter_map(|place| Some((place, files.side.get(place)?))));
    for (place, entry) in removed {
        remove(volume, *place, entry);
    }
    if plan.is_open {
        keep_open(volume, key, files, scan);
    } else if plan.standing == Standing::Gone {
        scan.removed += 1;
    }
    match plan.standing {
        Standing::Gone => {}
        Standing::Published => settle_published(volume, key, files, scan),
        Standing::HalfPublished => finish_publishing(volume, key, files, scan),
        Standing::Quarantined { damage } => {
            let name_from = [Place::Quarantine, Place::Blocks];
            settle_bad(volume, key, files, name_from, damage.map(str::to_owned), scan);
        }
    }
}

/// Keeps an open block, unless there is nothing of it.
fn keep_open(volume: &Volume, key: ReplicaKey, files: &Files, scan: &mut Scan) {
    let Some(entry) = files.data.get(&Place::Writing) else { return };
    if entry.bytes == 0 {
        remove(volume, Place::Writing, entry);
        scan.removed += 1;
        return;
    }
    let (file_offset, length) = (entry.name.file_offset.unwrap_or_default(), entry.bytes);
    scan.open.push(FoundOpen { key, file_offset, length });
}

/// Moves a sidecar to its data file. Whether either was synced nobody knows, so both are verified.
fn finish_publishing(volume: &Volume, key: ReplicaKey, files: &Files, scan: &mut Scan) {
    let (Some(data), Some(side)) =
        (files.data.get(&Place::Blocks), files.side.get(&Place::Writing))
    else {
        return; // Half published means that both are there.
    };
    let moved = if side.name == data.name {
        let from = volume.layout().file(Place::Writing, &side.name, FileKind::Side);
        let to = volume.layout().file(Place::Blocks, &side.name, FileKind::UnsyncedSide);
        volume.disk().rename(&from, &to).map_err(|cause| cause.to_string())
    } else {
        Err("they have different lengths".to_owned())
    };
    if let Err(why) = moved {
        let damage = Some(format!("its sidecar cannot be moved to its data file: {why}"));
        return settle_bad(volume, key, files, [Place::Blocks, Place::Quarantine], damage, scan);
    }
    let kind = FileKind::UnsyncedSide;
    let mut whole = Files { found: files.found, ..Files::default() };
    whole.data.insert(Place::Blocks, *data);
    whole.side.insert(Place::Blocks, Entry { kind, ..*side });
    settle_published(volume, key, &whole, scan);
}

fn settle_published(volume: &Volume, key: ReplicaKey, files: &Files, scan: &mut Scan) {
    let (Some(data), Some(side)) = (files.data.get(&Place::Blocks), files.side.get(&Place::Blocks))
    else {
        return; // Published means that both are there.
    };
    let length = data.name.length.unwrap_or_default();
    let expected = sidecar_bytes(length);
    // It may be longer: what was appended to it is in the same file.
    let damage = if data.bytes < length {
        Some(format!("its data file has {} bytes instead of {length}", data.bytes))
    } else if side.name.length != data.name.length || side.bytes != expected {
        Some(format!("its sidecar has {} bytes instead of {expected}", side.bytes))
    } else {
        None
    };
    if damage.is_some() {
        return settle_bad(volume, key, files, [Place::Blocks, Place::Quarantine], damage, scan);
    }
    let state = match side.kind {
        FileKind::UnsyncedSide => ReplicaState::Unsynced,
        FileKind::Data | FileKind::Copy | FileKind::Side => ReplicaState::Final,
    };
    scan.replicas.insert(key, Replica { length, volume: volume.index(), state });
}

fn settle_bad(
    volume: &Volume,
    key: ReplicaKey,
    files: &Files,
    name_from: [Place; 2],
    damage: Option<String>,
    scan: &mut Scan,
) {
    let entries = name_from.iter().flat_map(|place| [files.data.get(place), files.side.get(place)]);
    let Some(name) = entries.flatten().map(|entry| entry.name).next() else { return };
    for entry in [files.data.get(&Place::Blocks), files.side.get(&Place::Blocks)].iter().flatten() {
        if let Err(failure) = move_files(volume, &entry.name, Place::Blocks, Place::Quarantine) {
            warn!(%failure, "cannot move a bad replica to quarantine");
        }
    }
    let length = name.length.unwrap_or_default();
    let state = ReplicaState::Quarantined;
    scan.replicas.insert(key, Replica { length, volume: volume.index(), state });
    if let Some(what) = damage {
        warn!(%key, what, "replica is bad; in quarantine");
        scan.damage.push((key, what));
    }
}

fn remove(volume: &Volume, place: Place, entry: &Entry) {
    // What cannot be removed now does no harm, and is met again by the next start.
    let path = volume.layout().file(place, &entry.name, entry.kind);
    if let Err(cause) = volume.disk().remove_file(&path) {
        warn!(path = %path.display(), %cause, "cannot remove what a crash left behind");
    }
}

impl Files {
    fn unite(&mut self, other: Self) {
        let places =
            [(&mut self.found.data, other.found.data), (&mut self.found.side, other.found.side)];
        for (of, also) in places {
            also.iter().for_each(|place| of.insert(place));
        }
        self.data.extend(other.data);
        self.side.extend(other.side);
    }
}

/// What to do with a replica that was found in two data folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duplicate {
    /// Keep the first, remove the second.
    RemoveSecond,
    /// Keep the second, remove the first.
    RemoveFirst,
    /// Keep the first, leave the second where it is.
    LeaveSecond,
}

/// Judges a replica that was found in two data folders: a good one makes a bad one superfluous, and
/// a verified one every other. Such pairs come from a folder that failed, was replaced by repair,
/// and works again.
pub(crate) fn judge_duplicate(
    first: &Replica,
    second: &Replica,
    first_is_verified: impl FnOnce() -> bool,
) -> Duplicate {
    match (first.is_good(), second.is_good()) {
        (true, false) => Duplicate::RemoveSecond,
        (false, true) => Duplicate::RemoveFirst,
        (true, true) if first.length == second.length && first_is_verified() => {
            Duplicate::RemoveSecond
        }
        (true, true) | (false, false) => Duplicate::LeaveSecond,
    }
}

/// Removes the files of a replica that another data folder holds too.
pub(crate) fn remove_duplicate(volume: &Volume, key: ReplicaKey, replica: &Replica) {
    let name = ReplicaName::whole(key, replica.length);
    for place in [Place::Blocks, Place::Quarantine] {
        if let Err(failure) = move_files(volume, &name, place, Place::Trash) {
            warn!(%failure, "cannot remove a replica that another data folder holds too");
        }
    }
    empty_trash(volume, &name);
}

#[cfg(test)]
#[path = "startup_test.rs"]
mod tests;
