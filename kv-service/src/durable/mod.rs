//! The replicated machine for data that does not fit into memory: keys and values in RocksDB, and
//! everything that is bounded in memory as well. It gives the same replies as the machine in
//! memory, because both are the same store and sessions over another map: see `store::live`.
//!
//! ```text
//! apply:    commands -> store and sessions, changes of keys in memory -> one batch with its place
//! query:    database, history in memory
//! snapshot: flush, hard links -> files in parts, in the background
//! restore:  parts -> a second database -> checked -> switched to
//! ```
//!
//! - `failure`: what goes wrong; `records`: keys and values; `live`: the map; `changes`: what a
//!   batch writes; `load`: the way back;
//!   `restore`: images of both kinds; `inspect`: a look at that of a stopped node.

mod changes;
mod failure;
mod inspect;
mod live;
mod load;
mod records;
mod restore;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use kv_api::{Query, QueryError, QueryReply};
use raft_core::{
    Command as CommittedCommand, LogId, RoomWatch, SnapshotReader, StateImage, StateMachine,
    StateMachineError, StorageError,
};
use raft_storage::WalOwner;
use raft_storage::rocks_state::{StateFiles, StateOptions, StateStore};

use crate::replicated::Replicated;
use crate::sessions::SessionLimits;
use crate::store::Retention;
use changes::Before;
use failure::{DurableError, on_thread};
use live::DiskLive;
use restore::Incoming;

pub(crate) use inspect::inspect;
pub(crate) use restore::{Unpacked, unpack};

/// Bytes of changed keys and values after which a batch is written, though more commands are there:
/// small commands can make large values.
const PENDING_BYTES_MAX: usize = 16 << 20;

/// The key-value store as a state machine that keeps its data in RocksDB. It starts with what the
/// disk has kept, and is given the log from there on.
#[derive(Debug)]
pub struct DurableStateMachine {
    inner: Arc<Mutex<Inner>>,
    /// Known to be kept through a crash.
    flushed: LogId,
}

impl DurableStateMachine {
    /// Opens the state in `dir`, which becomes `owner`'s where there is none. Blocks its thread:
    /// the history and the sessions are read.
    ///
    /// # Errors
    /// `Foreign` when it is another's, of a newer format or kept with other limits; `Damaged`; and
    /// what the disk answers.
    pub fn open(dir: &Path, owner: WalOwner, options: StateOptions) -> Result<Self, StorageError> {
        let (retention, sessions) = (Retention::default(), SessionLimits::default());
        Self::open_with_limits(dir, owner, options, retention, sessions)
    }

    /// The same with other limits. All replicas must be given the same.
    ///
    /// # Errors
    /// As [`DurableStateMachine::open`].
    pub fn open_with_limits(
        dir: &Path,
        owner: WalOwner,
        options: StateOptions,
        retention: Retention,
        sessions: SessionLimits,
    ) -> Result<Self, StorageError> {
        let store = StateStore::open(dir, owner, options)?;
        let flushed = store.applied();
        let state = load::load(store.view(), flushed, retention, sessions)?;
        let inner = Inner {
            store,
            state: Some(state),
            retention,
            sessions,
        };
        Ok(Self {
            inner: Arc::new(Mutex::new(inner)),
            flushed,
        })
    }

    /// A hash of the whole logical state, the same that a machine in memory has. Takes time
    /// proportional to the state, and blocks its thread.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn digest(&self) -> Result<u64, StateMachineError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(inner.state()?.digest().map_err(DurableError::from)?)
    }

    /// The last command that was applied, which the disk need not have kept yet.
    #[must_use]
    pub fn last_applied(&self) -> LogId {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.store.applied()
    }

    /// Runs work that blocks on a thread for that. Where the caller gives up it runs to its end,
    /// and the next call waits for it.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Inner) -> Result<T, DurableError> + Send + 'static,
    ) -> Result<T, StateMachineError> {
        let inner = Arc::clone(&self.inner);
        let worked = on_thread(move || {
            // After a panic half of a batch may be in memory: nothing is done with that any more.
            let inner = inner.lock();
            let mut inner = inner.map_err(|_| DurableError::Call("it failed before".to_owned()))?;
            work(&mut inner)
        });
        worked.await
    }
}

/// The store, and what of it is in memory.
#[derive(Debug)]
struct Inner {
    store: StateStore,
    /// None after a failure: what is in memory may be ahead of the database.
    state: Option<Replicated<DiskLive>>,
    retention: Retention,
    sessions: SessionLimits,
}

impl Inner {
    fn state(&mut self) -> Result<&mut Replicated<DiskLive>, DurableError> {
        let state = self.state.as_mut();
        state.ok_or_else(|| DurableError::Call("it failed before".to_owned()))
    }

