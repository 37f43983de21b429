//! What must be there at the end: every acknowledged file with its bytes, and nothing that nobody wrote.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::history::{Content, History, list};

impl History {
    /// Compares what the cluster lists, each path with the content that was read there, with what it must hold.
    ///
    /// # Errors
    /// Every difference.
    pub fn check_all(&self, found: &BTreeMap<String, Content>) -> Result<(), Vec<Violation>> {
        let known: BTreeSet<&str> = self.paths().collect();
        let unknown = found.keys().filter(|path| !known.contains(path.as_str()));
        let mut violations: Vec<Violation> = unknown
            .map(|path| Violation { path: path.clone(), what: "nobody wrote this".to_owned() })
            .collect();
        for path in known {
            let possible = self.possible(path);
            let content = found.get(path).unwrap_or(&Content::Absent);
            if !possible.contains(content) {
                let what = format!("{content} where there must be {}", list(&possible));
                violations.push(Violation { path: path.to_owned(), what });
            }
        }
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }
}
