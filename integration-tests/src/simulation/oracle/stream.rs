//! Files that are flushed, written on, cut and left, by any client at any time: what may be seen of each.
//!
//! A file is as short as was flushed last, as long as its writer came, or anything between once that writer is gone. A
//! change is *tried* before it is asked for and *done* when it was answered; from the first on it may be seen, from the
//! second on nothing else. Who looks may see whatever was possible at some time since it asked.
//!
//! What was flushed and not synced may be lost when power is lost. Then the file may end anywhere behind what was
//! synced, or there when it was opened, and nobody may count on what is seen of it until it is closed or flushed again.

use std::rc::Rc;

/// What may be seen at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// Nothing.
    Absent,
    /// The first `least..=most` bytes of `bytes`.
    File {
        /// The session that wrote the end of it.
        session: u64,
        /// As much as there may be.
        bytes: Rc<Vec<u8>>,
        /// Fewer than these are never seen.
        least: usize,
        /// So many of these survive a loss of power.
        durable: usize,
        /// Power was lost: what is seen may be less the next time.
        is_shaky: bool,
    },
}

/// What somebody saw at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// In bytes.
    pub length: usize,
    /// As the cluster says.
    pub digest: blake3::Hash,
    /// Nobody writes it, nor will it be closed.
    pub is_closed: bool,
}

/// A client that writes the file, from its open on.
#[derive(Debug)]
pub struct Session {
    number: u64,
    /// The bytes of the file with what was written.
    pub bytes: Rc<Vec<u8>>,
    is_shown: bool,
    /// Bytes that were synced, or there before.
    durable: usize,
    /// How often memory had been lost when it wrote last.
    losses: u64,
}

/// One path.
#[derive(Debug)]
pub struct StreamFile {
    /// What was possible, from the beginning on.
    sights: Vec<Rc<Vec<Sight>>>,
    sessions: u64,
    /// Lengths to which somebody may be cutting it, each with who had opened it last when that was asked for.
    cutting: Vec<(usize, u64)>,
    /// Who opened it last.
    writer: u64,
    /// How often memory was lost.
    losses: u64,
}

impl Default for StreamFile {
    fn default() -> Self {
        let sights = vec![Rc::new(vec![Sight::Absent])];
        let (sessions, writer, cutting) = (0, 0, Vec::new());
        Self { sights, sessions, cutting, writer, losses: 0 }
    }
}

impl Sight {
    fn shows(&self, seen: Option<Seen>) -> bool {
        match (self, seen) {
            (Self::Absent, None) => true,
            (Self::File { bytes, least, .. }, Some(Seen { length, digest, .. })) => {
                (*least..=bytes.len()).contains(&length) && blake3::hash(&bytes[..length]) == digest
            }
            (Self::Absent, Some(_)) | (Self::File { .. }, None) => false,
        }
    }
}

impl StreamFile {
    /// Now, to be given to [`saw`](Self::saw) by who asks now.
    pub fn moment(&self) -> usize {
        self.sights.len() - 1
    }

    /// What is possible now.
    pub fn possible(&self) -> &[Sight] {
        self.sights.last().map_or(&[], |sights| sights)
    }

    /// The shortest length that is possible now; `None` if nothing may be there.
    pub fn least(&self) -> Option<usize> {
        let least = self.possible().iter().map(|sight| match sight {
            Sight::Absent => None,
            Sight::File { least, .. } => Some(*least),
        });
        least.min().flatten()
    }

    fn set(&mut self, mut sights: Vec<Sight>) {
        for (length, _) in &self.cutting {
            for sight in cut_to(&sights, *length) {
                if !sights.contains(&sight) {
                    sights.push(sight);
                }
            }
        }
        if self.possible() != sights {
            self.sights.push(Rc::new(sights));
        }
    }

