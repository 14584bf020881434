//! Doubles of the three traits with faults that a test switches on, and a cluster made of them.
//!
//! Every double holds a token; when a node has stopped and the tokens are gone, nothing of it is
//! left.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use raft_core::{
    AppendBatch, ClusterId, Command, Config, Entry, Envelope, GroupId, HardState, Incarnation,
    Incoming, Index, Limits, LoadedLog, LogId, LogReader, LogStore, LogUsage, Member, MemberRole,
    Membership, Node, NodeId, RaftHandle, ReadPolicy, Role, SendError, SnapshotPolicy,
    StateMachine, StateMachineError, StorageError, Timing, Transport,
};
use tokio::sync::{mpsc, watch};

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

/// What a disk keeps when its node stops, and the faults that a test switches on.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) entries: Vec<Entry>,
    entry_bytes: u64,
    pub(crate) appends: u64,
    pub(crate) append_delay: Duration,
    pub(crate) fail_appends: bool,
    pub(crate) panic_appends: bool,
    pub(crate) fail_reads: bool,
    pub(crate) reads: u64,
}

pub(crate) type SharedDisk = Arc<Mutex<Disk>>;

#[derive(Clone)]
pub(crate) struct TestLog {
    disk: SharedDisk,
    _token: Arc<()>,
}

fn broken(operation: &'static str) -> StorageError {
    StorageError::Io {
        operation,
        path: "disk".to_owned(),
        message: "switched off by the test".to_owned(),
    }
}

#[async_trait]
impl LogStore for TestLog {
    async fn load(&mut self) -> Result<LoadedLog, StorageError> {
        let disk = self.disk.lock().unwrap();
        Ok(LoadedLog::of_entries(
            disk.hard_state,
            LogId::ZERO,
            &disk.entries,
        ))
    }

    async fn append(&mut self, batch: AppendBatch) -> Result<(), StorageError> {
        let delay = self.disk.lock().unwrap().append_delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut disk = self.disk.lock().unwrap();
        if disk.fail_appends {
            return Err(broken("append"));
        }
        let must_panic = std::mem::take(&mut disk.panic_appends);
        if must_panic {
            drop(disk);
            panic!("the store panics");
        }
        if let Some(hard_state) = batch.hard_state {
            disk.hard_state = hard_state;
        }
        if let Some(index) = batch.truncate_from {
            disk.entries.retain(|entry| entry.index() < index);
            disk.entry_bytes = disk.entries.iter().map(|e| e.encoded_len() as u64).sum();
        }
        for entry in batch.entries {
            assert_eq!(entry.index().0, disk.entries.len() as u64 + 1);
            disk.entry_bytes += entry.encoded_len() as u64;
            disk.entries.push(entry);
        }
        disk.appends += 1;
        Ok(())
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(self.clone())
    }
}

#[async_trait]
impl LogReader for TestLog {
    async fn read(
        &self,
        range: Range<Index>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let mut disk = self.disk.lock().unwrap();
        disk.reads += 1;
        if disk.fail_reads {
            return Err(broken("read"));
        }
        let last = Index(disk.entries.len() as u64);
        if range.start > last || range.start < Index(1) {
            return Err(StorageError::OutOfRange {
                from: range.start,
                first: Index(1),
                last,
            });
        }
        let mut bytes = 0;
        let from = usize::try_from(range.start.0 - 1).unwrap();
        let entries = disk.entries[from..].iter();
        Ok(entries
            .take_while(|entry| {
                bytes += entry.encoded_len();
                entry.index() < range.end && (bytes <= bytes_max || entry.index() == range.start)
            })
            .cloned()
            .collect())
    }

    fn usage(&self) -> LogUsage {
        let disk = self.disk.lock().unwrap();
        LogUsage {
            log_bytes: disk.entry_bytes,
            disk_bytes: 0,
        }
    }
}

/// What a machine did, and the faults that a test switches on.
#[derive(Debug, Default)]
pub(crate) struct Deeds {
    pub(crate) commands: Vec<(Index, Bytes)>,
    pub(crate) apply_delay: Duration,
}

pub(crate) type SharedDeeds = Arc<Mutex<Deeds>>;

