//! Counters and gauges of one node. Plain atomics: counting never waits, and the numbers guard no
//! other memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::Refusal;
use crate::log_store::LogUsage;
use crate::protocol::Counters;

/// Grows by what happened.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub(crate) fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The sum so far.
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Goes up and down, or keeps the largest value.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    /// So many more.
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// So many less, which were added before.
    pub(crate) fn subtract(&self, amount: u64) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }

    /// Replaces the value.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Replaces the value if the new one is larger.
    pub(crate) fn raise(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }

    /// The current value.
    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where the tasks of a node count. Field by field what [`MetricsSnapshot`] says.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) turns: Counter,
    pub(crate) inputs: Counter,
    pub(crate) proposals: Counter,
    pub(crate) reads: Counter,
    pub(crate) leaderships: Counter,
    pub(crate) writes: Counter,
    pub(crate) appends: Counter,
    pub(crate) entries_appended: Counter,
    pub(crate) append_longest_us: Gauge,
    pub(crate) log_backlog_writes: Gauge,
    pub(crate) log_backlog_bytes: Gauge,
    pub(crate) apply_batches: Counter,
    pub(crate) commands_applied: Counter,
    pub(crate) apply_longest_us: Gauge,
    pub(crate) queries: Counter,
    pub(crate) messages_received: Counter,
    pub(crate) messages_sent: Counter,
    pub(crate) messages_failed: Counter,
    pub(crate) messages_dropped: Counter,
    pub(crate) appends_shed: Counter,
    pub(crate) loads: Counter,
    pub(crate) refused_cluster: Counter,
    pub(crate) refused_group: Counter,
    pub(crate) refused_addressee: Counter,
    pub(crate) refused_stranger: Counter,
    pub(crate) refused_incarnation: Counter,
    pub(crate) refused_malformed: Counter,
    pub(crate) log_bytes: Gauge,
    pub(crate) disk_bytes: Gauge,
    pub(crate) compactions: Counter,
    pub(crate) log_resets: Counter,
    pub(crate) compaction_longest_us: Gauge,
    pub(crate) snapshots_taken: Counter,
    pub(crate) snapshots_sent: Counter,
    pub(crate) snapshots_received: Counter,
    pub(crate) snapshots_installed: Counter,
    pub(crate) snapshots_failed: Counter,
    pub(crate) snapshot_bytes_taken: Counter,
    pub(crate) snapshot_bytes_sent: Counter,
    pub(crate) snapshot_bytes_received: Counter,
    pub(crate) snapshot_longest_us: Gauge,
    pub(crate) restore_longest_us: Gauge,
    pub(crate) changes: Counter,
    pub(crate) changes_refused: Counter,
    pub(crate) transfers: Counter,
    pub(crate) transfers_refused: Counter,
    pub(crate) busy_refusals: Counter,
    pub(crate) no_room_refusals: Counter,
}

/// The counters of a node at one moment. Counts since the node started; a largest value since then
/// too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricsSnapshot {
    /// Times that the driver took effects.
    pub turns: u64,
    /// Inputs that the protocol stepped.
    pub inputs: u64,
    /// Proposals given to the protocol.
    pub proposals: u64,
    /// Linearizable reads given to the protocol.
    pub reads: u64,
    /// Elections that this node started, votes before the vote not counted.
    pub elections: u64,
    /// Appends of this node that a follower rejected.
    pub probes_rejected: u64,
    /// Messages that the protocol refused. The counters by reason below may miss some of a flood.
    pub messages_refused: u64,
    /// Reads that a lease answered without a round.
    pub lease_reads: u64,
    /// Times that it gave up leadership because its disk did not finish a write.
    pub stalled: u64,
    /// Elections that it won.
    pub leaderships: u64,
    /// Writes that the protocol asked for, the empty ones counted.
    pub writes: u64,
    /// Calls of `LogStore::append`: each is one sync.
    pub appends: u64,
    /// Entries in those calls. Divided by `appends`: entries per sync.
    pub entries_appended: u64,
    /// The longest of those calls, in microseconds.
    pub append_longest_us: u64,
    /// Writes that wait for the log task now.
    pub log_backlog_writes: u64,
    /// Encoded bytes of their entries.
    pub log_backlog_bytes: u64,
    /// Calls of `StateMachine::apply`.
    pub apply_batches: u64,
    /// Commands in those calls.
    pub commands_applied: u64,
    /// The longest of those calls, in microseconds.
    pub apply_longest_us: u64,
    /// Calls of `StateMachine::query`.
    pub queries: u64,
    /// Messages from peers.
    pub messages_received: u64,
    /// Messages that the transport took.
    pub messages_sent: u64,
    /// Messages that the transport refused.
    pub messages_failed: u64,
    /// Messages that did not fit in an outbox, or were for nobody.
    pub messages_dropped: u64,
    /// Appends of a leader that were dropped because the log task is behind.
    pub appends_shed: u64,
    /// Times that old entries were read for a follower.
    pub loads: u64,
    /// Messages of another cluster.
    pub refused_cluster: u64,
    /// Messages of another group.
    pub refused_group: u64,
    /// Messages addressed to another node.
    pub refused_addressee: u64,
    /// Messages of somebody who is not a member.
    pub refused_stranger: u64,
    /// Messages of another incarnation of a member.
    pub refused_incarnation: u64,
    /// Messages that contradict themselves, and refusals of a kind that has no counter.
    pub refused_malformed: u64,
    /// Times that the beginning of the log was dropped behind a snapshot.
    pub compactions: u64,
    /// Times that the whole log was dropped behind a snapshot that was received.
    pub log_resets: u64,
    /// The longest of both, in microseconds.
    pub compaction_longest_us: u64,
    /// Snapshots of the own state that became durable.
    pub snapshots_taken: u64,
    /// Snapshots that a follower has all of.
    pub snapshots_sent: u64,
    /// Snapshots that came from a leader and are on the disk.
    pub snapshots_received: u64,
    /// Snapshots that the state machine was restored from, those at the start counted.
    pub snapshots_installed: u64,
    /// Snapshots that were not written, sent or received to their end, or were refused midway.
    pub snapshots_failed: u64,
    /// Bytes of parts that were written for snapshots of the own state.
    pub snapshot_bytes_taken: u64,
    /// Bytes of parts that were read to be sent, those of broken transfers counted.
    pub snapshot_bytes_sent: u64,
    /// Bytes of parts that were received.
    pub snapshot_bytes_received: u64,
    /// The longest time that one was written, sent or received, in microseconds.
    pub snapshot_longest_us: u64,
    /// The longest call of `StateMachine::restore`, in microseconds.
    pub restore_longest_us: u64,
    /// Changes of membership that were asked for here and took effect.
    pub changes: u64,
    /// Changes of membership that were asked for here and were refused, or whose end is unknown.
    pub changes_refused: u64,
    /// Transfers of leadership that were asked for here and happened.
    pub transfers: u64,
    /// Transfers of leadership that were asked for here and did not happen.
    pub transfers_refused: u64,
    /// Requests of clients that were refused because a limit was met: back-pressure.
    pub busy_refusals: u64,
    /// Proposals that were refused because a disk is short of room.
    pub no_room_refusals: u64,
}

