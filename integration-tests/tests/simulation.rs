//! Simulations: a whole cluster in one process, seed by seed. See `docs/testing.md`, "Simulation".
//!
//! `DOLDAM_SIM_SEEDS=N` sets how many fresh seeds are run. A seed that fails is printed; replay it with
//! `cargo run -p doldam-integration-tests --bin doldam-sim -- --seed N`, mend what it found, and add it to
//! [`REGRESSIONS`].

#![cfg(feature = "simulation")]

use std::ops::Range;

use doldam_integration_tests::simulation::{Options, Run, run};
use doldam_runtime::planted::Bug;
use doldam_runtime::random::{Random, SystemRandom};

/// Seeds that are always run.
const FIXED: Range<u64> = 1..9;
/// Fresh seeds, unless told otherwise.
const FRESH_DEFAULT: u64 = 4;
/// Seeds that failed once, with what they found.
const REGRESSIONS: &[(u64, &str)] = &[
    (5, "a namenode and its datanodes compared inventories as fast as the network carried it"),
    (25, "garbage that came while garbage was collected was never collected"),
    (44, "garbage that came while garbage was collected was never collected"),
    (67, "garbage that came while garbage was collected was never collected"),
    (14, "a bad replica that could not be let go at once stayed until its node registered again"),
    (10099, "of two bad copies of a replica in two folders one stayed"),
    (20083, "a power loss took the names of the last replica, and its bytes stayed unused"),
    (
        276_468_861_242_692,
        "an open part stayed whose name a power loss had brought back beside the replica",
    ),
    (50806, "of two sidecars that a power loss brought back to the trash one stayed"),
    (
        55409,
        "a replica whose bytes a power loss had taken was gone on with, and the good one dropped",
    ),
];
/// Seeds within which each planted bug is found.
const BUG_SEEDS: Range<u64> = 100..160;

fn assert_keeps_promises(run: &Run) {
    if let Err(broken) = &run.result {
        let (seed, promise, what) = (run.seed, broken.promise, &broken.what);
        panic!("{}\nseed {seed}: {promise}: {what}", run.trace);
    }
}

#[test]
fn the_fixed_seeds_keep_every_promise() {
    for seed in FIXED {
        assert_keeps_promises(&run(Options::new(seed)));
    }
}

#[test]
fn fresh_seeds_keep_every_promise() {
    let count =
        std::env::var("DOLDAM_SIM_SEEDS").map_or(FRESH_DEFAULT, |text| text.parse().unwrap());
    for _ in 0..count {
        let seed = SystemRandom.next_u64() >> 16;
        println!("seed {seed}");
        assert_keeps_promises(&run(Options::new(seed)));
    }
}

#[test]
fn seeds_that_failed_once_keep_every_promise() {
    for (seed, found) in REGRESSIONS {
        println!("seed {seed} found: {found}");
        assert_keeps_promises(&run(Options::new(*seed)));
    }
}

#[test]
fn one_seed_has_one_trace_byte_for_byte() {
    // In the last three the namenode stops, by an operator or by itself, while it is asked something.
    for seed in [3, 4, 360, 10324, 56823] {
        let whole = Options { whole_trace: true, ..Options::new(seed) };
        let (first, second) = (run(whole), run(whole));
        let differing = first.trace.lines().zip(second.trace.lines()).find(|(a, b)| a != b);
        assert_eq!(differing, None, "seed {seed}");
        assert_eq!(first.trace.len(), second.trace.len());
        assert_eq!(first.hash, second.hash);
        assert_ne!(first.hash, run(Options::new(seed + 1)).hash, "another seed, another run");
    }
}

fn assert_found(bug: Bug, promises: &[&str]) {
    for seed in BUG_SEEDS {
        let found = run(Options { bug: Some(bug), ..Options::new(seed) }).result.err();
        if let Some(broken) = found.filter(|broken| promises.contains(&broken.promise)) {
            println!("{bug:?} found by seed {seed}: {broken:?}");
            return;
        }
    }
    panic!("{bug:?} was not found by the seeds {BUG_SEEDS:?}");
}

#[test]
fn a_datanode_that_acknowledges_before_it_syncs_is_found() {
    assert_found(Bug::AckBeforeSync, &["acknowledged bytes exist"]);
}

#[test]
fn a_datanode_that_deletes_on_a_hint_is_found() {
    assert_found(Bug::DeleteOnHint, &["acknowledged bytes exist"]);
}

#[test]
fn a_datanode_that_drops_the_wrong_generation_is_found() {
    assert_found(Bug::ForgottenGeneration, &["the cluster heals", "acknowledged files are read"]);
}

#[test]
fn a_datanode_that_drops_an_acknowledgement_is_found() {
    assert_found(Bug::DroppedAck, &["a healthy cluster takes files"]);
}

#[test]
fn a_namenode_that_answers_before_its_journal_is_synced_is_found() {
    let promises = [
        "answers are true",
        "what is seen is so",
        "what is listed is there",
        "acknowledged bytes exist",
    ];
    assert_found(Bug::AnswerBeforeJournal, &promises);
}
