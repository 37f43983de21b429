//! Clients that flush, sync, write on, cut, and leave files half-written: all in the same few files.

use std::sync::Arc;
use std::time::Duration;

use doldam_client::{Client, ClientError, FileStatus, FileWriter};
use doldam_runtime::random::Random;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

use super::Violation;
use super::oracle::content::{ContentId, bytes_of};
use super::oracle::stream::{Seen, Session};
use super::process::Incarnation;
use super::workload::{Actor, SIZES};
use super::world::{World, chain};

/// Bytes of a block of every file here.
const BLOCK_BYTES: u64 = 64 << 10;
/// Longest file that is written on.
const LENGTH_MAX: u64 = 400_000;

fn path_of(file: usize) -> String {
    format!("/s/f{file}")
}

fn seen_of(status: &FileStatus) -> Option<Seen> {
    let digest: [u8; 32] = status.digest?.to_bytes().as_ref().try_into().ok()?;
    let (length, is_closed) = (status.length as usize, !status.being_written);
    Some(Seen { length, digest: blake3::Hash::from_bytes(digest), is_closed })
}

/// What a look at a file came to.
enum Looked {
    /// At this, whole and being written or not.
    File(FileStatus, Seen, Vec<u8>),
    /// Nothing is there.
    Absent,
    /// No answer came.
    Unknown,
}

impl Actor {
    /// Does something with one of the files.
    ///
    /// # Errors
    /// If something is seen there that cannot be.
    pub(super) async fn stream(
        &self,
        client: &Client,
        incarnation: &Arc<Incarnation>,
    ) -> Result<(), Violation> {
        let count = self.world().streams.borrow().len() as u64;
        let file = self.chance().below(count) as usize;
        match self.chance().below(10) {
            0..4 => match self.look_at(client, file).await? {
                Looked::File(_, seen, _) if seen.length as u64 > LENGTH_MAX => {
                    self.create(client, file, incarnation).await
                }
                Looked::File(..) => self.append(client, file, incarnation).await,
                Looked::Absent => self.create(client, file, incarnation).await,
                Looked::Unknown => Ok(()),
            },
            4..6 => self.create(client, file, incarnation).await,
            6 => self.cut(client, file).await,
            _ => self.read_stream(client, file).await.map(drop),
        }
    }

    fn tell(&self, file: usize, what: &str) {
        let who = format!("c{}", self.number());
        self.world().trace.line(&who, format_args!("{}: {what}", path_of(file)));
    }

    fn failed(&self, file: usize, during: &str, error: &ClientError) {
        self.tell(file, &format!("{during}: {}", chain(error)));
    }

    async fn look_at(&self, client: &Client, file: usize) -> Result<Looked, Violation> {
        let since = self.world().streams.borrow()[file].moment();
        let status = client.try_stat(path_of(file)).await;
        let status = match status {
            Ok(status) => status,
            Err(error) => {
                self.failed(file, "look", &error);
                return Ok(Looked::Unknown);
            }
        };
        let seen = status.as_ref().and_then(seen_of);
        let bytes = self.world().streams.borrow_mut()[file].saw(since, seen);
        let bytes = bytes.map_err(|what| broken("what is flushed is seen", file, &what))?;
        Ok(match (status, seen) {
            (Some(status), Some(seen)) => Looked::File(status, seen, bytes),
            _ => Looked::Absent,
        })
    }

    /// Reads some of the file and checks every byte; whether all that was asked for came.
    async fn read_stream(&self, client: &Client, file: usize) -> Result<bool, Violation> {
        let since = self.world().streams.borrow()[file].moment();
        let opened = client.open(path_of(file)).await;
        let (reader, seen) = match opened {
            Ok(reader) => {
                let seen = seen_of(reader.status());
                (Some(reader), seen)
            }
            Err(error) if error.is_not_found() => (None, None),
            Err(error) => {
                self.failed(file, "open", &error);
                return Ok(false);
            }
        };
        let expected = self.world().streams.borrow_mut()[file].saw(since, seen);
        let expected = expected.map_err(|what| broken("what is flushed is seen", file, &what))?;
        let Some(reader) = reader else { return Ok(true) };
        let length = expected.len();
        let (from, count) = match self.chance().below(2) {
            0 => (0, length),
            _ => (self.chance().below(length as u64 + 1) as usize, 100_000),
        };
        match reader.read_at(from as u64, count).await {
            Ok(bytes) if bytes == expected[from..length.min(from + count)] => Ok(true),
            Ok(bytes) => {
                let what = format!("{count} bytes from {from} came as {} others", bytes.len());
                Err(broken("what is read was written", file, &what))
            }
            Err(error) => {
                self.failed(file, "read", &error);
                Ok(false)
            }
        }
    }

    async fn create(
        &self,
        client: &Client,
        file: usize,
        incarnation: &Arc<Incarnation>,
    ) -> Result<(), Violation> {
        let create = client.create(path_of(file)).overwrite(true).parents(true);
        let replication = 2 + self.chance().below(2) as u32;
        match create.replication(replication).block_bytes(BLOCK_BYTES).open().await {
            Ok(writer) => {
                let session = self.world().streams.borrow_mut()[file].opened_new();
                self.tell(file, "is created");
                self.write(file, writer, session, incarnation).await;
            }
            Err(error) => self.failed(file, "create", &error),
        }
        Ok(())
    }

