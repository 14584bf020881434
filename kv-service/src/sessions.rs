//! Client sessions: a write that is sent through one takes effect exactly once, however often and
//! in whatever order its copies come through the log (Raft thesis, section 6.3).
//!
//! Everything here is decided by the log: ids are log indexes, age is counted in log indexes. Knows
//! nothing of what the calls do.

use std::ops::Bound;

use imbl::OrdMap;
use kv_api::limits::{SESSION_REPLIES_MAX, SESSION_WINDOW_MAX, SESSIONS_MAX};
use kv_api::{CommandError, CommandReply, SessionId, SessionStamp};

use crate::digest::Digest;

/// How much is kept. What is evicted follows from it, so it must be the same on every replica: it
/// is a constant of the program, not a setting. Tests and simulations take smaller numbers, for all
/// their replicas alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Sessions; at least 1.
    pub sessions_max: usize,
    /// How far a call may be ahead of the oldest unanswered one of its session.
    pub window_max: u64,
    /// Replies of all sessions together; at least `window_max + 1`, which one session can need.
    pub replies_max: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            sessions_max: SESSIONS_MAX,
            window_max: SESSION_WINDOW_MAX,
            replies_max: SESSION_REPLIES_MAX,
        }
    }
}

/// What is to be done with a stamped call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Execute it, then [`Sessions::record`] its reply.
    Execute,
    /// Answer with this and do not execute it: it was executed before, or may not be.
    Answer(CommandReply),
}

/// All sessions. Cloning is cheap: the containers are persistent.
#[derive(Clone, Debug)]
pub struct Sessions {
    limits: SessionLimits,
    table: OrdMap<SessionId, Session>,
    /// The sessions by their `last_used`. One log entry uses one session, so no two share one.
    by_use: OrdMap<u64, SessionId>,
    /// Replies held by all sessions.
    replies: usize,
}

#[derive(Clone, Debug)]
struct Session {
    /// The index of the last log entry that named it.
    last_used: u64,
    /// Every call below it was answered, and the client knows. Never goes back.
    unanswered_from: u64,
    /// Of the calls from `unanswered_from` on that were executed. They need not be dense: calls may
    /// come in any order.
    replies: OrdMap<u64, CommandReply>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self::new(SessionLimits::default())
    }
}

impl Sessions {
    /// No sessions yet.
    ///
    /// # Panics
    /// When a limit is below the smallest that works.
    #[must_use]
    pub fn new(limits: SessionLimits) -> Self {
        assert!(limits.sessions_max >= 1, "sessions_max of 0");
        assert!(
            limits.replies_max as u64 > limits.window_max,
            "replies_max must hold the window of one session"
        );
        Self {
            limits,
            table: OrdMap::new(),
            by_use: OrdMap::new(),
            replies: 0,
        }
    }

    /// Sessions that are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Replies that are kept, of all sessions together.
    #[must_use]
    pub fn replies(&self) -> usize {
        self.replies
    }

    /// Opens the session that the log entry at `index` asks for. Its id is that index, so no id is
    /// ever given twice.
    pub fn open(&mut self, index: u64) -> SessionId {
        let id = SessionId(index);
        let session = Session {
            last_used: index,
            unanswered_from: 1,
            replies: OrdMap::new(),
        };
        self.table.insert(id, session);
        self.by_use.insert(index, id);
        while self.table.len() > self.limits.sessions_max {
            self.evict_least_recently_used();
        }
        id
    }

