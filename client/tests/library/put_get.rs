//! Local files in and out.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use doldam_client::{ClientError, ErrorKind, GetOptions, Progress, PutOptions, WriteOptions};
use doldam_proto::wire::block_failure::Code;

use crate::fakes::namenode::Call;
use crate::fakes::{Answer, BLOCK, FakeCluster, Fault, b3sum, bytes};

fn meter() -> (Progress, Arc<AtomicU64>) {
    let total = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&total);
    (Arc::new(move |bytes| _ = counted.fetch_add(bytes, Ordering::SeqCst)), total)
}

fn put_options(parallel: usize) -> PutOptions {
    let create = WriteOptions { overwrite: true, ..WriteOptions::default() };
    PutOptions { create, parallel, ..PutOptions::default() }
}

/// Names in a folder; what is left behind would be among them.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_every_length_go_in_and_out_identical() {
    let cluster = FakeCluster::start(3).await;
    let client = cluster.client().await;
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("in"), folder.path().join("out"));
    let block = BLOCK as usize;
    for length in [0, 1, 65_536, 65_537, block - 1, block, block + 1, 9 * block + 77] {
        for parallel in [1, 3] {
            let content = bytes(length);
            fs::write(&source, &content).unwrap();
            let (progress, sent) = meter();
            let options = PutOptions { progress: Some(progress), ..put_options(parallel) };
            let put = client.put_file(&source, "/f", options).await.unwrap();
            assert_eq!(put.status.digest.unwrap().to_string(), b3sum(&content));
            assert_eq!((put.bytes, sent.load(Ordering::SeqCst)), (length as u64, length as u64));

            let (progress, received) = meter();
            let progress = Some(progress);
            let options = GetOptions { parallel, overwrite: true, progress, sync: parallel == 3 };
            let got = client.get_file("/f", &target, options).await.unwrap();
            assert_eq!(fs::read(&target).unwrap(), content, "{length}");
            assert_eq!(got.verification.bytes_verified, length as u64);
            assert_eq!(received.load(Ordering::SeqCst), length as u64);
            assert_eq!(names(folder.path()), ["in", "out"]);
        }
    }
}

#[tokio::test]
async fn a_put_survives_a_failing_pipeline_and_counts_its_bytes_once() {
    let cluster = FakeCluster::start(4).await;
    let client = cluster.client().await;
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("in");
    let content = bytes(10 << 20);
    fs::write(&source, &content).unwrap();
    cluster.datanode(1).next_fails(Fault::Reset { frame: 2 });
    cluster.datanode(2).next_fails(Fault::Fail { frame: 1, code: Code::Disk, node: 0 });
    let (progress, sent) = meter();
    let create = WriteOptions { block_bytes: Some(4 << 20), ..WriteOptions::default() };
    let options = PutOptions { create, progress: Some(progress), ..PutOptions::default() };
    let report = client.put_file(&source, "/f", options).await.unwrap();
    assert_eq!((report.rewritten_blocks, report.recovered_blocks), (0, 1));
    assert_eq!(cluster.state.content_on("/f", 3).unwrap(), content);
    assert_eq!(sent.load(Ordering::SeqCst), content.len() as u64);
}

#[tokio::test]
async fn a_source_that_grows_or_shrinks_meanwhile_is_not_stored() {
    for new_length in [100, 1_000_000] {
        let cluster = FakeCluster::start(1).await;
        let client = cluster.client().await;
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("in");
        fs::write(&source, bytes(3 * BLOCK as usize)).unwrap();
        // The change comes while the last block is on its way, so that nothing but the check can notice.
        let grown = source.clone();
        let progress: Progress = Arc::new(move |_| fs::write(&grown, bytes(new_length)).unwrap());
        let options = PutOptions { progress: Some(progress), ..PutOptions::default() };
        let error = client.put_file(&source, "/f", options).await.unwrap_err();
        assert!(matches!(error, ClientError::SourceChanged { .. }), "{error:?}");
        assert_eq!(cluster.namenode.call_names().last(), Some(&"abandon"));
        assert_eq!(client.try_stat("/f").await.unwrap(), None);
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_before_the_namenode_is_asked() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let folder = tempfile::tempdir().unwrap();
    for source in [folder.path().join("missing"), folder.path().to_owned(), "/dev/null".into()] {
        let error = client.put_file(&source, "/f", PutOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request);
        assert!(error.to_string().contains(source.to_str().unwrap()), "{error}");
    }
    let options = PutOptions { parallel: 0, ..PutOptions::default() };
    let error = client.put_file(folder.path(), "/f", options).await.unwrap_err();
    assert_eq!(error.to_string(), "parallel: 0 is not in 1..=64");
    assert_eq!(cluster.namenode.call_names(), [""; 0]);
}

#[tokio::test]
async fn a_put_that_is_dropped_is_abandoned() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("in");
    fs::write(&source, bytes(100)).unwrap();
    cluster.datanode(1).next_fails(Fault::Stall { frame: 0 });
    let sending = async {
        while cluster.datanode(1).requests().0 == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = client.put_file(&source, "/f", PutOptions::default()) => panic!("it takes nothing"),
        () = sending => {}
    }
    cluster.namenode.wait_for("abandon").await;
    assert_eq!(client.try_stat("/f").await.unwrap(), None);
}

