//! The streams by which orders reach datanodes.

use std::collections::BTreeMap;

use doldam_proto::id::{Epoch, NodeId};
use doldam_proto::wire::{NamenodeMessage, Order};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tracing::warn;

use crate::engine::cluster::Session;

/// Messages that wait for one stream.
const MESSAGES_MAX: usize = 64;
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
    messages: mpsc::Sender<NamenodeMessage>,
}

impl Links {
    /// No stream is open.
    pub(crate) fn new(epoch: Epoch) -> Self {
        Self { epoch, open: Mutex::default() }
    }

    /// A stream opened: what is sent to its node comes out of the receiver. An older one ends.
    pub(crate) fn open(&self, node: NodeId, session: Session) -> mpsc::Receiver<NamenodeMessage> {
        let (messages, receiver) = mpsc::channel(MESSAGES_MAX);
        self.open.lock().insert(node, Link { session, messages });
        receiver
    }

    /// The stream of this session ends; a newer one goes on.
    pub(crate) fn close(&self, node: NodeId, session: Session) {
        let mut open = self.open.lock();
        if open.get(&node).is_some_and(|link| link.session == session) {
            open.remove(&node);
        }
    }

    /// Sends orders to a node, and returns the ids of those that could not be.
    pub(crate) fn send(&self, node: NodeId, orders: &[Order]) -> Vec<u64> {
        let mut unsent = Vec::new();
        let open = self.open.lock();
        let link = open.get(&node);
        for orders in orders.chunks(ORDERS_PER_MESSAGE) {
            let message = NamenodeMessage { epoch: self.epoch.0, orders: orders.to_vec() };
            let sent = link.is_some_and(|link| link.messages.try_send(message).is_ok());
            if !sent {
                unsent.extend(orders.iter().map(|order| order.order_id));
            }
        }
        if !unsent.is_empty() && link.is_some() {
            warn!(%node, count = unsent.len(), "a datanode does not take its orders");
        }
        unsent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(count: u64) -> Vec<Order> {
        (1..=count).map(|order_id| Order { order_id, ..Order::default() }).collect()
    }

    #[test]
    fn orders_reach_the_newest_stream_in_messages_of_bounded_size() {
        let links = Links::new(Epoch(3));
        let node = NodeId(1);
        assert_eq!(links.send(node, &orders(2)), [1, 2], "there is no stream");
        let mut older = links.open(node, Session(1));
        let mut newer = links.open(node, Session(2));
        links.close(node, Session(1));
        assert!(links.send(node, &orders(1500)).is_empty());
        assert!(older.try_recv().is_err());
        let (first, second) = (newer.try_recv().unwrap(), newer.try_recv().unwrap());
        assert_eq!((first.epoch, first.orders.len(), second.orders.len()), (3, 1000, 500));
    }

    #[test]
    fn a_stream_that_takes_nothing_fills_up_and_the_rest_comes_back() {
        let links = Links::new(Epoch(1));
        let _receiver = links.open(NodeId(1), Session(1));
        for _ in 0..MESSAGES_MAX {
            assert!(links.send(NodeId(1), &orders(1)).is_empty());
        }
        assert_eq!(links.send(NodeId(1), &orders(1)), [1]);
    }
}
