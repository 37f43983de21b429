//! The subcommands: one file each, with its arguments, its run and its output.

use clap::Subcommand;

use crate::error::CommandError;
use crate::exit_code::ExitCode;
use crate::server::LogFormatChoice;
use crate::session::Session;

pub(crate) mod admin;
pub(crate) mod append;
pub(crate) mod bench;
pub(crate) mod cat;
pub(crate) mod checksum;
pub(crate) mod completions;
pub(crate) mod cp;
pub(crate) mod datanode;
pub(crate) mod df;
pub(crate) mod du;
pub(crate) mod find;
pub(crate) mod fsck;
pub(crate) mod get;
pub(crate) mod head;
pub(crate) mod local;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod mkdir;
pub(crate) mod mv;
pub(crate) mod namenode;
pub(crate) mod put;
pub(crate) mod rm;
pub(crate) mod setrep;
pub(crate) mod stat;
pub(crate) mod tail;
pub(crate) mod test;
pub(crate) mod touch;
pub(crate) mod truncate;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Put(put::PutArgs),
    Append(append::AppendArgs),
    Get(get::GetArgs),
    Ls(ls::LsArgs),
    Cat(cat::CatArgs),
    Head(head::HeadArgs),
    Tail(tail::TailArgs),
    Mkdir(mkdir::MkdirArgs),
    Rm(rm::RmArgs),
    Mv(mv::MvArgs),
    Cp(cp::CpArgs),
    Stat(stat::StatArgs),
    Du(du::DuArgs),
    Df(df::DfArgs),
    Find(find::FindArgs),
    Touch(touch::TouchArgs),
    Truncate(truncate::TruncateArgs),
    Test(test::TestArgs),
    Setrep(setrep::SetrepArgs),
    Checksum(checksum::ChecksumArgs),
    Fsck(fsck::FsckArgs),
    #[command(subcommand)]
    Admin(admin::AdminCommand),
    Local(local::LocalArgs),
    Namenode(namenode::NamenodeArgs),
    Datanode(datanode::DatanodeArgs),
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// What a command comes to.
pub(crate) type CommandResult = Result<ExitCode, CommandError>;

impl Command {
    /// The word it was called by.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Put(_) => "put",
            Self::Append(_) => "append",
            Self::Get(_) => "get",
            Self::Ls(_) => "ls",
            Self::Cat(_) => "cat",
            Self::Head(_) => "head",
            Self::Tail(_) => "tail",
            Self::Mkdir(_) => "mkdir",
            Self::Rm(_) => "rm",
            Self::Mv(_) => "mv",
            Self::Cp(_) => "cp",
            Self::Stat(_) => "stat",
            Self::Du(_) => "du",
            Self::Df(_) => "df",
            Self::Find(_) => "find",
            Self::Touch(_) => "touch",
            Self::Truncate(_) => "truncate",
            Self::Test(_) => "test",
            Self::Setrep(_) => "setrep",
            Self::Checksum(_) => "checksum",
            Self::Fsck(_) => "fsck",
            Self::Admin(_) => "admin",
            Self::Local(_) => "local",
            Self::Namenode(_) => "namenode",
            Self::Datanode(_) => "datanode",
            Self::Bench(_) => "bench",
            Self::Completions(_) => "completions",
            Self::Man(_) => "man",
        }
    }

    /// Whether this is a server, which stops on a signal by its own means and logs.
    pub(crate) fn is_server(&self) -> bool {
        matches!(self, Self::Local(_) | Self::Namenode(_) | Self::Datanode(_))
    }

    /// Whether it runs a whole cluster.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Local(_))
    }

    /// How a server is to log.
    pub(crate) fn log_format(&self) -> Option<LogFormatChoice> {
        match self {
            Self::Local(args) => Some(args.server.log_format),
            Self::Namenode(args) => Some(args.server.log_format),
            Self::Datanode(args) => Some(args.server.log_format),
            _ => None,
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// As the subcommand.
    pub(crate) async fn run(self, session: &mut Session) -> CommandResult {
        match self {
            Self::Put(args) => put::run(session, args).await,
            Self::Append(args) => append::run(session, args).await,
            Self::Get(args) => get::run(session, args).await,
            Self::Ls(args) => ls::run(session, args).await,
            Self::Cat(args) => cat::run(session, args).await,
            Self::Head(args) => head::run(session, args).await,
            Self::Tail(args) => tail::run(session, args).await,
            Self::Mkdir(args) => mkdir::run(session, args).await,
            Self::Rm(args) => rm::run(session, args).await,
            Self::Mv(args) => mv::run(session, args).await,
            Self::Cp(args) => cp::run(session, args).await,
            Self::Stat(args) => stat::run(session, args).await,
            Self::Du(args) => du::run(session, args).await,
            Self::Df(args) => df::run(session, args).await,
            Self::Find(args) => find::run(session, args).await,
            Self::Touch(args) => touch::run(session, args).await,
            Self::Truncate(args) => truncate::run(session, args).await,
            Self::Test(args) => test::run(session, args).await,
            Self::Setrep(args) => setrep::run(session, args).await,
            Self::Checksum(args) => checksum::run(session, args).await,
            Self::Fsck(args) => fsck::run(session, args).await,
            Self::Admin(command) => admin::run(session, command).await,
            Self::Local(args) => local::run(session, args).await,
            Self::Namenode(args) => namenode::run(session, args).await,
            Self::Datanode(args) => datanode::run(session, args).await,
            Self::Bench(command) => bench::run(session, command).await,
            Self::Completions(args) => completions::run(session, args),
            Self::Man(args) => man::run(session, args),
        }
    }
}
