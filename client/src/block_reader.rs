//! Reads a range of one block, from whichever replica proves its bytes, and goes on elsewhere from the exact byte
//! where one failed or is late.

mod race;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use doldam_proto::block::LocatedBlock;
use doldam_proto::digest::ChainingValue;
use doldam_proto::limits::GROUP_BYTES;

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
    block: Arc<LocatedBlock>,
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
        let plan = ReadPlan::new(file.ordered(&block));
        let block = Arc::new(block);
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
            if self.turn_to_replica().await?
                && let Some((start, bytes)) = self.race(buffer).await
            {
                return Ok(Some(self.accept(start, bytes)));
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
        self.file.note_verified(bytes.len() as u64);
        bytes.advance((self.position - start) as usize);
        bytes.truncate((self.end - self.position) as usize);
        self.position += bytes.len() as u64;
        bytes
    }

    /// Makes sure that there is a replica being read; false if the locations had to be asked for again.
    async fn turn_to_replica(&mut self) -> Result<bool, ClientError> {
        if self.plan.current().is_some() {
            return Ok(true);
        }
        self.file.order(self.plan.line_mut());
        match self.plan.next() {
            ReadStep::Read(_) => {
                if std::mem::take(&mut self.failed_over) {
                    self.file.note_failover();
                }
                Ok(true)
            }
            ReadStep::Relocate => {
                if self.plan.may_recover() {
                    tokio::time::sleep(RELOCATE_PAUSE).await;
                }
                let block = self.file.relocate(self.block.index).await?;
                self.plan.relocate(self.file.ordered(&block));
                self.block = Arc::new(block);
                Ok(false)
            }
            ReadStep::GiveUp(tried) => Err(ClientError::BlockUnreadable {
                path: self.file.path().to_string(),
                block: self.block.id,
                offset: self.block.offset + self.position,
                tried,
            }),
        }
    }
}
