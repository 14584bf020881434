//! A few protocols on a bench, without any time or network of their own: a test steps each one by
//! hand, finishes its writes when it likes, and delivers what was said in any order, any number of
//! times. For what has to happen exactly so.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use raft_core::protocol::{
    Effects, Input, LogStart, Persisted, Proposal, ProposalTicket, Raft, State, Write,
};
use raft_core::{
    ClusterId, Config, Entry, EntryKind, Envelope, GroupId, HardState, Incarnation, Index, Limits,
    LoadedLog, LogId, Member, MemberRole, Membership, Message, NodeId, ReadPolicy, Role,
    SnapshotDescriptor, SnapshotMeta, SnapshotPolicy, Term, Timing,
};

const CLUSTER: ClusterId = ClusterId([7; 16]);

/// An id of an entry.
pub(crate) fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), Index(index))
}

/// An entry, its payload made from its id.
pub(crate) fn entry(term: u64, index: u64) -> Entry {
    let payload = format!("{term}.{index}");
    Entry::new(id(term, index), EntryKind::Command, payload.into())
}

/// Entries from index 1 on, one of each of these terms.
pub(crate) fn entries(terms: &[u64]) -> Vec<Entry> {
    let numbered = (1..).zip(terms);
    numbered.map(|(index, term)| entry(*term, index)).collect()
}

fn incarnation(id: NodeId) -> Incarnation {
    Incarnation(id.0 * 100)
}

/// What survives a crash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) snapshot: Option<SnapshotDescriptor>,
    pub(crate) start: LogId,
    pub(crate) entries: Vec<Entry>,
}

impl Disk {
    /// A disk with a log; its node has seen the term of the last entry, or this one.
    pub(crate) fn with_log(entries: Vec<Entry>, term: u64) -> Self {
        let newest = entries.last().map_or(Term(0), Entry::term);
        Self {
            hard_state: HardState {
                term: newest.max(Term(term)),
                vote: None,
            },
            entries,
            ..Self::default()
        }
    }

    /// A disk with a snapshot up to `last` and entries behind it.
    pub(crate) fn with_snapshot(bench: &Bench, last: LogId, entries: Vec<Entry>) -> Self {
        let meta = SnapshotMeta {
            last,
            membership: bench.members.clone(),
        };
        let newest = entries.last().map_or(last.term, Entry::term);
        Self {
            hard_state: HardState {
                term: newest,
                vote: None,
            },
            snapshot: Some(SnapshotDescriptor {
                meta,
                ..SnapshotDescriptor::default()
            }),
            start: last,
            entries,
        }
    }

    /// The last entry.
    pub(crate) fn last(&self) -> LogId {
        self.entries.last().map_or(self.start, Entry::id)
    }

    fn finish(&mut self, write: &Write) {
        match write.log_start {
            None => {}
            Some(LogStart::Compact(to)) => {
                self.entries.retain(|entry| entry.index() > to.index);
                self.start = to;
            }
            Some(LogStart::Reset(to)) => {
                self.entries.clear();
                self.start = to;
            }
        }
        if let Some(hard_state) = write.batch.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(from) = write.batch.truncate_from {
            self.entries.retain(|entry| entry.index() < from);
        }
        self.entries.extend(write.batch.entries.iter().cloned());
    }
}

/// Appends that were sent to somebody.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    /// Those without entries.
    pub(crate) probes: usize,
    /// Those with entries.
    pub(crate) appends: usize,
    /// The entries in them.
    pub(crate) entries: usize,
    /// Bytes of all these, and of answers to such: entries, and a flat 64 for everything else of a
    /// message.
    pub(crate) bytes: usize,
}

/// A node on the bench.
pub(crate) struct BenchNode {
    raft: Option<Raft>,
    pub(crate) disk: Disk,
    /// Writes that are not finished.
    pub(crate) writes: VecDeque<Write>,
    /// What it sent to whom.
    pub(crate) sent: BTreeMap<NodeId, Sent>,
    /// Snapshots that it wants sent.
    pub(crate) snapshots: Vec<Envelope>,
    lives: u64,
}

/// See the file.
pub(crate) struct Bench {
    nodes: BTreeMap<NodeId, BenchNode>,
    /// Messages on their way, oldest first.
    pub(crate) wire: Vec<Envelope>,
    members: Membership,
    /// Of those that start from now on.
    pub(crate) timing: Timing,
    limits: Limits,
    tickets: u64,
}

impl Bench {
    /// So many nodes with empty disks, not running.
    pub(crate) fn new(count: u64) -> Self {
        Self::with_limits(count, Limits::default())
    }

