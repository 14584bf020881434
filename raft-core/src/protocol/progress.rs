//! One follower as the leader sees it. All transitions are in this file:
//!
//! ```text
//!                    accepted, or a hint that is in our log
//!          +-------+ ---------------------------------------> +-----------+
//!   new -> | Probe |                                          | Replicate |
//!          +-------+ <--------------------------------------- +-----------+
//!           |  ^  ^          lost, stalled, rejected            |  ^   |
//!           |  |  |                                             |  |   +--> accepted: window moves
//!           |  +--+ rejected: jump by the hint; straight to     |  |
//!           |     | Replicate where the hint names an entry     |  |
//!           |     | that both have                              |  |
//!           |     |                                             |  |
//!           |     | transfer ended    +----------+              |  |
//!           |     +------------------ | Snapshot | -------------+--+ accepted what is in our log,
//!           +-----------------------> |          | <------------+    whoever sent it
//!              what comes next was    +----------+
//!              compacted
//! ```
//!
//! Probe: one append without payload is on its way, to find where the logs part. Replicate: entries
//! are streamed, `next` runs ahead of `matched` within a window. Snapshot: what it needs is not in
//! the log any more, and our snapshot is on its way. However that ends, a probe behind the snapshot
//! finds out what came of it. `matched` is a fact that came from an acknowledgement; `next` is a
//! guess.

use std::collections::VecDeque;

use crate::message::Conflict;
use crate::protocol::log::Log;
use crate::types::{Incarnation, Index, LogId, NodeId, Term};

#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) id: NodeId,
    /// The life of its disk that `matched` is about.
    pub(crate) incarnation: Incarnation,
    /// The follower's log is the leader's up to here, on its disk. Never falls within a term, but
    /// to nothing when the follower says that its disk lost entries.
    matched: Index,
    /// The next entry to send.
    next: Index,
    /// Where probing resumes after a loss: behind what is matched, or what a hint promised.
    resume: Index,
    state: State,
    /// It said something since the leader last checked its quorum.
    pub(crate) active: bool,
    /// The leader's tick at which it last said something.
    pub(crate) heard_at: u64,
    /// The newest read round that it confirmed.
    pub(crate) round: u64,
    /// Old entries are being read for it.
    pub(crate) loading: bool,
    /// It lost entries that it may have acknowledged; until it answers this read round or a later
    /// one as a whole node, what it says only steers what it is sent.
    refilling: Option<u64>,
    /// While it refills: what it holds, and the leader's tick since which it holds as much.
    held: (Index, u64),
    /// Its disk is short of room: commands would be sent in vain.
    is_short_of_room: bool,
}

#[derive(Debug)]
enum State {
    /// `sent_at`: the leader's tick at which the probe left; none when one may be sent.
    Probe { sent_at: Option<u64> },
    Replicate {
        inflight: VecDeque<Inflight>,
        bytes: usize,
        moved_at: u64,
    },
    /// `last`: the last entry of the snapshot.
    Snapshot { last: Index },
}

/// An append that is not answered yet.
#[derive(Debug)]
struct Inflight {
    base: Index,
    last: Index,
    bytes: usize,
}

impl Progress {
    /// A follower of a new leader. Those who voted have said where they stand, and the rest will
    /// say so any moment: the first probe waits until a vote is overdue, because it would only be
    /// rejected.
    pub(crate) fn new(id: NodeId, incarnation: Incarnation, next: Index) -> Self {
        Self {
            id,
            incarnation,
            matched: Index(0),
            next,
            resume: next,
            state: State::Probe { sent_at: Some(0) },
            active: true,
            heard_at: 0,
            round: 0,
            loading: false,
            refilling: None,
            held: (Index(0), 0),
            is_short_of_room: false,
        }
    }

    /// A member that was added while the leader led: nothing is known of it, so it is asked.
    pub(crate) fn added(id: NodeId, incarnation: Incarnation, next: Index, now: u64) -> Self {
        Self {
            state: State::Probe { sent_at: None },
            heard_at: now,
            ..Self::new(id, incarnation, next)
        }
    }

    /// It said something.
    pub(crate) fn heard(&mut self, now: u64) {
        self.active = true;
        self.heard_at = now;
    }

