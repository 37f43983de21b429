//! What a start makes of every state a crash can leave.

use std::collections::BTreeSet;
use std::fs;

use tempfile::TempDir;

use super::*;
use crate::blocks::StoreError;
use crate::engine::outbox::ReplicaEvent;
use crate::testing::{FaultyDisk, bytes, copy_tree, files, open_store, store_block, tree_of};

const KEY: ReplicaKey = ReplicaKey {
    block: doldam_proto::id::BlockId(0x1ab),
    generation: doldam_proto::id::Generation(4),
};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A folder with one replica of 100 bytes, and the paths of its files.
fn with_replica() -> (TempDir, PathBuf, PathBuf) {
    let folder = folder();
    store_block(
        &open_store(FaultyDisk::default().handle(), &[folder.path()]),
        KEY,
        &bytes(100),
        true,
    );
    let stem = folder.path().join("blocks/2b/00000000000001ab_4_100");
    (folder, stem.with_extension("data"), stem.with_extension("side"))
}

fn rescan(root: &Path) -> Scan {
    let dirs = [root.to_owned()];
    let (volumes, _) = open_folders(&Seams::system(), &dirs, 0).unwrap();
    scan(&volumes[0]).unwrap()
}

fn state_of(scan: &Scan) -> Option<ReplicaState> {
    scan.replicas.get(&KEY).map(|replica| replica.state)
}

fn move_to(file: &Path, root: &Path, place: &str) {
    fs::rename(file, root.join(place).join(file.file_name().unwrap())).unwrap();
}

#[test]
fn a_replica_is_found_again_without_reading_it() {
    let (folder, data, side) = with_replica();
    // Its bytes are not looked at: the scrubber's business.
    fs::write(&data, [0; 100]).unwrap();
    let length = fs::metadata(&side).unwrap().len();
    fs::write(&side, vec![0; length as usize]).unwrap();
    let scan = rescan(folder.path());
    assert_eq!(state_of(&scan), Some(ReplicaState::Final));
    assert_eq!(scan.replicas[&KEY].length, 100);
}

#[test]
fn a_block_that_was_being_received_is_kept_open_and_its_sidecar_removed() {
    let folder = folder();
    drop(rescan(folder.path()));
    let writing = folder.path().join("writing");
    fs::write(writing.join("00000000000001ab_4@131072.data"), b"some").unwrap();
    fs::write(writing.join("00000000000001ab_4_100.side"), b"more").unwrap();
    // Nothing of it, and a repair copy.
    fs::write(writing.join("00000000000001ac_4@0.data"), b"").unwrap();
    fs::write(writing.join("00000000000001ad_4.copy"), b"some").unwrap();
    for removed in [2, 0] {
        let scan = rescan(folder.path());
        assert_eq!((state_of(&scan), scan.removed), (None, removed));
        assert_eq!(scan.open, [FoundOpen { key: KEY, file_offset: 131_072, length: 4 }]);
        let left = BTreeSet::from(["writing/00000000000001ab_4@131072.data".to_owned()]);
        assert_eq!(files(folder.path()), left);
    }
}

#[test]
fn a_publication_that_was_interrupted_is_finished_or_undone_and_no_byte_is_lost() {
    let (folder, data, side) = with_replica();
    move_to(&side, folder.path(), "writing");
    // Whoever syncs what is found unsynced verifies it first.
    assert_eq!(state_of(&rescan(folder.path())), Some(ReplicaState::Unsynced));
    let whole = ["data", "unsynced"].map(|end| format!("blocks/2b/00000000000001ab_4_100.{end}"));
    assert_eq!(files(folder.path()), BTreeSet::from(whole));
    drop(data);

    let (folder, data, side) = with_replica();
    let open = folder.path().join("writing/00000000000001ab_4@0.data");
    fs::rename(&data, &open).unwrap();
    let scan = rescan(folder.path());
    assert_eq!((state_of(&scan), scan.open.len()), (None, 1));
    let open = BTreeSet::from(["writing/00000000000001ab_4@0.data".to_owned()]);
    assert_eq!(files(folder.path()), open);
    drop(side);
}