/// Replies to a command with how many it has applied, and to every query with the last command. The
/// commands `fail` and `panic` do what they say.
pub(crate) struct TestMachine {
    deeds: SharedDeeds,
    last: Bytes,
    count: u64,
    _token: Arc<()>,
}

#[async_trait]
impl StateMachine for TestMachine {
    async fn apply(&mut self, batch: Vec<Command>) -> Result<Vec<Bytes>, StateMachineError> {
        let delay = self.deeds.lock().unwrap().apply_delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut replies = Vec::new();
        for command in batch {
            match &command.payload[..] {
                b"fail" => return Err(StateMachineError("told to fail".to_owned())),
                b"panic" => panic!("told to panic"),
                _ => {}
            }
            self.count += 1;
            self.last = command.payload.clone();
            replies.push(Bytes::from(self.count.to_string()));
            let mut deeds = self.deeds.lock().unwrap();
            deeds.commands.push((command.index(), command.payload));
        }
        Ok(replies)
    }

    async fn query(&mut self, query: Bytes) -> Result<Bytes, StateMachineError> {
        if &query[..] == b"fail" {
            return Err(StateMachineError("told to fail".to_owned()));
        }
        Ok(self.last.clone())
    }

    fn applied(&self) -> LogId {
        LogId::ZERO
    }
}

#[derive(Debug, Default)]
struct Wires {
    inboxes: BTreeMap<NodeId, mpsc::Sender<Envelope>>,
    /// Messages from the first to the second vanish.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Sends to these fail.
    unreachable: BTreeSet<NodeId>,
    /// Appends that failed so, since the test last asked.
    failed_appends: u64,
    /// Sends to these never return.
    hanging: BTreeSet<NodeId>,
    panic_receive: BTreeSet<NodeId>,
}

/// Channels between nodes.
#[derive(Clone, Debug, Default)]
pub(crate) struct TestNetwork {
    wires: Arc<Mutex<Wires>>,
}

impl TestNetwork {
    fn transport(&self, id: NodeId, token: Arc<()>) -> Arc<TestTransport> {
        let (sender, inbox) = mpsc::channel(1024);
        self.wires.lock().unwrap().inboxes.insert(id, sender);
        Arc::new(TestTransport {
            id,
            wires: Arc::clone(&self.wires),
            inbox: tokio::sync::Mutex::new(inbox),
            closed: watch::Sender::new(false),
            _token: token,
        })
    }

    /// Cuts a node off from all others, in both directions.
    pub(crate) fn isolate(&self, id: u64) {
        let mut wires = self.wires.lock().unwrap();
        let others: Vec<_> = wires.inboxes.keys().copied().collect();
        for other in others {
            wires.cut.insert((NodeId(id), other));
            wires.cut.insert((other, NodeId(id)));
        }
    }

    pub(crate) fn heal(&self) {
        let mut wires = self.wires.lock().unwrap();
        wires.cut.clear();
        wires.unreachable.clear();
        wires.hanging.clear();
    }

    /// Puts a message of nobody's transport into its addressee's inbox, as far as there is room.
    pub(crate) fn inject(&self, envelope: Envelope) -> bool {
        let inbox = self
            .wires
            .lock()
            .unwrap()
            .inboxes
            .get(&envelope.to)
            .cloned();
        inbox.is_some_and(|inbox| inbox.try_send(envelope).is_ok())
    }

    pub(crate) fn hang_sends_to(&self, id: u64) {
        self.wires.lock().unwrap().hanging.insert(NodeId(id));
    }

    pub(crate) fn fail_sends_to(&self, id: u64) {
        self.wires.lock().unwrap().unreachable.insert(NodeId(id));
    }

    pub(crate) fn take_failed_appends(&self) -> u64 {
        std::mem::take(&mut self.wires.lock().unwrap().failed_appends)
    }

    pub(crate) fn panic_at(&self, id: u64) {
        self.wires.lock().unwrap().panic_receive.insert(NodeId(id));
    }
}

pub(crate) struct TestTransport {
    id: NodeId,
    wires: Arc<Mutex<Wires>>,
    inbox: tokio::sync::Mutex<mpsc::Receiver<Envelope>>,
    closed: watch::Sender<bool>,
    _token: Arc<()>,
}

