//! The numbers of tables, and sets of changes.

use bytes::Bytes;

use super::{Change, Changes, MemoryTables, Table, Tables, WriteSet};

#[test]
fn tables_stand_in_order_of_their_numbers() {
    for (index, table) in Table::ALL.into_iter().enumerate() {
        assert_eq!(table.index(), index);
        assert_eq!(table as usize, index + 1);
    }
}

#[test]
fn a_later_change_of_a_key_counts() {
    let mut changes = Changes::new();
    changes.insert(Table::Inodes, Bytes::from_static(b"a"), Change::Delete);
    changes.insert(Table::Inodes, Bytes::from_static(b"b"), Change::Delete);
    let mut later = Changes::new();
    later.insert(Table::Inodes, Bytes::from_static(b"a"), Change::Put(Bytes::from_static(b"1")));
    later.insert(Table::Debts, Bytes::from_static(b"a"), Change::Delete);
    changes.merge(later);
    assert_eq!(changes.len(), 3);
    let expected = Change::Put(Bytes::from_static(b"1"));
    assert_eq!(changes.get(Table::Inodes, b"a"), Some(&expected));
    assert_eq!(changes.get(Table::Inodes, b"b"), Some(&Change::Delete));
}

#[test]
fn a_write_set_leaves_its_base_alone() {
    let mut base = MemoryTables::new();
    let mut first = WriteSet::new(&base);
    first.put(Table::Meta, b"k", &b"old"[..]);
    let changes = first.into_changes();
    base.apply_changes(changes);
    let mut second = WriteSet::new(&base);
    second.put(Table::Meta, b"k", &b"new"[..]);
    assert_eq!(second.get(Table::Meta, b"k").unwrap().unwrap(), "new");
    assert_eq!(base.get(Table::Meta, b"k").unwrap().unwrap(), "old");
    let mut third = WriteSet::new(&base);
    third.delete(Table::Meta, b"k");
    assert_eq!(third.get(Table::Meta, b"k").unwrap(), None);
}
