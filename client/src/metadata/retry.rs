//! When a call is made again, and where; and when no longer.

use std::sync::atomic::Ordering;
use std::time::Duration;

use doldam_proto::FsError;
use doldam_runtime::clock::Uptime;
use doldam_runtime::retry::Backoff;
use tonic::{Code, Status};

use super::{Endpoint, Metadata, Patience};
use crate::error::{ClientError, NamenodeFailure};

const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What a failed try means.
#[derive(Debug)]
enum Verdict {
    /// The answer; trying again would give the same.
    Final(ClientError),
    /// Ask the namenode named instead.
    Redirect { leader: String, refusal: FsError },
    /// The namenode is well and cannot right now.
    Later(FsError),
    /// It was not reached, or it is unknown what became of the call.
    Lost { cause: String },
}

fn judge(address: &str, status: &Status) -> Verdict {
    match FsError::from_status(status) {
        Some(FsError::NotLeader { leader }) => {
            Verdict::Redirect { leader: leader.clone(), refusal: FsError::NotLeader { leader } }
        }
        Some(refusal @ (FsError::Unavailable { .. } | FsError::NoDatanodes { .. })) => {
            Verdict::Later(refusal)
        }
        Some(refusal) => Verdict::Final(refusal.into()),
        None => match status.code() {
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Internal
            | Code::Aborted
            | Code::DataLoss => Verdict::Lost { cause: cause_of(status) },
            code => Verdict::Final(ClientError::BadAnswer {
                peer: format!("the namenode at {address}"),
                what: format!("{code:?}: {}", status.message()),
            }),
        },
    }
}

/// The innermost cause, which is the one that helps: "connection refused" rather than "transport error".
pub(super) fn cause_of(status: &Status) -> String {
    let mut cause = std::error::Error::source(status);
    let mut innermost = None;
    while let Some(error) = cause {
        innermost = Some(error.to_string());
        cause = error.source();
    }
    innermost.unwrap_or_else(|| status.message().to_owned())
}

/// The tries of one call.
pub(super) struct Retry<'a> {
    metadata: &'a Metadata,
    operation: &'static str,
    patience: Patience,
    started: Uptime,
    backoff: Backoff,
    tries: usize,
    tried: Vec<NamenodeFailure>,
    /// The last answer, if the last try had one.
    refusal: Option<FsError>,
}

impl<'a> Retry<'a> {
    pub(super) fn new(metadata: &'a Metadata, operation: &'static str, patience: Patience) -> Self {
        Self {
            metadata,
            operation,
            patience,
            started: metadata.seams.clock.now(),
            backoff: Backoff::new(PAUSE_FIRST, PAUSE_MAX),
            tries: 0,
            tried: Vec::new(),
            refusal: None,
        }
    }

    /// Whom to ask next and how long to wait for the answer; pauses when everybody was asked once more.
    ///
    /// # Errors
    /// If the time is up: what the tries came to.
    pub(super) async fn next(&mut self) -> Result<(&'a Endpoint, Duration), ClientError> {
        let left = self.patience.total.saturating_sub(self.waited());
        let namenodes = self.metadata.endpoints.len();
        if self.tries > 0 && self.tries.is_multiple_of(namenodes) {
            let pause = self.backoff.next_pause(&*self.metadata.seams.random);
            if pause >= left {
                return Err(self.give_up());
            }
            tokio::time::sleep(pause).await;
        }
        let left = self.patience.total.saturating_sub(self.waited());
        if left.is_zero() {
            return Err(self.give_up());
        }
        // A namenode that does not even refuse must leave time for the others.
        let untried = namenodes.saturating_sub(self.tries).max(1) as u32;
        self.tries += 1;
        let address = self.metadata.leader.lock().current().to_owned();
        let within = (left / untried).min(self.metadata.config.attempt_timeout);
        // Only configured addresses are ever current, and each has its endpoint.
        match self.metadata.endpoints.get(&address) {
            Some(endpoint) => Ok((endpoint, within)),
            None => Err(self.give_up()),
        }
    }

    /// Takes note of a failed try.
    ///
    /// # Errors
    /// If trying again is useless.
    pub(super) fn failed(
        &mut self,
        endpoint: &Endpoint,
        status: &Status,
    ) -> Result<(), ClientError> {
        let address = &endpoint.address;
        match judge(address, status) {
            Verdict::Final(error) => return Err(error),
            Verdict::Redirect { leader, refusal } => {
                self.metadata.leader.lock().handle_redirect(address, &leader);
                self.note(address, refusal.to_string());
                self.refusal = Some(refusal);
            }
            Verdict::Later(refusal) => {
                let placement = matches!(refusal, FsError::NoDatanodes { .. });
                if placement && self.waited() >= self.patience.placement {
                    return Err(refusal.into());
                }
                if !placement {
                    self.metadata.leader.lock().handle_silence(address);
                }
                self.note(address, refusal.to_string());
                self.refusal = Some(refusal);
            }
            Verdict::Lost { cause } => {
                tracing::debug!(namenode = %address, operation = self.operation, %cause, "lost");
                endpoint.greeted.store(false, Ordering::Release);
                self.metadata.leader.lock().handle_silence(address);
                self.note(address, cause);
                self.refusal = None;
            }
        }
        Ok(())
    }

    fn waited(&self) -> Duration {
        self.metadata.seams.clock.now().saturating_sub(self.started)
    }

    fn note(&mut self, address: &str, cause: String) {
        match self.tried.iter_mut().find(|failure| failure.address == address) {
            Some(failure) => failure.cause = cause,
            None => self.tried.push(NamenodeFailure { address: address.to_owned(), cause }),
        }
    }

    fn give_up(&mut self) -> ClientError {
        match self.refusal.take() {
            Some(refusal) => refusal.into(),
            None => ClientError::Unreachable {
                operation: self.operation,
                tried: std::mem::take(&mut self.tried),
                waited: self.waited(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_change_is_tried_again() {
        let status = |error: FsError| Status::from(error);
        let not_leader = FsError::NotLeader { leader: "b:1".into() };
        let verdict = judge("a:1", &status(not_leader));
        assert!(matches!(verdict, Verdict::Redirect { leader, .. } if leader == "b:1"));
        let busy = judge("a:1", &status(FsError::Unavailable { why: "full".into() }));
        assert!(matches!(busy, Verdict::Later(FsError::Unavailable { .. })));
        let missing = judge("a:1", &status(FsError::NotFound { path: "/a".into() }));
        assert!(matches!(missing, Verdict::Final(ClientError::Refused(FsError::NotFound { .. }))));
        let lost = judge("a:1", &Status::unavailable("connection reset"));
        assert!(matches!(lost, Verdict::Lost { cause } if cause == "connection reset"));
        let foreign = judge("a:1", &Status::unimplemented("what?"));
        let Verdict::Final(ClientError::BadAnswer { peer, what }) = foreign else {
            panic!("{foreign:?}")
        };
        assert_eq!((&peer[..], &what[..]), ("the namenode at a:1", "Unimplemented: what?"));
    }
}
