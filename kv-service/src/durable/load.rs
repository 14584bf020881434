//! A state as the database has it: what is kept in memory is read, and all of it can be checked.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use kv_api::{CommandReply, SessionId, limits};
use raft_core::{LogId, StorageError};
use raft_storage::rocks_state::StateView;

use super::live::DiskLive;
use super::records::{self, DELETED, HISTORY, LIVE, REPLY, SESSION, SUMMARY_KEY, Summary, VALUE};
use crate::image::REVISION_MAX;
use crate::replicated::Replicated;
use crate::sessions::{SessionLimits, SessionRecord, Sessions};
use crate::store::history::History;
use crate::store::live::Live;
use crate::store::version::Version;
use crate::store::{KvStore, Retention};

/// Reads what is kept in memory: the history and the sessions, both bounded.
///
/// # Errors
/// `Damaged` when something contradicts itself, `Foreign` when it was kept with other limits.
pub(super) fn load(
    view: &Arc<StateView>,
    applied: LogId,
    retention: Retention,
    limits: SessionLimits,
) -> Result<Replicated<DiskLive>, StorageError> {
    let reading = Reading { view };
    let Some(value) = view.get(SUMMARY_KEY)? else {
        // Nothing was ever applied, though the log may have entries that are no commands.
        if view.range(b"", Bound::Unbounded, true).next().is_some() {
            return Err(reading.damaged("its summary is missing"));
        }
        return Ok(Replicated {
            store: KvStore::over(DiskLive::new(Arc::clone(view), 0), retention),
            sessions: Sessions::new(limits),
            applied,
        });
    };
    let summary = Summary::decode(&value);
    let summary = summary.ok_or_else(|| reading.damaged("its summary cannot be read"))?;
    if (summary.retention, summary.sessions) != (retention, limits) {
        let found = format!("{:?}, {:?}", summary.retention, summary.sessions);
        return Err(StorageError::Foreign {
            path: view.path().display().to_string(),
            what: format!("was kept with other limits than this program has: {found}"),
        });
    }
    let mut live = DiskLive::new(Arc::clone(view), summary.live);
    let history = reading.history(&summary, &mut live)?;
    let sessions = reading.sessions(limits)?;
    let found = (sessions.len() as u64, sessions.replies() as u64);
    if found != (summary.sessions_open, summary.replies) {
        let (open, replies) = found;
        let (announced, kept) = (summary.sessions_open, summary.replies);
        return Err(reading.damaged(format!(
            "{open} sessions with {replies} answers instead of {announced} with {kept}"
        )));
    }
    if sessions.last_used() > applied.index.0 {
        let used = sessions.last_used();
        let what = format!("a session was used by entry {used}, but it is of {applied}");
        return Err(reading.damaged(what));
    }
    Ok(Replicated {
        store: KvStore::with_history(summary.revision, live, history),
        sessions,
        applied,
    })
}

/// Reads all keys and values, and checks them. Takes time proportional to the state.
///
/// # Errors
/// `Damaged` when something contradicts itself or cannot be read.
pub(super) fn check_keys(
    view: &Arc<StateView>,
    state: &Replicated<DiskLive>,
) -> Result<(), StorageError> {
    let reading = Reading { view };
    let newest = state.store.revision();
    let mut apart = view.range(&[VALUE], Bound::Unbounded, true);
    let mut count = 0_u64;
    for found in view.range(&[LIVE], Bound::Unbounded, true) {
        let (name, value) = found?;
        let key = name.get(1..).unwrap_or_default();
        let wrong = || reading.damaged(format!("key {:?} is damaged", Bytes::copy_from_slice(key)));
        let (version, length) = records::decode_live(&value).ok_or_else(wrong)?;
        limits::check_key(key).map_err(|_| wrong())?;
        if !is_possible(&version, newest) {
            return Err(wrong());
        }
        if let Some(length) = length {
            let (name, value) = apart.next().transpose()?.ok_or_else(wrong)?;
            limits::check_value(&value).map_err(|_| wrong())?;
            if name.get(1..) != Some(key) || value.len() != length as usize {
                return Err(wrong());
            }
        }
        count += 1;
    }
    if apart.next().transpose()?.is_some() {
        return Err(reading.damaged("there is a value without a key"));
    }
    let announced = state.store.live_len();
    if count == announced {
        return Ok(());
    }
    Err(reading.damaged(format!("there are {count} keys instead of {announced}")))
}

/// What can be said of a version alone.
fn is_possible(version: &Version, newest: u64) -> bool {
    let (create, modified) = (version.create_revision, version.mod_revision);
    let writes = version.version;
    let in_order = create > 0 && create <= modified && modified <= newest;
    in_order
        && writes > 0
        && writes - 1 <= modified - create
        && (writes == 1) == (create == modified)
}

/// Makes errors that name the database.
struct Reading<'a> {
    view: &'a StateView,
}

