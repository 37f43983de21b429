//! Which orders are started, when, and what is answered.

use std::time::Duration;

use doldam_proto::block::BlockBytes;
use doldam_proto::convert::datanode::CopyOrder;
use doldam_proto::digest::ChainingValue;
use doldam_proto::id::{BlockId, Generation};

use super::*;

const LIMITS: OrderLimits =
    OrderLimits { copies_max: 2, drops_max: 2, verifies_max: 1, recoveries_max: 1 };

fn drop_order(id: u64) -> Order {
    let kind = OrderKind::Drop { block: BlockId(id), generation: Generation(1), only_bad: false };
    Order { id, deadline: Duration::from_secs(10), kind }
}

fn copy_order(id: u64) -> Order {
    let copy = CopyOrder {
        block: BlockId(id),
        generation: Generation(1),
        length: 1,
        chaining_value: ChainingValue([1; 32]),
        file_offset: 0,
        block_bytes: BlockBytes::new(1 << 20).unwrap(),
        targets: Vec::new(),
    };
    Order { id, deadline: Duration::from_secs(10), kind: OrderKind::Copy(copy) }
}

fn cancel_order(id: u64, copy: u64) -> Order {
    Order { id, deadline: Duration::from_secs(10), kind: OrderKind::Cancel(copy) }
}

fn at(secs: u64) -> Uptime {
    Duration::from_secs(secs)
}

fn book() -> OrderBook {
    let mut book = OrderBook::new(LIMITS);
    book.registered(7);
    book
}

fn start(id: u64, until: u64) -> Action {
    Action::Start { epoch: 7, order: drop_order(id), until: at(until) }
}

fn refused(order: u64, why: &str) -> Action {
    Action::Answer(Answer { order, result: Err(why.to_owned()) })
}

fn done(order: u64) -> Action {
    Action::Answer(Answer { order, result: Ok(()) })
}

#[test]
fn orders_start_in_the_order_of_receipt_as_far_as_their_limit_goes() {
    let mut book = book();
    book.received(at(1), 7, vec![drop_order(1), drop_order(2), drop_order(3)]);
    assert_eq!(book.poll_actions(at(1)), [start(1, 11), start(2, 11)]);
    assert_eq!(book.poll_actions(at(2)), []);
    book.finished(7, 2, Ok(()));
    assert_eq!(book.poll_actions(at(3)), [done(2), start(3, 11)]);
}

#[test]
fn kinds_do_not_wait_for_each_other() {
    let mut book = book();
    let report = Order { id: 9, deadline: Duration::from_secs(1), kind: OrderKind::ReportBuckets };
    let orders = vec![drop_order(1), drop_order(2), drop_order(3), report.clone()];
    book.received(at(0), 7, orders);
    let started = book.poll_actions(at(0));
    let report = Action::Start { epoch: 7, order: report, until: at(1) };
    assert_eq!(started, [start(1, 10), start(2, 10), report]);
}

#[test]
fn what_did_not_begin_in_time_is_answered_and_not_begun() {
    let mut book = book();
    book.received(at(0), 7, vec![drop_order(1), drop_order(2), drop_order(3)]);
    book.poll_actions(at(0));
    assert_eq!(book.next_deadline(), Some(at(10)));
    book.finished(7, 1, Ok(()));
    let late = refused(3, "not begun before its deadline");
    assert_eq!(book.poll_actions(at(10)), [done(1), late]);
    assert_eq!(book.next_deadline(), None);
}

#[test]
fn an_order_sent_again_is_answered_again_and_not_done_again() {
    let mut book = book();
    book.received(at(0), 7, vec![drop_order(1)]);
    assert_eq!(book.poll_actions(at(0)), [start(1, 10)]);
    book.received(at(1), 7, vec![drop_order(1)]);
    assert_eq!(book.poll_actions(at(1)), []);
    book.finished(7, 1, Err("no".to_owned()));
    assert_eq!(book.poll_actions(at(2)), [refused(1, "no")]);
    book.received(at(3), 7, vec![drop_order(1)]);
    assert_eq!(book.poll_actions(at(3)), [refused(1, "no")]);
}

#[test]
fn orders_of_another_epoch_are_refused() {
    let mut book = book();
    book.received(at(0), 6, vec![drop_order(1)]);
    assert_eq!(book.poll_actions(at(0)), [refused(1, "order of epoch 6 in epoch 7")]);
    assert_eq!(book.len(), 0);
}

#[test]
fn a_new_epoch_forgets_what_waits_and_mutes_what_runs_but_counts_it() {
    let mut book = book();
    book.received(at(0), 7, vec![drop_order(1), drop_order(2), drop_order(3)]);
    book.poll_actions(at(0));
    book.registered(8);
    assert_eq!(book.poll_actions(at(0)), []);
    // The same numbers mean other orders now; both places are still taken by what runs.
    book.received(at(1), 8, vec![drop_order(1)]);
    assert_eq!(book.poll_actions(at(1)), []);
    book.finished(7, 1, Ok(()));
    let started = Action::Start { epoch: 8, order: drop_order(1), until: at(11) };
    assert_eq!(book.poll_actions(at(1)), [started]);
    book.finished(7, 2, Ok(()));
    book.finished(8, 1, Ok(()));
    assert_eq!(book.poll_actions(at(1)), [done(1)]);
    assert_eq!(book.len(), 0);
}

#[test]
fn too_many_orders_are_refused_and_not_hoarded() {
    let mut book = book();
    let orders = (0..=WAITING_MAX as u64).map(drop_order).collect();
    book.received(at(0), 7, orders);
    assert_eq!(book.len(), WAITING_MAX);
    let last = WAITING_MAX as u64;
    let actions = book.poll_actions(at(0));
    assert_eq!(actions[0], refused(last, "10000 orders wait already"));
}

#[test]
fn a_copy_that_is_cancelled_is_not_begun_or_is_stopped_and_its_place_is_free() {
    let mut book = book();
    let started = |id| Action::Start { epoch: 7, order: copy_order(id), until: at(10) };
    book.received(at(0), 7, vec![copy_order(1), copy_order(2), copy_order(3), copy_order(4)]);
    assert_eq!(book.poll_actions(at(0)), [started(1), started(2)]);
    book.received(at(1), 7, vec![cancel_order(5, 3), cancel_order(6, 1)]);
    let stop = Action::Stop { epoch: 7, order: 1 };
    assert_eq!(book.poll_actions(at(1)), [done(5), stop, done(6)]);
    book.finished(7, 1, Err("cancelled".to_owned()));
    assert_eq!(book.poll_actions(at(2)), [refused(1, "cancelled"), started(4)]);
    assert_eq!(book.len(), 2);
}

#[test]
fn what_is_no_copy_or_is_done_cannot_be_cancelled() {
    let mut book = book();
    book.received(at(0), 7, vec![drop_order(1), drop_order(2), drop_order(3), copy_order(4)]);
    book.poll_actions(at(0));
    book.finished(7, 4, Ok(()));
    book.received(at(1), 7, vec![cancel_order(5, 1), cancel_order(6, 3), cancel_order(7, 4)]);
    book.received(at(1), 7, vec![cancel_order(8, 99)]);
    assert_eq!(book.poll_actions(at(1)), [done(4), done(5), done(6), done(7), done(8)]);
    assert_eq!(book.len(), 3);
}
