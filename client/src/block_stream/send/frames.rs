//! The sending half of a stream.

use bytes::{BufMut, BytesMut};
use doldam_proto::digest::{BlockTree, VALUE_BYTES};
use doldam_proto::frame::header::{FrameHeader, HEADER_BYTES};
use doldam_proto::limits::{FRAME_PAYLOAD_BYTES, GROUP_BYTES};
use doldam_runtime::connection::ConnectionWriter;
use tokio::time::timeout;

use super::window::Window;
use super::{Failure, Outgoing, SendFailure, SendWatch, commit_of};
use crate::block_stream::Streams;
use crate::source::{BlockSource, Mark, Next, Payload};

const HEAD_BYTES: usize =
    HEADER_BYTES + FRAME_PAYLOAD_BYTES.div_ceil(GROUP_BYTES as usize) * VALUE_BYTES;

/// Sends what comes behind the bytes of `tree`, to the end of the block.
pub(super) async fn send_frames(
    streams: &Streams,
    writer: &mut ConnectionWriter,
    outgoing: &Outgoing,
    source: &BlockSource,
    tree: &mut BlockTree,
    window: &Window,
    watch: &dyn SendWatch,
) -> Result<(), Failure> {
    let mut head = BytesMut::with_capacity(HEAD_BYTES);
    let mut scratch = source.scratch();
    let mut noted = None;
    loop {
        let Next { payload, last, mark } =
            next(streams, source, tree.length(), noted, window, &mut scratch).await?;
        let payload: &[u8] = match &payload {
            Payload::Scratch(bytes) => &scratch[..*bytes],
            Payload::Kept(bytes) => bytes,
        };
        noted = mark.or(noted);
        let frame = Frame::new(tree.length(), payload.len(), last, mark, window);
        if frame.is_due() {
            window.room(payload.len() as u64).await;
            head.clear();
            head.put_slice(&frame.header().encode());
            frame.push(tree, payload, &mut head);
            if let Some(mark) = mark {
                window.note(mark, commit_of(outgoing, tree)?);
            }
            // Over all groups, so only once.
            let value =
                if last { tree.digest().map(|digest| digest.chaining_value.0) } else { None };
            window.sending(tree.length(), frame.sync);
            let value = value.as_ref().map_or(&[][..], |value| value);
            writer.write_all_vectored(&[&head, payload, value]).await.map_err(Failure::Stream)?;
        } else if let Some(mark) = mark {
            window.note(mark, commit_of(outgoing, tree)?);
        }
        if mark.is_some()
            && let Some((commit, synced)) = window.take_reached()
        {
            watch.reached(commit, synced);
        }
        if last {
            window.ended();
            watch.all_sent();
            return Ok(());
        }
    }
}

/// No acknowledgement is due while nothing is sent, so then the wait for the source must be the shorter one.
async fn next(
    streams: &Streams,
    source: &BlockSource,
    position: u64,
    noted: Option<Mark>,
    window: &Window,
    scratch: &mut [u8],
) -> Result<Next, Failure> {
    loop {
        match timeout(streams.stall_timeout, source.next(position, noted, scratch)).await {
            Ok(next) => return Ok(next.map_err(SendFailure::from)?),
            // The datanodes are busy yet; they have deadlines of their own.
            Err(_elapsed) if window.is_owed() => {}
            Err(_elapsed) => return Err(SendFailure::Stalled.into()),
        }
    }
}

/// A frame to be.
struct Frame {
    /// Where the bytes before it end, and where it starts: at the start of a group, if that is cut.
    position: u64,
    start: u64,
    payload_bytes: usize,
    last: bool,
    sync: bool,
}

impl Frame {
    fn new(
        position: u64,
        payload_bytes: usize,
        last: bool,
        mark: Option<Mark>,
        window: &Window,
    ) -> Self {
        let start = position - position % GROUP_BYTES;
        let new = start + payload_bytes as u64 > position;
        // A pipeline that has something from before, and nothing new to acknowledge, says that it has it when it is
        // asked to sync.
        let ask = |mark: Mark| mark.sync || (!new && !window.is_confirmed());
        Self { position, start, payload_bytes, last, sync: !last && mark.is_some_and(ask) }
    }

    fn is_due(&self) -> bool {
        let new = self.start + self.payload_bytes as u64 > self.position;
        new || self.last || self.sync
    }

    fn header(&self) -> FrameHeader {
        if self.sync {
            FrameHeader::sync(self.start, self.payload_bytes)
        } else {
            FrameHeader::data(self.start, self.payload_bytes, self.last)
        }
    }

    /// Hashes the payload, and appends the values of its groups to `head`. A group that was cut gives way.
    fn push(&self, tree: &mut BlockTree, payload: &[u8], head: &mut BytesMut) {
        if self.start < self.position {
            tree.keep_groups((self.start / GROUP_BYTES) as usize);
        }
        for group in payload.chunks(GROUP_BYTES as usize) {
            head.put_slice(&tree.push_group(group).0);
        }
    }
}
