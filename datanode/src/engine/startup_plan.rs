//! What to make of the files that are found at a start.
//!
//! A replica is a pair of files, moved one after the other between four folders. A crash may fall
//! between any two moves, so each combination of places is met here and nowhere else:
//!
//! | data in | sidecar in | how it came about | what is done |
//! |---|---|---|---|
//! | `blocks` | `blocks` | a replica | kept |
//! | `writing` | `writing`, `blocks`, nowhere | open, or stopped while publishing | kept open, the sidecar removed |
//! | `blocks` | `writing` | stopped between the two renames of publishing | published, to be verified |
//! | nowhere | `writing` | its block was removed, or was a repair copy | removed |
//! | `.copy` in `writing` | any | a repair copy whose source had no acknowledgement | removed |
//! | `quarantine` | `quarantine` | known to be bad | kept in quarantine |
//! | `quarantine`, `blocks` | the other of them | stopped while quarantining | finished |
//! | `trash` | anywhere | dropped by order | removed |
//! | anywhere | `trash` | dropped by order | removed |
//! | `blocks`, `quarantine` | nowhere | damage from outside | quarantined: may be the last copy |
//! | nowhere | `blocks`, `quarantine` | damage from outside | quarantined |
//!
//! A new copy may be written while a bad one lies in quarantine, so a name may be met in several
//! folders at once: whole pairs are looked for first, from the most to the least valuable, and only
//! what is left is judged by halves. An open block is apart from all that: it may stand beside a bad
//! replica, and only a whole one of the same generation, or an order to drop it, makes it go.

/// The folders in which the files of a replica may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// Published.
    Blocks,
    /// Known to be bad.
    Quarantine,
    /// Being received.
    Writing,
    /// Being removed.
    Trash,
}

/// The places one of the two files was found in.
#[expect(clippy::struct_excessive_bools, reason = "a set, one for each place")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Places {
    /// Found among the replicas.
    pub(crate) blocks: bool,
    /// Found in quarantine.
    pub(crate) quarantine: bool,
    /// Found among what is being received.
    pub(crate) writing: bool,
    /// Found among what is being removed.
    pub(crate) trash: bool,
}

/// What was found of one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Found {
    /// Where its data file is.
    pub(crate) data: Places,
    /// Where its sidecar is.
    pub(crate) side: Places,
}

/// What a replica turns out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Whole and published.
    Published,
    /// Whole, with the sidecar still in `writing`: it is to be moved to the data file, and all is to be verified.
    HalfPublished,
    /// In quarantine, whole or in part; what lies in `blocks` of it is to be moved there.
    Quarantined {
        /// What is wrong, if it was not quarantined for a reason found before.
        damage: Option<&'static str>,
    },
    /// Not there: nobody was told that it is, or it was ordered dropped.
    Gone,
}

/// What to do with one replica's files, besides keeping what stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What it is from now on.
    pub(crate) standing: Standing,
    /// Whether the data file in `writing` stays, as an open block.
    pub(crate) is_open: bool,
    /// Where data files are to be removed from.
    pub(crate) remove_data: Vec<Place>,
    /// Where sidecars are to be removed from.
    pub(crate) remove_side: Vec<Place>,
}

/// Judges what was found of one replica.
pub(crate) fn plan(found: Found) -> Plan {
    let standing = standing(found);
    let is_dropped = found.data.trash || found.side.trash;
    let is_whole = match standing {
        Standing::Published | Standing::HalfPublished => true,
        Standing::Quarantined { .. } | Standing::Gone => false,
    };
    let is_open = found.data.writing && !is_whole && !is_dropped;
    let keeps = |place: Place, of: Places| match standing {
        Standing::Published => place == Place::Blocks,
        // The sidecar is moved, the data file is where it belongs.
        Standing::HalfPublished => place == if of.blocks { Place::Blocks } else { Place::Writing },
        // A half in `blocks` is moved, unless quarantine has that half already.
        Standing::Quarantined { .. } => {
            place == Place::Quarantine || (place == Place::Blocks && !of.quarantine)
        }
        Standing::Gone => false,
    };
    let remove =
        |of: Places| -> Vec<Place> { of.iter().filter(|place| !keeps(*place, of)).collect() };
    let (mut remove_data, remove_side) = (remove(found.data), remove(found.side));
    remove_data.retain(|place| !(is_open && *place == Place::Writing));
    Plan { standing, is_open, remove_data, remove_side }
}

