//! Tests of the file log that look inside: damage, power cuts, failing files. What every store must
//! do is in `crate::conformance`.

mod damage;
mod failures;
mod power_cuts;
mod witness;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use raft_core::{
    AppendBatch, ClusterId, Entry, EntryKind, HardState, Incarnation, Index, LogId, LogStore,
    NodeId, StorageError, Term,
};
use tempfile::TempDir;

use super::{RecoveryReport, WalLogStore, WalOptions};
use crate::files::Disk;
use crate::files::probe::{Image, Probe};
use crate::owner::WalOwner;

const OWNER: WalOwner = WalOwner {
    cluster: ClusterId([9; 16]),
    node: NodeId(4),
    incarnation: Incarnation(77),
};

/// A log as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    hard_state: HardState,
    entries: Vec<Entry>,
}

impl Model {
    fn apply(&mut self, batch: &AppendBatch) {
        *self = self
            .steps(batch)
            .pop()
            .expect("there is always the last one");
    }

    /// What a crash while `batch` is written may leave: nothing of it, each part in order, all of
    /// it.
    fn steps(&self, batch: &AppendBatch) -> Vec<Self> {
        let mut steps = vec![self.clone()];
        let mut model = self.clone();
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
        steps
    }
}

/// SplitMix64, seeded.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("below a usize")
    }
}

fn entry(term: u64, index: u64, length: usize) -> Entry {
    let id = LogId::new(Term(term), Index(index));
    let byte = u8::try_from((term * 16 + index) % 251 + 1).expect("below 252");
    Entry::new(id, EntryKind::Command, Bytes::from(vec![byte; length]))
}

/// Entries `first..` of `term`.
fn entries(term: u64, first: u64, lengths: &[usize]) -> AppendBatch {
    let indexes = first..;
    AppendBatch {
        entries: indexes
            .zip(lengths)
            .map(|(i, len)| entry(term, i, *len))
            .collect(),
        ..AppendBatch::default()
    }
}

fn vote(term: u64, candidate: u64) -> AppendBatch {
    AppendBatch {
        hard_state: Some(HardState {
            term: Term(term),
            vote: Some(NodeId(candidate)),
        }),
        ..AppendBatch::default()
    }
}

/// Batches of all kinds over `model`, some larger than a small segment.
fn random_batches(random: &mut Random, count: usize) -> Vec<AppendBatch> {
    let (mut last, mut term) = (0, 1);
    let mut batches = Vec::new();
    for _ in 0..count {
        term += u64::from(random.below(3) == 0);
        let mut batch = AppendBatch::default();
        if random.below(3) == 0 {
            batch.hard_state = vote(term, 1 + random.below(3) as u64).hard_state;
        }
        if last > 0 && random.below(4) == 0 {
            last -= random.below(4).min(last);
            batch.truncate_from = Some(Index(last as u64 + 1));
        }
        let lengths: Vec<_> = (0..random.below(5))
            .map(|_| match random.below(12) {
                0 => 9_000,
                1..4 => 1_500,
                _ => random.below(200),
            })
            .collect();
        batch.entries = entries(term, last as u64 + 1, &lengths).entries;
        last += lengths.len();
        batches.push(batch);
    }
    batches
}

fn scratch_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    dir.expect("a scratch directory can be made")
}

fn options(probe: Option<&Arc<Probe>>) -> WalOptions {
    WalOptions {
        segment_bytes: WalOptions::SEGMENT_BYTES_MIN,
        witness_after: None,
        disk: Disk {
            probe: probe.cloned(),
        },
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

fn write_dir(image: &Image) -> TempDir {
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
    if loaded.last.index > Index(0) {
        let all = Index(1)..loaded.last.index.next();
        held = store.reader().read(all, usize::MAX).await?;
        assert_eq!(held.last().map(Entry::id), Some(loaded.last));
    }
    Ok(Model {
        hard_state: loaded.hard_state,
        entries: held,
    })
}

/// Writes batches into a new log.
async fn write_log(dir: &Path, batches: &[AppendBatch]) -> Model {
    let (mut store, _) = open(dir).unwrap();
    let mut model = Model::default();
    for batch in batches {
        store.append(batch.clone()).await.unwrap();
        model.apply(batch);
    }
    assert_eq!(contents(&mut store).await.unwrap(), model);
    model
}
