//! Bytes over loopback connections, hop by hop, with what a datanode must do with them and no more.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;

use doldam_proto::digest::group::group_chaining_value;
use doldam_proto::limits::GROUP_BYTES;

use crate::disk::{PIECE_BYTES, cached_file, piece};
use crate::{Bench, Outcome};

/// Bytes of a file at a hop, as of a block.
const BLOCK_BYTES: u64 = 128 << 20;

/// What each hop does with what comes in, besides passing it on.
#[derive(Debug, Clone, Copy, Default)]
struct Duty {
    hash: bool,
    write: bool,
    sync: bool,
}

const HASHED: Duty = Duty { hash: true, write: false, sync: false };
const WRITTEN: Duty = Duty { write: true, ..HASHED };
const SYNCED: Duty = Duty { sync: true, ..WRITTEN };

pub(crate) fn one_hop(bench: &Bench) -> Outcome<()> {
    pipeline(bench, 1, Duty::default())
}

pub(crate) fn three_hops(bench: &Bench) -> Outcome<()> {
    pipeline(bench, 3, Duty::default())
}

pub(crate) fn three_hops_hashed(bench: &Bench) -> Outcome<()> {
    pipeline(bench, 3, HASHED)
}

pub(crate) fn three_hops_written(bench: &Bench) -> Outcome<()> {
    pipeline(bench, 3, WRITTEN)
}

pub(crate) fn three_hops_synced(bench: &Bench) -> Outcome<()> {
    pipeline(bench, 3, SYNCED)
}

pub(crate) fn one_hop_written(bench: &Bench) -> Outcome<()> {
    pipeline(bench, 1, WRITTEN)
}

pub(crate) fn read_hashed(bench: &Bench) -> Outcome<()> {
    download(bench, HASHED)
}

pub(crate) fn read_written(bench: &Bench) -> Outcome<()> {
    download(bench, WRITTEN)
}

/// Sends all bytes through `hops` threads, the client hashing as each of them does.
fn pipeline(bench: &Bench, hops: usize, duty: Duty) -> Outcome<()> {
    let piece = piece(bench);
    thread::scope(|scope| {
        let mut next = None;
        let mut nodes = Vec::new();
        for hop in (0..hops).rev() {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let forward = next.replace(listener.local_addr()?);
            let files = bench.dir.path().join(format!("hop{hop}"));
            nodes.push(scope.spawn(move || -> io::Result<()> {
                let forward = forward.map(TcpStream::connect).transpose()?;
                receive(listener.accept()?.0, forward, duty, &files)
            }));
        }
        let Some(first) = next else { return Ok(()) };
        let mut client = TcpStream::connect(first)?;
        for index in 0..bench.bytes / PIECE_BYTES as u64 {
            if duty.hash {
                hash(index * PIECE_BYTES as u64, &piece);
            }
            client.write_all(&piece)?;
        }
        client.shutdown(std::net::Shutdown::Write)?;
        // The first hop closes when all behind it have.
        client.read_to_end(&mut Vec::new())?;
        nodes.into_iter().try_for_each(|node| join(node.join()))
    })
}

/// One hop: a piece is handed on, then hashed, then written, all in one thread.
fn receive(
    mut from: TcpStream,
    mut forward: Option<TcpStream>,
    duty: Duty,
    files: &Path,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    let mut blocks = Blocks::new(files);
    let mut offset = 0;
    while read_piece(&mut from, &mut buffer)? {
        if let Some(forward) = &mut forward {
            forward.write_all(&buffer)?;
        }
        take(&buffer, offset, duty, &mut blocks)?;
        offset += PIECE_BYTES as u64;
    }
    blocks.end(duty.sync)?;
    if let Some(mut forward) = forward {
        forward.shutdown(std::net::Shutdown::Write)?;
        forward.read_to_end(&mut Vec::new())?;
    }
    Ok(())
}

/// Sends a cached file to a client that does its duty.
fn download(bench: &Bench, duty: Duty) -> Outcome<()> {
    let source = cached_file(bench, "source")?;
    let files = bench.dir.path().join("client");
    thread::scope(|scope| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let server = scope.spawn(move || -> io::Result<()> {
            let (mut to, file) = (listener.accept()?.0, File::open(source)?);
            let (mut buffer, mut offset) = (vec![0; PIECE_BYTES], 0);
            loop {
                let count = file.read_at(&mut buffer, offset)?;
                if count == 0 {
                    return Ok(());
                }
                to.write_all(&buffer[..count])?;
                offset += count as u64;
            }
        });
        receive(TcpStream::connect(address)?, None, duty, &files)?;
        join(server.join())
    })
}

fn join(ended: thread::Result<io::Result<()>>) -> Outcome<()> {
    Ok(ended.map_err(|_panicked| io::Error::other("a thread panicked"))??)
}

/// Whether a whole piece came, rather than the end.
fn read_piece(from: &mut TcpStream, buffer: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(cause) => Err(cause),
    }
}

fn take(piece: &[u8], offset: u64, duty: Duty, blocks: &mut Blocks) -> io::Result<()> {
    if duty.hash {
        hash(offset, piece);
    }
    if duty.write { blocks.write(piece, duty.sync) } else { Ok(()) }
}

fn hash(offset: u64, piece: &[u8]) {
    for (index, group) in piece.chunks(GROUP_BYTES as usize).enumerate() {
        std::hint::black_box(group_chaining_value(offset + index as u64 * GROUP_BYTES, group));
    }
}

/// Files of a block each; the one before goes when the next begins.
struct Blocks {
    path: PathBuf,
    current: Option<(File, u64)>,
    count: u64,
}

impl Blocks {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), current: None, count: 0 }
    }

    fn name(&self, number: u64) -> PathBuf {
        self.path.with_extension(number.to_string())
    }

    fn write(&mut self, piece: &[u8], sync: bool) -> io::Result<()> {
        let (file, length) = match self.current.take() {
            Some(current) => current,
            None => (self.begin()?, 0),
        };
        file.write_all_at(piece, length)?;
        let length = length + piece.len() as u64;
        if length < BLOCK_BYTES {
            self.current = Some((file, length));
        } else if sync {
            file.sync_data()?;
        }
        Ok(())
    }

    fn begin(&mut self) -> io::Result<File> {
        let file = File::create(self.name(self.count))?;
        if let Some(before) = self.count.checked_sub(1) {
            std::fs::remove_file(self.name(before))?;
        }
        self.count += 1;
        Ok(file)
    }

    fn end(&mut self, sync: bool) -> io::Result<()> {
        if let Some((file, _)) = self.current.take()
            && sync
        {
            file.sync_data()?;
        }
        match self.count.checked_sub(1) {
            Some(last) => std::fs::remove_file(self.name(last)),
            None => Ok(()),
        }
    }
}
