//! Tests of liveness: exact transitions, on both sides of each time limit.

use std::time::Duration;

use doldam_proto::id::{NodeId, NodeUuid};
use doldam_proto::node::NodeState;

use super::super::{
    Cluster, LivenessLimits, Load, NodeIdentity, NotRegistered, Session, Standing, Transition,
    Uptime,
};

const LIMITS: LivenessLimits =
    LivenessLimits { suspect_after: Duration::from_secs(3), dead_after: Duration::from_secs(30) };
const NODE: NodeId = NodeId(7);

fn identity() -> NodeIdentity {
    NodeIdentity { id: NODE, uuid: NodeUuid([7; 16]), address: "h:1".into(), rack: "/r".into() }
}

fn just_before(time: Duration) -> Uptime {
    time.saturating_sub(Duration::from_nanos(1))
}

/// A cluster in which the node registered and was heard of at time zero.
fn live() -> (Cluster, Session) {
    let mut cluster = Cluster::new(LIMITS, [], Duration::ZERO);
    let registered = cluster.register(Duration::ZERO, identity(), "1".into());
    assert_eq!(registered, [Transition::Registered(NODE)]);
    let session = cluster.open_stream(NODE).unwrap();
    let heard = cluster.heartbeat(Duration::ZERO, NODE, session, Load::default());
    assert_eq!(heard, Ok(Some(Transition::Live(NODE))));
    (cluster, session)
}

#[test]
fn a_registered_node_is_not_live_before_its_first_heartbeat() {
    let mut cluster = Cluster::new(LIMITS, [], Duration::ZERO);
    cluster.register(Duration::ZERO, identity(), "1".into());
    assert_eq!(cluster.standing(NODE), Standing::Joining);
    assert_eq!(cluster.count(NodeState::Live), 0);
    assert_eq!(cluster.tick(LIMITS.suspect_after), [Transition::Suspect(NODE)]);
}

#[test]
fn silence_makes_a_node_suspect_and_then_dead_at_exactly_the_limits() {
    let (mut cluster, session) = live();
    assert_eq!(cluster.tick(just_before(LIMITS.suspect_after)), []);
    assert_eq!(cluster.tick(LIMITS.suspect_after), [Transition::Suspect(NODE)]);
    assert_eq!(cluster.tick(just_before(LIMITS.dead_after)), []);
    assert_eq!(
        cluster.tick(LIMITS.dead_after),
        [Transition::CloseStream(NODE, session), Transition::Dead(NODE)]
    );
    assert_eq!(cluster.tick(LIMITS.dead_after * 2), []);
    assert_eq!(cluster.node(NODE).unwrap().lost_at(), Some(LIMITS.suspect_after));
}

#[test]
fn a_heartbeat_brings_a_suspect_back_and_is_no_news_from_a_live_node() {
    let (mut cluster, session) = live();
    cluster.tick(LIMITS.suspect_after);
    let now = LIMITS.suspect_after;
    let mut beat = || cluster.heartbeat(now, NODE, session, Load::default());
    assert_eq!(beat(), Ok(Some(Transition::Live(NODE))));
    assert_eq!(beat(), Ok(None));
    assert_eq!(cluster.node(NODE).unwrap().lost_at(), None);
}

#[test]
fn a_closed_stream_makes_a_node_suspect_at_once_but_not_dead_sooner() {
    let (mut cluster, session) = live();
    let now = Duration::from_millis(1);
    assert_eq!(cluster.stream_closed(now, NODE, session), Some(Transition::Suspect(NODE)));
    assert_eq!(cluster.stream_closed(now, NODE, session), None);
    assert_eq!(cluster.tick(just_before(LIMITS.dead_after)), []);
    assert_eq!(cluster.tick(LIMITS.dead_after), [Transition::Dead(NODE)]);
}

#[test]
fn a_registration_admits_exactly_one_stream() {
    let (mut cluster, session) = live();
    assert_eq!(cluster.open_stream(NODE), Err(NotRegistered(NODE)));
    cluster.stream_closed(Duration::ZERO, NODE, session);
    assert_eq!(cluster.open_stream(NODE), Err(NotRegistered(NODE)));
    let late = cluster.heartbeat(Duration::ZERO, NODE, session, Load::default());
    assert_eq!(late, Err(NotRegistered(NODE)));
    assert_eq!(cluster.open_stream(NodeId(8)), Err(NotRegistered(NodeId(8))));
}

#[test]
fn the_newer_of_two_registrations_wins_and_the_older_stream_counts_for_nothing() {
    let (mut cluster, older) = live();
    let closed = cluster.register(Duration::from_secs(1), identity(), "2".into());
    assert_eq!(closed, [Transition::CloseStream(NODE, older), Transition::Registered(NODE)]);
    let newer = cluster.open_stream(NODE).unwrap();
    let now = Duration::from_secs(1);
    let beat = cluster.heartbeat(now, NODE, older, Load::default());
    assert_eq!(beat, Err(NotRegistered(NODE)));
    cluster.heartbeat(now, NODE, newer, Load::default()).unwrap();
    assert_eq!(cluster.stream_closed(now, NODE, older), None);
    assert_eq!(cluster.standing(NODE), Standing::Live);
}

#[test]
fn a_known_node_is_awaited_for_dead_after_and_is_not_suspect_meanwhile() {
    let start = Duration::from_secs(100);
    let mut cluster = Cluster::new(LIMITS, [identity()], start);
    assert_eq!(cluster.tick(just_before(start + LIMITS.dead_after)), []);
    assert_eq!(cluster.standing(NODE), Standing::Awaited);
    assert!(!cluster.standing(NODE).is_lost() && cluster.standing(NODE).is_present());
    assert_eq!(cluster.tick(start + LIMITS.dead_after), [Transition::Dead(NODE)]);
}

#[test]
fn what_a_node_holds_is_unconfirmed_again_after_each_registration() {
    let (mut cluster, _) = live();
    assert!(cluster.confirm(NODE) && !cluster.confirm(NODE));
    assert!(cluster.node(NODE).unwrap().confirmed);
    cluster.register(Duration::ZERO, identity(), "1".into());
    assert!(!cluster.node(NODE).unwrap().confirmed);
}

#[test]
fn what_a_node_has_not_verified_itself_is_not_confirmed() {
    let (mut cluster, session) = live();
    let doubtful = Load { unverified: 1, ..Load::default() };
    cluster.heartbeat(Duration::ZERO, NODE, session, doubtful).unwrap();
    assert!(!cluster.confirm(NODE) && !cluster.node(NODE).unwrap().confirmed);
    cluster.heartbeat(Duration::ZERO, NODE, session, Load::default()).unwrap();
    assert!(cluster.confirm(NODE));
}
