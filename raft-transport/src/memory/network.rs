//! The network: its nodes, its faults, and what chance decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use raft_core::{NodeId, SendError};
use tokio::sync::watch;

use crate::inbox::{Inbox, InboxSender, InboxSize};
use crate::random::Random;
use crate::rate::Rate;

/// Envelopes that wait at a receiver. A sender waits when its lane is full.
const INBOX: InboxSize = InboxSize {
    control: 1_024,
    bulk: 64,
};

/// How far behind its time a reordered message arrives, at most.
const REORDER_MS_MAX: u64 = 20;

/// What may happen to messages from one node to another. The default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Nothing passes; the sender is told so.
    pub cut: bool,
    /// Probability that a message is lost without a word; for each part of a snapshot, that its
    /// transfer fails.
    pub drop: f64,
    /// Probability that a message arrives twice.
    pub duplicate: f64,
    /// Each message is held back for a time between this...
    pub delay_min: Duration,
    /// ...and this. The order is lost where the times differ.
    pub delay_max: Duration,
    /// Probability that a message is held back for some more milliseconds, so that later ones
    /// overtake it.
    pub reorder: f64,
}

/// The network. Clones are the same network.
#[derive(Clone, Debug)]
pub struct MemoryNetwork {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Messages that are held back.
    pub(super) delayed: AtomicUsize,
    /// Counts what may end a transfer that is under way: faults, and nodes that are gone.
    changes: watch::Sender<u64>,
    pub(super) snapshot_rate: Rate,
}

#[derive(Debug)]
pub(super) struct State {
    random: Random,
    /// Every node that was ever there; a closed one stays, with an inbox that takes nothing.
    nodes: BTreeMap<NodeId, Arc<Node>>,
    faults: BTreeMap<(NodeId, NodeId), Faults>,
    isolated: BTreeSet<NodeId>,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) sender: InboxSender,
    pub(super) inbox: Inbox,
    known: Mutex<Known>,
}

/// Whom a node can send to: those it was told of, and those that have said something since.
#[derive(Debug, Default)]
struct Known {
    /// None before the node was told of anybody; then it can send to everybody.
    members: Option<BTreeSet<NodeId>>,
    heard: BTreeSet<NodeId>,
}

/// What the network decided about one message.
pub(super) enum Fate {
    Now,
    Lost,
    Later(Vec<Duration>),
}

impl MemoryNetwork {
    /// A network without nodes and faults.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    random: Random::new(seed),
                    nodes: BTreeMap::new(),
                    faults: BTreeMap::new(),
                    isolated: BTreeSet::new(),
                }),
                delayed: AtomicUsize::new(0),
                changes: watch::Sender::new(0),
                snapshot_rate: Rate::new(0),
            }),
        }
    }

    /// Sets what happens to messages of one direction, in place of what was set before.
    pub fn set_faults(&self, from: NodeId, to: NodeId, faults: Faults) {
        self.shared.lock().faults.insert((from, to), faults);
        self.shared.has_changed();
    }

    /// The faults of one direction.
    #[must_use]
    pub fn faults(&self, from: NodeId, to: NodeId) -> Faults {
        self.shared.lock().faults(from, to)
    }

    /// Nothing passes between the two, in both directions. Other faults stay as they are.
    pub fn cut(&self, a: NodeId, b: NodeId) {
        self.set_cut(a, b, true);
    }

    /// Undoes [`MemoryNetwork::cut`].
    pub fn heal(&self, a: NodeId, b: NodeId) {
        self.set_cut(a, b, false);
    }

    /// Nothing passes to or from the node, also not from nodes that come later.
    pub fn isolate(&self, id: NodeId) {
        self.shared.lock().isolated.insert(id);
        self.shared.has_changed();
    }

    /// Undoes [`MemoryNetwork::isolate`].
    pub fn rejoin(&self, id: NodeId) {
        self.shared.lock().isolated.remove(&id);
    }

    /// Removes all faults. What is held back still arrives late.
    pub fn heal_all(&self) {
        let mut state = self.shared.lock();
        state.faults.clear();
        state.isolated.clear();
    }

    fn set_cut(&self, a: NodeId, b: NodeId, cut: bool) {
        let mut state = self.shared.lock();
        for link in [(a, b), (b, a)] {
            state.faults.entry(link).or_default().cut = cut;
        }
        drop(state);
        self.shared.has_changed();
    }

    /// How fast snapshots move, all together, in bytes per second; 0, the default, is no limit.
    pub fn set_snapshot_rate(&self, bytes_per_second: u64) {
        self.shared.snapshot_rate.set(bytes_per_second);
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // No holder of the lock runs code of others, so there is nothing half done to fear.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the transfers that are under way.
    pub(super) fn has_changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Changes from now on.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Puts a new node in the place of the one that was there, which ends.
    pub(super) fn start(&self, id: NodeId) -> Arc<Node> {
        let (sender, inbox) = Inbox::new(INBOX);
        let node = Arc::new(Node {
            sender,
            inbox,
            known: Mutex::default(),
        });
        let before = self.lock().nodes.insert(id, Arc::clone(&node));
        if let Some(before) = before {
            self.end(&before);
        }
        node
    }

    /// Ends a node.
    pub(super) fn end(&self, node: &Node) {
        node.inbox.close();
        self.has_changed();
    }
}

