//! Which data folder takes a new block.
//!
//! The folder with the most free space for each writer that is busy on it: large and empty folders
//! fill first, and writers at the same time spread over the disks instead of queueing on the
//! emptiest.

use super::replica::VolumeIndex;

/// A data folder as the choice sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Which.
    pub(crate) volume: VolumeIndex,
    /// Bytes that new blocks may take: what is free, less the reserve and what writers were
    /// promised.
    pub(crate) available: u64,
    /// Blocks being received on it.
    pub(crate) writers: u64,
    /// Whether it returned I/O errors: it takes no new block.
    pub(crate) failed: bool,
}

/// The best folder for a block that needs `bytes` at once; `None` if none has room. Ties go to the
/// first.
pub(crate) fn choose(candidates: &[Candidate], bytes: u64) -> Option<VolumeIndex> {
    let fits = |candidate: &&Candidate| !candidate.failed && candidate.available >= bytes;
    let mut best: Option<(u64, VolumeIndex)> = None;
    for candidate in candidates.iter().filter(fits) {
        let share = candidate.available / (candidate.writers + 1);
        if best.is_none_or(|(most, _)| share > most) {
            best = Some((share, candidate.volume));
        }
    }
    best.map(|(_, volume)| volume)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(index: u16, available: u64, writers: u64) -> Candidate {
        Candidate { volume: VolumeIndex(index), available, writers, failed: false }
    }

    #[test]
    fn the_emptiest_folder_is_taken_until_its_writers_have_to_share() {
        let idle = [candidate(0, 100, 0), candidate(1, 150, 0)];
        assert_eq!(choose(&idle, 10), Some(VolumeIndex(1)));
        let busy = [candidate(0, 100, 0), candidate(1, 150, 1)];
        assert_eq!(choose(&busy, 10), Some(VolumeIndex(0)));
    }

    #[test]
    fn a_folder_that_failed_or_is_too_full_is_never_taken() {
        let failed = Candidate { failed: true, ..candidate(0, 100, 0) };
        assert_eq!(choose(&[failed, candidate(1, 9, 0)], 10), None);
        assert_eq!(choose(&[failed, candidate(1, 10, 5)], 10), Some(VolumeIndex(1)));
        assert_eq!(choose(&[], 0), None);
    }

    #[test]
    fn ties_go_to_the_first() {
        let equal = [candidate(0, 50, 0), candidate(1, 50, 0)];
        assert_eq!(choose(&equal, 1), Some(VolumeIndex(0)));
    }
}
