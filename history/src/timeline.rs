//! The states that keys had along an order of writes, and where in that order reads fit. Whose
//! order it is and what is wrong when nothing fits is said in `witness` and `dumped_log`.
//!
//! Place `p` of an order is behind its first `p` writes.

use std::collections::BTreeMap;

use crate::event::Reply;
use crate::model::Register;
use crate::operation::Operation;

/// States that a message about a read shows.
const SHOWN_STATES_MAX: usize = 4;

/// What real time says about the places of an order. Writes without an answer bound nothing that
/// comes behind them.
pub(crate) struct RealTime {
    /// For each write, the latest invocation among it and those before it.
    latest_invocation: Vec<u64>,
    /// For each write, the earliest answer among it and those behind it.
    earliest_answer: Vec<u64>,
}

impl RealTime {
    pub(crate) fn new(writes: &[&Operation]) -> Self {
        let grow = |latest: &mut u64, write: &&Operation| {
            *latest = (*latest).max(write.invoked);
            Some(*latest)
        };
        let latest_invocation = writes.iter().scan(0, grow).collect();
        let shrink = |earliest: &mut u64, write: &&Operation| {
            *earliest = (*earliest).min(write.answered().unwrap_or(u64::MAX));
            Some(*earliest)
        };
        let mut earliest_answer: Vec<u64> = writes.iter().rev().scan(u64::MAX, shrink).collect();
        earliest_answer.reverse();
        Self {
            latest_invocation,
            earliest_answer,
        }
    }

    /// Behind every write that had been answered when the read began.
    fn first_place(&self, read: &Operation) -> usize {
        self.earliest_answer
            .partition_point(|answer| *answer < read.invoked)
    }

    /// Before every write that began after the read was answered.
    fn last_place(&self, read: &Operation) -> usize {
        let answered = read.answered().unwrap_or(u64::MAX);
        self.latest_invocation
            .partition_point(|invoked| *invoked <= answered)
    }
}

/// A write whose answer is not what the order makes of it.
pub(crate) struct WrongReply<'a> {
    pub(crate) operation: &'a Operation,
    pub(crate) before: Register,
    pub(crate) expected: Reply,
}

/// A read that fits nowhere.
pub(crate) struct Misfit<'a> {
    pub(crate) read: &'a Operation,
    pub(crate) choices: String,
}

/// The states of one key.
pub(crate) struct Timeline<'a> {
    /// The writes of the key, each with its number in the order, which may have those of other keys
    /// between them.
    writes: Vec<(usize, &'a Operation)>,
    /// Before the first write and after each.
    states: Vec<Register>,
    /// The positions among `states` at which the key had a version, by that version.
    by_version: BTreeMap<u64, Vec<usize>>,
}

impl<'a> Timeline<'a> {
    /// Replays the writes of a key; their numbers rise. A write without an answer takes effect
    /// where it stands, with whatever answer.
    pub(crate) fn replay(writes: Vec<(usize, &'a Operation)>) -> Result<Self, WrongReply<'a>> {
        let mut states = vec![Register::default()];
        for (_, operation) in &writes {
            let before = &states[states.len() - 1];
            let (after, expected) = before.apply(&operation.op);
            if operation.reply().is_some_and(|reply| *reply != expected) {
                let before = before.clone();
                return Err(WrongReply {
                    operation,
                    before,
                    expected,
                });
            }
            states.push(after);
        }
        let mut by_version: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (position, state) in states.iter().enumerate() {
            by_version
                .entry(state.version())
                .or_default()
                .push(position);
        }
        Ok(Self {
            writes,
            states,
            by_version,
        })
    }

    /// The writes with what the order answers them.
    pub(crate) fn answers(&self) -> impl Iterator<Item = (usize, &'a Operation, Reply)> + '_ {
        let answer = |((rank, write), state): (&(usize, &'a Operation), &Register)| {
            (*rank, *write, state.apply(&write.op).1)
        };
        self.writes.iter().zip(&self.states).map(answer)
    }

    /// The earliest place between two where a read would be answered as it was.
    pub(crate) fn find(&self, read: &Operation, first: usize, last: usize) -> Option<usize> {
        let version = match read.reply() {
            Some(Reply::Found { version, .. }) => *version,
            _ => 0,
        };
        let positions = self.by_version.get(&version)?;
        let current = self.position_at(first);
        let from = positions.partition_point(|position| *position < current);
        positions[from..]
            .iter()
            .map(|position| (*position, self.begin(*position).max(first)))
            .take_while(|(_, place)| *place <= last)
            .find(|(position, _)| Some(&self.states[*position].apply(&read.op).1) == read.reply())
            .map(|(_, place)| place)
    }

    /// Which of its states the key has at a place.
    fn position_at(&self, place: usize) -> usize {
        self.writes.partition_point(|(rank, _)| *rank < place)
    }

    /// The first place at which the key has a state.
    fn begin(&self, position: usize) -> usize {
        let write = position.checked_sub(1).map(|write| self.writes[write].0);
        write.map_or(0, |rank| rank + 1)
    }

    fn describe(&self, first: usize, last: usize) -> String {
        if first > last {
            return "a read before it had seen a later state".to_owned();
        }
        let (first, last) = (self.position_at(first), self.position_at(last));
        let mut text = String::from("the key held ");
        for (count, position) in (first..=last).enumerate() {
            let separator = if count == 0 { "" } else { ", then " };
            if count == SHOWN_STATES_MAX {
                text.push_str(&format!("{separator}{} more", last - position + 1));
                break;
            }
            text.push_str(&format!("{separator}{}", self.states[position]));
            if let Some(write) = position.checked_sub(1) {
                text.push_str(&format!(" (by op {})", self.writes[write].1.id));
            }
        }
        text
    }
}

/// Gives each read, in the order of their invocations, the earliest place that it can have.
/// Earliest is best: a place only ever forbids earlier ones to reads that began after it had ended.
pub(crate) fn place_reads<'a, 'b>(
    reads: impl IntoIterator<Item = (&'a Operation, &'b Timeline<'b>)>,
    real_time: &RealTime,
) -> Result<(), Misfit<'a>> {
    // Reads that were placed, by the time of their answer: the latest place up to then.
    let mut floors: BTreeMap<u64, usize> = BTreeMap::new();
    for (read, timeline) in reads {
        let seen = floors
            .range(..read.invoked)
            .next_back()
            .map_or(0, |(_, place)| *place);
        let first = real_time.first_place(read).max(seen);
        let last = real_time.last_place(read);
        let place = timeline.find(read, first, last).ok_or_else(|| {
            let choices = timeline.describe(first, last);
            Misfit { read, choices }
        })?;
        let answered = read.answered().unwrap_or(read.invoked);
        raise_floor(&mut floors, answered, place);
    }
    Ok(())
}

/// Keeps the floors growing with time, so that the newest before a moment is the highest.
fn raise_floor(floors: &mut BTreeMap<u64, usize>, at: u64, place: usize) {
    let before = floors
        .range(..=at)
        .next_back()
        .map_or(0, |(_, place)| *place);
    if before >= place {
        return;
    }
    let covered: Vec<u64> = floors
        .range(at..)
        .take_while(|(_, later)| **later <= place)
        .map(|(at, _)| *at)
        .collect();
    for at in covered {
        floors.remove(&at);
    }
    floors.insert(at, place);
}
