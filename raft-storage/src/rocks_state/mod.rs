//! A durable ordered map for state machines whose data does not fit into memory, in RocksDB.
//!
//! **Data and its place in the log are never apart.** The only way to write is a batch together
//! with the id of the last command that it comes from, and RocksDB takes both or neither. Its own
//! log is off: the replicated log is the log. What was not flushed when the process died is gone,
//! as a whole and from the end, and [`StateStore::applied`] says where to go on; the commands
//! behind it are applied again.
//!
//! ```text
//! state/lock        held while the store is open
//! state/current     the name of the directory that counts, such as `gen-1`
//! state/gen-<n>/    a database; one that is not named in `current` is litter
//! state/image-<n>/  hard links to the files of an image that is being read; else litter
//! ```
//!
//! - `options`: how the database is set up, and why;
//! - `view`: reading; `batch`: what is written;
//! - `directory`: which database counts, and the switch from one to another;
//! - `image` and `parts`: the files of a state as they leave; `replacement`: how they come in;
//! - `room`: whether the disk has any left.
//!
//! Everything here blocks its thread.

mod batch;
mod directory;
mod image;
pub(crate) mod inspect;
mod options;
mod parts;
mod replacement;
mod room;
#[cfg(test)]
mod tests;
mod view;

use std::path::Path;
use std::sync::Arc;

use raft_core::{LogId, StorageError};
use rocksdb::{WriteBatch, WriteOptions};

use crate::owner::WalOwner;

pub use batch::StateBatch;
pub use image::StateFiles;
pub use options::{STATE_CACHE_BYTES_MAX, STATE_CACHE_BYTES_MIN, StateOptions};
pub use parts::{CHECKPOINT_TAG, STATE_FILES_MAX};
pub use replacement::{Replacement, Unpacking};
pub use room::{STATE_FREE_BYTES_MIN, STATE_RESERVE_BYTES, StateRoom};
pub use view::{StateRange, StateView};

use directory::Directory;
use view::{APPLIED_KEY, OWNER_KEY, encode_applied, encode_owner};

/// See the file. One owner writes; a [`StateView`] may be shared with readers.
#[derive(Debug)]
pub struct StateStore {
    directory: Directory,
    owner: WalOwner,
    options: StateOptions,
    view: Arc<StateView>,
    applied: LogId,
    /// What of `applied` is known to be on the disk.
    flushed: LogId,
    /// Why nothing is taken any more.
    failure: Option<String>,
}

impl StateStore {
    /// Opens the store in `dir`, which becomes `owner`'s where there is none, and clears away what
    /// a crash has left.
    ///
    /// # Errors
    /// `Foreign` when it is another's or of a newer format, `Damaged` when it is not whole, and
    /// whatever the disk answers.
    pub fn open(dir: &Path, owner: WalOwner, options: StateOptions) -> Result<Self, StorageError> {
        let (directory, current) = Directory::open(dir)?;
        let is_new = current.is_none();
        let path = current.unwrap_or_else(|| directory.generation_path());
        if is_new {
            let view = StateView::open(&path, &options, true)?;
            seal(&view, &owner, LogId::ZERO)?;
            drop(view);
            directory.make_current()?;
        }
        let view = StateView::open(&path, &options, false)?;
        let (found, applied) = view.header()?;
        found.check(&path, &owner)?;
        Ok(Self {
            directory,
            owner,
            options,
            view: Arc::new(view),
            applied,
            flushed: applied,
            failure: None,
        })
    }

    /// Reads it.
    #[must_use]
    pub fn view(&self) -> &Arc<StateView> {
        &self.view
    }

    /// Tells whether its disk has room left, to any thread and for as long as is wanted.
    #[must_use]
    pub fn room(&self) -> StateRoom {
        StateRoom::of(self.directory.path())
    }

    /// The id of the last batch. After a start this is what the disk has kept.
    #[must_use]
    pub fn applied(&self) -> LogId {
        self.applied
    }

