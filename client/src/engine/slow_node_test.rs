//! Who is left out, and both sides of every limit.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const LIMITS: SlowNodeLimits = SlowNodeLimits { factor: 8, period: Duration::from_secs(5) };
const MIB: u64 = 1 << 20;

/// So many MiB in so many milliseconds of storing and forwarding.
fn timing(node: u32, mib: u64, store_ms: u64, forward_ms: u64) -> Timing {
    let (store, forward) = (Duration::from_millis(store_ms), Duration::from_millis(forward_ms));
    Timing { node: NodeId(node), bytes: mib * MIB, store, forward }
}

fn idle(nodes: u32) -> Vec<Timing> {
    (1..=nodes).map(|node| timing(node, 0, 0, 0)).collect()
}

/// Two reports: nothing, and `after` the time since.
fn judged(limits: SlowNodeLimits, after: Duration, timings: &[Timing]) -> Option<NodeId> {
    let mut watch = SlowNodeWatch::new(limits);
    assert_eq!(watch.handle(SECOND, &idle(timings.len() as u32)), None, "one report says nothing");
    watch.handle(SECOND + after, timings).map(|slow| slow.node)
}

#[test]
fn a_disk_that_holds_the_others_up_is_left_out() {
    // The last is busy all the time; the first two wait for it.
    let timings = [timing(1, 50, 100, 4_800), timing(2, 50, 100, 4_800), timing(3, 50, 4_900, 0)];
    assert_eq!(judged(LIMITS, 5 * SECOND, &timings), Some(NodeId(3)));
    let slow = SlowNodeWatch { start: Some((SECOND, idle(3))), ..SlowNodeWatch::new(LIMITS) }
        .handle(6 * SECOND, &timings)
        .unwrap();
    assert_eq!((slow.rate, slow.others), (50 * MIB * 10 / 49, 500 * MIB));
    // Wherever it is.
    let timings = [timing(1, 50, 4_900, 10), timing(2, 50, 100, 10), timing(3, 50, 100, 0)];
    assert_eq!(judged(LIMITS, 5 * SECOND, &timings), Some(NodeId(1)));
}

#[test]
fn a_link_that_holds_the_others_up_costs_the_node_behind_it() {
    // The first is held up by the second, which does nothing of note meanwhile: the bytes come slowly.
    let timings = [timing(1, 50, 100, 4_800), timing(2, 50, 100, 20), timing(3, 50, 100, 0)];
    assert_eq!(judged(LIMITS, 5 * SECOND, &timings), Some(NodeId(2)));
    // The first two are held up: it is the link to the third, not the one to the second.
    let timings = [timing(1, 50, 100, 4_800), timing(2, 50, 100, 4_700), timing(3, 50, 100, 0)];
    assert_eq!(judged(LIMITS, 5 * SECOND, &timings), Some(NodeId(3)));
}

#[test]
fn nobody_is_left_out_at_the_fraction_and_somebody_below_it() {
    let store = |ms| [timing(1, 50, 400, 0), timing(2, 50, 400, 0), timing(3, 50, ms, 0)];
    assert_eq!(judged(LIMITS, 5 * SECOND, &store(3_200)), None, "exactly eight times slower");
    assert_eq!(judged(LIMITS, 5 * SECOND, &store(3_201)), Some(NodeId(3)));
}

#[test]
fn nobody_is_left_out_before_the_period_is_over() {
    let timings = [timing(1, 50, 10, 0), timing(2, 50, 4_500, 0)];
    assert_eq!(judged(LIMITS, Duration::from_millis(4_999), &timings), None);
    assert_eq!(judged(LIMITS, 5 * SECOND, &timings), Some(NodeId(2)));
}

#[test]
fn a_period_with_few_bytes_goes_on_until_there_are_enough() {
    let mut watch = SlowNodeWatch::new(LIMITS);
    let at = |seconds: u64, bytes: u64| {
        let store = Duration::from_secs(seconds);
        let slow = Timing { node: NodeId(2), bytes, store, forward: Duration::ZERO };
        [Timing { bytes, ..timing(1, 0, 1, 0) }, slow]
    };
    assert_eq!(watch.handle(Duration::ZERO, &at(0, 0)), None);
    assert_eq!(watch.handle(6 * SECOND, &at(6, MIB - 1)), None);
    assert_eq!(watch.handle(7 * SECOND, &at(7, MIB)).map(|slow| slow.node), Some(NodeId(2)));
}

#[test]
fn a_slow_node_that_is_mostly_idle_stays() {
    let busy = |ms| [timing(1, 5, 10, 0), timing(2, 5, 10, 0), timing(3, 5, ms, 0)];
    assert_eq!(judged(LIMITS, 5 * SECOND, &busy(2_499)), None, "less than half of the time");
    assert_eq!(judged(LIMITS, 5 * SECOND, &busy(2_500)), Some(NodeId(3)));
}

#[test]
fn nodes_that_are_all_slow_stay() {
    let timings = [timing(1, 5, 4_000, 900), timing(2, 5, 4_500, 100), timing(3, 5, 4_900, 0)];
    assert_eq!(judged(LIMITS, 5 * SECOND, &timings), None);
}

#[test]
fn of_two_others_the_slower_counts() {
    let second = |ms| [timing(1, 50, 1, 0), timing(2, 50, ms, 0), timing(3, 50, 4_000, 0)];
    assert_eq!(judged(LIMITS, 5 * SECOND, &second(500)), None);
    assert_eq!(judged(LIMITS, 5 * SECOND, &second(499)), Some(NodeId(3)));
}

#[test]
fn nobody_is_left_out_of_one_or_if_it_is_switched_off() {
    assert_eq!(judged(LIMITS, 5 * SECOND, &[timing(1, 5, 5_000, 0)]), None);
    let timings = [timing(1, 50, 1, 0), timing(2, 50, 5_000, 0)];
    let off = SlowNodeLimits { factor: 0, ..LIMITS };
    assert_eq!(judged(off, 5 * SECOND, &timings), None);
    assert_eq!(judged(LIMITS, 5 * SECOND, &timings), Some(NodeId(2)));
}

#[test]
fn what_was_slow_once_is_forgotten_with_its_period() {
    let mut watch = SlowNodeWatch::new(LIMITS);
    let quick = |mib, ms| [timing(1, mib, ms, 0), timing(2, mib, ms, 0)];
    let slow = |mib, ms| [timing(1, mib, ms, 0), timing(2, mib, ms + 4_000, 0)];
    assert_eq!(watch.handle(Duration::ZERO, &quick(0, 0)), None);
    // Slow for three seconds of a period in which it is quick enough on the whole.
    assert_eq!(watch.handle(5 * SECOND, &quick(50, 4_000)), None);
    // The four seconds fall into a period of their own.
    assert_eq!(watch.handle(6 * SECOND, &slow(51, 4_010)), None);
    let found = watch.handle(10 * SECOND, &slow(55, 4_050));
    assert_eq!(found.map(|slow| slow.node), Some(NodeId(2)));
}

#[test]
fn reports_that_go_back_or_change_their_nodes_accuse_nobody() {
    let mut watch = SlowNodeWatch::new(LIMITS);
    assert_eq!(watch.handle(SECOND, &[timing(1, 9, 900, 900), timing(2, 9, 900, 0)]), None);
    assert_eq!(watch.handle(7 * SECOND, &idle(2)), None, "they go back");
    assert_eq!(watch.handle(8 * SECOND, &[timing(1, 50, 1, 0), timing(3, 50, 9_000, 0)]), None);
}
