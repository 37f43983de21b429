//! When the next node of a pipeline counts as gone: on a clock that moves only when everybody
//! waits.

use doldam_proto::id::NodeId;
use doldam_proto::node::NodeState;
use doldam_proto::wire::block_response::Kind;
use doldam_runtime::connection::{BlockConnection, Deadlines};
use doldam_runtime::net::{BoxFuture, BoxStream, Listener, Net};
use parking_lot::Mutex;
use std::io;
use tokio::io::DuplexStream;

use super::*;
use crate::testing::cluster::CLUSTER;

const PATIENCE: Patience =
    Patience { acknowledge: Duration::from_secs(10), finish: Duration::from_mins(1) };

/// A network of one pipe.
struct Pipe {
    end: Mutex<Option<DuplexStream>>,
}

impl Net for Pipe {
    fn connect<'a>(&'a self, _address: &'a str) -> BoxFuture<'a, io::Result<BoxStream>> {
        let end = self.end.lock().take();
        Box::pin(async move {
            end.map(|end| Box::new(end) as BoxStream).ok_or(io::ErrorKind::ConnectionRefused.into())
        })
    }

    fn bind<'a>(&'a self, _address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

/// Both ends of a block stream: ours, and the next node's.
async fn pair() -> (BlockConnection, BlockConnection) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let net = Pipe { end: Mutex::new(Some(ours)) };
    let long = Duration::from_hours(24);
    let deadlines = Deadlines { connect: long, progress: long, idle: long };
    let mut ours = BlockConnection::connect(&net, "next", CLUSTER, deadlines).await.unwrap();
    ours.write_all_vectored(&[]).await.unwrap();
    let theirs = BlockConnection::accept(Box::new(theirs), "us", CLUSTER, deadlines).await.unwrap();
    (ours, theirs)
}

fn next() -> NodeAddress {
    let (address, rack) = ("next:1".to_owned(), "/r".to_owned());
    NodeAddress { id: NodeId(4), address, rack, state: NodeState::Live }
}

async fn answer(theirs: &mut BlockConnection, kind: Kind) {
    theirs.send_message(&wire::BlockResponse { kind: Some(kind) }).await.unwrap();
}

fn progress(received: u64) -> Kind {
    Kind::Progress(wire::WriteProgress { received, ..Default::default() })
}

fn done() -> Kind {
    Kind::Done(wire::WriteDone { length: 100, ..Default::default() })
}

