//! `flotilla snapshot`: what the store holds as one file (`save`), and a new cluster out of one.

mod save;

use std::io::ErrorKind;
use std::path::Path;

use kv_service::init::{self, ClusterPlan};
use serde_json::json;

use crate::cli::{SnapshotCommand, SnapshotRestoreArgs, SnapshotVerifyArgs};
use crate::cluster::plan::refuse_foreign;
use crate::commands::status::size;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;

/// Node i of a new cluster on this machine listens on this port + i.
const BASE_PORT_DEFAULT: u16 = 7400;

/// Runs `flotilla snapshot`.
///
/// # Errors
/// When the snapshot cannot be saved, is damaged, or no cluster can be made of it.
pub(crate) async fn run(command: &SnapshotCommand, output: &mut Output) -> Outcome {
    match command {
        SnapshotCommand::Save(args) => save::run(args, output).await,
        SnapshotCommand::Restore(args) => restore(args, output),
        SnapshotCommand::Verify(args) => verify(args, output),
    }
}
fn restore(_args: &SnapshotRestoreArgs, _output: &mut Output) -> Outcome {
    Err(Failure::usage(""))
}
fn verify(_args: &SnapshotVerifyArgs, _output: &mut Output) -> Outcome {
    Err(Failure::usage(""))
}
