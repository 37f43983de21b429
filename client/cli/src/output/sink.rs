//! File content on its way to standard output.
//!
//! A thread of its own writes, so that a slow or stuck reader of the pipe blocks neither the
//! transfer's other work nor the answer to Ctrl-C.

use std::io::{self, Write};

use bytes::Bytes;
use doldam_client::FileReader;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::CommandError;
use crate::output::raw_stdout;

/// Chunks that may wait for the writing thread.
const CHUNKS_WAITING_MAX: usize = 4;

/// Standard output for bytes.
pub(crate) struct Sink {
    chunks: mpsc::Sender<Bytes>,
    writer: JoinHandle<io::Result<()>>,
}

impl Sink {
    /// Starts the thread that writes.
    ///
    /// # Errors
    /// If standard output is closed.
    pub(crate) fn standard() -> Result<Self, CommandError> {
        let mut stdout = raw_stdout().map_err(CommandError::Output)?;
        let (chunks, mut receiver) = mpsc::channel::<Bytes>(CHUNKS_WAITING_MAX);
        let writer = tokio::task::spawn_blocking(move || {
            while let Some(chunk) = receiver.blocking_recv() {
                stdout.write_all(&chunk)?;
            }
            Ok(())
        });
        Ok(Self { chunks, writer })
    }

    /// Hands `chunk` over; returns whether anyone still takes it. Why not, [`finish`](Self::finish)
    /// tells.
    pub(crate) async fn write(&mut self, chunk: Bytes) -> bool {
        chunk.is_empty() || self.chunks.send(chunk).await.is_ok()
    }

    /// Hands over all that is left of `reader`; returns whether anyone still takes it.
    ///
    /// # Errors
    /// If the file cannot be read to its end.
    pub(crate) async fn pour(
        &mut self,
        reader: &mut FileReader,
        advance: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<bool, doldam_client::ClientError> {
        while let Some(chunk) = reader.read_chunk().await? {
            let bytes = chunk.len() as u64;
            if !self.write(chunk).await {
                return Ok(false);
            }
            advance(bytes);
        }
        Ok(true)
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// If standard output did not take it.
    pub(crate) async fn finish(self) -> Result<(), CommandError> {
        drop(self.chunks);
        let written = self.writer.await;
        written
            .unwrap_or_else(|stopped| Err(io::Error::other(stopped)))
            .map_err(CommandError::Output)
    }
}
