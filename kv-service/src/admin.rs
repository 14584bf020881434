//! What administrators ask for: who belongs to the group, changes of that, who is to lead, and
//! copies of the state. From words of `kv-api` to the replication and back; knows nothing of links.

use std::fmt;
use std::time::Duration;

use kv_api::limits::SNAPSHOT_PART_BYTES_MAX;
use kv_api::{MemberChange, MemberKind, MemberReport, MembersReport, Outcome, Query, SnapshotHead};
use raft_core::node::{Consistency, StateImageAt};
use raft_core::{
    ChangeError, ClusterId, Incarnation, Index, MemberRole, Membership, MembershipChange, NodeId,
    RaftHandle, ReadError, Role, StateImage, Status, TransferError,
};

/// A request of an administrator.
#[derive(Debug)]
pub(crate) enum AdminWork {
    /// Tell who belongs to the group.
    Members,
    /// Change it.
    Change(MemberChange),
    /// Hand leadership to this node.
    Transfer(u64),
    /// Begin to send the state.
    Snapshot,
    /// Go on sending it.
    NextPart(Sending),
}

/// A copy of the state that is being sent.
pub(crate) struct Sending {
    image: Box<dyn StateImage>,
    parts: u64,
    bytes: u64,
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending")
            .field("parts", &self.parts)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// What came of a request, in the words of the replication where somebody else puts it into ours.
#[derive(Debug)]
pub(crate) enum Administered {
    /// This is the answer.
    Answer(Outcome),
    /// This is the next part of the answer; more comes of the work.
    Part(Outcome, AdminWork),
    /// Another node has to be asked.
    NotLeader(Option<NodeId>),
}

/// How long a status may lag behind an answer of the replication: both are given in the same turn
/// of the driver.
const STATUS_LAG: Duration = Duration::from_millis(1);
const STATUS_LOOKS: u32 = 1000;

/// Carries out what an administrator asks for.
pub(crate) async fn administer(
    raft: &RaftHandle,
    cluster: ClusterId,
    work: AdminWork,
) -> Administered {
    let status = raft.status();
    let leads = status.role == Role::Leader;
    match work {
        AdminWork::NextPart(sending) => next_part(sending).await,
        _ if !leads => Administered::NotLeader(status.leader),
        AdminWork::Members => members(raft).await,
        AdminWork::Change(change) => change_members(raft, change).await,
        AdminWork::Transfer(to) if to == status.id.0 => Administered::Answer(Outcome::Done),
        AdminWork::Transfer(to) => transfer(raft, NodeId(to)).await,
        AdminWork::Snapshot => match raft.image().await {
            Ok(StateImageAt { meta, image }) => {
                let head = SnapshotHead {
                    cluster_id: cluster.to_string(),
                    term: meta.last.term.0,
                    index: meta.last.index.0,
                    members: report(&meta.membership, meta.membership.is_joint()),
                };
                let sending = Sending {
                    image,
                    parts: 0,
                    bytes: 0,
                };
                let more = AdminWork::NextPart(sending);
                Administered::Part(Outcome::SnapshotBegin(head), more)
            }
            Err(error) => read_failed(error),
        },
    }
}

/// The members as of some moment during the request: behind a read, which only a leader that still
/// leads answers.
async fn members(raft: &RaftHandle) -> Administered {
    let nothing = Query::Get {
        key: "-".into(),
        revision: None,
    };
    let question = kv_api::encode(&nothing).into();
    match raft.read(question, Consistency::Linearizable).await {
        Ok(_) => {
            let status = raft.status();
            let report = report(&status.members, status.is_changing());
            Administered::Answer(Outcome::Members(report))
        }
        Err(error) => read_failed(error),
    }
}

async fn change_members(raft: &RaftHandle, change: MemberChange) -> Administered {
    if let Some(why) = address_taken(&raft.status().members, &change) {
        return Administered::Answer(Outcome::Refused(why));
    }
    let change = match change {
        MemberChange::Add {
            id,
            incarnation,
            address,
        } => MembershipChange::AddLearner {
            id: NodeId(id),
            incarnation: Incarnation(incarnation),
            address,
        },
        MemberChange::Promote { id } => MembershipChange::Promote { id: NodeId(id) },
        MemberChange::Remove { id } => MembershipChange::Remove { id: NodeId(id) },
        MemberChange::Replace {
            id,
            incarnation,
            address,
        } => MembershipChange::Replace {
            id: NodeId(id),
            incarnation: Incarnation(incarnation),
            address,
        },
    };
    match raft.change_membership(change).await {
        Ok(done) => {
            let status = status_as_of(raft, done.index).await;
            // A later change may have begun meanwhile.
            let is_changing = status.is_changing() && status.members_since > done.index;
            let report = report(&status.members, is_changing);
            Administered::Answer(Outcome::Members(report))
        }
        Err(error) => change_failed(error),
    }
}

/// Two members cannot be reached at one address. The protocol would not mind; who mistyped it
/// would.
fn address_taken(members: &Membership, change: &MemberChange) -> Option<String> {
    let (MemberChange::Add { id, address, .. } | MemberChange::Replace { id, address, .. }) =
        change
    else {
        return None;
    };
    let mut others = members.iter().filter(|(other, _)| other.0 != *id);
    let (owner, _) = others.find(|(_, member)| member.address == *address)?;
    Some(format!("the address {address} is that of node {owner}"))
}

async fn status_as_of(raft: &RaftHandle, members: Index) -> Status {
    for _ in 0..STATUS_LOOKS {
        let status = raft.status();
        if status.members_since >= members {
            return status;
        }
        tokio::time::sleep(STATUS_LAG).await;
    }
    raft.status()
}

async fn transfer(raft: &RaftHandle, to: NodeId) -> Administered {
    match raft.transfer_leadership(to).await {
        Ok(()) => Administered::Answer(Outcome::Done),
        Err(error) => transfer_failed(error),
    }
}

async fn next_part(mut sending: Sending) -> Administered {
    let part = match sending.image.next_part().await {
        Ok(Some(part)) => part,
        Ok(None) => {
            let (parts, bytes) = (sending.parts, sending.bytes);
            return Administered::Answer(Outcome::SnapshotEnd { parts, bytes });
        }
        Err(error) => return Administered::Answer(Outcome::Unavailable(error.to_string())),
    };
    let bytes = part.len();
    if bytes > SNAPSHOT_PART_BYTES_MAX {
        let why = format!("a part of {bytes} bytes is above {SNAPSHOT_PART_BYTES_MAX}");
        return Administered::Answer(Outcome::Unavailable(why));
    }
    sending.parts += 1;
    sending.bytes += bytes as u64;
    Administered::Part(Outcome::SnapshotPart(part), AdminWork::NextPart(sending))
}

/// All that have to be talked to, in order of their ids.
pub(crate) fn report(membership: &Membership, is_changing: bool) -> MembersReport {
    let stays = |id: NodeId| membership.members().contains_key(&id);
    let members = membership.iter().map(|(id, member)| MemberReport {
        id: id.0,
        incarnation: member.incarnation.0,
        address: member.address.clone(),
        role: match member.role {
            MemberRole::Voter => MemberKind::Voter,
            MemberRole::Learner => MemberKind::Learner,
        },
        is_leaving: !stays(id),
    });
    MembersReport {
        members: members.collect(),
        is_changing,
    }
}

fn read_failed(error: ReadError) -> Administered {
    match error {
        ReadError::NotLeader { leader } => Administered::NotLeader(leader),
        _ => Administered::Answer(Outcome::Unavailable(error.to_string())),
    }
}

/// The difference that matters is whether the change may take effect all the same; then, whether
/// waiting a little helps.
fn change_failed(error: ChangeError) -> Administered {
    let why = error.to_string();
    Administered::Answer(match error {
        ChangeError::NotLeader { leader } => return Administered::NotLeader(leader),
        ChangeError::NotReady | ChangeError::Transferring(_) | ChangeError::Busy { .. } => {
            Outcome::Unavailable(why)
        }
        ChangeError::Invalid(_)
        | ChangeError::InProgress { .. }
        | ChangeError::Lagging { .. }
        | ChangeError::NoQuorum { .. } => Outcome::Refused(why),
        // A node that stopped may have begun it before. So may whatever error a later version of
        // the replication adds.
        _ => Outcome::Unknown(why),
    })
}

/// A transfer that did not happen may be tried again as often as one likes.
fn transfer_failed(error: TransferError) -> Administered {
    let why = error.to_string();
    Administered::Answer(match error {
        TransferError::NotLeader { leader } => return Administered::NotLeader(leader),
        TransferError::NotAVoter(_) | TransferError::Refilling(_) => Outcome::Refused(why),
        TransferError::Stopped(_) => Outcome::Unknown(why),
        _ => Outcome::Unavailable(why),
    })
}

#[cfg(test)]
mod tests {
    use raft_core::{Member, MembershipError, StopReason};