fn standing(found: Found) -> Standing {
    let Found { data, side } = found;
    if data.blocks && side.blocks {
        return Standing::Published;
    }
    if data.quarantine && side.quarantine {
        return Standing::Quarantined { damage: None };
    }
    // Halves from here on. One whose partner is being written was never acknowledged, one whose
    // partner is being removed was dropped by order.
    let bad_copy = data.quarantine || side.quarantine;
    if data.blocks && side.writing && !data.writing && !bad_copy {
        let is_dropped = data.trash || side.trash;
        return if is_dropped { Standing::Gone } else { Standing::HalfPublished };
    }
    if (data.blocks || side.blocks) && data.writing || data.blocks && side.writing {
        return if bad_copy { Standing::Quarantined { damage: None } } else { Standing::Gone };
    }
    let kept = |of: Places| of.blocks || of.quarantine;
    match (kept(data), kept(side)) {
        (true, true) => Standing::Quarantined { damage: None },
        (true, false) if side.trash => Standing::Gone,
        (false, true) if data.trash => Standing::Gone,
        (true, false) => Standing::Quarantined { damage: Some("its sidecar is missing") },
        (false, true) => Standing::Quarantined { damage: Some("its data file is missing") },
        (false, false) => Standing::Gone,
    }
}

impl Places {
    /// The places in which the file was found.
    pub(crate) fn iter(self) -> impl Iterator<Item = Place> {
        let each = [
            (self.blocks, Place::Blocks),
            (self.quarantine, Place::Quarantine),
            (self.writing, Place::Writing),
            (self.trash, Place::Trash),
        ];
        each.into_iter().filter_map(|(is_there, place)| is_there.then_some(place))
    }

