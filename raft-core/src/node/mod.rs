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
//! executors may wait for the driver. Only this room starts tasks, and `lifecycle` ends them.

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
use crate::log_store::{LoadedLog, LogReader, LogStore};
use crate::protocol::{Raft, RoleChange, Write};
use crate::state_machine::StateMachine;
use crate::transport::Transport;
use crate::types::{LogId, Term};

use apply_task::{APPLY_QUEUE_ITEMS_MAX, ApplyItem, ApplyLinks, ApplyTask};
use budget::Budget;
use driver::{Driver, Executors, Inbox};
use event::{EVENTS_MAX, Event};
use handle::HandleLinks;
use handoff::HandOff;
use lifecycle::{DRIVER, Ending, Supervisor};
use loader::LoadQueue;
use log_task::{LOG_QUEUE_WRITES_MAX, LogTask};
use metrics::Metrics;
use peers::{Lane, Peers};
use receive::{INBOX_MESSAGES_MAX, Received};
use request::ReadWaiter;
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
    /// Loads the log and starts the tasks of one node on the current tokio runtime. The node goes
    /// on until [`RaftHandle::shutdown`], until its last handle is dropped, or until one of its
    /// parts fails.
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
        let raft = Raft::new(config.clone(), loaded, None, applied)?;
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

/// What several tasks of a node share.
struct Shared {
    metrics: Arc<Metrics>,
    events: mpsc::Sender<Event>,
    peers: Arc<Peers>,
    reader: Arc<dyn LogReader>,
}

impl Parts {
    /// Makes every queue and starts every task.
    fn wire(self) -> RaftHandle {
        let limits = self.config.limits;
        let (mut supervisor, life) = lifecycle::new();
        let (events, event_inbox) = mpsc::channel(EVENTS_MAX);
        let requests_max = limits.proposals_pending_max + limits.reads_pending_max;
        let (requests, request_inbox) = mpsc::channel(requests_max);
        let (stale, stale_inbox) = mpsc::channel(limits.reads_pending_max);

        let shared = Shared::new(&self.config, self.log_store.reader(), events);
        let message_inbox = shared.start_network(&mut supervisor, &self.transport);
        let loads = shared.start_loader(&mut supervisor);
        let log = shared.start_log(&mut supervisor, self.log_store);
        let apply = shared.start_apply(&mut supervisor, self.state_machine, stale_inbox);

        let state = self.raft.state();
        let (leadership, leadership_seen) = watch::channel(RoleChange {
            term: state.hard_state.term,
            role: state.role,
            leader: state.leader,
        });
        let members = self.config.members.clone();
        let metrics = Arc::clone(&shared.metrics);
        let status = Arc::new(StatusCell::new(self.config.id, members, metrics, state));
        let inbox = Inbox {
            events: event_inbox,
            messages: message_inbox,
            requests: request_inbox,
        };
        let executors = Executors {
            log: HandOff::new(log),
            peers: shared.peers,
            loads,
            apply: HandOff::new(apply),
            status: Arc::clone(&status),
            leadership,
        };
        let period = Duration::from_millis(self.config.timing.tick_ms);
        let driver = Driver::new(
            self.raft,
            self.applied.index,
            inbox,
            executors,
            limits,
            shared.metrics,
            Ticker::new(period, Instant::now()),
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

impl Shared {
    fn new(config: &Config, reader: Arc<dyn LogReader>, events: mpsc::Sender<Event>) -> Self {
        let metrics = Arc::new(Metrics::default());
        metrics.set_log_usage(reader.usage());
        let others = config.members.iter().map(|(id, _)| id);
        let others = others.filter(|id| *id != config.id);
        let peers = Peers::new(others, &config.limits, events.clone(), Arc::clone(&metrics));
        Self {
            metrics,
            events,
            peers: Arc::new(peers),
            reader,
        }
    }

    /// The receive task, and two lanes per peer.
    fn start_network(
        &self,
        supervisor: &mut Supervisor,
        transport: &Arc<dyn Transport>,
    ) -> mpsc::Receiver<Received> {
        for peer in self.peers.ids() {
            for (name, lane) in [("control", Lane::Control), ("bulk", Lane::Bulk)] {
                let peers = Arc::clone(&self.peers);
                let task = peers::run_lane(peers, peer, lane, Arc::clone(transport));
                supervisor.spawn(name, Ending::Abort, task);
            }
        }
        let (messages, inbox) = mpsc::channel(INBOX_MESSAGES_MAX);
        let task = receive::run(Arc::clone(transport), messages, Arc::clone(&self.metrics));
        supervisor.spawn("receive", Ending::Abort, task);
        inbox
    }

    fn start_loader(&self, supervisor: &mut Supervisor) -> Arc<LoadQueue> {
        let loads = Arc::new(LoadQueue::default());
        let task = loader::run(
            Arc::clone(&loads),
            Arc::clone(&self.reader),
            self.events.clone(),
            Arc::clone(&self.metrics),
        );
        supervisor.spawn("loader", Ending::Abort, task);
        loads
    }

    fn start_log(
        &self,
        supervisor: &mut Supervisor,
        store: Box<dyn LogStore>,
    ) -> mpsc::Sender<Write> {
        let (writes, queue) = mpsc::channel(LOG_QUEUE_WRITES_MAX);
        let task = LogTask {
            store,
            reader: Arc::clone(&self.reader),
            queue,
            peers: Arc::clone(&self.peers),
            events: self.events.clone(),
            metrics: Arc::clone(&self.metrics),
            stop: supervisor.stop_signal(),
        };
        supervisor.spawn("log", Ending::Signal, task.run());
        writes
    }

    fn start_apply(
        &self,
        supervisor: &mut Supervisor,
        machine: Box<dyn StateMachine>,
        stale: mpsc::Receiver<ReadWaiter>,
    ) -> mpsc::Sender<ApplyItem> {
        let (items, queue) = mpsc::channel(APPLY_QUEUE_ITEMS_MAX);
        let links = ApplyLinks {
            queue,
            stale,
            events: self.events.clone(),
            metrics: Arc::clone(&self.metrics),
            stop: supervisor.stop_signal(),
        };
        let task = ApplyTask::new(machine, Arc::clone(&self.reader), links);
        supervisor.spawn("apply", Ending::Signal, task.run());
        items
    }
}
