//! Tests of the driver: what was acknowledged survives whatever happens to the process or the power, a retry applies
//! once, and nobody sees what is not durable.

mod crash_test;
mod durability_test;
mod folder_test;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use doldam_proto::FsError;
use doldam_proto::path::FsPath;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::{MkdirCommand, Outcome, RequestId};
use doldam_runtime::Seams;
use doldam_runtime::clock::SystemClock;
use doldam_runtime::disk::{Disk, RealDisk};
use doldam_runtime::net::RealNet;
use doldam_runtime::random::SeededRandom;
use doldam_runtime::tasks::BackgroundTasks;
use prometheus_client::registry::Registry;

use super::{Driver, DriverOptions, StartError};
use crate::engine::namespace::view;
use crate::journal::JournalOptions;
use crate::metrics::Metrics;

const GRACE: Duration = Duration::from_secs(30);
const CLIENT: [u8; 16] = [3; 16];

/// A driver and what it runs in.
struct Running {
    driver: Driver,
    tasks: BackgroundTasks,
}

/// Small journals and overlays, so that segments and checkpoints change often.
fn options(dir: &Path) -> DriverOptions {
    let journal = JournalOptions { segment_bytes: 64 << 10, ..JournalOptions::default() };
    DriverOptions { overlay_bytes: 32 << 10, journal, ..DriverOptions::new(dir) }
}

async fn start_with(options: DriverOptions, disk: Arc<dyn Disk>) -> Result<Running, StartError> {
    let seams = Seams {
        clock: Arc::new(SystemClock::default()),
        random: Arc::new(SeededRandom::new(1)),
        disk,
        net: Arc::new(RealNet),
    };
    let tasks = BackgroundTasks::default();
    let metrics = Arc::new(Metrics::register(&mut Registry::default()));
    match Driver::start(options, seams, &tasks, metrics).await {
        Ok(driver) => Ok(Running { driver, tasks }),
        Err(cause) => {
            tasks.shutdown(GRACE).await.unwrap();
            Err(cause)
        }
    }
}

async fn start(dir: &Path) -> Running {
    start_with(options(dir), Arc::new(RealDisk)).await.unwrap()
}

impl Running {
    async fn stop(self) {
        self.tasks.shutdown(GRACE).await.unwrap();
    }

    async fn mkdir(&self, number: u64) -> Result<Outcome, FsError> {
        mkdir(&self.driver, number).await
    }

    /// Which of the folders `/d0`, `/d1`, ... below `count` exist.
    async fn folders(&self, count: u64) -> Vec<u64> {
        let mut found = Vec::new();
        for number in 0..count {
            let path = FsPath::parse(&format!("/d{number}")).unwrap();
            let status =
                self.driver.read(|tables| Ok(view::stat_if_exists(tables, &path)?)).await.unwrap();
            found.extend(status.map(|_| number));
        }
        found
    }
}

/// Makes `/d<number>`, always with the same request id.
async fn mkdir(driver: &Driver, number: u64) -> Result<Outcome, FsError> {
    let request =
        RequestId { client_id: CLIENT.to_vec().into(), sequence: number + 1, answered_below: 0 };
    let command = MkdirCommand { path: format!("/d{number}"), parents: false };
    driver.propose(Some(request), Change::Mkdir(command)).await
}