#[tokio::test]
async fn the_namenodes_digest_is_not_believed_but_compared() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    for content in [bytes(10), bytes(BLOCK as usize), bytes(3 * BLOCK as usize)] {
        cluster.add_file("/f", &content, BLOCK, &[1]);
        cluster.state.tables.lock().files.get_mut("/f").unwrap().status.digest =
            Some(doldam_client::FileDigest([9; 32]));
        let got = client.get_file("/f", &target, GetOptions::default()).await;
        let error = got.unwrap_err();
        assert!(matches!(error, ClientError::DigestMismatch { .. }), "{error:?}");
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert_eq!(names(folder.path()), [""; 0], "nothing is left behind");
    }
}

#[tokio::test]
async fn a_get_that_fails_leaves_the_target_as_it_was() {
    let cluster = FakeCluster::start(1).await;
    cluster.add_file("/f", &bytes(3 * BLOCK as usize), BLOCK, &[1]);
    let client = cluster.client().await;
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    fs::write(&target, b"old").unwrap();

    let error = client.get_file("/f", &target, GetOptions::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::LocalExists { .. }));
    cluster.datanode(1).kill();
    let options = GetOptions { overwrite: true, ..GetOptions::default() };
    let error = client.get_file("/f", &target, options.clone()).await.unwrap_err();
    assert!(matches!(error, ClientError::BlockUnreadable { .. }), "{error:?}");
    assert_eq!(fs::read(&target).unwrap(), b"old");
    assert_eq!(names(folder.path()), ["out"]);

    for target in [folder.path().to_owned(), folder.path().join("no/such/folder/f")] {
        let error = client.get_file("/f", &target, options.clone()).await.unwrap_err();
        assert!(matches!(error, ClientError::Local { .. }), "{error:?}");
    }
    let error = client.get_file("/f", Path::new("/dev/null"), options).await.unwrap_err();
    assert!(error.to_string().contains("/dev/null"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_get_fails_over_and_reports() {
    let content = bytes(20 << 20);
    let cluster = FakeCluster::start(2).await;
    cluster.add_file("/f", &content, 4 << 20, &[1, 2]);
    let client = cluster.client().await;
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    cluster.datanode(1).next_fails(Fault::FlipByte { frame: 3 });
    let report = client.get_file("/f", &target, GetOptions::default()).await.unwrap();
    assert_eq!(fs::read(&target).unwrap(), content);
    assert_eq!(names(folder.path()), ["out"]);
    assert_eq!(report.verification.bad_replicas.len(), 1);
    assert_eq!(report.status.digest.unwrap().to_string(), b3sum(&content));
    let reports = |calls: &[Call]| calls.iter().filter(|call| call.name() == "report").count();
    assert_eq!(reports(&cluster.namenode.calls()), 1, "before the call returns");
}

#[tokio::test]
async fn an_unfinished_complete_is_unknown_and_not_abandoned() {
    let cluster = FakeCluster::start(1).await;
    let mut config = crate::fakes::config();
    config.operation_timeout = std::time::Duration::from_millis(300);
    let client = cluster.client_with(config).await;
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("in");
    fs::write(&source, b"hello").unwrap();
    for _ in 0..20 {
        cluster.namenode.answer_next("complete", Answer::Lose);
    }
    let error = client.put_file(&source, "/f", PutOptions::default()).await.unwrap_err();
    let ClientError::Unreachable { operation: "complete", .. } = error else { panic!("{error:?}") };
    assert!(!cluster.namenode.call_names().contains(&"abandon"));
}
