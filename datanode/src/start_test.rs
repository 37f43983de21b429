//! A whole datanode from its folders, without a namenode.

use std::time::Duration;

use doldam_runtime::disk::RealDisk;

use super::*;
use crate::testing::cluster::{LONG, key};
use crate::testing::{Fault, FaultyDisk, Operation, bytes, files, open_store, store_block};

fn config(dirs: &[&tempfile::TempDir]) -> DatanodeConfig {
    DatanodeConfig {
        dirs: dirs.iter().map(|dir| dir.path().into()).collect(),
        listen: "127.0.0.1:0".to_owned(),
        // Nobody there: the datanode tries again and again.
        namenodes: vec!["127.0.0.1:1".to_owned()],
        data_threads: 1,
        ..Default::default()
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn with_replica(content: &[u8]) -> tempfile::TempDir {
    let dir = folder();
    let store = open_store(Arc::new(RealDisk), &[dir.path()]);
    store_block(&store, key(1), content, true);
    dir
}

/// Gives the second folder the identity of the first.
fn same_node(first: &tempfile::TempDir, second: &tempfile::TempDir) {
    std::fs::copy(first.path().join("VERSION"), second.path().join("VERSION")).unwrap();
}

async fn opened(dirs: &[&tempfile::TempDir]) -> Arc<BlockStore> {
    open_store_of(&config(dirs)).await
}

async fn open_store_of(config: &DatanodeConfig) -> Arc<BlockStore> {
    super::open_store(config, &Seams::system()).await.unwrap().0
}

fn data_file(dir: &tempfile::TempDir, length: usize) -> PathBuf {
    dir.path().join(format!("blocks/01/0000000000000001_1_{length}.data"))
}

#[tokio::test]
async fn it_starts_without_a_namenode_and_stops_cleanly() {
    let tasks = BackgroundTasks::default();
    let dir = folder();
    let http = Some("127.0.0.1:0".to_owned());
    let config = DatanodeConfig { http, ..config(&[&dir]) };
    let handle = run(config, Seams::system(), &tasks).await.unwrap();
    assert_eq!((handle.cluster(), handle.failure()), (None, None));
    assert_eq!(handle.local_addr(), handle.advertised_addr());
    assert!(handle.http_addr().is_some());
    tasks.shutdown(LONG).await.unwrap();
}

#[tokio::test]
async fn what_does_not_start_says_why() {
    let tasks = BackgroundTasks::default();
    let dir = folder();
    let refused = run(DatanodeConfig::default(), Seams::system(), &tasks).await.unwrap_err();
    assert!(matches!(refused, DatanodeError::Setting(_)), "{refused}");
    let taken = run(config(&[&dir]), Seams::system(), &tasks).await.unwrap();
    let again = run(config(&[&dir]), Seams::system(), &tasks).await.unwrap_err();
    assert!(matches!(&again, DatanodeError::Folder { source: FolderError::InUse, .. }), "{again}");
    let listen = taken.local_addr().to_owned();
    let other = folder();
    let refused =
        run(DatanodeConfig { listen, ..config(&[&other]) }, Seams::system(), &tasks).await;
    assert!(matches!(refused, Err(DatanodeError::Listen { .. })));
    tasks.shutdown(LONG).await.unwrap();
}

#[tokio::test]
async fn two_bad_copies_in_two_folders_are_dropped_together() {
    let content = bytes(1000);
    let (first, second) = (with_replica(&content), with_replica(&content));
    same_node(&first, &second);
    for dir in [&first, &second] {
        std::fs::remove_file(data_file(dir, 1000).with_extension("side")).unwrap();
    }
    let store = opened(&[&first, &second]).await;
    let bad = |dir: &tempfile::TempDir| files(dir.path()).iter().any(|it| it.contains("00001_1_"));
    assert!(bad(&first) && bad(&second));
    assert!(store.drop_bad_replica(key(1)).unwrap());
    assert!(!bad(&first) && !bad(&second));
}

#[tokio::test]
async fn of_two_good_copies_in_two_folders_one_is_removed() {
    let (one, two) = (with_replica(&bytes(500)), with_replica(&bytes(500)));
    same_node(&one, &two);
    let store = opened(&[&one, &two]).await;
    assert!(store.verify(key(1), None).is_ok());
    assert!(data_file(&one, 500).exists() && !data_file(&two, 500).exists());
}

#[tokio::test]
async fn of_a_damaged_and_a_good_copy_the_good_one_is_kept() {
    let (one, two) = (with_replica(&bytes(500)), with_replica(&bytes(500)));
    same_node(&one, &two);
    std::fs::write(data_file(&one, 500), vec![0; 500]).unwrap();
    let store = opened(&[&one, &two]).await;
    assert!(store.verify(key(1), None).is_ok());
    assert!(!data_file(&one, 500).exists() && data_file(&two, 500).exists());
    drop(store);
    // And again the other way round, from quarantine.
    let store = opened(&[&two, &one]).await;
    assert!(store.verify(key(1), None).is_ok());
}

/// A folder with a replica, and another of the same node with what a writer left of it.
fn with_left(content: &[u8], sync: bool) -> (tempfile::TempDir, tempfile::TempDir, PathBuf) {
    let (first, second) = (folder(), folder());
    let store = open_store(Arc::new(RealDisk), &[first.path()]);
    store_block(&store, key(1), content, sync);
    drop(open_store(Arc::new(RealDisk), &[second.path()]));
    same_node(&first, &second);
    let left = second.path().join("writing/0000000000000001_1@0.data");
    std::fs::write(&left, content).unwrap();
    (first, second, left)
}

#[tokio::test]
async fn what_a_writer_left_goes_once_a_replica_is_there_of_it_and_durable() {
    let content = bytes(100);
    let (first, second, left) = with_left(&content, true);
    drop(opened(&[&first, &second]).await);
    assert!(!left.exists());

    let (first, second, left) = with_left(&content, false);
    let store = opened(&[&first, &second]).await;
    assert!(left.exists(), "its bytes may be the last if the power goes now");
    store.sync_late();
    assert!(!left.exists());
    store.verify(key(1), None).unwrap();
}

#[tokio::test]
async fn what_a_writer_left_stays_beside_a_replica_that_is_bad() {
    let content = bytes(100);
    let (first, second, left) = with_left(&content, true);
    std::fs::write(data_file(&first, 100), [&content[..99], &[!content[99]]].concat()).unwrap();
    let store = opened(&[&first, &second]).await;
    assert!(left.exists());
    assert!(store.state().open.get(key(1)).is_some());
}

#[tokio::test]
async fn a_thousand_replicas_are_found_from_their_names() {
    let dir = folder();
    {
        let store = open_store(Arc::new(RealDisk), &[dir.path()]);
        for block in 1..=1000 {
            store_block(&store, key(block), &bytes(10), false);
        }
    }
    let store = opened(&[&dir]).await;
    assert_eq!(store.state().inventory.len(), 1000);
    assert!(!store.news().take(Duration::ZERO, 10).events.iter().any(|_| true));
}

#[tokio::test]
async fn a_broken_disk_is_passed_over_and_the_others_are_served() {
    let (one, two) = (with_replica(&bytes(500)), folder());
    let disk = FaultyDisk::default();
    drop(opened(&[&one, &two]).await);
    let dead = two.path().file_name().unwrap().to_string_lossy().into_owned();
    for (operation, block) in [(Operation::List, 2), (Operation::Read, 3)] {
        let path: &'static str = dead.clone().leak();
        disk.fail(Fault { operation, path, after: 0, errno: 5 });
        let seams = Seams { disk: disk.handle(), ..Seams::system() };
        let store = super::open_store(&config(&[&one, &two]), &seams).await.unwrap().0;
        let failed: Vec<bool> = store.volumes().iter().map(|it| it.has_failed()).collect();
        assert_eq!(failed, [false, true], "{operation:?}");
        assert!(store.verify(key(1), None).is_ok());
        store_block(&store, key(block), &bytes(10), true);
        disk.heal();
    }
    // With no folder left there is nothing to serve.
    disk.fail(Fault { operation: Operation::List, path: "blocks", after: 0, errno: 5 });
    let seams = Seams { disk: disk.handle(), ..Seams::system() };
    let refused = super::open_store(&config(&[&one, &two]), &seams).await.err().unwrap();
    let DatanodeError::Folder { source, .. } = refused else { panic!("{refused}") };
    assert!(matches!(source, FolderError::AllFailed { .. }), "{source}");
}
