//! Short ways to write histories down. Every operation has a client of its own.

use history::{
    Completion, Event, EventKind, Expect, Header, History, Location, Op, Operation, Reply,
};

/// An operation that was answered.
pub(crate) fn ok(from: u64, to: u64, op: Op, reply: Reply) -> Operation {
    let (at, location) = (to, None);
    let completion = Completion::Ok {
        at,
        reply,
        location,
    };
    operation(from, op, completion)
}

/// A write that was answered and stands at this index, in term 1.
pub(crate) fn at(index: u64, from: u64, to: u64, op: Op, reply: Reply) -> Operation {
    let location = Some(Location { index, term: 1 });
    let completion = Completion::Ok {
        at: to,
        reply,
        location,
    };
    operation(from, op, completion)
}

/// An operation whose outcome nobody knows.
pub(crate) fn unknown(from: u64, op: Op) -> Operation {
    operation(from, op, Completion::Unknown)
}

/// An operation that had no effect.
pub(crate) fn failed(from: u64, op: Op) -> Operation {
    operation(from, op, Completion::Fail)
}

fn operation(invoked: u64, op: Op, completion: Completion) -> Operation {
    Operation {
        id: 0,
        client: 0,
        op,
        invoked,
        completion,
    }
}

pub(crate) fn written(version: u64, value_bytes: u64) -> Reply {
    Reply::Written {
        version,
        value_bytes,
    }
}

pub(crate) fn found(value: &str, version: u64) -> Reply {
    Reply::Found {
        value: value.into(),
        version,
    }
}

pub(crate) fn put(value: &str) -> Op {
    Op::put("k", value)
}

pub(crate) fn append(value: &str) -> Op {
    Op::append("k", value)
}

pub(crate) fn get() -> Op {
    Op::get("k")
}

pub(crate) fn delete() -> Op {
    Op::delete("k")
}

pub(crate) fn cas(expect: &str, value: &str) -> Op {
    Op::cas("k", Expect::Value(expect.into()), value)
}

/// Numbers the operations from 1, in this order, and makes a history of them.
pub(crate) fn history(operations: impl IntoIterator<Item = Operation>) -> History {
    let mut events = Vec::new();
    for (id, operation) in (1..).zip(operations) {
        let mut invoke = event(id, EventKind::Invoke, operation.invoked);
        invoke.op = Some(operation.op);
        events.push(invoke);
        events.push(match operation.completion {
            Completion::Ok {
                at,
                reply,
                location,
            } => {
                let mut event = event(id, EventKind::Ok, at);
                event.res = Some(reply);
                event.term = location.map(|location| location.term);
                event.index = location.map(|location| location.index);
                event
            }
            Completion::Fail => event(id, EventKind::Fail, operation.invoked),
            Completion::Unknown => event(id, EventKind::Info, operation.invoked),
        });
    }
    History::new(Header::default(), events).expect("the events fit together")
}

fn event(id: u64, kind: EventKind, t: u64) -> Event {
    Event {
        id,
        client: id,
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
