//! Which namenode leads, as far as this process knows. Pure.

/// The known namenodes, and the one to ask next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    addresses: Vec<String>,
    current: usize,
}

/// No namenode was named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no namenode address given")]
pub struct NoNamenode;

impl Leader {
    /// Starts with the first of `addresses`. A hint may name others later, but only these are kept for ever.
    ///
    /// # Errors
    /// If there is none.
    pub fn new(addresses: Vec<String>) -> Result<Self, NoNamenode> {
        if addresses.is_empty() { Err(NoNamenode) } else { Ok(Self { addresses, current: 0 }) }
    }

    /// The namenode to ask, `HOST:PORT`.
    pub fn current(&self) -> &str {
        &self.addresses[self.current]
    }

    /// All that are known.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The namenode at `asked` did not answer: ask the next one. Says whether that is another one.
    ///
    /// Nothing changes if `asked` is not the current one any more: somebody else was faster.
    pub fn handle_silence(&mut self, asked: &str) -> bool {
        if asked != self.current() {
            return true;
        }
        self.current = (self.current + 1) % self.addresses.len();
        self.addresses.len() > 1
    }

    /// The namenode at `asked` said that the one at `leader` leads (empty: it does not know).
    ///
    /// Only a configured address is believed: a namenode that was never named by the user is not followed.
    /// Says whether there is another one to ask.
    pub fn handle_redirect(&mut self, asked: &str, leader: &str) -> bool {
        match self.addresses.iter().position(|address| address == leader) {
            Some(found) if leader != asked => {
                self.current = found;
                true
            }
            _ => self.handle_silence(asked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Leader {
        Leader::new(["a:1", "b:1", "c:1"].map(str::to_owned).to_vec()).unwrap()
    }

    #[test]
    fn silence_moves_on_once_however_many_noticed_it() {
        let mut leader = three();
        assert!(leader.handle_silence("a:1"));
        assert!(leader.handle_silence("a:1"));
        assert_eq!(leader.current(), "b:1");
        leader.handle_silence("b:1");
        leader.handle_silence("c:1");
        assert_eq!(leader.current(), "a:1");
    }

    #[test]
    fn a_redirect_is_followed_to_a_known_namenode_and_otherwise_just_moves_on() {
        let mut leader = three();
        assert!(leader.handle_redirect("a:1", "c:1"));
        assert_eq!(leader.current(), "c:1");
        assert!(leader.handle_redirect("c:1", "evil:1"));
        assert_eq!(leader.current(), "a:1");
        assert!(leader.handle_redirect("a:1", ""));
        assert_eq!(leader.current(), "b:1");
    }

    #[test]
    fn a_single_namenode_has_no_other() {
        let mut leader = Leader::new(vec!["a:1".to_owned()]).unwrap();
        assert!(!leader.handle_silence("a:1"));
        assert_eq!(leader.current(), "a:1");
        assert_eq!(Leader::new(Vec::new()), Err(NoNamenode));
    }
}