    /// As [`Bench::new`].
    pub(crate) fn with_limits(count: u64, limits: Limits) -> Self {
        let member = |id| Member {
            incarnation: incarnation(id),
            address: String::new(),
            role: MemberRole::Voter,
        };
        let members = (1..=count).map(NodeId).map(|id| (id, member(id)));
        let node = |_| BenchNode {
            raft: None,
            disk: Disk::default(),
            writes: VecDeque::new(),
            sent: BTreeMap::new(),
            snapshots: Vec::new(),
            lives: 0,
        };
        let nodes = (1..=count).map(|id| (NodeId(id), node(id))).collect();
        Self {
            nodes,
            wire: Vec::new(),
            members: Membership::new(members.collect()).expect("a few voters"),
            timing: Timing {
                tick_ms: 10,
                heartbeat_ticks: 10,
                election_ticks_min: 30,
                election_ticks_max: 60,
            },
            limits,
            tickets: 0,
        }
    }

    /// As [`Bench::new`], all with this log and running.
    pub(crate) fn running(count: u64, terms: &[u64]) -> Self {
        let mut bench = Self::new(count);
        for id in bench.ids() {
            bench.boot(id, Disk::with_log(entries(terms), 0));
        }
        bench
    }

    /// All nodes, in order.
    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// A node.
    pub(crate) fn node(&self, id: NodeId) -> &BenchNode {
        &self.nodes[&id]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut BenchNode {
        self.nodes.get_mut(&id).expect("it is on the bench")
    }

    /// What a node says of itself.
    pub(crate) fn state(&self, id: NodeId) -> State {
        let raft = self.nodes[&id].raft.as_ref();
        raft.expect("it runs").state()
    }

    /// Starts a node with this disk.
    pub(crate) fn boot(&mut self, id: NodeId, disk: Disk) {
        let config = Config {
            cluster: CLUSTER,
            group: GroupId(0),
            id,
            incarnation: incarnation(id),
            members: self.members.clone(),
            seed: self.nodes[&id].lives,
            timing: self.timing,
            limits: self.limits,
            snapshots: SnapshotPolicy::default(),
            reads: ReadPolicy::Round,
            quiesce_after_ticks: None,
        };
        let loaded = LoadedLog::of_entries(disk.hard_state, disk.start, &disk.entries);
        let applied = disk.snapshot.as_ref().map_or(LogId::ZERO, |s| s.meta.last);
        let raft = Raft::new(config, loaded, disk.snapshot.clone(), applied);
        let node = self.node_mut(id);
        node.lives += 1;
        node.raft = Some(raft.expect("the settings work"));
        node.disk = disk;
        node.writes.clear();
    }

    /// A node loses power and comes back: writes that were not finished are lost.
    pub(crate) fn reboot(&mut self, id: NodeId) {
        let disk = self.nodes[&id].disk.clone();
        self.boot(id, disk);
    }

    /// A message between nodes of the bench.
    pub(crate) fn envelope(&self, from: u64, to: u64, term: u64, message: Message) -> Envelope {
        let (from, to) = (NodeId(from), NodeId(to));
        Envelope {
            cluster: CLUSTER,
            group: GroupId(0),
            from,
            from_incarnation: incarnation(from),
            to,
            to_incarnation: incarnation(to),
            term: Term(term),
            message,
        }
    }

    /// Steps a node, and puts what it says now on the wire. Applying takes no time, and neither
    /// does reading its log.
    pub(crate) fn step(&mut self, id: NodeId, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let node = self.node_mut(id);
            let raft = node.raft.as_mut().expect("it runs");
            raft.step(input);
            let effects = raft.take_effects();
            assert_eq!(raft.take_refusals(), [], "n{id} refused");
            self.execute(id, effects, &mut inputs);
        }
    }

    fn execute(&mut self, id: NodeId, effects: Effects, inputs: &mut VecDeque<Input>) {
        for envelope in &effects.send {
            self.count(id, envelope);
        }
        let node = self.node_mut(id);
        node.snapshots.extend(effects.send_snapshot);
        node.writes.extend(effects.writes);
        for load in effects.load {
            let wanted = |entry: &&Entry| (load.from..=load.to).contains(&entry.index());
            let mut bytes = 0;
            let read = node.disk.entries.iter().filter(wanted).take_while(|entry| {
                bytes += entry.encoded_len();
                entry.index() == load.from || bytes <= load.bytes_max
            });
            let entries = read.cloned().collect();
            inputs.push_back(Input::Loaded(raft_core::protocol::Loaded {
                peer: load.peer,
                term: load.term,
                entries,
            }));
        }
        if let Some(meta) = effects.restore {
            inputs.push_back(Input::Applied(meta.last.index));
        }
        if let Some(apply) = effects.apply {
            inputs.push_back(Input::Applied(apply.to));
        }
        self.wire.extend(effects.send);
    }

    fn count(&mut self, id: NodeId, envelope: &Envelope) {
        let sent = self.node_mut(id).sent.entry(envelope.to).or_default();
        if let Message::Append(_) | Message::AppendReply(_) = &envelope.message {
            sent.bytes += 64 + envelope.message.entry_bytes();
        }
        if let Message::Append(append) = &envelope.message {
            sent.entries += append.entries.len();
            if append.entries.is_empty() {
                sent.probes += 1;
            } else {
                sent.appends += 1;
            }
        }
    }

