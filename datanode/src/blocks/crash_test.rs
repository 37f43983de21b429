//! A fault at every single operation of the disk: a crash with each kind of loss, an I/O error, a full disk.
//!
//! Each scenario is run once to count what it does to the disk, then again for every number with the fault there.
//! Then the node starts on what is left, and whatever was promised must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use doldam_runtime::Seams;
use doldam_runtime::disk::Disk;
use doldam_runtime::disk::unreliable::{Bytes, EIO, ENOSPC, Fault, Names, UnreliableDisk};
use tempfile::TempDir;

use super::StoreError;
use super::layout::{FileKind, Layout, ReplicaName};
use super::scrub_file::{load_position, save_position};
use super::startup::{Refused, open_folders, scan};
use super::store::BlockStore;
use crate::engine::receive::Ordered;
use crate::engine::replica::{Replica, ReplicaKey, ReplicaState};
use crate::engine::scrub_plan::ScrubPosition;
use crate::engine::startup_plan::Place;
use crate::start::take_in;
use crate::testing::cluster::key;
use crate::testing::{bytes, tree_of, try_store_block};

/// Synced and acknowledged before anything happens.
const HELD: u64 = 1;
/// Acknowledged without a sync.
const UNSYNCED: u64 = 2;
/// In quarantine; its bytes are whole all the same, so that they can be told from others.
const BAD: u64 = 3;
/// Nothing is there at first.
const NEW: u64 = 4;

const LOSSES: [(Names, Bytes); 6] = [
    (Names::Kept, Bytes::Kept), // `kill -9`
    (Names::Kept, Bytes::Synced),
    (Names::Kept, Bytes::Zeroed),
    (Names::Synced, Bytes::Kept),
    (Names::Synced, Bytes::Synced),
    (Names::Synced, Bytes::Zeroed),
];

/// What must hold afterwards.
#[derive(Debug, Clone)]
struct Promises {
    /// Whole, whatever was lost.
    durable: BTreeSet<u64>,
    /// Whole, if only the process died.
    volatile: BTreeSet<u64>,
    /// Still there, good or bad.
    kept: BTreeSet<u64>,
    /// The scrubber is at least so far.
    scrub_passes: u64,
}

struct Scenario {
    /// What happens, and what it promises or takes back.
    run: fn(&Arc<BlockStore>, &mut Promises),
}

const SYNCED_WRITE: Scenario = Scenario {
    run: |store, promises| {
        if write(store, NEW, true).is_ok() {
            promises.durable.insert(NEW);
        }
    },
};

const UNSYNCED_WRITE: Scenario = Scenario {
    run: |store, promises| {
        if write(store, NEW, false).is_ok() {
            promises.volatile.insert(NEW);
        }
    },
};

const REPLACEMENT: Scenario = Scenario {
    run: |store, promises| {
        if write(store, BAD, true).is_ok() {
            promises.durable.insert(BAD);
        }
    },
};

const DROP: Scenario = Scenario {
    run: |store, promises| {
        promises.take_back(HELD);
        // One that says it failed has left the replica where it was, unless the process died of it.
        if let Err(failure) = store.drop_replica(key(HELD))
            && !has_crashed(store)
        {
            assert!(!failure.is_full(), "a full disk can be emptied");
            promises.durable.insert(HELD);
        }
    },
};

const BAD_DROP: Scenario = Scenario {
    run: |store, promises| {
        promises.take_back(BAD);
        _ = store.drop_bad_replica(key(BAD));
    },
};

const QUARANTINE: Scenario = Scenario {
    run: |store, promises| {
        promises.take_back(HELD);
        promises.kept.insert(HELD);
        store.quarantine(key(HELD), "a test");
    },
};

const LATE_SYNC: Scenario = Scenario {
    run: |store, promises| {
        store.sync_late();
        let held = store.state().inventory.get(key(UNSYNCED));
        if held.is_some_and(|held| held.state == ReplicaState::Final) {
            promises.durable.insert(UNSYNCED);
        }
    },
};

const SCRUB_SAVE: Scenario = Scenario {
    run: |store, promises| {
        for passes in 1..=2 {
            let position = ScrubPosition { passes, ..Default::default() };
            if save_position(&store.volumes()[0], &position).is_ok() {
                promises.scrub_passes = passes;
            }
        }
    },
};

/// Whether nothing can be read any more.
fn has_crashed(store: &BlockStore) -> bool {
    let other = store.volumes()[store.volumes().len() - 1].as_ref();
    other.disk().list(other.layout().root()).is_err_and(|cause| cause.raw_os_error().is_none())
}

