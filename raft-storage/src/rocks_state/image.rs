//! The files of a state as they leave, part by part.
//!
//! What RocksDB has linked is not moved by later writes. Its own checksums are over blocks, which
//! nobody looks at who copies files: so while the files are read, the records in them are read as
//! well, at the same pace, and the last part is given only when all of them were good. Nothing
//! damaged leaves this node as a state.

use std::fs::{self, File};
use std::io::Read;
use std::ops::Bound;
use std::path::PathBuf;

use bytes::Bytes;
use raft_core::{LogId, StorageError};
use rocksdb::checkpoint::Checkpoint;

use super::directory::remove;
use super::options::{STATE_CACHE_BYTES_MIN, StateOptions};
use super::parts::{Head, PIECE_BYTES, Part, STATE_FILES_MAX, is_file_name, wrong};
use super::view::StateView;
use crate::errors::{damaged, io_error};

/// Bytes of records that are checked for each piece that is given: more than a piece has, so that
/// checking is done when copying is.
const CHECKED_PER_PIECE: usize = 2 * PIECE_BYTES;

/// An image of a state. Its files are removed when it is dropped.
#[derive(Debug)]
pub struct StateFiles {
    dir: PathBuf,
    applied: LogId,
    /// Names and sizes, in the order in which they go out.
    files: Vec<(String, u64)>,
    /// How many of the files have gone out, and the one that is going out.
    sent: usize,
    open: Option<OpenFile>,
    has_begun: bool,
    checker: Checker,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    offset: u64,
}

/// Reads all records of the image.
#[derive(Debug)]
struct Checker {
    view: Option<StateView>,
    /// The key that was read last.
    last: Option<Vec<u8>>,
    is_done: bool,
}

impl StateFiles {
    /// Links the files of `view` into `dir`, which does not exist yet.
    pub(super) fn take(view: &StateView, dir: PathBuf) -> Result<Self, StorageError> {
        let (_, applied) = view.header()?;
        let checkpoint = Checkpoint::new(view.db());
        let taken = checkpoint.and_then(|checkpoint| checkpoint.create_checkpoint(&dir));
        taken.map_err(|error| view.error("checkpoint", &error))?;
        let mut image = Self {
            dir,
            applied,
            files: Vec::new(),
            sent: 0,
            open: None,
            has_begun: false,
            checker: Checker {
                view: None,
                last: None,
                is_done: false,
            },
        };
        image.files = image.list()?;
        Ok(image)
    }

    /// The last command that is part of the state.
    #[must_use]
    pub fn applied(&self) -> LogId {
        self.applied
    }

    /// Where its files are.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.dir
    }

    fn list(&self) -> Result<Vec<(String, u64)>, StorageError> {
        let listed =
            fs::read_dir(&self.dir).map_err(|error| io_error("list", &self.dir, &error))?;
        let mut files = Vec::new();
        for entry in listed {
            let entry = entry.map_err(|error| io_error("list", &self.dir, &error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_file_name(&name) {
                let path = entry.path();
                let size = fs::metadata(&path).map_err(|error| io_error("read", &path, &error))?;
                files.push((name, size.len()));
            }
        }
        if files.len() > STATE_FILES_MAX as usize {
            let what = format!(
                "{} files are above the limit of {STATE_FILES_MAX}",
                files.len()
            );
            return Err(damaged(&self.dir, 0, what));
        }
        files.sort();
        Ok(files)
    }

    /// The next part; none after the last. Blocks its thread.
    ///
    /// # Errors
    /// When a file cannot be read, or a record in it is damaged.
    pub fn next_part(&mut self) -> Result<Option<Bytes>, StorageError> {
        if !std::mem::replace(&mut self.has_begun, true) {
            let files = u32::try_from(self.files.len()).map_err(|_| wrong("too many files"))?;
            return Ok(Some(
                Part::Head(Head {
                    files,
                    bytes: self.files.iter().map(|(_, bytes)| bytes).sum(),
                    applied: self.applied,
                })
                .encode(),
            ));
        }
        let Some((name, size)) = self.files.get(self.sent) else {
            return Ok(None);
        };
        let path = self.dir.join(name);
        let number = u32::try_from(self.sent).map_err(|_| wrong("too many files"))?;
        let Some(open) = &mut self.open else {
            let file = File::open(&path).map_err(|error| io_error("open", &path, &error))?;
            let (name, bytes) = (name.as_str(), *size);
            match bytes {
                // Nothing follows.
                0 => self.sent += 1,
                _ => self.open = Some(OpenFile { file, offset: 0 }),
            }
            let part = Part::File {
                number,
                bytes,
                name,
            };
            return Ok(Some(part.encode()));
        };
        let offset = open.offset;
        let left = size.saturating_sub(offset);
        let length = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let mut bytes = vec![0; length];
        let read = open.file.read_exact(&mut bytes);
        read.map_err(|error| io_error("read", &path, &error))?;
        open.offset += length as u64;
        if open.offset >= *size {
            self.sent += 1;
            self.open = None;
        }
        self.checker
            .advance(&self.dir, self.sent == self.files.len())?;
        let bytes = &bytes[..];
        let part = Part::Piece {
            number,
            offset,
            bytes,
        };
        Ok(Some(part.encode()))
    }
}

impl Drop for StateFiles {
    fn drop(&mut self) {
        self.checker.view = None;
        remove(&self.dir);
    }
}

impl Checker {
    /// Reads some more records; all that are left, where `to_end`.
    fn advance(&mut self, dir: &std::path::Path, to_end: bool) -> Result<(), StorageError> {
        if self.is_done {
            return Ok(());
        }
        let view = match self.view.take() {
            Some(view) => view,
            None => {
                let cache_bytes = STATE_CACHE_BYTES_MIN;
                StateView::open_unchanged(dir, &StateOptions { cache_bytes })?
            }
        };
        let mut bytes = 0;
        self.is_done = true;
        let from = self.last.as_deref();
        for record in view.range(b"", from.map_or(Bound::Unbounded, Bound::Excluded), true) {
            let (key, value) = record?;
            bytes += key.len() + value.len();
            if !to_end && bytes > CHECKED_PER_PIECE {
                self.last = Some(key);
                self.is_done = false;
                break;
            }
        }
        if !self.is_done {
            self.view = Some(view);
        }
        Ok(())
    }
}
