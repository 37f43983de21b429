//! What is measured: transfers that are disturbed, small reads and writes, repair, and a restart.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use doldam_client::{Client, ClientError, ClusterReport, GetOptions, PutOptions, WriteOptions};
use doldam_runtime::clock::Uptime;
use futures::{StreamExt, TryStreamExt};
use tokio::io::AsyncWriteExt;

use super::cluster::{Cluster, Fault};
use super::watch::Watch;
use crate::error::CommandError;
use crate::output::size::megabytes_per_second;
use crate::session::Session;

/// What was measured, in what unit, and the value of each run.
pub(super) type Series = (String, &'static str, Vec<f64>);

/// How long small operations go on after a failure.
const WATCHED_FOR: Duration = Duration::from_secs(12);
/// A small operation that takes longer has met the failure.
const SLOW: Duration = Duration::from_millis(250);
const SMALL_BYTES: usize = 64 << 10;
const SMALL_FILES: usize = 48;
/// Files made at once.
const MAKERS: usize = 32;
/// Copies of a file of which the fastest counts.
const BARE_COPIES: usize = 3;
/// Written to the local disk at a time.
const PIECE_BYTES: usize = 1 << 20;

/// The cluster, and what was found so far.
pub(super) struct Measurements<'a> {
    session: &'a Session,
    cluster: Cluster<'a>,
    folder: PathBuf,
    bytes: u64,
    block_bytes: u64,
    series: Vec<Series>,
}

impl<'a> Measurements<'a> {
    /// Makes the local file that is transferred.
    pub(super) async fn prepare(
        session: &'a Session,
        cluster: Cluster<'a>,
        folder: &Path,
        bytes: u64,
        block_bytes: u64,
    ) -> Result<Self, CommandError> {
        let folder = folder.to_owned();
        let made = Self { session, cluster, folder, bytes, block_bytes, series: Vec::new() };
        made.write_source().await?;
        Ok(made)
    }

    /// All that was measured.
    pub(super) fn into_series(self) -> Vec<Series> {
        self.series
    }

    fn note(&mut self, what: impl Into<String>, unit: &'static str, value: f64) {
        let what = what.into();
        match self.series.iter_mut().find(|(known, ..)| *known == what) {
            Some((.., values)) => values.push(value),
            None => self.series.push((what, unit, vec![value])),
        }
    }

    /// A put and a get, each with a datanode killed and one stopped in the middle.
    pub(super) async fn transfers(&mut self) -> Result<(), CommandError> {
        for (fault, name) in [(Fault::Killed, "killed"), (Fault::Stopped, "stopped")] {
            let (stall, victim) = self.disturbed_put(fault).await?;
            self.note(format!("longest stall of a put, a datanode {name}"), "s", stall);
            self.cluster.mend(victim, fault).await?;
            let (stall, victim) = self.disturbed_get(fault).await?;
            self.note(format!("longest stall of a get, a datanode {name}"), "s", stall);
            self.cluster.mend(victim, fault).await?;
        }
        Ok(())
    }

    async fn disturbed_put(&mut self, fault: Fault) -> Result<(f64, usize), CommandError> {
        let client = self.cluster.client().await?;
        let watch = Watch::start(&self.session.seams.clock, self.bytes / 4);
        let progress = Some(watch.advance());
        let options = PutOptions { create: self.options(), progress, ..PutOptions::default() };
        let source = self.folder.join("source");
        let put = client.put_file(&source, "/file", options);
        let hurt = async {
            watch.reached().await;
            let victim = self.cluster.busy();
            self.cluster.hurt(victim, fault).map(|()| victim)
        };
        let (put, victim) = tokio::join!(put, hurt);
        let stall = watch.longest_stall().as_secs_f64();
        put.map_err(CommandError::cluster("store", "/file"))?;
        Ok((stall, victim?))
    }

    async fn disturbed_get(&mut self, fault: Fault) -> Result<(f64, usize), CommandError> {
        let client = self.cluster.client().await?;
        let watch = Watch::start(&self.session.seams.clock, self.bytes / 8);
        let progress = Some(watch.advance());
        let options = GetOptions { overwrite: true, progress, ..GetOptions::default() };
        let target = self.folder.join("target");
        let get = client.get_file("/file", &target, options);
        let hurt = async {
            watch.reached().await;
            // Three of four hold each block, so most of what is read next may be on it.
            self.cluster.hurt(0, fault)
        };
        let (got, hurt) = tokio::join!(get, hurt);
        let stall = watch.longest_stall().as_secs_f64();
        got.map_err(CommandError::cluster("get", "/file"))?;
        hurt?;
        Ok((stall, 0))
    }

