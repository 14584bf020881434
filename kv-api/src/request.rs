//! What a client and a server say to each other. Many requests are on the way at once over one
//! stream; a response names the request that it answers and may overtake others.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::limits::LimitExceeded;
use crate::members::{MemberChange, MembersReport};

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client; unique among its outstanding requests on the connection, never 0.
    pub id: u64,
    /// What is wanted.
    pub body: RequestBody,
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestBody {
    /// Replicate an encoded [`crate::Command`]. The server checks it and passes the bytes on as
    /// they are.
    Write(Bytes),
    /// Answer an encoded [`crate::Query`], linearizably.
    Read(Bytes),
    /// Answer an encoded [`crate::Query`] from whatever this node has applied.
    ReadStale(Bytes),
    /// Tell how this node is.
    Status,
    /// Tell who belongs to the group, linearizably. This and all below is for administrators, and
    /// for the leader to answer.
    Members,
    /// Change who belongs to the group. Answered by [`Outcome::Members`] when the change is
    /// committed.
    ChangeMembers(MemberChange),
    /// Hand leadership to another voter. Answered by [`Outcome::Done`] when it leads.
    TransferLeader {
        /// Who is to lead.
        to: u64,
    },
    /// Send the whole state as it is now. Answered by [`Outcome::SnapshotBegin`], then the parts in
    /// order, each an [`Outcome::SnapshotPart`], then [`Outcome::SnapshotEnd`], all of them with
    /// the id of the request.
    SaveSnapshot,
}

/// One response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The request that is answered; 0 for a [`Outcome::Notice`], which answers none.
    pub id: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// A write was committed and applied. Its encoded [`crate::CommandReply`].
    Applied {
        /// The term of its log entry.
        term: u64,
        /// The index of its log entry.
        index: u64,
        /// The encoded reply.
        reply: Bytes,
    },
    /// The encoded [`crate::QueryReply`].
    Answer(Bytes),
    /// How the node is.
    Status(Box<NodeStatus>),
    /// This node does not lead; nothing was applied.
    NotLeader(Notice),
    /// A queue is full or the node is not ready; nothing was applied. Try again later.
    Unavailable(String),
    /// The write may or may not have been applied.
    Unknown(String),
    /// Over a limit; nothing was applied, and trying again will not help.
    Limit(LimitExceeded),
    /// The request makes no sense or is not permitted; nothing was applied.
    Refused(String),
    /// Unasked: who leads now. Sent when a connection opens and whenever it changes.
    Notice(Notice),
    /// Who belongs to the group.
    Members(MembersReport),
    /// What was asked for has happened.
    Done,
    /// The next part of a snapshot, of at most [`crate::limits::SNAPSHOT_PART_BYTES_MAX`].
    SnapshotPart(Bytes),
    /// A snapshot is complete. Where the stream ends before, it is not one.
    SnapshotEnd {
        /// Parts that were sent.
        parts: u64,
        /// Bytes of all of them.
        bytes: u64,
    },
    /// A snapshot begins: what it stands for.
    SnapshotBegin(SnapshotHead),
}

/// What a snapshot stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHead {
    /// The cluster that it was taken from, 32 hexadecimal digits.
    pub cluster_id: String,
    /// The term of the last log entry that is part of it.
    pub term: u64,
    /// The index of that entry.
    pub index: u64,
    /// Who belonged to the group as of that entry.
    pub members: MembersReport,
}

/// Who leads, as far as the node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The node's term.
    pub term: u64,
    /// The leader's id and advertised address.
    pub leader: Option<(u64, String)>,
}

/// How a node is: one line of `flotilla status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The cluster, 32 hexadecimal digits.
    pub cluster_id: String,
    /// The node.
    pub id: u64,
    /// Its advertised address.
    pub addr: String,
    /// `leader`, `follower`, `candidate` or `learner`.
    pub role: String,
    /// Its term.
    pub term: u64,
    /// Who leads, as far as it knows.
    pub leader: Option<u64>,
    /// The last index of its log.
    pub last_index: u64,
    /// What it knows to be committed.
    pub commit: u64,
    /// What it has applied.
    pub applied: u64,
    /// The last index of its newest snapshot, 0 where there is none.
    pub snapshot_index: u64,
    /// Encoded bytes of its log.
    pub log_bytes: u64,
    /// Bytes of its data directory.
    pub disk_bytes: u64,
    /// `file`, `rocksdb`, or `memory (not durable)`.
    pub storage: String,
    /// The version of the program.
    pub version: String,
    /// All members: id and advertised address.
    pub members: Vec<(u64, String)>,
    /// The last index that its log does not hold any more, 0 where it holds everything.
    pub log_start: u64,
    /// Who belongs to the group and may do what, as far as the node knows.
    pub membership: MembersReport,
    /// Synced entries of its log were lost, and it does not vote before its log has reached this
    /// one again: term and index. None on a healthy node.
    pub refilling: Option<(u64, u64)>,
    /// Its disk has no room for commands, so it refuses them.
    pub is_short_of_room: bool,
    /// Where its state is: `memory` or `rocksdb`.
    pub state: String,
}
