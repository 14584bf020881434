//! What is said of the disk of a stopped node: files, facts and findings. Who finds them is beside
//! each store.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use raft_core::{Entry, HardState, LogId, SnapshotDescriptor, StorageError};

use crate::files::Disk;

/// What was found in the directory of a log.
#[derive(Clone, Debug, Default)]
pub struct LogReport {
    /// Term and vote. None where they could not be read.
    pub hard_state: Option<HardState>,
    /// How far the log must be filled again by a leader before the node counts as whole.
    pub refill_to: Option<LogId>,
    /// The entry behind which the log begins.
    pub start: LogId,
    /// The last entry that is there; `start` where there is none.
    pub last: LogId,
    /// Encoded bytes of the entries that the log holds.
    pub entry_bytes: u64,
    /// The newest entry that holds a membership, where the log has one.
    pub membership: Option<Entry>,
    /// Whole records, or keys.
    pub records: u64,
    /// Every file of the directory, by name.
    pub files: Vec<FileReport>,
    /// What is not as it should be, or will be cleared away.
    pub findings: Vec<Finding>,
}

/// What was found in the directory of snapshots.
#[derive(Clone, Debug, Default)]
pub struct SnapshotsReport {
    /// The newest complete one, where it is whole.
    pub latest: Option<SnapshotDescriptor>,
    /// Every file of the directory, by name.
    pub files: Vec<FileReport>,
    /// What is not as it should be, or will be cleared away.
    pub findings: Vec<Finding>,
}

/// What was found in the directory of a state that is kept in RocksDB.
#[derive(Clone, Debug, Default)]
pub struct StateReport {
    /// The last entry that is part of it. None where there is no state, or it cannot be read.
    pub applied: Option<LogId>,
    /// Keys of the database, those included that are not the state machine's.
    pub records: u64,
    /// Every file of the directory, by name.
    pub files: Vec<FileReport>,
    /// What is not as it should be, or will be cleared away.
    pub findings: Vec<Finding>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// What it is.
    pub kind: FileKind,
}

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A part of a log in files.
    Segment(SegmentReport),
    /// The next segment, being prepared.
    Spare,
    /// The copy of a torn tail that was cut.
    TornCopy,
    /// A snapshot under its final name.
    Snapshot,
    /// A snapshot that is being received.
    Incoming,
    /// What a crash left behind.
    Temporary,
    /// A damaged segment that was put aside when the log was begun anew.
    DamagedCopy,
    /// What the lock is on.
    Lock,
    /// A file of RocksDB.
    Database,
    /// None of ours; left alone.
    Other,
}

/// A segment file, by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentReport {
    /// Its number.
    pub sequence: u64,
    /// The version of its format; 0 where that could not be read.
    pub version: u32,
    /// Whole records in it.
    pub records: u64,
    /// Bytes up to the end of the last whole record.
    pub used_bytes: u64,
    /// The first and the last entry in it, where it has any; counted or not.
    pub entries: Option<(LogId, LogId)>,
    /// Whether it is full and closed.
    pub is_sealed: bool,
}

/// Something that is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, or the directory where no single file is to blame.
    pub path: PathBuf,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
    /// What kind of thing it is.
    pub kind: FindingKind,
}

/// What kind of thing was found, and so what comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// A write that was never finished at the end of the log; cut when the log is opened.
    TornTail,
    /// Removed when the node starts; nothing depends on it.
    Leftover,
    /// Entries are lost that the node may have acknowledged; its term and vote are certain. The
    /// leader makes up for it.
    Refillable,
    /// The log cannot be opened, and nothing is certain about its term and vote.
    Log,
    /// The newest snapshot is not what was written.
    Snapshot,
    /// The state is not what was written. Snapshot and log have all that it is made of.
    State,
    /// It belongs to somebody else, or was written by a newer program.
    Foreign,
    /// The system did not let it be read.
    Unreadable,
}

impl FindingKind {
    /// Whether the node is none the worse for it.
    #[must_use]
    pub fn is_harmless(self) -> bool {
        matches!(self, Self::TornTail | Self::Leftover)
    }
}

impl Finding {
    /// What a store said when it refused a file. `kind` is what damage counts as.
    pub(crate) fn from_error(error: StorageError, dir: &Path, kind: FindingKind) -> Self {
        match error {
            StorageError::Damaged { path, offset, what } => Self {
                path: path.into(),
                offset,
                what,
                kind,
            },
            StorageError::Foreign { path, what } => Self {
                path: path.into(),
                offset: 0,
                what,
                kind: FindingKind::Foreign,
            },
            StorageError::Io {
                operation,
                path,
                message,
            } => Self {
                path: path.into(),
                offset: 0,
                what: format!("cannot {operation} it: {message}"),
                kind: FindingKind::Unreadable,
            },
            other => Self {
                path: dir.to_owned(),
                offset: 0,
                what: other.to_string(),
                kind: FindingKind::Unreadable,
            },
        }
    }
}

/// The paths of a directory, sorted by name.
pub(crate) fn list(disk: &Disk, dir: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let mut paths = disk.list(dir)?;
    paths.sort_unstable();
    Ok(paths)
}

/// The last part of a path.
pub(crate) fn name_of(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

impl FileReport {
    /// What is known of a file that is there.
    pub(crate) fn new(disk: &Disk, path: PathBuf, kind: FileKind) -> Result<Self, StorageError> {
        let bytes = disk.open_to_read(&path)?.length()?;
        Ok(Self { path, bytes, kind })
    }
}

impl StateReport {
    /// Adds what the state was refused for. `dir` is to blame where no file is.
    pub fn add(&mut self, error: StorageError, dir: &Path) {
        let finding = Finding::from_error(error, dir, FindingKind::State);
        self.findings.push(finding);
    }

    /// Adds that the state is of an entry that neither log nor snapshot have, which end with `end`.
    pub fn add_ahead(&mut self, dir: &Path, applied: LogId, end: LogId) {
        self.findings.push(Finding {
            path: dir.to_owned(),
            offset: 0,
            what: format!(
                "the state is as of entry {applied}, but log and snapshot end with {end}"
            ),
            kind: FindingKind::Log,
        });
    }
}

impl LogReport {
    /// Adds a finding, but not a second one about the same place.
    pub(crate) fn add(&mut self, finding: Finding) {
        add(&mut self.findings, finding);
    }

    /// A file that does not count any more: what is wrong with it harms nobody.
    pub(crate) fn make_leftover(&mut self, path: &Path) {
        self.findings.retain(|finding| finding.path != path);
        self.findings.push(Finding {
            path: path.to_owned(),
            offset: 0,
            what: "a later segment began the log anew".to_owned(),
            kind: FindingKind::Leftover,
        });
    }
}

/// Adds a finding, but not a second one about the same place.
pub(crate) fn add(findings: &mut Vec<Finding>, finding: Finding) {
    let is_same = |other: &Finding| (&other.path, other.offset) == (&finding.path, finding.offset);
    if !findings.iter().any(is_same) {
        findings.push(finding);
    }
}
