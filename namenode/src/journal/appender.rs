//! Writes batches to the newest segment and begins the next one when it is full. No threads here.

use std::path::PathBuf;
use std::sync::Arc;

use doldam_proto::id::{Epoch, JournalIndex};
use doldam_runtime::disk::Disk;

use super::JournalError;
use super::keeper::{SegmentList, Spares};
use super::record::{self, Record};
use super::segment::{Mark, Segment, SegmentHeader};

/// Most records of one batch: their distance from the last acknowledged one has 16 bits.
pub(super) const BATCH_RECORDS_MAX: usize = u16::MAX as usize;

/// The writing end of a journal, used by one thread.
pub(super) struct Appender {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) spares: Arc<Spares>,
    pub(super) list: Arc<SegmentList>,
    pub(super) segment: Segment,
    /// Where the next record goes.
    pub(super) position: u64,
    /// The last record; it is durable.
    pub(super) last: JournalIndex,
    /// The newest epoch.
    pub(super) epoch: Epoch,
    /// Reused for every batch.
    pub(super) buffer: Vec<u8>,
}

impl Appender {
    /// Begins a journal in an empty folder.
    pub(super) fn begin(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        spares: Arc<Spares>,
        epoch: Epoch,
    ) -> Result<Self, JournalError> {
        let prepared = spares.take()?;
        let header =
            SegmentHeader { number: 1, first_index: JournalIndex(1), epoch, bytes: prepared.bytes };
        let segment = Segment::publish(disk.as_ref(), &dir, prepared, header)?;
        let segments = vec![(header.number, header.first_index)];
        let list = Arc::new(SegmentList::new(Arc::clone(&disk), dir.clone(), segments));
        Ok(Self {
            disk,
            dir,
            spares,
            list,
            segment,
            position: super::segment::RECORDS_START,
            last: JournalIndex(0),
            epoch,
            buffer: Vec::new(),
        })
    }

    /// Writes `batch` with one write and one sync; returns the bytes it took. The records follow
    /// the last one, and all of them fit one segment.
    ///
    /// # Errors
    /// If the medium fails. Nothing may be appended after that.
    pub(super) fn append(&mut self, batch: &[Record]) -> Result<usize, JournalError> {
        let Some(newest) = batch.last() else { return Ok(0) };
        self.buffer.clear();
        for (distance, record) in (1..=u16::MAX).zip(batch) {
            record::encode(record, distance, &mut self.buffer);
        }
        let batch_bytes = self.buffer.len() as u64;
        if self.position + batch_bytes > self.segment.header.bytes {
            self.rotate()?;
        }
        self.segment
            .file
            .write_all_at(&self.buffer, self.position)
            .map_err(JournalError::io("writing", &self.segment.path))?;
        self.segment.sync()?;
        self.position += batch_bytes;
        self.last = newest.index;
        self.epoch = newest.epoch;
        Ok(self.buffer.len())
    }

    /// Whether the mark lags behind.
    pub(super) fn is_marked(&self) -> bool {
        self.segment.mark.acknowledged == self.last
    }

    /// Makes durable that all up to the last record was acknowledged.
    ///
    /// # Errors
    /// If the medium fails. Nothing may be appended after that.
    pub(super) fn mark(&mut self) -> Result<(), JournalError> {
        self.write_mark(false)
    }

    fn write_mark(&mut self, sealed: bool) -> Result<(), JournalError> {
        self.segment.write_mark(Mark { epoch: self.epoch, acknowledged: self.last, sealed })?;
        self.segment.sync()
    }

    /// Begins the next segment. The old one is sealed after: a sealed one without a next is damage.
    fn rotate(&mut self) -> Result<(), JournalError> {
        let prepared = self.spares.take()?;
        let header = SegmentHeader {
            number: self.segment.header.number + 1,
            first_index: self.last.next(),
            epoch: self.epoch,
            bytes: prepared.bytes,
        };
        let next = Segment::publish(self.disk.as_ref(), &self.dir, prepared, header)?;
        self.list.push(header.number, header.first_index);
        self.write_mark(true)?;
        self.segment = next;
        self.position = super::segment::RECORDS_START;
        Ok(())
    }
}
