//! Cuts ranges of a file at its blocks, and joins ranges that are close enough to be read together.

use std::ops::Range;

/// The part of a range that lies in one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Position of the block in the file.
    pub(crate) index: u32,
    /// The part, in bytes of the block.
    pub(crate) range: Range<u64>,
}

/// Cuts `range` of a file at its blocks; nothing for an empty range.
pub(crate) fn segments(range: Range<u64>, block_bytes: u64) -> impl Iterator<Item = Segment> {
    let mut position = range.start;
    std::iter::from_fn(move || {
        if position >= range.end {
            return None;
        }
        let index = position / block_bytes;
        let block_start = index * block_bytes;
        let end = range.end.min(block_start + block_bytes);
        let segment =
            Segment { index: index as u32, range: position - block_start..end - block_start };
        position = end;
        Some(segment)
    })
}

/// A range to fetch, and which of the ranges asked for lie in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    /// What to fetch.
    pub(crate) range: Range<u64>,
    /// Positions in the list of what was asked for.
    pub(crate) parts: Vec<usize>,
}

/// Joins `ranges` that overlap or are at most `gap` bytes apart, as long as the whole stays within `bytes_max`
/// (a single range may be larger). Empty ranges are left out.
pub(crate) fn join(ranges: &[Range<u64>], gap: u64, bytes_max: u64) -> Vec<Joined> {
    let mut order: Vec<usize> = (0..ranges.len()).filter(|&at| !ranges[at].is_empty()).collect();
    order.sort_by_key(|&at| (ranges[at].start, ranges[at].end, at));
    let mut joined: Vec<Joined> = Vec::new();
    for at in order {
        let range = &ranges[at];
        match joined.last_mut() {
            Some(last)
                if range.start <= last.range.end.saturating_add(gap)
                    && (range.end <= last.range.end
                        || range.end - last.range.start <= bytes_max) =>
            {
                last.range.end = last.range.end.max(range.end);
                last.parts.push(at);
            }
            _ => joined.push(Joined { range: range.clone(), parts: vec![at] }),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment(index: u32, range: Range<u64>) -> Segment {
        Segment { index, range }
    }

    #[test]
    fn a_range_is_cut_where_blocks_meet() {
        let cut = |range| segments(range, 100).collect::<Vec<_>>();
        assert_eq!(cut(0..100), [segment(0, 0..100)]);
        assert_eq!(cut(99..101), [segment(0, 99..100), segment(1, 0..1)]);
        assert_eq!(cut(250..250), []);
        assert_eq!(cut(150..400), [segment(1, 50..100), segment(2, 0..100), segment(3, 0..100)]);
    }

    #[test]
    fn ranges_are_joined_up_to_the_gap_and_the_bound_and_no_further() {
        let parts = |range: Range<u64>, parts: &[usize]| Joined { range, parts: parts.to_vec() };
        assert_eq!(join(&[20..30, 0..10], 10, 100), [parts(0..30, &[1, 0])]);
        assert_eq!(join(&[21..30, 0..10], 10, 100), [parts(0..10, &[1]), parts(21..30, &[0])]);
        assert_eq!(join(&[0..10, 10..30], 0, 30), [parts(0..30, &[0, 1])]);
        assert_eq!(join(&[0..10, 10..31], 0, 30), [parts(0..10, &[0]), parts(10..31, &[1])]);
        assert_eq!(join(&[5..5, 0..90], 0, 30), [parts(0..90, &[1])]);
        assert_eq!(join(&[0..90, 10..20], 0, 30), [parts(0..90, &[0, 1])]);
    }

    proptest! {
        #[test]
        fn segments_follow_each_other_and_cover_the_range(
            start in 0_u64..1000, length in 0_u64..1000, block_bytes in 1_u64..300,
        ) {
            let mut position = start;
            for segment in segments(start..start + length, block_bytes) {
                let block_start = u64::from(segment.index) * block_bytes;
                prop_assert_eq!(block_start + segment.range.start, position);
                prop_assert!(!segment.range.is_empty() && segment.range.end <= block_bytes);
                position = block_start + segment.range.end;
            }
            prop_assert_eq!(position, start + length);
        }

        #[test]
        fn every_range_lies_in_exactly_one_joined_range(
            starts in proptest::collection::vec((0_u64..500, 0_u64..80), 0..20),
            gap in 0_u64..20, bytes_max in 1_u64..200,
        ) {
            let ranges: Vec<Range<u64>> =
                starts.iter().map(|&(start, length)| start..start + length).collect();
            let mut seen = vec![0; ranges.len()];
            for joined in join(&ranges, gap, bytes_max) {
                let bytes = joined.range.end - joined.range.start;
                prop_assert!(bytes <= bytes_max || joined.parts.len() == 1 || joined.parts.iter()
                    .any(|&at| ranges[at] == joined.range));
                for at in joined.parts {
                    seen[at] += 1;
                    prop_assert!(joined.range.start <= ranges[at].start);
                    prop_assert!(ranges[at].end <= joined.range.end);
                }
            }
            for (range, seen) in ranges.iter().zip(seen) {
                prop_assert_eq!(seen, u32::from(!range.is_empty()));
            }
        }
    }
}
