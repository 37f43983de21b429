//! In which order replicas are tried, and how long a bad impression lasts.

use proptest::prelude::*;

use super::*;

const NOW: Uptime = Duration::from_secs(1000);

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn node(id: u32) -> NodeAddress {
    let (address, rack) = (format!("h{id}:1"), format!("/r{}", id % 2));
    NodeAddress { id: NodeId(id), address, rack, state: NodeState::Live }
}

/// The order of nodes 1 to 4, of which those in `suspect` are that, for a client on `hosts` and `rack`.
fn order_for(
    latencies: &Latencies,
    suspect: &[u32],
    (hosts, rack): (&str, &str),
    now: Uptime,
) -> Vec<u32> {
    let mut nodes: Vec<NodeAddress> = (1..=4).map(node).collect();
    for node in &mut nodes {
        if suspect.contains(&node.id.0) {
            node.state = NodeState::Suspect;
        }
    }
    latencies.order(&mut nodes, |node| node.nearness(hosts, rack), now);
    nodes.iter().map(|node| node.id.0).collect()
}

fn order(latencies: &Latencies, now: Uptime) -> Vec<u32> {
    order_for(latencies, &[], ("", ""), now)
}

#[test]
fn the_own_host_comes_first_then_the_own_rack_then_the_namenodes_order_and_suspects_last() {
    let latencies = Latencies::default();
    assert_eq!(order(&latencies, NOW), [1, 2, 3, 4]);
    assert_eq!(order_for(&latencies, &[], ("h3", "/r0"), NOW), [3, 2, 4, 1]);
    assert_eq!(order_for(&latencies, &[3, 2], ("h3", "/r0"), NOW), [4, 1, 3, 2]);
}

#[test]
fn what_failed_comes_last_for_ten_seconds_then_for_twenty_until_it_delivers() {
    let mut latencies = Latencies::default();
    let hold = |expected: u64, latencies: &mut Latencies, now: Uptime| {
        latencies.failed(NodeId(1), now);
        let end = now + Duration::from_secs(expected);
        let before = end.saturating_sub(ms(1));
        assert_eq!(order_for(latencies, &[2], ("h1", ""), before), [3, 4, 2, 1]);
        assert!(latencies.is_held(NodeId(1), before));
        assert_eq!(order_for(latencies, &[2], ("h1", ""), end), [1, 3, 4, 2]);
        assert!(!latencies.is_held(NodeId(1), end));
        end
    };
    let mut now = NOW;
    for seconds in [10, 20, 40, 80, 80] {
        now = hold(seconds, &mut latencies, now);
    }
    latencies.failed(NodeId(1), now);
    latencies.delivered(NodeId(1), 1, None, now);
    assert!(!latencies.is_held(NodeId(1), now));
    hold(10, &mut latencies, now);
}

#[test]
fn a_node_counts_as_slower_from_more_than_twice_the_best_and_ranks_by_how_much() {
    let mut latencies = Latencies::default();
    latencies.answered(NodeId(4), ms(10), NOW);
    latencies.answered(NodeId(1), ms(20), NOW);
    assert_eq!(order(&latencies, NOW), [1, 2, 3, 4], "twice is as good, and so is unknown");
    latencies.answered(NodeId(2), ms(21), NOW);
    latencies.answered(NodeId(3), ms(200), NOW);
    assert_eq!(order(&latencies, NOW), [1, 4, 2, 3]);
    // Near goes before fast, but being held does not.
    assert_eq!(order_for(&latencies, &[], ("h3", ""), NOW), [3, 1, 4, 2]);
    latencies.failed(NodeId(3), NOW);
    assert_eq!(order_for(&latencies, &[], ("h3", ""), NOW), [1, 4, 2, 3]);
}

#[test]
fn a_millisecond_makes_no_difference() {
    let mut latencies = Latencies::default();
    latencies.answered(NodeId(4), Duration::from_micros(10), NOW);
    latencies.answered(NodeId(1), Duration::from_micros(1010), NOW);
    assert_eq!(order(&latencies, NOW), [1, 2, 3, 4]);
    latencies.answered(NodeId(2), Duration::from_micros(1011), NOW);
    assert_eq!(order(&latencies, NOW), [1, 3, 4, 2]);
}

