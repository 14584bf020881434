//! A disk of a test node: what was written and synced, and nothing else.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::entry::{Entry, EntryKind};
use crate::log_store::LoadedLog;
use crate::membership::Membership;
use crate::protocol::{LogStart, Write};
use crate::snapshot::SnapshotDescriptor;
use crate::types::{HardState, Index, LogId, NodeId, Term};

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    /// The last entry that was compacted.
    pub(super) start: LogId,
    pub(super) entries: Vec<Entry>,
    pub(super) snapshot: Option<SnapshotDescriptor>,
    /// What was damaged has to be reached again: remembered until it is.
    pub(super) refill_to: Option<LogId>,
    /// Entries that were lost by damage: the node still vouches for them, by not voting.
    pub(super) vouched: Vec<LogId>,
}

impl Disk {
    /// Entries of the given terms, as if they had been replicated before.
    pub(super) fn with_terms(terms: &[u64]) -> Self {
        let entries = (1..).zip(terms).map(|(index, term)| {
            let id = LogId::new(Term(*term), Index(index));
            Entry::new(
                id,
                EntryKind::Command,
                Bytes::from(format!("{term}.{index}")),
            )
        });
        let term = Term(terms.last().copied().unwrap_or(0));
        Self {
            hard_state: HardState { term, vote: None },
            entries: entries.collect(),
            ..Self::default()
        }
    }

    /// Lets every node have heard of the newest term that any of them knows.
    pub(super) fn share_newest_term(disks: &mut BTreeMap<NodeId, Self>) {
        let newest = disks.values().map(|disk| disk.hard_state.term).max();
        for disk in disks.values_mut() {
            disk.hard_state.term = newest.unwrap_or_default();
        }
    }

    pub(super) fn last(&self) -> LogId {
        self.entries.last().map_or(self.start, Entry::id)
    }

    /// Whether this entry is here, or in the snapshot that stands for the beginning.
    pub(super) fn has(&self, id: LogId) -> bool {
        id.index < self.start.index || self.at(id.index) == Some(id)
    }

    pub(super) fn at(&self, index: Index) -> Option<LogId> {
        if index == self.start.index {
            return Some(self.start);
        }
        let position = index.0.checked_sub(self.start.index.0 + 1)?;
        self.entries.get(position as usize).map(Entry::id)
    }

    pub(super) fn apply(&mut self, write: &Write) {
        match write.log_start {
            Some(LogStart::Compact(to)) => {
                assert_eq!(self.at(to.index), Some(to), "compaction to what is there");
                self.entries.retain(|entry| entry.index() > to.index);
                self.start = to;
            }
            Some(LogStart::Reset(to)) => self.reset(to),
            None => {}
        }
        let batch = &write.batch;
        if let Some(hard_state) = batch.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(from) = batch.truncate_from {
            self.entries.retain(|entry| entry.index() < from);
        }
        for entry in &batch.entries {
            assert_eq!(
                entry.index(),
                self.last().index.next(),
                "the disk has no holes"
            );
            self.entries.push(entry.clone());
        }
        self.look_whether_whole();
    }

    fn reset(&mut self, to: LogId) {
        self.entries.clear();
        self.start = to;
        self.look_whether_whole();
    }

    /// Synced entries are damaged from this one on; term and vote are intact.
    pub(super) fn damage(&mut self, from: Index) {
        self.refill_to = self.refill_to.max(Some(self.last()));
        let lost = self.entries.iter().filter(|entry| entry.index() >= from);
        self.vouched.extend(lost.map(Entry::id));
        self.entries.retain(|entry| entry.index() < from);
    }

    /// Whether this entry was lost by damage, and the node votes for nobody until it has it again.
    pub(super) fn vouches_for(&self, id: LogId) -> bool {
        self.vouched.contains(&id)
    }

    fn look_whether_whole(&mut self) {
        if self.refill_to.is_some_and(|to| self.last() >= to) {
            self.refill_to = None;
            self.vouched.clear();
        }
    }

    /// A complete snapshot; the newest one is kept.
    pub(super) fn keep_snapshot(&mut self, descriptor: SnapshotDescriptor) {
        let newest = self.snapshot.as_ref().map(|s| s.meta.last.index);
        if newest.is_none_or(|newest| newest < descriptor.meta.last.index) {
            self.snapshot = Some(descriptor);
        }
    }

    /// What a node does before it starts: a snapshot that the log does not reach replaces it.
    pub(super) fn load(&mut self) -> LoadedLog {
        let last = self.snapshot.as_ref().map(|s| s.meta.last);
        if let Some(last) = last.filter(|last| self.at(last.index) != Some(*last)) {
            assert!(
                last.index > self.start.index,
                "a log that was compacted has its snapshot"
            );
            self.reset(last);
        }
        LoadedLog {
            refill_to: self.refill_to,
            ..LoadedLog::of_entries(self.hard_state, self.start, &self.entries)
        }
    }

    /// The membership that the disk knows, else the bootstrapped one.
    pub(super) fn membership(&self, bootstrap: &Membership) -> Membership {
        let in_log = self.entries.iter().rev();
        let newest = in_log.clone().find(|e| e.kind() == EntryKind::Membership);
        if let Some(entry) = newest {
            return Membership::decode(entry.payload()).expect("sound");
        }
        let snapshot = self.snapshot.as_ref();
        let at_start = snapshot.filter(|s| s.meta.last.index >= self.start.index);
        match at_start.filter(|_| self.start != LogId::ZERO) {
            Some(snapshot) => snapshot.meta.membership.clone(),
            None => bootstrap.clone(),
        }
    }

    pub(super) fn read(&self, from: Index, to: Index) -> Vec<Entry> {
        let wanted = |entry: &&Entry| entry.index() >= from && entry.index() <= to;
        self.entries.iter().filter(wanted).cloned().collect()
    }
}
