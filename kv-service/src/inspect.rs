//! Looks at everything that a stopped node has on its disk, changes nothing, and says of each thing
//! that is not as it should be what it means for the node.

use std::fmt;
use std::path::{Path, PathBuf};

use raft_core::{LogId, Membership, NodeId, StorageError};
use raft_storage::WalOwner;
pub use raft_storage::inspect::{
    FileKind, FileReport, Finding, FindingKind, LogReport, SegmentReport, SnapshotsReport,
    StateReport,
};
use raft_storage::inspect::{inspect_snapshots, inspect_wal};

use crate::config::{Backends, NodeConfig, StateKind, StorageKind};
use crate::files::{entry_names, is_directory};
use crate::identity::{Owner, compare_owners, log_path, state_path};
use crate::identity_error::IdentityError;
pub use crate::state_facts::StateFacts;
use crate::stopped::StoppedDirectory;

/// All that was found.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The data directory.
    pub path: PathBuf,
    /// Whose it is.
    pub owner: Owner,
    /// Where the log is kept.
    pub storage: StorageKind,
    /// Where the state is kept.
    pub state: StateKind,
    /// How often the node was started; none where that cannot be read.
    pub boot: Option<u64>,
    /// Who belongs to the cluster, as far as this node knows.
    pub membership: Membership,
    /// The log.
    pub log: LogReport,
    /// The snapshots.
    pub snapshots: SnapshotsReport,
    /// The files of the state; none where it is kept in memory.
    pub state_files: StateReport,
    /// What is in the state; none where it is kept in memory, not there yet or damaged.
    pub state_facts: Option<StateFacts>,
    /// What is not as it should be, the harmless included, in the order of the files.
    pub problems: Vec<Problem>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, or the directory where no single file is to blame.
    pub path: PathBuf,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub what: String,
    /// What comes of it.
    pub meaning: Meaning,
}

/// What comes of something that is wrong, and what is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The last write was never finished and never acknowledged; the node cuts it off.
    TornTail,
    /// Left by a crash; the node removes it.
    Leftover,
    /// The node cannot go on with what it has. Others have it: it is to come back as a new member.
    LostDisk(NodeId),
    /// The node cannot count as whole until a leader has sent it what is missing.
    Refilled,
    /// The same, and there are no others.
    Backup,
    /// The state can be made again from what else is on the disk.
    State,
    /// It is not this node's.
    Foreign,
    /// A small file that holds nothing but this; it can be made anew.
    ResetKey,
    /// The system does not let it be read.
    Unreadable,
}

impl Meaning {
    /// Whether there is nothing to be done.
    #[must_use]
    pub fn is_harmless(self) -> bool {
        matches!(self, Self::TornTail | Self::Leftover)
    }

    /// One word, for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TornTail => "torn-tail",
            Self::Leftover => "leftover",
            Self::LostDisk(_) => "lost-disk",
            Self::Backup => "restore-backup",
            Self::Refilled => "refilled-by-leader",
            Self::State => "remake-state",
            Self::Foreign => "foreign",
            Self::ResetKey => "reset-key",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What is to be done.
impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TornTail => f.write_str(
                "harmless torn tail: it was never acknowledged, and is cut at the next start",
            ),
            Self::Leftover => f.write_str("harmless: it is removed at the next start"),
            Self::LostDisk(node) => write!(
                f,
                "lost disk: move the data directory away, then `flotilla member replace {node}`"
            ),
            Self::Refilled => f.write_str(
                "will be repaired from the leader: start the node; until it has everything again \
                 it does not vote, lead or acknowledge",
            ),
            Self::Backup => f.write_str(
                "this node is the only voter, so nobody else has its data: restore a backup with \
                 `flotilla snapshot restore`",
            ),
            Self::State => f.write_str(
                "snapshot and log have all of it: move the directory `state` away, and the node \
                 makes it again when it starts",
            ),
            Self::Foreign => f.write_str(
                "it belongs to another node or program: put this node's own directory back, or \
                 start it with the program that wrote it",
            ),
            Self::ResetKey => {
                f.write_str("write 64 random bytes into it; nothing depends on which")
            }
            Self::Unreadable => f.write_str(
                "the system refuses to read it: look at its permissions and at the disk; where the \
                 disk is at fault, it is lost",
            ),
        }
    }
}

