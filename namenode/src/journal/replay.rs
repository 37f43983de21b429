//! Reads a journal from one record on to its end, in bounded memory, and makes the end fit for
//! writing.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use doldam_proto::id::{Epoch, JournalIndex};
use doldam_runtime::disk::Disk;

use super::JournalError;
use super::record::{self, AtBody, AtHeader, HEADER_BYTES, Header, RecordRef};
use super::segment::{self, RECORDS_START, Segment};
use super::tail::{self, Stop, Tail};
use super::window::Window;

/// Streams the records of a journal. Call [`next_record`](Self::next_record) until it has none,
/// then [`finish`](Self::finish).
pub struct Replay {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// The first record the caller wants.
    from: JournalIndex,
    /// Number and first record of every segment.
    segments: Vec<(u64, JournalIndex)>,
    /// Place in `segments` of the one being read.
    current: usize,
    /// `None` if the journal is empty.
    segment: Option<Segment>,
    window: Window,
    position: u64,
    /// The record at `position`.
    expected: JournalIndex,
    epoch: Epoch,
    acknowledged: JournalIndex,
    /// Where the last batch of the current segment begins.
    batch_start: u64,
    /// Where the newest segment's records end, and what a crash left behind them; known early.
    end: Option<End>,
    last_index: JournalIndex,
    last_epoch: Epoch,
    cut: Option<CutTail>,
}

#[derive(Debug, Clone, Copy)]
struct End {
    position: u64,
    leftover: u64,
}

/// What a crash left of records that were never acknowledged, and that was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutTail {
    /// Of which segment.
    pub path: PathBuf,
    /// From where on.
    pub offset: u64,
    /// How much.
    pub bytes: u64,
}

/// The end of a journal that was read, fit for writing: see [`start`](super::start).
pub struct JournalEnd {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    pub(super) segments: Vec<(u64, JournalIndex)>,
    pub(super) segment: Option<Segment>,
    pub(super) position: u64,
    pub(super) last_index: JournalIndex,
    pub(super) last_epoch: Epoch,
    cut: Option<CutTail>,
}

impl fmt::Debug for JournalEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("JournalEnd")
            .field("last_index", &self.last_index)
            .field("last_epoch", &self.last_epoch)
            .field("cut", &self.cut)
            .finish_non_exhaustive()
    }
}

impl JournalEnd {
    /// The last record; 0 if there is none.
    pub const fn last_index(&self) -> JournalIndex {
        self.last_index
    }

    /// The newest epoch in which the journal was written; 0 if it never was. A new run takes a
    /// greater one.
    pub const fn last_epoch(&self) -> Epoch {
        self.last_epoch
    }

