//! Nodes with disks that forget what was not synced, and a network that delivers on demand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::checks::Checks;
use super::clocks::Clocks;
use super::disk::Disk;
use super::render;
use crate::config::{Config, Limits, ReadPolicy, SnapshotPolicy, Timing};
use crate::entry::Entry;
use crate::error::{ChangeError, ProposeError, ReadError, TransferError};
use crate::membership::{Member, MemberRole, Membership, MembershipChange};
use crate::message::{AppendReply, Envelope, Message};
use crate::protocol::{
    Apply, ChangeTicket, Effects, Input, Load, Loaded, Persisted, Proposal, ProposalTicket, Raft,
    ReadTicket, Role, TransferTicket, Write,
};
use crate::snapshot::{SnapshotDescriptor, SnapshotHash, SnapshotMeta};
use crate::types::{ClusterId, GroupId, Incarnation, Index, LogId, NodeId, Term};

/// What the nodes did so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) applied: u64,
    pub(super) truncations: u64,
    pub(super) leaders: u64,
    pub(super) reads: u64,
    pub(super) snapshots: u64,
    pub(super) installs: u64,
    pub(super) changes: u64,
    pub(super) joint_leaders: u64,
    pub(super) transfers: u64,
    pub(super) forwarded_reads: u64,
    pub(super) lease_reads: u64,
}

/// What the state machine of a node still has to do, in order.
#[derive(Debug)]
pub(super) enum Work {
    Restore(SnapshotMeta),
    Apply(Apply),
    Take(SnapshotMeta),
}

/// What clients and operators were told.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) proposed: Vec<Result<LogId, ProposeError>>,
    pub(super) changed: Vec<Result<LogId, ChangeError>>,
    pub(super) transferred: Vec<Result<(), TransferError>>,
    pub(super) ready: Vec<(ReadTicket, Index)>,
    pub(super) refused: Vec<(ReadTicket, ReadError)>,
}

fn bootstrap(ids: impl Iterator<Item = NodeId>) -> Membership {
    let member = |id: &NodeId| Member {
        incarnation: Incarnation(id.0 * 100),
        address: String::new(),
        role: MemberRole::Voter,
    };
    Membership::new(ids.map(|id| (id, member(&id))).collect()).expect("valid")
}

#[derive(Debug)]
pub(super) struct TestNode {
    pub(super) id: NodeId,
    /// None while it is down.
    pub(super) raft: Option<Raft>,
    pub(super) disk: Disk,
    /// Writes that the disk has not finished, oldest first.
    pub(super) writes: VecDeque<Write>,
    pub(super) loads: VecDeque<Load>,
    pub(super) applied: Vec<Entry>,
    pub(super) work: VecDeque<Work>,
    /// A snapshot that is being written.
    pub(super) taking: Option<SnapshotMeta>,
    pub(super) incarnation: Incarnation,
    /// What it was bootstrapped with.
    pub(super) bootstrap: Membership,
    lives: u64,
}

impl TestNode {
    /// Whether a snapshot of a leader waits to become the state.
    fn is_replaced(&self) -> bool {
        self.work
            .iter()
            .any(|work| matches!(work, Work::Restore(_)))
    }
}

#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) nodes: BTreeMap<NodeId, TestNode>,
    /// On the way, in order of sending.
    pub(super) network: Vec<Envelope>,
    /// Snapshots on their way.
    pub(super) transfers: Vec<Envelope>,
    /// Links that lose everything, by direction.
    pub(super) cut: BTreeSet<(NodeId, NodeId)>,
    pub(super) limits: Limits,
    pub(super) timing: Timing,
    pub(super) snapshots: SnapshotPolicy,
    pub(super) quiesce_after_ticks: Option<u32>,
    pub(super) reads: ReadPolicy,
    /// With clocks, each node is told what its own says after whatever it does.
    pub(super) clocks: Option<Clocks>,
    /// State machines work only when a test says so.
    pub(super) is_apply_slow: bool,
    pub(super) answers: Answers,
    pub(super) seed: u64,
    checks: Checks,
    /// Whether what happens is written down; schedules are faster without.
    pub(super) is_traced: bool,
    trace: Vec<String>,
    pub(super) counts: Counts,
    /// Rejected appends that were sent so far.
    pub(super) rejections: u64,
    /// Entries in all appends that were sent so far, by receiver.
    pub(super) entries_sent: BTreeMap<NodeId, u64>,
    next_ticket: u64,
}

