//! Every state of a home that the answers so far allow.
//!
//! A home has one client that changes it, one operation at a time. An answer narrows the states down; an operation
//! whose outcome is unknown (the client died, or gave up waiting) may have happened or not, never in part, and never
//! later: each state splits in two. When no state is left, a promise was broken.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{Change, Node, Tree, apply, children, parent};

/// States that are told apart; more are looked at before anything else is changed.
pub const STATES_MAX: usize = 32;

/// What a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Done,
    /// It was refused, for a reason that lies in the tree.
    Refused,
    /// It was not done, whatever the tree is.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct History {
    states: Vec<Tree>,
    /// What the client asked for and has no answer to.
    asked: Option<Change>,
    /// Where a write may be under way that nobody sees, since its client died: until its lease ends its directory
    /// counts as one that is not empty.
    unfinished: BTreeSet<String>,
}

impl History {
    /// An empty home.
    pub fn new(home: &str) -> Self {
        let states = vec![Tree::from([(home.to_owned(), Node::Folder)])];
        Self { states, asked: None, unfinished: BTreeSet::new() }
    }

    /// Every state that was possible at the last answer.
    pub fn states(&self) -> &[Tree] {
        &self.states
    }

    /// Every state that is possible now: what the client asked for may be done already.
    pub fn possible(&self) -> Vec<Tree> {
        let done = self.asked.iter().flat_map(|change| {
            self.states.iter().filter_map(move |state| apply(state, change).ok())
        });
        self.states.iter().cloned().chain(done).collect()
    }

    /// The client asks for `change`.
    pub fn asks(&mut self, change: &Change) {
        self.asked = Some(change.clone());
    }

    /// The state, if only one is possible.
    pub fn state(&self) -> Option<&Tree> {
        match &self.states[..] {
            [state] => Some(state),
            _ => None,
        }
    }

    /// The client asked for `change` and got `answer`.
    ///
    /// # Errors
    /// If no state allows that; says what was possible.
    pub fn changed(&mut self, change: &Change, answer: Answer) -> Result<(), String> {
        self.asked = None;
        self.note_unfinished(change, answer);
        let is_busy = self.refuses_unfinished(change);
        let mut next = Vec::new();
        for state in &self.states {
            match (answer, apply(state, change)) {
                (Answer::Done, Ok(after)) => next.push(after),
                (Answer::Unknown, Ok(after)) => {
                    next.push(state.clone());
                    next.push(after);
                }
                (Answer::Unknown | Answer::Refused, Err(_)) | (Answer::Failed, _) => {
                    next.push(state.clone());
                }
                (Answer::Refused, Ok(_)) if is_busy => next.push(state.clone()),
                (Answer::Done, Err(_)) | (Answer::Refused, Ok(_)) => {}
            }
        }
        self.narrow(next, || format!("{change:?} was answered {answer:?}"))
    }

    fn note_unfinished(&mut self, change: &Change, answer: Answer) {
        match change {
            Change::Put { path, .. } if answer != Answer::Done => {
                self.unfinished.insert(path.clone());
            }
            Change::Rename { from, to, .. } if matches!(answer, Answer::Done | Answer::Unknown) => {
                let moved = self.unfinished.iter().filter_map(|path| {
                    let rest = path.strip_prefix(from).filter(|rest| rest.starts_with('/'))?;
                    Some(format!("{to}{rest}"))
                });
                let moved: Vec<String> = moved.collect();
                self.unfinished.extend(moved);
            }
            _ => {}
        }
    }

    /// Whether `change` may be refused because of a write that nobody sees.
    fn refuses_unfinished(&self, change: &Change) -> bool {
        let directory = match change {
            Change::Delete { path, recursive: false } => path,
            Change::Rename { to, replace: true, .. } => to,
            _ => return false,
        };
        self.unfinished.iter().any(|path| parent(path) == directory)
    }

