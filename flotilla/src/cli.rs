//! The command line: every command, option and default, with an example each. No behaviour beyond
//! turning a wrong command line into one line of text. What operates a cluster is in `operating`.

mod operating;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::operating::{
    AdminArgs, CheckArgs, MemberAddArgs, MemberArgs, MemberCommand, MemberListArgs,
    MemberPromoteArgs, MemberRemoveArgs, MemberReplaceArgs, SnapshotArgs, SnapshotCommand,
    SnapshotRestoreArgs, SnapshotSaveArgs, SnapshotVerifyArgs, TransferLeaderArgs,
};
use crate::exit::{Exit, Failure};

/// A replicated key-value store.
#[derive(Debug, Parser)]
#[command(
    name = "flotilla",
    subcommand_required = true,
    arg_required_else_help = false,
    version,
    after_help = "Example:\n  flotilla cluster            # a whole cluster on this machine\n  \
                  flotilla put hello world    # in another terminal\n\n\
                  Exit codes: 0 done, 1 the answer is \"no\", 2 usage or configuration, \
                  3 unavailable and nothing applied,\n4 outcome unknown, 5 refused (limit, \
                  permission), 70 the node stopped itself"
)]
pub(crate) struct Cli {
    /// Print JSON on standard output: one object, or one per line where there are many
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole cluster on this machine
    Cluster(ClusterArgs),
    /// Run one node in the foreground
    Serve(ServeArgs),
    /// Make the directories of a cluster: certificates and one node.toml per node
    Init(InitArgs),
    /// Show that nothing is lost: kill the leader of a throw-away cluster under load, and check
    Demo(DemoArgs),
    /// Set a key
    Put(PutArgs),
    /// Put bytes behind a value
    Append(PutArgs),
    /// Print the value of a key, exactly
    Get(GetArgs),
    /// Remove a key
    Delete(DeleteArgs),
    /// Set a key where its value is as expected (compare and set)
    Cas(CasArgs),
    /// List keys in order
    Scan(ScanArgs),
    /// Drop history before a revision
    Compact(CompactArgs),
    /// Read a folder, or an .ndjson file, into the store
    Import(ImportArgs),
    /// Write keys as files into a folder
    Export(ExportArgs),
    /// Show how every node is
    Status(StatusArgs),
    /// Show or change who belongs to the cluster
    Member(MemberArgs),
    /// Let another node lead
    TransferLeader(TransferLeaderArgs),
    /// Back the store up, check a backup, or begin a new cluster with one
    Snapshot(SnapshotArgs),
    /// Read all that a stopped node has on its disk, and say what is damaged
    Check(CheckArgs),
    /// Measure operations per second and their latency
    Bench(BenchArgs),
    /// Print the version
    #[command(after_help = "Example:\n  flotilla version --json")]
    Version,
    /// Print a script that lets a shell complete this command line
    Completions(CompletionsArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  source <(flotilla completions bash)\n  \
    flotilla completions fish > ~/.config/fish/completions/flotilla.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// How the cluster is reached.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClientArgs {
    /// The client configuration that `cluster` or `init` made
    #[arg(
        short,
        long,
        value_name = "FILE",
        env = "FLOTILLA_CONFIG",
        default_value = "./flotilla-data/client.toml"
    )]
    pub(crate) config: PathBuf,
}

/// Where a node keeps its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Storage {
    /// A write-ahead log in files
    File,
    /// RocksDB, where the program was built with it
    Rocksdb,
    /// Memory: not durable, for tests
    Memory,
}

impl From<Storage> for kv_service::config::StorageKind {
    fn from(storage: Storage) -> Self {
        match storage {
            Storage::File => Self::File,
            Storage::Rocksdb => Self::Rocksdb,
            Storage::Memory => Self::Memory,
        }
    }
}

/// Where a node keeps the keys that it has applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    /// Memory, rebuilt from the log at start
    Memory,
    /// RocksDB, where the program was built with it: for more data than fits into memory
    Rocksdb,
}

