//! Tests of the pool over real loopback sockets.

use std::sync::mpsc::Sender;

use doldam_proto::wire::WriteProgress;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;

use super::*;
use crate::net::{Incoming, RealNet};
use crate::tasks::{BackgroundTasks, DataRuntimes};

const CLUSTER: ClusterId = ClusterId([7; 16]);

fn pool(limits: PoolLimits) -> ConnectionPool {
    ConnectionPool::new(Arc::new(RealNet), CLUSTER, Deadlines::default(), limits)
}

fn progress(received: u64) -> WriteProgress {
    WriteProgress { received, ..WriteProgress::default() }
}

/// A datanode that answers each request with the number of the connection it came by. It runs on a thread of its
/// own, so that it acts when the test says so, and not when the client's runtime waits.
struct Puppet {
    address: String,
    close: UnboundedSender<Sender<()>>,
    tasks: BackgroundTasks,
}

impl Puppet {
    async fn start() -> Self {
        let tasks = BackgroundTasks::default();
        let runtimes = DataRuntimes::start(&tasks, "puppet", 1, 1).unwrap();
        let (close, mut closing) = tokio::sync::mpsc::unbounded_channel::<Sender<()>>();
        let (tell, address) = tokio::sync::oneshot::channel();
        let stopping = tasks.stopping();
        runtimes.spawn_on_next("puppet", move || async move {
            let listener = RealNet.bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let (mut connections, mut number) = (JoinSet::new(), 0);
            loop {
                tokio::select! {
                    incoming = listener.accept() => {
                        number += 1;
                        connections.spawn(answer_all(incoming.unwrap(), number));
                    }
                    Some(closed) = closing.recv() => {
                        connections.abort_all();
                        while connections.join_next().await.is_some() {}
                        closed.send(()).unwrap();
                    }
                    () = stopping.cancelled() => break,
                }
            }
        });
        Self { address: address.await.unwrap(), close, tasks }
    }

