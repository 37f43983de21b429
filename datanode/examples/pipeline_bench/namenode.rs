//! As much of a namenode as three datanodes need: it registers them and orders blocks dropped.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use doldam_proto::wire::datanode_service_server::{DatanodeService, DatanodeServiceServer};
use doldam_proto::wire::{self, DatanodeMessage, NamenodeMessage};
use doldam_runtime::Seams;
use doldam_runtime::grpc;
use doldam_runtime::tasks::BackgroundTasks;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{Stream, StreamExt};
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::Outcome;

/// A block and its generation.
pub(crate) type Key = (u64, u64);

/// Registers whoever comes.
pub(crate) struct Namenode {
    address: String,
    orders: broadcast::Sender<NamenodeMessage>,
    dropped: mpsc::Receiver<Key>,
    awaited: usize,
}

struct Service {
    registered: AtomicU32,
    orders: broadcast::Sender<NamenodeMessage>,
    dropped: mpsc::Sender<Key>,
    tasks: BackgroundTasks,
}

impl Namenode {
    /// Listens at any free port.
    pub(crate) async fn start(seams: &Seams, tasks: &BackgroundTasks) -> Outcome<Self> {
        let listener = seams.net.bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (orders, _) = broadcast::channel(64);
        let (dropped_in, dropped) = mpsc::channel(1024);
        let service = Service {
            registered: AtomicU32::new(0),
            orders: orders.clone(),
            dropped: dropped_in,
            tasks: tasks.clone(),
        };
        let routes = Routes::new(DatanodeServiceServer::new(service));
        let connections = tasks.clone();
        tasks.spawn_critical("namenode", async move {
            grpc::serve(routes, listener, Duration::ZERO, &connections).await;
            Ok::<_, std::convert::Infallible>(())
        });
        Ok(Self { address, orders, dropped, awaited: 0 })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Orders blocks dropped, each of which `holders` datanodes hold.
    pub(crate) fn drop_everywhere(&mut self, keys: &[Key], holders: usize) -> Outcome<()> {
        let orders = keys
            .iter()
            .map(|&(block_id, generation)| wire::Order {
                order_id: block_id,
                deadline_ms: 60_000,
                kind: Some(wire::order::Kind::Drop(wire::DropOrder {
                    block_id,
                    generation,
                    only_bad: false,
                })),
            })
            .collect();
        self.orders.send(NamenodeMessage { epoch: 1, orders })?;
        self.awaited += keys.len() * holders;
        Ok(())
    }

    /// Waits until all that was ordered dropped is.
    pub(crate) async fn all_dropped(&mut self) -> Outcome<()> {
        while self.awaited > 0 {
            self.dropped.recv().await.ok_or("the datanodes are gone")?;
            self.awaited -= 1;
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl DatanodeService for Service {
    async fn register(
        &self,
        _request: Request<wire::RegisterRequest>,
    ) -> Result<Response<wire::RegisterResponse>, Status> {
        let node_id = self.registered.fetch_add(1, Ordering::Relaxed) + 1;
        let cluster_id = vec![7; 16].into();
        let response = wire::RegisterResponse { cluster_id, node_id, epoch: 1, heartbeat_ms: 1000 };
        Ok(Response::new(response))
    }

    type HeartbeatStream = Pin<Box<dyn Stream<Item = Result<NamenodeMessage, Status>> + Send>>;

    async fn heartbeat(
        &self,
        request: Request<Streaming<DatanodeMessage>>,
    ) -> Result<Response<Self::HeartbeatStream>, Status> {
        let (mut heard, dropped) = (request.into_inner(), self.dropped.clone());
        self.tasks.spawn("heartbeats", async move {
            while let Ok(Some(message)) = heard.message().await {
                for event in message.events {
                    if event.kind() == wire::replica_event::Kind::Dropped {
                        _ = dropped.send((event.block_id, event.generation)).await;
                    }
                }
            }
        });
        let orders = BroadcastStream::new(self.orders.subscribe());
        let orders = orders.map(|order| order.map_err(|lag| Status::data_loss(lag.to_string())));
        Ok(Response::new(Box::pin(orders)))
    }
}
