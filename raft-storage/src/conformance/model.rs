//! A log as a vector, and the comparison of a store with it.

use bytes::Bytes;
use raft_core::{
    AppendBatch, Entry, EntryKind, HardState, Index, LoadedLog, LogId, LogReader, LogStore, NodeId,
    StorageError, Term,
};

use super::place::Place;

/// Bytes per read when a whole log is compared: enough that reads cross files, few enough that
/// there are several.
const COMPARE_BYTES: usize = 100_000;

/// A log and the store that should hold the same.
pub(super) struct Checked {
    case: &'static str,
    place: Place,
    store: Option<Box<dyn LogStore>>,
    pub(super) hard_state: HardState,
    /// The entry before the first one.
    pub(super) start: LogId,
    pub(super) entries: Vec<Entry>,
}

impl Checked {
    pub(super) async fn open(case: &'static str, place: Place) -> Self {
        let mut checked = Self {
            case,
            place,
            store: None,
            hard_state: HardState::default(),
            start: LogId::ZERO,
            entries: Vec::new(),
        };
        checked.reopen().await;
        checked
    }

    /// Drops the store, opens it again and compares everything.
    pub(super) async fn reopen(&mut self) {
        self.store = None;
        let case = self.case;
        let store = (self.place)().unwrap_or_else(|error| panic!("{case}: open: {error}"));
        self.store = Some(store);
        self.load().await;
        self.compare().await;
    }

    /// Compares what the store says that it holds.
    pub(super) async fn load(&mut self) {
        let case = self.case;
        let expected = LoadedLog::of_entries(self.hard_state, self.start, &self.entries);
        let loaded = self.store().load().await;
        let loaded = loaded.unwrap_or_else(|error| panic!("{case}: load: {error}"));
        assert_eq!(loaded, expected, "{case}: what the log loads");
    }

    pub(super) fn last(&self) -> LogId {
        self.entries.last().map_or(self.start, Entry::id)
    }

    /// The id of an entry that is held, or of the start.
    pub(super) fn id_at(&self, index: u64) -> LogId {
        let mut held = self.entries.iter().map(Entry::id);
        held.find(|id| id.index == Index(index))
            .unwrap_or(self.start)
    }

    pub(super) fn store(&mut self) -> &mut dyn LogStore {
        let store = self.store.as_mut();
        store.expect("a store is open between reopens").as_mut()
    }

    pub(super) fn reader(&mut self) -> std::sync::Arc<dyn LogReader> {
        self.store().reader()
    }

    /// Appends to both.
    pub(super) async fn append(&mut self, batch: AppendBatch) {
        let case = self.case;
        if let Some(hard_state) = batch.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(from) = batch.truncate_from {
            self.entries.retain(|entry| entry.index() < from);
        }
        self.entries.extend(batch.entries.iter().cloned());
        let done = self.store().append(batch).await;
        done.unwrap_or_else(|error| panic!("{case}: append: {error}"));
    }

    /// Appends entries of `term` behind the last one, with payloads of these lengths.
    pub(super) async fn append_entries(&mut self, term: u64, lengths: &[usize]) {
        let entries = entries_behind(self.last().index, term, lengths);
        self.append(AppendBatch {
            entries,
            ..AppendBatch::default()
        })
        .await;
    }

    /// Drops the entries up to `to` from both.
    pub(super) async fn compact(&mut self, to: LogId) {
        let case = self.case;
        self.entries.retain(|entry| entry.index() > to.index);
        self.start = to;
        let done = self.store().compact(to).await;
        done.unwrap_or_else(|error| panic!("{case}: compaction to {to}: {error}"));
    }

    /// Drops all entries from both; they go on behind `to`.
    pub(super) async fn reset(&mut self, to: LogId) {
        let case = self.case;
        self.entries.clear();
        self.start = to;
        let done = self.store().reset(to).await;
        done.unwrap_or_else(|error| panic!("{case}: reset to {to}: {error}"));
    }

    /// Reads the whole log and compares it.
    pub(super) async fn compare(&mut self) {
        let reader = self.reader();
        let (first, end) = (self.start.index.next(), self.last().index.next());
        let mut at = first;
        let case = self.case;
        for from in [Index(0), self.start.index] {
            let read = reader.read(from..end.next(), usize::MAX).await;
            let refused = matches!(
                read,
                Err(StorageError::OutOfRange { from: f, first: held, .. })
                    if f == from && held == first
            );
            assert!(refused, "{case}: read from {from}: {read:?}");
        }
        while at < end {
            let read = reader.read(at..end, COMPARE_BYTES).await;
            let read = read.unwrap_or_else(|error| panic!("{case}: read from {at}: {error}"));
            assert!(!read.is_empty(), "{case}: nothing read from {at}");
            for entry in read {
                let position = usize::try_from(at.0 - first.0).expect("a small log");
                assert!(
                    entry == self.entries[position],
                    "{case}: entry {} was read as {}",
                    self.entries[position].id(),
                    entry.id()
                );
                at = at.next();
            }
        }
        let log_bytes: u64 = self.entries.iter().map(|e| e.encoded_len() as u64).sum();
        assert_eq!(reader.usage().log_bytes, log_bytes, "{case}: log bytes");
    }
}

/// Entries of `term` behind `last`, with payloads of these lengths.
pub(super) fn entries_behind(last: Index, term: u64, lengths: &[usize]) -> Vec<Entry> {
    let indexes = last.0 + 1..;
    indexes
        .zip(lengths)
        .map(|(index, length)| entry(term, index, *length))
        .collect()
}

/// An entry whose payload tells index and term, so that no other one looks like it. Some are
/// memberships: to a store, these are bytes as well.
pub(super) fn entry(term: u64, index: u64, length: usize) -> Entry {
    let id = LogId::new(Term(term), Index(index));
    if length == 0 {
        return Entry::new(id, EntryKind::Noop, Bytes::new());
    }
    let mark = index.wrapping_mul(31).wrapping_add(term.wrapping_mul(7));
    let pattern = mark.to_le_bytes();
    let payload: Vec<u8> = pattern.into_iter().cycle().take(length).collect();
    let kind = match index % 5 {
        3 => EntryKind::Membership,
        _ => EntryKind::Command,
    };
    Entry::new(id, kind, payload.into())
}

/// A term and a vote.
pub(super) fn hard_state(term: u64, vote: Option<u64>) -> HardState {
    HardState {
        term: Term(term),
        vote: vote.map(NodeId),
    }
}
