//! When a silent pipeline is looked into, and when a datanode that was asked whether it is alive counts as stuck.
//!
//! To look costs each node of the pipeline one small request, so it is done soon; while all answer, less and less
//! often. The verdict is what costs, if a node is given up wrongly: so it is not a matter of one deadline, but of how
//! the node does beside the others that were asked at the same moment. A machine or a network that is slow makes all of
//! them slow.

use std::time::Duration;

/// How many times longer than the slowest that answered a node may take, ...
const FACTOR: u32 = 8;
/// ... but not given up before, ...
const PATIENCE_MIN: Duration = Duration::from_secs(1);
/// ... and not waited for longer. Where nobody answers, it may be this client that is cut off.
const PATIENCE_MAX: Duration = Duration::from_secs(3);
/// How many times longer than at first the wait between two looks may grow.
const WAIT_GROWTH_MAX: u32 = 8;

/// How long a pipeline that owes answers has been silent.
#[derive(Debug)]
pub(crate) struct Silence {
    first_wait: Duration,
    wait: Duration,
    /// Since when nothing was heard, or since the last look, and the number of answers by then.
    since: Option<(Duration, u64)>,
}

impl Silence {
    /// To be looked into after `first_wait`.
    pub(crate) fn new(first_wait: Duration) -> Self {
        Self { first_wait, wait: first_wait, since: None }
    }

    /// At `now` so many answers were heard, and more are owed or not: whether to look into it.
    pub(crate) fn handle(&mut self, now: Duration, heard: u64, is_owed: bool) -> bool {
        let Some((since, _)) = self.since.filter(|(_, before)| is_owed && *before == heard) else {
            self.wait = self.first_wait;
            self.since = is_owed.then_some((now, heard));
            return false;
        };
        if now.saturating_sub(since) < self.wait {
            return false;
        }
        self.since = Some((now, heard));
        self.wait = (self.wait * 2).min(self.first_wait * WAIT_GROWTH_MAX);
        true
    }
}

/// What has come of asking all nodes of a pipeline at once.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    slowest: Option<Duration>,
}

impl Answers {
    /// One of them answered after so long.
    pub(crate) fn answered(&mut self, took: Duration) {
        self.slowest = self.slowest.max(Some(took));
    }

    /// How long after they were asked the others count as stuck.
    pub(crate) fn patience(&self) -> Duration {
        let patience = self.slowest.map_or(PATIENCE_MAX, |slowest| slowest.saturating_mul(FACTOR));
        patience.clamp(PATIENCE_MIN, PATIENCE_MAX)
    }

    /// Whether waiting until then proves anything: who notices much later that time is up was kept from running itself,
    /// and the answers may lie there.
    pub(crate) fn is_proof(&self, waited: Duration) -> bool {
        let patience = self.patience();
        (patience..=patience + patience / 4).contains(&waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_pipeline_is_looked_into_when_it_owes_something_and_nothing_is_heard() {
        let mut silence = Silence::new(ms(500));
        assert!(!silence.handle(ms(0), 0, true));
        assert!(!silence.handle(ms(499), 0, true));
        assert!(silence.handle(ms(500), 0, true));
        let mut silence = Silence::new(ms(500));
        silence.handle(ms(0), 0, true);
        assert!(!silence.handle(ms(500), 1, true), "something was heard");
        assert!(!silence.handle(ms(999), 1, true));
        assert!(silence.handle(ms(1000), 1, true));
        let mut silence = Silence::new(ms(500));
        silence.handle(ms(0), 0, false);
        assert!(!silence.handle(ms(500), 0, true), "it owes something only now");
        assert!(silence.handle(ms(1000), 0, true));
    }

    #[test]
    fn while_all_answer_it_is_looked_into_less_and_less_often_until_something_is_heard() {
        let mut silence = Silence::new(ms(500));
        let looks = |silence: &mut Silence, from: u64, heard| {
            let times = (from..from + 20_000).step_by(100);
            times.filter(|at| silence.handle(ms(*at), heard, true)).collect::<Vec<_>>()
        };
        assert_eq!(looks(&mut silence, 0, 0), [500, 1500, 3500, 7500, 11_500, 15_500, 19_500]);
        assert_eq!(looks(&mut silence, 20_000, 1)[..2], [20_500, 21_500]);
    }

    #[test]
    fn a_node_is_stuck_beside_others_that_answer_and_not_where_all_are_slow() {
        let mut answers = Answers::default();
        assert_eq!(answers.patience(), ms(3000), "nobody answers: it may be us");
        answers.answered(ms(5));
        assert_eq!(answers.patience(), ms(1000));
        answers.answered(ms(200));
        answers.answered(ms(100));
        assert_eq!(answers.patience(), ms(1600), "the slowest counts");
        answers.answered(ms(900));
        assert_eq!(answers.patience(), ms(3000));
    }

    #[test]
    fn a_client_that_was_kept_from_running_proves_nothing() {
        let mut answers = Answers::default();
        answers.answered(ms(5));
        assert!(!answers.is_proof(ms(999)));
        assert!(answers.is_proof(ms(1000)) && answers.is_proof(ms(1250)));
        assert!(!answers.is_proof(ms(1251)));
    }
}
