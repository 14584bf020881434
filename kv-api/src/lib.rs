//! The words and bytes that the key-value service, its client and the simulator share. No IO.
//!
//! [`command`] and [`query`] are what the replicated state machine understands; [`request`] is what
//! a client and a server say to each other around it, [`members`] the part of it about who belongs
//! to the group; [`limits`] bounds all of it; [`codec`] is the one place where it becomes bytes.

pub mod codec;
pub mod command;
pub mod limits;
pub mod members;
pub mod query;
pub mod request;

pub use codec::{DecodeError, decode, encode};
pub use command::{
    Command, CommandError, CommandReply, Expect, SessionId, SessionStamp, WriteOp, Written,
};
pub use limits::LimitExceeded;
pub use members::{MemberChange, MemberKind, MemberReport, MembersReport};
pub use query::{KeyValue, Query, QueryError, QueryReply, ScanPage};
pub use request::{NodeStatus, Notice, Outcome, Request, RequestBody, Response, SnapshotHead};
