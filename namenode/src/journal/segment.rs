//! One file of the journal: its name, its header, and its mark of what was acknowledged.
//!
//! A segment has its full length, filled with zeros and durable, before it gets its name: from then
//! on appending changes neither length nor allocation, and a file that is shorter is damaged, never
//! young. The layout stands byte by byte in `docs/formats.md`.

use std::path::{Path, PathBuf};

use doldam_proto::id::{Epoch, JournalIndex};
use doldam_runtime::disk::{Disk, DiskFile, OpenMode};

use super::JournalError;
use super::record::SECTOR_BYTES;

/// Version of the format.
pub(super) const FORMAT_VERSION: u32 = 1;
/// Where the records begin.
pub(super) const RECORDS_START: u64 = 4096;
/// Lengths of segments are multiples of this.
pub(super) const SEGMENT_GRAIN_BYTES: u64 = 4096;
/// Longest segment that is believed.
pub(super) const SEGMENT_BYTES_MAX: u64 = 4 << 30;

const MAGIC: [u8; 4] = *b"DLDJ";
const MARK_MAGIC: [u8; 4] = *b"DLDM";
const MARK_OFFSETS: [u64; 2] = [SECTOR_BYTES as u64, 2 * SECTOR_BYTES as u64];
const MARK_BYTES: usize = 32;
const SUFFIX: &str = ".journal";
/// Ends the name of a segment that is being prepared; of no value after a crash.
const SPARE_SUFFIX: &str = ".new";

/// What the header of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Counts the segments of a journal from 1.
    pub(super) number: u64,
    /// Place of its first record. Everything before is in earlier segments, in full.
    pub(super) first_index: JournalIndex,
    /// When it was begun.
    pub(super) epoch: Epoch,
    /// Length of the file.
    pub(super) bytes: u64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SECTOR_BYTES] {
        let mut sector = [0; SECTOR_BYTES];
        sector[..4].copy_from_slice(&MAGIC);
        sector[4..8].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        let numbers = [self.number, self.first_index.0, self.epoch.0, self.bytes];
        for (field, number) in sector[8..40].as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *field = number.to_le_bytes();
        }
        let crc = crc32c::crc32c(&sector[..SECTOR_BYTES - 4]);
        sector[SECTOR_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        sector
    }

    /// Reads the header of the file at `path`.
    pub(super) fn decode(sector: &[u8; SECTOR_BYTES], path: &Path) -> Result<Self, JournalError> {
        let damaged = |what| JournalError::damaged(path, 0, JournalIndex(0), what);
        let (words, _) = sector.as_chunks::<4>();
        if words[0] != MAGIC {
            return Err(damaged("the file does not begin like a journal segment"));
        }
        let crc = crc32c::crc32c(&sector[..SECTOR_BYTES - 4]);
        if words[SECTOR_BYTES / 4 - 1] != crc.to_le_bytes() {
            return Err(damaged("the header of the segment does not match its checksum"));
        }
        let found = u32::from_le_bytes(words[1]);
        if found != FORMAT_VERSION {
            let path = path.to_owned();
            return Err(JournalError::UnknownVersion { path, found, known: FORMAT_VERSION });
        }
        let number = |at: usize| u64::from_le_bytes(sector[8..40].as_chunks::<8>().0[at]);
        let header = Self {
            number: number(0),
            first_index: JournalIndex(number(1)),
            epoch: Epoch(number(2)),
            bytes: number(3),
        };
        let sound = header.first_index.0 > 0
            && header.bytes > RECORDS_START
            && header.bytes <= SEGMENT_BYTES_MAX
            && header.bytes.is_multiple_of(SEGMENT_GRAIN_BYTES);
        if sound { Ok(header) } else { Err(damaged("the header of the segment makes no sense")) }
    }
}

