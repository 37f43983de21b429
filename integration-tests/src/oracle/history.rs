//! Changes and their answers, and what each path may hold in consequence.

use std::collections::BTreeMap;
use std::fmt;

use super::Violation;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// Nothing.
    Absent,
    /// A file; no two changes write the same bytes, so the digest names the change as well.
    File {
        /// In bytes.
        length: u64,
        /// As `b3sum` prints it.
        digest: String,
    },
}

impl Content {
    /// A file with these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::File { length: bytes.len() as u64, digest: blake3::hash(bytes).to_string() }
    }

    /// Whether there is a file.
    pub fn is_file(&self) -> bool {
        matches!(self, Self::File { .. })
    }
}

impl fmt::Display for Content {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => formatter.write_str("nothing"),
            Self::File { length, digest } => {
                write!(formatter, "{length} bytes {}", digest.get(..12).unwrap_or(digest))
            }
        }
    }
}

/// What a client is about to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A file is written, and replaces what is there.
    Write {
        /// Where.
        path: String,
        /// What it will be.
        content: Content,
    },
    /// A file moves, and replaces what is there.
    Rename {
        /// From here.
        from: String,
        /// To there.
        to: String,
    },
    /// A file goes.
    Delete {
        /// Where.
        path: String,
    },
}

/// A change that has begun and has no answer yet.
#[derive(Debug)]
#[must_use = "a change has an answer, or its answer is unknown"]
pub struct Ticket(usize);

/// A moment: the count of everything the history was told.
pub(super) type Moment = u64;

/// A content that a path may have had, from one moment until another.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) content: Content,
    pub(super) since: Moment,
    pub(super) until: Option<Moment>,
}

/// What a change does to one path.
#[derive(Debug, Clone)]
struct Effect {
    path: String,
    before: Content,
    after: Content,
}

/// All that clients did and were told.
#[derive(Debug, Default)]
pub struct History {
    pub(super) now: Moment,
    pub(super) paths: BTreeMap<String, Vec<Span>>,
    changes: Vec<Vec<Effect>>,
    /// Changes whose answer never came, until a look at their paths shows what became of them.
    doubts: Vec<usize>,
    acknowledged: u64,
    unknown: u64,
}

impl History {
    /// A client is about to ask for `change`.
    ///
    /// # Panics
    /// If the actor has not settled what an earlier change of these paths came to: see [`observed`](Self::observed).
    pub fn begin(&mut self, change: Change) -> Ticket {
        let effects = self.effects(change);
        let now = self.tick();
        for Effect { path, before, after } in &effects {
            assert!(before != after, "{path}: {before} stays what it is");
            let span = Span { content: after.clone(), since: now, until: None };
            self.spans(path).push(span);
        }
        self.changes.push(effects);
        Ticket(self.changes.len() - 1)
    }

    /// The client was told that it is done.
    pub fn acknowledged(&mut self, ticket: Ticket) {
        self.acknowledged += 1;
        self.settle(ticket.0, true);
    }

    /// The client was told that it is not done, and never will be.
    pub fn refused(&mut self, ticket: Ticket) {
        self.settle(ticket.0, false);
    }

    /// The client was told nothing that decides it.
    pub fn unknown(&mut self, ticket: Ticket) {
        self.unknown += 1;
        self.doubts.push(ticket.0);
    }

    /// The actor of `path` looked and saw `content`, with no change of its own under way. Settles a change of unknown
    /// outcome, on all of its paths.
    ///
    /// # Errors
    /// If the path cannot hold that.
    pub fn observed(&mut self, path: &str, content: &Content) -> Result<(), Violation> {
        let possible = self.possible(path);
        if !possible.contains(content) {
            return Err(Violation {
                path: path.to_owned(),
                what: format!("{content} where there must be {}", list(&possible)),
            });
        }
        let doubt = self
            .doubts
            .iter()
            .position(|change| self.changes[*change].iter().any(|effect| effect.path == path));
        if let Some(doubt) = doubt {
            let change = self.doubts.remove(doubt);
            let effects = self.changes[change].iter();
            let done = effects.clone().any(|it| it.path == path && it.after == *content);
            self.settle(change, done);
        }
        Ok(())
    }

    /// What `path` may hold right now, in order.
    pub fn possible(&self, path: &str) -> Vec<Content> {
        let Some(spans) = self.paths.get(path) else { return vec![Content::Absent] };
        let open = spans.iter().filter(|span| span.until.is_none());
        let mut contents: Vec<Content> = open.map(|span| span.content.clone()).collect();
        contents.sort();
        contents.dedup();
        contents
    }

    /// Every path that may hold a file right now, or may have held one.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.keys().map(String::as_str)
    }

    /// Paths that certainly hold a file right now.
    pub fn files(&self) -> Vec<String> {
        let is_file = |path: &&str| self.possible(path).iter().all(Content::is_file);
        self.paths().filter(is_file).map(str::to_owned).collect()
    }

    /// How many changes clients were told to be done, and of how many they were told nothing.
    pub fn counts(&self) -> (u64, u64) {
        (self.acknowledged, self.unknown)
    }

    fn effects(&self, change: Change) -> Vec<Effect> {
        let before = |path: &str| {
            let mut possible = self.possible(path);
            assert!(possible.len() == 1, "{path}: {} before {change:?}", list(&possible));
            possible.remove(0)
        };
        match &change {
            Change::Write { path, content } => {
                vec![Effect { path: path.clone(), before: before(path), after: content.clone() }]
            }
            Change::Rename { from, to } => {
                let moved = before(from);
                vec![
                    Effect { path: from.clone(), before: moved.clone(), after: Content::Absent },
                    Effect { path: to.clone(), before: before(to), after: moved },
                ]
            }
            Change::Delete { path } => {
                vec![Effect { path: path.clone(), before: before(path), after: Content::Absent }]
            }
        }
    }

    fn settle(&mut self, change: usize, done: bool) {
        let now = self.tick();
        for Effect { path, before, after } in std::mem::take(&mut self.changes[change]) {
            let spans = self.spans(&path);
            if done {
                let open = spans.iter_mut().filter(|span| span.until.is_none());
                open.filter(|span| span.content == before).for_each(|span| span.until = Some(now));
            } else {
                // It was never there: who sees it later has seen a lie, even if its read began before.
                spans.retain(|span| span.until.is_some() || span.content != after);
            }
        }
    }

    fn spans(&mut self, path: &str) -> &mut Vec<Span> {
        let never = || vec![Span { content: Content::Absent, since: 0, until: None }];
        self.paths.entry(path.to_owned()).or_insert_with(never)
    }

    pub(super) fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }
}

/// "a, or b".
pub(super) fn list(contents: &[Content]) -> String {
    contents.iter().map(ToString::to_string).collect::<Vec<_>>().join(", or ")
}
