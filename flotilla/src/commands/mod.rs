//! One file per command, or one per few that are alike. Each takes its arguments and ends with an
//! exit code or a failure.

pub(crate) mod admin;
mod bench;
mod check;
mod completions;
pub(crate) mod data;
mod export;
mod import;
mod init;
pub(crate) mod member;
pub(crate) mod noted;
mod scan;
pub(crate) mod serve;
mod snapshot;
pub(crate) mod status;
mod transfer;
mod tree;
mod version;

use crate::cli::{Cli, Command};
use crate::exit::Outcome;
use crate::output::Output;
use crate::{cluster, demo, logging};

/// Runs the command.
///
/// # Errors
/// What the command could not do, with the exit code for it.
pub(crate) async fn run(cli: Cli) -> Outcome {
    let mut output = Output::new(cli.json);
    let output = &mut output;
    if !matches!(cli.command, Command::Serve(_) | Command::Cluster(_)) {
        logging::for_clients();
    }
    match &cli.command {
        Command::Cluster(args) => cluster::run(args, output).await,
        Command::Serve(args) => serve::run(args, output).await,
        Command::Init(args) => init::run(args, output),
        Command::Demo(args) => demo::run(args, output).await,
        Command::Put(args) => data::put(args, output).await,
        Command::Append(args) => data::append(args, output).await,
        Command::Get(args) => data::get(args, output).await,
        Command::Delete(args) => data::delete(args, output).await,
        Command::Cas(args) => data::cas(args, output).await,
        Command::Scan(args) => scan::run(args, output).await,
        Command::Compact(args) => data::compact(args, output).await,
        Command::Import(args) => import::run(args, output).await,
        Command::Export(args) => export::run(args, output).await,
        Command::Status(args) => status::run(args, output).await,
        Command::Member(args) => member::run(&args.command, output).await,
        Command::TransferLeader(args) => transfer::run(args, output).await,
        Command::Snapshot(args) => snapshot::run(&args.command, output).await,
        Command::Check(args) => check::run(args, output).await,
        Command::Bench(args) => bench::run(args, output).await,
        Command::Version => version::run(output),
        Command::Completions(args) => completions::run(args, output),
    }
}
