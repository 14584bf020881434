//! Makes every queue of a node and starts every task.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::config::{Config, Limits, ReadPolicy};
use crate::log_store::{LogReader, LogStore};
use crate::node::apply_task::{APPLY_QUEUE_ITEMS_MAX, ApplyItem, ApplyLinks, ApplyTask};
use crate::node::budget::Budget;
use crate::node::clock::Clock;
use crate::node::driver::{Driver, DriverLinks, Inbox};
use crate::node::event::{EVENTS_MAX, Event};
use crate::node::executors::{ExecutorLinks, Executors};
use crate::node::handle::{
    CHANGES_PENDING_MAX, HandleLinks, IMAGES_HELD_MAX, RaftHandle, TRANSFERS_PENDING_MAX,
};
use crate::node::handoff::HandOff;
use crate::node::lifecycle::{self, DRIVER, Ending, LifeWatch, Supervisor};
use crate::node::loader::{self, LoadQueue};
use crate::node::log_task::{LOG_QUEUE_WRITES_MAX, LogTask};
use crate::node::machine::Machine;
use crate::node::metrics::Metrics;
use crate::node::peers::Peers;
use crate::node::receive::{self, INBOX_MESSAGES_MAX, Received};
use crate::node::request::{ReadWaiter, Request};
use crate::node::room::StateRoom;
use crate::node::snapshots::{
    IMAGES_QUEUED_MAX, Identity, OFFERS_MAX, OwnImage, ReceiveLinks, ReceiveTask, SendLinks,
    Senders, Shelf, TakeLinks, TakeTask,
};
use crate::node::status::StatusCell;
use crate::node::ticker::Ticker;
use crate::protocol::{Input, Raft, RoleChange, Write};
use crate::snapshot::{SnapshotDescriptor, SnapshotMeta};
use crate::state_machine::StateMachine;
use crate::transport::{IncomingSnapshot, Transport};
use crate::types::{Index, LogId};

/// What a node is made of.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) raft: Raft,
    /// What the state machine has, as far as the log goes.
    pub(crate) applied: SnapshotMeta,
    /// What it has in truth.
    pub(crate) machine: LogId,
    pub(crate) snapshot: Option<SnapshotDescriptor>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) log_store: Box<dyn LogStore>,
    pub(crate) state_machine: Box<dyn StateMachine>,
    pub(crate) clock: Clock,
}

/// What several tasks of a node share.
struct Shared {
    metrics: Arc<Metrics>,
    events: mpsc::Sender<Event>,
    transport: Arc<dyn Transport>,
    peers: Arc<Peers>,
    reader: Arc<dyn LogReader>,
    room: StateRoom,
    shelf: Arc<Shelf>,
    status: Arc<StatusCell>,
}

/// The handles' ends of the queues.
struct HandleEnds {
    requests: mpsc::Sender<Request>,
    stale: mpsc::Sender<ReadWaiter>,
    leadership: watch::Receiver<RoleChange>,
    life: LifeWatch,
}

impl Parts {
    /// See the file.
    pub(crate) fn wire(mut self) -> RaftHandle {
        let limits = self.config.limits;
        let (mut supervisor, life) = lifecycle::new();
        let (events, event_inbox) = mpsc::channel(EVENTS_MAX);
        let (requests, request_inbox) = mpsc::channel(requests_max(&limits));
        let (stale, stale_inbox) = mpsc::channel(limits.reads_pending_max);

        let shared = Shared::new(&self, &supervisor, events);
        let is_short = shared.reader.usage().is_short_of_room || shared.room.is_short();
        self.raft.step(Input::Room { is_short });
        let (messages, message_inbox) = mpsc::channel(INBOX_MESSAGES_MAX);
        let loads = shared.start_loader(&mut supervisor);
        let images = shared.start_take(&mut supervisor);
        let log = shared.start_log(&mut supervisor, self.log_store, is_short);
        let machine = Machine::new(self.state_machine, Arc::clone(&shared.metrics));
        let links = ApplyQueues {
            stale: stale_inbox,
            images,
        };
        let applied = self.applied.last.index;
        let found = (self.applied, self.machine.index);
        let apply = shared.start_apply(&mut supervisor, machine, found, links);

        let state = self.raft.state();
        let (leadership, leadership_seen) = watch::channel(RoleChange {
            term: state.hard_state.term,
            role: state.role,
            leader: state.leader,
        });
        let links = ExecutorLinks {
            own: self.config.id,
            log: HandOff::new(log),
            peers: Arc::clone(&shared.peers),
            loads,
            apply: HandOff::new(apply),
            senders: Senders::new(shared.send_links(), supervisor.spawner()),
            shelf: Arc::clone(&shared.shelf),
            transport: Arc::clone(&shared.transport),
            status: Arc::clone(&shared.status),
            leadership,
            metrics: Arc::clone(&shared.metrics),
        };
        let executors = Executors::new(links, applied);
        let period = Duration::from_millis(self.config.timing.tick_ms);
        let links = DriverLinks {
            inbox: Inbox {
                events: event_inbox,
                messages: message_inbox,
                requests: request_inbox,
            },
            peers: Arc::clone(&shared.peers),
            status: Arc::clone(&shared.status),
            metrics: Arc::clone(&shared.metrics),
            limits,
            ticker: Ticker::new(period, Instant::now()),
            clock: matches!(self.config.reads, ReadPolicy::Lease { .. }).then_some(self.clock),
        };
        let driver = Driver::new(self.raft, executors, links);
        shared.start_network(&mut supervisor, &self.config, messages);
        supervisor.spawn(DRIVER, Ending::Abort, driver.run());
        tokio::spawn(supervisor.run(self.transport));
        let ends = HandleEnds {
            requests,
            stale,
            leadership: leadership_seen,
            life,
        };
        ends.into_handle(&limits, &shared)
    }
}

