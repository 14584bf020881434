//! Tests of the file log that look inside: damage, power cuts, failing files. What every store must
//! do is in `crate::conformance`.

mod compaction;
mod damage;
mod failures;
mod groups;
mod power_cuts;
mod reads;
mod recycled;
mod repair;
mod room;
mod witness;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use raft_core::{
    AppendBatch, ClusterId, Entry, EntryKind, HardState, Incarnation, Index, LoadedLog, LogId,
    LogStore, NodeId, StorageError, Term,
};
use tempfile::TempDir;

use super::{RecoveryReport, WalLogStore, WalOptions};
use crate::batch_thread::Change;
use crate::files::probe::{self, Image, Probe, memory_dir};
use crate::owner::WalOwner;
use crate::sim_disk::Random;

const OWNER: WalOwner = WalOwner {
    cluster: ClusterId([9; 16]),
    node: NodeId(4),
    incarnation: Incarnation(77),
};

/// A log as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    hard_state: HardState,
    start: LogId,
    entries: Vec<Entry>,
}

impl Model {
    fn last(&self) -> LogId {
        self.entries.last().map_or(self.start, Entry::id)
    }

    /// The id of the entry at `position`, counted from 0; of the last one where there are fewer.
    fn id(&self, position: usize) -> LogId {
        let held = self.entries.get(position).map(Entry::id);
        held.unwrap_or(self.last())
    }

    fn apply(&mut self, change: &Change) {
        *self = self
            .steps(change)
            .pop()
            .expect("there is always the last one");
    }

    /// What a crash while `change` is written may leave: nothing of it, each part in order, all of
    /// it.
    fn steps(&self, change: &Change) -> Vec<Self> {
        let mut steps = vec![self.clone()];
        let mut model = self.clone();
        match change {
            Change::Append(batch) => {
                if let Some(hard_state) = batch.hard_state {
                    model.hard_state = hard_state;
                    steps.push(model.clone());
                }
                if let Some(from) = batch.truncate_from {
                    model.entries.retain(|entry| entry.index() < from);
                    steps.push(model.clone());
                }
                for entry in &batch.entries {
                    model.entries.push(entry.clone());
                    steps.push(model.clone());
                }
            }
            Change::Compact(to) => {
                model.entries.retain(|entry| entry.index() > to.index);
                model.start = *to;
                steps.push(model);
            }
            Change::Reset(to) => {
                model.entries.clear();
                model.start = *to;
                steps.push(model);
            }
        }
        steps
    }
}

/// Makes a change durable.
async fn make(store: &mut WalLogStore, change: &Change) -> Result<(), StorageError> {
    match change.clone() {
        Change::Append(batch) => store.append(batch).await,
        Change::Compact(to) => store.compact(to).await,
        Change::Reset(to) => store.reset(to).await,
    }
}

fn entry(term: u64, index: u64, length: usize) -> Entry {
    let id = LogId::new(Term(term), Index(index));
    let byte = u8::try_from((term * 16 + index) % 251 + 1).expect("below 252");
    let kind = match index % 7 {
        2 => EntryKind::Membership,
        _ => EntryKind::Command,
    };
    Entry::new(id, kind, Bytes::from(vec![byte; length]))
}

/// Entries `first..` of `term`.
fn batch(term: u64, first: u64, lengths: &[usize]) -> AppendBatch {
    let indexes = first..;
    AppendBatch {
        entries: indexes
            .zip(lengths)
            .map(|(i, len)| entry(term, i, *len))
            .collect(),
        ..AppendBatch::default()
    }
}

/// The same as a change.
fn entries(term: u64, first: u64, lengths: &[usize]) -> Change {
    Change::Append(batch(term, first, lengths))
}

fn hard_state(term: u64, candidate: u64) -> HardState {
    HardState {
        term: Term(term),
        vote: Some(NodeId(candidate)),
    }
}

fn vote(term: u64, candidate: u64) -> Change {
    Change::Append(AppendBatch {
        hard_state: Some(hard_state(term, candidate)),
        ..AppendBatch::default()
    })
}

