//! Carries out the namenode's orders: the only caller of the [order book](crate::engine::orders).
//!
//! A loop that waits for orders, for the end of those that run, or for a deadline; asks the book
//! what to do; and does it. Copies run on the data runtimes, what waits for a disk runs in blocking
//! threads, so the loop itself never waits for an order.

mod recovery;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use doldam_proto::convert::datanode::{Order, OrderKind, VerifyOrder};
use doldam_proto::fingerprint::ReplicaId;
use doldam_proto::wire;
use doldam_runtime::clock::Uptime;
use doldam_runtime::tasks::{BackgroundTasks, DataRuntimes, run_blocking};
use doldam_runtime::telemetry::{TraceId, request_span};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, warn};

use crate::blocks::StoreError;
use crate::engine::orders::{Action, OrderBook, OrderLimits};
use crate::engine::receive::Ordered;
use crate::engine::replica::ReplicaKey;
use crate::news::Report;
use crate::node::Node;
use crate::stream::copy::copy_replica;
use crate::stream::failure::chain;

/// Drops at once: each is a few renames and an unlink.
const DROPS_MAX: usize = 4;
/// Verifications at once: each reads a whole block.
const VERIFIES_MAX: usize = 2;
/// Recoveries at once, of either kind: each may read a whole block.
const RECOVERIES_MAX: usize = 4;
/// How long an order may keep its place among those that run in threads: one that waits for a disk that does not answer
/// gives it up, though its thread cannot be had back.
const THREAD_TIME_MAX: Duration = Duration::from_mins(10);
/// Messages of orders that may wait for the loop; the stream waits when they do.
const MESSAGES_MAX: usize = 64;
/// Entries of a listing in one message: some 30 bytes each, well below the largest message.
const LISTED_MAX: usize = 100_000;

/// What the link to the namenode tells the driver.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// The node registered in this epoch of the namenode.
    Registered(u64),
    /// Orders came in a message of this epoch.
    Orders(u64, Vec<Order>),
}

/// The end of an order.
#[derive(Debug)]
struct Ended {
    epoch: u64,
    order: u64,
    kind: &'static str,
    result: Result<(), String>,
}

/// The loop over the orders of one node.
pub(crate) struct Driver {
    node: Arc<Node>,
    runtimes: Arc<DataRuntimes>,
    tasks: BackgroundTasks,
    book: OrderBook,
    /// To stop each copy that runs.
    stops: BTreeMap<(u64, u64), CancellationToken>,
    events: mpsc::Receiver<LinkEvent>,
    ended: mpsc::Receiver<Ended>,
    end: mpsc::Sender<Ended>,
}

impl Driver {
    /// A driver, and where to send it what the link hears.
    pub(crate) fn new(
        node: Arc<Node>,
        runtimes: Arc<DataRuntimes>,
        tasks: BackgroundTasks,
    ) -> (Self, mpsc::Sender<LinkEvent>) {
        let limits = OrderLimits {
            copies_max: node.config.copies_max,
            drops_max: DROPS_MAX,
            verifies_max: VERIFIES_MAX,
            recoveries_max: RECOVERIES_MAX,
        };
        let (heard, events) = mpsc::channel(MESSAGES_MAX);
        // Room for the end of everything that may run, so that no end ever waits or is lost.
        let (end, ended) =
            mpsc::channel(limits.copies_max + DROPS_MAX + VERIFIES_MAX + RECOVERIES_MAX + 1);
        let book = OrderBook::new(limits);
        let stops = BTreeMap::new();
        (Self { node, runtimes, tasks, book, stops, events, ended, end }, heard)
    }