#[test]
fn the_sidecar_of_an_interrupted_publication_must_be_of_the_same_length() {
    let (folder, _, side) = with_replica();
    let other = folder.path().join("writing/00000000000001ab_4_99.side");
    fs::rename(side, other).unwrap();
    assert_eq!(state_of(&rescan(folder.path())), Some(ReplicaState::Quarantined));
}

#[test]
fn a_drop_of_an_open_block_that_was_interrupted_is_finished() {
    let folder = folder();
    drop(rescan(folder.path()));
    fs::write(folder.path().join("trash/00000000000001ab_4@0.data"), b"some").unwrap();
    assert!(rescan(folder.path()).open.is_empty());
    assert_eq!(files(folder.path()), BTreeSet::new());
}

#[test]
fn a_drop_that_was_interrupted_is_finished() {
    for moved in 0..2 {
        let (folder, data, side) = with_replica();
        move_to([&data, &side][moved], folder.path(), "trash");
        assert_eq!(state_of(&rescan(folder.path())), None);
        assert_eq!(files(folder.path()), BTreeSet::new(), "{moved}");
    }
    let (folder, data, side) = with_replica();
    move_to(&data, folder.path(), "trash");
    move_to(&side, folder.path(), "trash");
    assert_eq!(state_of(&rescan(folder.path())), None);
    assert_eq!(files(folder.path()), BTreeSet::new());
}

#[test]
fn both_sidecars_of_a_replica_that_was_dropped_twice_leave_the_trash() {
    let folder = folder();
    drop(rescan(folder.path()));
    for end in ["unsynced", "side", "data"] {
        let path = format!("trash/00000000000001ab_4_100.{end}");
        fs::write(folder.path().join(path), b"some").unwrap();
    }
    assert_eq!(state_of(&rescan(folder.path())), None);
    assert_eq!(files(folder.path()), BTreeSet::new());
}

#[test]
fn a_quarantine_that_was_interrupted_is_finished_and_stays() {
    for moved in 0..2 {
        let (folder, data, side) = with_replica();
        move_to([&data, &side][moved], folder.path(), "quarantine");
        for _ in 0..2 {
            assert_eq!(state_of(&rescan(folder.path())), Some(ReplicaState::Quarantined));
            let kept =
                ["data", "side"].map(|end| format!("quarantine/00000000000001ab_4_100.{end}"));
            assert_eq!(files(folder.path()), BTreeSet::from(kept));
        }
    }
}

#[test]
fn half_a_replica_that_no_crash_explains_is_quarantined_and_not_removed() {
    for lost in 0..2 {
        let (folder, data, side) = with_replica();
        fs::remove_file([&data, &side][lost]).unwrap();
        let scan = rescan(folder.path());
        assert_eq!(state_of(&scan), Some(ReplicaState::Quarantined));
        assert_eq!(scan.damage.len(), 1);
        assert_eq!(files(folder.path()).len(), 1);
    }
}

#[test]
fn a_data_file_may_be_longer_than_its_replica_for_it_may_be_appended_to() {
    let (folder, data, _) = with_replica();
    fs::write(&data, [&bytes(100)[..], b"appended"].concat()).unwrap();
    let scan = rescan(folder.path());
    assert_eq!(state_of(&scan), Some(ReplicaState::Final));
    assert_eq!(scan.replicas[&KEY].length, 100);
}

#[test]
fn files_of_the_wrong_length_are_quarantined() {
    for cut in 0..2 {
        let (folder, data, side) = with_replica();
        fs::write([&data, &side][cut], b"short").unwrap();
        let scan = rescan(folder.path());
        assert_eq!(state_of(&scan), Some(ReplicaState::Quarantined));
        assert!(scan.damage[0].1.contains("5 bytes"), "{:?}", scan.damage);
        assert_eq!(files(folder.path()).len(), 2);
    }
}

