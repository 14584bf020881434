//! Backups: the state of a cluster as one file, in the format of `raft_storage::snapshot_file`.
//! Written from what a node sends to an administrator, and verified without a cluster. How a
//! cluster is made of one is in `init`.
//!
//! Everything here blocks its thread.

use std::collections::BTreeMap;
use std::path::Path;

use kv_api::{MemberKind, MemberReport, SnapshotHead};
use raft_core::{
    ClusterId, Incarnation, Index, LogId, Member, MemberRole, Membership, NodeId,
    SnapshotDescriptor, SnapshotMeta, StorageError, Term,
};
use raft_storage::snapshot_file::{self, SnapshotFileWriter, SnapshotOrigin};

/// In the place of the node that wrote a file, where that was no node.
const OPERATOR: NodeId = NodeId(0);

/// What a backup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The cluster whose state it is.
    pub cluster: ClusterId,
    /// What it stands for, how much it is, and its hash.
    pub descriptor: SnapshotDescriptor,
}

/// A backup cannot be written or is not whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// A node announced something that no snapshot stands for.
    #[error("the node announced a snapshot that makes no sense: {0}")]
    Announced(String),
    /// The file is damaged, cut short, or none of ours.
    #[error("{0}; it is not a backup that can be relied on")]
    Damaged(StorageError),
    /// The system refuses an operation on the file.
    #[error("cannot {0}")]
    Io(StorageError),
}

impl From<StorageError> for BackupError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io { .. } | StorageError::Full { .. } | StorageError::Poisoned(_) => {
                Self::Io(error)
            }
            other => Self::Damaged(other),
        }
    }
}

/// Writes a backup. Under its name it is there whole and durable, or not at all; dropped
/// unfinished, it leaves nothing.
#[derive(Debug)]
pub struct BackupWriter {
    cluster: ClusterId,
    file: SnapshotFileWriter,
}

impl BackupWriter {
    /// Begins a backup at `path`, of what a node has announced.
    ///
    /// # Errors
    /// When what was announced makes no sense, or the disk refuses.
    pub fn create(path: &Path, head: &SnapshotHead) -> Result<Self, BackupError> {
        let cluster: ClusterId = head
            .cluster_id
            .parse()
            .map_err(|_| BackupError::Announced(format!("cluster {:?}", head.cluster_id)))?;
        let origin = SnapshotOrigin {
            cluster,
            node: OPERATOR,
        };
        let meta = SnapshotMeta {
            last: LogId {
                term: Term(head.term),
                index: Index(head.index),
            },
            membership: membership(head)?,
        };
        let file = SnapshotFileWriter::create(path, origin, meta)?;
        Ok(Self { cluster, file })
    }

    /// Appends a part, as the node sent it.
    ///
    /// # Errors
    /// When it is too large, or the disk refuses.
    pub fn write_part(&mut self, part: &[u8]) -> Result<(), BackupError> {
        Ok(self.file.write_part(part)?)
    }

    /// Makes the backup durable and gives it its name.
    ///
    /// # Errors
    /// When the disk refuses; then there is no backup.
    pub fn finish(self) -> Result<Backup, BackupError> {
        let (cluster, descriptor) = (self.cluster, self.file.finish()?);
        Ok(Backup {
            cluster,
            descriptor,
        })
    }
}

/// Reads a backup to its end and checks every byte of it.
///
/// # Errors
/// [`BackupError::Damaged`] when it is not whole; [`BackupError::Io`] when it cannot be read.
pub fn verify(path: &Path) -> Result<Backup, BackupError> {
    let (descriptor, origin) = snapshot_file::verify(path)?;
    Ok(Backup {
        cluster: origin.cluster,
        descriptor,
    })
}

/// The members as of the last entry, without those that were being left.
fn membership(head: &SnapshotHead) -> Result<Membership, BackupError> {
    let staying = head
        .members
        .members
        .iter()
        .filter(|member| !member.is_leaving);
    let members: BTreeMap<NodeId, Member> = staying
        .map(|member| (NodeId(member.id), as_member(member)))
        .collect();
    Membership::new(members).map_err(|error| BackupError::Announced(error.to_string()))
}

fn as_member(report: &MemberReport) -> Member {
    Member {
        incarnation: Incarnation(report.incarnation),
        address: report.address.clone(),
        role: match report.role {
            MemberKind::Voter => MemberRole::Voter,
            MemberKind::Learner => MemberRole::Learner,
        },
    }
}

#[cfg(test)]
mod tests {
    use kv_api::MembersReport;

    use super::*;

    fn head() -> SnapshotHead {
        let member = |id, role, is_leaving| MemberReport {
            id,
            incarnation: id,
            address: format!("host{id}:7400"),
            role,
            is_leaving,
        };
        SnapshotHead {
            cluster_id: ClusterId([7; 16]).to_string(),
            term: 3,
            index: 40,
            members: MembersReport {
                members: vec![
                    member(1, MemberKind::Voter, false),
                    member(2, MemberKind::Learner, false),
                    member(3, MemberKind::Voter, true),
                ],
                is_changing: true,
            },
        }
    }

    #[test]
    fn a_backup_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        let mut writer = BackupWriter::create(&path, &head()).unwrap();
        writer.write_part(b"first").unwrap();
        assert!(!path.exists());
        drop(writer);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

        let mut writer = BackupWriter::create(&path, &head()).unwrap();
        writer.write_part(b"first").unwrap();
        writer.write_part(b"second").unwrap();
        let written = writer.finish().unwrap();
        assert_eq!(verify(&path), Ok(written.clone()));
        assert_eq!(
            (written.descriptor.parts, written.descriptor.bytes),
            (2, 11)
        );
        let members = &written.descriptor.meta.membership;
        let ids: Vec<u64> = members.iter().map(|(id, _)| id.0).collect();
        assert_eq!((ids, members.is_voter(NodeId(2))), (vec![1, 2], false));
    }

    #[test]
    fn damage_is_told_apart_from_what_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        assert!(matches!(verify(&path), Err(BackupError::Io(_))));
        std::fs::write(&path, b"something else").unwrap();
        assert!(matches!(verify(&path), Err(BackupError::Damaged(_))));
        let mut nowhere = head();
        nowhere.members.members.clear();
        let announced = BackupWriter::create(&path, &nowhere);
        assert!(matches!(announced, Err(BackupError::Announced(_))));
    }
}
