//! Doubles of the three traits with faults that a test switches on, and a cluster made of them.
//!
//! Every double holds a token; when a node has stopped and the tokens are gone, nothing of it is
//! left.

mod machine;
mod network;
pub(crate) mod storage;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raft_core::{
    Clock, ClusterId, Config, GroupId, Incarnation, Limits, Member, MemberRole, Membership, Node,
    NodeId, RaftHandle, ReadPolicy, Role, SnapshotPolicy, Timing,
};
use tokio::time::Instant;

pub(crate) use machine::{SharedDeeds, TestMachine};
pub(crate) use network::{Offer, TestNetwork, TestTransport};
pub(crate) use storage::{Content, SharedDisk, TestLog};

/// Waits for a condition with a deadline that only a hang meets.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

/// Fails the test instead of hanging it.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(60), future).await {
        Ok(value) => value,
        Err(_) => panic!("too late: {what}"),
    }
}

/// One running node and what outlives it.
pub(crate) struct TestNode {
    pub(crate) handle: RaftHandle,
    pub(crate) disk: SharedDisk,
    pub(crate) deeds: SharedDeeds,
    pub(crate) transport: std::sync::Weak<TestTransport>,
    token: Arc<()>,
}

impl TestNode {
    /// Store, machine and transport of the node are dropped.
    pub(crate) fn is_gone(&self) -> bool {
        Arc::strong_count(&self.token) == 1
    }

    /// All commands that are part of the state, in order.
    pub(crate) fn commands(&self) -> Vec<Bytes> {
        let deeds = self.deeds.lock().unwrap();
        deeds.commands.iter().map(|(_, c)| c.clone()).collect()
    }
}

/// Changes the settings of all nodes.
type Settings = Box<dyn Fn(&mut Config)>;

pub(crate) struct Cluster {
    pub(crate) network: TestNetwork,
    pub(crate) nodes: BTreeMap<u64, TestNode>,
    settings: Settings,
    size: u64,
}

impl Cluster {
    pub(crate) async fn start(size: u64) -> Self {
        Self::start_with(size, Limits::default()).await
    }

    pub(crate) async fn start_with(size: u64, limits: Limits) -> Self {
        Self::configured(size, move |config| config.limits = limits).await
    }

    pub(crate) async fn configured(size: u64, settings: impl Fn(&mut Config) + 'static) -> Self {
        let mut cluster = Self::without_nodes(size, Limits::default());
        cluster.settings = Box::new(settings);
        for id in 1..=size {
            cluster.start_node(id, SharedDisk::default()).await;
        }
        cluster
    }

    /// A cluster of `size` members of which none runs yet.
    pub(crate) fn without_nodes(size: u64, limits: Limits) -> Self {
        Self {
            network: TestNetwork::default(),
            nodes: BTreeMap::new(),
            settings: Box::new(move |config| config.limits = limits),
            size,
        }
    }

    /// Starts a member, or one that is not a member yet and knows nobody.
    pub(crate) async fn start_node(&mut self, id: u64, disk: SharedDisk) {
        self.start_as(id, incarnation_of(id), disk).await;
    }

    pub(crate) async fn start_as(&mut self, id: u64, incarnation: Incarnation, disk: SharedDisk) {
        self.start_with_state(id, incarnation, disk, SharedDeeds::default())
            .await;
    }

    /// Starts a member whose state machine has a disk of its own.
    pub(crate) async fn start_with_state(
        &mut self,
        id: u64,
        incarnation: Incarnation,
        disk: SharedDisk,
        deeds: SharedDeeds,
    ) {
        let token = Arc::new(());
        let transport = self.network.transport(NodeId(id), Arc::clone(&token));
        let weak = Arc::downgrade(&transport);
        let log = TestLog::new(Arc::clone(&disk), Arc::clone(&token));
        let machine = TestMachine::new(Arc::clone(&deeds), Arc::clone(&token));
        let mut config = config(id, self.size);
        if id > self.size || incarnation != config.incarnation {
            config.members = Membership::default();
        }
        config.incarnation = incarnation;
        (self.settings)(&mut config);
        let (log, machine) = (Box::new(log), Box::new(machine));
        let clock = virtual_clock();
        let started = Node::start_with_clock(config, transport, log, machine, clock).await;
        let node = TestNode {
            handle: started.unwrap(),
            disk,
            deeds,
            transport: weak,
            token,
        };
        self.nodes.insert(id, node);
    }