    use super::*;

    fn member(incarnation: u64, role: MemberRole) -> Member {
        Member {
            incarnation: Incarnation(incarnation),
            address: format!("host{incarnation}:1"),
            role,
        }
    }

    #[test]
    fn a_report_names_all_that_have_to_be_talked_to() {
        let voter = |n| (NodeId(n), member(n, MemberRole::Voter));
        let old = Membership::new([voter(1), voter(2)].into()).unwrap();
        let learner = (NodeId(3), member(3, MemberRole::Learner));
        let target = Membership::new([voter(1), learner].into()).unwrap();
        let report = report(&old.towards(target), true);
        assert!(report.is_changing);
        let members: Vec<_> = report
            .members
            .iter()
            .map(|it| (it.id, it.role, it.is_leaving))
            .collect();
        let expected = [
            (1, MemberKind::Voter, false),
            (2, MemberKind::Voter, true),
            (3, MemberKind::Learner, false),
        ];
        assert_eq!(members, expected);
        assert_eq!(report.members[1].incarnation, 2);
        assert_eq!(report.members[2].address, "host3:1");
    }

    #[test]
    fn an_address_leads_to_one_member() {
        let voter = |n| (NodeId(n), member(n, MemberRole::Voter));
        let members = Membership::new([voter(1), voter(2)].into()).unwrap();
        let add = |id, address: &str| {
            let (incarnation, address) = (9, address.to_owned());
            let change = MemberChange::Add {
                id,
                incarnation,
                address,
            };
            address_taken(&members, &change)
        };
        assert_eq!(add(3, "host3:1"), None);
        assert_eq!(add(2, "host2:1"), None, "its own");
        let taken = add(3, "host2:1").unwrap();
        assert_eq!(taken, "the address host2:1 is that of node 2");
        let remove = MemberChange::Remove { id: 1 };
        assert_eq!(address_taken(&members, &remove), None);
    }