    fn apply(&mut self, commands: &[CommittedCommand]) -> Result<Vec<Bytes>, DurableError> {
        let mut replies = Vec::with_capacity(commands.len());
        let mut rest = commands;
        while !rest.is_empty() {
            let taken = self.apply_some(rest, &mut replies);
            let taken = taken.inspect_err(|_| self.state = None)?;
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(replies)
    }

    /// Applies commands until enough is changed, writes the changes, and says how many it took.
    fn apply_some(
        &mut self,
        commands: &[CommittedCommand],
        replies: &mut Vec<Bytes>,
    ) -> Result<usize, DurableError> {
        let state = self.state()?;
        let before = Before::of(state);
        let mut taken = 0;
        for command in commands {
            if command.index() <= state.applied.index {
                let (id, applied) = (command.id, state.applied);
                return Err(DurableError::Call(format!(
                    "command {id} was given after {applied}"
                )));
            }
            let reply = state.apply_command(command.index(), &command.payload)?;
            state.applied = command.id;
            replies.push(Bytes::from(kv_api::encode(&reply)));
            taken += 1;
            if state.store.live_mut().pending_bytes() >= PENDING_BYTES_MAX {
                break;
            }
        }
        let batch = before.changes(state);
        let applied = state.applied;
        self.store.write(batch, applied)?;
        Ok(taken)
    }

    fn query(&mut self, query: &[u8]) -> Result<Bytes, DurableError> {
        let reply = match kv_api::decode::<Query>(query) {
            Ok(query) => self.state()?.answer(&query)?,
            Err(error) => QueryReply::Refused(QueryError::Malformed(error.to_string())),
        };
        Ok(kv_api::encode(&reply).into())
    }

    fn switch(&mut self, incoming: Incoming, last: LogId) -> Result<(), DurableError> {
        let (replacement, state) = incoming.finish(last)?;
        // Its files are about to go.
        self.state = None;
        self.store.switch(replacement, last)?;
        self.state = Some(state);
        Ok(())
    }
}

#[async_trait]
impl StateMachine for DurableStateMachine {
    async fn apply(
        &mut self,
        batch: Vec<CommittedCommand>,
    ) -> Result<Vec<Bytes>, StateMachineError> {
        self.blocking(move |inner| inner.apply(&batch)).await
    }

    async fn query(&mut self, query: Bytes) -> Result<Bytes, StateMachineError> {
        self.blocking(move |inner| inner.query(&query)).await
    }

    async fn snapshot(&mut self) -> Result<Box<dyn StateImage>, StateMachineError> {
        let files = self.blocking(|inner| {
            inner.state()?;
            Ok(inner.store.image()?)
        });
        let files = files.await?;
        self.flushed = files.applied();
        Ok(Box::new(DurableImage(Some(files))))
    }

    async fn restore(
        &mut self,
        mut snapshot: Box<dyn SnapshotReader>,
    ) -> Result<(), StateMachineError> {
        let descriptor = snapshot.descriptor().clone();
        let failed = |what: String| StateMachineError(format!("{descriptor}: {what}"));
        let mut incoming = self
            .blocking(|inner| {
                let replacement = inner.store.replacement()?;
                Ok(Incoming::new(replacement, inner.retention, inner.sessions))
            })
            .await?;
        let mut parts = 0_u64;
        loop {
            let part = snapshot.next_part().await;
            let Some(part) = part.map_err(|error| failed(error.to_string()))? else {
                break;
            };
            let pushed = on_thread(move || {
                incoming.push(&part)?;
                Ok(incoming)
            });
            let pushed = pushed.await;
            incoming = pushed.map_err(|error| failed(format!("part {parts}: {error}")))?;
            parts += 1;
        }
        let last = descriptor.meta.last;
        let switched = self.blocking(move |inner| inner.switch(incoming, last));
        let switched = switched.await;
        switched.map_err(|error| failed(error.to_string()))?;
        self.flushed = last;
        Ok(())
    }

    fn applied(&self) -> LogId {
        self.flushed
    }

    fn room(&self) -> Option<Arc<dyn RoomWatch>> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::new(inner.store.room()))
    }
}

/// The files of a state; see [`StateFiles`].
#[derive(Debug)]
struct DurableImage(Option<StateFiles>);

#[async_trait]
impl StateImage for DurableImage {
    async fn next_part(&mut self) -> Result<Option<Bytes>, StateMachineError> {
        let files = self.0.take();
        let mut files =
            files.ok_or_else(|| StateMachineError("an image failed before".to_owned()))?;
        let read = on_thread(move || {
            let part = files.next_part()?;
            Ok((part, files))
        });
        let (part, files) = read.await?;
        self.0 = Some(files);
        Ok(part)
    }
}