#[test]
fn a_replica_without_its_sync_is_found_as_such_and_verified_before_it_is_confirmed() {
    let folder = folder();
    let disk = FaultyDisk::default();
    let key = ReplicaKey::new(2, 1);
    let other = ReplicaKey::new(3, 1);
    {
        let store = open_store(disk.handle(), &[folder.path()]);
        store_block(&store, key, &bytes(100_000), false);
        store_block(&store, other, &bytes(100_000), false);
        assert_eq!(disk.syncs(), files_synced_by_setting_up());
    }
    // What a loss of power may do to bytes that were never synced.
    fs::write(folder.path().join("blocks/03/0000000000000003_1_100000.data"), vec![0; 100_000])
        .unwrap();
    let store = open_store(disk.handle(), &[folder.path()]);
    for key in [key, other] {
        let replica = store.state().inventory.get(key).unwrap();
        assert_eq!(replica.state, ReplicaState::Unsynced);
        store.late_syncs().push(key, true);
    }
    assert_eq!(store.late_syncs().unverified(), 2);
    store.sync_late();
    assert_eq!(store.late_syncs().unverified(), 0);
    assert_eq!(store.state().inventory.get(key).unwrap().state, ReplicaState::Final);
    assert_eq!(store.state().inventory.get(other).unwrap().state, ReplicaState::Quarantined);
    assert!(folder.path().join("blocks/02/0000000000000002_1_100000.side").exists());
    let events = store.news().take(std::time::Duration::ZERO, 10).events;
    assert!(matches!(&events[..], [(bad, ReplicaEvent::Bad { .. })] if *bad == other));
}

/// Setting up a folder syncs its VERSION file, and the three folders that got names.
fn files_synced_by_setting_up() -> u64 {
    4
}

#[test]
fn unknown_files_are_left_alone() {
    let (folder, data, _) = with_replica();
    let strange = [
        folder.path().join("blocks/2b/notes.txt"),
        folder.path().join("blocks/00/00000000000001ab_4_100.data"),
        folder.path().join("blocks/2b/00000000000001ab_5.data"),
        folder.path().join("blocks/2b/00000000000001ab_5_0.data"),
        folder.path().join("writing/core"),
    ];
    for path in &strange {
        fs::write(path, b"mine").unwrap();
    }
    let scan = rescan(folder.path());
    assert_eq!(scan.unknown.iter().collect::<BTreeSet<_>>(), strange.iter().collect());
    assert_eq!(state_of(&scan), Some(ReplicaState::Final));
    assert!(strange.iter().all(|path| path.exists()) && data.exists());
}

#[test]
fn folders_of_two_nodes_or_clusters_are_refused() {
    let (one, two) = (folder(), folder());
    drop(rescan(one.path()));
    drop(rescan(two.path()));
    let both = [one.path().to_owned(), two.path().to_owned()];
    let refused = open_folders(&Seams::system(), &both, 0).err().unwrap();
    assert!(matches!(refused.1, FolderError::OtherNode { .. }), "{refused:?}");
    assert_eq!(refused.0, two.path());

    let node = NodeUuid([1; 16]);
    for (folder, cluster) in [(&one, 2), (&two, 3)] {
        let identity = FolderIdentity { node, cluster: Some(ClusterId([cluster; 16])) };
        fs::write(folder.path().join("VERSION"), identity.encode()).unwrap();
    }
    let refused = open_folders(&Seams::system(), &both, 0).err().unwrap();
    assert!(matches!(refused.1, FolderError::OtherCluster { .. }), "{refused:?}");
}

#[test]
fn an_empty_folder_is_taken_in_with_the_identity_of_the_others() {
    let (one, two) = (folder(), folder());
    let cluster = Some(ClusterId([5; 16]));
    let identity = FolderIdentity { node: NodeUuid([1; 16]), cluster };
    drop(rescan(one.path()));
    fs::write(one.path().join("VERSION"), identity.encode()).unwrap();
    let both = [two.path().to_owned(), one.path().to_owned()];
    let (_, found) = open_folders(&Seams::system(), &both, 0).unwrap();
    assert_eq!(found, identity);
    let written = fs::read(two.path().join("VERSION")).unwrap();
    assert_eq!(FolderIdentity::decode(&written), Ok(identity));
}

