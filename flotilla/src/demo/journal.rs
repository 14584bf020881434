//! What the clients of the demo did and were told: the history for the judges, every acknowledged
//! write, and how long nobody was acknowledged anything.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use history::{ClientId, Header, History, HistoryError, Location, Op, OpId, Recorder, Reply};

use crate::exit::Failure;

/// A client as the histories know it. After an unknown outcome it goes on as another one.
#[derive(Debug)]
pub(super) struct Seat {
    seen: ClientId,
    placed: ClientId,
}

/// An operation that has no answer yet.
#[derive(Debug)]
pub(super) struct Begun {
    seen: OpId,
    placed: OpId,
}

/// How an operation ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// It was answered. A write says where in the log it stands, where that is certain.
    Answered(Reply, Option<Location>),
    /// It certainly did nothing.
    Failed,
    /// It may or may not have taken effect.
    Unknown,
}

/// Everything that was written down.
#[derive(Debug)]
pub(super) struct Journal {
    began: Instant,
    /// What clients saw; for the search.
    seen: Recorder,
    /// The same, but a write that was sent twice counts as unanswered: of its two log entries, the
    /// answer names the one that it came from, and the other may have taken effect.
    placed: Recorder,
    /// Keys that are written once, and their values, as far as acknowledged.
    ledger: BTreeMap<Bytes, Bytes>,
    acknowledged: u64,
    last: Option<Instant>,
    longest_pause: Duration,
    /// From the kill of each leader to the next acknowledged write.
    failovers: Vec<Duration>,
    lost: Option<u64>,
}

/// What is left when everything was written down.
pub(super) struct Record {
    /// What clients saw.
    pub(super) seen: History,
    /// The same with certain places in the log only.
    pub(super) placed: History,
    /// Writes that were acknowledged.
    pub(super) acknowledged: u64,
    /// Acknowledged writes that were gone at the end.
    pub(super) lost: u64,
    /// The longest time between two acknowledged writes of any clients.
    pub(super) longest_pause: Duration,
    /// From the kill of each leader to the next acknowledged write.
    pub(super) failovers: Vec<Duration>,
}