/// Changes of all kinds, one after the other, some larger than a small segment.
fn random_changes(random: &mut Random, count: usize) -> Vec<Change> {
    let mut model = Model::default();
    let mut term = 1;
    let mut changes = Vec::new();
    for _ in 0..count {
        term += u64::from(random.below(3) == 0);
        let change = match random.below(16) {
            0..3 if !model.entries.is_empty() => {
                // Mostly all but a few.
                let held = model.entries.len();
                let position = held - 1 - random.below(held.min(3));
                Change::Compact(model.id(position))
            }
            3 => {
                let index = model.start.index.plus(random.below(9) as u64 + 1);
                Change::Reset(LogId::new(Term(term), index))
            }
            _ => Change::Append(random_batch(random, &model, term)),
        };
        model.apply(&change);
        changes.push(change);
    }
    changes
}

fn random_batch(random: &mut Random, model: &Model, term: u64) -> AppendBatch {
    let (start, mut last) = (model.start.index.0, model.last().index.0);
    let mut made = AppendBatch::default();
    if random.below(3) == 0 {
        made.hard_state = Some(hard_state(term, 1 + random.below(3) as u64));
    }
    if last > start && random.below(4) == 0 {
        last -= (random.below(4) as u64).min(last - start);
        made.truncate_from = Some(Index(last + 1));
    }
    let lengths: Vec<_> = (0..random.below(5))
        .map(|_| match random.below(12) {
            0 => 9_000,
            1..4 => 1_500,
            _ => random.below(200),
        })
        .collect();
    made.entries = batch(term, last + 1, &lengths).entries;
    made
}
/// A directory for a log, in one for its snapshots as well.
struct ScratchDir {
    path: PathBuf,
    _outer: TempDir,
}

impl ScratchDir {
    fn path(&self) -> &Path {
        &self.path
    }
}

fn scratch_dir() -> ScratchDir {
    let outer = memory_dir();
    let path = outer.path().join("wal");
    fs::create_dir(&path).expect("a directory can be made in it");
    ScratchDir {
        path,
        _outer: outer,
    }
}

fn options(probe: Option<&Arc<Probe>>) -> WalOptions {
    WalOptions {
        segment_bytes: WalOptions::SEGMENT_BYTES_MIN,
        witness_after: None,
        reserve_bytes: Some(0),
        repair: false,
        disk: probe::disk(probe),
        ..WalOptions::default()
    }
}

fn open(dir: &Path) -> Result<(WalLogStore, RecoveryReport), StorageError> {
    WalLogStore::open(dir, OWNER, options(None))
}

fn read_dir(dir: &Path) -> Image {
    let files = fs::read_dir(dir).unwrap().map(|found| found.unwrap());
    files
        .filter(|found| found.file_name() != "lock" && found.file_name() != "spare")
        .map(|found| {
            (
                PathBuf::from(found.file_name()),
                fs::read(found.path()).unwrap(),
            )
        })
        .collect()
}

fn write_dir(image: &Image) -> ScratchDir {
    let dir = scratch_dir();
    for (name, bytes) in image {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

/// A runtime for one test, or for one case of a property.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime can be made")
}

/// All that a store says it holds.
async fn contents(store: &mut WalLogStore) -> Result<Model, StorageError> {
    let loaded = store.load().await?;
    let mut held = Vec::new();
    if loaded.last.index > loaded.start.index {
        let all = loaded.start.index.next()..loaded.last.index.next();
        held = store.reader().read(all, usize::MAX).await?;
    }
    let expected = LoadedLog::of_entries(loaded.hard_state, loaded.start, &held);
    assert_eq!(loaded, expected);
    Ok(Model {
        hard_state: loaded.hard_state,
        start: loaded.start,
        entries: held,
    })
}

/// Writes changes into a new log.
async fn write_log(dir: &Path, changes: &[Change]) -> Model {
    let (mut store, _) = open(dir).unwrap();
    let mut model = Model::default();
    for change in changes {
        make(&mut store, change).await.unwrap();
        model.apply(change);
    }
    assert_eq!(contents(&mut store).await.unwrap(), model);
    model
}
