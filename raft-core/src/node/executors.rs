//! The driver's outgoing half: hands each field of the effects to its one executor, and keeps those
//! who wait for what the protocol says. Never waits.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::error::{ChangeError, ProposeError, ReadError, TransferError};
use crate::membership::Membership;
use crate::message::{Envelope, Message};
use crate::node::apply_task::ApplyItem;
use crate::node::handoff::HandOff;
use crate::node::loader::LoadQueue;
use crate::node::log_task::write_bytes;
use crate::node::metrics::Metrics;
use crate::node::operations::Operations;
use crate::node::peers::Peers;
use crate::node::receive::Received;
use crate::node::request::ReadWaiter;
use crate::node::snapshots::{InstallRoom, Senders, Shelf};
use crate::node::status::StatusCell;
use crate::node::waiters::Waiters;
use crate::protocol::{
    Apply, ChangeTicket, Effects, LogStart, ProposalTicket, ReadTicket, Role, RoleChange,
    TransferTicket, Write,
};
use crate::snapshot::{SnapshotDescriptor, SnapshotMeta};
use crate::transport::Transport;
use crate::types::{Index, LogId, NodeId};

/// Whom the effects go to.
pub(crate) struct ExecutorLinks {
    pub(crate) own: NodeId,
    pub(crate) log: HandOff<Write>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) loads: Arc<LoadQueue>,
    pub(crate) apply: HandOff<ApplyItem>,
    pub(crate) senders: Senders,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) status: Arc<StatusCell>,
    pub(crate) leadership: watch::Sender<RoleChange>,
    pub(crate) metrics: Arc<Metrics>,
}

/// See the file.
pub(crate) struct Executors {
    links: ExecutorLinks,
    /// Proposals without an answer.
    pub(crate) waiters: Waiters,
    /// Changes and transfers without an answer.
    pub(crate) operations: Operations,
    read_tickets_given: u64,
    /// Reads of which the protocol has not said anything yet.
    readers: BTreeMap<ReadTicket, Vec<ReadWaiter>>,
    /// A snapshot on its way from the network into the state machine.
    arrival: Option<Arrival>,
}

/// See [`Executors::arrival`].
struct Arrival {
    /// The end of it.
    last: LogId,
    /// The protocol wants it installed.
    is_wanted: bool,
    /// Nothing else is received meanwhile.
    _room: InstallRoom,
}

impl Executors {
    /// Executors of a node whose state machine starts behind `applied`.
    pub(crate) fn new(links: ExecutorLinks, applied: Index) -> Self {
        Self {
            links,
            waiters: Waiters::new(applied),
            operations: Operations::default(),
            read_tickets_given: 0,
            readers: BTreeMap::new(),
            arrival: None,
        }
    }

    /// Moves on what did not fit before.
    pub(crate) fn flush(&mut self) {
        self.links.log.flush();
        self.links.apply.flush();
        self.links.senders.flush();
    }

    /// Takes in reads that share a ticket.
    pub(crate) fn enter_reads(&mut self, readers: Vec<ReadWaiter>) -> ReadTicket {
        self.read_tickets_given += 1;
        let ticket = ReadTicket(self.read_tickets_given);
        self.readers.insert(ticket, readers);
        ticket
    }

    /// Forgets those whose clients went away, so that their room can be used again.
    pub(crate) fn sweep(&mut self) {
        self.waiters.sweep();
        self.operations.sweep();
        for readers in self.readers.values_mut() {
            readers.retain(|reader| !reader.is_abandoned());
        }
    }

    /// A snapshot is on the disk, and the protocol is about to hear of it.
    pub(crate) fn arrived(&mut self, received: &mut Received) {
        if let Message::Snapshot(descriptor) = &received.envelope.message
            && let Some(room) = received.room.take()
        {
            self.links.status.set_snapshot(descriptor);
            self.arrival = Some(Arrival {
                last: descriptor.meta.last,
                is_wanted: false,
                _room: room,
            });
        }
    }

    /// The state machine has everything up to here.
    pub(crate) fn applied(&mut self, index: Index) {
        let is_installed = |arrival: &mut Arrival| arrival.last.index <= index;
        self.arrival.take_if(is_installed);
    }

    /// A transfer of a snapshot ended. Whether the protocol waits for that.
    pub(crate) fn snapshot_sent(&mut self, to: NodeId, number: u64) -> bool {
        self.links.senders.ended(to, number)
    }

    /// A snapshot of the own state was taken, or not.
    pub(crate) fn snapshot_taken(&self, taken: Option<&SnapshotDescriptor>) {
        if let Some(descriptor) = taken {
            self.links.status.set_snapshot(descriptor);
        }
    }