    /// Decides what is to be done with the call that the log entry at `index` carries.
    pub fn admit(&mut self, index: u64, stamp: &SessionStamp) -> Admission {
        let refuse = |error| Admission::Answer(CommandReply::Refused(error));
        let Some(session) = self.table.get_mut(&stamp.session) else {
            // Whether a copy of this call was executed before the eviction is not known any more,
            // so it must not be executed now.
            return refuse(CommandError::SessionExpired(stamp.session));
        };
        self.by_use.remove(&session.last_used);
        self.by_use.insert(index, stamp.session);
        session.last_used = index;
        self.replies -= session.acknowledge(stamp.unanswered_from);

        let sequence = stamp.sequence;
        let from = session.unanswered_from;
        let limit = self.limits.window_max;
        if sequence < from {
            return refuse(CommandError::AlreadyAcknowledged { sequence });
        }
        if let Some(reply) = session.replies.get(&sequence) {
            return Admission::Answer(reply.clone());
        }
        if sequence - from > limit {
            return refuse(CommandError::WindowExceeded {
                sequence,
                from,
                limit,
            });
        }
        Admission::Execute
    }

    /// Keeps the reply of a call that was just admitted and executed.
    ///
    /// # Panics
    /// When the call was not admitted: a bug of the caller.
    pub fn record(&mut self, stamp: &SessionStamp, reply: CommandReply) {
        let session = self
            .table
            .get_mut(&stamp.session)
            .expect("the session of an admitted call is open");
        let before = session.replies.insert(stamp.sequence, reply);
        assert!(before.is_none(), "an admitted call has no reply yet");
        self.replies += 1;
        // The one that was just used is the last to go, and fits alone.
        while self.replies > self.limits.replies_max {
            self.evict_least_recently_used();
        }
    }

    pub(crate) fn add_to(&self, digest: &mut Digest) {
        digest.number(self.table.len() as u64);
        for (id, session) in &self.table {
            digest.number(id.0);
            digest.number(session.last_used);
            digest.number(session.unanswered_from);
            digest.number(session.replies.len() as u64);
            for (sequence, reply) in &session.replies {
                digest.number(*sequence);
                digest.bytes(&kv_api::encode(reply));
            }
        }
    }

    fn evict_least_recently_used(&mut self) {
        let id = self.by_use.get_min().map(|(_, id)| *id);
        let id = id.expect("only called while sessions are open");
        let session = self.table.remove(&id);
        let session = session.expect("both maps hold the same sessions");
        self.by_use.remove(&session.last_used);
        self.replies -= session.replies.len();
    }
}

/// A session that was used; see [`Sessions::used_since`].
#[cfg(feature = "rocksdb")]
pub(crate) struct UsedSession<'a> {
    /// Its id.
    pub(crate) id: SessionId,
    /// The index of the last log entry that named it.
    pub(crate) last_used: u64,
    /// Every call below it was answered, and the client knows.
    pub(crate) unanswered_from: u64,
    /// The replies that are kept.
    pub(crate) replies: &'a OrdMap<u64, CommandReply>,
}

#[cfg(feature = "rocksdb")]
impl Sessions {
    /// The sessions that were used since `before`, an older clone of these, and are still there.
    pub(crate) fn used_since(&self, before: &Self) -> impl Iterator<Item = UsedSession<'_>> {
        let behind = (Bound::Excluded(before.last_used()), Bound::Unbounded);
        self.by_use.range(behind).filter_map(|(_, id)| {
            let session = self.table.get(id)?;
            Some(UsedSession {
                id: *id,
                last_used: session.last_used,
                unanswered_from: session.unanswered_from,
                replies: &session.replies,
            })
        })
    }

    /// The sessions of these that are not in `now`, a later state of them, with their replies.
    pub(crate) fn evicted_by<'a>(
        &'a self,
        now: &Self,
    ) -> impl Iterator<Item = (SessionId, &'a OrdMap<u64, CommandReply>)> {
        // Whoever was not used since goes before all that are behind it here.
        let stays = |(used, id): &(&u64, &SessionId)| {
            let session = now.table.get(*id);
            session.is_some_and(|session| session.last_used == **used)
        };
        let candidates = self.by_use.iter().take_while(move |it| !stays(it));
        candidates.filter_map(|(_, id)| {
            let is_gone = !now.table.contains_key(id);
            let session = self.table.get(id).filter(|_| is_gone)?;
            Some((*id, &session.replies))
        })
    }

    /// The kept replies of a session.
    pub(crate) fn replies_of(&self, id: SessionId) -> Option<&OrdMap<u64, CommandReply>> {
        self.table.get(&id).map(|session| &session.replies)
    }
}

