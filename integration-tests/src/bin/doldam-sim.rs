//! Runs simulations by hand: `doldam-sim --seed N [--trace]` replays one, `--seeds A..B` runs many.

use std::process::ExitCode;
use std::time::Instant;

use doldam_integration_tests::simulation::{Options, Run, run};
use doldam_runtime::planted::Bug;

const USAGE: &str = "\
doldam-sim: a whole cluster under one seed

  --seed N       replay one seed and print its whole trace if it fails
  --seeds A..B   run the seeds from A to B, B excluded, and print those that fail
  --trace        print the whole trace of --seed in any case
  --bug NAME     plant a bug: AckBeforeSync, ForgottenGeneration, DeleteOnHint, DroppedAck, AnswerBeforeJournal
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (mut seeds, mut trace, mut bug) = (None, false, None);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_default();
        match argument.as_str() {
            "--seed" => seeds = value().parse().ok().map(|seed: u64| seed..seed + 1),
            "--seeds" => {
                let text = value();
                let bounds = text.split_once("..");
                seeds = bounds.and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
            }
            "--trace" => trace = true,
            "--bug" => {
                let name = value();
                bug = Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name);
            }
            _ => seeds = None,
        }
    }
    let Some(seeds) = seeds else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    let is_one = seeds.end - seeds.start == 1;
    let mut failed = 0;
    for seed in seeds {
        let began = now();
        let run = run(Options { seed, whole_trace: is_one, bug });
        if is_one && (trace || run.result.is_err()) {
            println!("{}", run.trace);
        }
        report(&run, began.elapsed().as_secs_f64());
        failed += u32::from(run.result.is_err());
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(
    clippy::disallowed_methods,
    reason = "tells a person how long a run took, and nothing else"
)]
fn now() -> Instant {
    Instant::now()
}

fn report(run: &Run, secs: f64) {
    let (seed, hash) = (run.seed, &run.hash);
    match &run.result {
        Ok(done) => println!("seed {seed} {hash} {secs:.2} s: {done:?}"),
        Err(broken) => println!("seed {seed} {hash} {secs:.2} s: BROKEN {broken:?}"),
    }
}
