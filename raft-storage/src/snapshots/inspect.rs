//! Looks at a directory of snapshots without changing anything.

use std::path::Path;

use raft_core::{LogId, StorageError};

use super::directory::{PARTIAL_NAME, SUFFIX, TEMPORARY_SUFFIX, last_of};
use crate::errors::foreign;
use crate::files::Disk;
use crate::inspection::{
    FileKind, FileReport, Finding, FindingKind, SnapshotsReport, list, name_of,
};
use crate::owner::WalOwner;
use crate::snapshot_file::{PartialFile, SnapshotOrigin, verify};

/// Reads every snapshot in `dir` to its end, and what is there of one that is being received. A
/// directory that is missing holds none. Changes nothing. Blocks its thread.
///
/// # Errors
/// Where the directory cannot be listed.
pub fn inspect_snapshots(dir: &Path, owner: &WalOwner) -> Result<SnapshotsReport, StorageError> {
    let mut report = SnapshotsReport::default();
    let disk = Disk::default();
    if !disk.is_dir(dir) {
        return Ok(report);
    }
    let origin = SnapshotOrigin {
        cluster: owner.cluster,
        node: owner.node,
    };
    let paths = list(&disk, dir)?;
    let complete = paths.iter().filter_map(|path| last_of(&name_of(path)));
    let newest = complete.max_by_key(|last| (last.index, last.term));
    for path in paths {
        let name = name_of(&path).into_owned();
        let kind = if let Some(last) = last_of(&name) {
            report.look_at(&path, last, newest == Some(last), origin);
            FileKind::Snapshot
        } else if name == PARTIAL_NAME {
            report.look_at_partial(&path, origin);
            FileKind::Incoming
        } else if name.ends_with(TEMPORARY_SUFFIX) {
            let what = "a snapshot that was being written when the process ended";
            report.leftover(&path, 0, what.to_owned());
            FileKind::Temporary
        } else if name.ends_with(SUFFIX) {
            let error = foreign(&path, "has a name that no snapshot has");
            report
                .findings
                .push(Finding::from_error(error, dir, FindingKind::Snapshot));
            FileKind::Other
        } else if name == "lock" {
            FileKind::Lock
        } else {
            FileKind::Other
        };
        report.files.push(FileReport::new(&disk, path, kind)?);
    }
    Ok(report)
}

impl SnapshotsReport {
    fn leftover(&mut self, path: &Path, offset: u64, what: String) {
        self.findings.push(Finding {
            path: path.to_owned(),
            offset,
            what,
            kind: FindingKind::Leftover,
        });
    }

    /// A snapshot under its final name. Only the newest one counts.
    fn look_at(&mut self, path: &Path, last: LogId, is_newest: bool, origin: SnapshotOrigin) {
        let checked = verify(path).and_then(|(descriptor, found)| {
            if found != origin {
                let what = format!("is of node {} of cluster {}", found.node, found.cluster);
                return Err(foreign(path, what));
            }
            if descriptor.meta.last != last {
                let what = format!("is a snapshot up to {}", descriptor.meta.last);
                return Err(foreign(path, what));
            }
            Ok(descriptor)
        });
        match checked {
            Ok(descriptor) if is_newest => self.latest = Some(descriptor),
            Ok(_) => self.leftover(path, 0, "a newer snapshot is there".to_owned()),
            Err(error) if is_newest => {
                let finding = Finding::from_error(error, path, FindingKind::Snapshot);
                self.findings.push(finding);
            }
            Err(error) => {
                let finding = Finding::from_error(error, path, FindingKind::Leftover);
                self.leftover(path, finding.offset, finding.what);
            }
        }
    }

    /// A transfer goes on behind the last whole part, so nothing that is wrong with it matters.
    fn look_at_partial(&mut self, path: &Path, origin: SnapshotOrigin) {
        match PartialFile::read(&Disk::default(), path) {
            Ok(found) if found.origin != origin => {
                let what = "a transfer to another node; it begins anew".to_owned();
                self.leftover(path, 0, what);
            }
            Ok(found) => {
                if let Some(what) = found.damage {
                    let what = format!("{what}; the transfer goes on there");
                    self.leftover(path, found.end, what);
                }
            }
            Err(error) => {
                let finding = Finding::from_error(error, path, FindingKind::Leftover);
                let what = format!("{}; the transfer begins anew", finding.what);
                self.leftover(path, finding.offset, what);
            }
        }
    }
}