    /// What was cut off; worth a line in the log.
    pub const fn cut_tail(&self) -> Option<&CutTail> {
        self.cut.as_ref()
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Replay")
            .field("segment", &self.segment)
            .field("position", &self.position)
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

impl Replay {
    /// Opens the journal in the folder `dir` to read it from the record `from` on: the first one
    /// that the state does not have. An empty folder is an empty journal.
    ///
    /// Makes its end fit first: what a crash left behind the last record is erased, and records
    /// that are not known to be durable are written again and synced. What is read after can no
    /// longer vanish.
    ///
    /// # Errors
    /// If the medium fails, segments are missing, damaged or of another version, or the journal
    /// does not have the records that the state needs, or lacks some that the state has. Nothing
    /// was changed then.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, from: JournalIndex) -> Result<Self, JournalError> {
        let segments = read_headers(disk.as_ref(), dir)?;
        let dir = dir.to_owned();
        if let Some((_, first)) = segments.first().copied()
            && first > from
        {
            return Err(JournalError::MissingStart { dir, first, needed: from });
        }
        let mut replay = Self {
            disk,
            dir,
            from,
            current: segments.len().saturating_sub(1),
            segments,
            segment: None,
            window: Window::default(),
            position: RECORDS_START,
            expected: JournalIndex(1),
            epoch: Epoch(0),
            acknowledged: JournalIndex(0),
            batch_start: RECORDS_START,
            end: None,
            last_index: JournalIndex(0),
            last_epoch: Epoch(0),
            cut: None,
        };
        replay.find_end()?;
        replay.mend_end()?;
        replay.go_to_start()?;
        Ok(replay)
    }

    /// Reads the newest segment to its end.
    fn find_end(&mut self) -> Result<(), JournalError> {
        if !self.segments.is_empty() {
            self.enter(self.current)?;
            while self.step()?.is_some() {}
        }
        self.last_index = JournalIndex(self.expected.0 - 1);
        let marked = self.segment.as_ref().map(|segment| segment.mark.epoch);
        self.last_epoch = self.epoch.max(marked.unwrap_or_default());
        if self.expected < self.from {
            let (dir, last, needed) = (self.dir.clone(), self.last_index, self.from);
            return Err(JournalError::MissingEnd { dir, last, needed });
        }
        Ok(())
    }

    fn mend_end(&mut self) -> Result<(), JournalError> {
        let (Some(segment), Some(end)) = (&self.segment, self.end) else { return Ok(()) };
        let is_sure = self.acknowledged >= self.last_index;
        if is_sure && end.leftover == end.position {
            return Ok(());
        }
        let again = if is_sure { end.position } else { self.batch_start };
        let file = segment.file.as_ref();
        tail::write_again(file, again, end.position)
            .and_then(|()| tail::erase(file, end.position, end.leftover))
            .and_then(|()| file.sync_data())
            .map_err(JournalError::io("mending the end of", &segment.path))?;
        self.cut = (end.leftover > end.position).then(|| CutTail {
            path: segment.path.clone(),
            offset: end.position,
            bytes: end.leftover - end.position,
        });
        Ok(())
    }

    fn go_to_start(&mut self) -> Result<(), JournalError> {
        if self.segments.is_empty() {
            return Ok(());
        }
        self.epoch = Epoch(0);
        self.enter(self.segments.partition_point(|(_, first)| *first <= self.from) - 1)
    }

    fn enter(&mut self, place: usize) -> Result<(), JournalError> {
        let segment = Segment::open(self.disk.as_ref(), &self.dir, self.segments[place].0)?;
        self.current = place;
        self.expected = segment.header.first_index;
        self.epoch = self.epoch.max(segment.header.epoch);
        self.acknowledged = self.acknowledged.max(segment.mark.acknowledged);
        self.position = RECORDS_START;
        self.batch_start = RECORDS_START;
        self.window.clear();
        self.segment = Some(segment);
        Ok(())
    }

    /// The last record there is.
    pub const fn last_index(&self) -> JournalIndex {
        self.last_index
    }

    /// The next record, or `None` at the end of the journal.
    ///
    /// # Errors
    /// If the medium fails or the journal is damaged. It stays so: nothing of it may be used.
    pub fn next_record(&mut self) -> Result<Option<RecordRef<'_>>, JournalError> {
        while let Some(header) = self.step()? {
            if header.index >= self.from {
                // The window still holds the record `step` has checked, and moved behind.
                let start = self.position - header.extent_bytes() as u64;
                let payload = self.window.held(start + HEADER_BYTES as u64, header.payload_bytes);
                return Ok(Some(RecordRef { index: header.index, epoch: header.epoch, payload }));
            }
        }
        Ok(None)
    }

    /// Reads and checks the record at `position`, whatever segment it is in, and moves behind it.
    fn step(&mut self) -> Result<Option<Header>, JournalError> {
        loop {
            let Some(segment) = &self.segment else { return Ok(None) };
            let next = self.segments.get(self.current + 1).copied();
            if next.is_none() && self.end.is_some_and(|end| end.position == self.position) {
                return Ok(None);
            }
            let stop = match read_record(segment, &mut self.window, self.position)? {
                Ok(header) => {
                    self.check_sequence(&header)?;
                    return Ok(Some(self.advance(header)));
                }
                Err(stop) => stop,
            };
            match next {
                Some((_, first)) if first == self.expected => self.enter(self.current + 1)?,
                Some(_) => {
                    let what = match stop {
                        Stop::Damaged(what) => what,
                        Stop::Empty | Stop::Torn => "records before the next segment are missing",
                    };
                    return Err(self.damaged(what));
                }
                None => {
                    let leftover = self.judge_tail(segment, stop)?;
                    self.end = Some(End { position: self.position, leftover });
                }
            }
        }
    }

