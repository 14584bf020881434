//! `flotilla snapshot`: what the store holds as one file (`save`), whether such a file is whole,
//! and a new cluster that begins with one (`restore`).

mod restore;
mod save;

use kv_service::backup::{self, Backup, BackupError};
use serde_json::{Map, Value, json};

use crate::cli::{SnapshotCommand, SnapshotVerifyArgs};
use crate::commands::status::size;
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

/// Files block, so they are used where that hurts nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Failure::stopped(format!("a task panicked: {error}")))
}

/// What a file holds, for programs.
fn object(file: &str, backup: &Backup) -> Map<String, Value> {
    let (descriptor, last) = (&backup.descriptor, backup.descriptor.meta.last);
    let object = json!({
        "file": file,
        "cluster_id": backup.cluster.to_string(),
        "term": last.term.0,
        "index": last.index.0,
        "parts": descriptor.parts,
        "bytes": descriptor.bytes,
        "hash": descriptor.hash.to_string(),
    });
    match object {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// The same for people.
fn words(backup: &Backup) -> String {
    let descriptor = &backup.descriptor;
    format!(
        "cluster {} up to entry {}, {}, hash {}",
        backup.cluster,
        descriptor.meta.last.index,
        size(descriptor.bytes),
        descriptor.hash
    )
}