impl Inspection {
    /// Whether the node can be started as it is.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problems
            .iter()
            .all(|problem| problem.meaning.is_harmless())
    }
}

/// Looks at the data directory of a node. Blocks its thread for as long as it takes to read all of
/// it.
///
/// # Errors
/// When there is no such directory, it is another node's, it cannot be listed, or a process has it
/// open.
pub fn inspect(config: &NodeConfig) -> Result<Inspection, InspectError> {
    let expected = Owner {
        cluster: config.cluster,
        node: config.id,
        incarnation: config.incarnation(),
    };
    look_at(&config.data, Some((expected, config)))
}

/// The same for a data directory alone, without a configuration that says whose it should be.
///
/// # Errors
/// As [`inspect`]; also where the directory does not say whose it is.
pub fn inspect_data(path: &Path) -> Result<Inspection, InspectError> {
    look_at(path, None)
}

/// A directory that cannot be looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// It is none, is somebody else's, or is in use.
    #[error(transparent)]
    Directory(#[from] IdentityError),
    /// It cannot be listed.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// A RocksDB log, in a program that cannot read it.
    #[error(
        "{} is of storage rocksdb, which is not in this program: build it with \
         `--features rocksdb`", .0.display()
    )]
    WithoutRocksdb(PathBuf),
    /// A state in RocksDB, in a program that cannot read it.
    #[error(
        "{} is a state in RocksDB, which is not in this program: build it with \
         `--features rocksdb`", .0.display()
    )]
    StateWithoutRocksdb(PathBuf),
    /// Nothing is kept.
    #[error("{} is of storage memory: nothing is kept in it", .0.display())]
    Memory(PathBuf),
}

/// Who belongs to the cluster as far as the disk of a node says, whose log may be damaged; those of
/// its configuration where it does not say. Blocks its thread, and reads all of the disk.
pub(crate) fn known_members(
    config: &NodeConfig,
    owner: Owner,
    storage: StorageKind,
) -> Result<Membership, InspectError> {
    let path = &config.data;
    let snapshots = inspect_snapshots(&path.join("snapshots"), &wal_owner(owner))?;
    let log = inspect_log(path, &log_path(path, storage), storage, owner, &snapshots)?;
    Ok(membership(&log, &snapshots, Some(&config.members)))
}

/// Whether nobody else can have what this node lost.
pub(crate) fn is_alone(node: NodeId, members: &Membership) -> bool {
    members.voters().eq([node])
}

fn look_at(
    path: &Path,
    expected: Option<(Owner, &NodeConfig)>,
) -> Result<Inspection, InspectError> {
    let node = expected.as_ref().map_or(NodeId(0), |(owner, _)| owner.node);
    let directory = StoppedDirectory::open(path, node)?;
    let mut wrong = Wrong::default();
    let (owner, Backends { storage, state }) = match (&directory.identity, &expected) {
        (Ok((found, backends)), Some((owner, _))) => {
            compare_owners(path, found, owner)?;
            (*owner, *backends)
        }
        (Ok((found, backends)), None) => (*found, *backends),
        (Err(error @ IdentityError::Damaged { .. }), Some((owner, config))) => {
            wrong.small_file(error, Cause::Identity);
            (*owner, config.backends())
        }
        (Err(error), _) => return Err(error.clone().into()),
    };
    wrong.small_files(&directory);
    let boot = directory.boot.clone().ok();
    let snapshots = inspect_snapshots(&path.join("snapshots"), &wal_owner(owner))?;
    let log_dir = log_path(path, storage);
    let is_there = is_directory(&log_dir) && entry_names(&log_dir).is_ok_and(|it| !it.is_empty());
    let log = if is_there || !storage.is_durable() {
        inspect_log(path, &log_dir, storage, owner, &snapshots)?
    } else {
        // A node that was never started has none yet.
        if boot != Some(0) {
            let what = "the log is gone".to_owned();
            wrong.add(&log_dir, Cause::Store(FindingKind::Log), what);
        }
        LogReport::default()
    };
    if snapshots
        .findings
        .iter()
        .all(|finding| finding.kind.is_harmless())
    {
        wrong.gap(&log, &log_dir, &snapshots);
    }
    let (state_files, state_facts) = match state {
        StateKind::Memory => (StateReport::default(), None),
        StateKind::Rocksdb => inspect_kept_state(path, owner, &log, &snapshots)?,
    };
    let membership = membership(
        &log,
        &snapshots,
        expected.map(|(_, config)| &config.members),
    );
    wrong.store(&log.findings);
    wrong.store(&snapshots.findings);
    wrong.store(&state_files.findings);
    let problems = wrong.0.into_iter();
    let problems = problems.map(|(it, cause)| problem(it, cause, owner.node, &membership));
    Ok(Inspection {
        path: path.to_owned(),
        owner,
        storage,
        state,
        boot,
        problems: problems.collect(),
        membership,
        log,
        snapshots,
        state_files,
        state_facts,
    })
}

