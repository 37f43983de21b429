//! One suite over every implementation of [`Tables`]: it must answer like an ordered map of each
//! table.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use doldam_proto::id::JournalIndex;
use doldam_runtime::disk::Disk;
use proptest::prelude::*;

use super::{FlushJob, Store, StoreOptions};
use crate::engine::tables::{Change, Changes, MemoryTables, Table, Tables, WriteSet};
use crate::journal::test_disk::CrashDisk;

type Model = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// Tables that take changes, and may do housekeeping that changes no answer.
trait Subject {
    fn new() -> Self;
    fn apply(&mut self, changes: Changes);
    fn keep_house(&mut self, choice: u8);
    fn with_tables(&self, look: &mut dyn FnMut(&dyn Tables));
}

impl Subject for MemoryTables {
    fn new() -> Self {
        Self::new()
    }

    fn apply(&mut self, changes: Changes) {
        self.apply_changes(changes);
    }

    fn keep_house(&mut self, _choice: u8) {}

    fn with_tables(&self, look: &mut dyn FnMut(&dyn Tables)) {
        look(self);
    }
}

/// A write set that gathers changes over a base which takes them over now and then.
struct GatheredChanges {
    base: MemoryTables,
    gathered: Changes,
}

impl Subject for GatheredChanges {
    fn new() -> Self {
        Self { base: MemoryTables::new(), gathered: Changes::new() }
    }

    fn apply(&mut self, changes: Changes) {
        self.gathered.merge(changes);
    }

    fn keep_house(&mut self, _choice: u8) {
        self.base.apply_changes(std::mem::take(&mut self.gathered));
    }

    fn with_tables(&self, look: &mut dyn FnMut(&dyn Tables)) {
        let mut write_set = WriteSet::new(&self.base);
        for (table, key, change) in self.gathered.iter() {
            match change {
                Change::Put(value) => write_set.put(table, key, value.clone()),
                Change::Delete => write_set.delete(table, key),
            }
        }
        look(&write_set);
    }
}

/// A store that is frozen, flushed and reopened, with the commands it needs to replay.
struct JournaledStore {
    disk: Arc<dyn Disk>,
    store: Option<Store>,
    job: Option<FlushJob>,
    journal: Vec<Changes>,
}

impl JournaledStore {
    fn open(&mut self) {
        let options = StoreOptions { cache_bytes: 1 << 20, check_at_open: false };
        self.store = Some(Store::open(&self.disk, Path::new("/store"), options).unwrap());
        let store = self.store.as_mut().unwrap();
        let applied = store.applied_index().0 as usize;
        for (changes, place) in self.journal.iter().skip(applied).zip(applied as u64 + 1..) {
            store.commit(changes.clone(), JournalIndex(place));
        }
    }

    fn last(&self) -> JournalIndex {
        JournalIndex(self.journal.len() as u64)
    }
}

impl Subject for JournaledStore {
    fn new() -> Self {
        let disk = CrashDisk::with_folder("/store");
        let mut subject = Self { disk, store: None, job: None, journal: Vec::new() };
        subject.open();
        subject
    }

    fn apply(&mut self, changes: Changes) {
        self.journal.push(changes.clone());
        let last = self.last();
        self.store.as_mut().unwrap().commit(changes, last);
    }

    fn keep_house(&mut self, choice: u8) {
        let durable = self.last();
        if choice.is_multiple_of(4) {
            // Also with a flush that never ran. The file is closed before it is opened again.
            (self.job, self.store) = (None, None);
            return self.open();
        }
        let store = self.store.as_mut().unwrap();
        match (choice % 4, self.job.take()) {
            (_, None) => self.job = store.freeze(),
            (1, job) => self.job = job,
            (_, Some(job)) => drop(store.install(job.run(durable).unwrap())),
        }
    }

    fn with_tables(&self, look: &mut dyn FnMut(&dyn Tables)) {
        look(self.store.as_ref().unwrap());
    }
}

