//! What the namenode counts, for Prometheus.

use std::fmt::Write;
use std::time::Duration;

use doldam_proto::error::ErrorKind;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::journal::WrittenBatch;

macro_rules! methods {
    ($($name:ident),* $(,)?) => {
        /// A call of the three services.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "named as in the .proto files")]
        pub enum Method {
            $($name),*
        }

        impl Method {
            const ALL: &'static [Self] = &[$(Self::$name),*];

            fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name)),*
                }
            }
        }
    };
}

methods! {
    Hello, Mkdir, Create, AllocateBlock, CommitBlocks, Complete, RecoverBlock, Flush, Append, Abandon,
    RenewLease, Locate, Stat, StatBatch, List, Rename, Delete, SetReplication, SetTimes,
    ReportBadReplica, Register, Heartbeat, Report, Fsck, Repair, SetNodeMode, Balance,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallOutcome {
    /// As asked.
    Done,
    /// The request was wrong, or out of date.
    Refused,
    /// The cluster could not.
    Failed,
}

impl CallOutcome {
    const ALL: [Self; 3] = [Self::Done, Self::Refused, Self::Failed];

    /// The outcome of a call that was not done.
    pub fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Request | ErrorKind::Stale | ErrorKind::Mismatch => Self::Refused,
            ErrorKind::Unavailable | ErrorKind::Damaged => Self::Failed,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: Method,
    outcome: CallOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: Method,
}

impl EncodeLabelValue for Method {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.name())
    }
}

impl EncodeLabelValue for CallOutcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
        })
    }
}

/// Counters of one method, at hand without a lookup.
#[derive(Debug)]
struct Calls {
    by_outcome: [Counter; CallOutcome::ALL.len()],
    seconds: Histogram,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    calls: Vec<Calls>,
    journal_seconds: Histogram,
    journal_records: Counter,
    journal_bytes: Counter,
    checkpoint_seconds: Histogram,
    /// What is measured now and then.
    pub gauges: Gauges,
}

/// What is measured now and then.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "each has its help text where it is registered")]
pub struct Gauges {
    pub nodes_live: Gauge,
    pub nodes_suspect: Gauge,
    pub nodes_dead: Gauge,
    pub under_replicated: Gauge,
    pub missing: Gauge,
    pub corrupt: Gauge,
    pub repairs_running: Gauge,
    pub repairs_waiting: Gauge,
    pub repair_paused: Gauge,
    pub drops_waiting: Gauge,
    pub recoveries_running: Gauge,
    pub recoveries_waiting: Gauge,
    pub recoveries_stuck: Gauge,
    pub files: Gauge,
    pub directories: Gauge,
    pub blocks: Gauge,
    pub garbage: Gauge,
    pub proposals_waiting: Gauge,
    pub nodes_draining: Gauge,
    pub nodes_in_maintenance: Gauge,
    pub drain_replicas_left: Gauge,
    pub repair_todo_bytes: Gauge,
    pub balance_moves_running: Gauge,
    pub repair_copies: Counter,
    pub repair_copied_bytes: Counter,
    pub repair_failures: Counter,
    pub recoveries_shortened: Counter,
    pub recoveries_lost_bytes: Counter,
}

impl Metrics {
    /// All of them, registered in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("doldam_namenode");
        let calls = Family::<CallLabels, Counter>::default();
        registry.register("requests", "Calls by method and outcome", calls.clone());
        let seconds = Family::<MethodLabels, Histogram>::new_with_constructor(latencies);
        let help = "Time from the arrival of a call to its answer";
        registry.register_with_unit("request", help, Unit::Seconds, seconds.clone());
        let at_hand = |method: &Method| Calls {
            by_outcome: CallOutcome::ALL
                .map(|outcome| calls.get_or_create_owned(&CallLabels { method: *method, outcome })),
            seconds: seconds.get_or_create_owned(&MethodLabels { method: *method }),
        };
        let metrics = Self {
            calls: Method::ALL.iter().map(at_hand).collect(),
            journal_seconds: latencies(),
            journal_records: Counter::default(),
            journal_bytes: Counter::default(),
            checkpoint_seconds: Histogram::new(exponential_buckets(0.001, 4.0, 9)),
            gauges: Gauges::default(),
        };
        metrics.register_store(registry);
        metrics.gauges.register(registry);
        metrics
    }

    fn register_store(&self, registry: &mut Registry) {
        let help = "Time to write and sync one batch of the journal";
        let sync = self.journal_seconds.clone();
        registry.register_with_unit("journal_sync", help, Unit::Seconds, sync);
        let help = "Commands written to the journal";
        registry.register("journal_records", help, self.journal_records.clone());
        let help = "Bytes written to the journal";
        registry.register("journal_bytes", help, self.journal_bytes.clone());
        let help = "Time to write one checkpoint of the metadata store";
        let checkpoint = self.checkpoint_seconds.clone();
        registry.register_with_unit("checkpoint", help, Unit::Seconds, checkpoint);
    }

    /// A call ended.
    pub fn call(&self, method: Method, outcome: CallOutcome, took: Duration) {
        let calls = &self.calls[method as usize];
        calls.by_outcome[outcome as usize].inc();
        calls.seconds.observe(took.as_secs_f64());
    }

    /// A batch of the journal is durable.
    pub fn journal_batch(&self, batch: WrittenBatch) {
        self.journal_seconds.observe(batch.took.as_secs_f64());
        self.journal_records.inc_by(batch.records as u64);
        self.journal_bytes.inc_by(batch.bytes as u64);
    }

    /// A checkpoint is durable.
    pub fn checkpoint(&self, took: Duration) {
        self.checkpoint_seconds.observe(took.as_secs_f64());
    }
}