    /// Closes all its connections; when this returns, that is done. Nothing else runs here meanwhile.
    fn close_connections(&self) {
        let (tell, closed) = std::sync::mpsc::channel();
        self.close.send(tell).unwrap();
        closed.recv().unwrap();
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn answer_all(incoming: Box<dyn Incoming>, number: u64) {
    let (peer, stream) = (incoming.peer(), incoming.register().unwrap());
    let accepted = BlockConnection::accept(stream, &peer, CLUSTER, Deadlines::default()).await;
    let mut connection = accepted.unwrap();
    while let Ok(Some(WriteProgress { .. })) = connection.recv_request().await {
        connection.send_message(&progress(number)).await.unwrap();
    }
}

/// Lets the reactor see what has happened on the sockets: it is looked at whenever a task yields.
async fn turn_reactor() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

async fn ask(pool: &ConnectionPool, puppet: &Puppet) -> (PooledConnection, u64) {
    let answer = pool.request::<WriteProgress>(&puppet.address, &progress(0)).await;
    let (connection, answer) = answer.unwrap();
    (connection, answer.received)
}

#[tokio::test]
async fn an_ended_exchange_leaves_its_connection_to_the_next_and_a_dropped_one_does_not() {
    let (puppet, pool) = (Puppet::start().await, pool(PoolLimits::default()));
    let (connection, number) = ask(&pool, &puppet).await;
    assert_eq!((number, connection.is_reused()), (1, false));
    connection.put_back();
    let (connection, number) = ask(&pool, &puppet).await;
    assert_eq!((number, connection.is_reused()), (1, true));
    drop(connection);
    let (connection, number) = ask(&pool, &puppet).await;
    assert_eq!(number, 2);

    pool.put_back(connection.into_inner());
    assert_eq!(pool.idle_count(), 1);
    pool.forget("elsewhere:1");
    assert_eq!(pool.idle_count(), 1);
    pool.forget(&puppet.address);
    assert_eq!(pool.idle_count(), 0);
}

#[tokio::test]
async fn a_connection_in_the_middle_of_an_exchange_is_not_kept() {
    let (puppet, pool) = (Puppet::start().await, pool(PoolLimits::default()));
    let (mut connection, _) = ask(&pool, &puppet).await;
    let (_, writer) = connection.halves();
    writer.queue_message(&progress(0)).unwrap();
    connection.put_back();
    assert_eq!(pool.idle_count(), 0, "a queued message would go out with the next request");

    let connection = pool.get(&puppet.address).await.unwrap();
    connection.put_back();
    assert_eq!(pool.idle_count(), 0, "the peer has not proved what it is");
}

#[tokio::test]
async fn an_answer_nobody_took_closes_the_connection_instead_of_reaching_the_next_exchange() {
    let (puppet, pool) = (Puppet::start().await, pool(PoolLimits::default()));
    let (mut connection, _) = ask(&pool, &puppet).await;
    connection.send_message(&progress(0)).await.unwrap();
    connection.put_back();
    let (connection, number) = loop {
        // The answer comes in its own time: until then the connection looks quiet.
        turn_reactor().await;
        let connection = pool.get(&puppet.address).await.unwrap();
        if connection.is_reused() {
            connection.put_back();
            continue;
        }
        break ask(&pool, &puppet).await;
    };
    assert_eq!((connection.is_reused(), number), (false, 3));
}

#[tokio::test]
async fn a_connection_that_the_peer_has_closed_is_not_handed_out() {
    let (puppet, pool) = (Puppet::start().await, pool(PoolLimits::default()));
    ask(&pool, &puppet).await.0.put_back();
    puppet.close_connections();
    turn_reactor().await;
    let connection = pool.get(&puppet.address).await.unwrap();
    assert!(!connection.is_reused());
}

#[tokio::test]
async fn a_request_on_a_connection_that_turns_out_dead_is_sent_once_more_on_a_fresh_one() {
    let (puppet, pool) = (Puppet::start().await, pool(PoolLimits::default()));
    ask(&pool, &puppet).await.0.put_back();
    puppet.close_connections(); // The reactor of this runtime cannot have seen it yet.
    let (connection, number) = ask(&pool, &puppet).await;
    assert_eq!((number, connection.is_reused()), (2, false));
}

#[tokio::test]
async fn no_more_connections_are_kept_than_allowed() {
    let limits = PoolLimits { idle_per_peer_max: 2, idle_max: 3, ..PoolLimits::default() };
    let pool = pool(limits);
    let puppets = [Puppet::start().await, Puppet::start().await];
    for (puppet, idle) in puppets.iter().zip([2, 3]) {
        let (one, two, three) =
            tokio::join!(ask(&pool, puppet), ask(&pool, puppet), ask(&pool, puppet));
        for (connection, _) in [one, two, three] {
            connection.put_back();
        }
        assert_eq!(pool.idle_count(), idle);
    }
    let (connection, _) = ask(&pool, &puppets[0]).await;
    assert!(connection.is_reused(), "the one idle longest went, the other is there");
    assert_eq!(pool.idle_count(), 2);
}

#[tokio::test]
async fn a_connection_that_was_idle_too_long_is_closed() {
    let limits = PoolLimits { idle_age_max: Duration::ZERO, ..PoolLimits::default() };
    let (puppet, pool) = (Puppet::start().await, pool(limits));
    ask(&pool, &puppet).await.0.put_back();
    let (connection, number) = ask(&pool, &puppet).await;
    assert_eq!((number, connection.is_reused()), (2, false));
}

#[tokio::test]
async fn runtimes_share_a_pool_but_no_connection() {
    let (puppet, pool) = (Puppet::start().await, pool(PoolLimits::default()));
    ask(&pool, &puppet).await.0.put_back();
    let tasks = BackgroundTasks::default();
    let elsewhere = DataRuntimes::start(&tasks, "elsewhere", 1, 1).unwrap();
    let (tell, told) = tokio::sync::oneshot::channel();
    let (same_pool, address) = (pool.clone(), puppet.address.clone());
    elsewhere.spawn_on_next("elsewhere", move || async move {
        let connection = same_pool.get(&address).await.unwrap();
        tell.send(connection.is_reused()).unwrap();
    });
    assert_eq!(told.await, Ok(false));
    assert!(pool.get(&puppet.address).await.unwrap().is_reused());
    assert_eq!(tasks.shutdown(Duration::from_secs(5)).await, Ok(()));
}

#[tokio::test]
async fn a_datanode_of_another_cluster_is_told_apart_and_not_tried_twice() {
    let puppet = Puppet::start().await;
    let (deadlines, limits) = (Deadlines::default(), PoolLimits::default());
    let pool = ConnectionPool::new(Arc::new(RealNet), ClusterId([8; 16]), deadlines, limits);
    let answer = pool.request::<WriteProgress>(&puppet.address, &progress(0)).await;
    let refusal = answer.unwrap_err();
    assert!(refusal.is_protocol(), "{refusal:?}");
    assert_eq!(pool.idle_count(), 0);
}