    fn outcome(administered: Administered) -> Outcome {
        match administered {
            Administered::Answer(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_may_still_happen_is_never_called_refused() {
        let id = NodeId(4);
        for (error, expected) in [
            (ChangeError::Invalid(MembershipError::NoVoter), "refused"),
            (ChangeError::InProgress { since: Index(7) }, "refused"),
            (ChangeError::NoQuorum { silent: vec![id] }, "refused"),
            (ChangeError::NotReady, "unavailable"),
            (ChangeError::Transferring(id), "unavailable"),
            (ChangeError::Unknown, "unknown"),
            (ChangeError::Stopped(StopReason::Shutdown), "unknown"),
        ] {
            let said = error.to_string();
            let (found, why) = match outcome(change_failed(error)) {
                Outcome::Refused(why) => ("refused", why),
                Outcome::Unavailable(why) => ("unavailable", why),
                Outcome::Unknown(why) => ("unknown", why),
                other => panic!("{other:?}"),
            };
            assert_eq!((found, why), (expected, said));
        }
        let elsewhere = change_failed(ChangeError::NotLeader { leader: Some(id) });
        assert!(matches!(
            elsewhere,
            Administered::NotLeader(Some(NodeId(4)))
        ));
    }

    #[test]
    fn a_transfer_is_refused_only_where_it_cannot_ever_work() {
        let id = NodeId(4);
        let refilling = outcome(transfer_failed(TransferError::Refilling(id)));
        assert!(matches!(refilling, Outcome::Refused(_)), "{refilling:?}");
        let refused = outcome(transfer_failed(TransferError::NotAVoter(id)));
        assert_eq!(
            refused,
            Outcome::Refused("node 4 is not a voter".to_owned())
        );
        for error in [
            TransferError::Unreachable(id),
            TransferError::LostToAnother(id),
        ] {
            let said = error.to_string();
            let outcome = outcome(transfer_failed(error));
            assert_eq!(outcome, Outcome::Unavailable(said));
        }
        let stopped = transfer_failed(TransferError::Stopped(StopReason::Shutdown));
        assert!(matches!(outcome(stopped), Outcome::Unknown(_)));
    }

    /// So that what the words allow is what the replication allows.
    #[test]
    fn the_limits_of_the_words_are_those_of_the_replication() {
        use kv_api::limits;
        use raft_core::membership;
        assert_eq!(limits::MEMBERS_MAX, membership::MEMBERS_MAX);
        assert_eq!(limits::ADDRESS_BYTES_MAX, membership::ADDRESS_BYTES_MAX);
        let largest = raft_core::snapshot::SNAPSHOT_PART_BYTES_MAX;
        assert!(SNAPSHOT_PART_BYTES_MAX <= largest);
    }
}