    /// Who asked at `since` saw this; returns the bytes. It never becomes less, unless power was lost before it was
    /// closed.
    ///
    /// # Errors
    /// If that was never possible.
    pub fn saw(&mut self, since: usize, seen: Option<Seen>) -> Result<Vec<u8>, String> {
        let length = seen.map_or(0, |seen| seen.length);
        let possible = self.sights[since..].iter().rev().flat_map(|sights| sights.iter());
        let Some(found) = possible.clone().find(|sight| sight.shows(seen)) else {
            let possible: Vec<String> = possible.map(told).collect();
            return Err(format!("{seen:?}, but possible was only {possible:?}"));
        };
        let bytes = match found {
            Sight::Absent => Vec::new(),
            Sight::File { bytes, .. } => bytes[..length].to_vec(),
        };
        if since == self.moment() {
            let mut sights = self.possible().to_vec();
            for sight in &mut sights {
                // The others stay: what was tried may still come.
                if let Sight::File { bytes: of, least, durable, is_shaky, .. } = sight
                    && of.get(..length) == Some(&bytes[..])
                {
                    let is_closed = seen.is_some_and(|seen| seen.is_closed);
                    if is_closed {
                        (*durable, *is_shaky) = (length.max(*durable), false);
                    }
                    if !*is_shaky {
                        *least = length.max(*least);
                    }
                }
            }
            self.set(sights);
        }
        Ok(bytes)
    }

    /// A new file was opened, which nobody sees yet.
    pub fn opened_new(&mut self) -> Session {
        self.opened(Rc::default(), 0)
    }

    /// The file was opened to be written on, and seen then: until it is flushed it is just this.
    ///
    /// # Errors
    /// If that was not possible at `since`.
    pub fn opened_behind(&mut self, since: usize, seen: Seen) -> Result<Session, String> {
        let bytes = Rc::new(self.saw(since, Some(seen))?);
        let session = self.opened(bytes, seen.length);
        self.set(vec![session.sight()]);
        Ok(session)
    }

    fn opened(&mut self, bytes: Rc<Vec<u8>>, durable: usize) -> Session {
        self.sessions += 1;
        self.writer = self.sessions;
        let (number, losses) = (self.sessions, self.losses);
        Session { number, bytes, is_shown: false, durable, losses }
    }

    /// Somebody else has opened it since: what `session` does has no effect any more.
    pub fn is_over(&self, session: &Session) -> bool {
        self.writer != session.number
    }

    /// More is about to be written.
    pub fn writes(&mut self, session: &mut Session, more: &[u8]) {
        Rc::make_mut(&mut session.bytes).extend_from_slice(more);
        if !more.is_empty() {
            session.losses = self.losses;
        }
        if session.is_shown && !self.is_over(session) {
            let mut sights = self.possible().to_vec();
            for sight in &mut sights {
                if let Sight::File { session: of, bytes, .. } = sight
                    && *of == session.number
                    && session.bytes.starts_with(bytes)
                {
                    *bytes = Rc::clone(&session.bytes);
                }
            }
            self.set(sights);
        }
    }

    /// All that was written is about to be flushed, or the file to be closed.
    pub fn tries(&mut self, session: &mut Session) {
        if self.is_over(session) {
            return;
        }
        if !session.is_shown {
            session.is_shown = true;
            let mut sights = self.possible().to_vec();
            sights.push(session.sight());
            self.set(sights);
        }
    }

    /// That was done; `is_durable` if a power loss of every node does no harm to it. Else it is as if memory had been
    /// lost after it, if that was since something was written last: a flush of what was sent before asks no datanode.
    pub fn done(&mut self, session: &mut Session, is_durable: bool) {
        if is_durable {
            session.durable = session.bytes.len();
        }
        if self.is_over(session) {
            return; // It was, and the answer was late: then who opened it since has seen it.
        }
        self.set(vec![session.sight()]);
        if session.losses != self.losses {
            self.may_be_less();
        }
    }

    /// The file is about to be cut: that may happen at any time from now on.
    pub fn cuts(&mut self, length: usize) {
        self.cutting.push((length, self.writer));
        self.set(self.possible().to_vec());
    }

