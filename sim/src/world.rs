//! A world: nodes, their network, and what is going to happen. One thread, virtual time, no chance
//! but the seed's. What a suite may ask of it is in `suite`; what happens at an event is in `turn`,
//! `storage`, `applying`, `faults` and `workload`.

use std::collections::BTreeMap;

use history::{Condition, SpaceTime};
use kv_service::sessions::SessionLimits;
use kv_service::state_machine::KvStateMachine;
use kv_service::store::Retention;
use raft_core::protocol::Raft;
use raft_core::{
    ClusterId, Config, GroupId, Incarnation, Index, LogId, Member, MemberRole, Membership, NodeId,
    ProposeError,
};

use crate::checks::Checks;
use crate::coverage::{Coverage, Mark};
use crate::event::Event;
use crate::machine::Machine;
use crate::network::Network;
use crate::node::{Answer, Node, RequestId, Standing};
use crate::operator::Operator;
use crate::options::{Family, MachineOptions, Options};
use crate::prng::Prng;
use crate::queue::{EventQueue, Microseconds};
use crate::trace::Trace;
use crate::violation::Violation;
use crate::workload::Workload;

/// The cluster that all simulated nodes belong to.
pub(crate) const CLUSTER: ClusterId = ClusterId([7; 16]);

/// Makes the empty state machine of a node.
pub type MachineFactory = Box<dyn Fn() -> Box<dyn Machine>>;

/// The sources of chance, one per purpose.
#[derive(Debug)]
pub(crate) struct Chances {
    pub(crate) turns: Prng,
    pub(crate) disks: Prng,
    pub(crate) clocks: Prng,
    pub(crate) machines: Prng,
    pub(crate) faults: Prng,
}

/// A simulated cluster.
pub struct World {
    pub(crate) options: Options,
    pub(crate) now: Microseconds,
    pub(crate) queue: EventQueue<Event>,
    pub(crate) nodes: Vec<Node>,
    /// The network; a suite cuts and repairs it directly.
    pub network: Network,
    pub(crate) checks: Checks,
    pub(crate) coverage: Coverage,
    pub(crate) trace: Trace,
    pub(crate) diagram: Option<SpaceTime>,
    pub(crate) chances: Chances,
    pub(crate) machines: MachineFactory,
    pub(crate) workload: Option<Workload>,
    /// Inputs that protocols have stepped.
    pub(crate) steps: u64,
    /// Whether faults strike.
    pub(crate) is_hostile: bool,
    /// Counts cuts; an earlier one does not repair a later one.
    pub(crate) cuts: u64,
    /// Numbers proposals and reads of all nodes.
    pub(crate) tickets: u64,
    pub(crate) requests: u64,
    /// Numbers transfers of snapshots.
    pub(crate) transfers: u64,
    /// What a suite adds to the time that a snapshot takes to be written.
    pub(crate) snapshot_time: Microseconds,
    pub(crate) operator: Operator,
    pub(crate) answers: BTreeMap<RequestId, Answer>,
    pub(crate) placed: BTreeMap<RequestId, Result<LogId, ProposeError>>,
    pub(crate) violation: Option<Violation>,
    /// The part of the history that a judge objects to.
    pub(crate) picture: Option<String>,
    /// Operations of a workload that has ended.
    pub(crate) operations: u64,
}

/// The key-value machine with these limits.
fn kv_machines(options: MachineOptions) -> MachineFactory {
    Box::new(move || {
        let retention = Retention {
            revisions_max: 100,
            bytes_max: 1 << 20,
        };
        let sessions = SessionLimits {
            sessions_max: options.sessions_max,
            window_max: 16,
            replies_max: 256,
        };
        Box::new(KvStateMachine::with_limits(retention, sessions))
    })
}

