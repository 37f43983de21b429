//! Segments before and after their time: the next one, prepared ahead, and those no longer needed.

use std::path::PathBuf;
use std::sync::Arc;

use doldam_proto::id::JournalIndex;
use doldam_runtime::disk::Disk;
use parking_lot::{Condvar, Mutex};

use super::JournalError;
use super::segment::{self, Prepared};

/// Prepares the next segment while the present one fills: writing a whole file of zeros takes
/// longer than anybody should wait. [`run`](Self::run) it on a thread of its own; without, segments
/// are prepared when they are needed.
#[derive(Debug)]
pub struct SegmentKeeper(pub(super) Arc<Spares>);

impl SegmentKeeper {
    /// Works until the journal is closed or fails.
    ///
    /// # Errors
    /// If the medium fails; the journal fails with it when it needs the segment.
    pub fn run(self) -> Result<(), JournalError> {
        self.0.keep()
    }
}

impl Drop for SegmentKeeper {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.keeper_runs = false;
        self.0.changed.notify_all();
    }
}

/// Where the next segment comes from.
pub(super) struct Spares {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    state: Mutex<SpareState>,
    changed: Condvar,
}

#[derive(Default)]
struct SpareState {
    ready: Option<Prepared>,
    failed: Option<Arc<JournalError>>,
    keeper_runs: bool,
    closed: bool,
    made: u64,
}

impl std::fmt::Debug for Spares {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Spares").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Spares {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf, segment_bytes: u64) -> Self {
        let (state, changed) = Default::default();
        Self { disk, dir, segment_bytes, state, changed }
    }

    /// The next segment: at once if it is ready.
    pub(super) fn take(&self) -> Result<Prepared, JournalError> {
        let mut state = self.state.lock();
        loop {
            if let Some(source) = &state.failed {
                return Err(JournalError::Failed { source: Arc::clone(source) });
            }
            if let Some(prepared) = state.ready.take() {
                self.changed.notify_all();
                return Ok(prepared);
            }
            if !state.keeper_runs {
                break;
            }
            self.changed.wait(&mut state);
        }
        let number = state.next_number();
        drop(state);
        self.create(number)
    }

    /// Lets the keeper end.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    fn create(&self, number: u64) -> Result<Prepared, JournalError> {
        Prepared::create(self.disk.as_ref(), &self.dir, number, self.segment_bytes)
    }

    fn keep(&self) -> Result<(), JournalError> {
        let mut state = self.state.lock();
        state.keeper_runs = true;
        loop {
            if state.closed {
                return Ok(());
            }
            if state.ready.is_some() {
                self.changed.wait(&mut state);
                continue;
            }
            let number = state.next_number();
            drop(state);
            let made = self.create(number);
            state = self.state.lock();
            match made {
                Ok(prepared) => state.ready = Some(prepared),
                Err(error) => {
                    let source = Arc::new(error);
                    state.failed = Some(Arc::clone(&source));
                    self.changed.notify_all();
                    return Err(JournalError::Failed { source });
                }
            }
            self.changed.notify_all();
        }
    }
}

impl SpareState {
    fn next_number(&mut self) -> u64 {
        self.made += 1;
        self.made
    }
}

/// The segments that exist.
pub(super) struct SegmentList {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// By number, with the first record of each.
    segments: Mutex<Vec<(u64, JournalIndex)>>,
    removing: Mutex<()>,
}

impl SegmentList {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        segments: Vec<(u64, JournalIndex)>,
    ) -> Self {
        Self { disk, dir, segments: Mutex::new(segments), removing: Mutex::new(()) }
    }

    pub(super) fn push(&self, number: u64, first_index: JournalIndex) {
        self.segments.lock().push((number, first_index));
    }

    pub(super) fn count(&self) -> usize {
        self.segments.lock().len()
    }

    /// Removes the segments all of whose records are before `index`, oldest first and each durably,
    /// so that a crash leaves no gap. The newest one stays.
    pub(super) fn remove_before(&self, index: JournalIndex) -> Result<usize, JournalError> {
        let _one_at_a_time = self.removing.lock();
        let mut removed = 0;
        while let Some(number) = self.oldest_before(index) {
            let path = segment::path_of(&self.dir, number);
            self.disk.remove_file(&path).map_err(JournalError::io("removing", &path))?;
            self.disk.sync_dir(&self.dir).map_err(JournalError::io("syncing", &self.dir))?;
            self.segments.lock().remove(0);
            removed += 1;
        }
        Ok(removed)
    }

    fn oldest_before(&self, index: JournalIndex) -> Option<u64> {
        let segments = self.segments.lock();
        let (_, next_first) = *segments.get(1)?;
        (next_first <= index).then(|| segments[0].0)
    }
}