impl From<State> for kv_service::config::StateKind {
    fn from(state: State) -> Self {
        match state {
            State::Memory => Self::Memory,
            State::Rocksdb => Self::Rocksdb,
        }
    }
}

/// How nodes reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// QUIC, one process per node
    Quic,
    /// Memory, all nodes in this process; clients still come by QUIC
    Memory,
}

impl From<Transport> for kv_service::config::TransportKind {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Quic => Self::Quic,
            Transport::Memory => Self::Memory,
        }
    }
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  flotilla cluster --nodes 5 --dir ./data\n\n\
    Data is kept between runs. SIGINT and SIGTERM stop all nodes cleanly.")]
pub(crate) struct ClusterArgs {
    /// How many nodes; 3 for a new directory
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub(crate) nodes: Option<u64>,
    /// Where everything is kept
    #[arg(long, default_value = "./flotilla-data")]
    pub(crate) dir: PathBuf,
    /// Node i listens on this port + i; 7400 for a new directory
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    pub(crate) base_port: Option<u16>,
    /// Where nodes keep their log; file for a new directory
    #[arg(long)]
    pub(crate) storage: Option<Storage>,
    /// Where nodes keep the keys; memory for a new directory
    #[arg(long)]
    pub(crate) state: Option<State>,
    /// How nodes reach each other
    #[arg(long, default_value = "quic")]
    pub(crate) transport: Transport,
    /// Do not start a node again that ended
    #[arg(long)]
    pub(crate) no_restart: bool,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  flotilla serve --config flotilla-data/node-1/node.toml\n\n\
    FLOTILLA_LOG sets what is logged to standard error, for example FLOTILLA_LOG=debug."
)]
pub(crate) struct ServeArgs {
    /// The configuration of the node
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Use this storage instead of the configured one
    #[arg(long)]
    pub(crate) storage: Option<Storage>,
    /// Keep the keys here instead of where it is configured
    #[arg(long)]
    pub(crate) state: Option<State>,
    /// Use this transport instead of the configured one
    #[arg(long)]
    pub(crate) transport: Option<Transport>,
    /// End when standard input is closed: how a supervisor takes its nodes along
    #[arg(long, hide = true)]
    pub(crate) stop_with_parent: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    flotilla init ./cluster --nodes a.example:7400,b.example:7400,c.example:7400\n\n\
    Copy DIR/node-<i> to host i and run `flotilla serve --config node-<i>/node.toml` there.")]
pub(crate) struct InitArgs {
    /// A directory that does not exist yet, or is empty
    pub(crate) dir: PathBuf,
    /// The addresses of the nodes; the first is node 1
    #[arg(
        long,
        required = true,
        value_delimiter = ',',
        value_name = "HOST:PORT,..."
    )]
    pub(crate) nodes: Vec<String>,
    /// Where nodes keep their log
    #[arg(long, default_value = "file")]
    pub(crate) storage: Storage,
    /// Where nodes keep the keys
    #[arg(long, default_value = "memory")]
    pub(crate) state: State,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  flotilla demo")]
