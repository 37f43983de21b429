//! How fast commands are decided on a state in memory: no journal, no store, one thread.
//!
//! `cargo run --release -p doldam-namenode --example apply_bench [FILES]`
//!
//! Each file is a create with its first block and a complete with its commit, three replicas each,
//! a thousand files to a directory. Then every file is asked for by its path, located, and deleted.

use bytes::Bytes;
use doldam_namenode::engine::namespace::{apply, view};
use doldam_namenode::engine::tables::MemoryTables;
use doldam_proto::id::{InodeId, NodeId};
use doldam_proto::path::FsPath;
use doldam_proto::wire::command::Change;
use doldam_proto::wire::outcome::Kind;
use doldam_proto::wire::{
    BlockCommit, CollectGarbageCommand, Command, CompleteCommand, CreateCommand, DeleteCommand,
    FormatCommand, MkdirCommand, Outcome, RegisterNodeCommand, RequestId,
};
use doldam_runtime::clock::{Clock, SystemClock};

type Failure = Box<dyn std::error::Error>;

const FILES_DEFAULT: u64 = 100_000;
const FILES_PER_DIRECTORY: u64 = 1000;
const BLOCK_BYTES: u64 = 128 << 20;
const NODES: u32 = 3;

/// One client in front of a namespace in memory.
struct Bench {
    tables: MemoryTables,
    sequence: u64,
}

impl Bench {
    fn run(&mut self, change: Change) -> Result<Outcome, Failure> {
        self.sequence += 1;
        let request = RequestId {
            client_id: Bytes::from_static(&[7; 16]),
            sequence: self.sequence,
            answered_below: self.sequence,
        };
        let command = Command {
            time_ms: 1_700_000_000_000 + self.sequence,
            request: Some(request),
            change: Some(change),
        };
        let applied = apply(&self.tables, &command)?;
        self.tables.apply_changes(applied.changes);
        Ok(applied.outcome?)
    }

    fn start() -> Result<Self, Failure> {
        let mut bench = Self { tables: MemoryTables::new(), sequence: 0 };
        let cluster_id = Bytes::from_static(&[1; 16]);
        bench.run(Change::Format(FormatCommand { cluster_id }))?;
        for node in 1..=NODES {
            bench.run(Change::RegisterNode(RegisterNodeCommand {
                node_uuid: Bytes::copy_from_slice(&[node as u8; 16]),
                address: format!("10.0.0.{node}:9000"),
                rack: "/r1".to_owned(),
            }))?;
        }
        Ok(bench)
    }

    fn write_file(&mut self, path: &str) -> Result<(), Failure> {
        let create = CreateCommand {
            path: path.to_owned(),
            replication: NODES,
            block_bytes: BLOCK_BYTES,
            holder: "apply_bench".to_owned(),
            allocate_first: true,
            first_targets: (1..=NODES).collect(),
            ..CreateCommand::default()
        };
        let Some(Kind::Create(created)) = self.run(Change::Create(create))?.kind else {
            return Err("create has another outcome".into());
        };
        let commit = BlockCommit {
            block_id: created.block_id,
            generation: created.generation,
            length: 1000,
            chaining_value: Bytes::from_static(&[3; 32]),
            root_value: Bytes::from_static(&[4; 32]),
            node_ids: created.targets,
        };
        self.run(Change::Complete(CompleteCommand {
            inode_id: created.inode_id,
            length: 1000,
            commits: vec![commit],
        }))?;
        Ok(())
    }
}

fn path_of(file: u64) -> String {
    format!("/bench/part-{:05}/file-{file:08}", file / FILES_PER_DIRECTORY)
}

fn main() -> Result<(), Failure> {
    let files: u64 = std::env::args().nth(1).map_or(Ok(FILES_DEFAULT), |text| text.parse())?;
    let clock = SystemClock::default();
    let mut bench = Bench::start()?;
    let report = |what: &str, count: u64, since: std::time::Duration| {
        let seconds = clock.now().saturating_sub(since).as_secs_f64();
        println!("{what:<32} {:>10.0} /s", count as f64 / seconds);
    };

    let since = clock.now();
    for directory in 0..files.div_ceil(FILES_PER_DIRECTORY) {
        let path = format!("/bench/part-{directory:05}");
        bench.run(Change::Mkdir(MkdirCommand { path, parents: true }))?;
    }
    report("mkdir", files.div_ceil(FILES_PER_DIRECTORY), since);

    let since = clock.now();
    for file in 0..files {
        bench.write_file(&path_of(file))?;
    }
    report("create + complete (files)", files, since);

    let since = clock.now();
    for file in 0..files {
        view::stat(&bench.tables, &FsPath::parse(&path_of(file))?)?;
    }
    report("stat", files, since);

    let since = clock.now();
    for file in 0..files {
        view::locate(&bench.tables, &FsPath::parse(&path_of(file))?, 0, 0, InodeId(0))?;
    }
    report("locate", files, since);

    let since = clock.now();
    let path = "/bench".to_owned();
    bench.run(Change::Delete(DeleteCommand { path, recursive: true }))?;
    while view::garbage_waits(&bench.tables)? {
        let max_items = 1000;
        bench.run(Change::CollectGarbage(CollectGarbageCommand { max_items }))?;
    }
    report("delete -r and collect (files)", files, since);
    let left = view::replica_sum(&bench.tables, NodeId(1))?.count;
    if left != 0 {
        return Err(format!("{left} replicas were left behind").into());
    }
    Ok(())
}