impl Promises {
    fn take_back(&mut self, block: u64) {
        self.durable.remove(&block);
        self.volatile.remove(&block);
        self.kept.remove(&block);
    }
}

/// An empty folder, in memory where the system has such a place: thousands of these are filled.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.unwrap()
}

/// One or two data folders, of which the first is on a disk that can fail and has a replica of each kind.
struct World {
    root: TempDir,
    disk: UnreliableDisk,
    store: Arc<BlockStore>,
    promises: Promises,
}

fn content(block: u64) -> Vec<u8> {
    bytes(70_000 + block as usize)
}

fn write(store: &Arc<BlockStore>, block: u64, sync: bool) -> Result<(), StoreError> {
    try_store_block(store, key(block), &content(block), sync)
}

/// The data folders below `root`: those that exist, or `one`.
fn dirs(root: &Path) -> Vec<PathBuf> {
    let [one, two] = ["one", "two"].map(|name| root.join(name));
    if two.exists() { vec![one, two] } else { vec![one] }
}

/// As a node starts, in one thread.
fn start(disk: Arc<dyn Disk>, root: &Path) -> Result<Arc<BlockStore>, Refused> {
    let (volumes, _) = open_folders(&Seams { disk, ..Seams::system() }, &dirs(root), 0)?;
    let mut found = Vec::new();
    for volume in &volumes {
        if !volume.has_failed() {
            match scan(volume) {
                Ok(scan) => found.push(scan),
                Err(cause) => {
                    volume.give_up(&super::volume::FolderError::io("listing its replicas")(cause));
                }
            }
        }
    }
    Ok(take_in(volumes, found))
}

fn restart(root: &Path) -> Arc<BlockStore> {
    start(healthy(root), root).expect("a start needs no help")
}

/// A disk without faults, whose syncs cost nothing.
fn healthy(root: &Path) -> Arc<dyn Disk> {
    Arc::new(UnreliableDisk::over(root).unwrap())
}

fn world(folders: usize) -> World {
    let root = folder();
    ["one", "two"][..folders].iter().for_each(|name| {
        std::fs::create_dir(root.path().join(name)).unwrap();
    });
    let disk = UnreliableDisk::over(root.path()).unwrap();
    let store = start(Arc::new(disk.clone()), root.path()).unwrap();
    write(&store, HELD, true).unwrap();
    write(&store, UNSYNCED, false).unwrap();
    write(&store, BAD, true).unwrap();
    store.quarantine(key(BAD), "a test");
    disk.strike_below(&dirs(root.path())[0]);
    let promises = Promises {
        durable: [HELD].into(),
        volatile: [UNSYNCED].into(),
        kept: [BAD].into(),
        scrub_passes: 0,
    };
    World { root, disk, store, promises }
}

/// Operations of a scenario in which nothing goes wrong, and the changes among them.
fn operations_of(scenario: &Scenario, folders: usize) -> (u64, u64) {
    let mut world = world(folders);
    let before = (world.disk.operations(), world.disk.changes());
    (scenario.run)(&world.store, &mut world.promises);
    (world.disk.operations() - before.0, world.disk.changes() - before.1)
}

fn assert_whole(store: &Arc<BlockStore>, block: u64, when: &str) {
    let content = content(block);
    let value = tree_of(0, &content).1.chaining_value;
    let expected = Ordered { length: content.len() as u64, value };
    if let Err(failure) = store.verify(key(block), Some(expected)) {
        panic!("{when}: {failure}");
    }
}

fn replicas(store: &BlockStore) -> BTreeMap<ReplicaKey, Replica> {
    let (mut found, mut after) = (BTreeMap::new(), None);
    while let Some((key, replica)) = store.state().inventory.next_after(after) {
        found.insert(key, replica);
        after = Some(key);
    }
    found
}

/// All files of replicas, in any place of any folder.
fn files(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let places = |dir: PathBuf| {
        let layout = Layout::new(dir);
        layout.folders().into_iter()
    };
    for folder in dirs(root).into_iter().flat_map(places) {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_file() {
                found.insert(path);
            }
        }
    }
    found
}

