//! `flotilla snapshot`: what the store holds as one file (`save`), whether such a file is whole,
//! and a new cluster that begins with one (`restore`).

mod restore;
mod save;
mod shown;

use kv_service::backup::{self, BackupError};
use serde_json::Value;

pub(crate) use self::shown::blocking;
use self::shown::{object, words};
use crate::cli::{SnapshotCommand, SnapshotVerifyArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;

/// Runs `flotilla snapshot`.
///
/// # Errors
/// When the snapshot cannot be saved, is damaged, or no cluster can be made of it.
pub(crate) async fn run(command: &SnapshotCommand, output: &mut Output) -> Outcome {
    match command {
        SnapshotCommand::Save(args) => save::run(args, output).await,
        SnapshotCommand::Restore(args) => restore::run(args, output).await,
        SnapshotCommand::Verify(args) => verify(args, output).await,
    }
}

/// "Is this file whole?" A file that is not makes the answer "no"; one that cannot be read was
/// named wrongly.
async fn verify(args: &SnapshotVerifyArgs, output: &mut Output) -> Outcome {
    let path = args.file.clone();
    let backup = blocking(move || backup::verify(&path)).await?;
    let backup = backup.map_err(|error| {
        let exit = match error {
            BackupError::Damaged(_) => Exit::No,
            _ => Exit::Usage,
        };
        Failure::new(exit, error.to_string())
    })?;
    let file = args.file.display().to_string();
    output.line(
        || Value::Object(object(&file, &backup)),
        || format!("{file} is whole: {}", words(&backup)),
    )?;
    output.flush()?;
    Ok(Exit::Done)
}
