//! Three nodes with the default settings, and what a bench does to them.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_core::{
    Config, GroupId, Incarnation, Limits, Member, MemberRole, Membership, Node, NodeId, RaftHandle,
    Role, StateMachine, Timing,
};
use raft_transport::MemoryNetwork;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::counter::Counter;
use crate::place;
use crate::storage::{CLUSTER, Storage};

/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Running nodes.
#[derive(Debug)]
pub struct Cluster {
    network: MemoryNetwork,
    nodes: Vec<RaftHandle>,
    /// Keeps the directories until the nodes are gone.
    directory: TempDir,
}

impl Cluster {
    /// Starts three nodes; an `isolated` one is cut off before anything is sent.
    ///
    /// # Panics
    /// When they cannot be started: a bench has nothing to measure then.
    pub async fn start(storage: Storage, isolated: Option<NodeId>) -> Self {
        Self::start_nodes(3, storage, isolated, || Box::<Counter>::default()).await
    }

    /// Starts one node alone: a commit is one append to its log.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    pub async fn start_alone(storage: Storage) -> Self {
        Self::start_nodes(1, storage, None, || Box::<Counter>::default()).await
    }

    /// Starts one node alone with such a state machine.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    pub async fn start_alone_with(storage: Storage, machine: Box<dyn StateMachine>) -> Self {
        let mut machine = Some(machine);
        let take = || machine.take().expect("there is one node");
        Self::start_nodes(1, storage, None, take).await
    }

    async fn start_nodes(
        count: u64,
        storage: Storage,
        isolated: Option<NodeId>,
        mut machine: impl FnMut() -> Box<dyn StateMachine>,
    ) -> Self {
        let directory = place::scratch();
        let network = MemoryNetwork::new(1);
        let ids: Vec<_> = (1..=count).map(NodeId).collect();
        let transports: Vec<_> = ids.iter().map(|id| network.transport(*id)).collect();
        if let Some(id) = isolated {
            network.isolate(id);
        }
        let member = |id: &NodeId| Member {
            incarnation: Incarnation(id.0),
            address: String::new(),
            role: MemberRole::Voter,
        };
        let members =
            Membership::new(ids.iter().map(|id| (*id, member(id))).collect()).expect("voters");
        let mut nodes = Vec::new();
        for (id, transport) in ids.into_iter().zip(transports) {
            let incarnation = Incarnation(id.0);
            let store = storage.open(directory.path(), id);
            let config = Config {
                cluster: CLUSTER,
                group: GroupId(0),
                id,
                incarnation,
                members: members.clone(),
                seed: id.0,
                timing: Timing::LAN,
                limits: Limits::default(),
                snapshots: raft_core::SnapshotPolicy::default(),
                reads: raft_core::ReadPolicy::default(),
                quiesce_after_ticks: None,
            };
            nodes.push(
                Node::start(config, transport, store, machine())
                    .await
                    .expect("it starts"),
            );
        }
        Self {
            network,
            nodes,
            directory,
        }
    }

    /// Where the nodes have their data.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The handle of a node.
    #[must_use]
    pub fn node(&self, id: NodeId) -> &RaftHandle {
        &self.nodes[usize::try_from(id.0 - 1).expect("a small id")]
    }

    /// Waits for a leader other than `deposed` and gives its id.
    pub async fn leader(&self, deposed: Option<NodeId>) -> NodeId {
        let leads = |node: &RaftHandle| {
            let status = node.status();
            let found = status.role == Role::Leader && Some(status.id) != deposed;
            found.then_some(status.id)
        };
        let mut leader = None;
        wait_until(|| {
            leader = self.nodes.iter().find_map(leads);
            leader.is_some()
        })
        .await;
        leader.expect("waited for it")
    }

    /// Cuts a node off.
    pub fn isolate(&self, id: NodeId) {
        self.network.isolate(id);
    }

    /// Connects it again.
    pub fn rejoin(&self, id: NodeId) {
        self.network.rejoin(id);
    }

    /// Replicates `count` commands of `bytes` bytes from `clients` callers, each with one command
    /// outstanding, and gives the time until the last was acknowledged.
    pub async fn load(&self, leader: NodeId, count: u64, clients: u64, bytes: usize) -> Duration {
        let payload = Bytes::from(vec![7; bytes]);
        let started = Instant::now();
        let mut callers = JoinSet::new();
        for client in 0..clients.min(count) {
            let node = self.node(leader).clone();
            let payload = payload.clone();
            let share = count / clients + u64::from(client < count % clients);
            callers.spawn(async move {
                for _ in 0..share {
                    node.propose(payload.clone())
                        .await
                        .expect("the leader commits");
                }
            });
        }
        while let Some(finished) = callers.join_next().await {
            finished.expect("no caller panics");
        }
        started.elapsed()
    }

    /// Gives a node commands that cannot be committed, and waits until they are in its log.
    pub async fn strand(&self, id: NodeId, count: u64, bytes: usize) {
        let payload = Bytes::from(vec![8; bytes]);
        let wanted = self.node(id).status().last.index.plus(count);
        let mut callers = JoinSet::new();
        for _ in 0..count {
            let node = self.node(id).clone();
            let payload = payload.clone();
            callers.spawn(async move { drop(node.propose(payload).await) });
        }
        wait_until(|| self.node(id).status().durable >= wanted).await;
        callers.detach_all();
    }

    /// Waits until a follower has on its disk what the leader has, and gives the time it took.
    pub async fn level(&self, follower: NodeId, leader: NodeId) -> Duration {
        let started = Instant::now();
        wait_until(|| {
            let (behind, ahead) = (self.node(follower).status(), self.node(leader).status());
            behind.last == ahead.last && behind.durable == ahead.last.index
        })
        .await;
        started.elapsed()
    }

    /// Stops all nodes and waits for them.
    pub async fn stop(self) {
        for node in &self.nodes {
            node.shutdown().await;
        }
    }
}

async fn wait_until(mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(
            started.elapsed() < PATIENCE,
            "the cluster does not get there"
        );
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}
