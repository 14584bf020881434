//! Another state that is to take the place of the one that is there: of the files of an image, or
//! of records that are written one by one. Until the switch nothing of it counts.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft_core::StorageError;

use super::batch::StateBatch;
use super::directory::{remove, sync};
use super::options::StateOptions;
use super::parts::{Head, Part, wrong};
use super::view::StateView;
use super::write;
use crate::errors::io_error;

/// See the file. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Replacement {
    dir: PathBuf,
    options: StateOptions,
    files: FilesIn,
    view: Option<Arc<StateView>>,
    is_kept: bool,
}

/// The files that come in.
#[derive(Debug, Default)]
struct FilesIn {
    head: Option<Head>,
    /// Files that are whole, and their bytes together.
    whole: u32,
    bytes: u64,
    open: Option<FileIn>,
}

#[derive(Debug)]
struct FileIn {
    file: File,
    path: PathBuf,
    offset: u64,
    size: u64,
}

impl Replacement {
    pub(super) fn new(dir: PathBuf, options: StateOptions) -> Self {
        Self {
            dir,
            options,
            files: FilesIn::default(),
            view: None,
            is_kept: false,
        }
    }

    /// Takes the next part of an image of files.
    ///
    /// # Errors
    /// When it is not the next part of one, or the disk refuses. All of it is then of no use.
    pub fn push(&mut self, part: &[u8]) -> Result<(), StorageError> {
        self.files.push(&self.dir, part)
    }

    /// Opens what the files make, when all of them are there. What the machine keeps in them has
    /// not been looked at.
    ///
    /// # Errors
    /// When there is less than was announced, or it is no state of this format.
    pub fn open(&mut self) -> Result<Arc<StateView>, StorageError> {
        let head = self.files.finish()?;
        sync(&self.dir)?;
        let view = StateView::open(&self.dir, &self.options, false)?;
        let (_, applied) = view.header()?;
        if applied != head.applied {
            let what = format!("it is of {applied}, but was announced as {}", head.applied);
            return Err(wrong(what));
        }
        Ok(Arc::clone(self.view.insert(Arc::new(view))))
    }

    /// Begins an empty state, to be written record by record.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn begin(&mut self) -> Result<Arc<StateView>, StorageError> {
        let view = StateView::open(&self.dir, &self.options, true)?;
        Ok(Arc::clone(self.view.insert(Arc::new(view))))
    }

    /// Writes records. There is no place in the log yet: that comes with the switch.
    ///
    /// # Errors
    /// When the disk refuses.
    ///
    /// # Panics
    /// Before it was opened or begun: a bug of the caller.
    pub fn write(&mut self, batch: StateBatch) -> Result<(), StorageError> {
        let view = self.view.as_ref().expect("opened or begun");
        write(view, batch.into_writes())
    }

    /// It is about to be switched to, so it is not removed any more.
    pub(super) fn into_view(mut self) -> Result<Arc<StateView>, StorageError> {
        let view = self.view.take();
        self.is_kept = view.is_some();
        view.ok_or_else(|| wrong("there is no state in it"))
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.is_kept {
            self.view = None;
            remove(&self.dir);
        }
    }
}

impl FilesIn {
    fn push(&mut self, dir: &Path, part: &[u8]) -> Result<(), StorageError> {
        match Part::decode(part)? {
            Part::Head(head) => {
                if self.head.is_some() {
                    return Err(wrong("it is a second beginning"));
                }
                self.head = Some(head);
                Ok(())
            }
            Part::File {
                number,
                bytes,
                name,
            } => self.begin_file(dir, number, bytes, name),
            Part::Piece {
                number,
                offset,
                bytes,
            } => self.write_piece(number, offset, bytes),
        }
    }

    fn begin_file(
        &mut self,
        dir: &Path,
        number: u32,
        size: u64,
        name: &str,
    ) -> Result<(), StorageError> {
        let head = self
            .head
            .ok_or_else(|| wrong("it comes before the beginning"))?;
        if self.open.is_some() || number != self.whole || number >= head.files {
            return Err(wrong(format!("file {number} does not come next")));
        }
        let bytes = self
            .bytes
            .checked_add(size)
            .filter(|bytes| *bytes <= head.bytes);
        self.bytes = bytes.ok_or_else(|| wrong("the files are larger than was announced"))?;
        let path = dir.join(name);
        let created = File::options().write(true).create_new(true).open(&path);
        let file = created.map_err(|error| io_error("create", &path, &error))?;
        self.open = Some(FileIn {
            file,
            path,
            offset: 0,
            size,
        });
        self.close_where_whole()
    }

    fn write_piece(&mut self, number: u32, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let whole = self.whole;
        let Some(open) = self.open.as_mut().filter(|_| number == whole) else {
            return Err(wrong(format!(
                "a piece of file {number} does not come next"
            )));
        };
        let end = offset.checked_add(bytes.len() as u64);
        if offset != open.offset || end.is_none_or(|end| end > open.size) {
            let (at, size) = (open.offset, open.size);
            let what = format!("a piece at {offset} does not belong at {at} of {size} bytes");
            return Err(wrong(what));
        }
        let written = open.file.write_all(bytes);
        written.map_err(|error| io_error("write", &open.path, &error))?;
        open.offset += bytes.len() as u64;
        self.close_where_whole()
    }

    fn close_where_whole(&mut self) -> Result<(), StorageError> {
        let is_whole = |open: &mut FileIn| open.offset == open.size;
        if let Some(open) = self.open.take_if(is_whole) {
            let synced = open.file.sync_all();
            synced.map_err(|error| io_error("sync", &open.path, &error))?;
            self.whole += 1;
        }
        Ok(())
    }

    fn finish(&self) -> Result<Head, StorageError> {
        let head = self.head.ok_or_else(|| wrong("there is no beginning"))?;
        if self.open.is_some() || self.whole != head.files || self.bytes != head.bytes {
            let (files, bytes) = (self.whole, self.bytes);
            return Err(wrong(format!(
                "{files} files of {bytes} bytes came, {} of {} were announced",
                head.files, head.bytes
            )));
        }
        Ok(head)
    }
}

/// Unpacks the parts of an image into a directory, to look at it: nothing is changed in it.
#[derive(Debug)]
pub struct Unpacking {
    dir: PathBuf,
    files: FilesIn,
}

impl Unpacking {
    /// Begins, in a directory that is of no other use: what is there is removed.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn begin(dir: &Path) -> Result<Self, StorageError> {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io_error("remove", dir, &error));
            }
            _ => {}
        }
        fs::create_dir(dir).map_err(|error| io_error("create", dir, &error))?;
        Ok(Self {
            dir: dir.to_owned(),
            files: FilesIn::default(),
        })
    }

    /// Takes the next part.
    ///
    /// # Errors
    /// As [`Replacement::push`].
    pub fn push(&mut self, part: &[u8]) -> Result<(), StorageError> {
        self.files.push(&self.dir, part)
    }

    /// Opens what the files make.
    ///
    /// # Errors
    /// As [`Replacement::open`].
    pub fn open(&self, options: &StateOptions) -> Result<StateView, StorageError> {
        let head = self.files.finish()?;
        let view = StateView::open_unchanged(&self.dir, options)?;
        let (_, applied) = view.header()?;
        if applied != head.applied {
            let what = format!("it is of {applied}, but was announced as {}", head.applied);
            return Err(wrong(what));
        }
        Ok(view)
    }
}

impl Drop for Unpacking {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}