    /// The client saw `node` at `path`.
    ///
    /// # Errors
    /// If no state has it there.
    pub fn saw(&mut self, path: &str, node: Option<&Node>) -> Result<(), String> {
        let fits = |state: &&Tree| state.get(path) == node;
        let next = self.states.iter().filter(fits).cloned().collect();
        self.narrow(next, || format!("{path} was seen as {node:?}"))
    }

    /// The client saw `names` in the directory at `path`; `None` if there was no directory.
    ///
    /// # Errors
    /// If no state has just these.
    pub fn listed(
        &mut self,
        path: &str,
        names: Option<&BTreeMap<String, Node>>,
    ) -> Result<(), String> {
        let fits = |state: &&Tree| match (state.get(path), names) {
            (Some(Node::Folder), Some(names)) => {
                children(state, path).eq(names.iter().map(|(name, node)| (name.as_str(), node)))
            }
            (Some(Node::File { .. }) | None, None) => true,
            _ => false,
        };
        let next = self.states.iter().filter(fits).cloned().collect();
        self.narrow(next, || format!("{path} was listed as {names:?}"))
    }

    fn narrow(&mut self, mut next: Vec<Tree>, what: impl Fn() -> String) -> Result<(), String> {
        if next.is_empty() {
            return Err(format!("{}, but possible was only: {:#?}", what(), self.states));
        }
        let mut kept: Vec<Tree> = Vec::new();
        for state in next.drain(..) {
            if !kept.contains(&state) {
                kept.push(state);
            }
        }
        self.states = kept;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::content::ContentId;
    use super::*;

    fn mkdir(path: &str) -> Change {
        Change::Mkdir { path: path.to_owned() }
    }

    #[test]
    fn what_is_unknown_may_have_happened_until_it_is_seen() {
        let mut history = History::new("/h");
        history.changed(&mkdir("/h/a"), Answer::Unknown).unwrap();
        assert_eq!(history.states().len(), 2);
        let mut other = history.clone();
        history.saw("/h/a", Some(&Node::Folder)).unwrap();
        other.saw("/h/a", None).unwrap();
        assert!(history.saw("/h/a", None).is_err());
        assert!(other.changed(&mkdir("/h/a/b"), Answer::Done).is_err());
    }

    #[test]
    fn a_write_that_nobody_sees_keeps_its_directory_from_being_deleted() {
        let content = ContentId(1);
        let put = |answer| {
            let mut history = History::new("/h");
            history.changed(&mkdir("/h/a"), Answer::Done).unwrap();
            let path = "/h/a/f".to_owned();
            let put = Change::Put { path, content, replication: 1, overwrite: false };
            history.changed(&put, answer).unwrap();
            history
        };
        let delete = Change::Delete { path: "/h/a".to_owned(), recursive: false };
        let mut unseen = put(Answer::Unknown);
        unseen.changed(&delete, Answer::Refused).unwrap();
        unseen.saw("/h/a/f", None).unwrap();
        assert!(History::new("/h").changed(&delete, Answer::Done).is_err());
        let mut moved = put(Answer::Failed);
        let (from, to) = ("/h/a".to_owned(), "/h/b".to_owned());
        moved.changed(&Change::Rename { from, to, replace: false }, Answer::Done).unwrap();
        let delete = |path: &str| Change::Delete { path: path.to_owned(), recursive: false };
        moved.changed(&delete("/h/b"), Answer::Refused).unwrap();
        moved.changed(&delete("/h/b"), Answer::Done).unwrap();
    }

    #[test]
    fn an_answer_that_no_state_allows_is_a_broken_promise() {
        let mut history = History::new("/h");
        history.changed(&mkdir("/h/a"), Answer::Done).unwrap();
        assert!(history.clone().changed(&mkdir("/h/a"), Answer::Done).is_err());
        assert!(history.changed(&mkdir("/h/b"), Answer::Refused).is_err());
    }
}
