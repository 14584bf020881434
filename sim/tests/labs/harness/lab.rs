//! The course's test harness: its primitives by name, with its times, in a world.
//!
//! An index of the log is not the number of a command here, because every leader begins its term
//! with an entry of its own. Where a test of the course names an index, this one asks for the
//! [`Lab::ordinal`] of a command.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use raft_core::{EntryKind, Index, LogId, NodeId, Role, Term};
use sim::{Answer, Ask, LabSwitches, Microseconds, Options, Prng, RequestId, World};

use super::recorders;

/// A millisecond of virtual time.
pub(crate) const MILLISECOND: Microseconds = 1_000;

/// A second of virtual time.
pub(crate) const SECOND: Microseconds = 1_000_000;

/// The whole time of one test, as the course limits it.
const TEST_TIME_MAX: Microseconds = 120 * SECOND;

/// A command that is a number.
pub(crate) fn number(value: u64) -> Bytes {
    Bytes::copy_from_slice(&value.to_be_bytes())
}

/// A cluster under test. Whatever is found wrong fails the test at once.
pub(crate) struct Lab {
    /// The cluster.
    pub(crate) world: World,
    /// What the test draws.
    pub(crate) chance: Prng,
    /// Where the next round of [`Lab::one`] begins.
    next: usize,
    proposed: BTreeSet<Bytes>,
    /// Where the commands stand in the log, as far as anybody has applied it.
    commands: Vec<Index>,
    scanned: Index,
    /// Nodes that are cut off, and the term in which each was.
    cut: BTreeMap<NodeId, Term>,
    switches: LabSwitches,
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var("TRACE").is_ok() {
            for line in self.world.trace_lines() {
                eprintln!("{line}");
            }
        }
    }
}

impl Lab {
    /// A cluster of recorders on a network without faults but for the long delays that every raft
    /// test of the course has.
    pub(crate) fn new(seed: u64, nodes: u64) -> Self {
        Self::with_options(Options::calm(seed, nodes))
    }

    /// As [`Lab::new`].
    pub(crate) fn with_options(options: Options) -> Self {
        Self::of(World::with_machines(options.clone(), recorders()), &options)
    }

    /// As [`Lab::new`], of any machine.
    pub(crate) fn of(mut world: World, options: &Options) -> Self {
        if std::env::var("TRACE").is_ok() {
            world.write_trace();
        }
        let switches = LabSwitches {
            long_delays: true,
            ..LabSwitches::default()
        };
        world.set_lab(switches);
        Self {
            world,
            chance: Prng::new(options.seed, "lab"),
            next: 0,
            proposed: BTreeSet::new(),
            commands: Vec::new(),
            scanned: Index(0),
            cut: BTreeMap::new(),
            switches,
        }
    }

    /// Requests and replies are late and lost, or not.
    pub(crate) fn set_unreliable(&mut self, unreliable: bool) {
        self.switches.unreliable = unreliable;
        self.world.set_lab(self.switches);
    }

    /// Sets all switches of the network, the long delays included.
    pub(crate) fn set_switches(&mut self, switches: LabSwitches) {
        self.switches = switches;
        self.world.set_lab(switches);
    }

    /// Two of three replies are very late, or not.
    pub(crate) fn set_long_reordering(&mut self, long_reordering: bool) {
        self.switches.long_reordering = long_reordering;
        self.world.set_lab(self.switches);
    }

