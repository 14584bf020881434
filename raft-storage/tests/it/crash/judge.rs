//! Opens what a crash left, and says what is wrong with it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use raft_core::{HardState, LoadedLog, LogId, LogStore, StorageError};
use raft_storage::sim_disk::{Image, SimDisk};
use raft_storage::{RecoveryReport, WalLogStore, WalOptions};

use super::steps::{Model, append, descriptor, parts};
use crate::conformance::OWNER;

pub(super) const LOG_DIR: &str = "/node/log";
const SNAPSHOT_DIR: &str = "/node/snapshots";

/// Names that may be there once a log was opened, besides segments and what was kept aside.
const NAMES: [&str; 3] = ["lock", "reserve", "incoming"];

/// Small segments on this disk.
pub(super) fn options(disk: &SimDisk) -> WalOptions {
    WalOptions {
        segment_bytes: WalOptions::SEGMENT_BYTES_MIN,
        // One is written when the store is dropped, so that cuts around it are tried as well.
        witness_after: Some(Duration::from_secs(3_600)),
        disk: disk.disk(),
        ..WalOptions::default()
    }
}

pub(crate) fn open(disk: &SimDisk) -> Result<(WalLogStore, RecoveryReport), StorageError> {
    WalLogStore::open(Path::new(LOG_DIR), OWNER, options(disk))
}

/// As [`open`]; a damaged log is begun anew where its promises are certain.
pub(crate) fn open_to_repair(
    disk: &SimDisk,
) -> Result<(WalLogStore, RecoveryReport), StorageError> {
    let options = WalOptions {
        repair: true,
        ..options(disk)
    };
    WalLogStore::open(Path::new(LOG_DIR), OWNER, options)
}

/// A log that is to be filled again, and how far it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refilling {
    hard_state: HardState,
    pub(super) start: LogId,
    pub(super) last: LogId,
    pub(super) refill_to: LogId,
}

impl Refilling {
    /// What was promised is kept, and what was acknowledged is missed.
    pub(crate) fn check(&self, promised: &Model, case: &str) {
        let (last, hard_state) = (promised.last(), promised.hard_state);
        assert_eq!(
            self.hard_state, hard_state,
            "{case}: of another term or vote"
        );
        assert!(self.refill_to >= last, "{case}: {self:?}, it had {last}");
        assert!(self.start <= promised.start, "{case}: {self:?}");
    }
}

/// A store that is open: a log with all its entries, or one that is to be filled again.
pub(crate) async fn whole_or_refilling(
    store: &mut WalLogStore,
) -> Result<Result<Model, Refilling>, StorageError> {
    let loaded = store.load().await?;
    let Some(refill_to) = loaded.refill_to else {
        return contents(store).await.map(Ok);
    };
    Ok(Err(Refilling {
        hard_state: loaded.hard_state,
        start: loaded.start,
        last: loaded.last,
        refill_to,
    }))
}

/// All that a store says it holds; each byte is read.
pub(super) async fn contents(store: &mut WalLogStore) -> Result<Model, StorageError> {
    let loaded = store.load().await?;
    let mut entries = Vec::new();
    if loaded.last.index > loaded.start.index {
        let all = loaded.start.index.next()..loaded.last.index.next();
        entries = store.reader().read(all, usize::MAX).await?;
    }
    // No gap, terms in order, and nothing to be refilled: a crash is no damage.
    let expected = LoadedLog::of_entries(loaded.hard_state, loaded.start, &entries);
    assert_eq!(loaded, expected);
    Ok(Model {
        hard_state: loaded.hard_state,
        start: loaded.start,
        entries,
        snapshot: newest_snapshot(store).await?,
    })
}

pub(super) async fn newest_snapshot(store: &WalLogStore) -> Result<Option<LogId>, StorageError> {
    let snapshots = store.snapshots();
    let Some(latest) = snapshots.latest() else {
        return Ok(None);
    };
    let last = latest.meta.last;
    assert_eq!(latest, descriptor(last));
    let mut reader = snapshots.open(last).await?;
    for part in parts(last) {
        assert_eq!(reader.next_part().await?, Some(part));
    }
    assert_eq!(reader.next_part().await?, None);
    Ok(Some(last))
}

/// What was found on a disk, and the disk as opening it left it.
pub(super) struct Recovered {
    pub(super) model: Model,
    pub(super) disk: SimDisk,
}

/// Opens `image`, looks at everything, and opens it again.
pub(super) async fn recover(image: &Image, case: &str) -> Recovered {
    let disk = SimDisk::recorded(image);
    let (mut store, _) = open(&disk).unwrap_or_else(|error| panic!("{case}: {error}"));
    let found = contents(&mut store).await;
    let model = found.unwrap_or_else(|error| panic!("{case}: {error}"));
    check_start(&model, case);
    check_litter(&disk, &model, &["torn-", "recycled-"], case);
    drop(store);
    // The same once more, and nothing is left to be repaired.
    let again = disk.restart();
    let (mut store, report) = open(&again).unwrap_or_else(|e| panic!("{case}, again: {e}"));
    assert_eq!(report.cut, None, "{case}: cut twice");
    let second = contents(&mut store)
        .await
        .expect("what was read can be read");
    assert_eq!(second, model, "{case}: opened twice");
    // What the first opening took out of the log is of no use to the second one.
    check_litter(&again, &model, &["torn-"], case);
    drop(store);
    Recovered { model, disk }
}

/// What was compacted is in a durable snapshot.
fn check_start(model: &Model, case: &str) {
    let covered = model.snapshot.map_or(0, |last| last.index.0);
    let start = model.start.index.0;
    assert!(
        start <= covered,
        "{case}: the log begins behind {start}, a snapshot has {covered}"
    );
}

/// Nothing is there that nobody needs; what is kept has one of these prefixes.
fn check_litter(disk: &SimDisk, model: &Model, kept: &[&str], case: &str) {
    let seen = disk.seen();
    for name in seen.files_in(Path::new(LOG_DIR)).keys() {
        let name = name.to_string_lossy();
        let is_kept = kept.iter().any(|prefix| name.starts_with(prefix));
        let is_known = NAMES.contains(&&*name) || is_kept;
        assert!(
            is_known || name.ends_with(".wal"),
            "{case}: {name} is left over"
        );
    }
    let mut snapshots: BTreeSet<_> = seen.files_in(Path::new(SNAPSHOT_DIR)).into_keys().collect();
    if let Some(last) = model.snapshot {
        let name = format!("{:020}-{:020}.snap", last.index.0, last.term.0);
        assert!(snapshots.remove(Path::new(&name)), "{case}: {name} is gone");
    }
    for name in snapshots {
        let name = name.to_string_lossy();
        assert!(NAMES.contains(&&*name), "{case}: {name} is left over");
    }
}

/// Writes behind what was found, and opens once more.
pub(super) async fn write_on(recovered: &Recovered, case: &str) {
    let disk = recovered.disk.restart();
    let mut model = recovered.model.clone();
    let next = append(10_000, model.last().index.0 + 1, &[300, 20]);
    let (mut store, _) = open(&disk).expect("it was opened before");
    next.run(&mut store).await.expect("it can be written on");
    model.apply(&next);
    drop(store);
    let (mut store, report) = open(&disk.restart()).expect("nothing was interrupted");
    assert_eq!(report.cut, None, "{case}, written on");
    let found = contents(&mut store).await.expect("it can be read");
    assert_eq!(found, model, "{case}, written on");
}
