//! Power is lost at any moment, and the folder is opened again.

use std::path::Path;
use std::sync::Arc;

use doldam_proto::wire::Outcome;
use doldam_runtime::disk::RealDisk;
use doldam_runtime::random::SeededRandom;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::{Running, mkdir, options, start, start_with};
use crate::journal::test_disk::{CrashDisk, Fault};

const DIR: &str = "/namenode";

/// Proposes `count` folders at once and returns the outcomes of those that were acknowledged.
async fn propose_all(running: &Running, count: u64) -> Vec<(u64, Outcome)> {
    let proposals: FuturesUnordered<_> = (0..count)
        .map(|number| async move { (number, mkdir(&running.driver, number).await) })
        .collect();
    let acknowledged = proposals.filter_map(|(number, outcome)| async move {
        outcome.ok().map(|outcome| (number, outcome))
    });
    let mut acknowledged: Vec<_> = acknowledged.collect().await;
    acknowledged.sort_by_key(|(number, _)| *number);
    acknowledged
}

/// What was acknowledged is there, and every retry gets the outcome of the first time.
async fn check_reopened(disk: Arc<CrashDisk>, count: u64, acknowledged: &[(u64, Outcome)]) {
    let running = start_with(options(Path::new(DIR)), disk).await.unwrap();
    let found = running.folders(count).await;
    for (number, _) in acknowledged {
        assert!(found.contains(number), "/d{number} was acknowledged and is gone");
    }
    let retried = propose_all(&running, count).await;
    assert_eq!(retried.len() as u64, count, "a retry never says that it exists already");
    for (number, outcome) in acknowledged {
        assert_eq!(&retried[usize::try_from(*number).unwrap()].1, outcome);
    }
    assert_eq!(running.folders(count).await.len() as u64, count);
    running.stop().await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_power_loss_at_any_sync() {
    const COUNT: u64 = 60;
    for syncs in (0..40).chain([60, 100, 200]) {
        let chaos = SeededRandom::new(syncs);
        let disk = CrashDisk::with_folder("/");
        let running = start_with(options(Path::new(DIR)), disk.clone()).await.unwrap();
        disk.fail_after_syncs(syncs, Fault::Power);
        let mut acknowledged = propose_all(&running, COUNT / 2).await;
        acknowledged
            .extend(propose_all(&running, COUNT).await.into_iter().skip(acknowledged.len()));
        let crashed = disk.after_crash(&chaos);
        running.stop().await;
        check_reopened(crashed, COUNT, &acknowledged).await;
    }
}

#[tokio::test]
async fn a_folder_is_whole_or_new_after_a_power_loss_while_it_is_formatted() {
    for syncs in 0..30 {
        let disk = CrashDisk::with_folder("/");
        disk.fail_after_syncs(syncs, Fault::Power);
        let started = start_with(options(Path::new(DIR)), disk.clone()).await;
        let crashed = disk.after_crash(&SeededRandom::new(syncs));
        if let Ok(running) = started {
            running.stop().await;
        }
        check_reopened(crashed, 3, &[]).await;
    }
}

#[tokio::test]
async fn a_journal_that_fails_stops_the_namenode_and_takes_nothing_more() {
    let disk = CrashDisk::with_folder("/");
    let running = start_with(options(Path::new(DIR)), disk.clone()).await.unwrap();
    running.mkdir(0).await.unwrap();
    disk.fail_after_syncs(0, Fault::Medium);
    assert!(running.mkdir(1).await.is_err());
    running.tasks.stopping().cancelled().await;
    assert!(running.driver.has_failed());
    assert!(running.mkdir(2).await.is_err());
    assert!(running.driver.read(|_| Ok(())).await.is_err(), "it may rest on what was lost");
    running.stop().await;
}

#[tokio::test]
async fn everything_survives_stops_starts_and_many_checkpoints() {
    const COUNT: u64 = 600;
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let running = start(dir.path()).await;
        assert_eq!(running.driver.epoch().0, round + 1, "epochs count the starts");
        let done = round * COUNT / 4;
        assert_eq!(running.folders(COUNT).await, (0..done).collect::<Vec<_>>());
        for number in done..done + COUNT / 4 {
            running.mkdir(number).await.unwrap();
        }
        running.stop().await;
    }
    let segments = std::fs::read_dir(dir.path().join("journal")).unwrap().count();
    assert!(segments < 6, "{segments} segments: old ones go after each checkpoint");
}

#[tokio::test]
async fn a_long_journal_is_replayed_without_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut large = options(dir.path());
    large.overlay_bytes = 1 << 30;
    let running = start_with(large, Arc::new(RealDisk)).await.unwrap();
    let acknowledged = propose_all(&running, 500).await;
    assert_eq!(acknowledged.len(), 500);
    // A copy of the folder as a killed process leaves it.
    let copy = tempfile::tempdir().unwrap();
    for folder in ["", "journal", "store"] {
        std::fs::create_dir_all(copy.path().join(folder)).unwrap();
        for entry in std::fs::read_dir(dir.path().join(folder)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                let to = copy.path().join(folder).join(entry.file_name());
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let reopened = start(copy.path()).await;
    assert_eq!(reopened.folders(500).await.len(), 500);
    reopened.stop().await;
    running.stop().await;
}
