//! Settings of a client: deadlines, bounds and who it says it is.

use std::time::Duration;

use doldam_proto::limits::{BLOCK_BYTES_MIN, TEXT_BYTES_MAX, WRITE_WINDOW_BYTES};

use crate::error::ClientError;

/// How a client behaves. The defaults suit a cluster in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// How long [`connect`](crate::Client::connect) tries to reach any of the namenodes. Default 5 s.
    pub connect_timeout: Duration,
    /// How long one metadata operation may take, all retries included. Default 30 s.
    pub operation_timeout: Duration,
    /// How long one try of a metadata operation may take before it is made again. Default 10 s.
    pub attempt_timeout: Duration,
    /// How long to go on asking for a block while no datanode can take one, as right after a start of the
    /// cluster. Default 5 s.
    pub placement_timeout: Duration,
    /// How long a datanode may take to accept a connection. Default 3 s.
    pub datanode_connect_timeout: Duration,
    /// How long a datanode that owes bytes may be silent before the read goes on from another. Default 5 s.
    pub read_timeout: Duration,
    /// How long a pipeline that owes acknowledgements may be silent, for each of its datanodes: one that waits for
    /// another behind it loses patience before we do, and says which. Default 10 s.
    pub write_timeout: Duration,
    /// How long a pipeline may take to put a block on stable storage after its last byte was sent, for each of its
    /// datanodes. Default 60 s.
    pub sync_timeout: Duration,
    /// How long a pipeline that owes an acknowledgement may be silent before each of its datanodes is asked whether
    /// it is alive. One that does not answer within eight times what the others took, and within 1 to 3 s, is replaced,
    /// and gets no new blocks of this client for a while. Not 0. Default 500 ms.
    pub probe_after: Duration,
    /// How many times slower than the median of the others a datanode may be, in what it can take, before a pipeline
    /// that waits for it goes on without it. 0: no datanode is ever too slow. Default 8.
    pub slow_node_factor: u32,
    /// For how long it has to be so slow. Default 5 s.
    pub slow_node_after: Duration,
    /// How long a pipeline is kept open for an application that writes nothing; then it is closed, and another goes
    /// on with the block when there is more. Below `write_timeout`. Default 5 s.
    pub stall_timeout: Duration,
    /// HTTP/2 connections to the namenode. More than one helps with dozens of calls in flight. Default 1.
    pub metadata_channels: usize,
    /// Most bytes a [`FileWriter`](crate::FileWriter) keeps of what it has sent, so that a block can be written again
    /// elsewhere even if all its datanodes are lost. Of larger blocks the start is given up once all datanodes of the
    /// pipeline have it; the block then survives the loss of all but one of them. At least 8 MiB (the window) and
    /// 64 KiB. Default 160 MiB.
    pub retained_bytes_max: u64,
    /// How many pipelines are tried for one block before its write fails. Default 8.
    pub block_attempts_max: u32,
    /// Ranges of one [`read_ranges`](crate::FileReader::read_ranges) that are fetched at once. Default 4.
    pub read_parallel: usize,
    /// Who is writing, for people who meet the lease: by default the host and the process id.
    pub holder: Option<String>,
    /// Whether a second replica is asked for what another one owes when that is late. Default yes.
    pub hedged_reads: bool,
    /// The earliest and ...
    pub hedge_delay_min: Duration,
    /// ... the latest time after which a replica that owes bytes is late; between the two it is three times what nearly
    /// all reads took lately. Twice the latest is about the longest stall when two of three nodes are silent.
    /// Default 50 and 400 ms.
    pub hedge_delay_max: Duration,
    /// The host this client runs on as a datanode there is called by others, or several such names with commas:
    /// replicas on it are preferred. By default the name of this machine and its address on the way to the namenode;
    /// an empty text stands for nowhere.
    pub client_host: Option<String>,
    /// The rack this client is on: replicas there come after those on its host. By default that of a datanode on its
    /// host, if there is one.
    pub client_rack: Option<String>,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            operation_timeout: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(10),
            placement_timeout: Duration::from_secs(5),
            datanode_connect_timeout: Duration::from_secs(3),
            read_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(10),
            sync_timeout: Duration::from_mins(1),
            probe_after: Duration::from_millis(500),
            slow_node_factor: 8,
            slow_node_after: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(5),
            metadata_channels: 1,
            retained_bytes_max: 160 << 20,
            block_attempts_max: 8,
            read_parallel: 4,
            holder: None,
            hedged_reads: true,
            hedge_delay_min: Duration::from_millis(50),
            hedge_delay_max: Duration::from_millis(400),
            client_host: None,
            client_rack: None,
        }
    }
}

impl ClientConfig {
    /// Checks what cannot work.
    pub(crate) fn validate(&self) -> Result<(), ClientError> {
        let refuse = |option, why: String| Err(ClientError::InvalidOption { option, why });
        if self.metadata_channels == 0 || self.metadata_channels > 64 {
            return refuse(
                "metadata_channels",
                format!("{} is not in 1..=64", self.metadata_channels),
            );
        }
        if self.read_parallel == 0 || self.read_parallel > 256 {
            return refuse("read_parallel", format!("{} is not in 1..=256", self.read_parallel));
        }
        if self.block_attempts_max == 0 {
            return refuse("block_attempts_max", "0 would never write anything".to_owned());
        }
        let needed = BLOCK_BYTES_MIN + WRITE_WINDOW_BYTES;
        if self.retained_bytes_max < needed {
            let why = format!("{} is below the {needed} any block needs", self.retained_bytes_max);
            return refuse("retained_bytes_max", why);
        }
        let texts = [
            ("holder", &self.holder),
            ("client_host", &self.client_host),
            ("client_rack", &self.client_rack),
        ];
        for (option, text) in texts {
            let bytes = text.as_ref().map_or(0, String::len);
            if bytes > TEXT_BYTES_MAX {
                return refuse(option, format!("{bytes} bytes are more than {TEXT_BYTES_MAX}"));
            }
        }
        if self.slow_node_factor == 1 {
            let why = "1 would give up half of all datanodes; 0 gives up none".to_owned();
            return refuse("slow_node_factor", why);
        }
        if self.probe_after.is_zero() {
            return refuse("probe_after", "0 would ask without end".to_owned());
        }
        if self.hedge_delay_min > self.hedge_delay_max || self.hedge_delay_max.is_zero() {
            let (min, max) = (self.hedge_delay_min, self.hedge_delay_max);
            return refuse(
                "hedge_delay_max",
                format!("{max:?} is 0 or below {min:?}, the shortest"),
            );
        }
        if self.stall_timeout >= self.write_timeout {
            return refuse("stall_timeout", "must be below write_timeout".to_owned());
        }
        Ok(())
    }
}
