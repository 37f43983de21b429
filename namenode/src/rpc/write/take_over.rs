//! Writing what another client writes, once that has been silent for long enough.

use std::time::Duration;

use doldam_proto::FsError;
use doldam_proto::id::ClientId;
use doldam_proto::path::FsPath;
use doldam_proto::wire;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::{BeginRecoveryCommand, Outcome, outcome};
use tracing::info;

use crate::engine::namespace::view::{self, WriteView};
use crate::rpc::Context;

/// A file that is being recovered may be free again after so many seconds.
const RECOVERY_SECS: u64 = 1;
/// Writes of one path that are in the way at the most: of the file that is there, and one that waits for its name.
const IN_THE_WAY_MAX: usize = 2;

impl Context {
    /// Proposes a change that takes a path's lease. If another client's write is in the way and that client has been
    /// silent for long enough, an invisible one is given up for it, and a visible file is recovered first: then the
    /// caller is asked to come again.
    pub(super) async fn propose_or_take_over(
        &self,
        id: wire::RequestId,
        client: ClientId,
        path: &FsPath,
        change: impl Fn(bool) -> Change,
    ) -> Result<Outcome, FsError> {
        let mut take_over = false;
        for _ in 0..=IN_THE_WAY_MAX {
            let tried = self.driver.propose(Some(id.clone()), change(take_over)).await;
            let Err(FsError::LeaseHeld { path: held, holder, .. }) = tried else { return tried };
            let refuse = |ends_in_secs| {
                let (path, holder) = (held.clone(), holder.clone());
                Err(FsError::LeaseHeld { path, holder, ends_in_secs })
            };
            let writer = self.driver.read(|tables| view::writer_of_path(tables, path)).await?;
            let Some(writer) = writer else { continue }; // It ended meanwhile.
            if writer.is_in_recovery() {
                return refuse(RECOVERY_SECS);
            }
            let left = if writer.client == client {
                Duration::ZERO
            } else {
                self.hub.leases().soft_left(writer.client, self.hub.now())
            };
            if !left.is_zero() {
                return refuse(left.as_secs() + u64::from(left.subsec_nanos() > 0));
            }
            if !writer.visible {
                take_over = true;
            } else if self.begin_recovery(&writer).await? {
                return refuse(RECOVERY_SECS);
            }
        }
        Err(FsError::Unavailable { why: "others write this path again and again".to_owned() })
    }

    /// Takes a visible file from its writer; whether it has to be waited for.
    async fn begin_recovery(&self, writer: &WriteView) -> Result<bool, FsError> {
        info!(
            inode = %writer.inode, path = writer.path, client = %writer.client,
            "a silent writer is fenced off, and its file recovered"
        );
        let command = BeginRecoveryCommand { inode_id: writer.inode.0 };
        let outcome = self.driver.propose(None, Change::BeginRecovery(command)).await?;
        self.hub.release_write(writer.inode);
        self.hub.note_abandoned();
        match outcome.kind {
            Some(outcome::Kind::Recovery(begun)) => Ok(begun.block_id != 0),
            _ => Err(super::wrong_outcome()),
        }
    }
}