impl World {
    /// A cluster of key-value stores, all nodes running.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let machines = kv_machines(options.machine);
        Self::with_machines(options, machines)
    }

    /// A cluster of any state machine, all nodes running. A workload of key-value clients needs
    /// the machine of [`World::new`].
    ///
    /// # Panics
    /// When the options name settings that cannot work.
    #[must_use]
    pub fn with_machines(options: Options, machines: MachineFactory) -> Self {
        let ids: Vec<_> = (1..=options.nodes).map(NodeId).collect();
        let members = membership(&ids);
        let nodes = ids
            .iter()
            .map(|id| Node::new(*id, incarnation(*id), members.clone(), machines()))
            .collect();
        let seed = options.seed;
        let keeps_past = options.has(Family::Replay);
        let workload = options.clients.map(|clients| Workload::new(clients, seed));
        let mut world = Self {
            now: 0,
            queue: EventQueue::default(),
            nodes,
            network: Network::new(options.network, seed, keeps_past),
            checks: Checks::new(members.clone()),
            coverage: Coverage::default(),
            trace: Trace::default(),
            diagram: None,
            chances: Chances {
                turns: Prng::new(seed, "turns"),
                disks: Prng::new(seed, "disks"),
                clocks: Prng::new(seed, "clocks"),
                machines: Prng::new(seed, "machines"),
                faults: Prng::new(seed, "faults"),
            },
            machines,
            workload,
            steps: 0,
            is_hostile: !options.faults.is_empty(),
            cuts: 0,
            tickets: 0,
            requests: 0,
            transfers: 0,
            snapshot_time: 0,
            operator: Operator::new(options.nodes),
            answers: BTreeMap::new(),
            placed: BTreeMap::new(),
            violation: None,
            picture: None,
            operations: 0,
            options,
        };
        for id in ids {
            world.start(id);
        }
        world.plan_first_strikes();
        world.plan_clients();
        world
    }

    /// Keeps what happens as text from now on.
    pub fn write_trace(&mut self) {
        self.trace.write_lines();
    }

    pub(crate) fn plan(&mut self, after: Microseconds, event: Event) {
        self.queue.plan(self.now + after, event);
    }

    pub(crate) fn place(id: NodeId) -> usize {
        usize::try_from(id.0).expect("ids are small") - 1
    }

    /// A node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[Self::place(id)]
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[Self::place(id)]
    }

    /// Ids of all nodes, running or not.
    #[must_use]
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    /// Whether an event of this life still means anything.
    pub(crate) fn is_current(&self, id: NodeId, life: u64) -> bool {
        let node = self.node(id);
        node.is_up() && node.life == life
    }

    /// Starts a node with what is on its disk.
    pub(crate) fn start(&mut self, id: NodeId) {
        let drift = self.options.clock_drift;
        let rate = match self.chances.clocks.below(4) {
            // The worst cases first, where clocks drift at all.
            0 if drift > 0 => 1_000 - drift,
            1 if drift > 0 => 1_000 + drift,
            draw => 1_000 - drift + draw * drift / 2,
        };
        let tick = self.options.tick() * rate / 1_000;
        let first_tick = self.chances.clocks.between(1, tick);
        let machine = match &self.node(id).applier.image {
            Some(image) => image.image(),
            None => (self.machines)(),
        };
        let applied = machine.applied();
        let options = self.options.clone();
        let node = self.node_mut(id);
        assert_eq!(node.standing, Standing::Down, "n{id} starts from rest");
        node.life += 1;
        node.tick = tick;
        let log_end = node.disk.last();
        let snapshot = node.begin_with_snapshot();
        let is_beyond = node.disk.last() != log_end;
        let config = config_of(node, &options);
        let raft = Raft::new(config, node.disk.load(), snapshot, applied);
        node.begin_life(raft.expect("what is on the disk belongs together"), machine);
        let life = node.life;
        let (commit, reached) = (node.state.commit, node.log.term_at(node.state.commit));
        if let Some(term) = reached.filter(|_| commit > Index(0)) {
            let known = self
                .checks
                .commits
                .is_committed(id, LogId::new(term, commit));
            self.note_violation(known);
        }
        let from_disk = applied.index > Index(0);
        self.coverage.count_if(is_beyond, Mark::SnapshotBeyondLog);
        self.coverage.count_if(from_disk, Mark::MachineFromDisk);
        self.trace.mix([1, id.0, life]);
        self.trace.note(self.now, || {
            format!("n{id} starts, life {life}, applied {applied}")
        });
        self.diagram_condition(id, Condition::Running);
        self.plan(first_tick, Event::Tick { node: id, life });
        self.plan_turn(id);
    }

    /// Runs until this moment, or until something is wrong.
    ///
    /// # Errors
    /// The first violation; the world stands still from then on.
    pub fn run_until(&mut self, until: Microseconds) -> Result<(), Violation> {
        while self.queue.next_at().is_some_and(|at| at <= until) {
            self.step()?;
        }
        self.verdict()?;
        self.now = self.now.max(until);
        Ok(())
    }

    /// What was found wrong so far.
    ///
    /// # Errors
    /// The first violation.
    pub fn verdict(&self) -> Result<(), Violation> {
        self.violation.clone().map_or(Ok(()), Err)
    }

    /// Lets the next event happen.
    ///
    /// # Errors
    /// The first violation; the world stands still from then on.
    pub fn step(&mut self) -> Result<(), Violation> {
        self.verdict()?;
        let Some((at, event)) = self.queue.take() else {
            return Ok(());
        };
        self.now = at;
        let happened = self.happen(event);
        self.note_violation(happened);
        self.verdict()
    }

    pub(crate) fn note_violation(&mut self, found: Result<(), Violation>) {
        if let Err(violation) = found
            && self.violation.is_none()
        {
            self.trace.note(self.now, || violation.to_string());
            self.diagram_violation(violation.to_string());
            self.violation = Some(violation);
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Tick { node, life } => self.tick(node, life),
            Event::Turn { node, life } => return self.turn(node, life),
            Event::Message {
                envelope,
                sent,
                copy,
            } => self.arrive(envelope, sent, copy),
            Event::Unreachable { node, life, peer } => self.unreachable(node, life, peer),
            Event::Synced { node, life } => return self.synced(node, life),
            Event::Loaded { node, life, load } => return self.loaded(node, life, load),
            Event::SnapshotWritten {
                node,
                life,
                snapshot,
            } => self.snapshot_written(node, life, *snapshot),
            Event::SnapshotPart { transfer } => return self.snapshot_part(transfer),
            Event::SnapshotSent {
                node,
                life,
                to,
                is_delivered,
            } => self.snapshot_sent(node, life, to, is_delivered),
            Event::Work { node, life } => return self.work(node, life),
            Event::Restart { node, life } => self.restart_after_fault(node, life),
            Event::Churn { node, life } => self.churn(node, life),
            Event::Request { node, origin, ask } => self.request(node, origin, ask),
            Event::Answer {
                node,
                client,
                attempt,
                answer,
            } => return self.client_answered(node, client, attempt, answer),
            Event::Client { client, alarm } => self.client_alarm(client, alarm),
            Event::Strike { family, goes_on } => self.strike(family, goes_on),
            Event::Cut { links } => self.cut_after_fault(links),
            Event::Repair { cut } => self.repair_after_fault(cut),
        }
        Ok(())
    }
}

/// What a node is told when it starts.
fn config_of(node: &Node, options: &Options) -> Config {
    Config {
        cluster: CLUSTER,
        group: GroupId(0),
        id: node.id,
        incarnation: node.incarnation,
        members: node.bootstrap.clone(),
        seed: options.seed.wrapping_add(node.life << 32),
        timing: options.timing,
        limits: options.limits,
        snapshots: options.snapshots,
        reads: options.reads,
        quiesce_after_ticks: options.quiesce_after_ticks,
    }
}

/// The incarnation of a node that was formatted once.
pub(crate) fn incarnation(id: NodeId) -> Incarnation {
    Incarnation(id.0 * 100)
}

fn membership(ids: &[NodeId]) -> Membership {
    let member = |id: &NodeId| Member {
        incarnation: incarnation(*id),
        address: String::new(),
        role: MemberRole::Voter,
    };
    let members = ids.iter().map(|id| (*id, member(id))).collect();
    Membership::new(members).expect("a cluster of 1 to 7 voters")
}
