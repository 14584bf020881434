//! Writes a history down while it happens. Many clients share one recorder behind a lock; the times
//! are theirs, so it does not matter in which order they get the lock.

use std::collections::BTreeMap;

use crate::event::{Event, EventKind, Header, Op, Reply};
use crate::operation::{History, HistoryError, Location};

/// A logical client: a thread of operations, one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// An operation that was invoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpId(pub u64);

/// Collects events. All times must come from one clock: the invocation's from before the request
/// leaves, the completion's from after the answer came.
#[derive(Debug, Default)]
pub struct Recorder {
    header: Header,
    events: Vec<Event>,
    clients: u64,
    operations: u64,
    /// The operations without a completion.
    open: BTreeMap<u64, Open>,
    /// The clients that are not retired.
    active: BTreeMap<u64, Activity>,
}

#[derive(Debug)]
struct Open {
    client: u64,
    invoked: u64,
    op: Op,
}

#[derive(Clone, Copy, Debug)]
enum Activity {
    /// Free since this time.
    Idle(u64),
    /// Waits for this operation.
    Waiting(u64),
}

impl Recorder {
    /// An empty history of this run.
    #[must_use]
    pub fn new(header: Header) -> Self {
        Self {
            header,
            ..Self::default()
        }
    }

    /// A new logical client.
    pub fn client(&mut self) -> ClientId {
        self.clients += 1;
        self.active.insert(self.clients, Activity::Idle(0));
        ClientId(self.clients)
    }

    /// An operation begins.
    ///
    /// # Errors
    /// When the client is unknown or retired, still waits for another operation, or goes back in
    /// time.
    pub fn invoke(&mut self, client: ClientId, t: u64, op: Op) -> Result<OpId, HistoryError> {
        let id = self.operations + 1;
        let what = match self.active.get(&client.0) {
            Some(Activity::Idle(since)) if *since <= t => None,
            Some(Activity::Idle(since)) => {
                Some(format!("client {} was busy until {since}", client.0))
            }
            Some(Activity::Waiting(other)) => {
                Some(format!("client {} still waits for op {other}", client.0))
            }
            None => Some(format!("client {} is unknown or retired", client.0)),
        };
        if let Some(what) = what {
            return Err(self.misplaced(EventKind::Invoke, id, what));
        }
        self.operations = id;
        self.active.insert(client.0, Activity::Waiting(id));
        let mut event = event(id, client.0, EventKind::Invoke, t);
        event.op = Some(op.clone());
        self.events.push(event);
        let (client, invoked) = (client.0, t);
        self.open.insert(
            id,
            Open {
                client,
                invoked,
                op,
            },
        );
        Ok(OpId(id))
    }

    /// The operation took effect, with this answer. A write says where in the log, if `witness` is
    /// to judge it.
    ///
    /// # Errors
    /// When it ended before, `t` is before its invocation, or the answer is one to something else.
    pub fn ok(
        &mut self,
        op: OpId,
        t: u64,
        reply: Reply,
        location: Option<Location>,
    ) -> Result<(), HistoryError> {
        if let Some(open) = self.open.get(&op.0)
            && !reply.answers(&open.op)
        {
            let what = format!("\"{reply}\" is no answer to {}", open.op);
            return Err(self.misplaced(EventKind::Ok, op.0, what));
        }
        let client = self.close(op, EventKind::Ok, t)?;
        self.active.insert(client, Activity::Idle(t));
        let mut event = event(op.0, client, EventKind::Ok, t);
        event.res = Some(reply);
        event.term = location.map(|location| location.term);
        event.index = location.map(|location| location.index);
        self.events.push(event);
        Ok(())
    }

    /// The operation certainly took no effect. The client may go on.
    ///
    /// # Errors
    /// When it ended before, or `t` is before its invocation.
    pub fn fail(&mut self, op: OpId, t: u64) -> Result<(), HistoryError> {
        let client = self.close(op, EventKind::Fail, t)?;
        self.active.insert(client, Activity::Idle(t));
        self.events.push(event(op.0, client, EventKind::Fail, t));
        Ok(())
    }

