//! Random lives of a journal on a disk that crashes, against a plain list of what was appended.

use std::sync::Arc;

use doldam_proto::id::JournalIndex;
use doldam_runtime::random::SeededRandom;
use proptest::prelude::*;

use super::record::Record;
use super::test_disk::{CrashDisk, Fault};
use super::test_journal::{FOLDER, read_all, record_of, segment_path, start_small};
use super::{CommitLoop, JournalWriter};

#[derive(Debug, Clone)]
enum Step {
    /// Payload lengths of a batch.
    Append(Vec<usize>),
    Mark,
    /// Removes segments before this share of what is acknowledged, in percent.
    Remove(u64),
    /// A batch whose write or a sync on the way fails, then the machine crashes.
    CrashInAppend {
        batch: Vec<usize>,
        after_syncs: u64,
        fault: Fault,
        seed: u64,
    },
    /// The machine crashes between batches.
    Crash {
        seed: u64,
    },
    /// The same failure, but only the process dies: what it wrote can still be read.
    DieInAppend {
        batch: Vec<usize>,
        after_syncs: u64,
    },
}

fn batch() -> impl Strategy<Value = Vec<usize>> {
    let payload_bytes = prop_oneof![3 => 0..200_usize, 1 => 200..1800_usize];
    prop::collection::vec(payload_bytes, 1..3)
}

/// Most often the sync of the batch itself fails, else one of those that begin a segment.
fn after_syncs() -> impl Strategy<Value = u64> {
    prop_oneof![2 => Just(0), 1 => 1..5_u64]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![3 => Just(Fault::Power), 1 => Just(Fault::Medium)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => batch().prop_map(Step::Append),
        2 => Just(Step::Mark),
        1 => (0..=100_u64).prop_map(Step::Remove),
        4 => (batch(), after_syncs(), fault(), any::<u64>()).prop_map(
            |(batch, after_syncs, fault, seed)| {
                Step::CrashInAppend { batch, after_syncs, fault, seed }
            }
        ),
        2 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
        2 => (batch(), after_syncs())
            .prop_map(|(batch, after_syncs)| Step::DieInAppend { batch, after_syncs }),
    ]
}

/// A journal and what is known of it.
struct World {
    disk: Arc<CrashDisk>,
    writer: JournalWriter,
    commit_loop: CommitLoop,
    /// Everything that was ever appended and may be found.
    appended: Vec<Record>,
    /// How many of those must be found.
    acknowledged: usize,
    /// The first record that is still wanted.
    from: u64,
}

impl World {
    fn new() -> Self {
        let disk = CrashDisk::with_folder(FOLDER);
        let (_, end) = read_all(&disk, 1).unwrap();
        let (writer, commit_loop, _) = start_small(end).unwrap();
        Self { disk, writer, commit_loop, appended: Vec::new(), acknowledged: 0, from: 1 }
    }

    fn append(&mut self, batch: &[usize]) {
        let first = self.appended.len() as u64 + 1;
        let batch: Vec<Record> =
            (first..).zip(batch).map(|(index, bytes)| record_of(index, *bytes)).collect();
        let result = self.commit_loop.appender.append(&batch);
        self.appended.extend(batch);
        if result.is_ok() {
            self.acknowledged = self.appended.len();
        }
    }

    fn remove(&mut self, percent: u64) {
        let before = 1 + self.acknowledged as u64 * percent / 100;
        self.from = self.from.max(before);
        self.writer.remove_before(JournalIndex(before)).unwrap();
    }

    /// Reads the disk as a new process does, and compares.
    fn restart(&mut self, disk: Arc<CrashDisk>) {
        self.disk = disk;
        let skipped = self.from as usize - 1;
        let (found, end) = read_all(&self.disk, self.from).unwrap();
        let total = skipped + found.len();
        assert!(total >= self.acknowledged, "{total} of {} acknowledged", self.acknowledged);
        assert!(total <= self.appended.len(), "records out of nowhere");
        assert!(found == self.appended[skipped..total], "other records than were appended");
        assert_eq!(end.last_index(), JournalIndex(total as u64));
        // What was found may be shown to the world: it must stay, even if nothing more is written.
        let again = self.disk.after_crash(&SeededRandom::new(total as u64));
        assert!(read_all(&again, self.from).unwrap().0 == found, "found once and lost after");
        self.appended.truncate(total);
        self.acknowledged = total;
        let (writer, commit_loop, _) = start_small(end).unwrap();
        (self.writer, self.commit_loop) = (writer, commit_loop);
    }

    fn crash(&mut self, seed: u64) {
        self.restart(self.disk.after_crash(&SeededRandom::new(seed)));
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Append(batch) => self.append(&batch),
            Step::Mark => self.commit_loop.appender.mark().unwrap(),
            Step::Remove(percent) => self.remove(percent),
            Step::CrashInAppend { batch, after_syncs, fault, seed } => {
                self.disk.fail_after_syncs(after_syncs, fault);
                self.append(&batch);
                self.crash(seed);
            }
            Step::Crash { seed } => self.crash(seed),
            Step::DieInAppend { batch, after_syncs } => {
                self.disk.fail_after_syncs(after_syncs, Fault::Medium);
                self.append(&batch);
                self.disk.heal();
                self.restart(Arc::clone(&self.disk));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_was_acknowledged_is_found_and_nothing_else(
        steps in prop::collection::vec(step(), 1..40),
        seed in any::<u64>(),
    ) {
        let mut world = World::new();
        for step in steps {
            world.run(step);
        }
        world.crash(seed);
    }
}

#[test]
fn a_record_read_after_a_failed_sync_survives_the_next_crash() {
    let mut world = World::new();
    world.append(&[50]);
    world.disk.fail_after_syncs(0, Fault::Medium);
    world.append(&[60]);
    assert_eq!(world.acknowledged, 1);
    world.disk.heal();
    world.restart(Arc::clone(&world.disk));
    assert_eq!(world.acknowledged, 2, "the process that died had written it");
    world.crash(1);
}

#[test]
fn a_segment_that_was_never_finished_is_forgotten() {
    let mut world = World::new();
    world.append(&[1200, 1200]);
    // Preparing the next segment succeeds, naming it does not.
    world.disk.fail_after_syncs(1, Fault::Power);
    world.append(&[1200, 1200]);
    assert_eq!(world.acknowledged, 2);
    world.disk.heal();
    world.restart(Arc::clone(&world.disk));
    assert_eq!(world.disk.paths(), [segment_path(1)]);
    world.append(&[1200, 1200]);
    world.crash(7);
    assert_eq!(world.acknowledged, 4);
}