fn wal_owner(owner: Owner) -> WalOwner {
    WalOwner {
        cluster: owner.cluster,
        node: owner.node,
        incarnation: owner.incarnation,
    }
}

fn inspect_log(
    path: &Path,
    log_dir: &Path,
    storage: StorageKind,
    owner: Owner,
    snapshots: &SnapshotsReport,
) -> Result<LogReport, InspectError> {
    let latest = snapshots.latest.as_ref();
    let snapshot = latest.map_or(LogId::ZERO, |latest| latest.meta.last);
    match storage {
        StorageKind::File => Ok(inspect_wal(log_dir, &wal_owner(owner), snapshot)?),
        StorageKind::Rocksdb => inspect_rocksdb(log_dir, owner),
        StorageKind::Memory => Err(InspectError::Memory(path.to_owned())),
    }
}

#[cfg(feature = "rocksdb")]
fn inspect_rocksdb(log_dir: &Path, owner: Owner) -> Result<LogReport, InspectError> {
    Ok(raft_storage::inspect::inspect_rocks(
        log_dir,
        &wal_owner(owner),
    )?)
}

#[cfg(not(feature = "rocksdb"))]
fn inspect_rocksdb(log_dir: &Path, _owner: Owner) -> Result<LogReport, InspectError> {
    Err(InspectError::WithoutRocksdb(log_dir.to_owned()))
}

/// Looks at the state, and whether log and snapshot have all that is in it.
fn inspect_kept_state(
    path: &Path,
    owner: Owner,
    log: &LogReport,
    snapshots: &SnapshotsReport,
) -> Result<(StateReport, Option<StateFacts>), InspectError> {
    let (mut files, facts) = inspect_state(path, owner)?;
    if let Some((applied, end)) = ahead(&files, log, snapshots) {
        files.add_ahead(&state_path(path), applied, end);
    }
    Ok((files, facts))
}

#[cfg(feature = "rocksdb")]
fn inspect_state(
    path: &Path,
    owner: Owner,
) -> Result<(StateReport, Option<StateFacts>), InspectError> {
    let found = crate::durable::inspect(&state_path(path), &wal_owner(owner))?;
    Ok(found)
}

#[cfg(not(feature = "rocksdb"))]
fn inspect_state(
    path: &Path,
    _owner: Owner,
) -> Result<(StateReport, Option<StateFacts>), InspectError> {
    Err(InspectError::StateWithoutRocksdb(state_path(path)))
}

/// The last entry of the state, and that of log and snapshot, where it is beyond them. An entry is
/// applied when it is durable in the log, so that cannot be, unless the log lost entries and says
/// so: then the leader still has them.
fn ahead(
    state: &StateReport,
    log: &LogReport,
    snapshots: &SnapshotsReport,
) -> Option<(LogId, LogId)> {
    let is_whole = |findings: &[Finding]| findings.iter().all(|it| it.kind.is_harmless());
    if log.refill_to.is_some() || !is_whole(&log.findings) || !is_whole(&snapshots.findings) {
        return None;
    }
    let latest = snapshots.latest.as_ref();
    let covered = latest.map_or(LogId::ZERO, |latest| latest.meta.last);
    let end = if log.last.index > covered.index {
        log.last
    } else {
        covered
    };
    let applied = state.applied?;
    (applied.index > end.index).then_some((applied, end))
}

