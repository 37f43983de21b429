//! The bytes of a file: as programs see them, and as a power loss would leave them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use doldam_runtime::random::{Random, SeededRandom};

/// What the page cache and the disk exchange.
pub(super) const PAGE_BYTES: usize = 4096;
/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

type Page = [u8; PAGE_BYTES];

static ZERO_PAGE: Page = [0; PAGE_BYTES];

/// A file's content. Pages of zeros are not kept, so that a preallocated file costs nothing.
#[derive(Debug, Clone)]
pub(super) struct Content {
    /// Unlike any other's of this process; for caches, never for anything that is seen.
    pub(super) id: u64,
    pages: BTreeMap<u64, Arc<Page>>,
    bytes: u64,
    durable_pages: BTreeMap<u64, Arc<Page>>,
    durable_bytes: u64,
    /// The lengths that a power loss may leave: none but what it had, or grew over, since it was durable.
    lengths: Vec<RangeInclusive<u64>>,
    dirty: BTreeSet<u64>,
    /// Counts the changes of the current bytes.
    pub(super) version: u64,
}

impl Default for Content {
    fn default() -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);
        Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            pages: BTreeMap::new(),
            bytes: 0,
            durable_pages: BTreeMap::new(),
            durable_bytes: 0,
            lengths: vec![0..=0],
            dirty: BTreeSet::new(),
            version: 0,
        }
    }
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.bytes
    }

    /// Bytes on the medium.
    pub(super) fn stored_bytes(&self) -> u64 {
        (self.pages.len() * PAGE_BYTES) as u64
    }

    /// Whether a power loss would change nothing.
    pub(super) fn is_durable(&self) -> bool {
        self.dirty.is_empty() && self.bytes == self.durable_bytes
    }

    /// Whether a power loss would change nothing of its first `length` bytes.
    pub(super) fn is_durable_to(&self, length: u64) -> bool {
        let page_of = |pages: &BTreeMap<u64, Arc<Page>>, page| {
            pages.get(&page).map_or(ZERO_PAGE, |bytes| **bytes)
        };
        let is_same = |page: u64| {
            let within = (length - page * PAGE_BYTES as u64).min(PAGE_BYTES as u64) as usize;
            page_of(&self.pages, page)[..within] == page_of(&self.durable_pages, page)[..within]
        };
        self.is_durable()
            || (length <= self.bytes.min(self.durable_bytes)
                && (0..length.div_ceil(PAGE_BYTES as u64)).all(is_same))
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let count = buffer.len().min(self.bytes.saturating_sub(offset) as usize);
        for (page, within, part) in spans(offset, count) {
            let bytes = self.pages.get(&page).map_or(&ZERO_PAGE, |page| &**page);
            let start = part.start;
            buffer[part]
                .copy_from_slice(&bytes[within..within + (count - start).min(PAGE_BYTES - within)]);
        }
        count
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        self.version += 1;
        for (page, within, part) in spans(offset, bytes.len()) {
            let part = &bytes[part];
            let is_zero = part == &ZERO_PAGE[..part.len()];
            if is_zero && (part.len() == PAGE_BYTES || !self.pages.contains_key(&page)) {
                self.pages.remove(&page);
            } else {
                let page = self.pages.entry(page).or_insert_with(|| Arc::new(ZERO_PAGE));
                Arc::make_mut(page)[within..within + part.len()].copy_from_slice(part);
            }
            self.dirty.insert(page);
        }
        let end = offset + bytes.len() as u64;
        if end > self.bytes {
            // Written in steps, so it grows in steps.
            match self.lengths.last_mut() {
                Some(last) if *last.end() == self.bytes => *last = *last.start()..=end,
                Some(_) | None => self.lengths.push(self.bytes..=end),
            }
            self.bytes = end;
        }
    }

    pub(super) fn set_len(&mut self, bytes: u64) {
        self.version += 1;
        if bytes < self.bytes {
            let beyond: Vec<u64> = self
                .pages
                .range(bytes.div_ceil(PAGE_BYTES as u64)..)
                .map(|(page, _)| *page)
                .collect();
            for page in beyond {
                self.pages.remove(&page);
                self.dirty.insert(page);
            }
            let within = (bytes % PAGE_BYTES as u64) as usize;
            if let Some(page) = self.pages.get_mut(&(bytes / PAGE_BYTES as u64)) {
                Arc::make_mut(page)[within..].fill(0);
                self.dirty.insert(bytes / PAGE_BYTES as u64);
            }
        }
        self.bytes = bytes;
        // Metadata, which changes in one step.
        self.lengths.push(bytes..=bytes);
    }

    /// Makes all of it durable.
    pub(super) fn sync(&mut self) {
        for page in std::mem::take(&mut self.dirty) {
            match self.pages.get(&page) {
                Some(bytes) => self.durable_pages.insert(page, Arc::clone(bytes)),
                None => self.durable_pages.remove(&page),
            };
        }
        self.durable_bytes = self.bytes;
        self.lengths = vec![self.bytes..=self.bytes];
    }

    /// A sync that fails: what was not durable can still be read and will never be.
    pub(super) fn fail_sync(&mut self) {
        self.dirty.clear();
    }

    /// Changes one bit, durably, as a failing medium does.
    pub(super) fn flip(&mut self, offset: u64, bit: u8) {
        let (page, within) = (offset / PAGE_BYTES as u64, (offset % PAGE_BYTES as u64) as usize);
        for pages in [&mut self.pages, &mut self.durable_pages] {
            let page = pages.entry(page).or_insert_with(|| Arc::new(ZERO_PAGE));
            Arc::make_mut(page)[within] ^= 1 << (bit % 8);
        }
        self.version += 1;
    }

    /// Loses power: of what was not durable each sector is lost or kept by itself, and so is the length.
    pub(super) fn lose_power(&mut self, chance: &SeededRandom) {
        self.version += 1;
        let mut pages = std::mem::take(&mut self.durable_pages);
        let fate = chance.below(4); // Nothing, everything, or each sector by itself.
        for page in std::mem::take(&mut self.dirty) {
            let new = self.pages.get(&page).map_or(&ZERO_PAGE, |page| &**page);
            let old = Arc::make_mut(pages.entry(page).or_insert_with(|| Arc::new(ZERO_PAGE)));
            for (old, new) in old.chunks_mut(SECTOR_BYTES).zip(new.chunks(SECTOR_BYTES)) {
                if fate == 1 || (fate > 1 && chance.below(2) == 0) {
                    old.copy_from_slice(new);
                }
            }
        }
        let bytes = match fate {
            0 => self.durable_bytes,
            1 => self.bytes,
            _ => {
                let had = &self.lengths[chance.below(self.lengths.len() as u64) as usize];
                let between = had.start() + chance.below(had.end() - had.start() + 1);
                [self.durable_bytes, self.bytes, between][chance.below(3) as usize]
            }
        };
        (self.pages, self.bytes) = (pages, u64::MAX);
        self.set_len(bytes);
        self.pages.retain(|_, page| **page != ZERO_PAGE);
        self.dirty.clear();
        (self.durable_pages, self.durable_bytes) = (self.pages.clone(), self.bytes);
        self.lengths = vec![bytes..=bytes];
    }
}