/// Room for every request that a claim was given for.
fn requests_max(limits: &Limits) -> usize {
    let clients = limits.proposals_pending_max + limits.reads_pending_max;
    clients + CHANGES_PENDING_MAX + TRANSFERS_PENDING_MAX
}

impl HandleEnds {
    fn into_handle(self, limits: &Limits, shared: &Shared) -> RaftHandle {
        RaftHandle::new(HandleLinks {
            proposal_bytes_max: limits.proposal_bytes_max,
            proposals: Budget::new("proposals_pending_max", limits.proposals_pending_max),
            proposal_bytes: Budget::new(
                "proposals_pending_bytes_max",
                limits.proposals_pending_bytes_max,
            ),
            reads: Budget::new("reads_pending_max", limits.reads_pending_max),
            images: Budget::new("images_held_max", IMAGES_HELD_MAX),
            changes: Budget::new("changes_pending_max", CHANGES_PENDING_MAX),
            transfers: Budget::new("transfers_pending_max", TRANSFERS_PENDING_MAX),
            requests: self.requests,
            stale: self.stale,
            status: Arc::clone(&shared.status),
            metrics: Arc::clone(&shared.metrics),
            leadership: self.leadership,
            life: self.life,
        })
    }
}

/// The apply task's queues besides that of the driver.
struct ApplyQueues {
    stale: mpsc::Receiver<ReadWaiter>,
    images: mpsc::Sender<OwnImage>,
}

impl Shared {
    fn new(parts: &Parts, supervisor: &Supervisor, events: mpsc::Sender<Event>) -> Self {
        let config = &parts.config;
        let reader = parts.log_store.reader();
        let metrics = Arc::new(Metrics::default());
        metrics.set_log_usage(reader.usage());
        let transport = Arc::clone(&parts.transport);
        let peers = Peers::new(
            &config.limits,
            Arc::clone(&transport),
            supervisor.spawner(),
            events.clone(),
            Arc::clone(&metrics),
        );
        let status = StatusCell::new(
            (config.id, config.incarnation),
            Arc::clone(&metrics),
            parts.raft.state(),
            parts.snapshot.clone(),
        );
        Self {
            room: StateRoom::new(parts.state_machine.room()),
            metrics,
            events,
            transport,
            peers: Arc::new(peers),
            reader,
            shelf: Arc::new(Shelf::new(parts.log_store.snapshots())),
            status: Arc::new(status),
        }
    }

    /// The receive task, and the one that receives snapshots.
    fn start_network(
        &self,
        supervisor: &mut Supervisor,
        config: &Config,
        messages: mpsc::Sender<Received>,
    ) {
        let offers = self.start_snapshot_receive(supervisor, config, messages.clone());
        let transport = Arc::clone(&self.transport);
        let task = receive::run(transport, messages, offers, Arc::clone(&self.metrics));
        supervisor.spawn("receive", Ending::Abort, task);
    }

    fn start_snapshot_receive(
        &self,
        supervisor: &mut Supervisor,
        config: &Config,
        inbox: mpsc::Sender<Received>,
    ) -> mpsc::Sender<IncomingSnapshot> {
        let (offers, offered) = mpsc::channel(OFFERS_MAX);
        let task = ReceiveTask::new(ReceiveLinks {
            identity: Identity {
                cluster: config.cluster,
                group: config.group,
                id: config.id,
                incarnation: config.incarnation,
            },
            shelf: Arc::clone(&self.shelf),
            room: self.room.clone(),
            status: Arc::clone(&self.status),
            offers: offered,
            inbox,
            metrics: Arc::clone(&self.metrics),
            stop: supervisor.stop_signal(),
        });
        supervisor.spawn("snapshot-receive", Ending::Signal, task.run());
        offers
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

    fn start_take(&self, supervisor: &mut Supervisor) -> mpsc::Sender<OwnImage> {
        let (images, queue) = mpsc::channel(IMAGES_QUEUED_MAX);
        let task = TakeTask::new(TakeLinks {
            shelf: Arc::clone(&self.shelf),
            images: queue,
            room: self.room.clone(),
            events: self.events.clone(),
            metrics: Arc::clone(&self.metrics),
            stop: supervisor.stop_signal(),
        });
        supervisor.spawn("snapshot-take", Ending::Signal, task.run());
        images
    }

    fn start_log(
        &self,
        supervisor: &mut Supervisor,
        store: Box<dyn LogStore>,
        is_short: bool,
    ) -> mpsc::Sender<Write> {
        let (writes, queue) = mpsc::channel(LOG_QUEUE_WRITES_MAX);
        let task = LogTask {
            store,
            reader: Arc::clone(&self.reader),
            room: self.room.clone(),
            is_short,
            looked_at: Instant::now(),
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
        machine: Machine,
        found: (SnapshotMeta, Index),
        queues: ApplyQueues,
    ) -> mpsc::Sender<ApplyItem> {
        let (items, queue) = mpsc::channel(APPLY_QUEUE_ITEMS_MAX);
        let links = ApplyLinks {
            queue,
            stale: queues.stale,
            images: queues.images,
            room: self.room.clone(),
            events: self.events.clone(),
            metrics: Arc::clone(&self.metrics),
            stop: supervisor.stop_signal(),
        };
        let (reader, shelf) = (Arc::clone(&self.reader), Arc::clone(&self.shelf));
        let task = ApplyTask::new(machine, found, reader, shelf, links);
        supervisor.spawn("apply", Ending::Signal, task.run());
        items
    }

    fn send_links(&self) -> SendLinks {
        SendLinks {
            shelf: Arc::clone(&self.shelf),
            transport: Arc::clone(&self.transport),
            events: self.events.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }
}