/// A piece of all that the sessions are: first one of them, then its replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SessionRecord {
    /// A session; its replies follow.
    Session {
        /// Its id.
        id: SessionId,
        /// The index of the last log entry that named it.
        last_used: u64,
        /// Every call below it was answered, and the client knows.
        unanswered_from: u64,
    },
    /// A reply of the session before, by the number of its call.
    Reply(u64, CommandReply),
}

/// Goes through all sessions: in the order of their ids, the replies of each in the order of their
/// calls.
#[derive(Debug)]
pub(crate) struct SessionRecords {
    sessions: Sessions,
    /// The session that was given last, and the call of it.
    at: Option<(SessionId, Option<u64>)>,
}

impl SessionRecords {
    /// Starts at the first session.
    pub(crate) fn new(sessions: Sessions) -> Self {
        Self { sessions, at: None }
    }

    /// What it goes through.
    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }
}

impl Iterator for SessionRecords {
    type Item = SessionRecord;

    fn next(&mut self) -> Option<SessionRecord> {
        let table = &self.sessions.table;
        if let Some((id, call)) = self.at {
            let behind = call.map_or(Bound::Unbounded, Bound::Excluded);
            let replies = &table.get(&id)?.replies;
            if let Some((sequence, reply)) = replies.range((behind, Bound::Unbounded)).next() {
                self.at = Some((id, Some(*sequence)));
                return Some(SessionRecord::Reply(*sequence, reply.clone()));
            }
        }
        let behind = self
            .at
            .map_or(Bound::Unbounded, |(id, _)| Bound::Excluded(id));
        let (id, session) = table.range((behind, Bound::Unbounded)).next()?;
        self.at = Some((*id, None));
        Some(SessionRecord::Session {
            id: *id,
            last_used: session.last_used,
            unanswered_from: session.unanswered_from,
        })
    }
}

/// Records that no sessions give out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionRecordError {
    /// More than is kept.
    #[error("{what} of {found} are above the limit of {limit}")]
    AboveLimit {
        /// What.
        what: &'static str,
        /// How many.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The numbers contradict each other.
    #[error("session {id} contradicts {what}")]
    Contradiction {
        /// Which session.
        id: u64,
        /// What does not fit.
        what: &'static str,
    },
    /// A reply before any session.
    #[error("a reply belongs to no session")]
    NoSession,
}

impl Sessions {
    /// Takes back the next record of a [`SessionRecords`]. What was there before must have come
    /// from it too.
    pub(crate) fn push(&mut self, record: SessionRecord) -> Result<(), SessionRecordError> {
        let newest = self.table.get_max().map(|(id, _)| *id);
        match record {
            SessionRecord::Session {
                id,
                last_used,
                unanswered_from,
            } => {
                let contradiction =
                    |what| Err(SessionRecordError::Contradiction { id: id.0, what });
                if newest.is_some_and(|newest| newest >= id) || id.0 == 0 {
                    return contradiction("the order of sessions");
                }
                if last_used < id.0 || self.by_use.contains_key(&last_used) {
                    return contradiction("the order of their uses");
                }
                if unanswered_from == 0 {
                    return contradiction("the first number of a call");
                }
                let session = Session {
                    last_used,
                    unanswered_from,
                    replies: OrdMap::new(),
                };
                self.table.insert(id, session);
                self.by_use.insert(last_used, id);
                within("sessions", self.table.len(), self.limits.sessions_max)
            }
            SessionRecord::Reply(sequence, reply) => {
                let id = newest.ok_or(SessionRecordError::NoSession)?;
                let session = self.table.get_mut(&id);
                let session = session.ok_or(SessionRecordError::NoSession)?;
                let contradiction =
                    |what| Err(SessionRecordError::Contradiction { id: id.0, what });
                let before = session.replies.get_max().map(|(sequence, _)| *sequence);
                if before.is_some_and(|before| before >= sequence) {
                    return contradiction("the order of calls");
                }
                let ahead = sequence.checked_sub(session.unanswered_from);
                if ahead.is_none_or(|ahead| ahead > self.limits.window_max) {
                    return contradiction("the window of its calls");
                }
                session.replies.insert(sequence, reply);
                self.replies += 1;
                within("kept replies", self.replies, self.limits.replies_max)
            }
        }
    }

