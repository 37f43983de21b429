//! The embedded database below the overlays: one table for each of [`Table`], and one of
//! bookkeeping.
//!
//! Written only by [`Database::flush`], read only through a [`Snapshot`]. Each flush is one durable
//! transaction in two phases that also saves the allocator's state, so that opening after a crash
//! repairs nothing and takes the same time as after a clean stop. The layout stands in
//! `docs/formats.md`.

use std::fmt;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::Bytes;
use doldam_proto::id::JournalIndex;
use doldam_runtime::disk::{Disk, OpenMode};
use redb::{ReadOnlyTable, ReadableDatabase, TableDefinition, TableError};

use super::StoreOptions;
use super::backend::DiskBackend;
use crate::engine::tables::{Change, Changes, StoreError, Table, Visit};

/// Name of the file in the store's folder.
const FILE_NAME: &str = "tables.redb";
/// The file while it is being created.
const NEW_FILE_NAME: &str = "tables.redb.new";
/// Version of the layout; see `docs/formats.md`.
const FORMAT_VERSION: u64 = 1;

const BOOKKEEPING: TableDefinition<'static, &'static str, u64> =
    TableDefinition::new("bookkeeping");
const KEY_FORMAT_VERSION: &str = "format_version";
const KEY_APPLIED_INDEX: &str = "applied_index";
const KEY_PREVIOUS_INDEX: &str = "previous_index";

/// The database, open for as long as the store lives.
#[derive(Debug)]
pub(super) struct Database {
    inner: redb::Database,
}

impl Database {
    /// Opens the database in `dir`, or creates it.
    pub(super) fn open(
        disk: &dyn Disk,
        dir: &Path,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let path = dir.join(FILE_NAME);
        if disk.file_bytes(&path).map_err(failed("looking for the database"))?.is_none() {
            create(disk, dir)?;
        }
        let file =
            disk.open(&path, OpenMode::Write).map_err(failed("opening the database's file"))?;
        let inner = guarded("opening the database", || {
            redb::Builder::new()
                .set_cache_size(options.cache_bytes)
                .set_check_integrity_on_open(options.check_at_open)
                .create_with_backend(DiskBackend(file))
        })?;
        Ok(Self { inner })
    }

    /// The state as of the last flush.
    pub(super) fn snapshot(&self) -> Result<Snapshot, StoreError> {
        const WHAT: &str = "beginning to read";
        let transaction = guarded(WHAT, || self.inner.begin_read())?;
        let numbers = guarded(WHAT, || transaction.open_table(BOOKKEEPING))?;
        let found = number(&numbers, KEY_FORMAT_VERSION)?;
        if found != FORMAT_VERSION {
            return Err(StoreError::UnknownVersion { found, known: FORMAT_VERSION });
        }
        let mut tables = Vec::with_capacity(Table::COUNT);
        for table in Table::ALL {
            tables.push(guarded(WHAT, || match transaction.open_table(definition(table)) {
                Ok(open) => Ok(Some(open)),
                Err(TableError::TableDoesNotExist(_)) => Ok(None),
                Err(error) => Err(error),
            })?);
        }
        Ok(Snapshot {
            tables,
            checkpointed: JournalIndex(number(&numbers, KEY_APPLIED_INDEX)?),
            previous: JournalIndex(number(&numbers, KEY_PREVIOUS_INDEX)?),
        })
    }

    /// Makes `changes` durable together with `applied`, or, if it fails, changes nothing.
    pub(super) fn flush(
        &self,
        changes: &Changes,
        applied: JournalIndex,
        previous: JournalIndex,
    ) -> Result<(), StoreError> {
        caught("writing a checkpoint", || self.write(changes, applied, previous))?
    }

    fn write(
        &self,
        changes: &Changes,
        applied: JournalIndex,
        previous: JournalIndex,
    ) -> Result<(), StoreError> {
        const WHAT: &str = "writing a checkpoint";
        let mut transaction = self.inner.begin_write().map_err(failed(WHAT))?;
        transaction.set_quick_repair(true);
        for table in Table::ALL {
            let mut changes = changes.range(table, Bound::Unbounded).peekable();
            if changes.peek().is_some() {
                let mut open = transaction.open_table(definition(table)).map_err(failed(WHAT))?;
                for (key, change) in changes {
                    match change {
                        Change::Put(value) => open.insert(key.as_ref(), value.as_ref()),
                        Change::Delete => open.remove(key.as_ref()),
                    }
                    .map_err(failed(WHAT))?;
                }
            }
        }
        set_numbers(&transaction, applied, previous)?;
        transaction.commit().map_err(failed(WHAT))
    }
}