    /// Small files written, and others read, one after another, while a datanode is killed or stopped.
    pub(super) async fn small_operations(&mut self) -> Result<(), CommandError> {
        let client = self.cluster.client().await?;
        for index in 0..SMALL_FILES {
            let written = write_small(&client, &format!("/small/{index}")).await;
            written.map_err(CommandError::cluster("store", "/small"))?;
        }
        for (fault, name) in [(Fault::Killed, "killed"), (Fault::Stopped, "stopped")] {
            let (writer, reader) = (self.cluster.client().await?, self.cluster.client().await?);
            let start = self.session.now();
            let until = start + WATCHED_FOR;
            self.cluster.hurt(0, fault)?;
            let session = self.session;
            let writes = last_slow(session, until, |index| {
                let (writer, path) = (writer.clone(), format!("/new/{}", index % SMALL_FILES));
                async move { write_small(&writer, &path).await }
            });
            let reads = last_slow(session, until, |index| {
                let (reader, path) = (reader.clone(), format!("/small/{}", index % SMALL_FILES));
                async move { read_small(&reader, &path).await }
            });
            let (writes, reads) = tokio::join!(writes, reads);
            let since = |last: Uptime| last.saturating_sub(start).as_secs_f64();
            let (writes, reads) = (writes.map_or(0.0, since), reads.map_or(0.0, since));
            self.note(format!("writes avoid a {name} datanode after"), "s", writes);
            self.note(format!("reads avoid a {name} datanode after"), "s", reads);
            self.cluster.mend(0, fault).await?;
        }
        Ok(())
    }

    /// A datanode is killed and not started again until what it held is copied: once with nobody else at work, once
    /// during a put.
    pub(super) async fn repair(&mut self) -> Result<(), CommandError> {
        let client = self.cluster.client().await?;
        self.put(&client, "/file").await?;
        self.cluster.wait_until_idle().await?;
        let killed = self.session.now();
        self.cluster.hurt(0, Fault::Killed)?;
        let begun = self.repair_starts().await?;
        let bytes = self.cluster.to_be_copied().await?;
        self.cluster.wait_until_whole().await?;
        let rate = megabytes_per_second(bytes, self.session.seconds_since(begun));
        let bare = self.bare_copy().await?;
        self.cluster.mend(0, Fault::Killed).await?;

        // What came back is surplus and may be gone: fresh files are on all nodes again.
        self.put(&client, "/file").await?;
        let quiet = self.put(&client, "/other").await?;
        self.cluster.wait_until_idle().await?;
        self.cluster.hurt(0, Fault::Killed)?;
        self.repair_starts().await?;
        let busy = self.put(&client, "/another").await?;
        self.cluster.wait_until_whole().await?;
        self.cluster.mend(0, Fault::Killed).await?;

        self.note("repair starts after", "s", begun.saturating_sub(killed).as_secs_f64());
        self.note("repair, nobody else at work", "MB/s", rate);
        self.note("bare copy of a file, synced, best of three", "MB/s", bare);
        self.note("repair of that", "%", 100.0 * rate / bare);
        self.note("a put while nothing is repaired", "MB/s", quiet);
        self.note("a put during repair", "MB/s", busy);
        self.note("a put is slowed by repair by", "%", 100.0 * (1.0 - busy / quiet));
        Ok(())
    }

    /// Waits until a copy is under way, or all are done already; returns when that was.
    async fn repair_starts(&self) -> Result<Uptime, CommandError> {
        let lacked = AtomicBool::new(false);
        let begun = |report: &ClusterReport| {
            let lacks = report.under_replicated > 0;
            let is_done = !lacks && lacked.fetch_or(lacks, Ordering::Relaxed);
            report.repairs_running > 0 || is_done
        };
        self.cluster.until("repair starts", begun).await
    }

    /// Stores the file; returns its rate in MB/s.
    async fn put(&self, client: &Client, path: &str) -> Result<f64, CommandError> {
        let start = self.session.now();
        let options = PutOptions { create: self.options(), ..PutOptions::default() };
        let put = client.put_file(&self.folder.join("source"), path, options).await;
        put.map_err(CommandError::cluster("store", path))?;
        Ok(megabytes_per_second(self.bytes, self.session.seconds_since(start)))
    }

    fn options(&self) -> WriteOptions {
        WriteOptions {
            block_bytes: Some(self.block_bytes),
            overwrite: true,
            ..WriteOptions::default()
        }
    }

