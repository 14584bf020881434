//! A state that comes in as an image, of either kind, and is put in the place of the one that is
//! there when all of it was read and checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use raft_core::{LogId, SnapshotReader, StateMachineError, StorageError};
use raft_storage::rocks_state::{CHECKPOINT_TAG, Replacement, StateBatch, StateOptions, Unpacking};

use super::changes;
use super::failure::{DurableError, on_thread};
use super::live::DiskLive;
use super::load::{check_keys, load};
use crate::image::{ImageParts, ImageRestorer};
use crate::replicated::Replicated;
use crate::sessions::{SessionLimits, Sessions};
use crate::store::{KvStore, Retention};

/// Bytes of keys and values that are collected before they are written.
const WRITTEN_AT_ONCE: usize = 4 << 20;

/// An image that is coming in. Nothing of it counts.
#[derive(Debug)]
pub(super) struct Incoming {
    retention: Retention,
    limits: SessionLimits,
    replacement: Replacement,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Not a part has come.
    Unknown,
    /// Of a machine in memory.
    Records(Box<ImageRestorer<DiskLive>>),
    /// Of a machine like this one.
    Files,
}

impl Incoming {
    pub(super) fn new(
        replacement: Replacement,
        retention: Retention,
        limits: SessionLimits,
    ) -> Self {
        Self {
            retention,
            limits,
            replacement,
            kind: Kind::Unknown,
        }
    }

    /// Takes the next part.
    pub(super) fn push(&mut self, part: &[u8]) -> Result<(), DurableError> {
        if matches!(self.kind, Kind::Unknown) {
            self.kind = if part.first() == Some(&CHECKPOINT_TAG) {
                Kind::Files
            } else {
                let live = DiskLive::new(self.replacement.begin()?, 0);
                let restorer = ImageRestorer::over(live, self.retention, self.limits);
                Kind::Records(Box::new(restorer))
            };
        }
        let Kind::Records(restorer) = &mut self.kind else {
            return Ok(self.replacement.push(part)?);
        };
        restorer.push(part)?;
        if let Some(live) = restorer.live_mut()
            && live.pending_bytes() > WRITTEN_AT_ONCE
        {
            let mut batch = StateBatch::new();
            live.take_changes(&mut batch);
            self.replacement.write(batch)?;
        }
        Ok(())
    }

    /// The state as of `last`, and what to switch to, when all parts are there.
    pub(super) fn finish(
        mut self,
        last: LogId,
    ) -> Result<(Replacement, Replicated<DiskLive>), DurableError> {
        let state = match self.kind {
            Kind::Unknown => return Err(crate::image::ImageError::Empty.into()),
            Kind::Records(restorer) => {
                let (store, sessions) = restorer.finish(last.index.0)?;
                let mut state = Replicated {
                    store,
                    sessions,
                    applied: last,
                };
                self.replacement.write(changes::all(&mut state))?;
                state
            }
            Kind::Files => {
                let view = self.replacement.open()?;
                let state = load(&view, last, self.retention, self.limits)?;
                check_keys(&view, &state)?;
                state
            }
        };
        Ok((self.replacement, state))
    }
}

/// Takes the files of an image apart, of which the first part has been read, for a machine in
/// memory.
///
/// # Errors
/// When the image cannot be read, is not whole, or was kept with other limits.
pub(crate) async fn unpack(
    mut snapshot: Box<dyn SnapshotReader>,
    first: Bytes,
    scratch: PathBuf,
    (retention, limits): (Retention, SessionLimits),
) -> Result<(KvStore, Sessions), StateMachineError> {
    let last = snapshot.descriptor().meta.last;
    let mut unpacked = on_thread(move || Ok(Unpacked::begin(&scratch)?)).await?;
    let mut next = Some(first);
    while let Some(part) = next {
        let pushed = on_thread(move || {
            unpacked.push(&part)?;
            Ok(unpacked)
        });
        unpacked = pushed.await?;
        let read = snapshot.next_part().await;
        next = read.map_err(DurableError::from)?;
    }
    on_thread(move || unpacked.finish(last, retention, limits)).await
}

/// An image of files that is taken apart, for a machine in memory or to look whether it is whole.
#[derive(Debug)]
pub(crate) struct Unpacked {
    unpacking: Unpacking,
}

impl Unpacked {
    /// Begins in a directory that is of no other use; what a crash left there is removed.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(crate) fn begin(dir: &Path) -> Result<Self, StorageError> {
        Ok(Self {
            unpacking: Unpacking::begin(dir)?,
        })
    }

    /// Takes the next part.
    ///
    /// # Errors
    /// When it is not the next part of an image, or the disk refuses.
    pub(crate) fn push(&mut self, part: &[u8]) -> Result<(), StorageError> {
        self.unpacking.push(part)
    }

    /// The state, as a machine in memory has it.
    ///
    /// # Errors
    /// When the image is not whole, or was kept with other limits.
    pub(crate) fn finish(
        self,
        last: LogId,
        retention: Retention,
        limits: SessionLimits,
    ) -> Result<(KvStore, Sessions), DurableError> {
        let state = self.state(last, retention, limits)?;
        let mut parts = ImageParts::new(state.store, state.sessions);
        let mut restorer = ImageRestorer::new(retention, limits);
        while let Some(part) = parts.try_next_part()? {
            restorer.push(&part)?;
        }
        Ok(restorer.finish(last.index.0)?)
    }

    /// Reads all of it, and checks it.
    ///
    /// # Errors
    /// As [`Unpacked::finish`].
    pub(crate) fn check(self, last: LogId) -> Result<(), DurableError> {
        self.state(last, Retention::default(), SessionLimits::default())?;
        Ok(())
    }

    fn state(
        &self,
        last: LogId,
        retention: Retention,
        limits: SessionLimits,
    ) -> Result<Replicated<DiskLive>, DurableError> {
        let view = Arc::new(self.unpacking.open(&StateOptions::default())?);
        let state = load(&view, last, retention, limits)?;
        check_keys(&view, &state)?;
        Ok(state)
    }
}
