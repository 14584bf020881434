//! What is done to a log and its snapshots, one step after the other, and what must hold between
//! and behind the steps.

use bytes::Bytes;
use raft_core::{
    AppendBatch, Entry, EntryKind, HardState, Index, LogId, LogStore, NodeId, SnapshotDescriptor,
    SnapshotMeta, StorageError, Term,
};
use raft_storage::sim_disk::Random;
use raft_storage::snapshot_file::SnapshotHasher;

/// One call, or the few that belong together.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Append(AppendBatch),
    Compact(LogId),
    Reset(LogId),
    /// A snapshot of the node's own state up to here.
    Snapshot(LogId),
    /// One that is given up before it is finished.
    GiveUp(LogId),
    /// So many parts of a snapshot that comes from elsewhere.
    ReceiveSome(LogId, usize),
    /// All that is missing of one that comes from elsewhere.
    Install(LogId),
}

/// A log and the newest snapshot, as they should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(super) hard_state: HardState,
    pub(super) start: LogId,
    pub(super) entries: Vec<Entry>,
    /// The last entry of the newest snapshot.
    pub(super) snapshot: Option<LogId>,
}

impl Model {
    pub(crate) fn last(&self) -> LogId {
        self.entries.last().map_or(self.start, Entry::id)
    }

    /// Whether the log is this one, whatever became of the snapshots.
    pub(crate) fn is_the_log_of(&self, other: &Self) -> bool {
        let of = |model: &Self| (model.hard_state, model.start);
        of(self) == of(other) && self.entries == other.entries
    }

    pub(crate) fn apply(&mut self, step: &Step) {
        *self = self
            .steps(step)
            .pop()
            .expect("there is always the last one");
    }

    /// What a crash during `step` may leave: nothing of it, each part in order, all of it.
    pub(super) fn steps(&self, step: &Step) -> Vec<Self> {
        let mut steps = vec![self.clone()];
        let mut model = self.clone();
        match step {
            Step::Append(batch) => {
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
            Step::Compact(to) => {
                model.entries.retain(|entry| entry.index() > to.index);
                model.start = *to;
                steps.push(model);
            }
            Step::Reset(to) => {
                model.entries.clear();
                model.start = *to;
                steps.push(model);
            }
            Step::Snapshot(last) | Step::Install(last) => {
                model.snapshot = Some(*last);
                steps.push(model);
            }
            Step::GiveUp(_) | Step::ReceiveSome(..) => {}
        }
        steps
    }

    /// In a few words.
    pub(super) fn sketch(&self) -> String {
        let ids: Vec<_> = self.entries.iter().map(|e| e.id().to_string()).collect();
        let snapshot = self.snapshot.map(|last| last.to_string());
        format!(
            "{:?} behind {} {ids:?} snapshot {snapshot:?}",
            self.hard_state, self.start
        )
    }
}

impl Step {
    /// The entries that it writes.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        match self {
            Self::Append(batch) => batch.entries.clone(),
            _ => Vec::new(),
        }
    }

    /// Makes it so, durably.
    pub(crate) async fn run(&self, store: &mut dyn LogStore) -> Result<(), StorageError> {
        match self {
            Self::Append(batch) => store.append(batch.clone()).await,
            Self::Compact(to) => store.compact(*to).await,
            Self::Reset(to) => store.reset(*to).await,
            Self::Snapshot(last) => {
                let mut writer = store.snapshots().create(descriptor(*last).meta).await?;
                for part in parts(*last) {
                    writer.write(part).await?;
                }
                writer.finish().await.map(|_| ())
            }
            Self::GiveUp(last) => {
                let mut writer = store.snapshots().create(descriptor(*last).meta).await?;
                writer.write(parts(*last)[1].clone()).await
            }
            Self::ReceiveSome(last, count) => receive(store, *last, *count).await.map(|_| ()),
            Self::Install(last) => {
                let writer = receive(store, *last, usize::MAX).await?;
                writer.finish().await.map(|_| ())
            }
        }
    }
}

async fn receive(
    store: &mut dyn LogStore,
    last: LogId,
    count: usize,
) -> Result<Box<dyn raft_core::SnapshotWriter>, StorageError> {
    let mut writer = store.snapshots().receive(descriptor(last)).await?;
    let there = usize::try_from(writer.parts()).expect("few");
    for part in parts(last).into_iter().take(count).skip(there) {
        writer.write(part).await?;
    }
    Ok(writer)
}

