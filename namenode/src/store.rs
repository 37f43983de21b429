//! The state of the namespace, larger than memory and quick to change.
//!
//! Committed changes go to an **active overlay**, ordered maps in memory; nothing is written for
//! them, since the [`journal`](crate::journal) already has the commands. Now and then the overlay
//! is **frozen** and a new one begins; the frozen one is written to an embedded database in one
//! durable transaction together with the index of the last command in it: the **checkpoint**. Reads
//! look into the active overlay, then the frozen one, then the database as of the last checkpoint.
//!
//! What a crash leaves is the last checkpoint. The owner replays the journal from
//! [`Store::applied_index`] on.
//!
//! The store takes no locks and starts no threads: its owner shares it behind a lock of its own and
//! runs [`FlushJob`]s on a thread of its own. The layout on disk is in `docs/formats.md`.

mod backend;
mod checkpoint;
#[cfg(test)]
mod conformance_test;
mod database;
mod overlay;
#[cfg(test)]
mod store_test;

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use doldam_proto::id::JournalIndex;
use doldam_runtime::disk::Disk;

pub use self::checkpoint::{
    CHECKPOINT_INTERVAL_DEFAULT, CheckpointPolicy, CheckpointStep, FlushJob, Flushed,
    OVERLAY_BYTES_DEFAULT, Retired, StoreLoad,
};
use self::database::{Database, Snapshot};
use self::overlay::Overlay;
use crate::engine::tables::{Change, Changes, StoreError, Table, Tables, Visit};

/// How much memory the database may use for pages it has read, unless told otherwise.
pub const CACHE_BYTES_DEFAULT: usize = 128 << 20;

/// Settings of a [`Store`].
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// Memory for pages of the database, read or about to be written.
    pub cache_bytes: usize,
    /// Reads the whole database at the start and checks every page: finds damage of the medium
    /// before anything is served, at the price of the time to read it. Without, a page that the
    /// medium changed may be served as it is.
    pub check_at_open: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { cache_bytes: CACHE_BYTES_DEFAULT, check_at_open: false }
    }
}

/// The committed state. See the module for what it promises.
#[derive(Debug)]
pub struct Store {
    database: Arc<Database>,
    snapshot: Snapshot,
    frozen: Option<Arc<Overlay>>,
    active: Overlay,
}

impl Store {
    /// Opens the store in the folder `dir`, or creates an empty one there if there is none.
    ///
    /// The folder exists and belongs to the caller alone (see [`Disk::lock_dir`]). Creating
    /// survives a crash at any moment: the next call finds the whole store or none.
    ///
    /// # Errors
    /// If the medium fails, or the file is damaged or of another version.
    pub fn open(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let database = Arc::new(Database::open(disk.as_ref(), dir, options)?);
        let snapshot = database.snapshot()?;
        let active = Overlay::after(snapshot.checkpointed);
        Ok(Self { database, snapshot, frozen: None, active })
    }

    /// Makes the changes of the commands up to `index` part of the state. A crash loses them:
    /// whoever calls this has the commands in the journal, or sees to it that nobody is told before
    /// it has.
    ///
    /// # Panics
    /// If `index` was already applied: applying a command twice would be a broken invariant.
    pub fn commit(&mut self, changes: Changes, index: JournalIndex) {
        self.active.commit(changes, index);
    }

    /// The last command that is part of the state.
    pub const fn applied_index(&self) -> JournalIndex {
        self.active.applied()
    }

    /// The last command that is in the database and so survives a crash without the journal.
    pub const fn checkpointed_index(&self) -> JournalIndex {
        self.snapshot.checkpointed
    }

    /// The checkpoint before [`checkpointed_index`](Self::checkpointed_index). The journal is kept
    /// from here on: a copy of the database from before the last checkpoint can still be brought up
    /// to date.
    pub const fn previous_checkpoint_index(&self) -> JournalIndex {
        self.snapshot.previous
    }

    /// What a [`CheckpointPolicy`] decides on.
    pub fn load(&self) -> StoreLoad {
        StoreLoad {
            active_bytes: self.active.bytes(),
            unwritten: self.applied_index() > self.checkpointed_index(),
            flush_running: self.frozen.is_some(),
        }
    }

    /// Freezes the active overlay and begins a new one. `None` if there is nothing to write, or the
    /// flush of an earlier one has not been [installed](Self::install).
    ///
    /// The job must be run and its result installed: until then nothing else is written. If it
    /// fails, so has the store, and the process stops.
    #[must_use = "only a job that is run writes anything"]
    pub fn freeze(&mut self) -> Option<FlushJob> {
        if self.frozen.is_some() || self.active.applied() == self.snapshot.checkpointed {
            return None;
        }
        let next = Overlay::after(self.active.applied());
        let frozen = Arc::new(std::mem::replace(&mut self.active, next));
        self.frozen = Some(Arc::clone(&frozen));
        let previous = self.snapshot.checkpointed;
        Some(FlushJob::new(Arc::clone(&self.database), frozen, previous))
    }

    /// Reads from the new checkpoint from now on. Give the lock back before dropping what this
    /// returns: freeing a large overlay takes time.
    ///
    /// # Panics
    /// If `flushed` does not stem from this store's last [`freeze`](Self::freeze).
    #[must_use = "drop it outside the lock"]
    pub fn install(&mut self, flushed: Flushed) -> Retired {
        let frozen = self.frozen.take();
        assert!(
            frozen.as_ref().is_some_and(|frozen| Arc::ptr_eq(frozen, &flushed.frozen)),
            "a flush was installed that this store did not order",
        );
        let snapshot = std::mem::replace(&mut self.snapshot, flushed.snapshot);
        Retired::new(flushed.frozen, snapshot)
    }

    /// Writes everything to the database now: at a clean stop, and now and then during a long
    /// replay. `durable` is the last command that is durable in the journal.
    ///
    /// # Errors
    /// If the medium fails.
    ///
    /// # Panics
    /// If a flush is running, or the journal is behind.
    pub fn checkpoint(&mut self, durable: JournalIndex) -> Result<(), StoreError> {
        assert!(self.frozen.is_none(), "a flush is still running");
        if let Some(job) = self.freeze() {
            drop(self.install(job.run(durable)?));
        }
        Ok(())
    }
}

impl Tables for Store {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let mut overlays = std::iter::once(&self.active).chain(self.frozen.as_deref());
        match overlays.find_map(|overlay| overlay.changes().get(table, key)) {
            Some(change) => Ok(change.value().cloned()),
            None => self.snapshot.get(table, key),
        }
    }

    fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        let newer = self.active.changes().range(table, from);
        let older = self.frozen.as_deref().map(|frozen| frozen.changes().range(table, from));
        let mut changes = overlay::Newest::new(newer, older).peekable();
        let mut broke = false;
        self.snapshot.scan(table, from, &mut |key, value| {
            let flow = Change::visit_merged(&mut changes, key, value, visit);
            broke = flow.is_break();
            flow
        })?;
        if !broke {
            // A break here ends the scan just as the end of the changes does.
            let _ = changes.try_for_each(|(key, change)| change.visit(key, visit));
        }
        Ok(())
    }
}
