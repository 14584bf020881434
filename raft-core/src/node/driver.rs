//! The loop: drain the inbox, step each input, take the effects once, and have them executed.
//! Decides nothing, and awaits nothing but its inbox and its clock: a slow disk, a slow state
//! machine or a dead peer never holds up a heartbeat.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::Instant;

use crate::config::Limits;
use crate::error::{Refusal, StopReason, StorageError};
use crate::message::Message;
use crate::node::clock::Clock;
use crate::node::event::{EVENTS_MAX, Event};
use crate::node::executors::Executors;
use crate::node::metrics::Metrics;
use crate::node::peers::Peers;
use crate::node::receive::{INBOX_MESSAGES_MAX, Received};
use crate::node::request::Request;
use crate::node::status::StatusCell;
use crate::node::ticker::Ticker;
use crate::protocol::{Input, Load, Proposal, Raft, Role};

/// Below so many inputs the driver lets all other tasks run once before it steps: what they send
/// meanwhile shares the turn, and so the sync and the frames.
const YIELD_BELOW_INPUTS: usize = 32;

/// Writes that wait for the log task before appends of a leader are dropped.
const LOG_BACKLOG_WRITES_MAX: u64 = 4096;

/// Ticks between two searches for waiters whose clients went away.
const SWEEP_TICKS: u64 = 100;

/// Ticks between two reminders that the log is not whole and nobody leads.
const REMIND_TICKS: u64 = 3000;

/// Where everything that wakes the driver arrives.
pub(crate) struct Inbox {
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) messages: mpsc::Receiver<Received>,
    pub(crate) requests: mpsc::Receiver<Request>,
}

/// See the file.
pub(crate) struct Driver {
    links: DriverLinks,
    raft: Raft,
    executors: Executors,
    ticks: u64,
    /// Inputs stepped since the effects were taken.
    stepped: usize,
    /// Whether it was published that entries are missing.
    is_refilling: bool,
}

/// What joins the driver to the other tasks, and how it measures time.
pub(crate) struct DriverLinks {
    pub(crate) inbox: Inbox,
    pub(crate) peers: Arc<Peers>,
    pub(crate) status: Arc<StatusCell>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Limits,
    pub(crate) ticker: Ticker,
    /// Only where leases are measured.
    pub(crate) clock: Option<Clock>,
}

/// What is stepped in one turn.
#[derive(Debug, Default)]
struct Batch {
    events: Vec<Event>,
    messages: Vec<Received>,
    requests: Vec<Request>,
    /// The last handle was dropped.
    is_abandoned: bool,
}

impl Batch {
    fn len(&self) -> usize {
        self.events.len() + self.messages.len() + self.requests.len()
    }
}

impl Driver {
    /// A driver that has handed over what a node has to say before anything happens, such as
    /// whom it talks to, and which snapshot is to be restored.
    pub(crate) fn new(raft: Raft, executors: Executors, links: DriverLinks) -> Self {
        let mut driver = Self {
            links,
            raft,
            executors,
            ticks: 0,
            stepped: 0,
            is_refilling: false,
        };
        driver.execute();
        driver.publish();
        driver
    }

    /// Runs until it is aborted, or the last handle is dropped.
    pub(crate) async fn run(mut self) -> Result<(), StopReason> {
        let sleep = tokio::time::sleep_until(self.links.ticker.next());
        tokio::pin!(sleep);
        let mut batch = Batch::default();
        loop {
            tokio::select! {
                biased;
                Some(event) = self.links.inbox.events.recv() => batch.events.push(event),
                Some(message) = self.links.inbox.messages.recv() => batch.messages.push(message),
                request = self.links.inbox.requests.recv() => match request {
                    Some(request) => batch.requests.push(request),
                    None => batch.is_abandoned = true,
                },
                () = sleep.as_mut() => {}
            }
            self.fill(&mut batch, self.links.limits.inputs_per_turn_max);
            if batch.len() < YIELD_BELOW_INPUTS {
                tokio::task::yield_now().await;
                self.fill(&mut batch, self.links.limits.inputs_per_turn_max);
            }
            if batch.is_abandoned {
                return Ok(());
            }
            let is_tick_due = self.links.ticker.take_due(Instant::now());
            sleep.as_mut().reset(self.links.ticker.next());
            if is_tick_due {
                // Time moves only after all that was heard before.
                self.fill_peers(&mut batch, EVENTS_MAX + INBOX_MESSAGES_MAX);
            }
            self.turn(&mut batch, is_tick_due)?;
        }
    }