    /// Carries out orders until the server stops. Orders that run then are left to end by
    /// themselves.
    pub(crate) async fn run(mut self) -> Result<(), Infallible> {
        loop {
            let now = self.node.seams.clock.now();
            for action in self.book.poll_actions(now) {
                match action {
                    Action::Start { epoch, order, until } => self.start(epoch, order, until, now),
                    Action::Stop { epoch, order } => {
                        if let Some(stop) = self.stops.get(&(epoch, order)) {
                            stop.cancel();
                        }
                    }
                    Action::Answer(answer) => self.node.store.news().answer(answer),
                }
            }
            let due = self.book.next_deadline().map(|due| due.saturating_sub(now));
            let deadline = async {
                match due {
                    Some(due) => tokio::time::sleep(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased; // One history of inputs has one outcome; no arm below is ready for ever.
                () = self.node.stopping.cancelled() => return Ok(()),
                () = deadline => {}
                event = self.events.recv() => match event {
                    Some(LinkEvent::Registered(epoch)) => self.book.registered(epoch),
                    Some(LinkEvent::Orders(epoch, orders)) => {
                        self.book.received(self.node.seams.clock.now(), epoch, orders);
                    }
                    None => return Ok(()), // The link is gone: the server is stopping.
                },
                Some(Ended { epoch, order, kind, result }) = self.ended.recv() => {
                    if let Err(why) = &result {
                        warn!(order, kind, why, "order not carried out");
                    }
                    self.node.metrics.order(kind, result.is_ok());
                    self.stops.remove(&(epoch, order));
                    self.book.finished(epoch, order, result);
                }
            }
        }
    }

    fn start(&mut self, epoch: u64, order: Order, until: Uptime, now: Uptime) {
        let kind = match &order.kind {
            OrderKind::Copy(_) => "copy",
            OrderKind::Drop { .. } => "drop",
            OrderKind::Verify(_) => "verify",
            OrderKind::Recover(_) => "recover",
            OrderKind::Finish(_) => "finish",
            OrderKind::ReportBuckets | OrderKind::ListBuckets(_) => "report",
            OrderKind::Cancel(_) => "cancel",
        };
        let end = End {
            ended: Some(Ended { epoch, order: order.id, kind, result: Err("it panicked".into()) }),
            to: self.end.clone(),
        };
        let node = Arc::clone(&self.node);
        let left = until.saturating_sub(now);
        match order.kind {
            OrderKind::Copy(copy) => {
                let trace = TraceId::new(&*self.node.seams.random);
                let stop = CancellationToken::new();
                self.stops.insert((epoch, order.id), stop.clone());
                self.runtimes.spawn_on_next("repair copy", move || async move {
                    let copying =
                        copy_replica(&node, copy, &trace).instrument(request_span(&trace));
                    let copying = async { copying.await.map_err(|failure| failure.to_string()) };
                    let copied = tokio::select! {
                        biased;
                        () = stop.cancelled() => Err("cancelled by the namenode".to_owned()),
                        copied = within(left, copying) => copied,
                    };
                    end.send(copied);
                });
            }
            OrderKind::Drop { block, generation, only_bad } => {
                let key = ReplicaKey { block, generation };
                if only_bad {
                    self.in_blocking_thread("drop", end, move || {
                        let dropped = node.store.drop_bad_replica(key);
                        dropped.map(|_was_here| ()).map_err(|cause| chain(&cause))
                    });
                } else {
                    self.in_task("drop", end, left, recovery::drop_replica(node, key));
                }
            }
            OrderKind::Recover(recover) => {
                let recovering = recovery::recover(node, order.id, recover);
                self.in_task("recover", end, left, recovering);
            }
            OrderKind::Finish(finish) => {
                self.in_task("finish", end, left, recovery::finish(node, finish));
            }
            OrderKind::Verify(verify) => {
                self.in_blocking_thread("verify", end, move || verify_replica(&node, verify));
            }
            OrderKind::ReportBuckets => {
                self.in_blocking_thread("report", end, move || report_buckets(&node));
            }
            OrderKind::Cancel(_) => end.send(Ok(())), // The book does it.
            OrderKind::ListBuckets(buckets) => {
                self.in_blocking_thread("report", end, move || list_buckets(&node, &buckets));
            }
        }
    }

    fn in_task(
        &self,
        name: &'static str,
        end: End,
        left: Duration,
        work: impl Future<Output = Result<(), StoreError>> + Send + 'static,
    ) {
        self.tasks.spawn(name, async move {
            let done = async { work.await.map_err(|cause| chain(&cause)) };
            end.send(within(left, done).await);
        });
    }

    fn in_blocking_thread(
        &self,
        name: &'static str,
        end: End,
        work: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) {
        self.tasks.spawn(name, async move {
            // Should it panic, `end` is dropped, and says so.
            match tokio::time::timeout(THREAD_TIME_MAX, run_blocking(work)).await {
                Ok(Ok(result)) => end.send(result),
                Ok(Err(_panicked)) => {}
                Err(_elapsed) => end.send(Err("the disk does not answer".to_owned())),
            }
        });
    }
}

/// Reports the end of an order, also if it panics or is dropped.
struct End {
    ended: Option<Ended>,
    to: mpsc::Sender<Ended>,
}

impl End {
    fn send(mut self, result: Result<(), String>) {
        if let Some(ended) = &mut self.ended {
            ended.result = result;
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            // There is room for all that run; and if the driver is gone, nobody wants to know.
            _ = self.to.try_send(ended);
        }
    }
}

async fn within(
    left: Duration,
    work: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    let elapsed = |_| Err("not done before its deadline".to_owned());
    tokio::time::timeout(left, work).await.unwrap_or_else(elapsed)
}

/// Compares a replica with what the namenode knows of it. That it is bad is news, not a failure of
/// the order.
fn verify_replica(node: &Node, order: VerifyOrder) -> Result<(), String> {
    let key = ReplicaKey { block: order.block, generation: order.generation };
    let expected = Ordered { length: order.length, value: order.chaining_value };
    match node.store.verify(key, Some(expected)) {
        Ok(()) | Err(StoreError::Damaged { .. }) => Ok(()),
        Err(StoreError::Quarantined { .. }) => {
            // The namenode seems not to know.
            node.store.report_bad(key, "found bad before");
            Ok(())
        }
        Err(cause) => Err(chain(&cause)),
    }
}

fn report_buckets(node: &Node) -> Result<(), String> {
    let hash = |(bucket, sum): (u32, doldam_proto::fingerprint::Fingerprint)| wire::BucketHash {
        bucket,
        hash: sum.to_bytes().to_vec().into(),
    };
    let buckets = node.store.state().inventory.buckets().map(hash).collect();
    node.store.news().report(vec![Report::Buckets(buckets)])
}

fn list_buckets(node: &Node, buckets: &[u32]) -> Result<(), String> {
    let listed = node.store.state().inventory.list_buckets(buckets);
    let mut parts = Vec::new();
    let (mut part, mut entries) = (Vec::new(), 0);
    for (bucket, replicas) in listed {
        if entries + replicas.len() > LISTED_MAX && !part.is_empty() {
            parts.push(Report::Listings(std::mem::take(&mut part)));
            entries = 0;
        }
        entries += replicas.len();
        let replicas = replicas.into_iter().map(listed_entry).collect();
        part.push(wire::BucketListing { bucket, replicas });
    }
    parts.push(Report::Listings(part));
    node.store.news().report(parts)
}

fn listed_entry(replica: ReplicaId) -> wire::ReplicaEntry {
    wire::ReplicaEntry {
        block_id: replica.block.0,
        generation: replica.generation.0,
        length: replica.length,
    }
}