    /// How much is kept.
    pub(crate) fn limits(&self) -> SessionLimits {
        self.limits
    }

    /// The newest log entry that used one; 0 where there is none.
    pub(crate) fn last_used(&self) -> u64 {
        self.by_use.get_max().map_or(0, |(index, _)| *index)
    }
}

fn within(what: &'static str, found: usize, limit: usize) -> Result<(), SessionRecordError> {
    if found <= limit {
        return Ok(());
    }
    let (found, limit) = (found as u64, limit as u64);
    Err(SessionRecordError::AboveLimit { what, found, limit })
}

impl Session {
    /// Forgets the replies of calls below `from`; says how many.
    fn acknowledge(&mut self, from: u64) -> usize {
        if from <= self.unanswered_from {
            return 0;
        }
        self.unanswered_from = from;
        let before = self.replies.len();
        while let Some(sequence) = self.replies.get_min().map(|(sequence, _)| *sequence)
            && sequence < from
        {
            self.replies.remove(&sequence);
        }
        before - self.replies.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(session: SessionId, sequence: u64, unanswered_from: u64) -> SessionStamp {
        SessionStamp {
            session,
            sequence,
            unanswered_from,
        }
    }

    fn reply(revision: u64) -> CommandReply {
        CommandReply::Compacted { oldest: revision }
    }

    /// Sends a call through the log: the reply is the index at which it was executed.
    fn call(sessions: &mut Sessions, index: u64, stamp: SessionStamp) -> CommandReply {
        match sessions.admit(index, &stamp) {
            Admission::Execute => {
                sessions.record(&stamp, reply(index));
                reply(index)
            }
            Admission::Answer(reply) => reply,
        }
    }

    fn small(sessions_max: usize, window_max: u64, replies_max: usize) -> Sessions {
        Sessions::new(SessionLimits {
            sessions_max,
            window_max,
            replies_max,
        })
    }

    #[test]
    fn a_call_is_executed_once_in_whatever_order_its_copies_come() {
        let mut sessions = Sessions::default();
        let id = sessions.open(1);
        // Pipelined, out of order, with gaps, each copied later.
        for (index, sequence) in [(2, 3), (3, 1), (4, 7), (5, 2)] {
            assert_eq!(
                call(&mut sessions, index, stamp(id, sequence, 1)),
                reply(index)
            );
        }
        for (index, sequence, executed_at) in [(6, 7, 4), (7, 1, 3), (8, 3, 2), (9, 2, 5)] {
            let answer = call(&mut sessions, index, stamp(id, sequence, 1));
            assert_eq!(answer, reply(executed_at), "call {sequence}");
        }
        assert_eq!(sessions.replies(), 4);
    }

    #[test]
    fn acknowledged_replies_are_dropped_and_their_calls_refused() {
        let mut sessions = Sessions::default();
        let id = sessions.open(1);
        for sequence in 1..=5 {
            call(&mut sessions, 1 + sequence, stamp(id, sequence, 1));
        }
        assert_eq!(call(&mut sessions, 10, stamp(id, 6, 4)), reply(10));
        assert_eq!(sessions.replies(), 3);
        let refused =
            |sequence| CommandReply::Refused(CommandError::AlreadyAcknowledged { sequence });
        // A late copy says what the client knew when it was sent; that takes nothing back.
        assert_eq!(call(&mut sessions, 11, stamp(id, 3, 1)), refused(3));
        assert_eq!(call(&mut sessions, 12, stamp(id, 0, 0)), refused(0));
        assert_eq!(call(&mut sessions, 13, stamp(id, 4, 1)), reply(5));
        assert_eq!(call(&mut sessions, 14, stamp(id, 2, 9)), refused(2));
        assert_eq!(sessions.replies(), 0);
        assert_eq!(call(&mut sessions, 15, stamp(id, 6, 1)), refused(6));
    }

    #[test]
    fn a_call_outside_the_window_is_not_executed_until_it_is_inside() {
        let mut sessions = Sessions::default();
        let id = sessions.open(1);
        let last = 1 + SESSION_WINDOW_MAX;
        assert_eq!(call(&mut sessions, 2, stamp(id, last, 1)), reply(2));
        for sequence in [last + 1, u64::MAX] {
            let refused = CommandError::WindowExceeded {
                sequence,
                from: 1,
                limit: SESSION_WINDOW_MAX,
            };
            let answer = call(&mut sessions, 3 + sequence % 2, stamp(id, sequence, 1));
            assert_eq!(answer, CommandReply::Refused(refused));
        }
        assert_eq!(sessions.replies(), 1);
        assert_eq!(call(&mut sessions, 5, stamp(id, last + 1, 2)), reply(5));
        // A stamp at the end of the numbers is as good as any other.
        let answer = call(&mut sessions, 6, stamp(id, u64::MAX, u64::MAX));
        assert_eq!(answer, reply(6));
        assert_eq!(sessions.replies(), 1);
    }

    #[test]
    fn the_least_recently_used_session_goes_first_and_never_executes_again() {
        let mut sessions = small(3, 10, 100);
        let ids: Vec<SessionId> = (1..=3).map(|index| sessions.open(index)).collect();
        assert_eq!(call(&mut sessions, 4, stamp(ids[0], 1, 1)), reply(4));
        // A copy is a use as well.
        assert_eq!(call(&mut sessions, 5, stamp(ids[1], 1, 1)), reply(5));
        assert_eq!(call(&mut sessions, 6, stamp(ids[0], 1, 1)), reply(4));
        let new = sessions.open(7);
        let expired = |id| CommandReply::Refused(CommandError::SessionExpired(id));
        assert_eq!(call(&mut sessions, 8, stamp(ids[2], 1, 1)), expired(ids[2]));
        sessions.open(9);
        assert_eq!(
            call(&mut sessions, 10, stamp(ids[1], 1, 1)),
            expired(ids[1])
        );
        assert_eq!(call(&mut sessions, 11, stamp(ids[0], 1, 1)), reply(4));
        assert_eq!(call(&mut sessions, 12, stamp(new, 1, 1)), reply(12));
        let unknown = SessionId(1_000);
        assert_eq!(
            call(&mut sessions, 13, stamp(unknown, 1, 1)),
            expired(unknown)
        );
        assert_eq!((sessions.len(), sessions.replies()), (3, 2));
    }

    #[test]
    fn replies_are_bounded_over_all_sessions() {
        let mut sessions = small(10, 4, 8);
        let first = sessions.open(1);
        let second = sessions.open(2);
        for sequence in 1..=4 {
            call(&mut sessions, 2 + sequence, stamp(first, sequence, 1));
            call(&mut sessions, 10 + sequence, stamp(second, sequence, 1));
        }
        assert_eq!((sessions.len(), sessions.replies()), (2, 8));
        call(&mut sessions, 20, stamp(second, 5, 1));
        assert_eq!((sessions.len(), sessions.replies()), (1, 5));
        let answer = call(&mut sessions, 21, stamp(first, 5, 1));
        assert_eq!(
            answer,
            CommandReply::Refused(CommandError::SessionExpired(first))
        );
    }

    #[test]
    fn the_table_keeps_to_its_limit() {
        let mut sessions = Sessions::default();
        for index in 1..=SESSIONS_MAX as u64 + 10 {
            sessions.open(index);
        }
        assert_eq!(sessions.len(), SESSIONS_MAX);
        assert_eq!(sessions.by_use.len(), SESSIONS_MAX);
        assert_eq!(sessions.table.get_min().map(|(id, _)| id.0), Some(11));
    }
}
