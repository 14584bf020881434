//! `flotilla import`: a folder or an .ndjson file into the store. A thread reads ahead (`folder`,
//! `ndjson`, through `feed`), `puts` writes what it finds, `progress` tells how far it is.

mod feed;
mod folder;
mod ndjson;
mod progress;
mod puts;
mod source;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use kv_client::KvClient;
use serde_json::json;

use self::feed::feeding;
use self::progress::Progress;
use self::puts::Tally;
use self::source::Source;
use crate::cli::ImportArgs;
use crate::commands::data::connect;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::Output;

/// Runs `flotilla import`.
///
/// # Errors
/// When PATH is neither, and when the cluster cannot be written to. What was put until then stays.
pub(crate) async fn run(args: &ImportArgs, output: &mut Output) -> Outcome {
    let source = source_of(&args.path)?;
    let client = connect(&args.client).await?;
    let started = Instant::now();
    let tally = transfer(&client, source, args.prefix.as_bytes()).await?;
    client.close().await;
    report(&tally, started.elapsed().as_secs_f64(), output)
}

fn source_of(path: &Path) -> Result<Source, Failure> {
    let shown = path.display();
    let metadata = std::fs::metadata(path)
        .map_err(|error| Failure::usage(format!("cannot import {shown}: {error}")))?;
    if metadata.is_dir() {
        return Ok(Source::Folder(path.to_owned()));
    }
    if path.extension() == Some(OsStr::new("ndjson")) {
        return Ok(Source::Ndjson(path.to_owned()));
    }
    let message = format!("cannot import {shown}: it is neither a folder nor an .ndjson file");
    Err(Failure::usage(message))
}

/// Reads in one thread and puts in this task, until both are done or the puts have failed.
async fn transfer(client: &KvClient, source: Source, prefix: &[u8]) -> Result<Tally, Failure> {
    let progress = Progress::new(source.clone());
    let (feeder, fed) = feeding();
    let prefix = prefix.to_vec();
    let reader = tokio::task::spawn_blocking(move || match source {
        Source::Folder(root) => {
            folder::feed(&root, &prefix, &feeder);
            Ok(())
        }
        Source::Ndjson(path) => ndjson::feed(&path, &prefix, &feeder),
    });
    // `fed` is consumed: where the puts fail, the reader finds its channel closed and ends.
    let tally = puts::put_all(client, fed, &progress).await;
    let read = reader
        .await
        .map_err(|error| Failure::stopped(format!("the reader panicked: {error}")))?;
    progress.finish();
    let tally = tally?;
    read?;
    Ok(tally)
}

fn report(tally: &Tally, seconds: f64, output: &mut Output) -> Outcome {
    tally.skipped.report_rest("skipped");
    tally.left_out.report_rest("left out");
    let (keys, bytes) = (tally.keys, tally.bytes);
    let (skipped, left_out) = (tally.skipped.count(), tally.left_out.count());
    output.line(
        || {
            json!({
                "keys": keys, "bytes": bytes, "seconds": seconds,
                "skipped": skipped, "left_out": left_out,
            })
        },
        || {
            let more = match (skipped, left_out) {
                (0, 0) => String::new(),
                _ => format!(", {skipped} skipped, {left_out} left out"),
            };
            format!("imported {keys} keys, {bytes} bytes in {seconds:.2} s{more}")
        },
    )?;
    output.flush()?;
    if skipped == 0 {
        return Ok(Exit::Done);
    }
    Err(Failure::refused(format!(
        "{skipped} of {} were skipped",
        keys + skipped
    )))
}
