//! One stream of heartbeats and orders, from its beginning to its end.

use std::sync::Arc;
use std::time::Duration;

use doldam_proto::convert::datanode::Order;
use doldam_proto::limits::TEXT_BYTES_MAX;
use doldam_proto::wire;
use doldam_proto::wire::datanode_service_client::DatanodeServiceClient;
use doldam_runtime::clock::Uptime;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tracing::warn;

use super::message::compose;
use super::{End, Registration, tell_what_may_go};
use crate::driver::LinkEvent;
use crate::engine::orders::Answer;
use crate::node::Node;

/// Messages on their way into the stream.
const OUTGOING_MAX: usize = 4;
/// Events and answers in one message.
const EVENTS_PER_MESSAGE: usize = 1000;
/// How often the namenode is told again of bad replicas and of blocks that writers left: it may have missed it, or may
/// have had a reason to keep them that is over.
const TELL_AGAIN_INTERVAL: Duration = Duration::from_mins(1);
/// How long the stream may take no message, or take to open.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends heartbeats and hears orders until the stream breaks or the server stops.
pub(super) async fn run(
    node: &Arc<Node>,
    driver: &mpsc::Sender<LinkEvent>,
    client: &mut DatanodeServiceClient<Channel>,
    registration: Registration,
) -> End {
    let (outgoing, messages) = mpsc::channel(OUTGOING_MAX);
    let told_at = node.seams.clock.now();
    let mut session = Session { node, registration, outgoing, sequence: 0, told_at };
    // The first heartbeat goes in before the stream is opened: a server may wait for it before it
    // answers.
    if let Err(end) = session.send().await {
        return end;
    }
    let opening = client.heartbeat(ReceiverStream::new(messages));
    let opened = tokio::select! {
        biased;
        () = node.stopping.cancelled() => return End::Stopping,
        opened = tokio::time::timeout(SEND_TIMEOUT, opening) => opened,
    };
    let orders = match opened {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return End::Lost(status),
        Err(_elapsed) => return Status::deadline_exceeded("the stream did not open").into(),
    };
    node.membership.set_connected(true);
    session.talk(driver, orders).await
}

struct Session<'a> {
    node: &'a Arc<Node>,
    registration: Registration,
    outgoing: mpsc::Sender<wire::DatanodeMessage>,
    sequence: u64,
    told_at: Uptime,
}

impl Session<'_> {
    async fn talk(
        &mut self,
        driver: &mpsc::Sender<LinkEvent>,
        mut orders: Streaming<wire::NamenodeMessage>,
    ) -> End {
        let mut beat = tokio::time::interval(self.registration.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.reset(); // The first has just been sent.
        loop {
            tokio::select! {
                biased; // In an order in which no flood of orders holds a heartbeat up.
                () = self.node.stopping.cancelled() => return End::Stopping,
                _ = beat.tick() => {}
                () = self.node.store.news().changed() => {}
                message = orders.message() => match message {
                    Ok(Some(message)) => {
                        if self.hear(driver, message).await.is_err() {
                            return End::Stopping; // The driver ends only then.
                        }
                        continue;
                    }
                    Ok(None) => return Status::unavailable("the namenode ended the stream").into(),
                    Err(status) => return End::Lost(status),
                },
            }
            if let Err(end) = self.send().await {
                return end;
            }
        }
    }

    /// Passes orders on. One that cannot be understood is refused by itself; the others are carried
    /// out.
    async fn hear(
        &self,
        driver: &mpsc::Sender<LinkEvent>,
        message: wire::NamenodeMessage,
    ) -> Result<(), mpsc::error::SendError<LinkEvent>> {
        let mut orders = Vec::with_capacity(message.orders.len());
        for order in message.orders {
            let id = order.order_id;
            match Order::try_from(order) {
                Ok(order) => orders.push(order),
                Err(bad) => {
                    warn!(order = id, %bad, "an order makes no sense");
                    let result = Err(bad.to_string());
                    self.node.store.news().answer(Answer { order: id, result });
                }
            }
        }
        if orders.is_empty() {
            return Ok(());
        }
        driver.send(LinkEvent::Orders(message.epoch, orders)).await
    }

    /// Sends a heartbeat with all there is to tell.
    async fn send(&mut self) -> Result<(), End> {
        let now = self.node.seams.clock.now();
        let news = self.node.store.news();
        news.stream_alive(now);
        if now.saturating_sub(self.told_at) >= TELL_AGAIN_INTERVAL {
            self.told_at = now;
            tell_what_may_go(self.node);
        }
        let mut bundle = news.take(now, EVENTS_PER_MESSAGE);
        for answer in &mut bundle.answers {
            if let Err(why) = &mut answer.result {
                why.truncate(why.floor_char_boundary(TEXT_BYTES_MAX));
            }
        }
        self.sequence += 1;
        let message = compose(self.node, self.registration, self.sequence, bundle);
        match self.outgoing.send_timeout(message, SEND_TIMEOUT).await {
            Ok(()) => {
                self.node.metrics.heartbeat();
                Ok(())
            }
            Err(_full_or_closed) => Err(Status::unavailable("the stream takes no message").into()),
        }
    }
}
