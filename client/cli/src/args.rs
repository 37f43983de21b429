//! The command line as typed: global options, the subcommands, and the values they share.
//!
//! What is typed wins over the environment (`DOLDAM_*`), that over the configuration file
//! ([`crate::config`]), that over the defaults.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};
use doldam_proto::block::BlockBytes;
use doldam_proto::file::Durability;
use doldam_proto::limits::REPLICATION_MAX;
use doldam_proto::path::{FsPath, PathError};
use doldam_runtime::config::{ByteSize, HumanDuration};

use crate::command::Command;
use crate::error::ErrorRecord;
use crate::exit_code::EXIT_CODES_HELP;
use crate::hedge::HedgeChoice;

/// Doldam, a distributed file system: store, fetch and manage files, and run the servers.
///
/// Every byte is checksummed from disk to disk: what `get` writes is verified against what `put`
/// read. Results go to standard output, progress and errors to standard error.
#[derive(Debug, Parser)]
#[command(name = "doldam", version, after_help = EXIT_CODES_HELP, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every subcommand.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Where the namenode listens; several addresses are separated by commas.
    ///
    /// Without it the configuration file decides, and without that 127.0.0.1:8020.
    #[arg(long, global = true, env = "DOLDAM_NAMENODE", value_name = "HOST:PORT[,HOST:PORT]")]
    #[arg(value_delimiter = ',', value_parser = parse_address)]
    pub(crate) namenode: Vec<String>,

    /// Configuration file (TOML).
    ///
    /// Without it `$XDG_CONFIG_HOME/doldam/config.toml`, then /etc/doldam/config.toml, if there.
    #[arg(long, global = true, env = "DOLDAM_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Print one JSON object per line, also for errors.
    #[arg(long, global = true, env = "DOLDAM_JSON")]
    #[arg(value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) json: bool,

    /// Print results and errors only: no progress, no summaries.
    #[arg(long, short, global = true, env = "DOLDAM_QUIET", conflicts_with = "verbose")]
    #[arg(value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) quiet: bool,

    /// Say more; twice for debugging. `DOLDAM_LOG` sets it by module.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Whether to colour; `auto` does on a terminal unless `NO_COLOR` is set.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", env = "DOLDAM_COLOR")]
    pub(crate) color: ColorChoice,

    /// Longest wait for one answer of a server, such as 10s.
    #[arg(long, global = true, env = "DOLDAM_TIMEOUT", value_name = "DURATION")]
    #[arg(value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,

    /// When to ask a second replica for bytes that the first one owes: after the first delay at the
    /// earliest, the second one at the latest, as reads took lately; or `off` [default: 50ms..400ms].
    #[arg(long, global = true, env = "DOLDAM_HEDGE", value_name = "MIN..MAX")]
    pub(crate) hedge: Option<HedgeChoice>,

    /// Names of this host, separated by commas; replicas on it are read and written first [default:
    /// its name, and its address on the way to the namenode].
    #[arg(long, global = true, env = "DOLDAM_CLIENT_HOST", value_name = "HOST[,HOST]")]
    pub(crate) client_host: Option<String>,

    /// Rack of this host, such as /r1; replicas on it are read next [default: that of a datanode on
    /// this host].
    #[arg(long, global = true, env = "DOLDAM_RACK", value_name = "RACK")]
    pub(crate) client_rack: Option<String>,

    /// Threads of a client command [default: as many as processors, 4 at most].
    #[arg(long, global = true, env = "DOLDAM_THREADS", value_name = "COUNT", hide = true)]
    #[arg(value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) threads: Option<u8>,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How new files are kept.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct WriteArgs {
    /// Replicas of each block; more replicas survive more failures [default: the cluster's].
    #[arg(long, env = "DOLDAM_REPLICATION", value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(REPLICATION_MAX)))]
    pub(crate) replication: Option<u32>,

    /// Bytes of a block, a power of two from 64KiB to 1GiB [default: the cluster's].
    #[arg(long, env = "DOLDAM_BLOCK_SIZE", value_name = "SIZE")]
    #[arg(value_parser = parse_block_bytes)]
    pub(crate) block_size: Option<u64>,

    /// Replicas on stable storage before the file counts as stored [default: all].
    #[arg(long, env = "DOLDAM_DURABILITY", value_name = "LEVEL")]
    pub(crate) durability: Option<DurabilityChoice>,
}