impl Node {
    /// Replaces whom the node was told of. Who goes has to say something before it is known again.
    pub(super) fn set_members(&self, members: BTreeSet<NodeId>) {
        let mut known = self.lock_known();
        let before = known.members.replace(members.clone());
        let was_member = |id: &NodeId| before.as_ref().is_none_or(|before| before.contains(id));
        known
            .heard
            .retain(|id| members.contains(id) || !was_member(id));
    }

    pub(super) fn has_heard(&self, from: NodeId) {
        self.lock_known().heard.insert(from);
    }

    fn knows(&self, id: NodeId) -> bool {
        let known = self.lock_known();
        let members = known.members.as_ref();
        members.is_none_or(|members| members.contains(&id)) || known.heard.contains(&id)
    }

    fn lock_known(&self) -> MutexGuard<'_, Known> {
        // Sets stay sets whatever a holder of the lock did.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What sending to a node gives that is not there.
pub(super) fn gone(to: NodeId) -> SendError {
    SendError::Unreachable {
        to,
        why: "it is not running".to_owned(),
    }
}

impl State {
    pub(super) fn faults(&self, from: NodeId, to: NodeId) -> Faults {
        self.faults.get(&(from, to)).copied().unwrap_or_default()
    }

    /// The node that something for `to` goes to, if anything gets there.
    pub(super) fn target(
        &self,
        from: NodeId,
        sender: &Node,
        to: NodeId,
    ) -> Result<Arc<Node>, SendError> {
        let target = self.nodes.get(&to).filter(|_| sender.knows(to));
        let target = target.ok_or(SendError::UnknownPeer(to))?;
        self.check_open(from, to)?;
        if target.inbox.is_closed() {
            return Err(gone(to));
        }
        Ok(Arc::clone(target))
    }

    /// Whether anything passes in this direction.
    pub(super) fn check_open(&self, from: NodeId, to: NodeId) -> Result<(), SendError> {
        let is_isolated = self.isolated.contains(&from) || self.isolated.contains(&to);
        if self.faults(from, to).cut || is_isolated {
            let why = "the link is cut".to_owned();
            return Err(SendError::Unreachable { to, why });
        }
        Ok(())
    }

    /// What happens to a part of a snapshot: nothing, a delay, or the loss of the whole transfer.
    /// Draws from the generator only where a fault is set.
    pub(super) fn fate_of_part(&mut self, from: NodeId, to: NodeId) -> Result<Duration, SendError> {
        let faults = self.faults(from, to);
        if faults == Faults::default() {
            return Ok(Duration::ZERO);
        }
        if self.random.chance(faults.drop) {
            let why = "a part of the snapshot was lost".to_owned();
            return Err(SendError::Unreachable { to, why });
        }
        Ok(self.delay(&faults))
    }

    /// Draws from the generator only where a fault is set.
    pub(super) fn fate(&mut self, faults: &Faults) -> Fate {
        if *faults == Faults::default() {
            return Fate::Now;
        }
        if self.random.chance(faults.drop) {
            return Fate::Lost;
        }
        let copies = if self.random.chance(faults.duplicate) {
            2
        } else {
            1
        };
        let delays: Vec<Duration> = (0..copies).map(|_| self.delay(faults)).collect();
        if delays == [Duration::ZERO] {
            Fate::Now
        } else {
            Fate::Later(delays)
        }
    }

    fn delay(&mut self, faults: &Faults) -> Duration {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let mut delay = Duration::from_micros(
            self.random
                .between(micros(faults.delay_min), micros(faults.delay_max)),
        );
        if self.random.chance(faults.reorder) {
            delay += Duration::from_millis(self.random.between(1, REORDER_MS_MAX));
        }
        delay
    }
}
