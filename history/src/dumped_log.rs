//! The judge that has the whole log: what was dumped from a node after a run, when no operation was
//! on its way any more. Nothing is left to guess, so there is no search and no budget.
//!
//! 1. The log is one: indexes rise, terms never fall.
//! 2. Every entry is a write that somebody asked for, unchanged. An operation that was sent several
//!    times may stand there several times; it takes effect at the first of its entries.
//! 3. Every acknowledged write stands there, where its answer says; no failed one does. A write
//!    without an answer took effect if it stands there, and never otherwise.
//! 4. The order of the log respects real time.
//! 5. Replaying it gives every answer that a write was given.
//! 6. Every read has a place in the log that gives its answer, and no read has a place before that
//!    of a read that had ended when it began, on whatever key. `witness` and `linearizability` look
//!    at one key at a time and cannot see that.

use std::collections::BTreeMap;

use crate::event::{ByteString, Event, EventKind, Op, Reply};
use crate::operation::{Completion, History, Location, Operation};
use crate::timeline::{RealTime, Timeline, place_reads};
use crate::witness::{WitnessError, boxed, check_real_time};

/// A write as it stands in the log. What is not a write by a client is to be left out, and so is
/// what the state machine refused to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedWrite {
    /// Where.
    pub location: Location,
    /// The number of the operation in the history. Whoever dumps a log knows whose entry is whose:
    /// by the session and the number of the call in it, or by values that are written once only.
    pub operation: u64,
    /// What it does.
    pub op: Op,
}

/// Judges a history by the log that was dumped after it.
///
/// # Errors
/// The first contradiction.
pub fn check(history: &History, log: &[LoggedWrite]) -> Result<(), WitnessError> {
    let order = effective_order(history, log)?;
    check_real_time(&order)?;
    let timelines = replay(&order)?;
    let untouched = Timeline::replay(Vec::new())?;
    let mut reads: Vec<&Operation> = answered_reads(history).collect();
    reads.sort_by_key(|read| read.invoked);
    let reads = reads
        .into_iter()
        .map(|read| (read, timelines.get(read.op.key()).unwrap_or(&untouched)));
    Ok(place_reads(reads, &RealTime::new(&order))?)
}

/// The history as it would be if every client had learnt what the log knows, so that a search has
/// less to guess. A write without an answer
/// - failed, if the log does not have it;
/// - ended with the answer that the log gives when somebody first saw its effect, if somebody did;
/// - stays open otherwise.
///
/// Whether the log is right is what [`check`] says.
///
/// # Errors
/// When the log is not one of this history, or answers a write in another way.
///
/// # Panics
/// Never: what is closed was open, so nothing comes behind it.
pub fn resolve(history: &History, log: &[LoggedWrite]) -> Result<History, WitnessError> {
    let order = effective_order(history, log)?;
    let timelines = replay(&order)?;
    let observed = first_observations(history, &order, &timelines);
    let mut ended: BTreeMap<u64, (u64, Reply)> = BTreeMap::new();
    for (rank, write, reply) in timelines.values().flat_map(Timeline::answers) {
        ended.insert(write.id, (observed[rank], reply));
    }
    let mut events = history.events().to_vec();
    let closing: BTreeMap<u64, usize> = (0..)
        .zip(&events)
        .filter(|(_, event)| event.kind != EventKind::Invoke)
        .map(|(position, event)| (event.id, position))
        .collect();
    for operation in history.operations() {
        if operation.completion != Completion::Unknown || !operation.op.is_write() {
            continue;
        }
        let Some(end) = settled(operation, ended.get(&operation.id)) else {
            continue;
        };
        match closing.get(&operation.id) {
            Some(position) => events[*position] = end,
            None => events.push(end),
        }
    }
    // A client whose operation was open did nothing afterwards, so any end that is not before its
    // beginning fits.
    let resolved = History::new(history.header().clone(), events);
    Ok(resolved.expect("nothing comes behind an end that was open"))
}

/// How an unanswered write ended, where that is known now.
fn settled(operation: &Operation, logged: Option<&(u64, Reply)>) -> Option<Event> {
    let (kind, t, res) = match logged {
        None => (EventKind::Fail, operation.invoked, None),
        // Seen before it began: that is for the judges to find, so nothing is made up here.
        Some((at, _)) if *at == u64::MAX || *at < operation.invoked => return None,
        Some((at, reply)) => (EventKind::Ok, *at, Some(reply.clone())),
    };
    Some(Event {
        id: operation.id,
        client: operation.client,
        kind,
        t,
        op: None,
        res,
        term: None,
        index: None,
        node: None,
        session: None,
        seq: None,
    })
}