pub(crate) struct DemoArgs {
    /// Where the nodes keep the keys
    #[arg(long, default_value = "memory")]
    pub(crate) state: State,
    /// How often the leader is killed
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) failovers: u32,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  flotilla put hello world\n  flotilla put photo - < photo.jpg")]
pub(crate) struct PutArgs {
    /// How the cluster is reached.
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The key
    pub(crate) key: OsString,
    /// The value; - takes it from standard input
    pub(crate) value: OsString,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  flotilla get hello\n\n\
    An absent key prints nothing and makes the exit code 1.")]
pub(crate) struct GetArgs {
    /// How the cluster is reached.
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The key
    pub(crate) key: OsString,
    /// Read what any node has applied, which may be old
    #[arg(long, conflicts_with = "revision")]
    pub(crate) stale: bool,
    /// Read as of this revision
    #[arg(long, value_name = "N")]
    pub(crate) revision: Option<u64>,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  flotilla delete hello\n\n\
    Where the key was absent the exit code is 1.")]
pub(crate) struct DeleteArgs {
    /// How the cluster is reached.
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The key
    pub(crate) key: OsString,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  flotilla cas lock --absent me\n  \
    flotilla cas counter --expect 41 42\n\nA mismatch changes nothing and makes the exit code 1.")]
pub(crate) struct CasArgs {
    /// How the cluster is reached.
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The key
    pub(crate) key: OsString,
    /// What must be there.
    #[command(flatten)]
    pub(crate) expectation: Expectation,
    /// The new value; - takes it from standard input
    pub(crate) new: OsString,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Expectation {
    /// The key must have this value
    #[arg(long, value_name = "VALUE")]
    pub(crate) expect: Option<OsString>,
    /// The key must be absent
    #[arg(long)]
    pub(crate) absent: bool,
    /// The key must have this version
    #[arg(long, value_name = "N")]
    pub(crate) version: Option<u64>,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  flotilla scan users/ --limit 10\n\n\
    One line per key: key, tab, value; line breaks, tabs, backslashes and bytes that are no text\n\
    are written as escapes. --json gives everything, exactly.")]
pub(crate) struct ScanArgs {
    /// How the cluster is reached.
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// Only keys that begin with this
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) prefix: OsString,
    /// Only keys from this one on
    #[arg(long, value_name = "KEY")]
    pub(crate) from: Option<OsString>,
    /// Only keys before this one
    #[arg(long, value_name = "KEY")]
    pub(crate) to: Option<OsString>,
    /// Stop after this many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Leave the values out
    #[arg(long)]
    pub(crate) keys_only: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  flotilla compact 1000\n\n\
    Keys stay; what is dropped are their older values.")]
pub(crate) struct CompactArgs {
    /// How the cluster is reached.
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The oldest revision that can still be read at
    pub(crate) revision: u64,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  flotilla import ./site --prefix www/\n  \
    flotilla import users.ndjson    # {\"key\":\"a\",\"value\":\"1\"} per line, or value_base64\n\n\
    Safe to run again. What is skipped makes the exit code 5; symbolic links, pipes and the like\n\
    are left out.")]
pub(crate) struct ImportArgs {
    /// How the cluster is reached.
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// A folder, or a file that ends in .ndjson
    pub(crate) path: PathBuf,
    /// Put this in front of every key, as it is
    #[arg(long, value_name = "P", default_value = "", hide_default_value = true)]
    pub(crate) prefix: OsString,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  flotilla export ./site --prefix www/\n\n\
    All files are of one revision. Keys that are no path inside DIR are listed, skipped, and make\n\
    the exit code 5.")]
pub(crate) struct ExportArgs {
    /// How the cluster is reached.
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// The folder; made where it does not exist
    pub(crate) dir: PathBuf,
    /// Only keys that begin with this, which is left out of the paths
    #[arg(long, value_name = "P", default_value = "", hide_default_value = true)]
    pub(crate) prefix: OsString,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  flotilla status --json")]
pub(crate) struct StatusArgs {
    /// How the cluster is reached.
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// What `bench` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchOp {
    /// Writes
    Put,
    /// Linearizable reads
    Get,
    /// Reads of what any node has applied
    GetStale,
    /// Writes and linearizable reads, half and half
    Mixed,
}

impl BenchOp {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::GetStale => "get-stale",
            Self::Mixed => "mixed",
        }
    }
}

#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  flotilla bench --clients 256 --seconds 10 --op put\n\n\
    Closed loop: every client sends its next operation when the last is answered. The first tenth \
    of\nthe time, at most a second, is not counted. Keys are bench/<number>."
)]
pub(crate) struct BenchArgs {
    /// How the cluster is reached.
    #[command(flatten)]
    pub(crate) client: ClientArgs,
    /// Operations that are on the way at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) clients: u32,
    /// Connections that the clients share
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) conns: u32,
    /// How long to measure
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// Size of the values
    #[arg(long, default_value_t = 256, value_name = "B")]
    pub(crate) value_bytes: usize,
    /// How many keys
    #[arg(
        long,
        default_value_t = 10_000,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=10_000_000)
    )]
    pub(crate) keys: u64,
    /// What to do
    #[arg(long, default_value = "put")]
    pub(crate) op: BenchOp,
}