/// Every file belongs to a replica of the inventory, or is known as an open block, and each of these has its files.
fn assert_accounted(store: &BlockStore, root: &Path, when: &str) {
    let mut left = files(root);
    for (key, replica) in replicas(store) {
        let name = ReplicaName::whole(key, replica.length);
        let layout = store.volume(replica.volume).layout();
        let mut take = |place, kind| left.remove(&layout.file(place, &name, kind));
        if replica.is_good() {
            let whole = take(Place::Blocks, FileKind::Data)
                && take(Place::Blocks, FileKind::side_of(replica.state));
            assert!(whole, "{when}: {key} has no files");
        } else {
            let kinds = [FileKind::Data, FileKind::Side, FileKind::UnsyncedSide];
            let kept = kinds.map(|kind| take(Place::Quarantine, kind) || take(Place::Blocks, kind));
            assert!(kept.contains(&true), "{when}: nothing is left of the bad {key}");
        }
    }
    let state = store.state();
    for (key, file) in state.open.without_writer() {
        assert!(left.remove(&file.path()), "{when}: nothing is left of the open {key}");
    }
    drop(state);
    assert_eq!(left, BTreeSet::new(), "{when}: files that belong to nothing");
}

/// Starts on what is left and compares it with what was promised; twice, for a start must not take anything back.
fn check_after_start(root: &Path, promises: &Promises, process_only: bool, when: &str) {
    let mut before = None;
    for _ in 0..2 {
        let store = restart(root);
        assert!(load_position(&store.volumes()[0]).passes >= promises.scrub_passes, "{when}");
        store.sync_late(); // It verifies what was never synced.
        promises.durable.iter().for_each(|block| assert_whole(&store, *block, when));
        if process_only {
            promises.volatile.iter().for_each(|block| assert_whole(&store, *block, when));
        }
        let found = replicas(&store);
        for (key, replica) in &found {
            if replica.is_good() {
                assert_whole(&store, key.block.0, when);
            }
        }
        for block in &promises.kept {
            assert!(found.contains_key(&key(*block)), "{when}: block {block} was forgotten");
        }
        assert_accounted(&store, root, when);
        if let Some(before) = before.replace(found.clone()) {
            assert_eq!(found, before, "{when}: a second start finds something else");
        }
    }
}

fn crash_everywhere(scenario: &Scenario) {
    let (_, count) = operations_of(scenario, 1);
    assert!(count >= 2, "it does nothing to the disk");
    for at in 0..=count {
        for (names, bytes) in LOSSES {
            let mut world = world(1);
            world.disk.plan(Fault::Crash { at });
            (scenario.run)(&world.store, &mut world.promises);
            assert_eq!(world.disk.has_crashed(), at < count);
            drop(world.store);
            world.disk.lose_power(names, bytes).unwrap();
            let process_only = (names, bytes) == LOSSES[0];
            let when = format!("crash at {at} of {count}, names {names:?}, bytes {bytes:?}");
            check_after_start(world.root.path(), &world.promises, process_only, &when);
        }
    }
}

/// An error at each operation, alone and for good: what was promised holds while the node goes on, and after a start.
fn fail_everywhere(scenario: &Scenario, errno: i32) {
    let (count, _) = operations_of(scenario, 2);
    for at in 0..count {
        for fault in [Fault::Once { at, errno }, Fault::From { at, errno }] {
            let mut world = world(2);
            let when = format!("{fault:?} of {count}");
            world.disk.plan(fault);
            (scenario.run)(&world.store, &mut world.promises);
            world.disk.heal();
            check_going_on(&world, errno, &when);
            drop(world.store);
            check_after_start(world.root.path(), &world.promises, true, &when);
        }
    }
}

fn check_going_on(world: &World, errno: i32, when: &str) {
    let (store, promises) = (&world.store, &world.promises);
    for block in promises.durable.iter().chain(&promises.volatile) {
        assert_whole(store, *block, when);
    }
    let failed: Vec<bool> = store.volumes().iter().map(|volume| volume.has_failed()).collect();
    assert!(!failed[1] && (errno != ENOSPC || !failed[0]), "{when}: {failed:?}");
    // The node takes blocks all the same, on the other folder if need be.
    let next = key(77);
    try_store_block(store, next, &bytes(500), true)
        .unwrap_or_else(|cause| panic!("{when}: {cause}"));
    let taken = store.state().inventory.get(next).unwrap();
    assert_eq!(usize::from(taken.volume.0), usize::from(failed[0]), "{when}");
    store.drop_replica(next).unwrap();
}

