//! A new cluster that begins with a snapshot: the state of another one, as an administrator saved
//! it. Nothing is started.
//!
//! It has a cluster id, an authority and members of its own, so neither nodes nor clients can take
//! it for the one that the snapshot is of. **The place in the log is kept**: the first entry of the
//! new cluster comes behind the last one of the snapshot, in a later term. The state counts in
//! places of the log (ids and ages of sessions), and a log that began at 1 again would give the id
//! of a session a second time.

use std::path::Path;

use raft_core::{Index, LogId, Member, MemberRole, Membership, NodeId, SnapshotMeta};
use raft_storage::snapshot_file::SnapshotFileReader;

use crate::compose::log;
use crate::config_file::MemberFile;
use crate::image::{CHECKPOINT, ImageRestorer};
use crate::init_error::InitError;
use crate::making::{ClusterLayout, make_cluster_with};
use crate::plan::{ClusterPlan, PlanError};
use crate::sessions::SessionLimits;
use crate::store::Retention;

/// Makes a cluster whose nodes all begin with the snapshot in a file. The whole file is read and
/// understood before anything is made. Blocks its thread.
///
/// # Errors
/// As [`crate::init::make_cluster`]; also when the file is no snapshot that this program can use.
/// Nothing is made then.
pub fn restore_cluster(plan: &ClusterPlan, snapshot: &Path) -> Result<ClusterLayout, InitError> {
    if !plan.storage.is_durable() {
        return Err(InitError::Plan(PlanError {
            what: "the storage",
            value: plan.storage.name().to_owned(),
            rule: "one that keeps the snapshot: file or rocksdb".to_owned(),
        }));
    }
    check(snapshot, &plan.dir)?;
    make_cluster_with(plan, |node| {
        let content = open(snapshot)?;
        let meta = SnapshotMeta {
            last: content.descriptor().meta.last,
            membership: membership(node.members)?,
        };
        // The log lies beside the snapshots; a node keeps it where its storage does.
        let log_path = crate::identity::log_path(node.data, node.storage);
        log::begin_with(node.storage, &log_path, node.owner, meta, content)
            .map_err(|error| unusable(snapshot, error))
    })
}

/// Reads a snapshot to its end, and everything that is in it. One that consists of files is
/// unpacked beside where the cluster will be.
fn check(snapshot: &Path, dir: &Path) -> Result<(), InitError> {
    let mut content = open(snapshot)?;
    let last = content.descriptor().meta.last;
    if last.index == Index(0) {
        return Err(unusable(snapshot, "it stands for nothing"));
    }
    let first = content.next_part();
    let first = first.map_err(|error| unusable(snapshot, error))?;
    if cfg!(feature = "rocksdb") && first.and_then(|part| part.first().copied()) == Some(CHECKPOINT)
    {
        return check_files(snapshot, last, dir);
    }
    let mut content = open(snapshot)?;
    let limits = (Retention::default(), SessionLimits::default());
    let mut restorer = ImageRestorer::new(limits.0, limits.1);
    let mut parts = 0_u64;
    while let Some(part) = content
        .next_part()
        .map_err(|error| unusable(snapshot, error))?
    {
        let pushed = restorer.push(&part);
        pushed.map_err(|error| unusable(snapshot, format!("part {parts}: {error}")))?;
        parts += 1;
    }
    let restored = restorer.finish(last.index.0);
    restored.map_err(|error| unusable(snapshot, error))?;
    Ok(())
}

#[cfg(feature = "rocksdb")]
fn check_files(snapshot: &Path, last: LogId, dir: &Path) -> Result<(), InitError> {
    let mut content = open(snapshot)?;
    let is_new = !dir.exists();
    crate::files::create_directory(dir)?;
    let scratch = dir.join(CHECKING);
    let checked = (|| {
        let wrong = |error: &dyn ToString| unusable(snapshot, error.to_string());
        let unpacked = crate::durable::Unpacked::begin(&scratch);
        let mut unpacked = unpacked.map_err(|error| wrong(&error))?;
        while let Some(part) = content.next_part().map_err(|error| wrong(&error))? {
            unpacked.push(&part).map_err(|error| wrong(&error))?;
        }
        unpacked.check(last).map_err(|error| wrong(&error))
    })();
    if is_new && checked.is_err() {
        // Nothing is made; where it cannot be removed, it is empty.
        let _ = crate::files::remove_directory(dir);
    }
    checked
}

#[cfg(not(feature = "rocksdb"))]
fn check_files(snapshot: &Path, _last: LogId, _dir: &Path) -> Result<(), InitError> {
    Err(unusable(snapshot, crate::image::ImageError::Checkpoint))
}

/// Where the files of a snapshot are unpacked to look at them; removed afterwards.
#[cfg(feature = "rocksdb")]
const CHECKING: &str = ".checking";

fn open(snapshot: &Path) -> Result<SnapshotFileReader, InitError> {
    SnapshotFileReader::open(snapshot).map_err(|error| unusable(snapshot, error))
}

fn unusable(snapshot: &Path, what: impl ToString) -> InitError {
    InitError::Snapshot {
        path: snapshot.to_owned(),
        what: what.to_string(),
    }
}

/// All nodes of the new cluster vote.
fn membership(list: &[MemberFile]) -> Result<Membership, InitError> {
    let member = |listed: &MemberFile| {
        let member = Member {
            incarnation: raft_core::Incarnation(listed.incarnation),
            address: listed.address.clone(),
            role: MemberRole::Voter,
        };
        (NodeId(listed.id), member)
    };
    Membership::new(list.iter().map(member).collect()).map_err(|error| {
        // The plan was checked before.
        InitError::Plan(PlanError {
            what: "the list of nodes",
            value: error.to_string(),
            rule: "one that a group can have".to_owned(),
        })
    })
}
