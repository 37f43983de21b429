//! Which folders are accepted.

use std::sync::Arc;

use doldam_proto::id::ClusterId;
use doldam_runtime::disk::RealDisk;

use super::{options, start, start_with};
use crate::driver::StartError;
use crate::driver::identity::{FILE_NAME, IdentityError};

#[tokio::test]
async fn two_namenodes_do_not_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let second = start_with(options(dir.path()), Arc::new(RealDisk)).await;
    assert!(matches!(second.map(|_| ()), Err(StartError::InUse { .. })));
    running.stop().await;
    start(dir.path()).await.stop().await;
}

#[tokio::test]
async fn a_cluster_keeps_its_id_and_another_clusters_state_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let cluster = running.driver.cluster_id();
    running.stop().await;
    let running = start(dir.path()).await;
    assert_eq!(running.driver.cluster_id(), cluster);
    running.stop().await;

    let version = dir.path().join(FILE_NAME);
    let other = ClusterId([0xee; 16]);
    let text = std::fs::read_to_string(&version).unwrap();
    std::fs::write(&version, text.replace(&cluster.to_string(), &other.to_string())).unwrap();
    let mixed = start_with(options(dir.path()), Arc::new(RealDisk)).await;
    assert!(matches!(
        mixed.map(|_| ()),
        Err(StartError::MixedUp { folder, state }) if folder == other && state == cluster
    ));
}

#[tokio::test]
async fn a_folder_that_lost_its_identity_is_refused_and_not_formatted_anew() {
    let dir = tempfile::tempdir().unwrap();
    start(dir.path()).await.stop().await;
    std::fs::remove_file(dir.path().join(FILE_NAME)).unwrap();
    let refused = start_with(options(dir.path()), Arc::new(RealDisk)).await;
    assert!(matches!(
        refused.map(|_| ()),
        Err(StartError::Identity { source: IdentityError::Foreign { .. }, .. })
    ));
}

#[tokio::test]
async fn a_lost_journal_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    running.mkdir(1).await.unwrap();
    running.stop().await;
    std::fs::remove_dir_all(dir.path().join("journal")).unwrap();
    let refused = start_with(options(dir.path()), Arc::new(RealDisk)).await;
    assert!(matches!(refused.map(|_| ()), Err(StartError::Journal(_))));
}
