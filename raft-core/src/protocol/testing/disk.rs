//! A disk of a test node: what was written and synced, and nothing else.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::entry::{Entry, EntryKind};
use crate::log_store::{AppendBatch, LoadedLog};
use crate::types::{HardState, Index, LogId, NodeId, Term};

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) hard_state: HardState,
    pub(super) entries: Vec<Entry>,
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
        self.entries.last().map_or(LogId::ZERO, Entry::id)
    }

    pub(super) fn has(&self, id: LogId) -> bool {
        id == LogId::ZERO || self.at(id.index) == Some(id)
    }

    pub(super) fn at(&self, index: Index) -> Option<LogId> {
        self.entries
            .get(index.0.checked_sub(1)? as usize)
            .map(Entry::id)
    }

    pub(super) fn apply(&mut self, batch: &AppendBatch) {
        if let Some(hard_state) = batch.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(from) = batch.truncate_from {
            self.entries.truncate(from.previous().0 as usize);
        }
        for entry in &batch.entries {
            assert_eq!(
                entry.index(),
                self.last().index.next(),
                "the disk has no holes"
            );
            self.entries.push(entry.clone());
        }
    }

    pub(super) fn load(&self) -> LoadedLog {
        LoadedLog::of_entries(self.hard_state, LogId::ZERO, &self.entries)
    }

    pub(super) fn read(&self, from: Index, to: Index) -> Vec<Entry> {
        self.entries[from.previous().0 as usize..to.0 as usize].to_vec()
    }
}