impl Journal {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            seen: Recorder::new(Header::default()),
            placed: Recorder::new(Header::default()),
            ledger: BTreeMap::new(),
            acknowledged: 0,
            last: None,
            longest_pause: Duration::ZERO,
            failovers: Vec::new(),
            lost: None,
        }
    }

    /// A further client.
    pub(super) fn seat(&mut self) -> Seat {
        Seat {
            seen: self.seen.client(),
            placed: self.placed.client(),
        }
    }

    /// An operation is about to be sent.
    pub(super) fn begin(&mut self, seat: &Seat, at: Instant, op: &Op) -> Result<Begun, Failure> {
        let t = self.time(at);
        let seen = self.seen.invoke(seat.seen, t, op.clone());
        let placed = self.placed.invoke(seat.placed, t, op.clone());
        Ok(Begun {
            seen: seen.map_err(contradiction)?,
            placed: placed.map_err(contradiction)?,
        })
    }

    /// An operation ended.
    pub(super) fn end(
        &mut self,
        seat: &mut Seat,
        begun: &Begun,
        at: Instant,
        end: End,
    ) -> Result<(), Failure> {
        self.record(seat, begun, self.time(at), end)
            .map_err(contradiction)
    }

    fn record(
        &mut self,
        seat: &mut Seat,
        begun: &Begun,
        t: u64,
        end: End,
    ) -> Result<(), HistoryError> {
        let (reply, location) = match end {
            End::Answered(reply, location) => (reply, location),
            End::Failed => {
                self.seen.fail(begun.seen, t)?;
                return self.placed.fail(begun.placed, t);
            }
            End::Unknown => {
                seat.seen = self.seen.info(begun.seen, t)?;
                seat.placed = self.placed.info(begun.placed, t)?;
                return Ok(());
            }
        };
        let is_read = matches!(reply, Reply::Found { .. } | Reply::Absent);
        self.seen.ok(begun.seen, t, reply.clone(), location)?;
        if is_read || location.is_some() {
            self.placed.ok(begun.placed, t, reply, location)
        } else {
            seat.placed = self.placed.info(begun.placed, t)?;
            Ok(())
        }
    }

    /// A write was acknowledged.
    pub(super) fn acknowledge(&mut self, at: Instant) {
        self.acknowledged += 1;
        if let Some(last) = self.last {
            self.longest_pause = self.longest_pause.max(at.saturating_duration_since(last));
        }
        self.last = self.last.max(Some(at));
    }

    /// A write that nobody overwrites was acknowledged, so it must be there at the end.
    pub(super) fn enter(&mut self, key: Bytes, value: Bytes) {
        self.ledger.insert(key, value);
    }

    /// A leader was killed, and writes went on after so long.
    pub(super) fn failed_over(&mut self, after: Duration) {
        self.failovers.push(after);
    }

    /// When a write was acknowledged last.
    pub(super) fn last_acknowledged(&self) -> Option<Instant> {
        self.last
    }

    /// Compares what must be there with what is.
    pub(super) fn compare(&mut self, found: &BTreeMap<Bytes, Bytes>) {
        let is_lost = |(key, value): &(&Bytes, &Bytes)| found.get(*key) != Some(*value);
        self.lost = Some(self.ledger.iter().filter(is_lost).count() as u64);
    }

    /// Ends the writing down. What was never compared counts as lost.
    pub(super) fn finish(self) -> Record {
        Record {
            seen: self.seen.finish(),
            placed: self.placed.finish(),
            acknowledged: self.acknowledged,
            lost: self.lost.unwrap_or(self.ledger.len() as u64),
            longest_pause: self.longest_pause,
            failovers: self.failovers,
        }
    }

    fn time(&self, at: Instant) -> u64 {
        let nanoseconds = at.saturating_duration_since(self.began).as_nanos();
        u64::try_from(nanoseconds).unwrap_or(u64::MAX)
    }
}

/// The demo wrote down something impossible: a bug of the demo.
fn contradiction(error: HistoryError) -> Failure {
    Failure::stopped(format!("the demo contradicts itself: {error}"))
}

#[cfg(test)]
mod tests {
    use history::Completion;

    use super::*;

    const WRITTEN: Reply = Reply::Written {
        version: 1,
        value_bytes: 1,
    };

    #[test]
    fn a_write_that_was_sent_twice_has_no_certain_place() {
        let mut journal = Journal::new();
        let mut seat = journal.seat();
        let at = Instant::now();
        let begun = journal.begin(&seat, at, &Op::put("k", "v")).expect("new");
        let end = End::Answered(WRITTEN, None);
        journal.end(&mut seat, &begun, at, end).expect("begun");
        let begun = journal.begin(&seat, at, &Op::get("k")).expect("next");
        let end = End::Answered(Reply::Absent, None);
        journal.end(&mut seat, &begun, at, end).expect("begun");
        let record = journal.finish();
        let seen = &record.seen.operations()[0].completion;
        assert!(matches!(seen, Completion::Ok { .. }));
        let placed = record.placed.operations();
        assert_eq!(placed[0].completion, Completion::Unknown);
        assert!(matches!(placed[1].completion, Completion::Ok { .. }));
    }

    #[test]
    fn what_is_gone_at_the_end_is_lost() {
        let mut journal = Journal::new();
        for key in ["a", "b", "c"] {
            journal.enter(key.into(), "1".into());
        }
        let found = [("a".into(), "1".into()), ("b".into(), "2".into())];
        journal.compare(&BTreeMap::from(found));
        assert_eq!(journal.finish().lost, 2);
    }

    #[test]
    fn the_longest_pause_is_between_any_two() {
        let mut journal = Journal::new();
        let began = Instant::now();
        for millis in [5, 10, 40, 30, 45] {
            journal.acknowledge(began + Duration::from_millis(millis));
        }
        let record = journal.finish();
        assert_eq!(record.longest_pause, Duration::from_millis(30));
        assert_eq!(record.acknowledged, 5);
    }
}
