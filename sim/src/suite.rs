//! What a suite may ask of a world: the primitives of the course's test harness, in virtual time.
//! Everything is done at once; time passes only in [`World::run_for`] and its like.

use bytes::Bytes;
use raft_core::protocol::{Input, Proposal, ProposalTicket, State};
use raft_core::{Entry, Index, LogId, NodeId, ProposeError};

use crate::network::{LabSwitches, Traffic};
use crate::node::{Answer, Ask, Origin, RequestId, Standing};
use crate::partitions::between;
use crate::queue::Microseconds;
use crate::violation::Violation;
use crate::world::World;

impl World {
    /// Now, in microseconds since the world began.
    #[must_use]
    pub fn now(&self) -> Microseconds {
        self.now
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// The first violation of an invariant.
    pub fn run_for(&mut self, time: Microseconds) -> Result<(), Violation> {
        self.run_until(self.now + time)
    }

    /// Lets time pass until a condition holds, at most for `longest`. Says whether it holds. It is
    /// asked after every event.
    ///
    /// # Errors
    /// The first violation of an invariant.
    pub fn run_while_not(
        &mut self,
        longest: Microseconds,
        mut holds: impl FnMut(&Self) -> bool,
    ) -> Result<bool, Violation> {
        let end = self.now + longest;
        while !holds(self) {
            if self.queue.next_at().is_none_or(|at| at > end) {
                self.run_until(end)?;
                return Ok(holds(self));
            }
            self.step()?;
        }
        Ok(true)
    }

    /// What a node says of itself; none while it is down.
    #[must_use]
    pub fn state(&self, id: NodeId) -> Option<&State> {
        let node = self.node(id);
        node.is_up().then_some(&node.state)
    }

    /// Whether a node runs.
    #[must_use]
    pub fn is_up(&self, id: NodeId) -> bool {
        self.node(id).is_up()
    }

    /// All nodes that run, are connected and believe that they lead, in order of their ids.
    #[must_use]
    pub fn leaders(&self) -> Vec<NodeId> {
        let leaders = self.nodes.iter().filter(|node| node.leads());
        let ids = leaders.map(|node| node.id);
        ids.filter(|id| self.network.is_connected(*id)).collect()
    }

    /// The leader with the newest term among [`World::leaders`].
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        let leaders = self.leaders().into_iter();
        leaders.max_by_key(|id| self.node(*id).state.hard_state.term)
    }

    /// Cuts a node off from all others, in both directions.
    pub fn disconnect(&mut self, id: NodeId) {
        self.network.disconnect(id);
    }

    /// Ends [`World::disconnect`].
    pub fn connect(&mut self, id: NodeId) {
        self.network.connect(id);
    }

    /// Whether a node is connected.
    #[must_use]
    pub fn is_connected(&self, id: NodeId) -> bool {
        self.network.is_connected(id)
    }

    /// Splits the nodes: links within a group are repaired, all others cut. Whoever is in no group
    /// is alone.
    pub fn partition(&mut self, groups: &[&[NodeId]]) {
        self.network.repair_all();
        let ids = self.ids();
        let group_of = |id: &NodeId| groups.iter().position(|group| group.contains(id));
        for from in &ids {
            for to in &ids {
                let together = group_of(from).is_some() && group_of(from) == group_of(to);
                if from < to && !together {
                    for (from, to) in between(&[*from], &[*to]) {
                        self.network.cut(from, to);
                    }
                }
            }
        }
    }

    /// Repairs all cuts and connects everybody.
    pub fn repair(&mut self) {
        self.network.repair_all();
        for id in self.ids() {
            self.network.connect(id);
        }
    }

    /// The power of a node goes: what was not synced is lost. Nothing happens to one that is down.
    pub fn crash(&mut self, id: NodeId) {
        self.power_off(id);
    }

    /// A node that is down comes back with what is on its disk. Nothing happens to one that runs.
    pub fn restart(&mut self, id: NodeId) {
        if self.node(id).standing == Standing::Down {
            self.start(id);
        }
    }

