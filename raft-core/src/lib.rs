//! Raft as a library: a pure protocol, a node that drives it, and three traits that decouple both
//! from networks, disks and state machines.
//!
//! - [`protocol`] decides and does nothing else: inputs in, effects out. No clock, no IO, no tasks.
//! - `node` executes the effects with a log task, an apply task and one outbox per peer.
//! - [`LogStore`], [`Transport`] and [`StateMachine`] are what a user plugs in; `raft-storage` and
//!   `raft-transport` have implementations.
//!
//! # A state machine of one's own
//!
//! A map in memory. Commands are `key=value`, the reply is the value before, a query is a key. The
//! snapshot is one part; a larger state makes many, each well below
//! [`snapshot::SNAPSHOT_PART_BYTES_MAX`], and gives an image that shares what it can with the
//! state, so that `snapshot` returns at once.
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use bytes::Bytes;
//! use raft_core::{Command, LogId, SnapshotReader, StateImage, StateMachine, StateMachineError};
//!
//! #[derive(Default)]
//! struct Map(BTreeMap<String, String>);
//!
//! struct Image(Option<Bytes>);
//!
//! fn unreadable(error: impl ToString) -> StateMachineError {
//!     StateMachineError(error.to_string())
//! }
//!
//! #[async_trait::async_trait]
//! impl StateMachine for Map {
//!     async fn apply(&mut self, batch: Vec<Command>) -> Result<Vec<Bytes>, StateMachineError> {
//!         let replies = batch.into_iter().map(|command| {
//!             let text = String::from_utf8_lossy(&command.payload);
//!             let Some((key, value)) = text.split_once('=') else { return "not a pair".into() };
//!             self.0.insert(key.to_owned(), value.to_owned()).unwrap_or_default().into()
//!         });
//!         Ok(replies.collect())
//!     }
//!
//!     async fn query(&mut self, query: Bytes) -> Result<Bytes, StateMachineError> {
//!         let value = self.0.get(&*String::from_utf8_lossy(&query));
//!         Ok(value.cloned().unwrap_or_default().into())
//!     }
//!
//!     async fn snapshot(&mut self) -> Result<Box<dyn StateImage>, StateMachineError> {
//!         let lines: Vec<String> = self.0.iter().map(|(k, v)| format!("{k}={v}\n")).collect();
//!         Ok(Box::new(Image(Some(lines.concat().into()))))
//!     }
//!
//!     async fn restore(
//!         &mut self,
//!         mut from: Box<dyn SnapshotReader>,
//!     ) -> Result<(), StateMachineError> {
//!         let part = from.next_part().await.map_err(unreadable)?.unwrap_or_default();
//!         let lines = std::str::from_utf8(&part).map_err(unreadable)?.lines();
//!         let pairs = lines.filter_map(|line| line.split_once('='));
//!         self.0 = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
//!         Ok(())
//!     }
//!
//!     fn applied(&self) -> LogId {
//!         LogId::ZERO // In memory: after a restart it is given a snapshot, and the log behind it.
//!     }
//! }
//!
//! #[async_trait::async_trait]
//! impl StateImage for Image {
//!     async fn next_part(&mut self) -> Result<Option<Bytes>, StateMachineError> {
//!         Ok(self.0.take())
//!     }
//! }
//! # struct Parts(Option<Bytes>, raft_core::SnapshotDescriptor);
//! # #[async_trait::async_trait]
//! # impl SnapshotReader for Parts {
//! #     fn descriptor(&self) -> &raft_core::SnapshotDescriptor { &self.1 }
//! #     async fn seek(&mut self, _: u64) -> Result<(), raft_core::StorageError> { Ok(()) }
//! #     async fn next_part(&mut self) -> Result<Option<Bytes>, raft_core::StorageError> {
//! #         Ok(self.0.take())
//! #     }
//! # }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! # let command = |text: &'static str| Command { id: LogId::ZERO, payload: text.into() };
//! let mut map = Map::default();
//! let replies = map.apply(vec![command("a=1"), command("b=2"), command("a=3")]).await?;
//! assert_eq!(replies, ["", "", "1"]);
//!
//! let part = map.snapshot().await?.next_part().await?;
//! let mut copy = Map::default();
//! # let snapshot = Box::new(Parts(part, Default::default()));
//! copy.restore(snapshot).await?;
//! assert_eq!(copy.query("a".into()).await?, "3");
//! # Ok::<(), StateMachineError>(())
//! # }).unwrap();
//! ```

pub mod config;
pub mod entry;
pub mod error;
pub mod log_store;
pub mod membership;
pub mod membership_codec;
pub mod message;
#[cfg(feature = "node")]
pub mod node;
pub mod protocol;
pub mod snapshot;
pub mod state_machine;
pub mod transport;
pub mod types;

pub use config::{Config, ConfigError, Limits, ReadPolicy, SnapshotPolicy, Timing};
pub use entry::{Entry, EntryDecodeError, EntryHead, EntryKind};
pub use error::{
    ChangeError, ProposeError, ReadError, Refusal, StateMachineError, StopReason, StorageError,
    TransferError,
};
pub use log_store::{AppendBatch, LoadedLog, LogReader, LogStore, LogUsage};
pub use membership::{Member, MemberRole, Membership, MembershipChange, MembershipError};
pub use message::{Envelope, Message};
#[cfg(feature = "node")]
pub use node::{
    Clock, Committed, Consistency, MetricsSnapshot, Node, RaftHandle, StartError, StateImageAt,
    Status,
};
pub use protocol::{Role, RoleChange};
pub use snapshot::{
    SnapshotDescriptor, SnapshotHash, SnapshotMeta, SnapshotReader, SnapshotStore, SnapshotWriter,
};
pub use state_machine::{Command, RoomLeft, RoomWatch, StateImage, StateMachine};
pub use transport::{Incoming, IncomingSnapshot, SendError, SnapshotStream, Transport};
pub use types::{ClusterId, GroupId, HardState, Incarnation, Index, LogId, NodeId, Term};
