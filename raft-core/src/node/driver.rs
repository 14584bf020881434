//! The loop: drain the inbox, step each input, take the effects once, and hand each field to its
//! one executor. Decides nothing, and awaits nothing but its inbox and its clock: a slow disk, a
//! slow state machine or a dead peer never holds up a heartbeat.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::config::Limits;
use crate::error::{ReadError, Refusal, StopReason, StorageError};
use crate::message::{Envelope, Message};
use crate::node::apply_task::ApplyItem;
use crate::node::event::{EVENTS_MAX, Event};
use crate::node::handoff::HandOff;
use crate::node::loader::LoadQueue;
use crate::node::log_task::write_bytes;
use crate::node::metrics::Metrics;
use crate::node::peers::Peers;
use crate::node::receive::{INBOX_MESSAGES_MAX, Received};
use crate::node::request::{ReadWaiter, Request};
use crate::node::status::StatusCell;
use crate::node::ticker::Ticker;
use crate::node::waiters::Waiters;
use crate::protocol::{
    Apply, Effects, Input, Load, Proposal, Raft, ReadTicket, Role, RoleChange, Write,
};
use crate::types::Index;

/// Below so many inputs the driver lets all other tasks run once before it steps: what they send
/// meanwhile shares the turn, and so the sync and the frames.
const YIELD_BELOW_INPUTS: usize = 32;

/// Writes that wait for the log task before appends of a leader are dropped.
const LOG_BACKLOG_WRITES_MAX: u64 = 4096;

/// Ticks between two searches for waiters whose clients went away.
const SWEEP_TICKS: u64 = 100;

/// Where everything that wakes the driver arrives.
pub(crate) struct Inbox {
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) messages: mpsc::Receiver<Received>,
    pub(crate) requests: mpsc::Receiver<Request>,
}

/// Who executes the effects: one per field.
pub(crate) struct Executors {
    pub(crate) log: HandOff<Write>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) loads: Arc<LoadQueue>,
    pub(crate) apply: HandOff<ApplyItem>,
    pub(crate) status: Arc<StatusCell>,
    pub(crate) leadership: watch::Sender<RoleChange>,
}

/// See the file.
pub(crate) struct Driver {
    raft: Raft,
    inbox: Inbox,
    executors: Executors,
    limits: Limits,
    metrics: Arc<Metrics>,
    ticker: Ticker,
    ticks: u64,
    /// Inputs stepped since the effects were taken.
    stepped: usize,
    waiters: Waiters,
    read_tickets_given: u64,
    /// Reads of which the protocol has not said anything yet.
    readers: BTreeMap<ReadTicket, Vec<ReadWaiter>>,
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
    /// A driver whose state machine starts behind `applied`.
    pub(crate) fn new(
        raft: Raft,
        applied: Index,
        inbox: Inbox,
        executors: Executors,
        limits: Limits,
        metrics: Arc<Metrics>,
        ticker: Ticker,
    ) -> Self {
        Self {
            raft,
            inbox,
            executors,
            limits,
            metrics,
            ticker,
            ticks: 0,
            stepped: 0,
            waiters: Waiters::new(applied),
            read_tickets_given: 0,
            readers: BTreeMap::new(),
        }
    }

