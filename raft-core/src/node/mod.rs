//! The node: tasks that execute the protocol's effects.
//!
//! ```text
//!            RaftHandle                     Transport::recv
//!                | requests                     | messages
//!                v                              v
//!   events    +----------------- driver ------------------+
//!   +-------> |  inputs -> Raft::step -> take_effects     |
//!   |         +---+-----------+-----------+----------+----+
//!   |             | writes    | send      | load     | apply, reads
//!   |             v           v           v          v
//!   |         log task     outboxes     loader    apply task --> answers clients
//!   |          |     |        | two lanes per peer      |
//!   |          |     +------->|                         |
//!   |          |   promises   v                         |
//!   +----------+        Transport::send                 |
//!   +---------------------------------------------------+
//! ```
//!
//! Every arrow is a bounded queue with one consumer. The driver never waits for an executor; the
//! executors may wait for the driver. Only this room starts tasks, and [`lifecycle`] ends them.

mod apply_task;
mod budget;
mod driver;
mod event;
mod handle;
mod handoff;
mod lifecycle;
mod loader;
mod log_task;
mod metrics;
mod peers;
mod receive;
mod request;
mod status;
mod ticker;
mod waiters;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::config::{Config, ConfigError};
use crate::error::StorageError;
use crate::log_store::{LoadedLog, LogStore};
use crate::protocol::{Raft, RoleChange};
use crate::state_machine::StateMachine;
use crate::transport::Transport;
use crate::types::{LogId, Term};

use apply_task::{APPLY_QUEUE_ITEMS_MAX, ApplyLinks, ApplyTask};
use budget::Budget;
use driver::{Driver, Executors, Inbox};
use event::EVENTS_MAX;
use handle::HandleLinks;
use handoff::HandOff;
use lifecycle::{DRIVER, Ending};
use loader::LoadQueue;
use log_task::{LOG_QUEUE_WRITES_MAX, LogTask};
use metrics::Metrics;
use peers::{Lane, Peers};
use receive::INBOX_MESSAGES_MAX;
use status::StatusCell;
use ticker::Ticker;

pub use handle::RaftHandle;
pub use metrics::MetricsSnapshot;
pub use request::{Committed, Consistency};
pub use status::Status;

/// Starts nodes.
#[derive(Debug)]
pub struct Node;

/// Why a node did not start. Nothing was written, and no task is left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting cannot work.
    #[error("settings: {0}")]
    Config(#[from] ConfigError),
    /// The log store could not be read.
    #[error("log store: {0}")]
    Storage(#[from] StorageError),
    /// The state machine has what the log does not: the two do not belong together, or the log lost
    /// entries.
    #[error(
        "the state machine has applied {applied}, which is not in the log, whose end is {last}"
    )]
    Ahead {
        /// What the machine says.
        applied: LogId,
        /// The end of the log.
        last: LogId,
    },
}

impl Node {
    /// Loads the log and starts the tasks of one node on the current tokio runtime. The node goes on
    /// until [`RaftHandle::shutdown`], until its last handle is dropped, or until one of its parts
    /// fails.
    ///
    /// # Errors
    /// When a setting cannot work, or log and state machine cannot be used.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    pub async fn start(
        config: Config,
        transport: Arc<dyn Transport>,
        mut log_store: Box<dyn LogStore>,
        state_machine: Box<dyn StateMachine>,
    ) -> Result<RaftHandle, StartError> {
        config.validate()?;
        let loaded = log_store.load().await?;
        let applied = state_machine.applied();
        if !holds(&loaded, applied) {
            let last = loaded.last;
            return Err(StartError::Ahead { applied, last });
        }
        let raft = Raft::new(config.clone(), loaded, applied)?;
        let parts = Parts {
            config,
            raft,
            applied,
            transport,
            log_store,
            state_machine,
        };
        Ok(parts.wire())
    }
}

/// Whether the log has an entry with this id.
fn holds(loaded: &LoadedLog, id: LogId) -> bool {
    if id == LogId::ZERO {
        return true;
    }
    let runs = loaded.term_runs.iter().rev();
    let term: Option<Term> = runs
        .skip_while(|(_, first)| *first > id.index)
        .map(|(term, _)| *term)
        .next();
    id.index <= loaded.last.index && term == Some(id.term)
}