    /// Whether it said something within so many ticks.
    pub(crate) fn is_alive(&self, now: u64, patience: u64) -> bool {
        now <= self.heard_at.saturating_add(patience)
    }

    /// Whether what it needs next was compacted, so that only a snapshot helps.
    pub(crate) fn wants_snapshot(&self, log: &Log) -> bool {
        let is_waiting = matches!(self.state, State::Probe { sent_at: Some(_) });
        self.next.previous() < log.start().index && !is_waiting && !self.is_in_snapshot()
    }

    pub(crate) fn is_in_snapshot(&self) -> bool {
        matches!(self.state, State::Snapshot { .. })
    }

    pub(crate) fn snapshot_begun(&mut self, last: Index) {
        self.loading = false;
        self.state = State::Snapshot { last };
    }

    /// A transfer ended, delivered or not. The answer of the receiver may be lost, or it may have
    /// had more already: a probe behind the snapshot tells.
    pub(crate) fn snapshot_ended(&mut self, now: u64) {
        if let State::Snapshot { last } = self.state {
            self.probe_from(last.next());
            self.probe_sent(now);
        }
    }

    /// The entries behind this one are still needed for it.
    pub(crate) fn needs_behind(&self) -> Index {
        match self.state {
            State::Snapshot { last } => last,
            _ if self.is_refilling() => self.resume.previous(),
            _ => self.matched,
        }
    }

    /// Entries were compacted. What was to be read of them will not come.
    pub(crate) fn compacted(&mut self, start: Index) {
        if self.next.previous() < start {
            self.loading = false;
        }
    }

    pub(crate) fn matched(&self) -> Index {
        self.matched
    }

    pub(crate) fn next(&self) -> Index {
        self.next
    }

    /// Uses what the follower said of its last entry when it voted: where that entry is ours too,
    /// nothing needs to be probed; otherwise probing starts below the run that is known to differ.
    pub(crate) fn hint(&mut self, last: LogId, log: &Log, now: u64) {
        let fresh = matches!(self.state, State::Probe { .. }) && self.matched == Index(0);
        if !fresh {
            return;
        }
        if log.contains(last) {
            self.replicate_from(last.index.next(), now);
        } else {
            // At its last index we have another entry, so the logs part below.
            let base = log.newest_within(last.index.previous(), last.term);
            self.probe_from(base.index.next());
        }
    }

    /// Whether a probe may leave now.
    pub(crate) fn wants_probe(&self) -> bool {
        matches!(self.state, State::Probe { sent_at: None })
    }

    pub(crate) fn probe_sent(&mut self, now: u64) {
        if let State::Probe { sent_at } = &mut self.state {
            *sent_at = Some(now);
        }
    }

    /// Appends that are not answered.
    #[cfg(any(debug_assertions, feature = "invariants"))]
    pub(crate) fn inflight_messages(&self) -> usize {
        match &self.state {
            State::Replicate { inflight, .. } => inflight.len(),
            State::Probe { .. } | State::Snapshot { .. } => 0,
        }
    }

    /// Messages and bytes that may still be put on the way; none while probing.
    pub(crate) fn window(&self, messages_max: usize, bytes_max: usize) -> Option<usize> {
        match &self.state {
            State::Replicate {
                inflight, bytes, ..
            } if inflight.len() < messages_max && *bytes < bytes_max => Some(bytes_max - *bytes),
            _ => None,
        }
    }

    /// Appends that may still be put on the way; none while probing.
    pub(crate) fn appends_left(&self, messages_max: usize) -> usize {
        match &self.state {
            State::Replicate { inflight, .. } => messages_max.saturating_sub(inflight.len()),
            State::Probe { .. } | State::Snapshot { .. } => 0,
        }
    }

    pub(crate) fn sent(&mut self, last: Index, bytes: usize, now: u64) {
        let base = self.next.previous();
        let State::Replicate {
            inflight,
            bytes: total,
            moved_at,
        } = &mut self.state
        else {
            unreachable!("entries are sent in Replicate only")
        };
        if inflight.is_empty() {
            *moved_at = now;
        }
        inflight.push_back(Inflight { base, last, bytes });
        *total += bytes;
        self.next = last.next();
    }

