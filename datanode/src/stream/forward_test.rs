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
        tokio::time::sleep(Duration::from_millis(59_999)).await;
        answer(&mut theirs, done()).await;
    };
    let (watched, ()) = tokio::join!(watching, talking);
    assert_eq!(watched.unwrap().length, 100);
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
