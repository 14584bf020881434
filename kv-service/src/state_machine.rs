//! The replicated machine: encoded commands in, encoded replies out, everything in memory. What the
//! commands do is in `replicated`.

#[cfg(test)]
mod tests;

use async_trait::async_trait;
use bytes::Bytes;
use kv_api::{CommandReply, Query, QueryError, QueryReply};
use raft_core::{
    Command as CommittedCommand, Index, LogId, SnapshotReader, StateImage, StateMachine,
    StateMachineError,
};

use crate::image::{ImageParts, ImageRestorer};
use crate::replicated::Replicated;
use crate::sessions::{SessionLimits, Sessions};
use crate::store::{KvStore, MemoryLive, Retention};

/// The key-value store as a state machine, in memory: it starts empty, and is given a snapshot and
/// the log behind it, or the log from its beginning. Cloning it is cheap and gives an image that
/// later commands do not move.
#[derive(Clone, Debug)]
pub struct KvStateMachine {
    state: Replicated<MemoryLive>,
    /// Where an image of files may be unpacked.
    #[cfg(feature = "rocksdb")]
    scratch: Option<std::path::PathBuf>,
}

impl Default for KvStateMachine {
    fn default() -> Self {
        Self::with_limits(Retention::default(), SessionLimits::default())
    }
}

impl KvStateMachine {
    /// An empty machine.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty machine with other limits. All replicas must be given the same.
    #[must_use]
    pub fn with_limits(retention: Retention, sessions: SessionLimits) -> Self {
        Self {
            state: Replicated {
                store: KvStore::with_retention(retention),
                sessions: Sessions::new(sessions),
                applied: LogId::ZERO,
            },
            #[cfg(feature = "rocksdb")]
            scratch: None,
        }
    }

    /// Lets it take snapshots of machines that keep their data in RocksDB: they are unpacked in
    /// this directory, which is of no other use.
    #[cfg(feature = "rocksdb")]
    #[must_use]
    pub fn unpacking_at(mut self, scratch: std::path::PathBuf) -> Self {
        self.scratch = Some(scratch);
        self
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &KvStore {
        &self.state.store
    }

    /// The sessions.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.state.sessions
    }

    /// Applies the command at `index`. Bytes that are no command change nothing and get a reply
    /// that says so.
    ///
    /// # Panics
    /// When `index` is not above that of the command before: a bug of the caller, which would make
    /// replicas differ.
    pub fn apply_command(&mut self, index: Index, payload: &[u8]) -> CommandReply {
        let Ok(reply) = self.state.apply_command(index, payload);
        reply
    }

    /// Answers a question about the state as it is. Bounded work, whatever is asked.
    #[must_use]
    pub fn answer(&self, query: &Query) -> QueryReply {
        let Ok(reply) = self.state.answer(query);
        reply
    }

    /// A hash of the whole logical state, sessions and their replies included: equal on replicas
    /// that applied the same commands. Takes time proportional to the state.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let Ok(digest) = self.state.digest();
        digest
    }

    /// The parts of an image of the state as it is, from the first to the last. Costs nothing until
    /// they are asked for; later commands do not move it.
    #[must_use]
    pub fn image(&self) -> KvImage {
        KvImage(ImageParts::new(
            self.state.store.clone(),
            self.state.sessions.clone(),
        ))
    }
}

#[async_trait]
impl StateMachine for KvStateMachine {
    async fn apply(
        &mut self,
        batch: Vec<CommittedCommand>,
    ) -> Result<Vec<Bytes>, StateMachineError> {
        let mut replies = Vec::with_capacity(batch.len());
        for command in batch {
            if command.index() <= self.state.applied.index {
                return Err(StateMachineError(format!(
                    "command {} was given after {}",
                    command.id, self.state.applied
                )));
            }
            let reply = self.apply_command(command.index(), &command.payload);
            self.state.applied = command.id;
            replies.push(Bytes::from(kv_api::encode(&reply)));
        }
        Ok(replies)
    }

    async fn query(&mut self, query: Bytes) -> Result<Bytes, StateMachineError> {
        let reply = match kv_api::decode(&query) {
            Ok(query) => self.answer(&query),
            Err(error) => QueryReply::Refused(QueryError::Malformed(error.to_string())),
        };
        Ok(kv_api::encode(&reply).into())
    }

    async fn snapshot(&mut self) -> Result<Box<dyn StateImage>, StateMachineError> {
        Ok(Box::new(self.image()))
    }

    async fn restore(
        &mut self,
        mut snapshot: Box<dyn SnapshotReader>,
    ) -> Result<(), StateMachineError> {
        let descriptor = snapshot.descriptor().clone();
        let failed = |what: String| StateMachineError(format!("{descriptor}: {what}"));
        let limits = (self.state.store.retention(), self.state.sessions.limits());
        let last = descriptor.meta.last;
        let mut writer = ImageRestorer::new(limits.0, limits.1);
        let mut parts = 0_u64;
        loop {
            let part = snapshot.next_part().await;
            let Some(part) = part.map_err(|error| failed(error.to_string()))? else {
                break;
            };
            #[cfg(feature = "rocksdb")]
            if let Some(scratch) = self.scratch.clone().filter(|_| parts == 0)
                && part.first() == Some(&crate::image::CHECKPOINT)
            {
                let unpacked = crate::durable::unpack(snapshot, part, scratch, limits).await;
                let (store, sessions) = unpacked.map_err(|error| failed(error.to_string()))?;
                self.state = Replicated {
                    store,
                    sessions,
                    applied: last,
                };
                return Ok(());
            }
            let pushed = writer.push(&part);
            pushed.map_err(|error| failed(format!("part {parts}: {error}")))?;
            parts += 1;
        }
        let restored = writer.finish(last.index.0);
        let (store, sessions) = restored.map_err(|error| failed(error.to_string()))?;
        self.state = Replicated {
            store,
            sessions,
            applied: last,
        };
        Ok(())
    }

    fn applied(&self) -> LogId {
        self.state.applied
    }
}

/// An image of the state; see [`KvStateMachine::image`].
#[derive(Debug)]
pub struct KvImage(ImageParts);

#[async_trait]
impl StateImage for KvImage {
    async fn next_part(&mut self) -> Result<Option<Bytes>, StateMachineError> {
        Ok(self.0.next_part())
    }
}
