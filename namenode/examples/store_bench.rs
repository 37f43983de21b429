//! How fast the store takes and finds small records, in memory and from its database.
//!
//! `cargo run --release -p doldam-namenode --example store_bench [FOLDER] [INODES]`

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use doldam_namenode::engine::tables::{Change, Changes, Table, Tables};
use doldam_namenode::store::{Store, StoreOptions};
use doldam_proto::id::JournalIndex;
use doldam_runtime::clock::{Clock, SystemClock};
use doldam_runtime::disk::{Disk, RealDisk};

type Failure = Box<dyn std::error::Error>;

/// As a create does it: an inode, its name, a request, and some numbers that change each time.
fn changes_of(inode: u64) -> Changes {
    let mut changes = Changes::new();
    let mut put = |table, key: Vec<u8>, value_bytes: usize| {
        let value = Bytes::from(vec![inode as u8; value_bytes]);
        changes.insert(table, Bytes::from(key), Change::Put(value));
    };
    let id = inode.to_be_bytes();
    put(Table::Inodes, id.to_vec(), 80);
    let mut name = (inode / 1000).to_be_bytes().to_vec();
    name.extend_from_slice(format!("file-{inode:08}").as_bytes());
    put(Table::Children, name, 8);
    let mut block = id.to_vec();
    block.extend_from_slice(&[0; 4]);
    put(Table::Blocks, block, 90);
    put(Table::BlockOwners, id.to_vec(), 12);
    for node in 1_u32..=3 {
        let mut replica = node.to_be_bytes().to_vec();
        replica.extend_from_slice(&((inode % 1024) as u16).to_be_bytes());
        replica.extend_from_slice(&id);
        put(Table::Replicas, replica, 16);
    }
    let mut request = vec![9; 16];
    request.extend_from_slice(&(inode % 4096).to_be_bytes());
    put(Table::Requests, request, 60);
    put(Table::Meta, b"next_inode".to_vec(), 8);
    put(Table::Meta, b"next_block".to_vec(), 8);
    changes
}

fn since(clock: &dyn Clock, started: Duration) -> Duration {
    clock.now().saturating_sub(started)
}

fn nanos_each(elapsed: Duration, count: u64) -> u128 {
    elapsed.as_nanos() / u128::from(count.max(1))
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let folder = tempfile::tempdir_in(arguments.next().unwrap_or_else(|| ".".into()))?;
    let inodes: u64 = arguments.next().map_or(Ok(200_000), |text| text.parse())?;
    let clock: &dyn Clock = &SystemClock::default();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let options = StoreOptions::default();
    let mut store = Store::open(&disk, folder.path(), options)?;
    fill(&mut store, inodes, clock)?;
    read(&store, inodes, clock, "database, and overlay of the last part")?;
    let started = clock.now();
    store.checkpoint(JournalIndex(inodes))?;
    println!("last checkpoint: {:?}", since(clock, started));
    drop(store);
    for (what, check_at_open) in [("", false), (" with every page checked", true)] {
        let started = clock.now();
        let store = Store::open(&disk, folder.path(), StoreOptions { check_at_open, ..options })?;
        println!("opened{what} in {:?}", since(clock, started));
        read(&store, inodes, clock, "database")?;
    }
    let bytes = disk.file_bytes(&folder.path().join("tables.redb"))?.unwrap_or_default();
    println!("file: {bytes} bytes, {} an inode", bytes / inodes);
    Ok(())
}

fn fill(store: &mut Store, inodes: u64, clock: &dyn Clock) -> Result<(), Failure> {
    let (mut committing, mut flushing, mut flushes) = (Duration::ZERO, Duration::ZERO, 0);
    for inode in 1..=inodes {
        let changes = changes_of(inode);
        let started = clock.now();
        store.commit(changes, JournalIndex(inode));
        committing += since(clock, started);
        if store.load().active_bytes > 64 << 20 {
            let started = clock.now();
            store.checkpoint(JournalIndex(inode))?;
            flushing += since(clock, started);
            flushes += 1;
        }
    }
    println!("commit of 10 changes: {} ns", nanos_each(committing, inodes));
    println!("{flushes} checkpoints of 64 MiB: {:?} each", flushing / flushes.max(1));
    Ok(())
}

fn read(store: &Store, inodes: u64, clock: &dyn Clock, what: &str) -> Result<(), Failure> {
    const READS: u64 = 200_000;
    for round in ["first", "again"] {
        let started = clock.now();
        let mut found = 0;
        for read in 0..READS {
            // Scattered over all: the multiplier is prime.
            let inode = read * 7_368_787 % inodes + 1;
            found += u64::from(store.get(Table::Inodes, &inode.to_be_bytes())?.is_some());
        }
        let each = nanos_each(since(clock, started), READS);
        println!("{what}, {round}: {each} ns a read, {found} found");
    }
    let started = clock.now();
    let mut count = 0;
    store.scan(Table::Children, Bound::Unbounded, &mut |_, _| {
        count += 1;
        ControlFlow::Continue(())
    })?;
    let each = nanos_each(since(clock, started), count);
    println!("{what}: {each} ns an entry of a scan over {count}");
    Ok(())
}
