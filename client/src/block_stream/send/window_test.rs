//! What acknowledgements are believed, and when a flush has what it waits for.

use doldam_proto::digest::ChainingValue;
use doldam_proto::id::{BlockId, Generation, NodeId};

use super::*;

fn progress(received: u64, synced: u64) -> WriteProgress {
    WriteProgress { received, synced, timings: Vec::new() }
}

fn commit(length: u64) -> BlockCommit {
    BlockCommit {
        id: BlockId(1),
        generation: Generation(1),
        length,
        chaining_value: ChainingValue([1; 32]),
        root_value: None,
        nodes: vec![NodeId(1)],
    }
}

fn noted(window: &Window, length: u64, sync: bool) {
    window.note(Mark { length, sync }, commit(length));
}

#[test]
fn acknowledgements_never_go_back_nor_beyond_what_was_sent() {
    let window = Window::new(10);
    window.sending(50, true);
    for (received, synced) in [(9, 0), (51, 0), (50, 51)] {
        assert!(window.progress(&progress(received, synced)).is_err(), "{received} {synced}");
    }
    window.progress(&progress(50, 40)).unwrap();
    assert!(window.is_owed(), "not all of it is on stable storage");
    assert!(window.progress(&progress(50, 39)).is_err());
    assert!(window.progress(&progress(49, 40)).is_err());
    window.progress(&progress(50, 50)).unwrap();
    assert!(!window.is_owed());
}

#[test]
fn a_flush_has_what_it_waits_for_when_all_have_it_and_is_told_once() {
    let window = Window::new(0);
    window.sending(50, false);
    noted(&window, 50, false);
    window.progress(&progress(49, 0)).unwrap();
    assert_eq!(window.take_reached(), None);
    window.progress(&progress(50, 0)).unwrap();
    assert_eq!(window.take_reached(), Some((commit(50), false)));
    assert_eq!(window.take_reached(), None);
}

#[test]
fn a_sync_waits_for_stable_storage() {
    let window = Window::new(0);
    window.sending(50, true);
    noted(&window, 50, true);
    window.progress(&progress(50, 49)).unwrap();
    assert_eq!(window.take_reached(), None);
    window.progress(&progress(50, 50)).unwrap();
    assert_eq!(window.take_reached(), Some((commit(50), true)));
}

#[test]
fn a_pipeline_that_acknowledges_only_what_it_goes_on_behind_has_confirmed_nothing() {
    let window = Window::new(50);
    noted(&window, 50, false);
    // As while one of its nodes is given what comes before by another.
    window.progress(&progress(50, 0)).unwrap();
    assert_eq!((window.is_confirmed(), window.take_reached()), (false, None));
    let synced = Window::new(50);
    noted(&synced, 50, false);
    synced.sending(50, true);
    synced.progress(&progress(50, 50)).unwrap();
    assert_eq!(synced.take_reached(), Some((commit(50), true)));
    window.sending(51, false);
    window.progress(&progress(51, 0)).unwrap();
    assert_eq!(window.take_reached(), Some((commit(50), false)));
}