/// Tells what is wrong with a command line on one line, or prints the help that was asked for.
pub(crate) fn report(error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        // Printing the help can only fail where nobody reads it.
        let _ = error.print();
        return Exit::Done;
    }
    Failure::usage(summary(&error.render().to_string())).report()
}

/// What is wrong and what may help, without the usage text.
fn summary(rendered: &str) -> String {
    let lines = rendered
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .filter(|line| !line.is_empty());
    let mut told = String::new();
    for line in lines {
        let between = match told.as_str() {
            "" => "",
            _ if line.starts_with("tip: ") => "; ",
            _ => " ",
        };
        told.push_str(between);
        told.push_str(line);
    }
    let told = told.strip_prefix("error: ").unwrap_or(&told);
    format!("{told}; see `flotilla --help`")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_agree_with_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        let cli = Cli::command();
        let mut commands: Vec<_> = cli.get_subcommands().collect();
        while let Some(command) = commands.pop() {
            let help = command.get_after_help().map(ToString::to_string);
            let shown = help.is_some_and(|text| text.contains("flotilla"));
            assert!(shown, "{} has no example", command.get_name());
            commands.extend(command.get_subcommands());
        }
    }

    #[test]
    fn a_wrong_command_line_is_told_on_one_line() {
        let cases: [&[&str]; 13] = [
            &["flotilla", "member"],
            &["flotilla", "member", "add", "4"],
            &["flotilla", "member", "remove", "0"],
            &["flotilla", "snapshot"],
            &["flotilla", "snapshot", "restore", "file"],
            &["flotilla", "transfer-leader", "two"],
            &["flotilla"],
            &["flotilla", "frobnicate"],
            &["flotilla", "put", "key"],
            &["flotilla", "cas", "key", "new"],
            &[
                "flotilla",
                "cas",
                "key",
                "--absent",
                "--version",
                "3",
                "new",
            ],
            &["flotilla", "cluster", "--nodes", "none"],
            &["flotilla", "bench", "--op", "frob"],
        ];
        for arguments in cases {
            let error = Cli::try_parse_from(arguments).expect_err("a wrong command line");
            assert!(error.use_stderr(), "{arguments:?}");
            let line = summary(&error.render().to_string());
            assert!(!line.contains('\n'), "{line}");
            assert!(line.contains("flotilla --help"), "{line}");
            assert!(line.len() > 40, "{line}");
        }
    }

    #[test]
    fn the_options_of_the_contract_are_there() {
        let cases = [
            "completions bash",
            "member list --json",
            "member add 4 d.example:7400 -c admin.toml",
            "member promote 4",
            "member promote 4 --wait",
            "member remove 4",
            "member replace 4",
            "transfer-leader 2",
            "snapshot save file --force",
            "snapshot restore file --dir d --nodes 5 --base-port 9000 --storage file",
            "snapshot restore file --dir d --nodes a:1,b:2",
            "snapshot verify file --json",
            "cluster --nodes 3 --dir d --base-port 7400 --storage file --state memory \
             --transport memory --no-restart",
            "serve --config node.toml --storage memory --transport quic",
            "init d --nodes a:1,b:2",
            "demo --json",
            "put -c client.toml k -",
            "append k v",
            "get k --stale",
            "get k --revision 3",
            "delete k",
            "cas k --expect old new",
            "cas k --version 3 -",
            "scan p --from a --to b --limit 3 --keys-only",
            "compact 3",
            "import p --prefix q/",
            "export d --prefix q/",
            "bench --clients 1 --conns 1 --seconds 1 --value-bytes 1 --keys 1 --op mixed --json",
        ];
        for line in cases {
            let arguments = std::iter::once("flotilla").chain(line.split_whitespace());
            Cli::try_parse_from(arguments).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
}