/// How many replicas are on stable storage before a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityChoice {
    /// Every replica: survives a power loss of all nodes.
    All,
    /// The first replica; the others follow within seconds.
    One,
    /// None yet: survives the death of processes, not a power loss of all nodes at once.
    Memory,
}

impl From<DurabilityChoice> for Durability {
    fn from(choice: DurabilityChoice) -> Self {
        match choice {
            DurabilityChoice::All => Self::All,
            DurabilityChoice::One => Self::One,
            DurabilityChoice::Memory => Self::Memory,
        }
    }
}

/// How much happens at once.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ParallelArgs {
    /// Blocks of one file, and files, in flight at once.
    #[arg(long, env = "DOLDAM_PARALLEL", value_name = "COUNT")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) parallel: Option<u16>,
}

impl Cli {
    /// Reads the process's command line; prints help or what is wrong with it and leaves.
    pub(crate) fn from_command_line() -> Self {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let wants_json = arguments.iter().any(|argument| argument == "--json");
        Self::try_parse_from(spell_out(arguments)).unwrap_or_else(|error| {
            if wants_json && error.use_stderr() {
                eprintln!("{}", ErrorRecord::of_arguments(&error.render().to_string()));
                std::process::exit(error.exit_code());
            }
            error.exit()
        })
    }
}

/// `find` takes its tests with one dash, as everywhere; the parser wants two.
pub(crate) fn spell_out(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let Some(find) = subcommand_position(&arguments) else { return arguments };
    if arguments[find] != "find" {
        return arguments;
    }
    for argument in &mut arguments[find + 1..] {
        if argument == "--" {
            break;
        }
        let tests = ["-name", "-type", "-size", "-mtime", "-maxdepth", "-path"];
        if tests.iter().any(|test| argument == *test) {
            let mut spelled = OsString::from("-");
            spelled.push(&*argument);
            *argument = spelled;
        }
    }
    arguments
}

/// The first argument that is neither an option nor an option's value.
fn subcommand_position(arguments: &[OsString]) -> Option<usize> {
    let mut is_value = false;
    for (index, argument) in arguments.iter().enumerate().skip(1) {
        let text = argument.to_string_lossy();
        if !is_value && !text.starts_with('-') {
            return Some(index);
        }
        let takes_value = [
            "--namenode",
            "--config",
            "--color",
            "--timeout",
            "--hedge",
            "--client-host",
            "--client-rack",
            "--threads",
        ];
        is_value = !is_value && takes_value.contains(&&*text);
    }
    None
}

/// `HOST:PORT`.
pub(crate) fn parse_address(text: &str) -> Result<String, String> {
    let text = text.trim();
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("an address is HOST:PORT, such as 127.0.0.1:8020".to_owned());
    };
    if host.is_empty() || host.chars().any(|c| c.is_whitespace() || c == '/') {
        return Err("the host is missing or not a name: an address is HOST:PORT".to_owned());
    }
    match port.parse::<u16>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("`{port}` is no port; an address is HOST:PORT")),
    }
}

/// A path in the cluster, kept as typed: a slash at its end may matter.
pub(crate) fn parse_remote(text: &str) -> Result<String, PathError> {
    FsPath::parse(text).map(|_| text.to_owned())
}

/// A size with its unit, such as `64KiB`, `128MiB` or `1000`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    text.parse::<ByteSize>().map(|size| size.0).map_err(|error| error.to_string())
}

