//! Carries out, every few seconds, the syncs that writers did not wait for. What waits and how it
//! is done is in [`late_sync`](crate::blocks::late_sync).

use std::convert::Infallible;
use std::sync::Arc;

use doldam_runtime::tasks::run_blocking;

use crate::node::Node;

/// Syncs until the server stops, and then once more.
pub(crate) async fn sync_late(node: Arc<Node>) -> Result<(), Infallible> {
    loop {
        tokio::select! {
            biased;
            () = node.store.late_syncs().arrived() => {}
            () = node.stopping.cancelled() => {}
        }
        // A little later more may share the work; a replica waits no longer than this.
        tokio::select! {
            biased;
            () = tokio::time::sleep(node.config.late_sync_after.0) => {}
            () = node.stopping.cancelled() => {}
        }
        let last = node.stopping.is_cancelled();
        let store = Arc::clone(&node.store);
        if run_blocking(move || store.sync_late()).await.is_err() {
            tracing::error!("a late sync panicked");
        }
        if last {
            return Ok(());
        }
    }
}