/// What a node is made of.
struct Parts {
    config: Config,
    raft: Raft,
    applied: LogId,
    transport: Arc<dyn Transport>,
    log_store: Box<dyn LogStore>,
    state_machine: Box<dyn StateMachine>,
}

impl Parts {
    /// Makes every queue and starts every task.
    fn wire(self) -> RaftHandle {
        let config = &self.config;
        let limits = config.limits;
        let requests_max = limits.proposals_pending_max + limits.reads_pending_max;
        let (events, event_inbox) = mpsc::channel(EVENTS_MAX);
        let (messages, message_inbox) = mpsc::channel(INBOX_MESSAGES_MAX);
        let (requests, request_inbox) = mpsc::channel(requests_max);
        let (stale, stale_inbox) = mpsc::channel(limits.reads_pending_max);
        let (writes, write_queue) = mpsc::channel(LOG_QUEUE_WRITES_MAX);
        let (apply, apply_queue) = mpsc::channel(APPLY_QUEUE_ITEMS_MAX);

        let state = self.raft.state();
        let (leadership, leadership_seen) = watch::channel(RoleChange {
            term: state.hard_state.term,
            role: state.role,
            leader: state.leader,
        });
        let metrics = Arc::new(Metrics::default());
        let members = config.members.clone();
        let cell = StatusCell::new(config.id, members, Arc::clone(&metrics), state);
        let status = Arc::new(cell);
        let others = config.members.iter().map(|(id, _)| id);
        let others = others.filter(|id| *id != config.id);
        let peers = Peers::new(others, &limits, events.clone(), Arc::clone(&metrics));
        let peers = Arc::new(peers);
        let loads = Arc::new(LoadQueue::default());
        let reader = self.log_store.reader();
        metrics.set_log_usage(reader.usage());

        let (mut supervisor, life) = lifecycle::new();
        let log_task = LogTask {
            store: self.log_store,
            reader: Arc::clone(&reader),
            queue: write_queue,
            peers: Arc::clone(&peers),
            events: events.clone(),
            metrics: Arc::clone(&metrics),
            stop: supervisor.stop_signal(),
        };
        supervisor.spawn("log", Ending::Signal, log_task.run());
        let links = ApplyLinks {
            queue: apply_queue,
            stale: stale_inbox,
            events: events.clone(),
            metrics: Arc::clone(&metrics),
            stop: supervisor.stop_signal(),
        };
        let apply_task = ApplyTask::new(self.state_machine, Arc::clone(&reader), links);
        supervisor.spawn("apply", Ending::Signal, apply_task.run());
        let loader = loader::run(Arc::clone(&loads), reader, events, Arc::clone(&metrics));
        supervisor.spawn("loader", Ending::Abort, loader);
        for peer in peers.ids() {
            for (name, lane) in [("control", Lane::Control), ("bulk", Lane::Bulk)] {
                let transport = Arc::clone(&self.transport);
                let task = peers::run_lane(Arc::clone(&peers), peer, lane, transport);
                supervisor.spawn(name, Ending::Abort, task);
            }
        }
        let receive = receive::run(Arc::clone(&self.transport), messages, Arc::clone(&metrics));
        supervisor.spawn("receive", Ending::Abort, receive);

        let inbox = Inbox {
            events: event_inbox,
            messages: message_inbox,
            requests: request_inbox,
        };
        let executors = Executors {
            log: HandOff::new(writes),
            peers,
            loads,
            apply: HandOff::new(apply),
            status: Arc::clone(&status),
            leadership,
        };
        let period = Duration::from_millis(config.timing.tick_ms);
        let ticker = Ticker::new(period, Instant::now());
        let applied = self.applied.index;
        let driver = Driver::new(
            self.raft, applied, inbox, executors, limits, metrics, ticker,
        );
        supervisor.spawn(DRIVER, Ending::Abort, driver.run());
        tokio::spawn(supervisor.run(self.transport));

        RaftHandle::new(HandleLinks {
            proposal_bytes_max: limits.proposal_bytes_max,
            proposals: Budget::new("proposals_pending_max", limits.proposals_pending_max),
            proposal_bytes: Budget::new(
                "proposals_pending_bytes_max",
                limits.proposals_pending_bytes_max,
            ),
            reads: Budget::new("reads_pending_max", limits.reads_pending_max),
            requests,
            stale,
            status,
            leadership: leadership_seen,
            life,
        })
    }
}