    pub(crate) async fn stop_node(&mut self, id: u64) -> SharedDisk {
        let node = self.nodes.remove(&id).unwrap();
        soon("shutdown", node.handle.shutdown()).await;
        assert!(node.is_gone(), "node {id} left something behind");
        node.disk
    }

    pub(crate) fn handle(&self, id: u64) -> &RaftHandle {
        &self.nodes[&id].handle
    }

    /// The id of the leader, when all running nodes that it can reach agree on it.
    pub(crate) async fn leader(&self) -> u64 {
        self.leader_among(&self.nodes.keys().copied().collect::<Vec<_>>())
            .await
    }

    pub(crate) async fn leader_among(&self, ids: &[u64]) -> u64 {
        let mut leader = 0;
        eventually("all agree on a leader", || {
            let states: Vec<_> = ids.iter().map(|id| self.handle(*id).status()).collect();
            let Some(first) = states.iter().find(|s| s.role == Role::Leader) else {
                return false;
            };
            leader = first.id.0;
            states
                .iter()
                .all(|s| s.leader == Some(first.id) && s.term == first.term)
        })
        .await;
        leader
    }

    pub(crate) fn a_follower_of(&self, leader: u64) -> u64 {
        *self.nodes.keys().find(|id| **id != leader).unwrap()
    }

    /// Proposes commands named by these numbers, one after the other.
    pub(crate) async fn propose(&self, leader: u64, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let command = Bytes::from(format!("command {number}"));
            self.handle(leader).propose(command).await.unwrap();
        }
    }

    /// All running nodes have the same commands, so many.
    pub(crate) async fn converges_to(&self, commands: usize) {
        for (id, node) in &self.nodes {
            let what = format!("node {id} has {commands} commands");
            eventually(&what, || node.commands().len() == commands).await;
        }
        let states = self.nodes.values().map(|node| {
            let deeds = node.deeds.lock().unwrap();
            deeds.commands.clone()
        });
        let states: Vec<_> = states.collect();
        assert!(states.windows(2).all(|pair| pair[0] == pair[1]));
    }

    /// Ends all nodes and checks that nothing is left, not of their waiters either.
    pub(crate) async fn stop(mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let handle = self.handle(id).clone();
            self.stop_node(id).await;
            assert_eq!(handle.proposals_pending(), 0, "proposals of node {id}");
            assert_eq!(handle.reads_pending(), 0, "reads of node {id}");
        }
    }
}

/// The incarnation that a bootstrapped node runs as.
pub(crate) fn incarnation_of(id: u64) -> Incarnation {
    Incarnation(100 + id)
}

/// Counts virtual time, where time is virtual.
fn virtual_clock() -> Clock {
    let start = Instant::now();
    Clock::new(move || u64::try_from(start.elapsed().as_nanos()).unwrap() + 1)
}

fn config(id: u64, size: u64) -> Config {
    let member = |id: u64| Member {
        incarnation: incarnation_of(id),
        address: format!("node-{id}"),
        role: MemberRole::Voter,
    };
    let members = (1..=size).map(|id| (NodeId(id), member(id))).collect();
    Config {
        cluster: ClusterId([7; 16]),
        group: GroupId(1),
        id: NodeId(id),
        incarnation: incarnation_of(id),
        members: Membership::new(members).unwrap(),
        seed: 42 + id,
        timing: Timing::LAN,
        limits: Limits::default(),
        snapshots: SnapshotPolicy::default(),
        reads: ReadPolicy::default(),
        quiesce_after_ticks: None,
    }
}

/// What a single node needs besides a machine.
pub(crate) fn parts(disk: SharedDisk) -> (Config, Arc<TestTransport>, TestLog) {
    let token = Arc::new(());
    let network = TestNetwork::default();
    let transport = network.transport(NodeId(1), Arc::clone(&token));
    (config(1, 1), transport, TestLog::new(disk, token))
}
