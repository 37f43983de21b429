//! Content that passes through this process: standard input and copies within the cluster.

use std::fs::File;
use std::io::{self, Read};

use bytes::Bytes;
use doldam_client::{ClientError, FileReader, FileWriter, WriteReport};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::progress::Advance;

/// Bytes read from a pipe or device at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks that may wait for the cluster.
const CHUNKS_WAITING_MAX: usize = 4;

/// Why a stream did not arrive.
#[derive(Debug)]
pub(crate) enum StreamFailure {
    /// The local end cannot be read.
    Local(io::Error),
    /// The cluster could not give or take it.
    Cluster(ClientError),
}

/// Writes all of `source` to `writer` and closes it. A failure leaves nothing visible.
pub(crate) async fn store(
    source: File,
    mut writer: FileWriter,
    advance: &Advance,
) -> Result<WriteReport, StreamFailure> {
    if let Err(failure) = feed(source, &mut writer, advance).await {
        return Err(give_up(writer, failure).await);
    }
    writer.close().await.map_err(StreamFailure::Cluster)
}

/// Writes all of `source` to `writer`, which stays open.
pub(crate) async fn feed(
    source: File,
    writer: &mut FileWriter,
    advance: &Advance,
) -> Result<(), StreamFailure> {
    let mut chunks = read_ahead(source);
    while let Some(chunk) = chunks.recv().await {
        write(writer, &chunk.map_err(StreamFailure::Local)?, advance).await?;
    }
    Ok(())
}

/// Copies what is left of `reader` to `writer` and closes it. A failure leaves nothing visible.
pub(crate) async fn copy(
    mut reader: FileReader,
    mut writer: FileWriter,
    advance: &Advance,
) -> Result<WriteReport, StreamFailure> {
    loop {
        let written = match reader.read_chunk().await {
            Ok(Some(chunk)) => write(&mut writer, &chunk, advance).await,
            Ok(None) => break,
            Err(error) => Err(StreamFailure::Cluster(error)),
        };
        if let Err(failure) = written {
            return Err(give_up(writer, failure).await);
        }
    }
    writer.close().await.map_err(StreamFailure::Cluster)
}

async fn write(
    writer: &mut FileWriter,
    chunk: &Bytes,
    advance: &Advance,
) -> Result<(), StreamFailure> {
    writer.write_all(chunk).await.map_err(|error| match error.downcast::<ClientError>() {
        Ok(error) => StreamFailure::Cluster(error),
        Err(error) => StreamFailure::Local(error),
    })?;
    advance(chunk.len() as u64);
    Ok(())
}

async fn give_up(writer: FileWriter, failure: StreamFailure) -> StreamFailure {
    // If the namenode cannot be told, the lease runs out with the same end; the cause matters more.
    drop(writer.abandon().await);
    failure
}

/// Reads on a blocking thread, a few chunks ahead; ends with the end of the file or an error.
fn read_ahead(mut source: File) -> mpsc::Receiver<io::Result<Bytes>> {
    let (chunks, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            let read = (&mut source).take(CHUNK_BYTES as u64).read_to_end(&mut chunk);
            let (item, last) = match read {
                Ok(0) => return,
                Ok(_) => (Ok(Bytes::from(chunk)), false),
                Err(error) => (Err(error), true),
            };
            if chunks.blocking_send(item).is_err() || last {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    async fn arrives(content: &[u8]) -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file.rewind().unwrap();
        let mut chunks = read_ahead(file);
        let mut arrived = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            arrived.extend_from_slice(&chunk.unwrap());
        }
        arrived
    }

    #[tokio::test]
    async fn every_byte_arrives_on_either_side_of_a_chunk_boundary() {
        for bytes in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 7 * CHUNK_BYTES] {
            let content: Vec<u8> = (0..=250).cycle().take(bytes).collect();
            assert!(arrives(&content).await == content, "{bytes}");
        }
    }

    #[tokio::test]
    async fn a_source_that_cannot_be_read_is_an_error_and_an_end() {
        let mut chunks = read_ahead(File::open("/").unwrap());
        assert!(chunks.recv().await.unwrap().is_err());
        assert!(chunks.recv().await.is_none());
    }
}