/// Why something is wrong.
#[derive(Clone, Copy)]
enum Cause {
    /// The log or the snapshots say so.
    Store(FindingKind),
    /// What says whose the directory is, or how often it was used, cannot be read.
    Identity,
    /// The key of stateless resets cannot be read.
    ResetKey,
}

/// What is wrong.
#[derive(Default)]
struct Wrong(Vec<(Finding, Cause)>);

impl Wrong {
    fn add(&mut self, path: &Path, cause: Cause, what: String) {
        let finding = Finding {
            path: path.to_owned(),
            offset: 0,
            what,
            kind: FindingKind::Log,
        };
        self.0.push((finding, cause));
    }

    fn store(&mut self, findings: &[Finding]) {
        let findings = findings.iter().cloned();
        self.0
            .extend(findings.map(|finding| (finding.clone(), Cause::Store(finding.kind))));
    }

    fn small_files(&mut self, directory: &StoppedDirectory) {
        if let Err(error) = &directory.boot {
            self.small_file(error, Cause::Identity);
        }
        if let Err(error) = &directory.reset_key {
            self.small_file(error, Cause::ResetKey);
        }
    }

    fn small_file(&mut self, error: &IdentityError, cause: Cause) {
        match error {
            IdentityError::Damaged { path, what } => self.add(path, cause, what.clone()),
            IdentityError::File(error) => self.add(&error.path, cause, error.message.clone()),
            other => self.add(Path::new("."), cause, other.to_string()),
        }
    }

    /// The log begins behind a snapshot that must be there.
    fn gap(&mut self, log: &LogReport, log_dir: &Path, snapshots: &SnapshotsReport) {
        let latest = snapshots.latest.as_ref();
        let covered = latest.map_or(LogId::ZERO, |latest| latest.meta.last);
        if log.start.index > covered.index {
            let what = format!(
                "the log begins behind entry {}, and the newest snapshot ends with entry {covered}",
                log.start
            );
            self.add(log_dir, Cause::Store(FindingKind::Snapshot), what);
        }
    }
}

/// Who belongs to the cluster: the newest that the node knows of.
fn membership(
    log: &LogReport,
    snapshots: &SnapshotsReport,
    configured: Option<&Membership>,
) -> Membership {
    let from_log = log
        .membership
        .as_ref()
        .and_then(|entry| Membership::decode(entry.payload()).ok());
    let from_snapshot = || {
        snapshots
            .latest
            .as_ref()
            .map(|latest| latest.meta.membership.clone())
    };
    from_log
        .or_else(from_snapshot)
        .or_else(|| configured.cloned())
        .unwrap_or_default()
}

fn problem(finding: Finding, cause: Cause, node: NodeId, membership: &Membership) -> Problem {
    let is_alone = is_alone(node, membership);
    let meaning = match cause {
        Cause::Store(FindingKind::TornTail) => Meaning::TornTail,
        Cause::Store(FindingKind::Leftover) => Meaning::Leftover,
        Cause::Store(FindingKind::Foreign) => Meaning::Foreign,
        Cause::Store(FindingKind::Unreadable) => Meaning::Unreadable,
        Cause::Store(FindingKind::State) => Meaning::State,
        Cause::ResetKey => Meaning::ResetKey,
        Cause::Store(FindingKind::Refillable) if !is_alone => Meaning::Refilled,
        Cause::Store(FindingKind::Log | FindingKind::Snapshot | FindingKind::Refillable)
        | Cause::Identity
            if is_alone =>
        {
            Meaning::Backup
        }
        Cause::Store(FindingKind::Log | FindingKind::Snapshot | FindingKind::Refillable)
        | Cause::Identity => Meaning::LostDisk(node),
    };
    Problem {
        path: finding.path,
        offset: finding.offset,
        what: finding.what,
        meaning,
    }
}