    /// It was, if nothing else happened to it since, or it will not be cut any more.
    pub fn ends_cut(&mut self, length: usize, cut_since: Option<usize>) {
        let position = self.cutting.iter().position(|(cutting, _)| *cutting == length);
        if let Some((_, writer)) = position.map(|position| self.cutting.remove(position))
            && cut_since.is_some()
            && writer == self.writer
        {
            // That writer's end came before, whenever it hears of it.
            self.sessions += 1;
            self.writer = self.sessions;
        }
        if cut_since == Some(self.moment()) {
            self.set(cut_to(self.possible(), length));
        }
    }

    /// Some node lost power, or what it had in memory only.
    pub fn memory_lost(&mut self) {
        self.losses += 1;
        self.may_be_less();
    }

    fn may_be_less(&mut self) {
        let mut sights = self.possible().to_vec();
        for sight in &mut sights {
            // Also if no more than what was synced must be there: a flush that nobody was told of may show more until
            // its loss is found out.
            if let Sight::File { bytes, least, durable, is_shaky, .. } = sight
                && *durable < bytes.len()
            {
                (*least, *is_shaky) = (*durable, true);
            }
        }
        self.set(sights);
    }
}

impl Session {
    fn sight(&self) -> Sight {
        let (bytes, least) = (Rc::clone(&self.bytes), self.bytes.len());
        let (session, durable, is_shaky) = (self.number, self.durable, false);
        Sight::File { session, bytes, least, durable, is_shaky }
    }
}

fn cut_to(sights: &[Sight], length: usize) -> Vec<Sight> {
    let mut cut = Vec::new();
    for sight in sights {
        if let Sight::File { session, bytes, .. } = sight
            && let Some(bytes) = bytes.get(..length)
        {
            let bytes = Rc::new(bytes.to_vec());
            let (session, is_shaky) = (*session, false);
            let sight = Sight::File { session, bytes, least: length, durable: length, is_shaky };
            if !cut.contains(&sight) {
                cut.push(sight);
            }
        }
    }
    cut
}