#[async_trait]
impl Transport for TestTransport {
    async fn send(&self, to: NodeId, envelope: Envelope) -> Result<(), SendError> {
        if *self.closed.borrow() {
            return Err(SendError::Closed);
        }
        let (inbox, is_cut, hangs) = {
            let mut wires = self.wires.lock().unwrap();
            if wires.unreachable.contains(&to) {
                wires.failed_appends += u64::from(envelope.message.is_bulk());
                let why = "the test says so".to_owned();
                return Err(SendError::Unreachable { to, why });
            }
            let inbox = wires.inboxes.get(&to).cloned();
            let is_cut = wires.cut.contains(&(self.id, to));
            (inbox, is_cut, wires.hanging.contains(&to))
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        if let Some(inbox) = inbox
            && !is_cut
        {
            // A full or closed inbox loses the message.
            let _ = inbox.try_send(envelope);
        }
        Ok(())
    }

    async fn recv(&self) -> Option<Incoming> {
        let mut inbox = self.inbox.lock().await;
        let mut closed = self.closed.subscribe();
        let envelope = tokio::select! {
            envelope = inbox.recv() => envelope,
            _ = closed.wait_for(|closed| *closed) => None,
        };
        let must_panic = {
            let mut wires = self.wires.lock().unwrap();
            wires.panic_receive.remove(&self.id)
        };
        assert!(!must_panic, "the transport panics");
        envelope.map(Incoming::Message)
    }

    async fn close(&self) {
        self.closed.send_replace(true);
        self.wires.lock().unwrap().inboxes.remove(&self.id);
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

    pub(crate) fn commands(&self) -> Vec<Bytes> {
        let deeds = self.deeds.lock().unwrap();
        deeds.commands.iter().map(|(_, c)| c.clone()).collect()
    }
}

pub(crate) struct Cluster {
    pub(crate) network: TestNetwork,
    pub(crate) nodes: BTreeMap<u64, TestNode>,
    limits: Limits,
    size: u64,
}

impl Cluster {
    pub(crate) async fn start(size: u64) -> Self {
        Self::start_with(size, Limits::default()).await
    }

    pub(crate) async fn start_with(size: u64, limits: Limits) -> Self {
        let mut cluster = Self::without_nodes(size, limits);
        for id in 1..=size {
            cluster.start_node(id, SharedDisk::default()).await;
        }
        cluster
    }

    fn config(&self, id: u64) -> Config {
        config(id, self.size, self.limits)
    }

    /// A cluster of `size` members of which none runs yet.
    pub(crate) fn without_nodes(size: u64, limits: Limits) -> Self {
        Self {
            network: TestNetwork::default(),
            nodes: BTreeMap::new(),
            limits,
            size,
        }
    }

    pub(crate) async fn start_node(&mut self, id: u64, disk: SharedDisk) {
        let token = Arc::new(());
        let deeds = SharedDeeds::default();
        let transport = self.network.transport(NodeId(id), Arc::clone(&token));
        let weak = Arc::downgrade(&transport);
        let log = TestLog {
            disk: Arc::clone(&disk),
            _token: Arc::clone(&token),
        };
        let machine = TestMachine {
            deeds: Arc::clone(&deeds),
            last: Bytes::new(),
            count: 0,
            _token: Arc::clone(&token),
        };
        let config = self.config(id);
        let started = Node::start(config, transport, Box::new(log), Box::new(machine)).await;
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

    /// Ends all nodes and checks that nothing is left.
    pub(crate) async fn stop(mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.stop_node(id).await;
        }
    }
}

fn config(id: u64, size: u64, limits: Limits) -> Config {
    let member = |id: u64| Member {
        incarnation: Incarnation(100 + id),
        address: format!("node-{id}"),
        role: MemberRole::Voter,
    };
    let members = (1..=size).map(|id| (NodeId(id), member(id))).collect();
    Config {
        cluster: ClusterId([7; 16]),
        group: GroupId(1),
        id: NodeId(id),
        incarnation: Incarnation(100 + id),
        members: Membership::new(members).unwrap(),
        seed: 42 + id,
        timing: Timing::LAN,
        limits,
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
    let log = TestLog {
        disk,
        _token: token,
    };
    (config(1, 1, Limits::default()), transport, log)
}