#[derive(Debug, Clone)]
enum Step {
    Apply(Vec<(Table, Vec<u8>, Option<Vec<u8>>)>),
    KeepHouse(u8),
    Scan(Table, Bound<Vec<u8>>, usize),
}

fn table() -> impl Strategy<Value = Table> {
    prop::sample::select(vec![Table::Meta, Table::Children, Table::Debts])
}

/// Few keys, so that they meet; some are prefixes of others, one is empty.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0, 1, 255]), 0..4)
}

fn step() -> impl Strategy<Value = Step> {
    let value = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..40));
    let from = prop_oneof![
        Just(Bound::Unbounded),
        key().prop_map(Bound::Included),
        key().prop_map(Bound::Excluded),
    ];
    prop_oneof![
        4 => prop::collection::vec((table(), key(), value), 0..8).prop_map(Step::Apply),
        3 => any::<u8>().prop_map(Step::KeepHouse),
        2 => (table(), from, 1..10_usize)
            .prop_map(|(table, from, count)| Step::Scan(table, from, count)),
    ]
}

/// At most `count` entries from `from` on.
fn scan(
    tables: &dyn Tables,
    table: Table,
    from: Bound<&[u8]>,
    count: usize,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    tables
        .scan(table, from, &mut |key, value| {
            assert!(found.len() < count, "visited after a break");
            found.push((key.to_vec(), value.to_vec()));
            if found.len() == count { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    found
}

fn expected(
    model: &Model,
    table: Table,
    from: Bound<&[u8]>,
    count: usize,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let inside = |key: &[u8]| match from {
        Bound::Unbounded => true,
        Bound::Included(from) => key >= from,
        Bound::Excluded(from) => key > from,
    };
    let of_table = model.iter().filter(|((of, key), _)| *of == table && inside(key));
    of_table.map(|((_, key), value)| (key.clone(), value.clone())).take(count).collect()
}

fn check_all(tables: &dyn Tables, model: &Model) {
    for table in Table::ALL {
        let all = scan(tables, table, Bound::Unbounded, usize::MAX);
        assert_eq!(all, expected(model, table, Bound::Unbounded, usize::MAX), "{table:?}");
        for key in [&[][..], &[0], &[1], &[255], &[0, 1], &[1, 0, 255]] {
            let value = tables.get(table, key).unwrap();
            let expected = model.get(&(table, key.to_vec()));
            assert_eq!(value.as_deref(), expected.map(Vec::as_slice), "{table:?} {key:?}");
        }
    }
}

fn behaves_like_ordered_maps<S: Subject>(steps: Vec<Step>) {
    let mut subject = S::new();
    let mut model = Model::new();
    for step in steps {
        match step {
            Step::Apply(entries) => {
                let mut changes = Changes::new();
                for (table, key, value) in entries {
                    let change =
                        value.clone().map_or(Change::Delete, |value| Change::Put(value.into()));
                    changes.insert(table, Bytes::from(key.clone()), change);
                    match value {
                        Some(value) => model.insert((table, key), value),
                        None => model.remove(&(table, key)),
                    };
                }
                subject.apply(changes);
            }
            Step::KeepHouse(choice) => subject.keep_house(choice),
            Step::Scan(table, from, count) => subject.with_tables(&mut |tables| {
                let from = from.as_ref().map(Vec::as_slice);
                assert_eq!(scan(tables, table, from, count), expected(&model, table, from, count));
            }),
        }
        subject.with_tables(&mut |tables| check_all(tables, &model));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn memory_conforms(steps in prop::collection::vec(step(), 0..40)) {
        behaves_like_ordered_maps::<MemoryTables>(steps);
    }

    #[test]
    fn a_write_set_conforms(steps in prop::collection::vec(step(), 0..40)) {
        behaves_like_ordered_maps::<GatheredChanges>(steps);
    }

    #[test]
    fn the_store_conforms(steps in prop::collection::vec(step(), 0..40)) {
        behaves_like_ordered_maps::<JournaledStore>(steps);
    }
}