    fn advance(&mut self, header: Header) -> Header {
        if header.acknowledged.next() == header.index {
            self.batch_start = self.position;
        }
        self.acknowledged = self.acknowledged.max(header.acknowledged);
        self.epoch = header.epoch;
        self.expected = header.index.next();
        self.position += header.extent_bytes() as u64;
        header
    }

    fn check_sequence(&self, header: &Header) -> Result<(), JournalError> {
        if header.index != self.expected {
            return Err(self.damaged("another record stands in its place"));
        }
        if header.epoch < self.epoch {
            return Err(self.damaged("the record is of an earlier epoch than the one before"));
        }
        Ok(())
    }

    fn damaged(&self, what: &'static str) -> JournalError {
        let path = self.segment.as_ref().map_or(&self.dir, |segment| &segment.path);
        JournalError::damaged(path, self.position, self.expected, what)
    }

    fn judge_tail(&self, segment: &Segment, stop: Stop) -> Result<u64, JournalError> {
        if segment.mark.sealed {
            let what = "the segment was sealed, but there is no next one";
            return Err(self.damaged(what));
        }
        let (position, expected, acknowledged) = (self.position, self.expected, self.acknowledged);
        Tail { segment, position, expected, acknowledged, stop }.judge()
    }

    /// The end of the journal, to go on writing there. Reads and checks what
    /// [`next_record`](Self::next_record) was not asked for.
    ///
    /// # Errors
    /// If the medium fails or the journal is damaged.
    pub fn finish(mut self) -> Result<JournalEnd, JournalError> {
        while self.step()?.is_some() {}
        Ok(JournalEnd {
            disk: self.disk,
            dir: self.dir,
            segments: self.segments,
            segment: self.segment,
            position: self.position,
            last_index: self.last_index,
            last_epoch: self.last_epoch,
            cut: self.cut,
        })
    }
}

/// Number and first record of each segment, in order and without gaps.
fn read_headers(disk: &dyn Disk, dir: &Path) -> Result<Vec<(u64, JournalIndex)>, JournalError> {
    let mut segments: Vec<(u64, JournalIndex)> = Vec::new();
    for number in segment::list(disk, dir)? {
        let first_index = Segment::open(disk, dir, number)?.header.first_index;
        if let Some((before, first_before)) = segments.last() {
            if number != before + 1 {
                let missing = segment::path_of(dir, before + 1);
                let what = "the segment is missing";
                return Err(JournalError::damaged(&missing, 0, *first_before, what));
            }
            if first_index < *first_before {
                let path = segment::path_of(dir, number);
                let what = "the segment begins before the one before it";
                return Err(JournalError::damaged(&path, 0, first_index, what));
            }
        }
        segments.push((number, first_index));
    }
    Ok(segments)
}

/// Reads and checks the record at `position`, or says why there is none.
fn read_record(
    segment: &Segment,
    window: &mut Window,
    position: u64,
) -> Result<Result<Header, Stop>, JournalError> {
    let room = segment.header.bytes - position;
    if room < HEADER_BYTES as u64 {
        return Ok(Err(Stop::Empty));
    }
    let bytes = window.read(segment, position, HEADER_BYTES)?;
    let header = match bytes.first_chunk().map(record::parse_header) {
        Some(AtHeader::Header(header)) => header,
        Some(AtHeader::Empty) | None => return Ok(Err(Stop::Empty)),
        Some(AtHeader::Torn) => return Ok(Err(Stop::Torn)),
        Some(AtHeader::Damaged(what)) => return Ok(Err(Stop::Damaged(what))),
    };
    if header.extent_bytes() as u64 > room {
        return Ok(Err(Stop::Damaged("the record is longer than its segment")));
    }
    let extent = window.read(segment, position, header.extent_bytes())?;
    Ok(match record::check_body(&header, extent, position) {
        AtBody::Whole => Ok(header),
        AtBody::Torn => Err(Stop::Torn),
        AtBody::Damaged(what) => Err(Stop::Damaged(what)),
    })
}