impl Metrics {
    /// Counts a refused message and gives how many of its kind there were.
    pub(crate) fn count_refusal(&self, refusal: Refusal) -> u64 {
        let counter = match refusal {
            Refusal::Cluster => &self.refused_cluster,
            Refusal::Group => &self.refused_group,
            Refusal::Addressee(_) => &self.refused_addressee,
            Refusal::Stranger(_) => &self.refused_stranger,
            Refusal::Incarnation(_) => &self.refused_incarnation,
            Refusal::Malformed { .. } => &self.refused_malformed,
        };
        counter.increment();
        counter.value()
    }

    /// Keeps how much the log takes.
    pub(crate) fn set_log_usage(&self, usage: LogUsage) {
        self.log_bytes.set(usage.log_bytes);
        self.disk_bytes.set(usage.disk_bytes);
    }

    /// How much the log took after the last append.
    pub(crate) fn log_usage(&self) -> LogUsage {
        LogUsage {
            log_bytes: self.log_bytes.value(),
            disk_bytes: self.disk_bytes.value(),
            is_short_of_room: false,
        }
    }

    /// All counters, those of the protocol included. Each is read by itself, so two may be an
    /// instant apart.
    pub(crate) fn snapshot(&self, counters: Counters) -> MetricsSnapshot {
        MetricsSnapshot {
            turns: self.turns.value(),
            inputs: self.inputs.value(),
            proposals: self.proposals.value(),
            reads: self.reads.value(),
            elections: counters.elections,
            probes_rejected: counters.probes_rejected,
            messages_refused: counters.refused,
            lease_reads: counters.lease_reads,
            stalled: counters.stalled,
            leaderships: self.leaderships.value(),
            writes: self.writes.value(),
            appends: self.appends.value(),
            entries_appended: self.entries_appended.value(),
            append_longest_us: self.append_longest_us.value(),
            log_backlog_writes: self.log_backlog_writes.value(),
            log_backlog_bytes: self.log_backlog_bytes.value(),
            apply_batches: self.apply_batches.value(),
            commands_applied: self.commands_applied.value(),
            apply_longest_us: self.apply_longest_us.value(),
            queries: self.queries.value(),
            messages_received: self.messages_received.value(),
            messages_sent: self.messages_sent.value(),
            messages_failed: self.messages_failed.value(),
            messages_dropped: self.messages_dropped.value(),
            appends_shed: self.appends_shed.value(),
            loads: self.loads.value(),
            refused_cluster: self.refused_cluster.value(),
            refused_group: self.refused_group.value(),
            refused_addressee: self.refused_addressee.value(),
            refused_stranger: self.refused_stranger.value(),
            refused_incarnation: self.refused_incarnation.value(),
            refused_malformed: self.refused_malformed.value(),
            compactions: self.compactions.value(),
            log_resets: self.log_resets.value(),
            compaction_longest_us: self.compaction_longest_us.value(),
            snapshots_taken: self.snapshots_taken.value(),
            snapshots_sent: self.snapshots_sent.value(),
            snapshots_received: self.snapshots_received.value(),
            snapshots_installed: self.snapshots_installed.value(),
            snapshots_failed: self.snapshots_failed.value(),
            snapshot_bytes_taken: self.snapshot_bytes_taken.value(),
            snapshot_bytes_sent: self.snapshot_bytes_sent.value(),
            snapshot_bytes_received: self.snapshot_bytes_received.value(),
            snapshot_longest_us: self.snapshot_longest_us.value(),
            restore_longest_us: self.restore_longest_us.value(),
            changes: self.changes.value(),
            changes_refused: self.changes_refused.value(),
            transfers: self.transfers.value(),
            transfers_refused: self.transfers_refused.value(),
            busy_refusals: self.busy_refusals.value(),
            no_room_refusals: self.no_room_refusals.value(),
        }
    }
}

/// Whole microseconds of a duration, as far as they fit.
pub(crate) fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