    /// Runs until it is aborted, or the last handle is dropped.
    pub(crate) async fn run(mut self) -> Result<(), StopReason> {
        let sleep = tokio::time::sleep_until(self.ticker.next());
        tokio::pin!(sleep);
        let mut batch = Batch::default();
        // What a node with a log has to say before anything happens.
        self.execute();
        self.publish();
        loop {
            tokio::select! {
                biased;
                Some(event) = self.inbox.events.recv() => batch.events.push(event),
                Some(message) = self.inbox.messages.recv() => batch.messages.push(message),
                request = self.inbox.requests.recv() => match request {
                    Some(request) => batch.requests.push(request),
                    None => batch.is_abandoned = true,
                },
                () = sleep.as_mut() => {}
            }
            self.fill(&mut batch, self.limits.inputs_per_turn_max);
            if batch.len() < YIELD_BELOW_INPUTS {
                tokio::task::yield_now().await;
                self.fill(&mut batch, self.limits.inputs_per_turn_max);
            }
            if batch.is_abandoned {
                return Ok(());
            }
            let is_tick_due = self.ticker.take_due(Instant::now());
            sleep.as_mut().reset(self.ticker.next());
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
            match self.inbox.requests.try_recv() {
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
            && let Ok(event) = self.inbox.events.try_recv()
        {
            batch.events.push(event);
        }
        while batch.messages.len() < inputs_max
            && let Ok(message) = self.inbox.messages.try_recv()
        {
            batch.messages.push(message);
        }
    }

    fn turn(&mut self, batch: &mut Batch, is_tick_due: bool) -> Result<(), StopReason> {
        self.executors.log.flush();
        self.executors.apply.flush();
        for event in batch.events.drain(..) {
            self.handle_event(event)?;
        }
        for received in batch.messages.drain(..) {
            self.handle_message(received.envelope);
        }
        if is_tick_due {
            self.handle_tick();
        }
        self.handle_requests(&mut batch.requests);
        self.execute();
        self.publish();
        Ok(())
    }

    fn step(&mut self, input: Input) {
        self.metrics.inputs.increment();
        self.raft.step(input);
        self.stepped += 1;
        if self.stepped >= self.limits.inputs_per_turn_max {
            self.execute();
        }
    }

    fn handle_event(&mut self, event: Event) -> Result<(), StopReason> {
        match event {
            Event::Persisted(persisted) => self.step(Input::Persisted(persisted)),
            Event::Applied(index) => self.step(Input::Applied(index)),
            Event::Loaded(loaded) => self.step(Input::Loaded(loaded)),
            Event::Unreachable(peer) => self.step(Input::Unreachable(peer)),
            Event::NotLoaded { load, error } => return self.handle_not_loaded(load, error),
        }
        Ok(())
    }

    /// A leader never truncates its log, so while its term lasts it holds what it asked for. After
    /// that the question is void.
    fn handle_not_loaded(&self, load: Load, error: StorageError) -> Result<(), StopReason> {
        let state = self.raft.state();
        if state.role == Role::Leader && state.hard_state.term == load.term {
            return Err(StopReason::Storage(error));
        }
        Ok(())
    }

    fn handle_message(&mut self, envelope: Envelope) {
        if matches!(envelope.message, Message::Append(_)) && self.is_log_behind() {
            // The leader sends again; meanwhile the disk works off what it has.
            self.metrics.appends_shed.increment();
            return;
        }
        self.step(Input::Message(envelope));
    }

    fn is_log_behind(&self) -> bool {
        // Four windows of a leader: more than one leader has under way.
        let bytes_max = (self.limits.inflight_bytes_max as u64).saturating_mul(4);
        self.metrics.log_backlog_writes.value() > LOG_BACKLOG_WRITES_MAX
            || self.metrics.log_backlog_bytes.value() > bytes_max
    }

    fn handle_tick(&mut self) {
        self.ticks += 1;
        self.executors.peers.allow_reports();
        if self.ticks.is_multiple_of(SWEEP_TICKS) {
            self.waiters.sweep();
            for readers in self.readers.values_mut() {
                readers.retain(|reader| !reader.is_abandoned());
            }
        }
        self.step(Input::Tick);
    }

    /// All waiting proposals are one input, and all waiting reads are one read.
    fn handle_requests(&mut self, requests: &mut Vec<Request>) {
        let mut proposals = Vec::new();
        let mut readers = Vec::new();
        for request in requests.drain(..) {
            match request {
                Request::Propose { payload, waiter } if !waiter.is_abandoned() => {
                    let ticket = self.waiters.enter(waiter);
                    proposals.push(Proposal { ticket, payload });
                }
                Request::Read(reader) if !reader.is_abandoned() => readers.push(reader),
                Request::Propose { .. } | Request::Read(_) => {}
            }
        }
        if !proposals.is_empty() {
            self.metrics.proposals.add(proposals.len() as u64);
            self.step(Input::Propose(proposals));
        }
        if !readers.is_empty() {
            self.metrics.reads.add(readers.len() as u64);
            self.read_tickets_given += 1;
            let ticket = ReadTicket(self.read_tickets_given);
            self.readers.insert(ticket, readers);
            self.step(Input::Read(vec![ticket]));
        }
    }

    /// Takes the effects and hands each field to its executor, in field order.
    fn execute(&mut self) {
        self.stepped = 0;
        self.metrics.turns.increment();
        let effects = self.raft.take_effects();
        let Effects {
            writes,
            send,
            load,
            apply,
            proposed,
            reads_ready,
            reads_refused,
            role_changed,
            ..
        } = effects;
        for write in writes {
            self.write(write);
        }
        for envelope in send {
            self.executors.peers.push(envelope);
        }
        for load in load {
            self.executors.loads.push(load);
        }
        if let Some(range) = apply {
            self.apply(range);
        }
        for (ticket, placed) in proposed {
            self.waiters.place(ticket, placed);
        }
        for (ticket, index) in reads_ready {
            self.reads_ready(ticket, index);
        }
        for (ticket, error) in reads_refused {
            self.refuse_reads(ticket, &error);
        }
        if let Some(change) = role_changed {
            self.role_changed(change);
        }
        for refusal in self.raft.take_refusals() {
            self.report_refusal(refusal);
        }
    }

    fn write(&mut self, write: Write) {
        let bytes = write_bytes(&write) as u64;
        self.metrics.log_backlog_writes.add(1);
        self.metrics.log_backlog_bytes.add(bytes);
        self.executors.log.push(write);
    }

    fn apply(&mut self, range: Apply) {
        let waiters = self.waiters.take_through(range.to);
        self.executors
            .apply
            .push(ApplyItem::Apply { range, waiters });
    }

    fn reads_ready(&mut self, ticket: ReadTicket, index: Index) {
        if let Some(readers) = self.readers.remove(&ticket) {
            self.executors
                .apply
                .push(ApplyItem::Reads { index, readers });
        }
    }

    fn refuse_reads(&mut self, ticket: ReadTicket, error: &ReadError) {
        for reader in self.readers.remove(&ticket).unwrap_or_default() {
            reader.answer(Err(error.clone()));
        }
    }

    fn role_changed(&mut self, change: RoleChange) {
        if change.role == Role::Leader {
            self.metrics.leaderships.increment();
        }
        tracing::info!(
            term = %change.term,
            role = change.role.name(),
            leader = change.leader.map(|id| id.0),
            "role changed"
        );
        self.waiters.role_changed(change);
        self.executors.leadership.send_if_modified(|known| {
            let is_new = *known != change;
            *known = change;
            is_new
        });
    }

    /// Logs the 1st, 2nd, 4th, 8th ... refusal of a kind: a peer can cause as many as it likes.
    fn report_refusal(&self, refusal: Refusal) {
        let count = self.metrics.count_refusal(refusal);
        if count.is_power_of_two() {
            tracing::warn!(%refusal, count, "message refused");
        }
    }

    fn publish(&self) {
        self.executors.status.publish(self.raft.state());
    }
}
