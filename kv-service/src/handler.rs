//! From a request to what came of it: checks a client's bytes, asks the replication, and says in
//! the words of `kv-api` what happened. Knows nothing of links and streams.

use std::sync::Arc;

use bytes::Bytes;
use kv_api::limits::{self, COMMAND_BYTES_MAX, SCAN_PAGE_BYTES_MAX, SNAPSHOT_PART_BYTES_MAX};
use kv_api::{
    Command, LimitExceeded, MemberChange, NodeStatus, Notice, Outcome, Query, RequestBody,
};
use quic_link as link;
use raft_core::node::Consistency;
use raft_core::{NodeId, ProposeError, RaftHandle, ReadError, Role, RoleChange, Status};
use tokio::sync::watch;

use crate::admin::{self, AdminWork, Administered};
use crate::config::{Backends, StorageKind};
use crate::config_file::is_host_and_port;
use crate::identity::DataDirectory;

/// Reserved for the answer of a get while it is outstanding. An answer may be four times as large;
/// reserving that much would stop small gets, by far the most frequent, at a few dozen.
const GET_RESERVE_BYTES: usize = 256 << 10;

/// What a request without bytes of its own counts as.
const SMALL_REQUEST_BYTES: usize = 1 << 10;

/// What all connections of a node share.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) raft: RaftHandle,
    pub(crate) directory: Arc<DataDirectory>,
    pub(crate) advertise: String,
    pub(crate) backends: Backends,
}

/// A request that may be executed.
#[derive(Debug)]
pub(crate) enum Work {
    /// Replicate this command.
    Write(Bytes),
    /// Answer this query.
    Read(Bytes, Consistency),
    /// Tell how the node is.
    Status,
    /// What only administrators may ask for.
    Admin(AdminWork),
}

/// What comes of work.
#[derive(Debug)]
pub(crate) struct Done {
    /// The answer, or a part of it.
    pub(crate) outcome: Outcome,
    /// What has to be done for the rest of the answer.
    pub(crate) more: Option<Work>,
}

/// A request that was checked, and what it takes of its connection's bytes until it is answered.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) work: Work,
    pub(crate) bytes: usize,
}

/// Why a request is not executed. Nothing was applied, and trying again will not help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// Something is over its limit.
    Limit(LimitExceeded),
    /// It makes no sense.
    Nonsense(String),
}

impl From<LimitExceeded> for Rejection {
    fn from(limit: LimitExceeded) -> Self {
        Self::Limit(limit)
    }
}

impl From<Rejection> for Outcome {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Limit(limit) => Self::Limit(limit),
            Rejection::Nonsense(why) => Self::Refused(why),
        }
    }
}

/// Decodes and checks what a client wants. Nothing that a client sends is trusted, not even that it
/// is what the client library would send.
pub(crate) fn check(body: RequestBody, role: link::Role) -> Result<Checked, Rejection> {
    let (work, bytes) = match body {
        RequestBody::Write(command) => {
            check_command(&command)?;
            let bytes = command.len() + SMALL_REQUEST_BYTES;
            (Work::Write(command), bytes)
        }
        RequestBody::Read(query) => {
            let bytes = check_query(&query)?;
            (Work::Read(query, Consistency::Linearizable), bytes)
        }
        RequestBody::ReadStale(query) => {
            let bytes = check_query(&query)?;
            (Work::Read(query, Consistency::Stale), bytes)
        }
        RequestBody::Status => (Work::Status, SMALL_REQUEST_BYTES),
        RequestBody::Members => administrator(role, AdminWork::Members)?,
        RequestBody::ChangeMembers(change) => {
            check_change(&change)?;
            administrator(role, AdminWork::Change(change))?
        }
        RequestBody::TransferLeader { to } => administrator(role, AdminWork::Transfer(to))?,
        RequestBody::SaveSnapshot => {
            let (work, _) = administrator(role, AdminWork::Snapshot)?;
            (work, SNAPSHOT_PART_BYTES_MAX)
        }
    };
    Ok(Checked { work, bytes })
}

fn check_change(change: &MemberChange) -> Result<(), Rejection> {
    change.check_limits()?;
    match change {
        MemberChange::Add { address, .. } | MemberChange::Replace { address, .. }
            if !is_host_and_port(address) =>
        {
            let why = format!("the address {address:?} is not host:port");
            Err(Rejection::Nonsense(why))
        }
        _ => Ok(()),
    }
}

/// What changes the cluster, or copies all of it, is for administrators alone.
fn administrator(role: link::Role, work: AdminWork) -> Result<(Work, usize), Rejection> {
    if role == link::Role::Admin {
        return Ok((Work::Admin(work), SMALL_REQUEST_BYTES));
    }
    let who = match role {
        link::Role::Node(_) => "node",
        _ => "client",
    };
    let why =
        format!("this needs the certificate of an administrator (admin.toml), not that of a {who}");
    Err(Rejection::Nonsense(why))
}

