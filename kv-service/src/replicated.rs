//! What is replicated, wherever its keys are kept: the store and the sessions, one command after
//! the other. Joins the two; decides nothing that they can decide.

use kv_api::{Command, CommandError, CommandReply, Query, QueryReply};
use raft_core::{Index, LogId};

use crate::digest::Digest;
use crate::sessions::{Admission, Sessions};
use crate::store::live::Live;
use crate::store::{KvStore, ScanRange};

/// The state, and the last command that is part of it.
#[derive(Clone, Debug)]
pub(crate) struct Replicated<L> {
    pub(crate) store: KvStore<L>,
    pub(crate) sessions: Sessions,
    pub(crate) applied: LogId,
}

impl<L: Live> Replicated<L> {
    /// Applies the command at `index`. Bytes that are no command change nothing and get a reply
    /// that says so.
    ///
    /// # Panics
    /// When `index` is not above that of the command before: a bug of the caller, which would make
    /// replicas differ.
    pub(crate) fn apply_command(
        &mut self,
        index: Index,
        payload: &[u8],
    ) -> Result<CommandReply, L::Error> {
        let before = self.applied.index;
        assert!(index > before, "command {index} comes after {before}");
        self.applied.index = index;
        // Decoding copies every key and value out of the payload, which may be a slice of a whole
        // network frame: what is kept below never keeps that alive.
        match kv_api::decode(payload) {
            Ok(command) => self.execute(index, command),
            Err(error) => {
                let malformed = CommandError::Malformed(error.to_string());
                Ok(CommandReply::Refused(malformed))
            }
        }
    }

    /// Answers a question about the state as it is. Bounded work, whatever is asked.
    pub(crate) fn answer(&self, query: &Query) -> Result<QueryReply, L::Error> {
        let answered = match query {
            Query::Get { key, revision } => {
                let found = self.store.try_get(key, *revision)?;
                found.map(|(found, revision)| QueryReply::Get { found, revision })
            }
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
                self.store
                    .try_scan(&range, *revision)?
                    .map(QueryReply::Scan)
            }
        };
        Ok(answered.unwrap_or_else(QueryReply::Refused))
    }

    /// A hash of the whole logical state, sessions and their replies included: equal on replicas
    /// that applied the same commands. Takes time proportional to the state.
    pub(crate) fn digest(&self) -> Result<u64, L::Error> {
        let mut digest = Digest::new();
        self.store.add_to(&mut digest)?;
        self.sessions.add_to(&mut digest);
        Ok(digest.finish())
    }

    fn execute(&mut self, index: Index, command: Command) -> Result<CommandReply, L::Error> {
        Ok(match command {
            Command::OpenSession => CommandReply::SessionOpened(self.sessions.open(index.0)),
            Command::Write { stamp: None, op } => self.store.try_write(op)?,
            Command::Write {
                stamp: Some(stamp),
                op,
            } => match self.sessions.admit(index.0, &stamp) {
                Admission::Answer(reply) => reply,
                Admission::Execute => {
                    let reply = self.store.try_write(op)?;
                    self.sessions.record(&stamp, reply.clone());
                    reply
                }
            },
            Command::Compact { revision } => self.store.compact(revision),
        })
    }
}
