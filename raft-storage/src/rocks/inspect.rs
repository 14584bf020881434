//! Looks at a log in RocksDB without changing anything: the database is opened for reading only,
//! every block of its files is checked, and every entry is read as readers do.

use std::path::Path;

use raft_core::StorageError;
use rocksdb::{IteratorMode, ReadOptions};

use super::database::Shared;
use super::opening;
use super::options::ENTRIES;
use super::tail::find_torn;
use crate::files::Disk;
use crate::inspection::{FileKind, FileReport, Finding, FindingKind, LogReport, list, name_of};
use crate::owner::WalOwner;
use crate::rocks_errors::rocks_error;

/// Bytes of entries that are looked at at once, unless a single one is larger.
const READ_BYTES: usize = 4 << 20;

/// Reads all of the log in `dir` and says what is there. Changes nothing. Blocks its thread.
///
/// # Errors
/// Where the directory cannot be listed.
pub fn inspect_rocks(dir: &Path, owner: &WalOwner) -> Result<LogReport, StorageError> {
    let mut report = LogReport::default();
    let disk = Disk::default();
    for path in list(&disk, dir)? {
        let kind = match &*name_of(&path) {
            "LOCK" => FileKind::Lock,
            _ => FileKind::Database,
        };
        report.files.push(FileReport::new(&disk, path, kind)?);
    }
    if let Ok(Some(torn)) = find_torn(&disk, dir) {
        report.add(Finding {
            path: torn.path,
            offset: torn.offset,
            what: format!("the last {} bytes were never finished", torn.bytes),
            kind: FindingKind::TornTail,
        });
    }
    let looked = Shared::open_read_only(dir, owner).and_then(|shared| {
        report.records = check_blocks(&shared)?;
        describe(&shared, &mut report)
    });
    if let Err(error) = looked {
        report.add(Finding::from_error(error, dir, FindingKind::Log));
    }
    Ok(report)
}

/// Reads every key and value, with the checksum of every block; returns how many there are.
fn check_blocks(shared: &Shared) -> Result<u64, StorageError> {
    let mut keys = 0;
    for family in [opening::family(&shared.db, ENTRIES), shared.meta()] {
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        options.fill_cache(false);
        for found in shared
            .db
            .iterator_cf_opt(family, options, IteratorMode::Start)
        {
            found.map_err(|error| rocks_error("read", &shared.path, &error))?;
            keys += 1;
        }
    }
    Ok(keys)
}

fn describe(shared: &Shared, report: &mut LogReport) -> Result<(), StorageError> {
    let durable = shared.durable().clone();
    report.hard_state = Some(durable.hard_state);
    report.start = durable.outline.start();
    report.last = durable.outline.last();
    report.entry_bytes = durable.log_bytes;
    let end = report.last.index.next();
    let mut next = durable.outline.first_index();
    while next < end {
        let entries = shared.read(next..end, READ_BYTES)?;
        let Some(last) = entries.last().map(raft_core::Entry::index) else {
            return Err(shared.damaged(format!("entry {next} is missing")));
        };
        next = last.next();
        let newest = durable.memberships.last();
        let membership = entries
            .into_iter()
            .find(|entry| Some(&entry.index()) == newest);
        report.membership = membership.or(report.membership.take());
    }
    Ok(())
}