macro_rules! everywhere {
    ($($name:ident: $scenario:ident;)*) => {
        mod crash {
            $(#[test] fn $name() { super::crash_everywhere(&super::$scenario); })*
        }
        mod io_error {
            $(#[test] fn $name() { super::fail_everywhere(&super::$scenario, super::EIO); })*
        }
        mod full_disk {
            $(#[test] fn $name() { super::fail_everywhere(&super::$scenario, super::ENOSPC); })*
        }
    };
}

everywhere! {
    anywhere_in_a_synced_write_keeps_every_promise: SYNCED_WRITE;
    anywhere_in_an_unsynced_write_keeps_every_promise: UNSYNCED_WRITE;
    anywhere_in_the_replacement_of_a_bad_replica_keeps_every_promise: REPLACEMENT;
    anywhere_in_a_drop_keeps_every_promise: DROP;
    anywhere_in_the_drop_of_a_bad_replica_keeps_every_promise: BAD_DROP;
    anywhere_in_a_quarantine_keeps_every_promise: QUARANTINE;
    anywhere_in_a_late_sync_keeps_every_promise: LATE_SYNC;
    anywhere_in_saving_the_place_of_the_scrubber_keeps_every_promise: SCRUB_SAVE;
}

/// A start that is itself cut short, with every kind of leftover to deal with.
#[test]
fn a_crash_anywhere_in_a_start_is_made_up_for_by_the_next() {
    let leftovers = |world: &World| {
        let layout = Layout::new(dirs(world.root.path())[0].clone());
        let copy = |from: PathBuf, to: PathBuf| std::fs::copy(from, to).unwrap();
        let held = ReplicaName::whole(key(HELD), content(HELD).len() as u64);
        let source = |kind| layout.file(Place::Blocks, &held, kind);
        let leave = |place, block, kind| {
            let name = ReplicaName::whole(key(block), held.length.unwrap());
            copy(source(kind), layout.file(place, &name, kind));
        };
        leave(Place::Trash, 64 + 1, FileKind::Data);
        leave(Place::Blocks, 64 + 1, FileKind::Side);
        leave(Place::Blocks, 64 + 2, FileKind::Data);
        leave(Place::Writing, 64 + 2, FileKind::Side);
        leave(Place::Writing, 64 + 3, FileKind::Side);
        leave(Place::Blocks, 64 + 4, FileKind::Data);
        leave(Place::Quarantine, 64 + 4, FileKind::Side);
    };
    let run = |world: &World, fault: Option<Fault>| {
        let disk = UnreliableDisk::over(world.root.path()).unwrap();
        if let Some(fault) = fault {
            disk.plan(fault);
        }
        drop(start(Arc::new(disk.clone()), world.root.path()));
        disk
    };
    let prepared = || {
        let mut world = world(1);
        leftovers(&world);
        world.promises.kept.insert(64 + 4);
        world.store = restart_elsewhere();
        world
    };
    let count = run(&prepared(), None).changes();
    assert!(count >= 8, "{count}");
    for at in 0..count {
        for (names, bytes) in [LOSSES[0], LOSSES[4]] {
            let world = prepared();
            run(&world, Some(Fault::Crash { at })).lose_power(names, bytes).unwrap();
            let when = format!("crash at {at} of {count} of a start, {names:?}");
            check_after_start(world.root.path(), &world.promises, true, &when);
        }
    }
}

/// A store over another place: the one of a world is forgotten, and its locks with it.
fn restart_elsewhere() -> Arc<BlockStore> {
    let root = tempfile::tempdir().unwrap();
    restart(root.path())
}

#[test]
fn a_crash_anywhere_in_the_adoption_of_folders_leaves_folders_that_start() {
    let adopt = |fault: Option<Fault>| {
        let root = folder();
        let disk = UnreliableDisk::over(root.path()).unwrap();
        if let Some(fault) = fault {
            disk.plan(fault);
        }
        let seams = Seams { disk: Arc::new(disk.clone()), ..Seams::system() };
        let adopted = open_folders(&seams, &dirs(root.path()), 0).map(|(_, identity)| identity);
        (root, disk, adopted.ok())
    };
    let count = adopt(None).1.changes();
    for at in 0..=count {
        for (names, bytes) in [LOSSES[0], LOSSES[4]] {
            let (root, disk, adopted) = adopt(Some(Fault::Crash { at }));
            assert_eq!(adopted.is_some(), at == count);
            disk.lose_power(names, bytes).unwrap();
            let seams = Seams { disk: healthy(root.path()), ..Seams::system() };
            let again = open_folders(&seams, &dirs(root.path()), 0);
            let (volumes, identity) = again.unwrap_or_else(|(path, cause)| {
                panic!("crash at {at}, {names:?} {bytes:?}: {}: {cause}", path.display())
            });
            assert!(adopted.is_none_or(|before| before == identity), "another node: {at}");
            assert!(volumes.iter().all(|volume| scan(volume).is_ok()));
        }
    }
}