/// For each write in the order of the log, when it had certainly taken effect: when a write behind
/// it was answered, or a read that can only stand behind it. `u64::MAX` where that never happened.
fn first_observations(
    history: &History,
    order: &[&Operation],
    timelines: &BTreeMap<&ByteString, Timeline<'_>>,
) -> Vec<u64> {
    let answered = |write: &&Operation| write.answered().unwrap_or(u64::MAX);
    let mut observed: Vec<u64> = order.iter().map(answered).collect();
    for read in answered_reads(history) {
        let timeline = timelines.get(read.op.key());
        let place = timeline.and_then(|timeline| timeline.find(read, 0, usize::MAX));
        if let (Some(last), Some(at)) = (place.and_then(|p| p.checked_sub(1)), read.answered()) {
            observed[last] = observed[last].min(at);
        }
    }
    let mut earliest = u64::MAX;
    for at in observed.iter_mut().rev() {
        earliest = earliest.min(*at);
        *at = earliest;
    }
    observed
}

fn answered_reads(history: &History) -> impl Iterator<Item = &Operation> {
    let is_one = |operation: &&Operation| !operation.op.is_write() && operation.reply().is_some();
    history.operations().iter().filter(is_one)
}

/// The writes that took effect, in the order in which they did.
fn effective_order<'a>(
    history: &'a History,
    log: &[LoggedWrite],
) -> Result<Vec<&'a Operation>, WitnessError> {
    check_log_order(log)?;
    let by_id: BTreeMap<u64, &Operation> = history
        .operations()
        .iter()
        .map(|operation| (operation.id, operation))
        .collect();
    let mut places: BTreeMap<u64, Vec<Location>> = BTreeMap::new();
    let mut order = Vec::new();
    for entry in log {
        let operation = asked_for(entry, &by_id)?;
        let entries = places.entry(entry.operation).or_default();
        if entries.is_empty() {
            order.push(operation);
        }
        entries.push(entry.location);
    }
    for operation in history.operations() {
        check_presence(operation, places.get(&operation.id))?;
    }
    Ok(order)
}

fn check_log_order(log: &[LoggedWrite]) -> Result<(), WitnessError> {
    for (before, after) in log.iter().zip(log.iter().skip(1)) {
        let (before, after) = (before.location, after.location);
        if after.index <= before.index || after.term < before.term {
            return Err(WitnessError::LogOrder { before, after });
        }
    }
    Ok(())
}

fn asked_for<'a>(
    entry: &LoggedWrite,
    by_id: &BTreeMap<u64, &'a Operation>,
) -> Result<&'a Operation, WitnessError> {
    let (location, op) = (entry.location, Box::new(entry.op.clone()));
    let Some(operation) = by_id.get(&entry.operation).copied() else {
        let id = entry.operation;
        return Err(WitnessError::NobodyAsked { location, id, op });
    };
    if operation.op != entry.op || !entry.op.is_write() {
        let operation = boxed(operation);
        return Err(WitnessError::AnotherOp {
            location,
            op,
            operation,
        });
    }
    Ok(operation)
}

fn check_presence(
    operation: &Operation,
    places: Option<&Vec<Location>>,
) -> Result<(), WitnessError> {
    let first = places.and_then(|places| places.first().copied());
    match (&operation.completion, first) {
        (Completion::Ok { .. }, None) if operation.op.is_write() => {
            Err(WitnessError::NotInLog(boxed(operation)))
        }
        (
            Completion::Ok {
                location: Some(told),
                ..
            },
            Some(location),
        ) if !places.is_some_and(|places| places.contains(told)) => {
            let operation = boxed(operation);
            Err(WitnessError::OtherPlace {
                operation,
                location,
            })
        }
        (Completion::Fail, Some(location)) => {
            let operation = boxed(operation);
            Err(WitnessError::FailedInLog {
                operation,
                location,
            })
        }
        _ => Ok(()),
    }
}

fn replay<'a>(
    order: &[&'a Operation],
) -> Result<BTreeMap<&'a ByteString, Timeline<'a>>, WitnessError> {
    let mut by_key: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (rank, operation) in order.iter().enumerate() {
        by_key
            .entry(operation.op.key())
            .or_default()
            .push((rank, *operation));
    }
    let mut timelines = BTreeMap::new();
    for (key, writes) in by_key {
        timelines.insert(key, Timeline::replay(writes)?);
    }
    Ok(timelines)
}