impl Reading<'_> {
    fn damaged(&self, what: impl Into<String>) -> StorageError {
        StorageError::Damaged {
            path: self.view.path().display().to_string(),
            offset: 0,
            what: what.into(),
        }
    }

    /// The history; and which of its versions is the one before the newest of each key goes into
    /// `live`.
    fn history(&self, summary: &Summary, live: &mut DiskLive) -> Result<History, StorageError> {
        let (oldest, newest) = (summary.oldest, summary.revision);
        let mut versions = Vec::new();
        let mut bytes = 0;
        let first = records::of_number(HISTORY, summary.history_from);
        let from = Bound::Included(&first[..]);
        for found in self.view.range(&[HISTORY], from, true) {
            let (name, value) = found?;
            let end = records::number_in(&name);
            let read = end.zip(records::decode_superseded(&value));
            let (end, (key, version, deleted)) =
                read.ok_or_else(|| self.damaged("its history cannot be read"))?;
            if version.mod_revision >= end || end > newest || !is_possible(&version, newest) {
                let what = format!("the version that ended at {end} contradicts itself");
                return Err(self.damaged(what));
            }
            bytes += key.len() + version.value.len();
            versions.push((key, version, end, deleted));
            let retention = summary.retention;
            if versions.len() > retention.revisions_max || bytes > retention.bytes_max {
                return Err(self.damaged("there is more history than is kept"));
            }
        }
        let held = versions.len() as u64;
        if held != summary.history {
            let announced = summary.history;
            let what = format!("its history has {held} versions instead of {announced}");
            return Err(self.damaged(what));
        }
        if newest > REVISION_MAX {
            let what = format!("revision {newest} is above the limit of {REVISION_MAX}");
            return Err(self.damaged(what));
        }
        if oldest > newest {
            return Err(self.damaged(format!("revision {oldest} is above the newest, {newest}")));
        }
        let deleted = self.deleted()?;
        let (mut history, last) =
            History::restored(summary.retention, oldest, versions.into_iter());
        for (key, place) in last {
            let end = history.held(place).map(|last| last.end);
            if deleted.contains_key(&key) && deleted.get(&key).copied() == end {
                continue;
            }
            // Either replaced, or deleted and created again.
            live.link(&key, place);
            history.restored_live(&key);
        }
        let found = [history.deleted_keys().len(), deleted.len()];
        if found.map(|count| count as u64) == [summary.deleted; 2] {
            return Ok(history);
        }
        Err(self.damaged("what was deleted is not in the history"))
    }

    /// Keys that are not there now but were, and the revisions that deleted them.
    fn deleted(&self) -> Result<BTreeMap<Bytes, u64>, StorageError> {
        let mut deleted = BTreeMap::new();
        for found in self.view.range(&[DELETED], Bound::Unbounded, true) {
            let (name, value) = found?;
            let key = Bytes::copy_from_slice(name.get(1..).unwrap_or_default());
            let end = <[u8; 8]>::try_from(&value[..]).ok();
            let end = end.ok_or_else(|| self.damaged("a deletion cannot be read"))?;
            deleted.insert(key, u64::from_le_bytes(end));
        }
        Ok(deleted)
    }

    fn sessions(&self, limits: SessionLimits) -> Result<Sessions, StorageError> {
        let wrong = |what: String| self.damaged(format!("sessions: {what}"));
        let mut sessions = Sessions::new(limits);
        let mut replies = self.view.range(&[REPLY], Bound::Unbounded, true).peekable();
        for found in self.view.range(&[SESSION], Bound::Unbounded, true) {
            let (name, value) = found?;
            let mut rest = &value[..];
            let mut number = || records::take_number(&mut rest);
            let read = records::number_in(&name).zip(number().zip(number()));
            let (id, (last_used, unanswered_from)) =
                read.ok_or_else(|| wrong("one cannot be read".to_owned()))?;
            let record = SessionRecord::Session {
                id: SessionId(id),
                last_used,
                unanswered_from,
            };
            sessions
                .push(record)
                .map_err(|error| wrong(error.to_string()))?;
            let is_its = |found: &Result<(Vec<u8>, Vec<u8>), StorageError>| {
                let name = found.as_ref().map(|(name, _)| records::reply_in(name));
                !matches!(name, Ok(Some((session, _))) if session != id)
            };
            while let Some(found) = replies.next_if(is_its) {
                let (name, value) = found?;
                let call = records::reply_in(&name).map(|(_, call)| call);
                let reply: Option<CommandReply> = kv_api::decode(&value).ok();
                let (call, reply) = call
                    .zip(reply)
                    .ok_or_else(|| wrong("an answer cannot be read".to_owned()))?;
                let pushed = sessions.push(SessionRecord::Reply(call, reply));
                pushed.map_err(|error| wrong(error.to_string()))?;
            }
        }
        match replies.next().transpose()? {
            None => Ok(sessions),
            Some(_) => Err(wrong("an answer belongs to no session".to_owned())),
        }
    }
}
