//! Snapshots at work: taken behind what is applied, written in the background, sent part by part
//! over links that may break, resumed, and put in the place of a state.

use raft_core::protocol::Input;
use raft_core::{Envelope, Message, NodeId, SnapshotMeta};

use crate::coverage::Mark;
use crate::event::Event;
use crate::shelf::{Partial, Snapshot, Transfer};
use crate::violation::{Violation, require};
use crate::world::World;

/// Snapshots of 1,000 for which the disk has no room, where disks fail at all.
const NO_ROOM: u64 = 50;

impl World {
    /// The machine becomes what a snapshot says.
    pub(crate) fn restore(&mut self, id: NodeId, meta: &SnapshotMeta) -> Result<(), Violation> {
        let position = Self::place(id);
        let node = &mut self.nodes[position];
        let Some(snapshot) = node.shelf.open(meta.last) else {
            return require(false, 43, || {
                format!(
                    "n{id} is to become a snapshot up to {} that is not there",
                    meta.last
                )
            });
        };
        if node.applier.is_ahead() && meta.last.index <= node.applier.applied {
            // The machine kept what the log had lost.
            self.put(id, Input::Applied(meta.last.index));
            return Ok(());
        }
        require(node.applier.applied < meta.last.index, 43, || {
            format!(
                "n{id} applied {} and goes back to {}",
                node.applier.applied, meta.last
            )
        })?;
        let restored = snapshot.restore((self.machines)());
        let machine = restored.map_err(|what| Violation {
            invariant: 43,
            what: format!(
                "n{id} cannot become its snapshot up to {}: {what}",
                meta.last
            ),
        })?;
        let digest = machine.digest();
        node.applier.machine = machine;
        node.applier.applied = meta.last.index;
        self.checks.machines.digest(id, meta.last.index, digest)?;
        self.coverage.count(Mark::SnapshotRestored);
        self.trace.mix([7, id.0, meta.last.index.0]);
        self.trace.note(self.now, || {
            format!("n{id} becomes the snapshot up to {}", meta.last)
        });
        self.flush(id);
        self.put(id, Input::Applied(meta.last.index));
        Ok(())
    }

    /// Takes an image, which is written in the background.
    pub(crate) fn take_snapshot(
        &mut self,
        id: NodeId,
        meta: SnapshotMeta,
    ) -> Result<(), Violation> {
        let node = self.node(id);
        let applied = node.applier.applied;
        if applied < node.disk.start().index {
            // The state is about to be replaced.
            self.put(id, Input::SnapshotTaken(None));
            return Ok(());
        }
        require(applied == meta.last.index, 43, || {
            format!(
                "n{id} applied {applied} and takes a snapshot up to {}",
                meta.last
            )
        })?;
        let life = node.life;
        let digest = node.applier.machine.digest();
        let snapshot = Snapshot::of(node.applier.machine.as_ref(), meta);
        self.checks.machines.digest(id, applied, digest)?;
        let snapshot = Box::new(snapshot.map_err(|what| Violation {
            invariant: 43,
            what: format!("n{id} cannot be written down at {applied}: {what}"),
        })?);
        self.checks
            .commits
            .snapshot(id, &snapshot.descriptor.meta)?;
        self.checks.machines.snapshot(id, &snapshot.descriptor)?;
        let disk = self.options.disk;
        let after = self
            .chances
            .disks
            .between(disk.sync_min, disk.sync_max * snapshot.steps());
        let after = after + self.snapshot_time;
        let node = id;
        self.plan(
            after,
            Event::SnapshotWritten {
                node,
                life,
                snapshot,
            },
        );
        Ok(())
    }

    /// A snapshot of a node's own state is durable, unless there was no room.
    pub(crate) fn snapshot_written(&mut self, id: NodeId, life: u64, snapshot: Snapshot) {
        if !self.is_current(id, life) {
            return;
        }
        let fails = self.is_hostile && self.options.has(crate::options::Family::DiskError);
        if fails && self.chances.disks.chance(NO_ROOM) {
            self.coverage.count(Mark::SnapshotNoRoom);
            self.put(id, Input::SnapshotTaken(None));
            return;
        }
        self.coverage.count(Mark::SnapshotTaken);
        let descriptor = snapshot.descriptor.clone();
        let last = descriptor.meta.last;
        self.trace.mix([8, id.0, last.index.0]);
        self.trace
            .note(self.now, || format!("n{id} has a snapshot up to {last}"));
        self.node_mut(id).shelf.put(snapshot);
        self.put(id, Input::SnapshotTaken(Some(descriptor)));
    }