fn check_command(bytes: &[u8]) -> Result<(), Rejection> {
    if bytes.len() > COMMAND_BYTES_MAX {
        return Err(command_limit(bytes.len(), COMMAND_BYTES_MAX).into());
    }
    let command: Command = kv_api::decode(bytes)
        .map_err(|error| Rejection::Nonsense(format!("not a command: {error}")))?;
    Ok(command.check_limits()?)
}

fn command_limit(bytes: usize, max: usize) -> LimitExceeded {
    LimitExceeded {
        what: "command".to_owned(),
        bytes: bytes as u64,
        min: 1,
        max: max as u64,
    }
}

/// Gives the bytes to reserve for the answer.
fn check_query(bytes: &[u8]) -> Result<usize, Rejection> {
    let query: Query = kv_api::decode(bytes)
        .map_err(|error| Rejection::Nonsense(format!("not a query: {error}")))?;
    match query {
        Query::Get { key, .. } => {
            limits::check_key(&key)?;
            Ok(GET_RESERVE_BYTES)
        }
        Query::Scan { from, to, .. } => {
            // The ends of a range are not keys: an empty one means the end of the store.
            for end in [Some(from), to].into_iter().flatten() {
                if !end.is_empty() {
                    limits::check_key(&end)?;
                }
            }
            Ok(SCAN_PAGE_BYTES_MAX)
        }
    }
}

impl Service {
    /// Executes a request that was checked, up to the first part of its answer.
    pub(crate) async fn execute(&self, work: Work) -> Done {
        let outcome = match work {
            Work::Admin(work) => return self.administer(work).await,
            Work::Write(command) => match self.raft.propose(command).await {
                Ok(committed) => Outcome::Applied {
                    term: committed.id.term.0,
                    index: committed.id.index.0,
                    reply: committed.reply,
                },
                Err(error) => self.write_failed(error),
            },
            Work::Read(query, consistency) => match self.raft.read(query, consistency).await {
                Ok(answer) => Outcome::Answer(answer),
                Err(error) => self.read_failed(error),
            },
            Work::Status => Outcome::Status(Box::new(self.status())),
        };
        Done {
            outcome,
            more: None,
        }
    }

    async fn administer(&self, work: AdminWork) -> Done {
        let cluster = self.directory.owner().cluster;
        let (outcome, more) = match admin::administer(&self.raft, cluster, work).await {
            Administered::Answer(outcome) => (outcome, None),
            Administered::Part(outcome, more) => (outcome, Some(Work::Admin(more))),
            Administered::NotLeader(leader) => (self.not_leader(leader), None),
        };
        Done { outcome, more }
    }

    /// The difference that matters to the client is whether the write may have been applied.
    fn write_failed(&self, error: ProposeError) -> Outcome {
        match error {
            ProposeError::NotLeader { leader } => self.not_leader(leader),
            // Asking again soon does not help: somebody has to make room first.
            ProposeError::NoRoom(_) => Outcome::Refused(error.to_string()),
            ProposeError::TooLarge { bytes, limit } => Outcome::Limit(command_limit(bytes, limit)),
            ProposeError::Busy { .. } => Outcome::Unavailable(error.to_string()),
            // A node that stopped may have taken the proposal before. So may whatever error a later
            // version of the replication adds.
            _ => Outcome::Unknown(error.to_string()),
        }
    }

    /// A read never changes anything, so that every failure of it may be tried again.
    fn read_failed(&self, error: ReadError) -> Outcome {
        match error {
            ReadError::NotLeader { leader } => self.not_leader(leader),
            _ => Outcome::Unavailable(error.to_string()),
        }
    }

    fn not_leader(&self, leader: Option<NodeId>) -> Outcome {
        let status = self.raft.status();
        Outcome::NotLeader(Notice {
            term: status.term.0,
            leader: leader.and_then(|id| {
                let member = status.members.get(id)?;
                Some((id.0, member.address.clone()))
            }),
        })
    }

    /// Changes of who leads.
    pub(crate) fn leadership(&self) -> watch::Receiver<RoleChange> {
        self.raft.leadership()
    }

    /// What clients are told of such a change.
    pub(crate) fn notice(&self, change: RoleChange) -> Notice {
        let members = self.raft.status().members;
        Notice {
            term: change.term.0,
            leader: change.leader.and_then(|id| {
                let member = members.get(id)?;
                Some((id.0, member.address.clone()))
            }),
        }
    }

    fn status(&self) -> NodeStatus {
        let status = self.raft.status();
        let members = status.members.iter();
        NodeStatus {
            cluster_id: self.directory.owner().cluster.to_string(),
            id: status.id.0,
            addr: self.advertise.clone(),
            role: role_name(&status).to_owned(),
            term: status.term.0,
            leader: status.leader.map(|id| id.0),
            last_index: status.last.index.0,
            commit: status.commit.0,
            applied: status.applied.0,
            snapshot_index: status
                .snapshot
                .as_ref()
                .map_or(0, |snapshot| snapshot.meta.last.index.0),
            log_bytes: status.log.log_bytes,
            disk_bytes: self.directory.usage_bytes(),
            storage: storage_name(self.backends.storage),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            members: members
                .map(|(id, member)| (id.0, member.address.clone()))
                .collect(),
            log_start: status.log_start.index.0,
            membership: admin::report(&status.members, status.is_changing()),
            refilling: status.refilling.map(|to| (to.term.0, to.index.0)),
            is_short_of_room: status.log.is_short_of_room,
            state: self.backends.state.name().to_owned(),
        }
    }
}