    /// Notes that the file was found in `place`.
    pub(crate) fn insert(&mut self, place: Place) {
        match place {
            Place::Blocks => self.blocks = true,
            Place::Quarantine => self.quarantine = true,
            Place::Writing => self.writing = true,
            Place::Trash => self.trash = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Place; 4] = [Place::Blocks, Place::Quarantine, Place::Writing, Place::Trash];

    fn places(set: &[Place]) -> Places {
        let mut places = Places::default();
        for place in set {
            places.insert(*place);
        }
        places
    }

    fn judge(data: &[Place], side: &[Place]) -> Standing {
        plan(Found { data: places(data), side: places(side) }).standing
    }

    const BAD: Standing = Standing::Quarantined { damage: None };

    fn is_open(data: &[Place], side: &[Place]) -> bool {
        plan(Found { data: places(data), side: places(side) }).is_open
    }

    #[test]
    fn every_single_crash_point_is_recognised() {
        use Place::{Blocks, Quarantine, Trash, Writing};
        assert_eq!(judge(&[Blocks], &[Blocks]), Standing::Published);
        assert_eq!(judge(&[Blocks], &[Writing]), Standing::HalfPublished);
        for side in [&[][..], &[Writing], &[Blocks]] {
            assert_eq!(judge(&[Writing], side), Standing::Gone, "{side:?}");
            assert!(is_open(&[Writing], side), "{side:?}");
            // Both names of the data file survived.
            assert!(side == [Blocks] || is_open(&[Writing, Blocks], side), "{side:?}");
        }
        assert!(!is_open(&[Writing, Blocks], &[Blocks]), "it is published");
        assert_eq!(judge(&[], &[Writing]), Standing::Gone);
        assert_eq!(judge(&[Quarantine], &[Quarantine]), BAD);
        assert_eq!(judge(&[Quarantine], &[Blocks]), BAD);
        assert_eq!(judge(&[Blocks], &[Quarantine]), BAD);
        for other in [&[Blocks][..], &[Quarantine], &[Trash], &[Writing], &[]] {
            for (data, side) in [(&[Trash][..], other), (other, &[Trash])] {
                assert_eq!(judge(data, side), Standing::Gone, "{data:?} {side:?}");
                assert!(!is_open(data, side), "{data:?} {side:?}");
            }
        }
    }

    #[test]
    fn a_half_that_no_crash_explains_is_never_removed() {
        for place in [Place::Blocks, Place::Quarantine] {
            for (data, side) in [(&[place][..], &[][..]), (&[], &[place])] {
                let plan = plan(Found { data: places(data), side: places(side) });
                assert!(matches!(plan.standing, Standing::Quarantined { damage: Some(_) }));
                assert!(plan.remove_data.is_empty() && plan.remove_side.is_empty(), "{plan:?}");
            }
        }
    }

    #[test]
    fn a_new_copy_beside_a_bad_one_survives_a_crash_at_any_point() {
        use Place::{Blocks, Quarantine, Trash, Writing};
        // While it is written, and between its two renames, the bad one stands.
        assert_eq!(judge(&[Quarantine, Writing], &[Quarantine]), BAD);
        assert_eq!(judge(&[Quarantine, Writing], &[Quarantine, Writing]), BAD);
        let half = plan(Found {
            data: places(&[Quarantine, Blocks]),
            side: places(&[Quarantine, Writing]),
        });
        let (remove_data, remove_side) = (vec![Blocks], vec![Writing]);
        let expected = Plan { standing: BAD, is_open: false, remove_data, remove_side };
        assert_eq!(half, expected);
        // Once it is published, the bad one goes, however far its removal came.
        let published =
            plan(Found { data: places(&[Blocks, Trash]), side: places(&[Blocks, Quarantine]) });
        let expected = Plan {
            standing: Standing::Published,
            is_open: false,
            remove_data: vec![Trash],
            remove_side: vec![Quarantine],
        };
        assert_eq!(published, expected);
    }

    /// Over all 256 combinations: at most one copy of each file is left, and only where it belongs, but for an open
    /// block beside.
    #[test]
    fn what_is_left_is_one_replica_an_open_block_or_nothing() {
        let subsets = || {
            (0..16_u32).map(|bits| {
                let chosen = ALL.iter().zip(0..).filter(|(_, bit)| bits >> bit & 1 == 1);
                places(&chosen.map(|(place, _)| *place).collect::<Vec<_>>())
            })
        };
        for data in subsets() {
            for side in subsets() {
                let plan = plan(Found { data, side });
                let left = |of: Places, removed: &[Place]| -> Vec<Place> {
                    of.iter().filter(|place| !removed.contains(place)).collect()
                };
                let (mut data_left, side_left) =
                    (left(data, &plan.remove_data), left(side, &plan.remove_side));
                if plan.is_open {
                    assert!(data_left.contains(&Place::Writing) && !data.trash && !side.trash);
                    data_left.retain(|place| *place != Place::Writing);
                }
                match plan.standing {
                    Standing::Published => {
                        assert_eq!(
                            (data_left, side_left),
                            (vec![Place::Blocks], vec![Place::Blocks])
                        );
                    }
                    Standing::HalfPublished => {
                        assert_eq!(
                            (data_left, side_left),
                            (vec![Place::Blocks], vec![Place::Writing])
                        );
                    }
                    Standing::Gone => assert!(data_left.is_empty() && side_left.is_empty()),
                    Standing::Quarantined { .. } => {
                        assert!(data_left.len() <= 1 && side_left.len() <= 1);
                        assert!(data_left.len() + side_left.len() >= 1);
                        let allowed = [Place::Blocks, Place::Quarantine];
                        assert!(
                            data_left.iter().chain(&side_left).all(|place| allowed.contains(place))
                        );
                    }
                }
                // A published pair is never touched; nothing unacknowledged or dropped ever comes
                // back.
                assert_eq!(data.blocks && side.blocks, plan.standing == Standing::Published);
                // What a writer may rely on is there, whatever else is.
                let is_whole =
                    matches!(plan.standing, Standing::Published | Standing::HalfPublished);
                let is_dropped = data.trash || side.trash;
                assert!(!data.writing || is_dropped || is_whole || plan.is_open);
            }
        }
    }
}