    /// A process stands still for so long: what reaches it waits, ticks that it misses are skipped.
    pub fn pause(&mut self, id: NodeId, time: Microseconds) {
        self.node_mut(id).paused_until = self.now + time;
    }

    /// A disk finishes nothing for so long.
    pub fn stall_disk(&mut self, id: NodeId, time: Microseconds) {
        self.node_mut(id).stalled_until = self.now + time;
    }

    /// Sets the switches of the course's network.
    pub fn set_lab(&mut self, switches: LabSwitches) {
        self.network.lab = switches;
        self.network.options.reported = 1_000;
    }

    /// Proposes at a node, and says at once where the command was appended or why not. What becomes
    /// of it is told by [`World::answer_to`].
    ///
    /// # Errors
    /// As the protocol refuses it; a node that is down does not lead.
    pub fn propose(
        &mut self,
        id: NodeId,
        payload: impl Into<Bytes>,
    ) -> Result<(RequestId, LogId), ProposeError> {
        let not_leading = ProposeError::NotLeader { leader: None };
        if !self.node(id).is_up() || self.node(id).paused_until > self.now {
            return Err(not_leading);
        }
        self.requests += 1;
        self.tickets += 1;
        let request = RequestId(self.requests);
        let ticket = ProposalTicket(self.tickets);
        let payload = payload.into();
        let node = self.node_mut(id);
        node.waiters.unplaced.insert(ticket, Origin::Suite(request));
        node.inbox
            .push(Input::Propose(vec![Proposal { ticket, payload }]));
        let life = node.life;
        let happened = self.turn(id, life);
        self.note_violation(happened);
        let placed = self.placed.remove(&request).unwrap_or(Err(not_leading));
        placed.map(|at| (request, at))
    }

    /// Sends a command or a query to a node, as a client beside it would. See [`World::answer_to`].
    pub fn ask(&mut self, id: NodeId, ask: Ask) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        if self.node(id).is_up() {
            self.request(id, Origin::Suite(request), ask);
        } else {
            self.answers.insert(request, Answer::Gone);
        }
        request
    }

    /// What became of a request, once that is known.
    #[must_use]
    pub fn answer_to(&self, request: RequestId) -> Option<&Answer> {
        self.answers.get(&request)
    }

    /// How far a node has applied the log in its present life.
    #[must_use]
    pub fn applied(&self, id: NodeId) -> Index {
        let node = self.node(id);
        if node.is_up() {
            node.applier.applied
        } else {
            Index(0)
        }
    }

    /// The entry that was applied at an index, by whoever has; all that have agree.
    #[must_use]
    pub fn applied_entry(&self, index: Index) -> Option<&Entry> {
        self.checks.machines.entry(index)
    }

    /// How many running nodes have applied an index (the harness calls it n_committed).
    #[must_use]
    pub fn applied_by(&self, index: Index) -> usize {
        let ids = self.ids().into_iter();
        ids.filter(|id| self.applied(*id) >= index).count()
    }

    /// The last entry that any node knows to be committed.
    #[must_use]
    pub fn committed(&self) -> LogId {
        self.checks.commits.last()
    }

    /// Messages and bytes that all nodes have sent.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.network.traffic()
    }

    /// Messages and bytes that a node has sent.
    #[must_use]
    pub fn traffic_of(&self, id: NodeId) -> Traffic {
        self.network.sent_by(id)
    }

    /// Encoded bytes of the log on a node's disk, without what a snapshot stands for.
    #[must_use]
    pub fn log_bytes(&self, id: NodeId) -> u64 {
        self.node(id).disk.log_bytes()
    }

    /// Inputs that all protocols have stepped.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// A hash of everything that happened so far.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    /// The lines of the trace, if one is written.
    pub fn trace_lines(&self) -> impl Iterator<Item = &str> {
        self.trace.lines()
    }

    /// The rare states that were reached.
    #[must_use]
    pub fn coverage(&self) -> &crate::coverage::Coverage {
        &self.coverage
    }
}
