//! Keeps the lease of this client while it is writing.

use std::sync::Arc;
use std::time::Duration;

use doldam_proto::wire;
use doldam_runtime::tasks::spawn_detached;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::{Metadata, Patience};

/// Whatever the namenode says, renewals leave time for other things.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// How many writes are open, and the task that renews for all of them.
#[derive(Debug, Default)]
pub(super) struct Leases {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    writes: usize,
    renewal: Option<JoinHandle<()>>,
}

/// A write that is open: while it is held the lease is renewed.
#[derive(Debug)]
pub(crate) struct Lease {
    metadata: Arc<Metadata>,
}

impl Lease {
    /// Counts one more open write; must be called within a runtime, which then also renews.
    pub(crate) fn hold(metadata: &Arc<Metadata>) -> Self {
        let mut state = metadata.leases.state.lock();
        state.writes += 1;
        // The runtime that renewed so far may have ended.
        if state.renewal.as_ref().is_none_or(JoinHandle::is_finished) {
            let renew = renew(Arc::clone(metadata));
            state.renewal = Some(spawn_detached("lease renewal", renew));
        }
        Self { metadata: Arc::clone(metadata) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.metadata.leases.state.lock();
        state.writes -= 1;
        if state.writes == 0
            && let Some(renewal) = state.renewal.take()
        {
            renewal.abort();
        }
    }
}

async fn renew(metadata: Arc<Metadata>) {
    let Some(hello) = metadata.hello.get() else { return };
    let interval = (hello.lease_soft / 3).max(INTERVAL_MIN);
    let patience = Patience { total: interval, placement: Duration::ZERO };
    let client_id = metadata.requests.client().to_bytes();
    loop {
        tokio::time::sleep(interval).await;
        let request = wire::RenewLeaseRequest { client_id: client_id.clone() };
        let trace = metadata.new_trace();
        let renewed = metadata
            .call("renew lease", patience, &trace, request, |mut service, request| async move {
                service.renew_lease(request).await
            })
            .await;
        if let Err(error) = renewed {
            // The writes themselves learn of it from the namenode if the lease is lost.
            tracing::warn!(%error, "the lease could not be renewed");
        }
    }
}
