//! Room: what is promised, what is kept, and what comes back.

use super::*;
use crate::testing::FaultyDisk;

const MIB: u64 = 1 << 20;
const RESERVE: u64 = 10 * MIB;

struct Fixture {
    _dir: tempfile::TempDir,
    disk: FaultyDisk,
    volume: Arc<Volume>,
}

fn with_room(bytes: u64) -> Fixture {
    let (dir, disk) = (tempfile::tempdir().unwrap(), FaultyDisk::default());
    disk.set_available(bytes);
    let (volume, _) = Volume::open(disk.handle(), dir.path(), VolumeIndex(0), RESERVE).unwrap();
    Fixture { _dir: dir, disk, volume: Arc::new(volume) }
}

#[test]
fn a_disk_whose_reserve_is_reached_has_nothing_left_and_takes_blocks_again_once_there_is_room() {
    let Fixture { disk, volume, _dir } = with_room(RESERVE + 8 * MIB);
    assert_eq!(volume.space().available, 8 * MIB);
    assert!(volume.reserve(8 * MIB).is_none(), "no room for the sidecar");
    drop(volume.reserve(7 * MIB).unwrap());
    disk.set_available(RESERVE - 1);
    assert!(volume.reserve(1).is_none());
    assert_eq!(volume.seen_space().available, 0);
    disk.set_available(RESERVE + 8 * MIB);
    assert!(volume.reserve(7 * MIB).is_some());
}

#[test]
fn what_is_promised_is_gone_for_others_until_it_is_written_or_given_back() {
    let Fixture { volume, _dir, .. } = with_room(RESERVE + 100 * MIB);
    let mut first = volume.reserve(60 * MIB).unwrap();
    assert!(volume.reserve(60 * MIB).is_none());
    first.used(20 * MIB); // The disk of this test does not get fuller by it.
    assert_eq!(volume.seen_space().available, 60 * MIB - sidecar_bytes(60 * MIB));
    drop(first);
    assert_eq!(volume.seen_space().available, 100 * MIB);
}

#[test]
fn writers_that_grow_together_are_never_promised_the_reserve() {
    let Fixture { volume, _dir, .. } = with_room(RESERVE + 64 * MIB);
    let promised: Vec<Reservation> = std::thread::scope(|scope| {
        let writer = || {
            let mut all = Vec::new();
            while let Some(reservation) = volume.reserve(MIB) {
                all.push(reservation);
            }
            all
        };
        let writers: Vec<_> = (0..8).map(|_| scope.spawn(writer)).collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    assert_eq!(promised.len(), 63, "of 64 MiB the sidecars take some");
    drop(promised);
    assert_eq!(volume.seen_space().available, 64 * MIB);
}
