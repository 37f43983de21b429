//! Nothing is told to anybody before it is durable.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use doldam_proto::FsError;
use doldam_proto::path::FsPath;
use doldam_proto::wire::Command;
use doldam_runtime::disk::{DirEntry, DirLock, Disk, DiskFile, OpenMode, RealDisk, Space};
use doldam_runtime::tasks::inline::block_on;
use futures::FutureExt;
use parking_lot::{Condvar, Mutex};

use super::{mkdir, options, start_with};
use crate::driver::queue::{Proposal, ProposalQueue, Refused};
use crate::engine::namespace::view;

/// A disk whose syncs can be held up.
#[derive(Default)]
struct Gate {
    is_shut: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, is_shut: bool) {
        *self.is_shut.lock() = is_shut;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut is_shut = self.is_shut.lock();
        while *is_shut {
            self.changed.wait(&mut is_shut);
        }
    }
}

struct GatedDisk(Arc<Gate>);

struct GatedFile(Box<dyn DiskFile>, Arc<Gate>);

impl Disk for GatedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(GatedFile(RealDisk.open(path, mode)?, Arc::clone(&self.0))))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()> {
        RealDisk.hard_link(original, link)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        RealDisk.list(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        RealDisk.space(path)
    }

    fn file_bytes(&self, path: &Path) -> io::Result<Option<u64>> {
        RealDisk.file_bytes(path)
    }

    fn lock_dir(&self, path: &Path) -> io::Result<DirLock> {
        RealDisk.lock_dir(path)
    }
}

impl DiskFile for GatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.1.pass();
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.1.pass();
        self.0.sync_all()
    }
}

#[tokio::test]
async fn neither_outcome_nor_refusal_nor_read_leaves_before_what_it_rests_on_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let disk = Arc::new(GatedDisk(Arc::clone(&gate)));
    let running = start_with(options(dir.path()), disk).await.unwrap();
    gate.set(true);

    let path = FsPath::parse("/d1").unwrap();
    let driver = running.driver.clone();
    let first = mkdir(&driver, 1);
    tokio::pin!(first);
    assert!((&mut first).now_or_never().is_none());
    // The state runs ahead of the disk: wait until the command is applied.
    let is_applied = || driver.peek(|tables| Ok(view::stat_if_exists(tables, &path)?.is_some())).0;
    while !is_applied().unwrap() {
        tokio::task::yield_now().await;
    }
    let read = driver.read(|tables| view::stat(tables, &path));
    let retry = mkdir(&driver, 1);
    let refused = driver.propose(None, other_mkdir("/d1"));
    tokio::pin!(read, retry, refused);
    assert!((&mut read).now_or_never().is_none(), "a read of what may be lost");
    assert!((&mut retry).now_or_never().is_none());
    assert!((&mut refused).now_or_never().is_none());
    while driver.waiting() > 0 {
        tokio::task::yield_now().await;
    }
    assert!((&mut retry).now_or_never().is_none(), "its first time is not durable yet");
    assert!((&mut refused).now_or_never().is_none(), "what is in its way may be lost");
    assert!((&mut first).now_or_never().is_none());

    gate.set(false);
    let outcome = first.await.unwrap();
    assert_eq!(retry.await.unwrap().kind, outcome.kind);
    assert!(matches!(refused.await, Err(FsError::AlreadyExists { .. })));
    assert!(read.await.unwrap().is_dir());
    running.stop().await;
}

fn other_mkdir(path: &str) -> doldam_proto::wire::command::Change {
    let command = doldam_proto::wire::MkdirCommand { path: path.to_owned(), parents: false };
    doldam_proto::wire::command::Change::Mkdir(command)
}

#[tokio::test]
async fn a_stop_finishes_what_was_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let disk = Arc::new(GatedDisk(Arc::clone(&gate)));
    let running = start_with(options(dir.path()), disk).await.unwrap();
    gate.set(true);
    let driver = running.driver.clone();
    let first = mkdir(&driver, 1);
    tokio::pin!(first);
    assert!((&mut first).now_or_never().is_none());
    running.tasks.stop();
    gate.set(false);
    assert!(first.await.is_ok());
    let late = loop {
        match mkdir(&driver, 2).await {
            Ok(_) => tokio::task::yield_now().await, // The stop has not come through.
            Err(refusal) => break refusal,
        }
    };
    assert!(matches!(late, FsError::Unavailable { .. }));
    running.stop().await;
}

#[test]
fn a_full_queue_refuses_and_a_closed_one_gives_out_what_it_has() {
    let proposal = || {
        let (answer, _) = tokio::sync::oneshot::channel();
        Proposal { command: Command::default(), payload: Bytes::default(), answer }
    };
    let queue = ProposalQueue::new(2);
    assert_eq!(queue.push(proposal()), Ok(()));
    assert_eq!(queue.push(proposal()), Ok(()));
    assert_eq!(queue.push(proposal()), Err(Refused::Full));
    queue.close();
    assert_eq!(queue.push(proposal()), Err(Refused::Closed));
    let patience = std::time::Duration::ZERO;
    assert!(
        matches!(block_on(queue.take(patience)), super::super::queue::Taken::Proposals(two) if two.len() == 2)
    );
    assert!(matches!(block_on(queue.take(patience)), super::super::queue::Taken::Closed));
}
