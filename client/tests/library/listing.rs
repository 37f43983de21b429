//! Listings as streams of pages.

use futures::{StreamExt, TryStreamExt};

use crate::fakes::{Answer, FakeCluster};
use doldam_client::FsError;

async fn cluster_with(files: usize, page: usize) -> FakeCluster {
    let cluster = FakeCluster::start(1).await;
    for at in 0..files {
        cluster.add_file(&format!("/d/{at:04}"), b"", 65_536, &[1]);
    }
    cluster.namenode.set_page(page);
    cluster
}

#[tokio::test]
async fn every_entry_comes_once_and_in_order_whatever_the_pages() {
    for (files, page) in [(0, 3), (1, 3), (3, 3), (4, 3), (1000, 7)] {
        let cluster = cluster_with(files, page).await;
        let client = cluster.client().await;
        let listed: Vec<_> = client.list("/d").try_collect().await.unwrap();
        let names: Vec<String> = listed.into_iter().map(|entry| entry.path).collect();
        let expected: Vec<String> = (0..files).map(|at| format!("{at:04}")).collect();
        assert_eq!(names, expected);
    }
}

#[tokio::test]
async fn pages_are_fetched_one_ahead_and_no_further() {
    let cluster = cluster_with(100, 10).await;
    let client = cluster.client().await;
    let mut entries = client.list("/d");
    assert_eq!(cluster.namenode.call_names(), [""; 0], "nothing before it is asked for");
    for _ in 0..10 {
        entries.next().await.unwrap().unwrap();
    }
    while cluster.namenode.call_names().len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(cluster.namenode.call_names(), ["list"; 2]);
}

#[tokio::test]
async fn an_error_is_an_item_and_the_last_one() {
    let cluster = cluster_with(10, 4).await;
    let client = cluster.client().await;
    let gone = FsError::NotFound { path: "/d".into() };
    cluster.namenode.answer_next("list", Answer::Well);
    cluster.namenode.answer_next("list", Answer::Refuse(gone.clone()));
    let entries: Vec<_> = client.list("/d").collect().await;
    assert_eq!(entries.len(), 5);
    assert_eq!(entries[4].as_ref().unwrap_err().refusal(), Some(&gone));
    let invalid: Vec<_> = client.list("relative").collect().await;
    assert_eq!(invalid.len(), 1);
    assert!(invalid[0].is_err());
}
