//! What a datanode counts, for `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::stream::failure::Code;

/// Upper bounds of the classes of a duration, in seconds.
const SECONDS: [f64; 12] =
    [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

/// What is asked of a datanode on a block stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Operation {
    /// To receive a block.
    Write,
    /// To send a range.
    Read,
    /// To copy a replica elsewhere.
    Copy,
    /// Something that is not understood.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: Operation,
    result: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: Operation,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OrderLabels {
    order: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FolderLabels {
    folder: String,
}

/// Handles to all counters.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<OperationLabels, Histogram>,
    received_bytes: Counter,
    sent_bytes: Counter,
    publish_seconds: Histogram,
    orders: Family<OrderLabels, Counter>,
    scrubbed_bytes: Counter,
    scrubbed_bad: Counter,
    scrub_passes: Counter,
    scrubbed_blocks: Counter,
    scrub_pass: Family<FolderLabels, Gauge>,
    scrub_pass_bytes: Family<FolderLabels, Gauge>,
    scrub_oldest_seconds: Family<FolderLabels, Gauge>,
    active_streams: Gauge,
    replicas: Gauge,
    quarantined: Gauge,
    left_open: Gauge,
    withdrawn: Gauge,
    registered: Gauge,
    available_bytes: Family<FolderLabels, Gauge>,
    stored_bytes: Family<FolderLabels, Gauge>,
    failed_folders: Gauge,
    folder_failed: Family<FolderLabels, Gauge>,
    heartbeats: Counter,
}

/// The state of a datanode as its gauges show it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gauges {
    pub(crate) active_streams: u64,
    pub(crate) replicas: u64,
    pub(crate) quarantined: u64,
    pub(crate) left_open: u64,
    pub(crate) withdrawn: u64,
    pub(crate) registered: bool,
    /// Folder, bytes available, bytes stored, failed.
    pub(crate) folders: Vec<(String, u64, u64, bool)>,
}