/// A duration with its unit, such as `10s` or `500ms`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    match text.parse::<HumanDuration>() {
        Ok(HumanDuration(Duration::ZERO)) => Err("must be longer than 0".to_owned()),
        Ok(duration) => Ok(duration.0),
        Err(error) => Err(error.to_string()),
    }
}

/// A size that a block can have.
pub(crate) fn parse_block_bytes(text: &str) -> Result<u64, String> {
    let bytes = parse_bytes(text)?;
    match BlockBytes::new(bytes) {
        Some(block_bytes) => Ok(block_bytes.get()),
        None => {
            Err(format!("{bytes} bytes is no block size: it is a power of two from 64KiB to 1GiB"))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn spelled(line: &str) -> String {
        let arguments = line.split(' ').map(OsString::from).collect();
        spell_out(arguments).join(std::ffi::OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn only_find_takes_single_dashes() {
        assert_eq!(spelled("doldam find / -name a -type f"), "doldam find / --name a --type f");
        assert_eq!(
            spelled("doldam --namenode find find -size +1M -- -name"),
            "doldam --namenode find find --size +1M -- -name"
        );
        assert_eq!(spelled("doldam ls -name"), "doldam ls -name");
        assert_eq!(spelled("doldam -q find -name x"), "doldam -q find --name x");
        assert_eq!(spelled("doldam"), "doldam");
    }

    #[test]
    fn the_command_lines_of_other_tools_users_expect_are_accepted() {
        for line in [
            "doldam local --dir d --datanodes 3 --listen 127.0.0.1:8020",
            "doldam namenode --dir d --listen a:1 --http a:2",
            "doldam datanode --dir d --dir e --listen a:1 --namenode b:2 --rack /r1 --http a:3",
            "doldam --namenode a:1,b:2 put --parallel 4 --replication 2 x y /z",
            "doldam put --block-size 1MiB --durability one --overwrite - /z",
            "doldam get /a /b .",
            "doldam append x - /a",
            "doldam truncate 64KiB /a",
            "doldam --hedge 20ms..200ms cat /a",
            "doldam get --hedge off --client-rack /r1 --client-host a,b /a .",
            "doldam ls -l -R -h / --json",
            "doldam rm -r -f /a",
            "doldam find / --name *.gz --size +1M --mtime -7",
            "doldam test -e /a",
            "doldam setrep -w 2 /a",
            "doldam bench io --size 1GiB --runs 3",
            "doldam bench meta --clients 32",
            "doldam bench faults --size 1GiB --runs 1 --dead-after 5s",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn bad_values_are_refused_with_the_rule() {
        for (line, reason) in [
            ("doldam put --replication 0 a /a", "0 is not in 1..=16"),
            ("doldam put --block-size 100000 a /a", "power of two"),
            ("doldam put --block-size 32KiB a /a", "power of two from 64KiB to 1GiB"),
            ("doldam put --durability some a /a", "possible values: all, one, memory"),
            ("doldam --namenode nowhere ls", "HOST:PORT"),
            ("doldam --namenode :1 ls", "HOST:PORT"),
            ("doldam --namenode a:99999 ls", "is no port"),
            ("doldam --timeout 0s ls", "longer than 0"),
            ("doldam get --hedge 1s /a .", "50ms..400ms"),
            ("doldam test /a", "required"),
            ("doldam truncate 1parsec /a", "parsec"),
            ("doldam append /a", "required"),
            ("doldam mkdir relative", "starts with `/`"),
            ("doldam get /a/../b .", "`.` and `..` are not resolved"),
        ] {
            let refusal = Cli::try_parse_from(line.split(' ')).unwrap_err().to_string();
            assert!(refusal.contains(reason), "{line}: {refusal}");
        }
    }

    #[test]
    fn every_subcommand_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let leaf = command.get_subcommands().next().is_none();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(!leaf || help.contains("doldam "), "{path} has no example");
            command.get_subcommands().filter(|c| c.get_name() != "help").for_each(|subcommand| {
                check(subcommand, &path);
            });
        }
        check(&Cli::command(), "");
    }
}