    /// The follower holds our log up to `matched`. Returns whether that is news.
    pub(crate) fn accepted(&mut self, matched: Index, start: Index, now: u64) -> bool {
        if self.is_refilling() {
            self.refilled(matched, start, now);
            return false;
        }
        let news = matched > self.matched;
        if news {
            self.matched = matched;
            self.resume = matched.next();
        }
        match &mut self.state {
            State::Probe { .. } => {
                if matched >= self.next.previous() || news {
                    self.replicate_from(self.matched.next(), now);
                }
            }
            // Whatever brought it here: from this entry on our log has what it needs.
            State::Snapshot { .. } => {
                self.next = self.next.max(self.matched.next());
                if news && self.matched >= start {
                    self.replicate_from(self.matched.next(), now);
                }
            }
            State::Replicate {
                inflight,
                bytes,
                moved_at,
            } => {
                while inflight
                    .front()
                    .is_some_and(|sent| sent.last <= self.matched)
                {
                    *bytes -= inflight.pop_front().expect("just seen").bytes;
                    *moved_at = now;
                }
                self.next = self.next.max(self.matched.next());
            }
        }
        assert!(self.next > self.matched, "next is above matched");
        news
    }

    /// The follower does not have `base`. Late and repeated rejections change nothing.
    pub(crate) fn rejected(
        &mut self,
        base: LogId,
        conflict: Conflict,
        last: LogId,
        log: &Log,
        now: u64,
    ) {
        let current = match &self.state {
            State::Probe { .. } => base.index == self.next.previous(),
            State::Replicate { inflight, .. } => inflight.iter().any(|i| i.base == base.index),
            State::Snapshot { .. } => false,
        };
        if !current {
            return;
        }
        if base.index <= self.matched {
            // It has the base by now, but what came behind it came too early and was dropped. In
            // Probe the answer that moved `matched` ended the probe.
            if matches!(self.state, State::Replicate { .. }) {
                self.probe_from(self.matched.next());
            }
            return;
        }
        let (common, is_known) = common_base(base, conflict, last, log);
        let next = common.max(self.matched).next();
        match self.state {
            State::Probe { .. } if is_known => self.replicate_from(next, now),
            // In Replicate all that follows a gap is rejected, each append once. Streaming on at
            // the first of these rejections would make the next ones look current, and each would
            // send the whole window again: one probe first lets them pass.
            _ => self.probe_from(next),
        }
    }

    /// Whether it counts for nothing, because entries that it may have acknowledged are missing.
    pub(crate) fn is_refilling(&self) -> bool {
        self.refilling.is_some()
    }

    /// The read round that it has to answer as a whole node before it counts again.
    pub(crate) fn proof(&self) -> Option<u64> {
        self.refilling
    }

    /// It said that entries are missing on its disk. What it acknowledged before is forgotten, and
    /// what of that is still on its way is not believed: only a whole node that answers `proof`,
    /// which was not asked before, shows that it has all of that again.
    pub(crate) fn refills(&mut self, proof: u64) {
        let is_news = self.refilling.replace(proof).is_none();
        if is_news {
            self.matched = Index(0);
            self.held = (Index(0), 0);
            if !self.is_in_snapshot() {
                self.probe_from(self.next);
            }
        }
    }

    /// Whether it refills, and says since so many ticks that it holds everything up to `last`.
    pub(crate) fn lacks_only_a_term(&self, last: Index, now: u64, patience: u64) -> bool {
        let (held, since) = self.held;
        self.is_refilling() && held == last && now >= since.saturating_add(patience)
    }

    /// It answered a heartbeat while it refills. Where nothing is on its way, an answer of before
    /// may have misled us about what it needs.
    pub(crate) fn refill_idle(&mut self) {
        let is_idle =
            matches!(&self.state, State::Replicate { inflight, .. } if inflight.is_empty());
        if is_idle && !self.loading {
            self.probe_from(self.next);
        }
    }

    /// It confirmed a round as a whole node. A probe asks what it holds.
    pub(crate) fn is_whole(&mut self, round: u64) {
        if self.refilling.take_if(|proof| round >= *proof).is_some() && !self.is_in_snapshot() {
            self.probe_from(self.resume);
        }
    }

