//! The streams by which orders reach datanodes.

use std::collections::BTreeMap;

use doldam_proto::id::{Epoch, NodeId};
use doldam_proto::wire::{NamenodeMessage, Order};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tracing::warn;

use crate::engine::cluster::Session;

/// Orders that wait for one stream: more than the planner has under way with one node.
const ORDERS_WAITING_MAX: usize = 8192;
/// Orders in one message.
const ORDERS_PER_MESSAGE: usize = 1000;

/// One stream at most for each node.
#[derive(Debug)]
pub(crate) struct Links {
    epoch: Epoch,
    open: Mutex<BTreeMap<NodeId, Link>>,
}

#[derive(Debug)]
struct Link {
    session: Session,
    orders: mpsc::Sender<Order>,
}

/// The end of a link at which orders come out.
#[derive(Debug)]
pub(crate) struct LinkEnd {
    epoch: Epoch,
    orders: mpsc::Receiver<Order>,
}

impl Links {
    /// No stream is open.
    pub(crate) fn new(epoch: Epoch) -> Self {
        Self { epoch, open: Mutex::default() }
    }

    /// A stream opened: what is sent to its node comes out at the end returned. An older one closes.
    pub(crate) fn open(&self, node: NodeId, session: Session) -> LinkEnd {
        let (orders, receiver) = mpsc::channel(ORDERS_WAITING_MAX);
        self.open.lock().insert(node, Link { session, orders });
        LinkEnd { epoch: self.epoch, orders: receiver }
    }

    /// The stream of this session ends; a newer one goes on.
    pub(crate) fn close(&self, node: NodeId, session: Session) {
        let mut open = self.open.lock();
        if open.get(&node).is_some_and(|link| link.session == session) {
            open.remove(&node);
        }
    }

    /// Sends orders to a node, and returns the ids of those that could not be.
    pub(crate) fn send(&self, node: NodeId, orders: Vec<Order>) -> Vec<u64> {
        let open = self.open.lock();
        let link = open.get(&node);
        let mut unsent = Vec::new();
        for order in orders {
            let id = order.order_id;
            if link.is_none_or(|link| link.orders.try_send(order).is_err()) {
                unsent.push(id);
            }
        }
        if !unsent.is_empty() && link.is_some() {
            warn!(%node, count = unsent.len(), "a datanode does not take its orders");
        }
        unsent
    }
}

impl LinkEnd {
    /// What waits, as one message; `None` once the link is closed. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<NamenodeMessage> {
        let mut orders = Vec::new();
        match self.orders.recv_many(&mut orders, ORDERS_PER_MESSAGE).await {
            0 => None,
            _ => Some(NamenodeMessage { epoch: self.epoch.0, orders }),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const NODE: NodeId = NodeId(1);

    fn orders(count: u64) -> Vec<Order> {
        (1..=count).map(|order_id| Order { order_id, ..Order::default() }).collect()
    }

    /// How many orders the next message has; `None` if it would be waited for, or the link is closed.
    fn next(end: &mut LinkEnd) -> Option<(u64, usize)> {
        let message = end.next().now_or_never()??;
        Some((message.epoch, message.orders.len()))
    }

    #[test]
    fn orders_reach_the_newest_stream_together_in_messages_of_bounded_size() {
        let links = Links::new(Epoch(3));
        assert_eq!(links.send(NODE, orders(2)), [1, 2], "there is no stream");
        let mut older = links.open(NODE, Session(1));
        let mut newer = links.open(NODE, Session(2));
        assert!(older.next().now_or_never().is_some(), "closed");
        links.close(NODE, Session(1));
        for _ in 0..2 {
            assert!(links.send(NODE, orders(750)).is_empty());
        }
        assert_eq!(next(&mut newer), Some((3, 1000)));
        assert_eq!(next(&mut newer), Some((3, 500)));
        assert_eq!(next(&mut newer), None);
    }

    #[test]
    fn a_stream_that_takes_nothing_fills_up_and_the_rest_comes_back() {
        let links = Links::new(Epoch(1));
        let _end = links.open(NODE, Session(1));
        assert!(links.send(NODE, orders(ORDERS_WAITING_MAX as u64)).is_empty());
        assert_eq!(links.send(NODE, orders(1)), [1]);
    }
}
