//! What a reader may see while changes are under way: what the path held at some moment of the read, and nothing that
//! it never held, or no longer.

use super::Violation;
use super::history::{Content, History, Moment, list};

/// A read that has begun.
#[derive(Debug)]
pub struct Read {
    path: String,
    begun: Moment,
}

impl Read {
    /// What is read.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl History {
    /// A reader is about to open `path`.
    pub fn begin_read(&mut self, path: &str) -> Read {
        Read { path: path.to_owned(), begun: self.tick() }
    }

    /// It saw `content`, whole.
    ///
    /// # Errors
    /// If the path held that at no moment of the read.
    pub fn seen(&self, read: &Read, content: &Content) -> Result<(), Violation> {
        let possible = self.possible_since(&read.path, read.begun);
        if possible.contains(content) {
            return Ok(());
        }
        let what = format!("a reader saw {content}, but there was {}", list(&possible));
        Err(Violation { path: read.path.clone(), what })
    }

    /// Whether the path held one and the same content all the time since the read began.
    pub fn was_steady(&self, read: &Read) -> bool {
        self.possible_since(&read.path, read.begun).len() == 1
    }

    fn possible_since(&self, path: &str, begun: Moment) -> Vec<Content> {
        let Some(spans) = self.paths.get(path) else { return vec![Content::Absent] };
        let over = |until: Option<Moment>| until.is_some_and(|until| until < begun);
        let held = spans.iter().filter(|span| !over(span.until) && span.since <= self.now);
        let mut contents: Vec<Content> = held.map(|span| span.content.clone()).collect();
        contents.sort();
        contents.dedup();
        contents
    }
}