/// Makes an empty database under another name first, so that a crash leaves all of it or none.
fn create(disk: &dyn Disk, dir: &Path) -> Result<(), StoreError> {
    const WHAT: &str = "creating the database";
    let aside = dir.join(NEW_FILE_NAME);
    if disk.file_bytes(&aside).map_err(failed(WHAT))?.is_some() {
        disk.remove_file(&aside).map_err(failed(WHAT))?;
    }
    let file = disk.open(&aside, OpenMode::CreateNew).map_err(failed(WHAT))?;
    let database =
        redb::Builder::new().create_with_backend(DiskBackend(file)).map_err(failed(WHAT))?;
    let mut transaction = database.begin_write().map_err(failed(WHAT))?;
    transaction.set_quick_repair(true);
    set_numbers(&transaction, JournalIndex(0), JournalIndex(0))?;
    transaction.commit().map_err(failed(WHAT))?;
    drop(database);
    disk.rename(&aside, &dir.join(FILE_NAME)).map_err(failed(WHAT))?;
    disk.sync_dir(dir).map_err(failed(WHAT))
}

fn set_numbers(
    transaction: &redb::WriteTransaction,
    applied: JournalIndex,
    previous: JournalIndex,
) -> Result<(), StoreError> {
    const WHAT: &str = "writing the bookkeeping";
    let mut numbers = transaction.open_table(BOOKKEEPING).map_err(failed(WHAT))?;
    for (key, value) in [
        (KEY_FORMAT_VERSION, FORMAT_VERSION),
        (KEY_APPLIED_INDEX, applied.0),
        (KEY_PREVIOUS_INDEX, previous.0),
    ] {
        numbers.insert(key, value).map_err(failed(WHAT))?;
    }
    Ok(())
}

fn number(numbers: &ReadOnlyTable<&'static str, u64>, key: &str) -> Result<u64, StoreError> {
    let value = guarded("reading the bookkeeping", || {
        numbers.get(key).map(|value| value.map(|value| value.value()))
    })?;
    value.ok_or_else(|| StoreError::DamagedStore { what: format!("its bookkeeping has no {key}") })
}

/// The table's persistent name.
const fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(match table {
        Table::Meta => "meta",
        Table::Inodes => "inodes",
        Table::Children => "children",
        Table::Pending => "pending",
        Table::Leases => "leases",
        Table::Blocks => "blocks",
        Table::BlockOwners => "block_owners",
        Table::Replicas => "replicas",
        Table::Fingerprints => "fingerprints",
        Table::Nodes => "nodes",
        Table::NodeUuids => "node_uuids",
        Table::Garbage => "garbage",
        Table::Requests => "requests",
        Table::Debts => "debts",
    })
}

/// The state as of one flush, unchanged by later ones.
pub(super) struct Snapshot {
    /// In order of [`Table::ALL`]; `None` where nothing was ever written.
    tables: Vec<Option<ReadOnlyTable<&'static [u8], &'static [u8]>>>,
    /// The last command in it.
    pub(super) checkpointed: JournalIndex,
    /// The last command in the flush before.
    pub(super) previous: JournalIndex,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Snapshot")
            .field("checkpointed", &self.checkpointed)
            .finish_non_exhaustive()
    }
}

impl Snapshot {
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let Some(open) = &self.tables[table.index()] else { return Ok(None) };
        guarded("reading a key", || {
            let value = open.get(key)?;
            Ok::<_, redb::StorageError>(value.map(|value| Bytes::copy_from_slice(value.value())))
        })
    }

    pub(super) fn scan(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<(), StoreError> {
        const WHAT: &str = "scanning a table";
        let Some(open) = &self.tables[table.index()] else { return Ok(()) };
        let mut entries = guarded(WHAT, || open.range::<&[u8]>((from, Bound::Unbounded)))?;
        while let Some((key, value)) = guarded(WHAT, || entries.next().transpose())? {
            let (key, value) =
                guarded(WHAT, || Ok::<_, redb::StorageError>((key.value(), value.value())))?;
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Runs `step` of the engine below, which may fail or come upon damage.
fn guarded<T, E: std::error::Error + Send + Sync + 'static>(
    what: &'static str,
    step: impl FnOnce() -> Result<T, E>,
) -> Result<T, StoreError> {
    caught(what, step)?.map_err(failed(what))
}

/// Runs `step` of the engine below. It believes the pages it reads: over some that the medium changed it panics, and
/// that is damage like any other, to be told and not to be guessed from a backtrace.
fn caught<T>(what: &'static str, step: impl FnOnce() -> T) -> Result<T, StoreError> {
    // Nothing of the engine is used again after this: whoever gets a `StoreError` stops.
    catch_unwind(AssertUnwindSafe(step)).map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no word");
        StoreError::DamagedStore { what: format!("{what} came upon pages that cannot be ({said})") }
    })
}

fn failed<E: std::error::Error + Send + Sync + 'static>(
    what: &'static str,
) -> impl FnOnce(E) -> StoreError {
    move |error| StoreError::Storage { what, source: Box::new(error) }
}
