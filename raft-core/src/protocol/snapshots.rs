//! Snapshots: when one is taken, how much log goes with it, how a follower gets one and what
//! becomes of its log (paper section 7, thesis chapter 5).

use crate::config::ConfigError;
use crate::message::{AppendReply, Message};
use crate::protocol::effects::LogStart;
use crate::protocol::log::Log;
use crate::protocol::progress::Progress;
use crate::protocol::{Raft, RoleState};
use crate::snapshot::{SnapshotDescriptor, SnapshotMeta};
use crate::types::{Index, LogId, NodeId};

/// Ticks after which a snapshot that could not be written is tried again.
const RETRY_TICKS: u64 = 1000;

/// Longest election deadlines for which a silent follower still counts as one that lives: long
/// enough to be started anew.
const LIVING_DEADLINES: u64 = 16;

/// What this node knows of its own snapshots.
#[derive(Debug)]
pub(crate) struct Snapshots {
    newest: Option<SnapshotDescriptor>,
    /// One is being written.
    is_taking: bool,
    /// When the last one was begun, and not before when the next one is.
    began_at: u64,
    not_before: u64,
    /// The state machine has to become this, once the log's new beginning is durable.
    to_restore: Option<SnapshotMeta>,
}

impl Snapshots {
    /// The newest snapshot beside a log that was just loaded.
    pub(crate) fn new(newest: Option<SnapshotDescriptor>, log: &Log) -> Result<Self, ConfigError> {
        let snapshot = newest.as_ref().map_or(LogId::ZERO, |n| n.meta.last);
        let (start, last) = (log.start(), log.last());
        if snapshot.index < start.index {
            return Err(ConfigError::SnapshotMissing { start, snapshot });
        }
        if newest.is_some() && !log.contains(snapshot) {
            return Err(ConfigError::SnapshotBeyondLog { snapshot, last });
        }
        Ok(Self {
            newest,
            is_taking: false,
            began_at: 0,
            not_before: 0,
            to_restore: None,
        })
    }

    /// The last entry of the newest one.
    pub(crate) fn last(&self) -> LogId {
        self.newest.as_ref().map_or(LogId::ZERO, |n| n.meta.last)
    }

    /// Whether no snapshot waits to become the state.
    #[cfg(any(debug_assertions, feature = "invariants"))]
    pub(crate) fn is_restored(&self) -> bool {
        self.to_restore.is_none()
    }

    /// Takes note of a complete snapshot. Older ones than the newest are not kept.
    fn note(&mut self, descriptor: SnapshotDescriptor) {
        if descriptor.meta.last.index >= self.last().index {
            self.newest = Some(descriptor);
        }
    }
}

impl Raft {
    /// A state machine that starts with less than the newest snapshot is given that.
    pub(crate) fn restore_at_start(&mut self) {
        let newest = self.snapshots.newest.as_ref().map(|newest| &newest.meta);
        if let Some(meta) = newest.filter(|meta| meta.last.index > self.applying.applied()) {
            let meta = meta.clone();
            // All that a snapshot stands for was committed.
            self.commit = self.commit.max(meta.last.index);
            self.snapshots.to_restore = Some(meta);
        }
    }

    /// Hands over the snapshot that the state machine has to become. Returns false while entries
    /// have to wait for that.
    pub(crate) fn hand_snapshot(&mut self) -> bool {
        let Some(meta) = &self.snapshots.to_restore else {
            return true;
        };
        if self.log.durable() < meta.last.index {
            return false;
        }
        self.applying.hand(meta.last.index, 0);
        self.outbox.effects().restore = self.snapshots.to_restore.take();
        true
    }

    /// Asks for a snapshot of what is handed to the state machine, where a threshold is met.
    pub(crate) fn take_snapshot(&mut self) {
        let policy = self.config.snapshots;
        let (handed, base) = (self.applying.handed(), self.snapshots.last().index);
        let is_waiting = self.snapshots.is_taking || self.now < self.snapshots.not_before;
        let is_other = self.snapshots.to_restore.is_some() || self.applying.is_ahead();
        if is_waiting || is_other || handed <= base {
            return;
        }
        let bytes = self.log.sizes().between(base, handed);
        let met = |limit: u64, value: u64| limit > 0 && value >= limit;
        let is_due = met(policy.log_bytes, bytes)
            || met(policy.entries, handed.0 - base.0)
            || met(policy.ticks, self.now - self.snapshots.began_at);
        if !is_due {
            return;
        }
        let membership = self.configurations.at(handed);
        if membership.is_empty() {
            // A node that joins has not come to the entry that says who its group is.
            return;
        }
        self.outbox.effects().take_snapshot = Some(SnapshotMeta {
            last: self.log.id_at(handed),
            membership: membership.clone(),
        });
        self.snapshots.is_taking = true;
        self.snapshots.began_at = self.now;
    }

