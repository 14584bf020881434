//! The replicated machine: encoded commands in, encoded replies out. Joins the store and the
//! sessions; decides nothing that they can decide.

#[cfg(test)]
mod tests;

use async_trait::async_trait;
use bytes::Bytes;
use kv_api::{Command, CommandError, CommandReply, Query, QueryError, QueryReply};
use raft_core::{
    Command as CommittedCommand, Index, LogId, SnapshotReader, StateImage, StateMachine,
    StateMachineError,
};

use crate::digest::Digest;
use crate::image::{ImageParts, ImageRestorer};
use crate::sessions::{Admission, SessionLimits, Sessions};
use crate::store::{KvStore, Retention, ScanRange};

/// The key-value store as a state machine, in memory: it starts empty, and is given a snapshot and
/// the log behind it, or the log from its beginning. Cloning it is cheap and gives an image that
/// later commands do not move.
#[derive(Clone, Debug, Default)]
pub struct KvStateMachine {
    store: KvStore,
    sessions: Sessions,
    applied: LogId,
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
            store: KvStore::with_retention(retention),
            sessions: Sessions::new(sessions),
            applied: LogId::ZERO,
        }
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &KvStore {
        &self.store
    }

    /// The sessions.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Applies the command at `index`. Bytes that are no command change nothing and get a reply
    /// that says so.
    ///
    /// # Panics
    /// When `index` is not above that of the command before: a bug of the caller, which would make
    /// replicas differ.
    pub fn apply_command(&mut self, index: Index, payload: &[u8]) -> CommandReply {
        let before = self.applied.index;
        assert!(index > before, "command {index} comes after {before}");
        self.applied.index = index;
        // Decoding copies every key and value out of the payload, which may be a slice of a whole
        // network frame: what is kept below never keeps that alive.
        match kv_api::decode(payload) {
            Ok(command) => self.execute(index, command),
            Err(error) => CommandReply::Refused(CommandError::Malformed(error.to_string())),
        }
    }

    /// Answers a question about the state as it is. Bounded work, whatever is asked.
    #[must_use]
    pub fn answer(&self, query: &Query) -> QueryReply {
        let answered = match query {
            Query::Get { key, revision } => self
                .store
                .get(key, *revision)
                .map(|(found, revision)| QueryReply::Get { found, revision }),
            Query::Scan {
                from,
                to,
                revision,
                limit,
                keys_only,
            } => {
                let range = ScanRange {
                    from: from.clone(),
                    to: to.clone(),
                    limit: *limit,
                    keys_only: *keys_only,
                };
                self.store.scan(&range, *revision).map(QueryReply::Scan)
            }
        };
        answered.unwrap_or_else(QueryReply::Refused)
    }

    /// A hash of the whole logical state, sessions and their replies included: equal on replicas
    /// that applied the same commands. Takes time proportional to the state.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut digest = Digest::new();
        self.store.add_to(&mut digest);
        self.sessions.add_to(&mut digest);
        digest.finish()
    }

    /// The parts of an image of the state as it is, from the first to the last. Costs nothing until
    /// they are asked for; later commands do not move it.
    #[must_use]
    pub fn image(&self) -> KvImage {
        KvImage(ImageParts::new(self.store.clone(), self.sessions.clone()))
    }

    fn execute(&mut self, index: Index, command: Command) -> CommandReply {
        match command {
            Command::OpenSession => CommandReply::SessionOpened(self.sessions.open(index.0)),
            Command::Write { stamp: None, op } => self.store.write(op),
            Command::Write {
                stamp: Some(stamp),
                op,
            } => match self.sessions.admit(index.0, &stamp) {
                Admission::Answer(reply) => reply,
                Admission::Execute => {
                    let reply = self.store.write(op);
                    self.sessions.record(&stamp, reply.clone());
                    reply
                }
            },
            Command::Compact { revision } => self.store.compact(revision),
        }
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
            if command.index() <= self.applied.index {
                return Err(StateMachineError(format!(
                    "command {} was given after {}",
                    command.id, self.applied
                )));
            }
            let reply = self.apply_command(command.index(), &command.payload);
            self.applied = command.id;
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
        let limits = (self.store.retention(), self.sessions.limits());
        let mut writer = ImageRestorer::new(limits.0, limits.1);
        let mut parts = 0_u64;
        loop {
            let part = snapshot.next_part().await;
            let Some(part) = part.map_err(|error| failed(error.to_string()))? else {
                break;
            };
            let pushed = writer.push(&part);
            pushed.map_err(|error| failed(format!("part {parts}: {error}")))?;
            parts += 1;
        }
        let last = descriptor.meta.last;
        let restored = writer.finish(last.index.0);
        let (store, sessions) = restored.map_err(|error| failed(error.to_string()))?;
        *self = Self {
            store,
            sessions,
            applied: last,
        };
        Ok(())
    }

    fn applied(&self) -> LogId {
        self.applied
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