/// The parts of the snapshot up to `last`.
pub(crate) fn parts(last: LogId) -> Vec<Bytes> {
    let byte = u8::try_from(last.index.0 % 250 + 1).expect("below 251");
    [10, 700, 0, 600].map(|n| Bytes::from(vec![byte; n])).into()
}

pub(super) fn descriptor(last: LogId) -> SnapshotDescriptor {
    let mut hasher = SnapshotHasher::new();
    parts(last).iter().for_each(|part| hasher.add(part));
    let meta = SnapshotMeta {
        last,
        ..SnapshotMeta::default()
    };
    hasher.descriptor(meta)
}

pub(crate) fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

fn entry(term: u64, index: u64, length: usize) -> Entry {
    let byte = u8::try_from((term * 16 + index) % 251 + 1).expect("below 252");
    let kind = match index % 7 {
        2 => EntryKind::Membership,
        _ => EntryKind::Command,
    };
    Entry::new(id(term, index), kind, Bytes::from(vec![byte; length]))
}

/// Entries `first..` of `term`.
pub(super) fn batch(term: u64, first: u64, lengths: &[usize]) -> AppendBatch {
    let entries = (first..).zip(lengths);
    AppendBatch {
        entries: entries.map(|(i, length)| entry(term, i, *length)).collect(),
        ..AppendBatch::default()
    }
}

pub(crate) fn append(term: u64, first: u64, lengths: &[usize]) -> Step {
    Step::Append(batch(term, first, lengths))
}

pub(crate) fn overwrite(term: u64, first: u64, lengths: &[usize]) -> Step {
    Step::Append(AppendBatch {
        truncate_from: Some(Index(first)),
        ..batch(term, first, lengths)
    })
}

pub(crate) fn vote(term: u64, candidate: u64) -> Step {
    Step::Append(AppendBatch {
        hard_state: Some(HardState {
            term: Term(term),
            vote: Some(NodeId(candidate)),
        }),
        ..AppendBatch::default()
    })
}

/// Steps of all kinds, in an order that a node could make.
pub(super) fn random_steps(random: &mut Random, count: usize) -> Vec<Step> {
    let mut model = Model::default();
    let mut term = 1;
    let mut steps = Vec::new();
    while steps.len() < count {
        term += u64::from(random.below(3) == 0);
        let made = match random.below(12) {
            // A node compacts what its snapshot has.
            0..3 if !model.entries.is_empty() => {
                let to = model.entries[random.below(model.entries.len())].id();
                let is_new = model.snapshot.is_none_or(|s| s.index < to.index);
                let snapshot = is_new.then_some(Step::Snapshot(to));
                let compact = Step::Compact(to);
                snapshot.into_iter().chain([compact]).collect()
            }
            3 => {
                let last = id(term, model.last().index.0 + 1 + random.below(5) as u64);
                let some = Step::ReceiveSome(last, random.below(4));
                vec![some, Step::Install(last), Step::Reset(last)]
            }
            4 => vec![Step::GiveUp(id(term, model.last().index.0 + 1))],
            5 => vec![vote(term, 1 + random.below(3) as u64)],
            _ => vec![random_append(random, &model, term)],
        };
        for step in made {
            model.apply(&step);
            steps.push(step);
        }
    }
    steps
}

fn random_append(random: &mut Random, model: &Model, term: u64) -> Step {
    let mut last = model.last().index.0;
    let held = model.entries.len() as u64;
    let mut made = AppendBatch::default();
    if random.below(4) == 0 {
        made.hard_state = Some(HardState {
            term: Term(term),
            vote: None,
        });
    }
    if held > 0 && random.below(4) == 0 {
        last -= 1 + random.number() % held.min(3);
        made.truncate_from = Some(Index(last + 1));
    }
    let lengths: Vec<_> = (0..=random.below(3))
        .map(|_| match random.below(10) {
            0 => 4_000,
            1..4 => 1_200,
            _ => random.below(200),
        })
        .collect();
    made.entries = batch(term, last + 1, &lengths).entries;
    Step::Append(made)
}
