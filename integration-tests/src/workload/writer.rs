//! A client that changes things in a directory of its own.

use std::sync::Arc;

use doldam_client::{Client, ClientError, ErrorKind, FsError};
use doldam_runtime::random::{Random, SeededRandom};
use tokio::io::AsyncWriteExt;

use super::{Load, Shared, count, read};
use crate::cluster::content::bytes;
use crate::oracle::{Change, Content, Ticket};

/// Names in the directory of one writer.
const NAMES: u64 = 10;
const BLOCK_BYTES: u64 = 64 << 10;

pub(super) struct Writer {
    index: u64,
    client: Client,
    random: SeededRandom,
    load: Load,
    written: u64,
}

impl Writer {
    pub(super) fn new(index: u64, client: Client, random: SeededRandom, load: Load) -> Self {
        Self { index, client, random, load, written: 0 }
    }

    /// Does one thing after another.
    pub(super) async fn run(mut self, shared: Arc<Shared>) {
        while !shared.is_stopping() {
            let path = self.any_path();
            let is_file = shared.history().possible(&path)[0].is_file();
            match self.random.below(10) {
                0..=4 => self.write(&shared, path).await,
                5..=6 if is_file => self.rename(&shared, path).await,
                7 if is_file => self.delete(&shared, path).await,
                _ => drop(self.look(&shared, &path).await),
            }
        }
    }

    fn any_path(&self) -> String {
        format!("/w{}/{}", self.index, self.random.below(NAMES))
    }

    async fn write(&mut self, shared: &Shared, path: String) {
        self.written += 1;
        let content = bytes(self.index << 32 | self.written, self.any_length());
        let change = Change::Write { path: path.clone(), content: Content::of(&content) };
        let ticket = shared.history().begin(change);
        match self.put(&path, &content).await {
            Ok(()) => shared.done(ticket),
            Err(error) if is_open(&error) => self.settle(shared, ticket, &[path]).await,
            Err(error) if error.kind() == ErrorKind::Damaged => {
                shared.violation(&path, format!("a writer was told: {error}"));
            }
            // Nothing is visible then: the library says so, and whoever reads it now tells.
            Err(_) => {
                shared.history().refused(ticket);
                count(&shared.failures);
            }
        }
    }

    /// Half of the files fit one block.
    fn any_length(&self) -> usize {
        let most = if self.random.below(2) == 0 { BLOCK_BYTES } else { self.load.bytes_max };
        1 + self.random.below(most) as usize
    }

    async fn put(&self, path: &str, content: &[u8]) -> Result<(), ClientError> {
        let levels = self.load.durability;
        let durability = levels[self.random.below(levels.len() as u64) as usize];
        let create = self.client.create(path).parents(true).overwrite(true);
        let create = create.block_bytes(BLOCK_BYTES).durability(durability);
        let mut file = create.open().await?;
        // In pieces, as applications do.
        for piece in content.chunks(50_000) {
            // Given up here, it is never completed; the cause is kept, and `close` would tell it.
            if file.write_all(piece).await.is_err() {
                break;
            }
        }
        file.close().await.map(drop)
    }

    async fn rename(&self, shared: &Shared, from: String) {
        let to = self.any_path();
        if to == from {
            return;
        }
        let change = Change::Rename { from: from.clone(), to: to.clone() };
        let ticket = shared.history().begin(change);
        let renamed = self.client.rename(&from, &to, true).await;
        self.answered(shared, ticket, renamed, &[from, to]).await;
    }

    async fn delete(&self, shared: &Shared, path: String) {
        let ticket = shared.history().begin(Change::Delete { path: path.clone() });
        let deleted = self.client.delete(&path, false).await;
        self.answered(shared, ticket, deleted, &[path]).await;
    }

    /// Nobody else changes anything here: a change that was refused was applied twice, or what it is about was lost.
    async fn answered(
        &self,
        shared: &Shared,
        ticket: Ticket,
        answer: Result<(), ClientError>,
        paths: &[String],
    ) {
        match answer {
            Ok(()) => shared.done(ticket),
            Err(error) if is_open(&error) => self.settle(shared, ticket, paths).await,
            Err(error) => shared.violation(&paths[0], format!("a change was refused: {error}")),
        }
    }

    /// Nobody said what became of a change: looks until it is known.
    async fn settle(&self, shared: &Shared, ticket: Ticket, paths: &[String]) {
        shared.history().unknown(ticket);
        count(&shared.failures);
        for path in paths {
            while !self.look(shared, path).await && !shared.is_stopping() {}
        }
    }

    /// Reads a file of its own, with no change under way; tells whether there was an answer.
    async fn look(&self, shared: &Shared, path: &str) -> bool {
        match read(&self.client, path).await {
            Ok(content) => {
                let verdict = shared.history().observed(path, &content);
                shared.check(verdict);
                count(&shared.reads);
                true
            }
            Err(error) if error.kind() == ErrorKind::Damaged => {
                shared.violation(path, format!("its writer was told: {error}"));
                true
            }
            Err(_) => {
                count(&shared.failures);
                false
            }
        }
    }
}

/// Whether nobody can say if the change was made.
fn is_open(error: &ClientError) -> bool {
    let gone = matches!(error, ClientError::Unreachable { .. });
    gone || matches!(error.refusal(), Some(FsError::Unavailable { .. }))
}
