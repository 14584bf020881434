//! `flotilla export`: every key of one revision as a file. How files are written is in `tree`,
//! which keys can be files in `key_path`.

use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use bytes::Bytes;
use kv_client::KeyValue;
use kv_client::ScanRange;
use serde_json::json;

use crate::cli::ExportArgs;
use crate::commands::data::connect;
use crate::commands::noted::Notes;
use crate::commands::tree::{Tree, TreeError};
use crate::exit::{Exit, Failure, Outcome};
use crate::key_path::components_of;
use crate::output::{Output, printable};

/// Runs `flotilla export`.
///
/// # Errors
/// When the folder cannot be written, or the store not be read to its end.
pub(crate) async fn run(args: &ExportArgs, output: &mut Output) -> Outcome {
    let client = connect(&args.client).await?;
    let started = Instant::now();
    let prefix = Bytes::copy_from_slice(args.prefix.as_bytes());
    let mut pages = client.scan(ScanRange::prefix(prefix.clone()));
    let mut writer = Writer::open(args)?;
    while let Some(pairs) = pages.next_page().await? {
        let prefix_bytes = prefix.len();
        // Writing files blocks, so it is done where that hurts nobody.
        writer = tokio::task::spawn_blocking(move || {
            writer.write_page(&pairs, prefix_bytes)?;
            Ok::<_, Failure>(writer)
        })
        .await
        .map_err(|error| Failure::stopped(format!("the writer panicked: {error}")))??;
    }
    client.close().await;
    writer.report(started.elapsed().as_secs_f64(), output)
}

/// The folder, and what was written to it.
struct Writer {
    tree: Tree,
    shown: String,
    keys: u64,
    bytes: u64,
    skipped: Notes,
}

impl Writer {
    fn open(args: &ExportArgs) -> Result<Self, Failure> {
        let shown = args.dir.display().to_string();
        let tree = Tree::open(&args.dir)
            .map_err(|error| Failure::usage(format!("cannot export to {shown}: {error}")))?;
        Ok(Self {
            tree,
            shown,
            keys: 0,
            bytes: 0,
            skipped: Notes::default(),
        })
    }

    fn write_page(&mut self, pairs: &[KeyValue], prefix_bytes: usize) -> Result<(), Failure> {
        for pair in pairs {
            let path = pair.key.get(prefix_bytes..).unwrap_or_default();
            let components = match components_of(path) {
                Ok(components) => components,
                Err(why) => {
                    self.skip(pair, &format!("its path is not one of a file: {why}"));
                    continue;
                }
            };
            match self.tree.write(&components, &pair.value) {
                Ok(()) => {
                    self.keys += 1;
                    self.bytes += pair.value.len() as u64;
                }
                Err(TreeError::InTheWay(why)) => self.skip(pair, why),
                Err(TreeError::Io(error)) => {
                    let (folder, file) = (&self.shown, printable(path));
                    let message = format!("cannot write {file} in {folder}: {error}");
                    return Err(Failure::refused(message));
                }
            }
        }
        Ok(())
    }

    fn skip(&mut self, pair: &KeyValue, why: &str) {
        if self.skipped.add() {
            eprintln!("flotilla: skipped {}: {why}", printable(&pair.key));
        }
    }

    fn report(&self, seconds: f64, output: &mut Output) -> Outcome {
        self.skipped.report_rest("skipped");
        let (keys, bytes, skipped) = (self.keys, self.bytes, self.skipped.count());
        output.line(
            || json!({ "keys": keys, "bytes": bytes, "seconds": seconds, "skipped": skipped }),
            || {
                let more = match skipped {
                    0 => String::new(),
                    _ => format!(", {skipped} skipped"),
                };
                format!("exported {keys} keys, {bytes} bytes in {seconds:.2} s{more}")
            },
        )?;
        output.flush()?;
        if skipped == 0 {
            return Ok(Exit::Done);
        }
        let all = keys + skipped;
        Err(Failure::refused(format!(
            "{skipped} of {all} keys were skipped"
        )))
    }
}