#[test]
fn a_folder_in_use_or_of_unknown_origin_is_refused() {
    let (folder, _, _) = with_replica();
    let dirs = [folder.path().to_owned()];
    let held = open_folders(&Seams::system(), &dirs, 0).unwrap();
    let refused = open_folders(&Seams::system(), &dirs, 0).err().unwrap();
    assert!(matches!(refused.1, FolderError::InUse));
    drop(held);

    let version = folder.path().join("VERSION");
    fs::write(&version, b"not this").unwrap();
    let refused = open_folders(&Seams::system(), &dirs, 0).err().unwrap();
    assert!(matches!(refused.1, FolderError::Version(_)));
    fs::remove_file(&version).unwrap();
    let refused = open_folders(&Seams::system(), &dirs, 0).err().unwrap();
    assert!(matches!(refused.1, FolderError::NoVersion));
}

#[test]
fn of_two_copies_in_two_folders_a_verified_one_is_kept() {
    let copy = |volume, length, state| Replica { length, volume: VolumeIndex(volume), state };
    let (good, bad) = (ReplicaState::Final, ReplicaState::Quarantined);
    let judge = |first, second, verified| {
        judge_duplicate(&copy(0, 5, first), &copy(1, 5, second), || verified)
    };
    assert_eq!(judge(good, bad, false), Duplicate::RemoveSecond);
    assert_eq!(judge(bad, good, false), Duplicate::RemoveFirst);
    assert_eq!(judge(good, good, true), Duplicate::RemoveSecond);
    assert_eq!(judge(good, good, false), Duplicate::LeaveSecond);
    assert_eq!(judge(bad, bad, true), Duplicate::LeaveSecond);
    let other_length = judge_duplicate(&copy(0, 5, good), &copy(1, 6, good), || true);
    assert_eq!(other_length, Duplicate::LeaveSecond);
}

/// The process dies at each single step of publishing: the files as they are at this step are made by hand, with the
/// store forgotten rather than dropped.
#[test]
fn a_crash_at_any_step_of_publishing_leaves_the_whole_replica_or_an_open_block() {
    let content = bytes(70_000);
    let (tree, digest) = tree_of(0, &content);
    for step in ["write side", "sync data", "sync side", "rename data", "rename side", "done"] {
        let folder = folder();
        let store = open_store(FaultyDisk::default().handle(), &[folder.path()]);
        let mut partial = store.begin_write(KEY, 0, 1 << 20).unwrap();
        partial.write(0, &content).unwrap();
        let blocks = folder.path().join("blocks/2b/00000000000001ab_4_70000");
        let writing = folder.path().join("writing");
        let sidecar = crate::blocks::sidecar::encode_sidecar(KEY, &tree, &digest);
        let aside = writing.join("00000000000001ab_4_70000.side");
        match step {
            "write side" => fs::write(&aside, &sidecar[..50]).unwrap(),
            "sync data" | "sync side" => fs::write(&aside, &sidecar).unwrap(),
            "rename data" | "rename side" | "done" => {
                fs::write(&aside, &sidecar).unwrap();
                let data = writing.join("00000000000001ab_4@0.data");
                fs::rename(data, blocks.with_extension("data")).unwrap();
                if step == "done" {
                    fs::rename(&aside, blocks.with_extension("side")).unwrap();
                }
            }
            other => panic!("{other}"),
        }
        let copy = tempfile::tempdir().unwrap();
        copy_tree(folder.path(), copy.path());
        drop((partial, store));
        let store = open_store(FaultyDisk::default().handle(), &[copy.path()]);
        let found = store.verify(KEY, None);
        if ["rename data", "rename side", "done"].contains(&step) {
            found.unwrap();
        } else {
            assert!(matches!(found, Err(StoreError::NotFound { .. })), "{step}: {found:?}");
            let open = BTreeSet::from(["writing/00000000000001ab_4@0.data".to_owned()]);
            assert_eq!(files(copy.path()), open, "{step}");
            let readable = store.open_to_read(KEY, 70_000).unwrap();
            readable.proof(70_000, 0..2).unwrap();
        }
    }
}