/// What is known to be durable, written now and then behind the records: a lower bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Mark {
    /// The newest epoch in which the journal was written.
    pub(super) epoch: Epoch,
    /// The last record known to be durable.
    pub(super) acknowledged: JournalIndex,
    /// Whether there is a next segment.
    pub(super) sealed: bool,
}

impl Mark {
    pub(super) fn encode(&self) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        bytes[..4].copy_from_slice(&MARK_MAGIC);
        bytes[8..16].copy_from_slice(&self.acknowledged.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes[24] = u8::from(self.sealed);
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` for a mark that was never written, or not in full: the other one counts then.
    pub(super) fn decode(bytes: &[u8; MARK_BYTES]) -> Option<Self> {
        let (words, _) = bytes.as_chunks::<4>();
        let (longs, _) = bytes.as_chunks::<8>();
        let crc = crc32c::crc32c(&bytes[8..]);
        (words[0] == MARK_MAGIC && words[1] == crc.to_le_bytes()).then(|| Self {
            acknowledged: JournalIndex(u64::from_le_bytes(longs[1])),
            epoch: Epoch(u64::from_le_bytes(longs[2])),
            sealed: bytes[24] != 0,
        })
    }
}

/// Path of a segment.
pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}{SUFFIX}"))
}

/// The number in a segment's name; `None` if it is not the name of one.
pub(super) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    (format!("{number:016x}") == digits).then_some(number)
}

/// An open segment.
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    pub(super) file: Box<dyn DiskFile>,
    /// The mark that counts.
    pub(super) mark: Mark,
    /// Which of the two places it stands in; the next one goes to the other.
    mark_place: usize,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Segment")
            .field("path", &self.path)
            .field("header", &self.header)
            .field("mark", &self.mark)
            .finish_non_exhaustive()
    }
}

impl Segment {
    /// Opens the segment `number` and checks its header and length.
    pub(super) fn open(disk: &dyn Disk, dir: &Path, number: u64) -> Result<Self, JournalError> {
        let path = path_of(dir, number);
        let file = disk.open(&path, OpenMode::Write).map_err(JournalError::io("opening", &path))?;
        let bytes = file.len().map_err(JournalError::io("measuring", &path))?;
        if bytes < RECORDS_START {
            return Err(JournalError::damaged(
                &path,
                bytes,
                JournalIndex(0),
                "the file is cut off",
            ));
        }
        let mut sector = [0; SECTOR_BYTES];
        file.read_exact_at(&mut sector, 0).map_err(JournalError::io("reading", &path))?;
        let header = SegmentHeader::decode(&sector, &path)?;
        if header.number != number {
            let what = "the number in the header is not the one in the name";
            return Err(JournalError::damaged(&path, 0, header.first_index, what));
        }
        if header.bytes != bytes {
            let what = "the file does not have the length that its header says";
            return Err(JournalError::damaged(&path, bytes, header.first_index, what));
        }
        let (mark, mark_place) = read_marks(file.as_ref(), &path)?;
        Ok(Self { path, header, file, mark, mark_place })
    }

    /// Gives a prepared file its header and its name. `prepared` holds zeros only.
    pub(super) fn publish(
        disk: &dyn Disk,
        dir: &Path,
        prepared: Prepared,
        header: SegmentHeader,
    ) -> Result<Self, JournalError> {
        let Prepared { file, path: aside, .. } = prepared;
        let path = path_of(dir, header.number);
        let mark = Mark {
            epoch: header.epoch,
            acknowledged: JournalIndex(header.first_index.0 - 1),
            sealed: false,
        };
        let io = JournalError::io("beginning", &path);
        file.write_all_at(&header.encode(), 0)
            .and_then(|()| file.write_all_at(&mark.encode(), MARK_OFFSETS[0]))
            .and_then(|()| file.sync_data())
            .and_then(|()| disk.rename(&aside, &path))
            .and_then(|()| disk.sync_dir(dir))
            .map_err(io)?;
        Ok(Self { path, header, file, mark, mark_place: 0 })
    }

    /// Writes `mark` to the place of the older one; durable with the next sync.
    pub(super) fn write_mark(&mut self, mark: Mark) -> Result<(), JournalError> {
        let place = 1 - self.mark_place;
        self.file
            .write_all_at(&mark.encode(), MARK_OFFSETS[place])
            .map_err(JournalError::io("marking", &self.path))?;
        self.mark = mark;
        self.mark_place = place;
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), JournalError> {
        self.file.sync_data().map_err(JournalError::io("syncing", &self.path))
    }
}

fn read_marks(file: &dyn DiskFile, path: &Path) -> Result<(Mark, usize), JournalError> {
    let mut best = None;
    for (place, offset) in MARK_OFFSETS.into_iter().enumerate() {
        let mut bytes = [0; MARK_BYTES];
        file.read_exact_at(&mut bytes, offset).map_err(JournalError::io("reading", path))?;
        best = best.max(Mark::decode(&bytes).map(|mark| (mark, place)));
    }
    Ok(best.unwrap_or_default())
}

/// A file of full length, all zeros and durable, under a name of its own.
pub(super) struct Prepared {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    pub(super) bytes: u64,
}

impl Prepared {
    /// Prepares a file of `bytes`: slow, for it writes them all. `number` tells it from others.
    pub(super) fn create(
        disk: &dyn Disk,
        dir: &Path,
        number: u64,
        bytes: u64,
    ) -> Result<Self, JournalError> {
        let path = dir.join(format!("{number:016x}{SPARE_SUFFIX}"));
        let file =
            disk.open(&path, OpenMode::CreateNew).map_err(JournalError::io("creating", &path))?;
        file.preallocate_zeroed(bytes)
            .and_then(|()| file.sync_all())
            .map_err(JournalError::io("preparing", &path))?;
        Ok(Self { file, path, bytes })
    }
}

/// The numbers of the segments in `dir`, in order. Removes what a crash left of segments in
/// preparation.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>, JournalError> {
    let mut numbers = Vec::new();
    for entry in disk.list(dir).map_err(JournalError::io("listing", dir))? {
        if let Some(number) = number_of(&entry.name) {
            numbers.push(number);
        } else if entry.name.ends_with(SPARE_SUFFIX) {
            let path = dir.join(&entry.name);
            disk.remove_file(&path).map_err(JournalError::io("removing", &path))?;
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader =
        SegmentHeader { number: 3, first_index: JournalIndex(77), epoch: Epoch(5), bytes: 8192 };

    #[test]
    fn a_header_comes_back_and_no_flipped_bit_passes() {
        let path = Path::new("x");
        let sector = HEADER.encode();
        assert_eq!(SegmentHeader::decode(&sector, path).unwrap(), HEADER);
        for bit in 0..SECTOR_BYTES * 8 {
            let mut flipped = sector;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&flipped, path).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_header_of_another_version_is_refused_with_both_versions() {
        let mut sector = HEADER.encode();
        sector[4] = 9;
        let crc = crc32c::crc32c(&sector[..SECTOR_BYTES - 4]);
        sector[SECTOR_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        let error = SegmentHeader::decode(&sector, Path::new("seg")).unwrap_err();
        assert_eq!(error.to_string(), "seg has format version 9; this program knows 1");
    }

    #[test]
    fn a_mark_comes_back_and_no_flipped_bit_passes() {
        let mark = Mark { epoch: Epoch(2), acknowledged: JournalIndex(9), sealed: true };
        let bytes = mark.encode();
        assert_eq!(Mark::decode(&bytes), Some(mark));
        for bit in 0..MARK_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Mark::decode(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn names_are_read_strictly() {
        assert_eq!(number_of("00000000000000ff.journal"), Some(255));
        for other in
            ["ff.journal", "00000000000000FF.journal", "00000000000000ff", "00000000000000ff.new"]
        {
            assert_eq!(number_of(other), None, "{other}");
        }
    }
}