impl Metrics {
    /// Counters at 0, and the registry that shows them.
    pub(crate) fn new() -> (Self, Arc<Registry>) {
        let histogram: fn() -> Histogram = || Histogram::new(SECONDS);
        let metrics = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(histogram),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            publish_seconds: histogram(),
            orders: Family::default(),
            scrubbed_bytes: Counter::default(),
            scrubbed_bad: Counter::default(),
            scrub_passes: Counter::default(),
            scrubbed_blocks: Counter::default(),
            scrub_pass: Family::default(),
            scrub_pass_bytes: Family::default(),
            scrub_oldest_seconds: Family::default(),
            active_streams: Gauge::default(),
            replicas: Gauge::default(),
            quarantined: Gauge::default(),
            left_open: Gauge::default(),
            withdrawn: Gauge::default(),
            registered: Gauge::default(),
            available_bytes: Family::default(),
            stored_bytes: Family::default(),
            failed_folders: Gauge::default(),
            folder_failed: Family::default(),
            heartbeats: Counter::default(),
        };
        let mut registry = Registry::with_prefix("doldam_datanode");
        metrics.register_streams(&mut registry);
        metrics.register_state(&mut registry);
        metrics.register_scrubber(&mut registry);
        (metrics, Arc::new(registry))
    }

    fn register_streams(&self, registry: &mut Registry) {
        let help = "Requests on block streams by operation and result";
        registry.register("requests", help, self.requests.clone());
        let help = "Time of requests that went well";
        registry.register_with_unit("request", help, Unit::Seconds, self.seconds.clone());
        let help = "Bytes of blocks received";
        registry.register_with_unit("received", help, Unit::Bytes, self.received_bytes.clone());
        let help = "Bytes of blocks sent";
        registry.register_with_unit("sent", help, Unit::Bytes, self.sent_bytes.clone());
        let help = "Time to sync and publish a block";
        registry.register_with_unit("publish", help, Unit::Seconds, self.publish_seconds.clone());
        let help = "Blocks being written, read or copied";
        registry.register("active_streams", help, self.active_streams.clone());
    }

    fn register_state(&self, registry: &mut Registry) {
        registry.register("orders", "Orders by kind and result", self.orders.clone());
        registry.register("replicas", "Replicas held, bad ones too", self.replicas.clone());
        registry.register("quarantined", "Replicas known to be bad", self.quarantined.clone());
        let help = "Blocks that writers left, kept to be gone on with, recovered or dropped";
        registry.register("left_open", help, self.left_open.clone());
        let help = "Replicas on failed folders that do not count";
        registry.register("withdrawn", help, self.withdrawn.clone());
        let help = "1 while the namenode's stream is up";
        registry.register("registered", help, self.registered.clone());
        registry.register("heartbeats", "Heartbeats sent", self.heartbeats.clone());
        let help = "Bytes that new blocks may take";
        registry.register_with_unit("available", help, Unit::Bytes, self.available_bytes.clone());
        let help = "Bytes of blocks held";
        registry.register_with_unit("stored", help, Unit::Bytes, self.stored_bytes.clone());
        let help = "Data folders that returned errors and take no blocks";
        registry.register("failed_folders", help, self.failed_folders.clone());
        let help = "1 for a data folder that failed";
        registry.register("folder_failed", help, self.folder_failed.clone());
    }

    fn register_scrubber(&self, registry: &mut Registry) {
        let help = "Bytes verified in the background";
        registry.register_with_unit("scrubbed", help, Unit::Bytes, self.scrubbed_bytes.clone());
        let help = "Replicas verified in the background";
        registry.register("scrubbed_blocks", help, self.scrubbed_blocks.clone());
        let help = "Replicas found bad in the background";
        registry.register("scrubbed_bad", help, self.scrubbed_bad.clone());
        let help = "Verifications of all replicas of a folder completed since the start";
        registry.register("scrub_passes", help, self.scrub_passes.clone());
        let help = "Verifications of all replicas of a folder completed ever";
        registry.register("scrub_pass", help, self.scrub_pass.clone());
        let help = "Bytes of a folder verified in the present pass";
        registry.register_with_unit("scrub_pass", help, Unit::Bytes, self.scrub_pass_bytes.clone());
        let help = "Longest time that a replica of a folder may not have been verified for";
        let oldest = self.scrub_oldest_seconds.clone();
        registry.register_with_unit("scrub_oldest", help, Unit::Seconds, oldest);
    }

    /// A request on a block stream ended, with a failure if one is given.
    pub(crate) fn request(&self, operation: Operation, failure: Option<Code>) {
        let result = match failure {
            None => "ok".to_owned(),
            Some(Code::Unspecified) => "peer_gone".to_owned(),
            Some(code) => code.as_str_name().trim_start_matches("CODE_").to_ascii_lowercase(),
        };
        self.requests.get_or_create(&RequestLabels { operation, result }).inc();
    }

    /// A request on a block stream went well.
    pub(crate) fn served(&self, operation: Operation, took: Duration) {
        let labels = OperationLabels { operation };
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Bytes of a block came in.
    pub(crate) fn received(&self, bytes: u64) {
        self.received_bytes.inc_by(bytes);
    }

    /// Bytes of a block went out.
    pub(crate) fn sent(&self, bytes: u64) {
        self.sent_bytes.inc_by(bytes);
    }

    /// A block was synced and published.
    pub(crate) fn published(&self, took: Duration) {
        self.publish_seconds.observe(took.as_secs_f64());
    }

    /// An order was carried out, or not.
    pub(crate) fn order(&self, order: &'static str, done: bool) {
        let result = if done { "done" } else { "failed" };
        self.orders.get_or_create(&OrderLabels { order, result }).inc();
    }

    /// Bytes were verified in the background.
    pub(crate) fn scrubbed(&self, bytes: u64) {
        self.scrubbed_bytes.inc_by(bytes);
    }

    /// A replica was verified in the background, whatever came out.
    pub(crate) fn scrubbed_block(&self) {
        self.scrubbed_blocks.inc();
    }

    /// Where the scrubber is on a folder.
    pub(crate) fn scrubber_at(&self, folder: &str, passes: u64, pass_bytes: u64, oldest_ms: u64) {
        let labels = FolderLabels { folder: folder.to_owned() };
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.scrub_pass.get_or_create(&labels).set(number(passes));
        self.scrub_pass_bytes.get_or_create(&labels).set(number(pass_bytes));
        self.scrub_oldest_seconds.get_or_create(&labels).set(number(oldest_ms / 1000));
    }

    /// A replica was found bad in the background.
    pub(crate) fn scrub_found_bad(&self) {
        self.scrubbed_bad.inc();
    }

    /// All replicas were verified once more.
    pub(crate) fn scrub_passed(&self) {
        self.scrub_passes.inc();
    }

    /// A heartbeat went out.
    pub(crate) fn heartbeat(&self) {
        self.heartbeats.inc();
    }

    /// Shows the present state.
    pub(crate) fn show(&self, gauges: &Gauges) {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.active_streams.set(number(gauges.active_streams));
        self.replicas.set(number(gauges.replicas));
        self.quarantined.set(number(gauges.quarantined));
        self.left_open.set(number(gauges.left_open));
        self.withdrawn.set(number(gauges.withdrawn));
        self.registered.set(i64::from(gauges.registered));
        let failed = gauges.folders.iter().filter(|(_, _, _, failed)| *failed).count();
        self.failed_folders.set(number(failed as u64));
        for (folder, available, stored, failed) in &gauges.folders {
            let labels = FolderLabels { folder: folder.clone() };
            self.folder_failed.get_or_create(&labels).set(i64::from(*failed));
            self.available_bytes.get_or_create(&labels).set(number(*available));
            self.stored_bytes.get_or_create(&labels).set(number(*stored));
        }
    }
}
