//! Reads a range of one block, from whichever replica proves its bytes, and goes on elsewhere from the exact byte
//! where one failed.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use doldam_proto::block::LocatedBlock;
use doldam_proto::digest::ChainingValue;
use doldam_proto::limits::GROUP_BYTES;

use crate::block_stream::StreamFailure;
use crate::block_stream::receive::{GroupValues, VerifiedStream};
use crate::engine::read_plan::{ReadPlan, ReadStep};
use crate::error::ClientError;
use crate::open_file::OpenFile;

/// Before the locations are asked for again: a datanode that is being restarted may be back by then.
const RELOCATE_PAUSE: Duration = Duration::from_secs(1);

/// A range of a block being read.
#[derive(Debug)]
pub(crate) struct BlockReader {
    file: Arc<OpenFile>,
    block: LocatedBlock,
    plan: ReadPlan,
    stream: Option<VerifiedStream>,
    /// Of the stream before.
    values: GroupValues,
    failed_over: bool,
    /// In the block.
    position: u64,
    end: u64,
}

impl BlockReader {
    /// Reads `range` (bytes of the block, not beyond it) of the block at `index`.
    pub(crate) async fn open(
        file: &Arc<OpenFile>,
        index: u32,
        range: Range<u64>,
    ) -> Result<Self, ClientError> {
        let block = file.block(index).await?;
        let plan = ReadPlan::new(&block.replicas, &file.distrusted());
        file.note_block();
        let file = Arc::clone(file);
        let (position, end) = (range.start, range.end);
        let (stream, values, failed_over) = (None, GroupValues::default(), false);
        Ok(Self { file, block, plan, stream, values, failed_over, position, end })
    }

    /// The next byte to be read, in the block.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Reads on up to `end`, once all of the range before is read.
    pub(crate) fn extend(&mut self, end: u64) {
        self.end = end;
    }

    /// The block's value in the file's tree.
    pub(crate) fn chaining_value(&self) -> ChainingValue {
        self.block.chaining_value
    }

    /// The next bytes, verified, as many as came at once; `None` at the end of the range. See
    /// [`VerifiedStream::next`] for `buffer`.
    ///
    /// Cancel-safe: nothing is lost but a connection.
    pub(crate) async fn next(
        &mut self,
        buffer: &mut BytesMut,
    ) -> Result<Option<Bytes>, ClientError> {
        while self.position < self.end {
            // Taken out while in use: if this future is dropped half-way, so is the stream.
            let mut stream = match self.stream.take() {
                Some(stream) => stream,
                None => match self.open_stream().await? {
                    Some(stream) => stream,
                    None => continue,
                },
            };
            match stream.next(buffer).await {
                Ok(Some(bytes)) => {
                    let start = stream.position() - bytes.len() as u64;
                    if stream.has_ended() {
                        self.values = stream.finish();
                    } else {
                        self.stream = Some(stream);
                    }
                    return Ok(Some(self.accept(start, bytes)));
                }
                Ok(None) => {} // It has ended, and is opened anew from where it did.
                Err(failure) => self.failed(failure).await,
            }
        }
        Ok(None)
    }

    /// The values of the groups that begin in `start..position`, which was read last.
    pub(crate) fn group_values(&self, start: u64) -> &[ChainingValue] {
        let values = self.stream.as_ref().map_or(&self.values, VerifiedStream::values);
        let group = |offset: u64| offset.div_ceil(GROUP_BYTES) as usize;
        values.of(group(start)..group(self.position))
    }

    /// Cuts off what was read only to verify the rest.
    fn accept(&mut self, start: u64, mut bytes: Bytes) -> Bytes {
        self.plan.progressed();
        self.file.note_verified(bytes.len() as u64);
        bytes.advance((self.position - start) as usize);
        bytes.truncate((self.end - self.position) as usize);
        self.position += bytes.len() as u64;
        bytes
    }

    /// Turns to the replica being read, or else to the next one; `None` if that failed, too.
    async fn open_stream(&mut self) -> Result<Option<VerifiedStream>, ClientError> {
        let node = match self.plan.current().cloned() {
            Some(node) => node,
            None => match self.plan.next() {
                ReadStep::Read(node) => node,
                ReadStep::Relocate => {
                    if self.plan.may_recover() {
                        tokio::time::sleep(RELOCATE_PAUSE).await;
                    }
                    self.block = self.file.relocate(self.block.index).await?;
                    self.plan.relocate(&self.block.replicas);
                    return Ok(None);
                }
                ReadStep::GiveUp(tried) => {
                    return Err(ClientError::BlockUnreadable {
                        path: self.file.path().to_string(),
                        block: self.block.id,
                        offset: self.block.offset + self.position,
                        tried,
                    });
                }
            },
        };
        if std::mem::take(&mut self.failed_over) {
            self.file.note_failover();
        }
        let range = self.position..self.end;
        let (streams, trace) = (&self.file.inner.streams, self.file.trace.as_str());
        match VerifiedStream::open(streams, &node.address, &self.block, range, trace).await {
            Ok(stream) => Ok(Some(stream)),
            Err(failure) => {
                self.failed(failure).await;
                Ok(None)
            }
        }
    }

    async fn failed(&mut self, mut failure: StreamFailure) {
        // The end of a file that is being written moves from node to node.
        failure.bad_data &= !(failure.missing && self.file.status.being_written);
        if let Some(node) = self.plan.current().cloned() {
            self.file.note_failure(&self.block, &node, &failure).await;
        }
        self.plan.failed(failure.cause, failure.bad_data);
        self.failed_over = true;
    }
}
