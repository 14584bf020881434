//! `flotilla snapshot save`.
use crate::cli::SnapshotSaveArgs;
use crate::exit::{Failure, Outcome};
use crate::output::Output;
pub(super) async fn run(_args: &SnapshotSaveArgs, _output: &mut Output) -> Outcome {
    Err(Failure::usage(""))
}
