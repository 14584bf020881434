//! The node: tasks that execute the protocol's effects.
//!
//! ```text
//!            RaftHandle                     Transport::recv
//!                | requests                     | messages
//!                v                              v
//!   events    +----------------- driver ------------------+
//!   +-------> |  inputs -> Raft::step -> take_effects     |
//!   |         +---+-----------+-----------+----------+----+
//!   |             | writes    | send      | load     | apply, reads, restore
//!   |             v           v           v          v
//!   |         log task     outboxes     loader    apply task --> answers clients
//!   |          |     |        | two lanes per peer      |
//!   |          |     +------->|                         |
//!   |          |   promises   v                         |
//!   +----------+        Transport::send                 |
//!   +---------------------------------------------------+
//! ```
//!
//! Snapshots have their own tasks, so that nothing waits behind one:
//!
//! ```text
//!   apply task --images--> take --parts--> SnapshotStore --parts--> send, one task per receiver
//!                                               ^                       | Transport::send_snapshot
//!   Transport::recv --offers--> receive --parts-+
//!                                  | when all is durable: a message for the driver
//! ```
//!
//! Every arrow is a bounded queue with one consumer. The driver never waits for an executor; the
//! executors may wait for the driver. Only this room starts tasks, and `lifecycle` ends them.

mod apply_task;
mod budget;
mod clock;
mod driver;
mod event;
mod executors;
mod handle;
mod handoff;
mod lifecycle;
mod loader;
mod log_task;
mod machine;
mod metrics;
mod operations;
mod outbox;
mod page;
mod peers;
mod receive;
mod request;
mod room;
mod snapshots;
mod start;
mod status;
mod ticker;
mod waiters;
mod wiring;

use std::sync::Arc;

use crate::config::Config;
use crate::log_store::LogStore;
use crate::protocol::Raft;
use crate::state_machine::StateMachine;
use crate::transport::Transport;

use wiring::Parts;

pub use clock::Clock;
pub use handle::RaftHandle;
pub use metrics::MetricsSnapshot;
pub use request::{Committed, Consistency, StateImageAt};
pub use start::StartError;
pub use status::Status;

/// Starts nodes.
#[derive(Debug)]
pub struct Node;

impl Node {
    /// Loads the log and starts the tasks of one node on the current tokio runtime. The node goes
    /// on until [`RaftHandle::shutdown`], until its last handle is dropped, or until one of its
    /// parts fails.
    ///
    /// Where a snapshot was received and the node died before its log followed, the log is begun
    /// anew behind the snapshot; else nothing is written before the tasks run.
    ///
    /// # Errors
    /// When a setting cannot work, or log, snapshots and state machine cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    pub async fn start(
        config: Config,
        transport: Arc<dyn Transport>,
        log_store: Box<dyn LogStore>,
        state_machine: Box<dyn StateMachine>,
    ) -> Result<RaftHandle, StartError> {
        let clock = Clock::machine();
        Self::start_with_clock(config, transport, log_store, state_machine, clock).await
    }

    /// As [`Node::start`], with leases measured by another clock: for tests whose time is not that
    /// of the machine.
    ///
    /// # Errors
    /// As [`Node::start`].
    ///
    /// # Panics
    /// As [`Node::start`].
    pub async fn start_with_clock(
        config: Config,
        transport: Arc<dyn Transport>,
        mut log_store: Box<dyn LogStore>,
        state_machine: Box<dyn StateMachine>,
        clock: Clock,
    ) -> Result<RaftHandle, StartError> {
        config.validate()?;
        let applied = state_machine.applied();
        let found = start::find(&config, log_store.as_mut(), applied).await?;
        let snapshot = found.snapshot.clone();
        let raft = Raft::new(config.clone(), found.loaded, found.snapshot, applied)?;
        start::tell_of_damage(&config, &raft.state());
        let parts = Parts {
            config,
            raft,
            applied: found.applied,
            machine: found.machine,
            snapshot,
            transport,
            log_store,
            state_machine,
            clock,
        };
        Ok(parts.wire())
    }
}