    /// All nodes, in order.
    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.world.ids()
    }

    /// How many nodes there are.
    pub(crate) fn size(&self) -> usize {
        self.ids().len()
    }

    /// The node so many places behind another one, around.
    pub(crate) fn behind(&self, id: NodeId, places: u64) -> NodeId {
        NodeId((id.0 - 1 + places) % self.size() as u64 + 1)
    }

    /// Some node.
    pub(crate) fn any(&mut self) -> NodeId {
        let ids = self.ids();
        *self.chance.pick(&ids)
    }

    /// A command that was never proposed before.
    pub(crate) fn random(&mut self) -> Bytes {
        number(self.chance.next())
    }

    /// Lets time pass; the first violation of an invariant ends the test.
    pub(crate) fn sleep(&mut self, time: Microseconds) {
        let happened = self.world.run_for(time);
        self.expect(happened);
    }

    /// Lets time pass until something holds. Says whether it does.
    pub(crate) fn sleep_while_not(
        &mut self,
        longest: Microseconds,
        holds: impl FnMut(&World) -> bool,
    ) -> bool {
        let happened = self.world.run_while_not(longest, holds);
        self.expect(happened)
    }

    fn expect<T, E: std::fmt::Display>(&self, happened: Result<T, E>) -> T {
        match happened {
            Ok(value) => value,
            Err(error) => self.fail(&error.to_string()),
        }
    }

    /// Ends the test, with what every node says of itself.
    pub(crate) fn fail(&self, what: &str) -> ! {
        panic!(
            "at {} us: {what}\n{}",
            self.world.now(),
            self.describe().join("\n")
        );
    }

    fn describe(&self) -> Vec<String> {
        let line = |id: NodeId| match self.world.state(id) {
            None => format!("n{id} down"),
            Some(state) => format!(
                "n{id} {} term {} last {} commit {} applied {}{}",
                state.role.name(),
                state.hard_state.term,
                state.last,
                state.commit,
                self.world.applied(id),
                if self.is_connected(id) { "" } else { ", cut" }
            ),
        };
        self.ids().into_iter().map(line).collect()
    }

    /// Whether a node runs and is connected.
    pub(crate) fn is_connected(&self, id: NodeId) -> bool {
        self.world.is_connected(id) && self.world.is_up(id)
    }

    /// Nodes that run and are connected.
    pub(crate) fn connected(&self) -> Vec<NodeId> {
        let ids = self.ids().into_iter();
        ids.filter(|id| self.is_connected(*id)).collect()
    }

    /// Cuts a node off.
    pub(crate) fn disconnect(&mut self, id: NodeId) {
        self.world.disconnect(id);
        // What had arrived is stepped within a turn; from then on nobody says anything to it.
        self.sleep(50);
        if let Some(state) = self.world.state(id) {
            self.cut.entry(id).or_insert(state.hard_state.term);
        }
    }

    /// Ends [`Lab::disconnect`]. By then the term of a node that was alone must not have grown: it
    /// asks before it campaigns, and nobody says yes (pre-vote, thesis 9.6).
    pub(crate) fn connect(&mut self, id: NodeId) {
        let was = self.cut.remove(&id);
        let is = self.world.state(id).map(|state| state.hard_state.term);
        if let (Some(was), Some(is)) = (was, is)
            && is > was
            && self.size() > 1
        {
            self.fail(&format!("n{id} was cut off in term {was} and is in {is}"));
        }
        self.world.connect(id);
    }

    /// A node loses power, and whatever it had not synced.
    pub(crate) fn crash(&mut self, id: NodeId) {
        self.disconnect(id);
        self.world.crash(id);
    }

    /// A node that crashed comes back, not connected yet.
    pub(crate) fn start(&mut self, id: NodeId) {
        self.world.crash(id);
        self.world.restart(id);
    }

    /// A node crashes and comes back at once.
    pub(crate) fn restart(&mut self, id: NodeId) {
        self.disconnect(id);
        self.start(id);
        self.connect(id);
    }

    /// `check_one_leader`: within ten rounds of about half a second some connected node leads, and
    /// never do two lead one term.
    pub(crate) fn check_one_leader(&mut self) -> NodeId {
        for _ in 0..10 {
            let pause = self.chance.between(450, 549);
            self.sleep(pause * MILLISECOND);
            let mut leaders: BTreeMap<Term, NodeId> = BTreeMap::new();
            for id in self.world.leaders() {
                let term = self.term(id);
                if let Some(other) = leaders.insert(term, id) {
                    self.fail(&format!("n{id} and n{other} lead term {term}"));
                }
            }
            if let Some((_, leader)) = leaders.last_key_value() {
                return *leader;
            }
        }
        self.fail("expected one leader, got none")
    }

    /// As [`Lab::check_one_leader`], somebody else than this one, who may believe that it leads.
    pub(crate) fn check_one_leader_but(&mut self, old: NodeId) -> NodeId {
        let is_other = |world: &World| world.leader().is_some_and(|id| id != old);
        if !self.sleep_while_not(5 * SECOND, is_other) {
            self.fail(&format!("nobody but n{old} leads"));
        }
        self.world.leader().expect("just seen")
    }

    /// `check_terms`: all connected nodes are in one term.
    pub(crate) fn check_terms(&self) -> Term {
        let terms: BTreeSet<_> = self
            .connected()
            .into_iter()
            .map(|id| self.term(id))
            .collect();
        if terms.len() != 1 {
            self.fail(&format!("nodes disagree on the term: {terms:?}"));
        }
        terms.into_iter().next().expect("one term")
    }

    /// `check_no_leader`: no connected node claims to lead.
    pub(crate) fn check_no_leader(&self) {
        let leaders = self.world.leaders();
        if !leaders.is_empty() {
            self.fail(&format!("expected no leader, {leaders:?} claim to lead"));
        }
    }

    /// The term of a node that runs.
    pub(crate) fn term(&self, id: NodeId) -> Term {
        let state = self.world.state(id).expect("it runs");
        state.hard_state.term
    }

    /// Whether a node leads, connected or not.
    pub(crate) fn leads(&self, id: NodeId) -> bool {
        let state = self.world.state(id);
        state.is_some_and(|state| state.role == Role::Leader)
    }

    /// `n_committed`: how many nodes have applied an index. That they applied the same there is
    /// checked by the world.
    pub(crate) fn n_committed(&self, index: Index) -> usize {
        self.world.applied_by(index)
    }

    /// Proposes at a node; none where it refuses.
    pub(crate) fn propose(&mut self, id: NodeId, command: impl Into<Bytes>) -> Option<LogId> {
        let command = command.into();
        let placed = self.world.propose(id, command.clone());
        let verdict = self.world.verdict();
        self.expect(verdict);
        self.proposed.insert(command);
        placed.ok().map(|(_, at)| at)
    }

    /// Asks a node to replicate a command, without waiting for where it will stand.
    pub(crate) fn ask(&mut self, id: NodeId, command: impl Into<Bytes>) -> RequestId {
        let command = command.into();
        self.proposed.insert(command.clone());
        self.world.ask(id, Ask::Propose(command))
    }

    /// Where an asked command was applied, once it is.
    pub(crate) fn applied_at(&self, request: RequestId) -> Option<Index> {
        match self.world.answer_to(request) {
            Some(Answer::Applied { id, .. }) => Some(id.index),
            _ => None,
        }
    }

    /// Proposes at the first connected node that accepts.
    pub(crate) fn propose_anywhere(&mut self, command: &Bytes) -> Option<LogId> {
        let ids = self.ids();
        for _ in 0..ids.len() {
            self.next = (self.next + 1) % ids.len();
            let id = ids[self.next];
            if self.is_connected(id)
                && let Some(at) = self.propose(id, command.clone())
            {
                return Some(at);
            }
        }
        None
    }

    /// `one`: within 10 s a command is applied by at least so many nodes; proposed again every 2 s
    /// with `retry`, else 2 s is all it has. Returns where it was.
    pub(crate) fn one(&mut self, command: impl Into<Bytes>, expected: usize, retry: bool) -> Index {
        let command = command.into();
        let end = self.world.now() + 10 * SECOND;
        while self.world.now() < end {
            let Some(at) = self.propose_anywhere(&command) else {
                self.sleep(50 * MILLISECOND);
                continue;
            };
            let patience = self.world.now() + 2 * SECOND;
            while self.world.now() < patience {
                if self.n_committed(at.index) >= expected && self.is_at(at.index, &command) {
                    return at.index;
                }
                self.sleep(20 * MILLISECOND);
            }
            if !retry {
                break;
            }
        }
        self.fail(&format!(
            "{command:?} did not reach agreement by {expected}"
        ))
    }

    /// Whether this command was applied at an index.
    pub(crate) fn is_at(&self, index: Index, command: &Bytes) -> bool {
        let entry = self.world.applied_entry(index);
        entry.is_some_and(|entry| entry.kind() == EntryKind::Command && entry.payload() == command)
    }

    /// `wait`: until so many nodes have applied an index. None where somebody is past `term` before
    /// that.
    pub(crate) fn wait(&mut self, index: Index, nodes: usize, term: Option<Term>) -> Option<Bytes> {
        let mut pause = 10 * MILLISECOND;
        for _ in 0..30 {
            if self.n_committed(index) >= nodes {
                break;
            }
            self.sleep(pause);
            pause = (pause * 2).min(1_280 * MILLISECOND);
            let mut states = self.ids().into_iter().filter_map(|id| self.world.state(id));
            if term.is_some_and(|term| states.any(|state| state.hard_state.term > term)) {
                return None;
            }
        }
        let count = self.n_committed(index);
        if count < nodes {
            self.fail(&format!("{count} of {nodes} nodes have applied {index}"));
        }
        let entry = self.world.applied_entry(index).expect("applied");
        Some(entry.payload().clone())
    }

    fn scan(&mut self) {
        while let Some(entry) = self.world.applied_entry(self.scanned.next()) {
            self.scanned = entry.index();
            if entry.kind() == EntryKind::Command {
                let (index, payload) = (entry.index(), entry.payload().clone());
                if !self.proposed.contains(&payload) {
                    self.fail(&format!(
                        "{payload:?} was applied at {index}, nobody proposed it"
                    ));
                }
                self.commands.push(index);
            }
        }
    }

    /// How many commands anybody has applied.
    pub(crate) fn commands(&mut self) -> u64 {
        self.scan();
        self.commands.len() as u64
    }

    /// The number of an applied command, from 1: what the course calls its index.
    pub(crate) fn ordinal(&mut self, index: Index) -> u64 {
        self.scan();
        let place = self.commands.binary_search(&index);
        place.map_or_else(
            |_| self.fail(&format!("no command was applied at {index}")),
            |place| place as u64 + 1,
        )
    }

    /// Everything that was applied, in order.
    pub(crate) fn applied(&mut self) -> Vec<Bytes> {
        self.scan();
        let payload = |index: &Index| self.world.applied_entry(*index).expect("seen").payload();
        self.commands.iter().map(payload).cloned().collect()
    }

    /// Ends a test: it took no longer than the course allows, and nothing was applied that nobody
    /// proposed.
    pub(crate) fn end(&mut self) {
        self.scan();
        if self.world.now() > TEST_TIME_MAX {
            self.fail("the test took longer than 120 s");
        }
    }
}
