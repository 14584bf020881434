//! The client's session: its id, the numbers of its calls, and which of them are unanswered. No IO.
//!
//! A number is handed out only while it is less than [`SESSION_WINDOW_MAX`] ahead of the oldest
//! unanswered one, so the service never has to refuse a call for being too far ahead.

use std::collections::VecDeque;

use kv_api::limits::SESSION_WINDOW_MAX;
use kv_api::{SessionId, SessionStamp};

/// Where the session stands.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// None is open, and none was asked for.
    Closed,
    /// One was asked for.
    Opening,
    /// This one is open.
    Open(SessionId),
}

/// The session of one client process.
#[derive(Debug)]
pub(crate) struct Session {
    state: State,
    /// The oldest unanswered call; also the next number where all are answered.
    unanswered_from: u64,
    /// For each number handed out, from `unanswered_from`, whether it was answered.
    answered: VecDeque<bool>,
    /// Somebody was turned away and waits for a change.
    awaited: bool,
    /// The newest refusal to open a session, with its number, from 1.
    refusal: Option<(u64, String)>,
}

impl Session {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Closed,
            unanswered_from: 1,
            answered: VecDeque::new(),
            awaited: false,
            refusal: None,
        }
    }

    /// Numbers a call, where a session is open and its window has room.
    pub(crate) fn stamp(&mut self) -> Option<SessionStamp> {
        let State::Open(session) = self.state else {
            self.awaited = true;
            return None;
        };
        let ahead = self.answered.len() as u64;
        if ahead >= SESSION_WINDOW_MAX {
            self.awaited = true;
            return None;
        }
        self.answered.push_back(false);
        Some(SessionStamp {
            session,
            sequence: self.unanswered_from + ahead,
            unanswered_from: self.unanswered_from,
        })
    }

    /// Whether a session has to be asked for; if so, it counts as asked for from now on.
    pub(crate) fn begin_opening(&mut self) -> bool {
        let closed = self.state == State::Closed;
        if closed {
            self.state = State::Opening;
        }
        closed
    }

    /// The service opened a session.
    pub(crate) fn opened(&mut self, id: SessionId) {
        self.state = State::Open(id);
        self.unanswered_from = 1;
        self.answered.clear();
    }

    /// No session came of the request; the next call asks again.
    pub(crate) fn opening_failed(&mut self) {
        if self.state == State::Opening {
            self.state = State::Closed;
        }
    }

    /// The service refused to open a session: who waits for one is to be told.
    pub(crate) fn opening_refused(&mut self, why: String) {
        self.opening_failed();
        let number = self.refusals() + 1;
        self.refusal = Some((number, why));
    }

    /// How often a session was refused.
    pub(crate) fn refusals(&self) -> u64 {
        self.refusal.as_ref().map_or(0, |(number, _)| *number)
    }

    /// Why it was refused the last time.
    pub(crate) fn refusal(&self) -> &str {
        self.refusal.as_ref().map_or("", |(_, why)| why)
    }

    /// The service knows this session no more. Repeating it, or saying so of an older one, is
    /// harmless.
    pub(crate) fn expired(&mut self, id: SessionId) {
        if self.state == State::Open(id) {
            self.state = State::Closed;
        }
    }

    /// The call has its final answer, or nobody waits for one any more.
    pub(crate) fn release(&mut self, stamp: SessionStamp) {
        if self.state != State::Open(stamp.session) {
            return;
        }
        let Some(offset) = stamp.sequence.checked_sub(self.unanswered_from) else {
            return;
        };
        if let Some(answered) = self.answered.get_mut(offset as usize) {
            *answered = true;
        }
        while self.answered.front() == Some(&true) {
            self.answered.pop_front();
            self.unanswered_from += 1;
        }
    }

    /// Whether somebody who was turned away should try again; says so once.
    pub(crate) fn take_awaited(&mut self) -> bool {
        let has_room = (self.answered.len() as u64) < SESSION_WINDOW_MAX;
        let may_go_on = match self.state {
            State::Closed => true,
            State::Opening => false,
            State::Open(_) => has_room,
        };
        may_go_on && std::mem::take(&mut self.awaited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> Session {
        let mut session = Session::new();
        assert!(session.begin_opening());
        session.opened(SessionId(7));
        session
    }

    #[test]
    fn it_is_opened_once_however_many_wait() {
        let mut session = Session::new();
        assert_eq!(session.stamp(), None);
        assert!(session.begin_opening());
        assert!(!session.begin_opening());
        assert!(!session.take_awaited());
        session.opened(SessionId(7));
        assert!(session.take_awaited());
        assert!(!session.take_awaited());
        let stamp = session.stamp().expect("open");
        assert_eq!(
            (stamp.session, stamp.sequence, stamp.unanswered_from),
            (SessionId(7), 1, 1)
        );
    }

    #[test]
    fn the_oldest_unanswered_call_holds_the_window() {
        let mut session = open();
        let first = session.stamp().expect("room");
        let mut newest = first;
        for _ in 1..SESSION_WINDOW_MAX {
            newest = session.stamp().expect("room");
        }
        assert_eq!(newest.sequence, SESSION_WINDOW_MAX);
        assert_eq!(session.stamp(), None);
        session.release(newest);
        assert!(!session.take_awaited(), "the oldest is still unanswered");
        assert_eq!(session.stamp(), None);
        session.release(first);
        assert!(session.take_awaited());
        let next = session.stamp().expect("room");
        assert_eq!(next.sequence, SESSION_WINDOW_MAX + 1);
        assert_eq!(next.unanswered_from, 2);
    }

    #[test]
    fn answers_out_of_order_move_the_window_when_the_gap_closes() {
        let mut session = open();
        let stamps: Vec<SessionStamp> = (0..4).filter_map(|_| session.stamp()).collect();
        session.release(stamps[1]);
        session.release(stamps[2]);
        assert_eq!(session.unanswered_from, 1);
        session.release(stamps[0]);
        assert_eq!(session.unanswered_from, 4);
        session.release(stamps[0]);
        assert_eq!(session.unanswered_from, 4, "released before");
    }

    #[test]
    fn an_expired_session_starts_anew_and_old_answers_do_not_touch_it() {
        let mut session = open();
        let old = session.stamp().expect("open");
        session.expired(SessionId(6));
        assert!(session.stamp().is_some(), "another session expired");
        session.expired(SessionId(7));
        assert_eq!(session.stamp(), None);
        assert!(session.begin_opening());
        session.opened(SessionId(8));
        let new = session.stamp().expect("open");
        assert_eq!((new.session, new.sequence), (SessionId(8), 1));
        session.release(old);
        assert_eq!(session.unanswered_from, 1);
    }

    #[test]
    fn a_refusal_is_counted_and_told() {
        let mut session = Session::new();
        session.stamp();
        session.begin_opening();
        session.opening_refused("no more sessions".to_owned());
        assert_eq!(
            (session.refusals(), session.refusal()),
            (1, "no more sessions")
        );
        assert!(session.take_awaited());
        assert!(session.begin_opening());
    }
}