impl Cluster {
    pub(super) fn new(disks: BTreeMap<NodeId, Disk>, seed: u64) -> Self {
        let bootstrap = bootstrap(disks.keys().copied());
        let nodes = disks.into_iter().map(|(id, disk)| {
            let node = TestNode {
                id,
                raft: None,
                disk,
                writes: VecDeque::new(),
                loads: VecDeque::new(),
                applied: Vec::new(),
                work: VecDeque::new(),
                taking: None,
                incarnation: Incarnation(id.0 * 100),
                bootstrap: bootstrap.clone(),
                lives: 0,
            };
            (id, node)
        });
        let mut cluster = Self {
            nodes: nodes.collect(),
            network: Vec::new(),
            transfers: Vec::new(),
            cut: BTreeSet::new(),
            limits: Limits::default(),
            timing: Timing::LAN,
            snapshots: SnapshotPolicy {
                log_bytes: 0,
                entries: 0,
                ticks: 0,
                tail_bytes_max: 0,
            },
            quiesce_after_ticks: None,
            reads: ReadPolicy::Round,
            clocks: None,
            is_apply_slow: false,
            answers: Answers::default(),
            seed,
            checks: Checks::default(),
            is_traced: true,
            trace: Vec::new(),
            counts: Counts::default(),
            rejections: 0,
            entries_sent: BTreeMap::new(),
            next_ticket: 0,
        };
        for id in cluster.ids() {
            cluster.start(id);
        }
        cluster
    }

    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(super) fn node(&self, id: NodeId) -> &TestNode {
        &self.nodes[&id]
    }

    pub(super) fn raft(&self, id: NodeId) -> &Raft {
        self.nodes[&id].raft.as_ref().expect("the node is up")
    }

    /// Takes a node out of the cluster, as it is.
    pub(super) fn take_raft(&mut self, id: NodeId) -> Raft {
        let node = self.nodes.get_mut(&id).expect("known");
        node.raft.take().expect("the node is up")
    }

    pub(super) fn is_up(&self, id: NodeId) -> bool {
        self.nodes[&id].raft.is_some()
    }

    /// What happened since the last call, a line each.
    pub(super) fn take_trace(&mut self) -> Vec<String> {
        std::mem::take(&mut self.trace)
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.is_traced {
            self.trace.push(line());
        }
    }

    /// Starts a node with what is on its disk. Its state machine is in memory, so it starts empty.
    pub(super) fn start(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("known");
        assert!(node.raft.is_none(), "node {id} runs");
        node.lives += 1;
        let config = Config {
            cluster: ClusterId([7; 16]),
            group: GroupId(0),
            id,
            incarnation: node.incarnation,
            members: node.bootstrap.clone(),
            seed: self.seed.wrapping_add(node.lives << 32),
            timing: self.timing,
            limits: self.limits,
            snapshots: self.snapshots,
            reads: self.reads,
            quiesce_after_ticks: self.quiesce_after_ticks,
        };
        let loaded = node.disk.load();
        let snapshot = node.disk.snapshot.clone();
        node.raft = Some(Raft::new(config, loaded, snapshot, LogId::ZERO).expect("valid"));
        node.applied.clear();
    }

    /// A node that nobody knows yet, down, with an empty disk.
    pub(super) fn add_node(&mut self, id: NodeId) {
        let node = TestNode {
            id,
            raft: None,
            disk: Disk::default(),
            writes: VecDeque::new(),
            loads: VecDeque::new(),
            applied: Vec::new(),
            work: VecDeque::new(),
            taking: None,
            incarnation: Incarnation(id.0 * 100),
            bootstrap: Membership::default(),
            lives: 0,
        };
        assert!(self.nodes.insert(id, node).is_none(), "node {id} is new");
    }

