//! The command line of those who operate a cluster: `member`, `transfer-leader`, `snapshot`,
//! `check`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{State, Storage};

/// How the cluster is reached by who may change it.
#[derive(Args, Clone, Debug)]
pub(crate) struct AdminArgs {
    /// The administrator's configuration that `cluster` or `init` made
    #[arg(
        short,
        long,
        value_name = "FILE",
        env = "FLOTILLA_ADMIN_CONFIG",
        default_value = "./flotilla-data/admin.toml"
    )]
    pub(crate) config: PathBuf,
}

#[derive(Args, Debug)]
#[command(
    subcommand_required = true,
    arg_required_else_help = false,
    after_help = "Example:\n  flotilla member list"
)]
pub(crate) struct MemberArgs {
    /// What to do with the members.
    #[command(subcommand)]
    pub(crate) command: MemberCommand,
}

/// What to do with the members.
#[derive(Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// Show who belongs to the cluster, and who votes
    List(MemberListArgs),
    /// Let a new node join, as a learner that does not vote yet
    Add(MemberAddArgs),
    /// Make a learner that has caught up a voter
    Promote(MemberPromoteArgs),
    /// Take a node out of the cluster
    Remove(MemberRemoveArgs),
    /// Put a node in the place of one whose disk is lost
    Replace(MemberReplaceArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  flotilla member list --json")]
pub(crate) struct MemberListArgs {
    /// How the cluster is reached.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  flotilla member add 4 db4.example.org:7400\n\n\
    Makes node-<ID> beside the configuration: certificate, node.toml and an empty data directory.\n\
    It prints how the node is started. When it has caught up: flotilla member promote 4"
)]
pub(crate) struct MemberAddArgs {
    /// How the cluster is reached.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// An id that no node of this cluster ever had
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) id: u64,
    /// Where others will reach the node, as host:port
    #[arg(value_name = "HOST:PORT")]
    pub(crate) address: String,
    /// Where the node keeps its log
    #[arg(long, default_value = "file")]
    pub(crate) storage: Storage,
    /// Where the node keeps the keys; like the others where this is left out
    #[arg(long)]
    pub(crate) state: Option<State>,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  flotilla member promote 4 --wait\n\n\
    A learner that has not caught up yet is refused: the cluster would wait for it.")]
pub(crate) struct MemberPromoteArgs {
    /// How the cluster is reached.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// The learner
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) id: u64,
    /// Wait until it has caught up, however long that takes
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  flotilla member remove 4\n\n\
    Its data stays where it is and is of no more use: the node stops, and is not started again.")]
pub(crate) struct MemberRemoveArgs {
    /// How the cluster is reached.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// The node
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) id: u64,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  flotilla member replace 2\n  \
    flotilla member replace 2 db5.example.org:7400    # on another machine\n\n\
    For a node that runs no more and whose disk is lost: its data directory must be missing or \
    empty.\nIt comes back as a learner; when it has caught up: flotilla member promote 2")]
pub(crate) struct MemberReplaceArgs {
    /// How the cluster is reached.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// The node
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) id: u64,
    /// Where others will reach it; as before where this is left out
    #[arg(value_name = "HOST:PORT")]
    pub(crate) address: Option<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  flotilla transfer-leader 2\n\n\
    The node must be a voter and must answer. Where it does not take over, the leader leads on.")]
pub(crate) struct TransferLeaderArgs {
    /// How the cluster is reached.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// Who shall lead
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) id: u64,
}

#[derive(Args, Debug)]
#[command(
    subcommand_required = true,
    arg_required_else_help = false,
    after_help = "Example:\n  flotilla snapshot save backup.flotilla"
)]
pub(crate) struct SnapshotArgs {
    /// What to do with a snapshot.
    #[command(subcommand)]
    pub(crate) command: SnapshotCommand,
}

/// What to do with a snapshot.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Write everything the store holds now into a file
    Save(SnapshotSaveArgs),
    /// Make a new cluster that begins with what a file holds
    Restore(SnapshotRestoreArgs),
    /// Read a file to its end and say whether it is whole
    Verify(SnapshotVerifyArgs),
}

#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  flotilla snapshot save backup-$(date +%F).flotilla\n\n\
    As of one moment, while writes go on. The file is there whole, or not at all."
)]
pub(crate) struct SnapshotSaveArgs {
    /// How the cluster is reached.
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    /// The file
    pub(crate) file: PathBuf,
    /// Write over a file that is there
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  flotilla snapshot restore backup.flotilla --dir ./restored\n  \
    flotilla cluster --dir ./restored\n  \
    flotilla snapshot restore backup.flotilla --dir ./restored --nodes a:7400,b:7400,c:7400\n\n\
    The new cluster has an id and certificates of its own. Damaged files are refused before\n\
    anything is made."
)]
pub(crate) struct SnapshotRestoreArgs {
    /// A file that `snapshot save` wrote
    pub(crate) file: PathBuf,
    /// A directory that does not exist yet, or is empty
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// How many nodes on this machine; or the addresses of nodes, as for `init`
    #[arg(
        long,
        value_name = "N|HOST:PORT,...",
        value_delimiter = ',',
        default_value = "3"
    )]
    pub(crate) nodes: Vec<String>,
    /// On this machine: node i listens on this port + i
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    pub(crate) base_port: Option<u16>,
    /// Where nodes keep their log
    #[arg(long, default_value = "file")]
    pub(crate) storage: Storage,
    /// Where nodes keep the keys
    #[arg(long, default_value = "memory")]
    pub(crate) state: State,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  flotilla snapshot verify backup.flotilla\n\n\
    Needs no cluster. A file that is damaged, cut short or none of ours makes the exit code 1."
)]
pub(crate) struct SnapshotVerifyArgs {
    /// The file
    pub(crate) file: PathBuf,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  flotilla check flotilla-data/node-1\n\n\
    The node must not run. Nothing is changed. Damage makes the exit code 1; a torn tail is no \
    damage.\ndocs/operations.md says what to do in each case.")]
pub(crate) struct CheckArgs {
    /// The directory of a node, with node.toml in it; or a data directory
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}
