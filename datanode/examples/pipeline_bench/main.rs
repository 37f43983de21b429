//! How fast a block goes through a pipeline of three datanodes, beside what bare TCP does in the
//! same run.
//!
//! ```text
//! cargo run --release -p doldam-datanode --example pipeline_bench -- [FOLDER] [GIB]
//! ```
//! One process: a client, three datanodes with a data thread each, real sockets on loopback, real
//! files below FOLDER (the system's folder for temporary files by default), blocks of 128 MiB one
//! after another. Each line is one round: throughput as the client sees it, and CPU seconds of the
//! whole process per GiB. Divide by the line of the TCP sink before comparing machines, and by
//! nothing before comparing rounds: the first is a warm-up.

mod namenode;
mod writer;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use doldam_datanode::{DatanodeConfig, DatanodeHandle, run};
use doldam_proto::file::Durability;
use doldam_proto::id::NodeId;
use doldam_proto::node::{NodeAddress, NodeState};
use doldam_runtime::Seams;
use doldam_runtime::config::ByteSize;
use doldam_runtime::tasks::BackgroundTasks;

use namenode::Namenode;

/// Whatever goes wrong here ends the benchmark.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const BLOCK_BYTES: usize = 128 << 20;
const GIB: usize = 1 << 30;
const ROUNDS: usize = 3;
/// No more than this per round, whatever is asked for: three replicas of it lie on the disk at
/// once.
const GIB_MAX: usize = 4;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let gib = arguments.next().map_or(Ok(1), |text| text.parse::<usize>())?.clamp(1, GIB_MAX);
    let blocks = gib * GIB / BLOCK_BYTES;

    let (tasks, seams) = (BackgroundTasks::default(), Seams::system());
    let dir = tempfile::Builder::new().prefix("pipeline-bench").tempdir_in(folder)?;
    let mut namenode = Namenode::start(&seams, &tasks).await?;
    let mut nodes = Vec::new();
    for index in 0..3 {
        let config = DatanodeConfig {
            dirs: vec![dir.path().join(format!("node{index}"))],
            listen: "127.0.0.1:0".to_owned(),
            namenodes: vec![namenode.address().to_owned()],
            reserve_bytes: ByteSize(0),
            data_threads: 1,
            ..Default::default()
        };
        nodes.push(run(config, seams.clone(), &tasks).await?);
    }
    let mut pipeline = Vec::new();
    for node in &nodes {
        pipeline.push(address_of(node).await);
    }

    let block = block_of_noise(&seams);
    let meter = Meter::new(&seams);
    for _ in 0..ROUNDS {
        meter
            .measure("TCP sink, 1 MiB writes", blocks, async { sink(&tasks, &block, blocks) })
            .await?;
    }
    for (durability, name) in [
        (Durability::Memory, "3 replicas, verified, not synced"),
        (Durability::All, "3 replicas, verified, synced at block end"),
    ] {
        for _ in 0..ROUNDS {
            // Each block is dropped as soon as the next is through: memory that was freed is cheap
            // to touch again for a moment only, and then costs more than everything measured here.
            let written = async {
                let mut last = Vec::new();
                for _ in 0..blocks {
                    let written = writer::write_blocks(&seams, &pipeline, &block, 1, durability);
                    let keys = written.await?;
                    namenode.drop_everywhere(&std::mem::replace(&mut last, keys), nodes.len())?;
                }
                namenode.drop_everywhere(&last, nodes.len())
            };
            meter.measure(name, blocks, written).await?;
            namenode.all_dropped().await?;
        }
    }
    for _ in 0..ROUNDS {
        let written =
            writer::write_blocks(&seams, &pipeline[..1], &block, blocks, Durability::Memory);
        let keys = meter.measure("1 replica, verified, not synced", blocks, written).await?;
        let read = writer::read_blocks(&seams, &pipeline[0], &keys, &block);
        meter.measure("verified read of cached blocks", blocks, read).await?;
        namenode.drop_everywhere(&keys, 1)?;
        namenode.all_dropped().await?;
    }
    println!(
        "most memory resident at any time: {} MiB, of them {} the client's block",
        status_kib("VmHWM")? / 1024,
        BLOCK_BYTES >> 20
    );
    tasks.shutdown(Duration::from_secs(10)).await?;
    Ok(())
}

async fn address_of(node: &DatanodeHandle) -> NodeAddress {
    let NodeId(id) = node.registered().await;
    NodeAddress {
        id: NodeId(id),
        address: node.local_addr().to_owned(),
        rack: "/r".to_owned(),
        state: NodeState::Live,
    }
}

fn block_of_noise(seams: &Seams) -> Vec<u8> {
    let mut block = vec![0; BLOCK_BYTES];
    seams.random.fill(&mut block);
    block
}

/// What bare TCP does: the same bytes to a thread that forgets them.
fn sink(tasks: &BackgroundTasks, block: &[u8], blocks: usize) -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let (done, is_done) = std::sync::mpsc::channel();
    tasks.spawn_thread("sink", move || {
        let taken = listener.accept().and_then(|(mut stream, _)| {
            let mut buffer = vec![0; 1 << 20];
            while stream.read(&mut buffer)? > 0 {}
            Ok(())
        });
        _ = done.send(taken); // The receiver waits for it.
    })?;
    for _ in 0..blocks {
        for piece in block.chunks(1 << 20) {
            sender.write_all(piece)?;
        }
    }
    drop(sender);
    is_done.recv()??;
    Ok(())
}

/// Prints what a round took.
struct Meter {
    seams: Seams,
}

impl Meter {
    fn new(seams: &Seams) -> Self {
        Self { seams: seams.clone() }
    }

    async fn measure<T>(
        &self,
        name: &str,
        blocks: usize,
        work: impl Future<Output = Outcome<T>>,
    ) -> Outcome<T> {
        let (started, cpu) = (self.seams.clock.now(), cpu_secs()?);
        let result = work.await?;
        let (took, cpu) = (self.seams.clock.now().saturating_sub(started), cpu_secs()? - cpu);
        let bytes = (blocks * BLOCK_BYTES) as f64;
        let (rate, cost) = (bytes / 1e9 / took.as_secs_f64(), cpu / (bytes / GIB as f64));
        println!("{name:<44} {rate:>6.2} GB/s  {cost:>6.2} CPU-s/GiB");
        Ok(result)
    }
}

/// CPU time of this process, to the hundredth of a second.
fn cpu_secs() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Behind the name, which may hold anything but ends with the last parenthesis.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: Vec<f64> =
        fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

fn status_kib(field: &str) -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()).ok_or("no such field")?;
    Ok(number.parse()?)
}
