//! The receiving half of a stream.

use std::time::Duration;

use doldam_proto::id::NodeId;
use doldam_proto::wire::{self, block_response::Kind};
use doldam_runtime::connection::ConnectionReader;
use tokio::time::Instant;

use super::window::Window;
use super::{Failure, Outgoing, SendWatch, pipeline};
use crate::block_stream::{StreamFailure, Streams};
use crate::engine::slow_node::{SlowNode, SlowNodeWatch, Timing};

/// Receives until the pipeline has acknowledged the block, or one of its nodes is to be left out.
pub(super) async fn receive_done(
    streams: &Streams,
    reader: &mut ConnectionReader,
    outgoing: &Outgoing,
    window: &Window,
    watch: &dyn SendWatch,
) -> Result<wire::WriteDone, Failure> {
    let nodes = outgoing.block.targets.len() as u32;
    let began = Instant::now();
    let mut slow = SlowNodeWatch::new(streams.slow_node);
    loop {
        let deadline =
            if window.is_at_disks() { streams.sync_timeout } else { streams.write_timeout };
        reader.set_progress_deadline(deadline * nodes);
        let message = if window.is_all_sent() {
            reader.recv_message().await
        } else {
            tokio::select! {
                biased;
                message = reader.recv_message() => message,
                () = window.owed.notified() => continue,
            }
        };
        let response: wire::BlockResponse = message.map_err(Failure::Stream)?;
        window.hear();
        match response.kind {
            Some(Kind::Progress(progress)) => {
                window.progress(&progress).map_err(pipeline)?;
                watch.acknowledged(progress.received);
                if let Some((commit, synced)) = window.take_reached() {
                    watch.reached(commit, synced);
                }
                let found = find_slow(&mut slow, began.elapsed(), outgoing, &progress.timings);
                if let Some(found) = found
                    && !window.is_all_sent()
                {
                    return Err(pipeline(slow_failure(&found)).into());
                }
            }
            Some(Kind::Done(done)) => {
                watch.acknowledged(window.sent());
                return Ok(done);
            }
            Some(Kind::Failure(failure)) => return Err(pipeline(failure.into()).into()),
            Some(Kind::Read(_)) | None => {
                let failure = StreamFailure::protocol("answered a write with something else");
                return Err(pipeline(failure).into());
            }
        }
    }
}

/// Timings of others than the pipeline are none.
fn find_slow(
    watch: &mut SlowNodeWatch,
    now: Duration,
    outgoing: &Outgoing,
    timings: &[wire::NodeTiming],
) -> Option<SlowNode> {
    let nodes = outgoing.block.targets.iter().map(|target| target.id.0);
    if !nodes.eq(timings.iter().map(|timing| timing.node_id)) {
        return None;
    }
    let timings: Vec<Timing> = timings
        .iter()
        .map(|timing| Timing {
            node: NodeId(timing.node_id),
            bytes: timing.bytes,
            store: Duration::from_micros(timing.store_us),
            forward: Duration::from_micros(timing.forward_us),
        })
        .collect();
    watch.handle(now, &timings)
}

fn slow_failure(slow: &SlowNode) -> StreamFailure {
    const MIB: f64 = 1_048_576.0;
    let cause = format!(
        "is slow: it can take {:.1} MiB/s where the others of the pipeline can take {:.1} MiB/s",
        slow.rate as f64 / MIB,
        slow.others as f64 / MIB
    );
    StreamFailure { node: Some(slow.node), cause, ..StreamFailure::default() }
}