    pub(crate) fn handle_snapshot_taken(&mut self, taken: Option<SnapshotDescriptor>) {
        self.snapshots.is_taking = false;
        match taken {
            Some(descriptor) => {
                self.snapshots.note(descriptor);
                self.compact();
            }
            None => self.snapshots.not_before = self.now + RETRY_TICKS,
        }
    }

    /// Drops the log that the newest snapshot stands for, but for a tail that slow followers can
    /// still be brought in step with.
    fn compact(&mut self) {
        let snapshot = self.snapshots.last().index;
        let start = self.log.start().index;
        // Until an installed snapshot's new beginning is on the disk there is nothing to drop.
        if snapshot <= start || self.snapshots.to_restore.is_some() {
            return;
        }
        let bound = self.config.snapshots.tail_bytes_max;
        let to = match self.slowest_needs() {
            Some(needed) => needed.max(self.log.sizes().behind(snapshot, bound)),
            None => snapshot,
        };
        // The newest snapshot may be a leader's, of entries that are not applied here yet.
        let applied = self.applying.applied();
        let to = to.min(snapshot).min(self.log.durable()).min(applied);
        if to <= start {
            return;
        }
        self.log.compact(to);
        self.configurations.compact(to);
        self.outbox.close_write(self.log.last());
        self.outbox
            .write_log_start(LogStart::Compact(self.log.start()));
        self.outbox.close_write(self.log.last());
        if let RoleState::Leader(role) = &mut self.role {
            role.followers_mut().for_each(|p| p.compacted(to));
        }
    }

    /// What the slowest follower that lives holds. A follower does not know what the others hold,
    /// and may lead soon, so it keeps as much as is allowed.
    fn slowest_needs(&self) -> Option<Index> {
        let RoleState::Leader(role) = &self.role else {
            return Some(Index(0));
        };
        let patience = LIVING_DEADLINES * u64::from(self.config.timing.election_ticks_max);
        let living = role.progress.iter();
        let living = living.filter(|p| p.is_alive(role.now, patience));
        living.map(Progress::needs_behind).min()
    }

    /// Starts to send the newest snapshot to a follower whose next entry was compacted.
    pub(crate) fn send_snapshot(&mut self, position: usize) {
        let newest = self.snapshots.newest.clone();
        let descriptor = newest.expect("a log that was compacted has a snapshot");
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        let follower = role.follower_at(position);
        let to = follower.id;
        follower.snapshot_begun(descriptor.meta.last.index);
        self.counters.snapshots_sent += 1;
        let envelope = self.envelope(to, Message::Snapshot(descriptor));
        self.outbox.effects().send_snapshot.push(envelope);
    }

    pub(crate) fn handle_snapshot_sent(&mut self, to: NodeId) {
        let RoleState::Leader(role) = &mut self.role else {
            return;
        };
        let now = role.now;
        if let Some(follower) = role.progress_of(to) {
            follower.snapshot_ended(now);
        }
    }

    /// A snapshot of the leader is on our disk. It replaces the log where the log does not have its
    /// last entry: what is there is shorter, or conflicts. An older one changes nothing.
    pub(crate) fn handle_snapshot(&mut self, from: NodeId, descriptor: SnapshotDescriptor) {
        self.heard_leader(from);
        let last = descriptor.meta.last;
        let known = self.log.term_at(last.index);
        if last.index <= self.commit && known.is_some_and(|term| term != last.term) {
            // A leader has what is committed (Leader Completeness), so this is none.
            self.refuse_malformed(from, "snapshot");
            return;
        }
        if last.index > self.commit {
            if self.log.contains(last) {
                self.commit_to(last.index);
            } else {
                self.install(&descriptor.meta);
            }
        }
        self.snapshots.note(descriptor);
        let matched = self.commit;
        self.acknowledge(from, AppendReply::Accepted { matched });
    }

    fn install(&mut self, meta: &SnapshotMeta) {
        let last = meta.last;
        self.outbox.close_write(self.log.last());
        self.log.reset(last, self.outbox.open_write());
        self.outbox.write_log_start(LogStart::Reset(last));
        self.note_refilled();
        self.configurations
            .reset(last.index, meta.membership.clone());
        self.commit = last.index;
        self.snapshots.to_restore = Some(meta.clone());
        self.counters.snapshots_installed += 1;
        self.members_changed();
    }
}