    async fn append(
        &self,
        client: &Client,
        file: usize,
        incarnation: &Arc<Incarnation>,
    ) -> Result<(), Violation> {
        let writer = match client.append(path_of(file)).open().await {
            Ok(writer) => writer,
            Err(error) => {
                self.failed(file, "append", &error);
                return Ok(());
            }
        };
        // As long as this client has it open and does nothing, nobody changes it.
        let since = self.world().streams.borrow()[file].moment();
        let Looked::File(_, seen, _) = self.look_at(client, file).await? else { return Ok(()) };
        if seen.length as u64 != writer.length() {
            // It was given up on by all, or another took it over: that shows at the first flush.
            let taken_over = self.world().streams.borrow()[file].moment() != since;
            let what = format!("{} bytes are seen, {} written on", seen.length, writer.length());
            self.tell(file, &what);
            return if taken_over { Ok(()) } else { Err(broken("one writer", file, &what)) };
        }
        let opened = self.world().streams.borrow_mut()[file].opened_behind(since, seen);
        let session = opened.map_err(|what| broken("what is flushed is seen", file, &what))?;
        self.tell(file, &format!("is written on behind {}", seen.length));
        self.write(file, writer, session, incarnation).await;
        Ok(())
    }

    async fn write(
        &self,
        file: usize,
        mut writer: FileWriter,
        mut session: Session,
        incarnation: &Arc<Incarnation>,
    ) {
        for _ in 0..=self.chance().below(4) {
            let size = SIZES[self.chance().below(SIZES.len() as u64) as usize];
            let size = if self.chance().below(2) == 0 { size } else { self.chance().below(90_000) };
            let number = ContentId((1 << 62) + self.chance().below(1 << 60));
            let more = bytes_of(number, size);
            self.world().streams.borrow_mut()[file].writes(&mut session, &more);
            if let Err(error) = writer.write_all(&more).await {
                return self.tell(file, &format!("write: {error}"));
            }
            let step = self.chance().below(8);
            if step < 5 && !self.flush(file, &mut writer, &mut session, step == 0).await {
                return;
            }
            if self.chance().below(3) == 0 {
                sleep(Duration::from_millis(self.chance().below(2000))).await;
            }
        }
        match self.chance().below(8) {
            0 => {
                self.tell(file, "is given up");
                if let Err(error) = writer.abandon().await {
                    self.failed(file, "abandon", &error);
                }
            }
            1 => self.tell(file, "is dropped"),
            2 | 3 => {
                self.tell(file, "its writer is killed");
                incarnation.die();
                self.world().network.drop_process(incarnation, true);
            }
            _ => {
                self.tries(file, &mut session);
                match writer.close().await {
                    Ok(_) => self.done(file, &mut session, "closed", true),
                    Err(error) => self.failed(file, "close", &error),
                }
            }
        }
    }

    async fn flush(
        &self,
        file: usize,
        writer: &mut FileWriter,
        session: &mut Session,
        sync: bool,
    ) -> bool {
        self.tries(file, session);
        let flushed = if sync { writer.sync().await } else { writer.flush().await };
        match &flushed {
            Ok(()) => self.done(file, session, if sync { "synced" } else { "flushed" }, sync),
            Err(error) => self.failed(file, "flush", error),
        }
        flushed.is_ok()
    }

    fn tries(&self, file: usize, session: &mut Session) {
        self.world().streams.borrow_mut()[file].tries(session);
        if self.world().drops_memory.get() {
            self.world().lose_memory();
        }
    }

    fn done(&self, file: usize, session: &mut Session, how: &str, is_durable: bool) {
        self.tell(file, &format!("is {how} at {}", session.bytes.len()));
        self.world().streams.borrow_mut()[file].done(session, is_durable);
    }

    async fn cut(&self, client: &Client, file: usize) -> Result<(), Violation> {
        let least = self.world().streams.borrow()[file].least();
        let Some(least) = least else { return Ok(()) };
        let length = self.chance().below(least as u64 + 1);
        let since = {
            let mut streams = self.world().streams.borrow_mut();
            streams[file].cuts(length as usize);
            streams[file].moment()
        };
        match client.truncate(path_of(file), length).await {
            Ok(_) => {
                self.tell(file, &format!("is cut to {length}"));
                self.world().streams.borrow_mut()[file].ends_cut(length as usize, Some(since));
            }
            Err(error) => {
                self.failed(file, "cut", &error);
                self.world().streams.borrow_mut()[file].ends_cut(length as usize, None);
            }
        }
        Ok(())
    }

    /// After all healed: the file is closed, and all of it can be read.
    ///
    /// # Errors
    /// If not, until `deadline`.
    pub(super) async fn settle_stream(
        &self,
        client: &Client,
        file: usize,
        deadline: Instant,
    ) -> Result<(), Violation> {
        loop {
            let looked = self.look_at(client, file).await?;
            let is_closed = match looked {
                Looked::Absent => return Ok(()),
                Looked::File(status, _, bytes) if !status.being_written => {
                    self.world().contents.borrow_mut().knows(&bytes, BLOCK_BYTES);
                    if self.read_stream(client, file).await? {
                        return Ok(());
                    }
                    true
                }
                Looked::File(..) | Looked::Unknown => false,
            };
            if Instant::now() >= deadline {
                let promise = if is_closed {
                    "acknowledged files are read"
                } else {
                    "files that were left are closed"
                };
                return Err(broken(promise, file, "not in time"));
            }
            sleep(Duration::from_secs(1)).await;
        }
    }
}

fn broken(promise: &'static str, file: usize, what: &str) -> Violation {
    Violation::new(promise, format!("{}: {what}", path_of(file)))
}

impl World {
    /// How many files are streamed into.
    pub(super) fn stream_count(&self) -> usize {
        self.streams.borrow().len()
    }
}