    /// Hands a message to its receiver, without the wire.
    pub(crate) fn say(&mut self, envelope: Envelope) {
        self.step(envelope.to, Input::Message(envelope));
    }

    /// A node's clock ticks so often.
    pub(crate) fn tick(&mut self, id: NodeId, ticks: u32) {
        for _ in 0..ticks {
            self.step(id, Input::Tick);
        }
    }

    /// Finishes the oldest write of a node; its promises go on the wire. Says whether there was
    /// one.
    pub(crate) fn persist(&mut self, id: NodeId) -> bool {
        let Some(promises) = self.persist_silently(id) else {
            return false;
        };
        let Persist { number, last, said } = promises;
        for envelope in &said {
            self.count(id, envelope);
        }
        self.wire.extend(said);
        self.step(id, Input::Persisted(Persisted { number, last }));
        true
    }

    /// Makes the oldest write of a node durable, and nothing else: nobody is told.
    pub(crate) fn persist_silently(&mut self, id: NodeId) -> Option<Persist> {
        let node = self.node_mut(id);
        let write = node.writes.pop_front()?;
        node.disk.finish(&write);
        Some(Persist {
            number: write.number,
            last: write.last,
            said: write.promises,
        })
    }

    /// Finishes all writes of a node.
    pub(crate) fn persist_all(&mut self, id: NodeId) {
        while self.persist(id) {}
    }

    /// Takes all messages off the wire that this is true of.
    pub(crate) fn take(&mut self, mut wanted: impl FnMut(&Envelope) -> bool) -> Vec<Envelope> {
        let (taken, left) = std::mem::take(&mut self.wire)
            .into_iter()
            .partition(|envelope| wanted(envelope));
        self.wire = left;
        taken
    }

    /// Finishes all writes and delivers all messages between these nodes until nothing is left;
    /// what is for others is lost.
    pub(crate) fn settle(&mut self, among: &[u64]) {
        self.settle_but(among, |_| false);
    }

    /// As [`Bench::settle`], but what this is true of is lost too.
    pub(crate) fn settle_but(&mut self, among: &[u64], lost: impl Fn(&Envelope) -> bool) {
        let is_among = |id: NodeId| among.contains(&id.0);
        loop {
            for id in self.ids() {
                if is_among(id) {
                    self.persist_all(id);
                }
            }
            let wire = std::mem::take(&mut self.wire);
            if wire.is_empty() {
                return;
            }
            for envelope in wire {
                if is_among(envelope.from) && is_among(envelope.to) && !lost(&envelope) {
                    self.say(envelope);
                }
            }
        }
    }

    /// Brings the snapshots that a node wants sent to their receivers.
    pub(crate) fn deliver_snapshots(&mut self, from: NodeId) -> usize {
        let snapshots = std::mem::take(&mut self.node_mut(from).snapshots);
        let count = snapshots.len();
        for envelope in snapshots {
            let to = envelope.to;
            if let Message::Snapshot(descriptor) = &envelope.message {
                self.node_mut(to).disk.snapshot = Some(descriptor.clone());
            }
            self.say(envelope);
            let is_delivered = true;
            self.step(from, Input::SnapshotSent { to, is_delivered });
        }
        count
    }

    /// Lets a node campaign until it leads, with the votes of these; the others hear nothing.
    pub(crate) fn elect(&mut self, leader: u64, among: &[u64]) {
        let won = self.campaign(leader, among, |_| false);
        assert!(
            won,
            "n{leader} did not win: {:?}",
            self.state(NodeId(leader))
        );
    }

    /// As [`Bench::elect`], with losses. Says whether it won.
    pub(crate) fn campaign(
        &mut self,
        leader: u64,
        among: &[u64],
        lost: impl Fn(&Envelope) -> bool,
    ) -> bool {
        let own = NodeId(leader);
        for voter in among {
            // Whoever hears a leader refuses.
            for _ in 0..30 {
                if *voter != leader && self.state(NodeId(*voter)).role == Role::Follower {
                    self.step(NodeId(*voter), Input::Tick);
                }
            }
        }
        self.wire.clear();
        for _ in 0..600 {
            if self.state(own).role == Role::Leader {
                return true;
            }
            self.tick(own, 1);
            self.settle_but(among, &lost);
        }
        false
    }

    /// Proposes a command at a node.
    pub(crate) fn propose(&mut self, id: NodeId, payload: &str) {
        self.tickets += 1;
        let proposal = Proposal {
            ticket: ProposalTicket(self.tickets),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
        };
        self.step(id, Input::Propose(vec![proposal]));
    }

    /// What a node's log holds of its disk at an index.
    pub(crate) fn on_disk(&self, node: u64, index: u64) -> Option<LogId> {
        let entries = &self.nodes[&NodeId(node)].disk.entries;
        let found = entries.iter().find(|entry| entry.index() == Index(index));
        found.map(Entry::id)
    }
}

/// A finished write.
pub(crate) struct Persist {
    number: u64,
    last: LogId,
    /// What may be said now.
    pub(crate) said: Vec<Envelope>,
}