#[test]
fn throughput_counts_as_much_as_the_first_byte_and_small_pieces_say_nothing_about_it() {
    let mut latencies = Latencies::default();
    latencies.delivered(NodeId(2), 1 << 20, Some(ms(5)), NOW);
    latencies.delivered(NodeId(1), 512 << 10, Some(ms(100)), NOW);
    latencies.delivered(NodeId(3), PIECE_BYTES_MIN - 1, Some(ms(100)), NOW);
    latencies.delivered(NodeId(4), 1 << 20, None, NOW);
    assert_eq!(order(&latencies, NOW), [2, 3, 4, 1]);
}

#[test]
fn a_node_that_was_slow_gets_another_chance_in_time_and_each_sample_counts_a_quarter() {
    let mut latencies = Latencies::default();
    latencies.answered(NodeId(2), ms(10), NOW);
    latencies.answered(NodeId(1), ms(50), NOW);
    let second_halving = NOW + 2 * HALF_LIFE;
    let before = second_halving.saturating_sub(ms(1));
    assert_eq!(order(&latencies, before), [2, 3, 4, 1], "20 ms above 10");
    assert_eq!(order(&latencies, second_halving), [1, 2, 3, 4], "10 ms above 10");
    // 50, 40, 32.5, 26.8, 22.6, 19.5 ms.
    for _ in 0..4 {
        latencies.answered(NodeId(1), ms(10), NOW);
    }
    assert_eq!(order(&latencies, NOW), [2, 3, 4, 1]);
    latencies.answered(NodeId(1), ms(10), NOW);
    assert_eq!(order(&latencies, NOW), [1, 2, 3, 4]);
}

#[test]
fn so_many_nodes_are_remembered_and_no_more() {
    let mut latencies = Latencies::default();
    for id in 0..NODES_MAX as u32 {
        latencies.failed(NodeId(id), NOW + ms(u64::from(id)));
    }
    latencies.failed(NodeId(0), NOW + ms(5000));
    latencies.failed(NodeId(7_000), NOW + ms(5000));
    assert_eq!(latencies.nodes.len(), NODES_MAX);
    assert!(latencies.is_held(NodeId(0), NOW + ms(5000)), "heard of since");
    assert!(!latencies.is_held(NodeId(1), NOW + ms(5000)), "the oldest");
    assert!(latencies.is_held(NodeId(7_000), NOW + ms(5000)));
}

proptest! {
    #[test]
    fn every_replica_stays_in_the_order_exactly_once_whatever_was_seen(
        samples in proptest::collection::vec((1_u32..5, 0_u8..4, any::<u64>(), any::<u32>()), 0..60),
        later in any::<u32>(),
    ) {
        let mut latencies = Latencies::default();
        let mut now = Uptime::ZERO;
        for (id, kind, value, by) in samples {
            now += Duration::from_micros(u64::from(by));
            let (node, took) = (NodeId(id), Duration::from_micros(value));
            match kind {
                0 => latencies.answered(node, took, now),
                1 => latencies.delivered(node, value, Some(took), now),
                2 => latencies.delivered(node, value, None, now),
                _ => latencies.failed(node, now),
            }
        }
        let mut found = order(&latencies, now + Duration::from_millis(u64::from(later)));
        found.sort_unstable();
        prop_assert_eq!(found, [1, 2, 3, 4]);
    }
}

#[test]
fn who_did_not_answer_gets_no_new_blocks_and_is_read_last_until_it_delivers_or_time_is_up() {
    let mut latencies = Latencies::default();
    latencies.failed(NodeId(2), NOW);
    assert_eq!(latencies.shunned(NOW), [], "late for a reader is not gone for a writer");
    latencies.stuck(NodeId(1), NOW);
    let end = NOW + Duration::from_secs(10);
    assert_eq!(latencies.shunned(end.saturating_sub(ms(1))), [NodeId(1)]);
    assert_eq!(latencies.shunned(end), []);
    assert!(latencies.is_held(NodeId(1), NOW));
    latencies.stuck(NodeId(1), end);
    assert_eq!(latencies.shunned(end + Duration::from_secs(19)), [NodeId(1)], "twice as long");
    latencies.delivered(NodeId(1), 1, None, end);
    assert_eq!(latencies.shunned(end), []);
}