    /// The newest id that is known to be kept through a crash; RocksDB may have kept more.
    #[must_use]
    pub fn flushed(&self) -> LogId {
        self.flushed
    }

    /// Writes a batch and, in the same breath, that everything up to `applied` is in the state.
    /// Durable after the next [`StateStore::flush`], or when RocksDB flushes by itself.
    ///
    /// # Errors
    /// When RocksDB refuses. Nothing is taken after that.
    ///
    /// # Panics
    /// When `applied` is not above that of the batch before: a bug of the caller.
    pub fn write(&mut self, batch: StateBatch, applied: LogId) -> Result<(), StorageError> {
        self.check()?;
        let before = self.applied;
        assert!(
            applied.index > before.index,
            "a batch up to {applied} comes after {before}"
        );
        let mut writes = batch.into_writes();
        writes.put(APPLIED_KEY, encode_applied(applied));
        let written = write(&self.view, writes);
        self.note(written)?;
        self.applied = applied;
        Ok(())
    }

    /// Makes everything that was written durable.
    ///
    /// # Errors
    /// When the disk refuses. Nothing is taken after that.
    pub fn flush(&mut self) -> Result<(), StorageError> {
        self.check()?;
        let flushed = self.view.flush();
        self.note(flushed)?;
        self.flushed = self.applied;
        Ok(())
    }

    /// The files of the state as it is, which is durable from here on. They are not moved by later
    /// writes, and go when the image is dropped.
    ///
    /// # Errors
    /// When the disk refuses. Nothing is taken after that.
    pub fn image(&mut self) -> Result<StateFiles, StorageError> {
        self.flush()?;
        let dir = self.directory.image_path();
        let image = StateFiles::take(&self.view, dir);
        self.note(image.as_ref().map(|_| ()).map_err(Clone::clone))?;
        image
    }

    /// Begins another state in the place of this one, which is not changed by that.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn replacement(&mut self) -> Result<Replacement, StorageError> {
        let path = self.directory.next_generation()?;
        Ok(Replacement::new(path, self.options))
    }

    /// Puts a replacement, which is the state as of `applied`, into the place of this one: durably,
    /// and at once. After a crash on the way one of the two is there. Whoever has a view of the old
    /// one should have dropped it: its files are removed.
    ///
    /// # Errors
    /// When the disk refuses; which of the two a later start finds is then not known.
    pub fn switch(&mut self, replacement: Replacement, applied: LogId) -> Result<(), StorageError> {
        self.check()?;
        let switched = self.switch_to(replacement, applied);
        self.note(switched)
    }

    fn switch_to(&mut self, replacement: Replacement, applied: LogId) -> Result<(), StorageError> {
        let view = replacement.into_view()?;
        seal(&view, &self.owner, applied)?;
        self.directory.make_current()?;
        self.view = view;
        self.applied = applied;
        self.flushed = applied;
        self.directory.clear();
        Ok(())
    }

    fn check(&self) -> Result<(), StorageError> {
        match &self.failure {
            None => Ok(()),
            Some(why) => Err(StorageError::Poisoned(why.clone())),
        }
    }

    fn note(&mut self, result: Result<(), StorageError>) -> Result<(), StorageError> {
        if let Err(error) = &result {
            self.failure.get_or_insert(error.to_string());
        }
        result
    }
}

/// Makes a database `owner`'s, as of `applied`, and durable.
fn seal(view: &StateView, owner: &WalOwner, applied: LogId) -> Result<(), StorageError> {
    let mut writes = WriteBatch::default();
    writes.put(OWNER_KEY, encode_owner(owner));
    writes.put(APPLIED_KEY, encode_applied(applied));
    write(view, writes)?;
    view.flush()?;
    directory::sync(view.path())
}

fn write(view: &StateView, writes: WriteBatch) -> Result<(), StorageError> {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    let written = view.db().write_opt(writes, &options);
    written.map_err(|error| view.error("write", &error))
}