    /// The disk of a node that is down is lost; it comes back empty, as somebody else.
    pub(super) fn wipe(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("known");
        assert!(node.raft.is_none(), "node {id} is down");
        node.disk = Disk::default();
        node.bootstrap = Membership::default();
        node.incarnation.0 += 1;
    }

    /// The power goes: writes that were not finished are lost, but for the first `kept` of them.
    pub(super) fn crash(&mut self, id: NodeId, kept: usize) {
        let node = self.nodes.get_mut(&id).expect("known");
        for write in node.writes.drain(..).take(kept).collect::<Vec<_>>() {
            node.disk.apply(&write);
        }
        node.raft = None;
        node.loads.clear();
        node.work.clear();
        node.taking = None;
        self.transfers.retain(|transfer| transfer.from != id);
        let node = &self.nodes[&id];
        let disk = render::disk(&node.disk);
        self.note(|| format!("n{id} crashes with {disk}"));
    }

    /// The node loses power, and the entries from this one on, although they were synced.
    pub(super) fn damage(&mut self, id: NodeId, from: Index) {
        self.crash(id, 0);
        self.nodes.get_mut(&id).expect("known").disk.damage(from);
        self.start(id);
    }

    /// Starts all nodes anew, so that changed limits and timing hold.
    pub(super) fn restart_all(&mut self) {
        for id in self.ids() {
            self.crash(id, 0);
            self.start(id);
        }
    }

    /// Steps one input and collects what comes of it.
    pub(super) fn step(&mut self, id: NodeId, input: Input) {
        let Some(raft) = &mut self.nodes.get_mut(&id).expect("known").raft else {
            return;
        };
        raft.step(input);
        self.read_clock(id);
        self.collect(id);
    }

    fn read_clock(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("known");
        let (Some(clocks), Some(raft)) = (&mut self.clocks, &mut node.raft) else {
            return;
        };
        let before = raft.state().counters.lease_reads;
        raft.step(Input::Clock(clocks.read(id)));
        self.counts.lease_reads += raft.state().counters.lease_reads - before;
    }

    /// Steps several inputs before the effects are taken, as the driver does.
    pub(super) fn step_all(&mut self, id: NodeId, inputs: Vec<Input>) {
        let Some(raft) = &mut self.nodes.get_mut(&id).expect("known").raft else {
            return;
        };
        for input in inputs {
            raft.step(input);
        }
        self.read_clock(id);
        self.collect(id);
    }