/// Asking whether one could win is part of being a candidate, for those who watch from outside. Who
/// does not vote, because it is a learner or not a member at all, learns what the log says.
fn role_name(status: &Status) -> &'static str {
    match status.role {
        Role::Leader => "leader",
        Role::Candidate | Role::PreCandidate => "candidate",
        Role::Follower if status.is_member() && status.members.is_voter(status.id) => "follower",
        Role::Follower => "learner",
    }
}

fn storage_name(storage: StorageKind) -> String {
    if storage.is_durable() {
        storage.name().to_owned()
    } else {
        format!("{} (not durable)", storage.name())
    }
}

#[cfg(test)]
mod tests {
    use kv_api::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
    use kv_api::{WriteOp, encode};

    use super::*;

    const CLIENT: link::Role = link::Role::Client;

    fn put(key: usize, value: usize) -> RequestBody {
        let op = WriteOp::Put {
            key: vec![1; key].into(),
            value: vec![2; value].into(),
        };
        RequestBody::Write(encode(&Command::Write { stamp: None, op }).into())
    }

    fn scan(from: usize, to: usize) -> RequestBody {
        RequestBody::ReadStale(
            encode(&Query::Scan {
                from: vec![1; from].into(),
                to: Some(vec![2; to].into()),
                revision: None,
                limit: 1,
                keys_only: false,
            })
            .into(),
        )
    }

    #[test]
    fn what_is_within_the_limits_passes_unchanged() {
        let RequestBody::Write(bytes) = put(KEY_BYTES_MAX, VALUE_BYTES_MAX) else {
            unreachable!("put makes writes");
        };
        let checked = check(RequestBody::Write(bytes.clone()), CLIENT).unwrap();
        assert!(matches!(checked.work, Work::Write(passed) if passed == bytes));
        assert!(checked.bytes > VALUE_BYTES_MAX);
        assert_eq!(
            check(scan(0, 0), CLIENT).unwrap().bytes,
            SCAN_PAGE_BYTES_MAX
        );
    }

    #[test]
    fn what_is_over_a_limit_is_told_with_the_limit() {
        for (body, what) in [
            (put(0, 1), "key"),
            (put(KEY_BYTES_MAX + 1, 1), "key"),
            (put(1, VALUE_BYTES_MAX + 1), "value"),
            (
                RequestBody::Write(vec![0; COMMAND_BYTES_MAX + 1].into()),
                "command",
            ),
            (scan(KEY_BYTES_MAX + 1, 0), "key"),
            (scan(0, KEY_BYTES_MAX + 1), "key"),
        ] {
            match check(body, CLIENT) {
                Err(Rejection::Limit(limit)) => assert_eq!(limit.what, what),
                other => panic!("{what}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_command_or_query_is_refused() {
        let garbage = Bytes::from_static(b"\x01garbage");
        for body in [
            RequestBody::Write(garbage.clone()),
            RequestBody::Read(garbage.clone()),
            RequestBody::ReadStale(garbage),
            RequestBody::Write(Bytes::new()),
        ] {
            assert!(matches!(check(body, CLIENT), Err(Rejection::Nonsense(_))));
        }
    }

    #[test]
    fn only_an_administrator_may_change_the_cluster() {
        let requests = || {
            [
                RequestBody::Members,
                RequestBody::ChangeMembers(MemberChange::Remove { id: 1 }),
                RequestBody::TransferLeader { to: 2 },
                RequestBody::SaveSnapshot,
            ]
        };
        for body in requests() {
            assert!(check(body, link::Role::Admin).is_ok());
        }
        for role in [CLIENT, link::Role::Node(3)] {
            for body in requests() {
                let why = match check(body, role) {
                    Err(Rejection::Nonsense(why)) => why,
                    other => panic!("{other:?}"),
                };
                assert!(why.contains("admin.toml") && !why.contains('\n'), "{why}");
            }
        }
        let add = |address: &str| {
            let body = RequestBody::ChangeMembers(MemberChange::Add {
                id: 4,
                incarnation: 4,
                address: address.to_owned(),
            });
            check(body, link::Role::Admin)
        };
        assert!(add("db4.example.org:7400").is_ok());
        let refused = add(&"a".repeat(256));
        assert!(matches!(refused, Err(Rejection::Limit(limit)) if limit.what == "address"));
        let refused = add("db4.example.org");
        assert!(matches!(refused, Err(Rejection::Nonsense(why)) if why.contains("host:port")));
        // An administrator may read and write like anybody else.
        assert!(check(put(1, 1), link::Role::Admin).is_ok());
    }
}
