//! The progress bar of `import`: on a terminal only.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use super::folder;
use super::source::Source;

const FILES: &str = "{wide_bar} {pos}/{len} files  {per_sec}  {eta}";
const BYTES: &str = "{wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta}";

/// How far an import is.
pub(super) struct Progress {
    bar: ProgressBar,
    counts_keys: bool,
}

impl Progress {
    /// Begins. The files of a folder are counted in the background.
    pub(super) fn new(source: Source) -> Self {
        let counts_keys = matches!(source, Source::Folder(_));
        if !std::io::stderr().is_terminal() {
            let bar = ProgressBar::hidden();
            return Self { bar, counts_keys };
        }
        let template = if counts_keys { FILES } else { BYTES };
        let style = ProgressStyle::with_template(template).expect("the template is well-formed");
        let bar = ProgressBar::no_length().with_style(style);
        let counted = bar.clone();
        tokio::task::spawn_blocking(move || {
            let length = match source {
                Source::Folder(root) => folder::count(&root),
                Source::Ndjson(path) => std::fs::metadata(path).map_or(0, |found| found.len()),
            };
            counted.set_length(length);
        });
        Self { bar, counts_keys }
    }

    /// A key was put or skipped.
    pub(super) fn key_done(&self) {
        if self.counts_keys {
            self.bar.inc(1);
        }
    }

    /// So much of the source was read.
    pub(super) fn position(&self, bytes: u64) {
        if !self.counts_keys {
            self.bar.set_position(bytes);
        }
    }

    /// Writes a line to standard error, above the bar.
    pub(super) fn note(&self, line: &str) {
        self.bar.suspend(|| eprintln!("flotilla: {line}"));
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