impl Gauges {
    fn register(&self, registry: &mut Registry) {
        let gauges: [(&str, &str, &Gauge); 23] = [
            ("nodes_live", "Datanodes heard of lately", &self.nodes_live),
            (
                "nodes_suspect",
                "Datanodes that closed their connection or fell silent, or are awaited",
                &self.nodes_suspect,
            ),
            ("nodes_dead", "Datanodes silent for long", &self.nodes_dead),
            (
                "under_replicated_blocks",
                "Blocks with fewer live good replicas than wanted",
                &self.under_replicated,
            ),
            ("missing_blocks", "Blocks without a live good replica", &self.missing),
            ("corrupt_blocks", "Blocks with a replica known to be bad", &self.corrupt),
            ("repairs_running", "Copies under way", &self.repairs_running),
            ("repairs_waiting", "Blocks waiting for a copy or a removal", &self.repairs_waiting),
            (
                "repair_paused",
                "1 while so many datanodes are missing that repair holds still",
                &self.repair_paused,
            ),
            (
                "drops_waiting",
                "Replicas that datanodes are yet to be told to drop",
                &self.drops_waiting,
            ),
            ("recoveries_running", "Abandoned files being closed", &self.recoveries_running),
            ("recoveries_waiting", "Abandoned files to be closed", &self.recoveries_waiting),
            (
                "recoveries_stuck",
                "Abandoned files of which no datanode has what readers see",
                &self.recoveries_stuck,
            ),
            ("files", "Files", &self.files),
            ("directories", "Directories", &self.directories),
            ("blocks", "Committed blocks", &self.blocks),
            ("garbage", "Unlinked files and directories yet to be collected", &self.garbage),
            ("proposals_waiting", "Changes waiting to be decided", &self.proposals_waiting),
            ("nodes_draining", "Datanodes that are to be emptied", &self.nodes_draining),
            ("nodes_in_maintenance", "Datanodes that may be away", &self.nodes_in_maintenance),
            (
                "drain_replicas_left",
                "Replicas in the sets of their blocks on draining datanodes",
                &self.drain_replicas_left,
            ),
            ("repair_todo_bytes", "Bytes of copies that wait or run", &self.repair_todo_bytes),
            ("balance_moves_running", "Copies under way to balance", &self.balance_moves_running),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        let counters: [(&str, &str, &Counter); 5] = [
            ("repair_copies", "Replicas that were copied and confirmed", &self.repair_copies),
            ("repair_copied_bytes", "Their bytes", &self.repair_copied_bytes),
            ("repair_failures", "Copies that failed or were overdue", &self.repair_failures),
            (
                "recoveries_shortened",
                "Abandoned files that were closed without bytes that readers had seen, lost in a power loss",
                &self.recoveries_shortened,
            ),
            ("recoveries_lost_bytes", "These bytes", &self.recoveries_lost_bytes),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
    }
}

/// From 50 µs to 13 s.
fn latencies() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 4.0, 10))
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn calls_are_counted_under_their_method_and_outcome() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.call(Method::Create, CallOutcome::Done, Duration::from_millis(1));
        metrics.call(Method::Fsck, CallOutcome::Failed, Duration::from_millis(1));
        metrics.gauges.files.set(7);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            r#"doldam_namenode_requests_total{method="Create",outcome="done"} 1"#,
            r#"doldam_namenode_requests_total{method="Create",outcome="failed"} 0"#,
            r#"doldam_namenode_requests_total{method="Fsck",outcome="failed"} 1"#,
            r#"doldam_namenode_request_seconds_count{method="Create"} 1"#,
            "doldam_namenode_files 7",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