    /// Empty files, for the namenode to know.
    pub(super) async fn make_files(&self, count: u64) -> Result<(), CommandError> {
        const PER_DIRECTORY: u64 = 1000;
        let client = self.cluster.client().await?;
        let directories = (0..count.div_ceil(PER_DIRECTORY)).map(|index| format!("/many/{index}"));
        for directory in directories {
            let made = client.mkdir(&directory, true).await;
            made.map_err(CommandError::cluster("create the directory", directory))?;
        }
        let make = |index: u64| {
            let (client, path) =
                (client.clone(), format!("/many/{}/{index}", index / PER_DIRECTORY));
            async move { client.create_empty(path, WriteOptions::default()).await.map(drop) }
        };
        let made = futures::stream::iter(0..count).map(make).buffer_unordered(MAKERS);
        made.try_collect::<()>().await.map_err(CommandError::cluster("create files in", "/many"))
    }

    /// The namenode is killed and started again.
    pub(super) async fn restart(&mut self) -> Result<(), CommandError> {
        self.cluster.restart_namenode()?;
        let start = self.session.now();
        let client = self.cluster.client().await?;
        let read = client.stat("/file").await;
        read.map_err(CommandError::cluster("stat", "/file"))?;
        let answered = self.session.seconds_since(start);
        let written = write_small(&client, "/after").await;
        written.map_err(CommandError::cluster("store", "/after"))?;
        self.note("a killed namenode answers reads again after", "s", answered);
        let written = self.session.seconds_since(start);
        self.note("a killed namenode and its datanodes take a file after", "s", written);
        Ok(())
    }

    /// Writes `bytes` random bytes to a new local file and syncs it.
    async fn write_source(&self) -> Result<(), CommandError> {
        let (path, bytes) = (self.folder.join("source"), self.bytes);
        let mut piece = vec![0; PIECE_BYTES];
        self.session.seams.random.fill(&mut piece);
        let target = path.clone();
        let write = move || {
            let mut file = File::create(target)?;
            let mut left = bytes;
            while left > 0 {
                let count = left.min(piece.len() as u64);
                file.write_all(&piece[..count as usize])?;
                left -= count;
            }
            file.sync_all()
        };
        in_thread(write).await.map_err(CommandError::local("write", &path))
    }

    /// Copies the local file and syncs the copy, several times; returns the best rate in MB/s.
    ///
    /// A machine that has to fetch memory for the copy may need most of the time for that, and one that has just
    /// deleted the copy before need not. Whoever is compared with this may have met either: the better of both counts.
    async fn bare_copy(&self) -> Result<f64, CommandError> {
        let (source, target) = (self.folder.join("source"), self.folder.join("bare"));
        let mut best = 0.0_f64;
        for _ in 0..BARE_COPIES {
            let start = self.session.now();
            let (from, to) = (source.clone(), target.clone());
            let copied = in_thread(move || copy_synced(&from, &to)).await;
            copied.map_err(CommandError::local("write", &target))?;
            best = best.max(megabytes_per_second(self.bytes, self.session.seconds_since(start)));
            std::fs::remove_file(&target).map_err(CommandError::local("remove", &target))?;
        }
        Ok(best)
    }
}

async fn in_thread(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|stopped| Err(io::Error::other(stopped)))
}

/// By reading and writing, as a program does that looks at the bytes; not by a call that may leave out either.
fn copy_synced(from: &Path, to: &Path) -> io::Result<()> {
    let (mut source, mut target) = (File::open(from)?, File::create(to)?);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = source.read(&mut piece)?;
        if count == 0 {
            return target.sync_all();
        }
        target.write_all(&piece[..count])?;
    }
}

/// Does one small operation after another until then; returns when the last slow or failed one ended.
async fn last_slow<F: Future<Output = Result<(), ClientError>>>(
    session: &Session,
    until: Uptime,
    operation: impl Fn(usize) -> F,
) -> Option<Uptime> {
    let mut last = None;
    for index in 0.. {
        let begun = session.now();
        if begun >= until {
            break;
        }
        let done = operation(index).await;
        let ended = session.now();
        if done.is_err() || ended.saturating_sub(begun) > SLOW {
            last = Some(ended);
        }
    }
    last
}

async fn write_small(client: &Client, path: &str) -> Result<(), ClientError> {
    let mut file = client.create(path).parents(true).overwrite(true).open().await?;
    // A failure is kept, and told by `close`.
    let _ = file.write_all(&vec![7; SMALL_BYTES]).await;
    file.close().await.map(drop)
}

async fn read_small(client: &Client, path: &str) -> Result<(), ClientError> {
    let reader = client.open(path).await?;
    reader.read_at(0, SMALL_BYTES).await.map(drop)
}
