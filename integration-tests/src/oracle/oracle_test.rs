//! Tests of the oracle: what it must accept, and what it must not.

use std::collections::BTreeMap;

use super::history::{Change, Content, History};

fn content(seed: u8) -> Content {
    Content::of(&[seed; 10])
}

fn write(path: &str, seed: u8) -> Change {
    Change::Write { path: path.to_owned(), content: content(seed) }
}

fn rename(from: &str, to: &str) -> Change {
    Change::Rename { from: from.to_owned(), to: to.to_owned() }
}

fn acknowledged(history: &mut History, change: Change) {
    let ticket = history.begin(change);
    history.acknowledged(ticket);
}

fn found(files: &[(&str, u8)]) -> BTreeMap<String, Content> {
    files.iter().map(|(path, seed)| ((*path).to_owned(), content(*seed))).collect()
}

#[test]
fn what_was_acknowledged_must_be_there_and_nothing_else() {
    let mut history = History::default();
    acknowledged(&mut history, write("/a", 1));
    acknowledged(&mut history, write("/a", 2));
    acknowledged(&mut history, rename("/a", "/b"));
    assert_eq!(history.check_all(&found(&[("/b", 2)])), Ok(()));
    for wrong in [&[][..], &[("/b", 1)], &[("/a", 2)], &[("/b", 2), ("/c", 3)]] {
        assert!(history.check_all(&found(wrong)).is_err(), "{wrong:?}");
    }
    acknowledged(&mut history, Change::Delete { path: "/b".to_owned() });
    assert_eq!(history.check_all(&found(&[])), Ok(()));
    assert!(history.check_all(&found(&[("/b", 2)])).is_err(), "the dead do not return");
}

#[test]
fn a_refused_change_did_not_happen_and_one_without_an_answer_may_have() {
    let mut history = History::default();
    let refused = history.begin(write("/a", 1));
    history.refused(refused);
    assert!(history.check_all(&found(&[("/a", 1)])).is_err());
    let open = history.begin(write("/a", 2));
    history.unknown(open);
    assert_eq!(history.check_all(&found(&[])), Ok(()));
    assert_eq!(history.check_all(&found(&[("/a", 2)])), Ok(()));
    assert!(history.check_all(&found(&[("/a", 1)])).is_err());
}

#[test]
fn a_look_at_one_path_of_a_rename_settles_the_other() {
    for done in [true, false] {
        let mut history = History::default();
        acknowledged(&mut history, write("/a", 1));
        let ticket = history.begin(rename("/a", "/b"));
        history.unknown(ticket);
        let seen = if done { Content::Absent } else { content(1) };
        assert_eq!(history.observed("/a", &seen), Ok(()));
        let file = if done { ("/b", 1) } else { ("/a", 1) };
        assert_eq!(history.check_all(&found(&[file])), Ok(()));
        assert!(history.check_all(&found(&[])).is_err(), "it is in one of both");
        assert!(history.check_all(&found(&[("/a", 1), ("/b", 1)])).is_err(), "and not in both");
        assert!(history.observed("/a", &content(9)).is_err());
    }
}

#[test]
fn a_reader_sees_what_was_there_at_some_moment_of_its_read() {
    let mut history = History::default();
    let early = history.begin_read("/a");
    acknowledged(&mut history, write("/a", 1));
    let read = history.begin_read("/a");
    assert!(history.was_steady(&read));
    let ticket = history.begin(write("/a", 2));
    for seed in [1, 2] {
        assert_eq!(history.seen(&read, &content(seed)), Ok(()));
    }
    assert!(history.seen(&read, &Content::Absent).is_err(), "an overwrite has no gap");
    history.acknowledged(ticket);
    assert_eq!(history.seen(&read, &content(1)), Ok(()), "it had begun before");
    let late = history.begin_read("/a");
    assert!(history.seen(&late, &content(1)).is_err(), "the old file is no longer there");
    assert_eq!(history.seen(&late, &content(2)), Ok(()));
    assert_eq!(history.seen(&early, &Content::Absent), Ok(()));
    assert!(!history.was_steady(&early));
}