    /// What it says that it holds moves what it is sent, and nothing else.
    fn refilled(&mut self, held: Index, start: Index, now: u64) {
        if held > self.held.0 {
            self.held = (held, now);
        }
        match &mut self.state {
            State::Probe { .. } if held >= self.next.previous() => {
                self.replicate_from(held.next(), now);
            }
            State::Probe { .. } => {}
            State::Snapshot { .. } if held >= start => self.replicate_from(held.next(), now),
            State::Snapshot { .. } => {}
            State::Replicate {
                inflight,
                bytes,
                moved_at,
            } => {
                while let Some(sent) = inflight.pop_front_if(|sent| sent.last <= held) {
                    *bytes -= sent.bytes;
                    *moved_at = now;
                }
                self.next = self.next.max(held.next());
                self.resume = self.resume.max(held.next());
            }
        }
    }

    /// Whether it takes no commands, because its disk is short of room.
    pub(crate) fn is_short_of_room(&self) -> bool {
        self.is_short_of_room
    }

    /// It took all that it was sent.
    pub(crate) fn has_room(&mut self) {
        self.is_short_of_room = false;
    }

    /// It holds our log up to `matched` and takes no more commands for now. From here on it is
    /// asked now and then, without commands, whether it has room again.
    pub(crate) fn no_room(&mut self, matched: Index, now: u64) {
        self.is_short_of_room = true;
        if !self.is_in_snapshot() {
            self.probe_from(matched.next());
            self.probe_sent(now);
        }
    }

    /// A message to it was lost: find out again where it stands, once it is heard of.
    pub(crate) fn lost(&mut self, now: u64) {
        if matches!(self.state, State::Replicate { .. }) {
            self.probe_from(self.resume);
        }
        self.probe_sent(now);
    }

    /// It answered a heartbeat, so it lives: what was sent `patience` ticks ago and is not answered
    /// was lost. (A slow disk looks the same and only costs a probe.)
    pub(crate) fn alive(&mut self, now: u64, patience: u64) {
        self.heard(now);
        match &mut self.state {
            State::Probe { sent_at } => {
                if sent_at.is_some_and(|at| now >= at + patience) {
                    *sent_at = None;
                }
            }
            State::Replicate {
                inflight, moved_at, ..
            } => {
                if !inflight.is_empty() && now >= *moved_at + patience.saturating_mul(4) {
                    self.probe_from(self.resume);
                }
            }
            State::Snapshot { .. } => {}
        }
    }

    fn replicate_from(&mut self, next: Index, now: u64) {
        self.next = next;
        self.resume = next;
        self.loading = false;
        self.state = State::Replicate {
            inflight: VecDeque::new(),
            bytes: 0,
            moved_at: now,
        };
    }

    fn probe_from(&mut self, next: Index) {
        self.next = next.max(self.matched.next());
        self.resume = self.next;
        self.loading = false;
        self.state = State::Probe { sent_at: None };
    }

    /// Probe, Replicate or Snapshot, for traces.
    pub(crate) fn state_name(&self) -> &'static str {
        match self.state {
            State::Probe { .. } => "probe",
            State::Replicate { .. } => "replicate",
            State::Snapshot { .. } => "snapshot",
        }
    }
}

/// Where the follower's log and ours meet, given what it said of its own, and whether that is known
/// or only the highest place where they may. Always below `base`, unless the follower contradicts
/// itself.
fn common_base(base: LogId, conflict: Conflict, last: LogId, log: &Log) -> (Index, bool) {
    if log.contains(last) && last.index < base.index {
        // Its log is a prefix of ours.
        return (last.index, true);
    }
    let shared = log.newest_within(conflict.last, conflict.term);
    if shared.term == conflict.term && shared.index >= conflict.first {
        // The run is in both logs, so they agree up to where the shorter one ends.
        return (shared.index, true);
    }
    // The run is not ours, so the logs part below it, where the follower's terms are lower.
    let lower = Term(conflict.term.0.saturating_sub(1));
    let guess = log.newest_within(conflict.first.previous(), lower);
    (guess.index.min(base.index.previous()), false)
}