    fn collect(&mut self, id: NodeId) {
        let raft = self
            .nodes
            .get_mut(&id)
            .expect("known")
            .raft
            .as_mut()
            .expect("up");
        let effects = raft.take_effects();
        let refusals = raft.take_refusals();
        for refusal in refusals {
            self.note(|| format!("n{id} refuses: {refusal}"));
        }
        let Effects {
            writes,
            send,
            load,
            apply,
            proposed,
            reads_ready,
            reads_refused,
            restore,
            take_snapshot,
            send_snapshot,
            changed,
            transferred,
            members_changed: _,
            role_changed,
        } = effects;
        if let Some(change) = role_changed {
            self.counts.leaders += u64::from(change.role == Role::Leader);
            let is_joint = self.raft(id).state().membership.is_joint();
            self.counts.joint_leaders += u64::from(change.role == Role::Leader && is_joint);
            self.note(|| format!("n{id} {}", render::role(change)));
        }
        for write in writes {
            self.counts.truncations += u64::from(write.batch.truncate_from.is_some());
            if self.is_traced {
                self.trace.extend(render::write(id, &write));
            }
            self.nodes
                .get_mut(&id)
                .expect("known")
                .writes
                .push_back(write);
        }
        send.into_iter()
            .for_each(|envelope| self.transmit(envelope));
        for (_, outcome) in proposed {
            self.answers.proposed.push(outcome.clone());
            self.note(|| match outcome {
                Ok(at) => format!("n{id} proposal at {at}"),
                Err(error) => format!("n{id} proposal refused: {error}"),
            });
        }
        for (ticket, index) in reads_ready {
            self.checks.read_ready(id, ticket, index);
            self.counts.reads += 1;
            self.answers.ready.push((ticket, index));
            let follows = self.raft(id).role() == Role::Follower;
            self.counts.forwarded_reads += u64::from(follows);
            self.note(|| format!("n{id} read {} ready at {index}", ticket.0));
        }
        for (ticket, error) in reads_refused {
            self.answers.refused.push((ticket, error.clone()));
            self.note(|| format!("n{id} read {} refused: {error}", ticket.0));
        }
        for (_, outcome) in changed {
            self.counts.changes += u64::from(outcome.is_ok());
            self.answers.changed.push(outcome.clone());
            self.note(|| match outcome {
                Ok(at) => format!("n{id} change done at {at}"),
                Err(error) => format!("n{id} change refused: {error}"),
            });
        }
        for (_, outcome) in transferred {
            self.counts.transfers += u64::from(outcome.is_ok());
            self.answers.transferred.push(outcome.clone());
            self.note(|| match outcome {
                Ok(()) => format!("n{id} transfer done"),
                Err(error) => format!("n{id} transfer refused: {error}"),
            });
        }
        for envelope in send_snapshot {
            self.note(|| render::envelope(&envelope));
            self.transfers.push(envelope);
        }
        self.nodes.get_mut(&id).expect("known").loads.extend(load);
        self.check(id);
        let work = &mut self.nodes.get_mut(&id).expect("known").work;
        work.extend(restore.map(Work::Restore));
        work.extend(apply.map(Work::Apply));
        work.extend(take_snapshot.map(Work::Take));
        while !self.is_apply_slow && self.work(id) {}
    }

    /// The state machine does the oldest of what it was given.
    pub(super) fn work(&mut self, id: NodeId) -> bool {
        let node = self.nodes.get_mut(&id).expect("known");
        match node.work.pop_front() {
            None => return false,
            Some(Work::Restore(meta)) => self.restore(id, &meta),
            Some(Work::Apply(apply)) => self.apply(id, &apply),
            Some(Work::Take(_)) if node.is_replaced() => {
                self.step(id, Input::SnapshotTaken(None));
            }
            Some(Work::Take(meta)) => {
                let applied = node.applied.last().map(Entry::id);
                assert_eq!(
                    applied,
                    Some(meta.last),
                    "the state is that of the snapshot"
                );
                assert!(node.taking.is_none(), "one snapshot at a time");
                node.taking = Some(meta.clone());
                self.note(|| format!("n{id} takes a snapshot of {}", meta.last));
            }
        }
        true
    }

    fn restore(&mut self, id: NodeId, meta: &SnapshotMeta) {
        let node = self.nodes.get_mut(&id).expect("known");
        let kept = node.disk.snapshot.as_ref().map(|s| s.meta.last.index);
        assert!(kept >= Some(meta.last.index), "the snapshot is on the disk");
        node.applied = self.checks.applied_up_to(meta.last);
        self.counts.installs += 1;
        self.note(|| format!("n{id} restores {}", meta.last));
        self.step(id, Input::Applied(meta.last.index));
    }

    /// The snapshot that is being written is on the disk.
    pub(super) fn finish_snapshot(&mut self, id: NodeId) -> bool {
        let node = self.nodes.get_mut(&id).expect("known");
        let Some(meta) = node.taking.take() else {
            return false;
        };
        let descriptor = SnapshotDescriptor {
            hash: SnapshotHash(u128::from(meta.last.index.0)),
            meta,
            parts: 1,
            bytes: 1,
        };
        node.disk.keep_snapshot(descriptor.clone());
        self.counts.snapshots += 1;
        self.note(|| format!("n{id} has {descriptor}"));
        self.step(id, Input::SnapshotTaken(Some(descriptor)));
        true
    }