    /// Takes what is there without waiting. Requests have a share of their own, so that peers come
    /// first and proposals never starve.
    fn fill(&mut self, batch: &mut Batch, inputs_max: usize) {
        self.fill_peers(batch, inputs_max);
        while batch.requests.len() < inputs_max {
            match self.links.inbox.requests.try_recv() {
                Ok(request) => batch.requests.push(request),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    batch.is_abandoned = true;
                    break;
                }
            }
        }
    }

    fn fill_peers(&mut self, batch: &mut Batch, inputs_max: usize) {
        while batch.events.len() < inputs_max
            && let Ok(event) = self.links.inbox.events.try_recv()
        {
            batch.events.push(event);
        }
        while batch.messages.len() < inputs_max
            && let Ok(message) = self.links.inbox.messages.try_recv()
        {
            batch.messages.push(message);
        }
    }

    fn turn(&mut self, batch: &mut Batch, is_tick_due: bool) -> Result<(), StopReason> {
        self.executors.flush();
        for event in batch.events.drain(..) {
            self.handle_event(event)?;
        }
        for received in batch.messages.drain(..) {
            self.handle_message(received);
        }
        if is_tick_due {
            self.handle_tick();
        }
        self.handle_requests(&mut batch.requests);
        if let Some(clock) = &self.links.clock {
            let now = clock.nanoseconds();
            self.step(Input::Clock(now));
        }
        self.execute();
        self.publish();
        Ok(())
    }

    fn step(&mut self, input: Input) {
        self.links.metrics.inputs.increment();
        self.raft.step(input);
        self.stepped += 1;
        if self.stepped >= self.links.limits.inputs_per_turn_max {
            self.execute();
        }
    }

    fn handle_event(&mut self, event: Event) -> Result<(), StopReason> {
        match event {
            Event::Persisted(persisted) => self.step(Input::Persisted(persisted)),
            Event::Applied(index) => {
                self.executors.applied(index);
                self.step(Input::Applied(index));
            }
            Event::Room(is_short) => self.handle_room(is_short),
            Event::Loaded(loaded) => self.step(Input::Loaded(loaded)),
            Event::Unreachable(peer) => self.step(Input::Unreachable(peer)),
            Event::NotLoaded { load, error } => return self.handle_not_loaded(load, error),
            Event::SnapshotTaken(taken) => {
                self.executors.snapshot_taken(taken.as_ref());
                self.step(Input::SnapshotTaken(taken));
            }
            Event::SnapshotSent {
                to,
                number,
                is_delivered,
            } => {
                if self.executors.snapshot_sent(to, number) {
                    self.step(Input::SnapshotSent { to, is_delivered });
                }
            }
        }
        Ok(())
    }

    /// A leader never truncates its log, so while its term lasts it holds what it asked for, unless
    /// it has compacted it meanwhile; the protocol knows that. After the term the question is void.
    fn handle_not_loaded(&self, load: Load, error: StorageError) -> Result<(), StopReason> {
        let state = self.raft.state();
        let is_void = state.role != Role::Leader || state.hard_state.term != load.term;
        if is_void || load.from <= state.start.index {
            return Ok(());
        }
        Err(StopReason::Storage(error))
    }

    fn handle_message(&mut self, mut received: Received) {
        let message = &received.envelope.message;
        if matches!(message, Message::Append(_)) && self.is_log_behind() {
            // The leader sends again; meanwhile the disk works off what it has.
            self.links.metrics.appends_shed.increment();
            return;
        }
        self.executors.arrived(&mut received);
        self.step(Input::Message(received.envelope));
    }

    fn is_log_behind(&self) -> bool {
        // Four windows of a leader: more than one leader has under way.
        let bytes_max = (self.links.limits.inflight_bytes_max as u64).saturating_mul(4);
        self.links.metrics.log_backlog_writes.value() > LOG_BACKLOG_WRITES_MAX
            || self.links.metrics.log_backlog_bytes.value() > bytes_max
    }

    fn handle_room(&mut self, is_short: bool) {
        if is_short {
            tracing::warn!("the disk is short of room: no proposals are taken until that ends");
        } else {
            tracing::info!("the disk has room again");
        }
        self.step(Input::Room { is_short });
    }

    fn handle_tick(&mut self) {
        self.ticks += 1;
        self.links.peers.allow_reports();
        if self.ticks.is_multiple_of(SWEEP_TICKS) {
            self.executors.sweep();
        }
        if self.ticks.is_multiple_of(REMIND_TICKS) {
            self.remind();
        }
        self.step(Input::Tick);
    }

    /// All waiting proposals are one input, and all waiting reads are one read.
    fn handle_requests(&mut self, requests: &mut Vec<Request>) {
        let mut proposals = Vec::new();
        let mut readers = Vec::new();
        let mut operations = Vec::new();
        for request in requests.drain(..) {
            match request {
                Request::Propose { payload, waiter } if !waiter.is_abandoned() => {
                    let ticket = self.executors.waiters.enter(waiter);
                    proposals.push(Proposal { ticket, payload });
                }
                Request::Read(reader) if !reader.is_abandoned() => readers.push(reader),
                Request::Propose { .. } | Request::Read(_) => {}
                Request::Change { change, waiter } => {
                    let ticket = self.executors.operations.enter_change(waiter);
                    operations.push(Input::ChangeMembership(ticket, change));
                }
                Request::Transfer { to, waiter } => {
                    let ticket = self.executors.operations.enter_transfer(waiter);
                    operations.push(Input::Transfer(ticket, to));
                }
            }
        }
        if !proposals.is_empty() {
            self.links.metrics.proposals.add(proposals.len() as u64);
            self.step(Input::Propose(proposals));
        }
        if !readers.is_empty() {
            self.links.metrics.reads.add(readers.len() as u64);
            let ticket = self.executors.enter_reads(readers);
            self.step(Input::Read(vec![ticket]));
        }
        for operation in operations {
            self.step(operation);
        }
    }

    /// Takes the effects and lets them be executed.
    fn execute(&mut self) {
        self.stepped = 0;
        self.links.metrics.turns.increment();
        let effects = self.raft.take_effects();
        self.executors.execute(effects);
        for refusal in self.raft.take_refusals() {
            self.report_refusal(refusal);
        }
    }

    /// Logs the 1st, 2nd, 4th, 8th ... refusal of a kind: a peer can cause as many as it likes.
    fn report_refusal(&self, refusal: Refusal) {
        let count = self.links.metrics.count_refusal(refusal);
        if count.is_power_of_two() {
            tracing::warn!(%refusal, count, "message refused");
        }
    }

    fn publish(&mut self) {
        let state = self.raft.state();
        if self.is_refilling && state.refilling.is_none() {
            tracing::info!(last = %state.last, "the log is whole again: this node votes");
        }
        self.is_refilling = state.refilling.is_some();
        self.links.status.publish(state);
    }

    /// A log that is not whole, and nobody who could refill it: that does not end by itself.
    fn remind(&self) {
        let state = self.raft.state();
        if let (Some(to), None) = (state.refilling, state.leader) {
            tracing::error!(
                last = %state.last,
                %to,
                "the log lost entries and nobody leads who could refill it; where no majority of \
                 the voters is whole nobody will, see docs/operations.md"
            );
        }
    }
}