/// The pages that `count` bytes at `offset` touch: number, offset within it, and which of the bytes.
fn spans(offset: u64, count: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        (done < count).then(|| {
            let at = offset + done as u64;
            let within = (at % PAGE_BYTES as u64) as usize;
            let part = done..count.min(done + PAGE_BYTES - within);
            done = part.end;
            (at / PAGE_BYTES as u64, within, part)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_loss_leaves_of_each_sector_the_old_bytes_or_the_new() {
        for seed in 0..200 {
            let mut content = Content::default();
            content.write(&[1; 9000], 0);
            content.sync();
            content.write(&[2; 3000], 3000);
            content.lose_power(&SeededRandom::new(seed));
            let mut bytes = [0; 9000];
            assert_eq!(content.read(&mut bytes, 0), 9000);
            for (index, byte) in bytes.iter().enumerate() {
                let changed = (3000..6000).contains(&index);
                assert!(*byte == 1 || (changed && *byte == 2), "byte {index} is {byte}");
            }
        }
    }

    #[test]
    fn a_power_loss_leaves_a_length_that_the_file_had_or_grew_over() {
        let mut left = BTreeSet::new();
        for seed in 0..400 {
            let mut content = Content::default();
            content.write(&[1; 10], 0);
            content.sync();
            content.write(&[2; 3], 10);
            content.set_len(100);
            content.set_len(50);
            content.lose_power(&SeededRandom::new(seed));
            left.insert(content.len());
        }
        assert_eq!(left, BTreeSet::from([10, 11, 12, 13, 50, 100]));
    }

    #[test]
    fn what_a_failed_sync_dropped_is_read_until_the_power_goes_and_never_after() {
        let mut content = Content::default();
        content.write(b"old", 0);
        content.sync();
        content.write(b"new", 0);
        content.fail_sync();
        content.sync();
        let mut bytes = [0; 3];
        content.read(&mut bytes, 0);
        assert_eq!(&bytes, b"new");
        content.lose_power(&SeededRandom::new(1));
        content.read(&mut bytes, 0);
        assert_eq!(&bytes, b"old");
    }
}