    /// The operation may or may not take effect, now or later. Its client is retired; whoever was
    /// behind it goes on as the client that is returned.
    ///
    /// # Errors
    /// As [`Recorder::fail`].
    pub fn info(&mut self, op: OpId, t: u64) -> Result<ClientId, HistoryError> {
        let client = self.close(op, EventKind::Info, t)?;
        self.active.remove(&client);
        self.events.push(event(op.0, client, EventKind::Info, t));
        Ok(self.client())
    }

    /// The history so far, in the order of time. Operations without an end stay open.
    ///
    /// # Panics
    /// Never: every event was checked when it came.
    #[must_use]
    pub fn finish(mut self) -> History {
        // Stable, so what one client did at one moment stays in the order in which it did it.
        self.events.sort_by_key(|event| event.t);
        History::new(self.header, self.events).expect("every event was checked when it came")
    }

    fn close(&mut self, op: OpId, kind: EventKind, t: u64) -> Result<u64, HistoryError> {
        let what = match self.open.get(&op.0) {
            None => "it is not open".to_owned(),
            Some(open) if t < open.invoked => {
                format!("it ends at {t} and began at {}", open.invoked)
            }
            Some(open) => {
                let client = open.client;
                self.open.remove(&op.0);
                return Ok(client);
            }
        };
        Err(self.misplaced(kind, op.0, what))
    }

    fn misplaced(&self, kind: EventKind, id: u64, what: String) -> HistoryError {
        let line = self.events.len() + 2;
        HistoryError::Misplaced {
            line,
            kind,
            id,
            what,
        }
    }
}

fn event(id: u64, client: u64, kind: EventKind, t: u64) -> Event {
    Event {
        id,
        client,
        kind,
        t,
        op: None,
        res: None,
        term: None,
        index: None,
        node: None,
        session: None,
        seq: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::Completion;

    fn written(version: u64) -> Reply {
        let value_bytes = 1;
        Reply::Written {
            version,
            value_bytes,
        }
    }

    #[test]
    fn events_come_out_in_the_order_of_time() {
        let mut recorder = Recorder::new(Header::default());
        let (first, second) = (recorder.client(), recorder.client());
        let late = recorder.invoke(first, 50, Op::get("k")).unwrap();
        let early = recorder.invoke(second, 10, Op::put("k", "v")).unwrap();
        recorder.ok(late, 60, Reply::Absent, None).unwrap();
        recorder.ok(early, 20, written(1), None).unwrap();
        let again = recorder.invoke(second, 20, Op::get("k")).unwrap();
        recorder.fail(again, 20).unwrap();
        let history = recorder.finish();
        let times: Vec<u64> = history.events().iter().map(|event| event.t).collect();
        assert_eq!(times, [10, 20, 20, 20, 50, 60]);
        assert_eq!(History::parse(&history.to_ndjson()).unwrap(), history);
    }

    #[test]
    fn an_unknown_outcome_retires_the_client() {
        let mut recorder = Recorder::new(Header::default());
        let client = recorder.client();
        let op = recorder.invoke(client, 1, Op::put("k", "v")).unwrap();
        let next = recorder.info(op, 2).unwrap();
        assert!(recorder.invoke(client, 3, Op::get("k")).is_err());
        assert!(recorder.invoke(next, 3, Op::get("k")).is_ok());
        let history = recorder.finish();
        assert_eq!(history.operations()[0].completion, Completion::Unknown);
    }

    #[test]
    fn what_contradicts_itself_is_refused_and_not_recorded() {
        let mut recorder = Recorder::new(Header::default());
        let client = recorder.client();
        let op = recorder.invoke(client, 5, Op::put("k", "v")).unwrap();
        assert!(recorder.invoke(client, 6, Op::get("k")).is_err());
        assert!(recorder.ok(op, 4, written(1), None).is_err());
        assert!(recorder.ok(op, 6, Reply::Absent, None).is_err());
        recorder.ok(op, 6, written(1), None).unwrap();
        assert!(recorder.ok(op, 7, written(1), None).is_err());
        assert!(recorder.invoke(client, 5, Op::get("k")).is_err());
        assert_eq!(recorder.finish().events().len(), 2);
    }
}