fn told(sight: &Sight) -> String {
    match sight {
        Sight::Absent => "nothing".to_owned(),
        Sight::File { session, bytes, least, durable, .. } => {
            format!("{least}..={} bytes of session {session}, {durable} synced", bytes.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(bytes: &[u8]) -> Seen {
        Seen { length: bytes.len(), digest: blake3::hash(bytes), is_closed: false }
    }

    #[test]
    fn a_close_that_was_answered_late_does_not_undo_the_cut_that_came_after_it() {
        let mut file = StreamFile::default();
        let mut session = file.opened_new();
        file.writes(&mut session, b"abc");
        file.cuts(2);
        file.tries(&mut session);
        file.ends_cut(2, Some(0));
        file.done(&mut session, true);
        let closed = Seen { is_closed: true, ..seen(b"ab") };
        file.saw(file.moment(), Some(closed)).unwrap();
    }

    #[test]
    fn what_a_flush_shows_that_nobody_was_told_of_may_be_lost_with_the_power() {
        let mut file = StreamFile::default();
        let mut session = file.opened_new();
        file.writes(&mut session, b"abc");
        file.tries(&mut session);
        file.done(&mut session, true);
        file.writes(&mut session, b"def");
        file.tries(&mut session);
        file.memory_lost();
        file.saw(file.moment(), Some(seen(b"abcdef"))).unwrap();
        let closed = Seen { is_closed: true, ..seen(b"abcd") };
        assert!(file.saw(file.moment(), Some(seen(b"ab"))).is_err(), "so much was synced");
        file.saw(file.moment(), Some(closed)).unwrap();
        assert!(file.saw(file.moment(), Some(seen(b"abc"))).is_err(), "it is closed");
    }

    #[test]
    fn what_was_flushed_is_seen_from_then_on_and_never_less() {
        let mut file = StreamFile::default();
        let mut session = file.opened_new();
        file.writes(&mut session, b"abc");
        assert!(file.saw(file.moment(), Some(seen(b"abc"))).is_err(), "it was not flushed");
        let before = file.moment();
        file.tries(&mut session);
        file.done(&mut session, false);
        file.writes(&mut session, b"def");
        assert!(file.saw(file.moment(), None).is_err());
        assert!(file.saw(file.moment(), Some(seen(b"ab"))).is_err());
        assert!(file.saw(file.moment(), Some(seen(b"abx"))).is_err());
        file.saw(before, None).unwrap();
        file.saw(file.moment(), Some(seen(b"abcd"))).unwrap();
        assert!(file.saw(file.moment(), Some(seen(b"abc"))).is_err(), "it was longer");
    }

    #[test]
    fn what_is_written_on_stays_as_it_was_until_it_is_flushed() {
        let mut file = StreamFile::default();
        let mut session = file.opened_new();
        file.writes(&mut session, b"abc");
        file.tries(&mut session);
        file.done(&mut session, true);
        let now = file.moment();
        let mut other = file.opened_behind(now, seen(b"abc")).unwrap();
        file.writes(&mut other, b"d");
        assert!(file.saw(file.moment(), Some(seen(b"abcd"))).is_err());
        file.tries(&mut session);
        file.done(&mut session, true);
        file.saw(file.moment(), Some(seen(b"abc"))).unwrap();
        file.tries(&mut other);
        file.saw(file.moment(), Some(seen(b"abcd"))).unwrap();
        file.done(&mut other, false);
        assert!(file.saw(file.moment(), Some(seen(b"abc"))).is_err(), "it was longer");
    }

    #[test]
    fn a_cut_that_was_not_answered_may_have_been_made() {
        let mut file = StreamFile::default();
        let mut session = file.opened_new();
        file.writes(&mut session, b"abc");
        file.tries(&mut session);
        file.done(&mut session, true);
        file.cuts(1);
        let before = file.moment();
        file.saw(before, Some(seen(b"a"))).unwrap();
        file.saw(before, Some(seen(b"abc"))).unwrap();
        assert!(file.saw(file.moment(), Some(seen(b"ab"))).is_err());
        file.ends_cut(1, Some(file.moment()));
        assert!(file.saw(file.moment(), Some(seen(b"abc"))).is_err());
    }

    #[test]
    fn what_was_flushed_may_be_lost_with_the_power_and_what_was_synced_may_not() {
        let mut file = StreamFile::default();
        let mut session = file.opened_new();
        file.writes(&mut session, b"abc");
        file.tries(&mut session);
        file.done(&mut session, true);
        file.writes(&mut session, b"def");
        file.tries(&mut session);
        file.done(&mut session, false);
        assert!(file.saw(file.moment(), Some(seen(b"abcde"))).is_err());
        file.memory_lost();
        for bytes in [&b"abcdef"[..], b"abc", b"abcd"] {
            file.saw(file.moment(), Some(seen(bytes))).unwrap();
        }
        assert!(file.saw(file.moment(), Some(seen(b"ab"))).is_err(), "it was synced");
        assert!(file.saw(file.moment(), Some(seen(b"abx"))).is_err());
        file.saw(file.moment(), Some(Seen { is_closed: true, ..seen(b"abcd") })).unwrap();
        assert!(file.saw(file.moment(), Some(seen(b"abc"))).is_err(), "it was closed longer");
        file.memory_lost();
        assert!(file.saw(file.moment(), Some(seen(b"abc"))).is_err());
    }

    #[test]
    fn what_was_flushed_again_after_a_loss_is_there_until_the_next() {
        let mut file = StreamFile::default();
        let mut session = file.opened_new();
        file.writes(&mut session, b"abc");
        file.tries(&mut session);
        file.memory_lost();
        file.done(&mut session, false);
        file.saw(file.moment(), Some(seen(b""))).unwrap();
        file.tries(&mut session);
        file.done(&mut session, false);
        file.saw(file.moment(), Some(seen(b"ab"))).unwrap();
        file.writes(&mut session, b"d");
        file.tries(&mut session);
        file.done(&mut session, false);
        assert!(file.saw(file.moment(), Some(seen(b"abc"))).is_err());
    }
}