    /// Begins a transfer, in place of one to the same receiver.
    pub(crate) fn send_snapshot(&mut self, envelope: Envelope) -> Result<(), Violation> {
        let (from, to) = (envelope.from, envelope.to);
        let Message::Snapshot(descriptor) = &envelope.message else {
            return require(false, 43, || format!("n{from} sends no snapshot to n{to}"));
        };
        let last = descriptor.meta.last;
        let node = self.node(from);
        let Some(snapshot) = node.shelf.open(last).map(Snapshot::copy) else {
            // It was replaced by a newer one meanwhile.
            let newest = node
                .shelf
                .newest()
                .map(|newest| newest.descriptor.meta.last);
            require(newest.is_some_and(|newest| newest > last), 43, || {
                format!("n{from} sends a snapshot up to {last}, it has {newest:?}")
            })?;
            self.report_transfer(from, node.life, to, false);
            return Ok(());
        };
        let from_life = node.life;
        self.transfers += 1;
        let number = self.transfers;
        self.node_mut(from).sending.insert(to, number);
        let transfer = Box::new(Transfer {
            envelope,
            snapshot,
            from_life,
            to_life: None,
            number,
        });
        let after = self.part_delay();
        self.plan(after, Event::SnapshotPart { transfer });
        Ok(())
    }

    fn part_delay(&mut self) -> u64 {
        let network = self.network.options;
        let delay = self
            .chances
            .disks
            .between(network.delay_min, network.delay_max);
        delay + self.options.disk.sync_min
    }

    fn report_transfer(&mut self, from: NodeId, life: u64, to: NodeId, is_delivered: bool) {
        let after = self.part_delay();
        let event = Event::SnapshotSent {
            node: from,
            life,
            to,
            is_delivered,
        };
        self.plan(after, event);
    }

    pub(crate) fn snapshot_sent(&mut self, id: NodeId, life: u64, to: NodeId, is_delivered: bool) {
        if self.is_current(id, life) {
            self.coverage.count_if(!is_delivered, Mark::SnapshotBroken);
            self.put(id, Input::SnapshotSent { to, is_delivered });
        }
    }

    /// The next part of a transfer arrives, or the transfer breaks.
    pub(crate) fn snapshot_part(&mut self, mut transfer: Box<Transfer>) -> Result<(), Violation> {
        let (from, to) = (transfer.envelope.from, transfer.envelope.to);
        let (number, from_life) = (transfer.number, transfer.from_life);
        let is_sent =
            self.is_current(from, from_life) && self.node(from).sending.get(&to) == Some(&number);
        if !is_sent {
            // Its end is gone, or a newer one takes its place.
            let node = self.node_mut(to);
            node.receiving.take_if(|(_, known)| *known == number);
            return Ok(());
        }
        let paused = self.node(from).paused_until.max(self.node(to).paused_until);
        if paused > self.now {
            let after = paused - self.now;
            self.plan(after, Event::SnapshotPart { transfer });
            return Ok(());
        }
        let is_open = self.network.passes(from, to) && self.network.passes(to, from);
        if !is_open || !self.accepts(&mut transfer) {
            // The receiver's end breaks too, and it is free for another one.
            let node = self.node_mut(to);
            node.receiving.take_if(|(_, known)| *known == number);
            self.report_transfer(from, from_life, to, false);
            return Ok(());
        }
        let node = self.node_mut(to);
        let total = transfer.snapshot.steps();
        let partial = node.shelf.partial.as_mut();
        let arrived = partial.map_or(total, |partial| {
            partial.steps += 1;
            partial.steps
        });
        if arrived < total {
            let after = self.part_delay();
            self.plan(after, Event::SnapshotPart { transfer });
            return Ok(());
        }
        let Transfer {
            envelope, snapshot, ..
        } = *transfer;
        let meta = snapshot.descriptor.meta.clone();
        let last = meta.last;
        node.shelf.partial = None;
        node.receiving = None;
        node.shelf.put(snapshot);
        self.coverage.count(Mark::SnapshotDelivered);
        self.trace.mix([9, to.0, last.index.0]);
        self.trace.note(self.now, || {
            format!("n{to} got the snapshot up to {last} of n{from}")
        });
        self.checks.commits.snapshot(to, &meta)?;
        self.put(to, Input::Message(envelope));
        self.report_transfer(from, from_life, to, true);
        Ok(())
    }

    /// Whether the receiver takes the next part: it looks at the envelope before the first one.
    fn accepts(&mut self, transfer: &mut Transfer) -> bool {
        let envelope = &transfer.envelope;
        let descriptor = &transfer.snapshot.descriptor;
        let (to, term, number) = (envelope.to, envelope.term, transfer.number);
        let position = Self::place(to);
        let node = &mut self.nodes[position];
        if !node.is_up() || node.incarnation != envelope.to_incarnation {
            return false;
        }
        if let Some(life) = transfer.to_life {
            return life == node.life && node.receiving.is_some_and(|(_, known)| known == number);
        }
        let is_needed =
            term >= node.state.hard_state.term && descriptor.meta.last.index > node.state.commit;
        let is_free = node.receiving.is_none_or(|(known, _)| term > known);
        if !is_needed || !is_free {
            return false;
        }
        transfer.to_life = Some(node.life);
        node.receiving = Some((term, number));
        let known = node.shelf.partial.as_ref();
        let is_same = known.is_some_and(|partial| partial.descriptor == *descriptor);
        self.coverage.count_if(is_same, Mark::SnapshotResumed);
        if !is_same {
            node.shelf.partial = Some(Partial {
                descriptor: descriptor.clone(),
                steps: 0,
            });
        }
        true
    }
}