    /// Hands each field to its executor. Who belongs to the group and who leads comes first,
    /// because what is sent depends on it; the rest is in the order of the fields.
    pub(crate) fn execute(&mut self, effects: Effects) {
        let Effects {
            writes,
            send,
            load,
            restore,
            apply,
            take_snapshot,
            send_snapshot,
            proposed,
            reads_ready,
            reads_refused,
            changed,
            transferred,
            members_changed,
            role_changed,
        } = effects;
        if let Some(members) = members_changed {
            self.members_changed(members);
        }
        if role_changed.is_some() {
            // Snapshots were sent as the leader of the term before.
            self.links.senders.stop();
        }
        for write in writes {
            self.write(write);
        }
        self.forget_unwanted_arrival();
        for envelope in send {
            self.links.peers.push(envelope);
        }
        for load in load {
            self.links.loads.push(load);
        }
        if let Some(meta) = restore {
            self.restore(meta);
        }
        if let Some(range) = apply {
            self.apply(range);
        }
        if let Some(meta) = take_snapshot {
            self.links.apply.push(ApplyItem::TakeSnapshot(meta));
        }
        self.send_snapshots(send_snapshot);
        self.answer_proposals(proposed);
        self.answer_reads(reads_ready, reads_refused);
        self.answer_operations(changed, transferred);
        if let Some(change) = role_changed {
            self.role_changed(change);
        }
    }

    fn members_changed(&mut self, members: Membership) {
        let links = &mut self.links;
        tracing::info!(?members, "members changed");
        links.peers.set_members(links.own, &members);
        links.transport.set_members(links.own, &members);
        links.senders.set_members(&members);
    }

    fn write(&mut self, write: Write) {
        let bytes = write_bytes(&write) as u64;
        self.links.metrics.log_backlog_writes.add(1);
        self.links.metrics.log_backlog_bytes.add(bytes);
        if let Some(LogStart::Reset(to)) = write.log_start {
            self.links.shelf.replaces_log(to.index);
            if let Some(arrival) = &mut self.arrival {
                arrival.is_wanted |= arrival.last == to;
            }
        }
        self.links.log.push(write);
    }

    /// What the protocol was told of and did not take up, it never will.
    fn forget_unwanted_arrival(&mut self) {
        self.arrival.take_if(|arrival| !arrival.is_wanted);
    }

    /// While the state machine has not got it, no other snapshot may take its place on the disk.
    fn restore(&mut self, meta: SnapshotMeta) {
        if self.arrival.is_none()
            && let Some(room) = self.links.shelf.try_install()
        {
            self.arrival = Some(Arrival {
                last: meta.last,
                is_wanted: true,
                _room: room,
            });
        }
        for (_, waiter) in self.waiters.take_through(meta.last.index) {
            waiter.answer(Err(ProposeError::Unknown));
        }
        self.links.apply.push(ApplyItem::Restore(meta));
    }

    fn apply(&mut self, range: Apply) {
        let waiters = self.waiters.take_through(range.to);
        self.links.apply.push(ApplyItem::Apply { range, waiters });
    }

    fn send_snapshots(&mut self, envelopes: Vec<Envelope>) {
        for envelope in envelopes {
            self.links.senders.send(envelope);
        }
    }

    fn answer_proposals(&mut self, proposed: Vec<(ProposalTicket, Result<LogId, ProposeError>)>) {
        for (ticket, placed) in proposed {
            if matches!(placed, Err(ProposeError::Busy { .. })) {
                self.links.metrics.busy_refusals.increment();
            }
            if matches!(placed, Err(ProposeError::NoRoom(_))) {
                self.links.metrics.no_room_refusals.increment();
            }
            self.waiters.place(ticket, placed);
        }
    }

    fn answer_reads(
        &mut self,
        ready: Vec<(ReadTicket, Index)>,
        refused: Vec<(ReadTicket, ReadError)>,
    ) {
        for (ticket, index) in ready {
            if let Some(readers) = self.readers.remove(&ticket) {
                let item = ApplyItem::Reads { index, readers };
                self.links.apply.push(item);
            }
        }
        for (ticket, error) in refused {
            for reader in self.readers.remove(&ticket).unwrap_or_default() {
                if matches!(error, ReadError::Busy { .. }) {
                    self.links.metrics.busy_refusals.increment();
                }
                reader.refuse(error.clone());
            }
        }
    }

    fn answer_operations(
        &mut self,
        changed: Vec<(ChangeTicket, Result<LogId, ChangeError>)>,
        transferred: Vec<(TransferTicket, Result<(), TransferError>)>,
    ) {
        let metrics = &self.links.metrics;
        for (ticket, result) in changed {
            match &result {
                Ok(_) => metrics.changes.increment(),
                Err(_) => metrics.changes_refused.increment(),
            }
            self.operations.changed(ticket, result);
        }
        for (ticket, result) in transferred {
            match &result {
                Ok(()) => metrics.transfers.increment(),
                Err(_) => metrics.transfers_refused.increment(),
            }
            self.operations.transferred(ticket, result);
        }
    }

    fn role_changed(&mut self, change: RoleChange) {
        if change.role == Role::Leader {
            self.links.metrics.leaderships.increment();
        }
        tracing::info!(
            term = %change.term,
            role = change.role.name(),
            leader = change.leader.map(|id| id.0),
            "role changed"
        );
        self.waiters.role_changed(change);
        self.links.leadership.send_if_modified(|known| {
            let is_new = *known != change;
            *known = change;
            is_new
        });
    }
}