#[tokio::test(start_paused = true)]
async fn a_node_that_owes_nothing_may_be_silent_for_ever() {
    let (mut ours, mut theirs) = pair().await;
    let exchange = Exchange::new(0, Some(0));
    let next = next();
    let watching = watch(ours.halves().0, &exchange, &next, PATIENCE);
    let talking = async {
        tokio::time::sleep(Duration::from_secs(1000)).await;
        exchange.forwarding(50, false);
        tokio::time::sleep(Duration::from_millis(9_999)).await;
        answer(&mut theirs, progress(50)).await;
        tokio::time::sleep(Duration::from_secs(1000)).await;
        exchange.forwarding(100, true);
        answer(&mut theirs, progress(100)).await;
        tokio::time::sleep(Duration::from_millis(59_999)).await;
        answer(&mut theirs, done()).await;
    };
    let (watched, ()) = tokio::join!(watching, talking);
    assert_eq!(watched.unwrap().length, 100);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_never_got_the_end_of_a_block_is_not_given_the_time_of_a_disk() {
    let (mut ours, mut theirs) = pair().await;
    let exchange = Exchange::new(0, Some(0));
    exchange.forwarding(100, true);
    answer(&mut theirs, progress(50)).await;
    let started = Instant::now();
    let failure = watch(ours.halves().0, &exchange, &next(), PATIENCE).await.unwrap_err();
    assert_eq!(started.elapsed().as_secs(), PATIENCE.acknowledge.as_secs());
    assert_eq!(failure.code, Code::Downstream);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_owes_an_acknowledgement_is_given_up_after_its_deadline() {
    let (mut ours, _theirs) = pair().await;
    let exchange = Exchange::new(0, Some(0));
    exchange.forwarding(50, false);
    let started = Instant::now();
    let failure = watch(ours.halves().0, &exchange, &next(), PATIENCE).await.unwrap_err();
    assert_eq!(started.elapsed().as_secs(), PATIENCE.acknowledge.as_secs());
    assert_eq!((failure.code, failure.elsewhere), (Code::Downstream, Some((4, "next:1".into()))));
}

#[tokio::test(start_paused = true)]
async fn each_answer_starts_the_patience_anew_but_more_frames_do_not() {
    let (mut ours, mut theirs) = pair().await;
    let exchange = Exchange::new(0, Some(0));
    exchange.forwarding(50, false);
    let next = next();
    let started = Instant::now();
    let watching = watch(ours.halves().0, &exchange, &next, PATIENCE);
    let talking = async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        answer(&mut theirs, progress(20)).await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        exchange.forwarding(90, false);
    };
    let (watched, ()) = tokio::join!(watching, talking);
    assert_eq!(watched.unwrap_err().code, Code::Downstream);
    assert_eq!(started.elapsed().as_secs(), 16);
}

#[tokio::test(start_paused = true)]
async fn nonsense_is_a_failure_of_the_node_that_talks_it() {
    let read = wire::ReadStart { byte_count: 1, ..Default::default() };
    for nonsense in [progress(51), done(), Kind::Read(read)] {
        let (mut ours, mut theirs) = pair().await;
        let exchange = Exchange::new(0, Some(0));
        exchange.forwarding(50, false);
        answer(&mut theirs, nonsense.clone()).await;
        let failure = watch(ours.halves().0, &exchange, &next(), PATIENCE).await.unwrap_err();
        assert_eq!(failure.code, Code::Downstream, "{nonsense:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_syncs_may_take_as_long_as_one_that_publishes() {
    let (mut ours, mut theirs) = pair().await;
    let exchange = Exchange::new(0, Some(0));
    exchange.forwarding_sync(50);
    exchange.forwarding(50, false);
    let next = next();
    let started = Instant::now();
    let watching = watch(ours.halves().0, &exchange, &next, PATIENCE);
    let talking = async {
        answer(&mut theirs, progress(50)).await;
        tokio::time::sleep(Duration::from_millis(59_999)).await;
        let synced = wire::WriteProgress { received: 50, synced: 50, timings: vec![] };
        answer(&mut theirs, Kind::Progress(synced)).await;
        // It owes nothing now, until the next frame.
        tokio::time::sleep(Duration::from_secs(1000)).await;
        exchange.forwarding(60, false);
    };
    let (watched, ()) = tokio::join!(watching, talking);
    assert_eq!(watched.unwrap_err().code, Code::Downstream);
    assert_eq!(started.elapsed().as_secs(), 60 + 1000 + 10 - 1);
}

async fn told(theirs: &mut BlockConnection) -> wire::WriteProgress {
    let response: wire::BlockResponse = theirs.recv_message().await.unwrap();
    let Some(Kind::Progress(progress)) = response.kind else { panic!("{response:?}") };
    progress
}

/// The sender is told how long each node worked, when enough came or some time has passed; and nothing while nothing
/// moves, so that who is stuck is seen to be.
#[tokio::test(start_paused = true)]
async fn the_sender_is_told_how_long_each_node_worked_as_long_as_something_moves() {
    let (mut ours, mut theirs) = pair().await;
    let exchange = Exchange::new(100, Some(0));
    let millis = Duration::from_millis;
    let acknowledging = exchange.acknowledge(ours.halves().1, 1);
    let talking = async {
        // Nothing can be acknowledged while the next node is fed, but something moves.
        exchange.fed(60, millis(3));
        exchange.forwarding(100, false);
        let fed = told(&mut theirs).await;
        let own = |bytes, store_us, forward_us| wire::NodeTiming {
            node_id: 1,
            bytes,
            store_us,
            forward_us,
        };
        assert_eq!((fed.received, fed.timings), (100, vec![own(0, 0, 3000)]));
        let silent = tokio::time::timeout(Duration::from_secs(100), told(&mut theirs)).await;
        assert!(silent.is_err(), "{silent:?}");

        let behind = wire::NodeTiming { node_id: 4, bytes: 100, store_us: 7, forward_us: 0 };
        let timings = vec![behind];
        let heard = wire::WriteProgress { received: 100, synced: 0, timings };
        exchange.heard(heard).unwrap();
        exchange.worked(17 << 20, millis(5), millis(2));
        exchange.forwarding(17 << 20, false);
        exchange.heard(wire::WriteProgress { received: 17 << 20, ..Default::default() }).unwrap();
        exchange.written(17 << 20);
        let acknowledged = told(&mut theirs).await;
        assert_eq!(acknowledged.received, 17 << 20);
        assert_eq!(acknowledged.timings, [own(17 << 20, 5000, 5000), behind]);
        exchange.finish();
    };
    let (acknowledged, ()) = tokio::join!(acknowledging, talking);
    acknowledged.unwrap();
}

#[test]
fn a_node_that_stored_something_else_is_not_believed() {
    let value = ChainingValue([5; 32]);
    let receipt = wire::ReplicaReceipt { node_id: 4, durable: true };
    let good =
        wire::WriteDone { length: 100, chaining_value: value.to_bytes(), replicas: vec![receipt] };
    assert_eq!(check_done(good.clone(), 100, value, &next()), Ok(vec![receipt]));
    assert!(check_done(good.clone(), 101, value, &next()).is_err());
    assert!(check_done(good.clone(), 100, ChainingValue([6; 32]), &next()).is_err());
    assert!(check_done(wire::WriteDone { replicas: vec![], ..good }, 100, value, &next()).is_err());
}

/// Of two nodes that wait for a third, the nearer one must lose patience first, or the wrong one is
/// blamed.
#[test]
fn patience_grows_with_the_number_of_nodes_behind() {
    let config = DatanodeConfig::default();
    let [near, far] = [0, 1].map(|behind| Patience::of(&config, behind));
    assert!(near.acknowledge + near.acknowledge <= far.acknowledge);
    assert!(near.finish + near.finish <= far.finish);
}
