//! `flotilla snapshot save`: the store as of one moment, in one file. It is written under a name of
//! its own, made durable, and renamed last, so a file under the wanted name is a whole one.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use kv_client::KvClient;
use kv_service::backup::{Backup, BackupWriter};
use serde_json::{Value, json};

use super::shown::{blocking, object, words};
use crate::cli::SnapshotSaveArgs;
use crate::commands::admin::{connect, refused_by_cluster};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;
use crate::signals::EndSignals;

const PROGRESS: &str = "{spinner} {bytes}  {bytes_per_sec}";

/// Runs `flotilla snapshot save`.
///
/// # Errors
/// When the cluster does not send its state, or the file cannot be written. Then nothing is there
/// that was not there before.
pub(super) async fn run(args: &SnapshotSaveArgs, output: &mut Output) -> Outcome {
    check_target(&args.file, args.force)?;
    let mut signals = EndSignals::register()?;
    let client = connect(&args.admin).await?;
    let started = Instant::now();
    let saved = tokio::select! {
        saved = save(&client, args) => saved,
        signal = signals.wait() => {
            Err(Failure::new(Exit::Unavailable, format!("{signal}: nothing was saved")))
        }
    };
    client.close().await;
    let (backup, seconds) = (saved?, started.elapsed().as_secs_f64());
    let file = args.file.display().to_string();
    output.line(
        || {
            let mut object = object(&file, &backup);
            object.insert("seconds".to_owned(), json!(seconds));
            Value::Object(object)
        },
        || format!("saved {file} in {seconds:.2} s: {}", words(&backup)),
    )?;
    output.flush()?;
    Ok(Exit::Done)
}

/// Refuses what could not be written in the end, before anything is fetched.
fn check_target(file: &Path, force: bool) -> Result<(), Failure> {
    let shown = file.display();
    if file.is_dir() {
        return Err(Failure::usage(format!(
            "{shown} is a folder; name a file in it"
        )));
    }
    if file.metadata().is_ok_and(|found| !found.is_file()) {
        return Err(Failure::usage(format!(
            "{shown} is no ordinary file, and is not replaced by one; choose another name"
        )));
    }
    if !force && file.symlink_metadata().is_ok() {
        return Err(Failure::usage(format!(
            "{shown} is there already; --force writes over it, or choose another name"
        )));
    }
    let folder = folder_of(file);
    if !folder.is_dir() {
        return Err(Failure::usage(format!(
            "cannot write {shown}: there is no folder {}; make it first",
            folder.display()
        )));
    }
    Ok(())
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

async fn save(client: &KvClient, args: &SnapshotSaveArgs) -> Result<Backup, Failure> {
    let refused = |error| refused_by_cluster("cannot save a snapshot", error);
    let unwritable = |error| Failure::refused(format!("cannot save a snapshot: {error}"));
    let mut download = client.save_snapshot().await.map_err(refused)?;
    let (path, head) = (args.file.clone(), download.head().clone());
    let writer = blocking(move || BackupWriter::create(&path, &head)).await?;
    let mut writer = writer.map_err(unwritable)?;
    let progress = Progress::begin();
    while let Some(part) = download.next_part().await.map_err(refused)? {
        let written = blocking(move || writer.write_part(&part).map(|()| writer)).await?;
        writer = written.map_err(unwritable)?;
        progress.bar.set_position(download.bytes());
    }
    // Somebody else may have put a file there meanwhile.
    check_target(&args.file, args.force)?;
    blocking(move || writer.finish()).await?.map_err(unwritable)
}

/// Shown on a terminal only; gone when it is dropped.
struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn begin() -> Self {
        if !io::stderr().is_terminal() {
            let bar = ProgressBar::hidden();
            return Self { bar };
        }
        let style = ProgressStyle::with_template(PROGRESS).expect("the template is well-formed");
        let bar = ProgressBar::no_length().with_style(style);
        Self { bar }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_told_before_anything_is_fetched() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let told = |path: &Path, force| check_target(path, force).err().and_then(|it| it.line());
        let file = dir.path().join("file");
        assert_eq!(told(&file, false), None);
        std::fs::write(&file, "").expect("written");
        assert!(told(&file, false).is_some_and(|line| line.contains("--force")));
        assert_eq!(told(&file, true), None);
        assert!(told(dir.path(), true).is_some_and(|line| line.contains("folder")));
        // Renaming a file over a device would remove it.
        let device = told(Path::new("/dev/null"), true);
        assert!(device.is_some_and(|line| line.contains("no ordinary file")));
        let nowhere = dir.path().join("none/file");
        assert!(told(&nowhere, true).is_some_and(|line| line.contains("none")));
        assert_eq!(told(Path::new("a-file-in-this-folder"), false), None);
    }
}