    /// The oldest transfer ends.
    pub(super) fn finish_transfer(&mut self, position: usize, mut is_delivered: bool) {
        let envelope = self.transfers.remove(position);
        let (from, to) = (envelope.from, envelope.to);
        is_delivered &= self.is_up(to) && !self.cut.contains(&(from, to));
        if is_delivered && let Message::Snapshot(descriptor) = &envelope.message {
            let node = self.nodes.get_mut(&to).expect("known");
            let state = node.raft.as_ref().expect("up").state();
            is_delivered = envelope.to_incarnation == node.incarnation
                && envelope.term >= state.hard_state.term
                && descriptor.meta.last.index > state.commit;
            if is_delivered {
                node.disk.keep_snapshot(descriptor.clone());
            }
        }
        self.note(|| {
            let outcome = if is_delivered { "delivered" } else { "lost" };
            format!("{} ({outcome})", render::envelope(&envelope))
        });
        if is_delivered {
            self.step(to, Input::Message(envelope));
        }
        self.step(from, Input::SnapshotSent { to, is_delivered });
    }

    pub(super) fn change(&mut self, id: NodeId, change: MembershipChange) {
        self.next_ticket += 1;
        let ticket = ChangeTicket(self.next_ticket);
        self.step(id, Input::ChangeMembership(ticket, change));
    }

    pub(super) fn transfer_to(&mut self, id: NodeId, target: NodeId) {
        self.next_ticket += 1;
        self.step(
            id,
            Input::Transfer(TransferTicket(self.next_ticket), target),
        );
    }

    fn check(&mut self, id: NodeId) {
        self.checks.node(id, &self.nodes);
    }

    fn apply(&mut self, id: NodeId, apply: &Apply) {
        let node = self.nodes.get_mut(&id).expect("known");
        assert!(
            apply.to <= node.disk.last().index,
            "applied entries are on the local disk"
        );
        let cold_to = Index(apply.to.0 - apply.entries.len() as u64);
        let mut entries = Vec::new();
        let applied = node.applied.last().map_or(Index(0), Entry::index);
        let is_gone = apply.from <= cold_to && apply.from <= node.disk.start.index;
        if node.is_replaced() && (is_gone || apply.from != applied.next()) {
            // A snapshot of the leader took the place of the log meanwhile.
            return;
        }
        assert!(!is_gone, "what is not applied yet is not compacted");
        assert_eq!(apply.from, applied.next(), "applied in order");
        if apply.from <= cold_to {
            entries.extend(node.disk.read(apply.from, cold_to));
        }
        entries.extend(apply.entries.iter().cloned());
        for entry in entries {
            assert_eq!(
                entry.index().0,
                node.applied.len() as u64 + 1,
                "applied in order"
            );
            self.checks.applied(&entry);
            self.counts.applied += 1;
            if self.is_traced {
                let line = format!("n{id} applies {}", render::entry(&entry));
                self.trace.push(line);
            }
            node.applied.push(entry);
        }
        self.step(id, Input::Applied(apply.to));
    }

    fn transmit(&mut self, envelope: Envelope) {
        self.checks
            .sent(&envelope, &self.nodes[&envelope.from].disk);
        // Nobody is there yet, or any more.
        if !self.nodes.contains_key(&envelope.to) {
            return;
        }
        let lost = self.cut.contains(&(envelope.from, envelope.to));
        let mark = if lost { " (lost)" } else { "" };
        self.note(|| format!("{}{mark}", render::envelope(&envelope)));
        let rejected = matches!(
            envelope.message,
            Message::AppendReply(AppendReply::Rejected { .. })
        );
        self.rejections += u64::from(rejected);
        if let Message::Append(append) = &envelope.message {
            *self.entries_sent.entry(envelope.to).or_default() += append.entries.len() as u64;
        }
        if !lost {
            self.network.push(envelope);
        }
    }

