//! What the commands of a batch changed, as changes of the database.
//!
//! History and sessions are in memory, in persistent maps: what they were before the batch costs
//! nothing to keep, and the difference is found without looking at what is the same.

use imbl::ordmap::DiffItem;
use raft_storage::rocks_state::StateBatch;

use super::live::DiskLive;
use super::records::{self, DELETED, HISTORY, SESSION, SUMMARY_KEY, Summary};
use crate::replicated::Replicated;
use crate::sessions::{SessionRecord, SessionRecords, Sessions};
use crate::store::history::History;

/// What is not in the database itself, as it was before a batch.
#[derive(Debug)]
pub(super) struct Before {
    history: History,
    sessions: Sessions,
}

impl Before {
    /// The state as it is, before commands are applied to it.
    pub(super) fn of(state: &Replicated<DiskLive>) -> Self {
        Self {
            history: state.store.history().clone(),
            sessions: state.sessions.clone(),
        }
    }

    /// The changes since then. `state` is from now on as the database will be.
    pub(super) fn changes(&self, state: &mut Replicated<DiskLive>) -> StateBatch {
        let mut batch = StateBatch::new();
        history_changes(&self.history, state, &mut batch);
        session_changes(&self.sessions, &state.sessions, &mut batch);
        state.store.live_mut().take_changes(&mut batch);
        batch.put(SUMMARY_KEY, &summary(state).encode());
        batch
    }
}

/// Everything but the keys themselves, for a database that has nothing else yet.
pub(super) fn all(state: &mut Replicated<DiskLive>) -> StateBatch {
    let mut batch = StateBatch::new();
    let empty = History::new(state.store.retention());
    history_changes(&empty, state, &mut batch);
    let mut id = None;
    for record in SessionRecords::new(state.sessions.clone()) {
        match record {
            SessionRecord::Session {
                id: session,
                last_used,
                unanswered_from,
            } => {
                id = Some(session);
                put_session(&mut batch, session.0, last_used, unanswered_from);
            }
            SessionRecord::Reply(call, reply) => {
                let id = id.expect("a session comes before its replies");
                batch.put(&records::of_reply(id, call), &kv_api::encode(&reply));
            }
        }
    }
    state.store.live_mut().take_changes(&mut batch);
    batch.put(SUMMARY_KEY, &summary(state).encode());
    batch
}

fn summary(state: &Replicated<DiskLive>) -> Summary {
    let store = &state.store;
    let first = store.history().iter().next();
    Summary {
        revision: store.revision(),
        oldest: store.oldest(),
        live: store.live_len(),
        history_from: first.map_or(0, |first| first.end),
        history: store.history_len() as u64,
        deleted: store.history().deleted_keys().len() as u64,
        sessions_open: state.sessions.len() as u64,
        replies: state.sessions.replies() as u64,
        retention: store.retention(),
        sessions: state.sessions.limits(),
    }
}

fn history_changes(before: &History, state: &mut Replicated<DiskLive>, batch: &mut StateBatch) {
    let now = state.store.history().clone();
    for gone in now.dropped_since(before) {
        batch.delete(&records::of_number(HISTORY, gone.end));
    }
    for come in now.added_since(before) {
        let value = records::encode_superseded(come);
        batch.put(&records::of_number(HISTORY, come.end), &value);
    }
    for change in before.deleted_keys().diff(now.deleted_keys()) {
        match change {
            DiffItem::Add(key, place)
            | DiffItem::Update {
                new: (key, place), ..
            } => {
                let end = now.held(*place).map_or(0, |it| it.end);
                batch.put(&records::of_key(DELETED, key), &end.to_le_bytes());
            }
            DiffItem::Remove(key, _) => batch.delete(&records::of_key(DELETED, key)),
        }
    }
    let gone = now.dropped_since(before).map(|gone| &gone.key);
    state.store.live_mut().forget(&now, gone);
}

fn session_changes(before: &Sessions, now: &Sessions, batch: &mut StateBatch) {
    for (id, replies) in before.evicted_by(now) {
        batch.delete(&records::of_number(SESSION, id.0));
        for call in replies.keys() {
            batch.delete(&records::of_reply(id, *call));
        }
    }
    let none = imbl::OrdMap::new();
    for used in now.used_since(before) {
        put_session(batch, used.id.0, used.last_used, used.unanswered_from);
        let replies = before.replies_of(used.id).unwrap_or(&none);
        for change in replies.diff(used.replies) {
            match change {
                DiffItem::Add(call, reply)
                | DiffItem::Update {
                    new: (call, reply), ..
                } => {
                    batch.put(&records::of_reply(used.id, *call), &kv_api::encode(reply));
                }
                DiffItem::Remove(call, _) => batch.delete(&records::of_reply(used.id, *call)),
            }
        }
    }
}

fn put_session(batch: &mut StateBatch, id: u64, last_used: u64, unanswered_from: u64) {
    let mut value = Vec::with_capacity(16);
    records::put_numbers(&mut value, &[last_used, unanswered_from]);
    batch.put(&records::of_number(SESSION, id), &value);
}