    /// The disk finishes the oldest write: its promises leave, and the node is told.
    pub(super) fn persist(&mut self, id: NodeId) -> bool {
        let node = self.nodes.get_mut(&id).expect("known");
        let Some(write) = node.writes.pop_front() else {
            return false;
        };
        node.disk.apply(&write);
        self.note(|| format!("n{id} write {} is durable", write.number));
        write
            .promises
            .into_iter()
            .for_each(|promise| self.transmit(promise));
        let done = Persisted {
            number: write.number,
            last: write.last,
        };
        self.step(id, Input::Persisted(done));
        true
    }

    /// Answers the oldest question for old entries.
    pub(super) fn load(&mut self, id: NodeId) -> bool {
        let node = self.nodes.get_mut(&id).expect("known");
        let Some(load) = node.loads.pop_front() else {
            return false;
        };
        let mut entries = node
            .disk
            .read(load.from, load.to.min(node.disk.last().index));
        if entries
            .first()
            .is_none_or(|first| first.index() != load.from)
        {
            assert!(
                load.from <= node.disk.start.index,
                "only what was compacted is gone"
            );
            return true;
        }
        let mut bytes = 0;
        entries.retain(|entry| {
            bytes += entry.encoded_len();
            entry.index() == load.from || bytes <= load.bytes_max
        });
        let Load { peer, term, .. } = load;
        self.step(
            id,
            Input::Loaded(Loaded {
                peer,
                term,
                entries,
            }),
        );
        true
    }

    /// Takes the message at this position off the network and delivers it.
    pub(super) fn deliver(&mut self, position: usize) {
        let envelope = self.network.remove(position);
        self.receive(envelope);
    }

    pub(super) fn receive(&mut self, envelope: Envelope) {
        if self.cut.contains(&(envelope.from, envelope.to)) || !self.is_up(envelope.to) {
            return;
        }
        self.step(envelope.to, Input::Message(envelope));
    }

    /// A message as this sender might have sent it.
    pub(super) fn envelope(
        &self,
        from: NodeId,
        to: NodeId,
        term: Term,
        message: Message,
    ) -> Envelope {
        Envelope {
            cluster: ClusterId([7; 16]),
            group: GroupId(0),
            from,
            from_incarnation: self
                .nodes
                .get(&from)
                .map_or(Incarnation(from.0 * 100), |n| n.incarnation),
            to,
            to_incarnation: self.nodes[&to].incarnation,
            term,
            message,
        }
    }

    pub(super) fn propose(&mut self, id: NodeId, payload: &str) {
        self.next_ticket += 1;
        let ticket = ProposalTicket(self.next_ticket);
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        self.step(id, Input::Propose(vec![Proposal { ticket, payload }]));
    }

    pub(super) fn read(&mut self, id: NodeId, ticket: u64) {
        self.checks.read_begun(ReadTicket(ticket));
        self.step(id, Input::Read(vec![ReadTicket(ticket)]));
    }

    /// Ticks a node until it asks for pre-votes.
    pub(super) fn campaign(&mut self, id: NodeId) {
        for _ in 0..=self.timing.election_ticks_max {
            if self.raft(id).role() != Role::Follower {
                return;
            }
            self.step(id, Input::Tick);
        }
        assert_ne!(self.raft(id).role(), Role::Follower, "a deadline passes");
    }

    /// Delivers, persists and loads until nothing is left to do.
    pub(super) fn stabilize(&mut self) {
        for _ in 0..1_000_000 {
            let mut idle = true;
            for id in self.ids() {
                if self.is_up(id) {
                    while self.persist(id)
                        || self.load(id)
                        || self.work(id)
                        || self.finish_snapshot(id)
                    {
                        idle = false;
                    }
                }
            }
            if !self.network.is_empty() {
                self.deliver(0);
                idle = false;
            }
            if !self.transfers.is_empty() {
                self.finish_transfer(0, true);
                idle = false;
            }
            if idle {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// The one leader of the newest term, where there is one.
    pub(super) fn leader(&self) -> Option<NodeId> {
        let leaders = self.nodes.values().filter_map(|node| {
            let state = node.raft.as_ref()?.state();
            (state.role == Role::Leader).then_some((state.hard_state.term, node.id))
        });
        leaders.max().map(|(_, id)| id)
    }
}
