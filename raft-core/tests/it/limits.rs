//! Limits are met with an error that names them, and what clients leave behind is cleaned up.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use raft_core::{
    Command, Consistency, Index, Limits, LogId, Node, ProposeError, ReadError, StartError,
    StateMachine, StateMachineError, Term,
};

use crate::support::{self, Cluster, SharedDisk, eventually};

#[tokio::test(start_paused = true)]
async fn a_proposal_that_is_too_large_is_refused_before_anything_is_written() {
    let limits = Limits {
        proposal_bytes_max: 1000,
        ..Limits::default()
    };
    let cluster = Cluster::start_with(1, limits).await;
    cluster.leader().await;
    let before = cluster.nodes[&1].disk.lock().unwrap().entries.len();
    let handle = cluster.handle(1);
    let refused = handle.propose(vec![0; 1001].into()).await;
    let (bytes, limit) = (1001, 1000);
    assert_eq!(refused, Err(ProposeError::TooLarge { bytes, limit }));
    assert_eq!(cluster.nodes[&1].disk.lock().unwrap().entries.len(), before);
    handle.propose(vec![0; 1000].into()).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn proposals_above_a_limit_are_busy_by_name_and_room_comes_back() {
    let limits = Limits {
        proposals_pending_max: 10,
        proposals_pending_bytes_max: 10_000,
        proposal_bytes_max: 5_000,
        ..Limits::default()
    };
    let cluster = Cluster::start_with(1, limits).await;
    cluster.leader().await;
    cluster.nodes[&1].disk.lock().unwrap().append_delay = Duration::from_secs(1);
    let handle = cluster.handle(1);
    let mut tasks = tokio::task::JoinSet::new();
    let mut propose = |bytes: usize| {
        let handle = handle.clone();
        tasks.spawn(async move { handle.propose(vec![0; bytes].into()).await });
    };
    (0..10).for_each(|_| propose(10));
    eventually("all wait", || handle.proposals_pending() == 10).await;
    let refused = handle.propose("a".into()).await;
    let (limit_name, limit) = ("proposals_pending_max", 10);
    assert_eq!(refused, Err(ProposeError::Busy { limit_name, limit }));
    eventually("all are answered", || handle.proposals_pending() == 0).await;

    (0..2).for_each(|_| propose(5_000));
    eventually("both wait", || handle.proposals_pending() == 2).await;
    let refused = handle.propose("a".into()).await;
    let (limit_name, limit) = ("proposals_pending_bytes_max", 10_000);
    assert_eq!(refused, Err(ProposeError::Busy { limit_name, limit }));
    while let Some(answered) = tasks.join_next().await {
        answered.unwrap().unwrap();
    }
    handle.propose("a".into()).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn reads_above_the_limit_are_busy() {
    let limits = Limits {
        reads_pending_max: 3,
        ..Limits::default()
    };
    let cluster = Cluster::start_with(3, limits).await;
    let leader = cluster.leader().await;
    cluster.network.isolate(leader);
    let handle = cluster.handle(leader);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let handle = handle.clone();
        tasks.spawn(async move { handle.read("".into(), Consistency::Linearizable).await });
    }
    eventually("all wait", || handle.reads_pending() == 3).await;
    let refused = handle.read("".into(), Consistency::Linearizable).await;
    let (limit_name, limit) = ("reads_pending_max", 3);
    assert_eq!(refused, Err(ReadError::Busy { limit_name, limit }));
    while let Some(answered) = tasks.join_next().await {
        let error = answered.unwrap().unwrap_err();
        assert!(matches!(error, ReadError::NotLeader { .. }), "{error}");
    }
    assert_eq!(handle.reads_pending(), 0);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn clients_that_give_up_leave_nothing_behind() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    cluster.nodes[&1].disk.lock().unwrap().append_delay = Duration::from_secs(20);
    let handle = cluster.handle(1);
    let patience = Duration::from_millis(1);
    for _ in 0..100 {
        let propose = handle.propose(Bytes::from_static(b"a"));
        tokio::time::timeout(patience, propose).await.unwrap_err();
    }
    eventually("the waiters are swept", || handle.proposals_pending() == 0).await;
    cluster.stop().await;
}

/// A machine on a disk that has more than the log.
struct Ahead;

#[async_trait]
impl StateMachine for Ahead {
    async fn apply(&mut self, batch: Vec<Command>) -> Result<Vec<Bytes>, StateMachineError> {
        Ok(batch.into_iter().map(|command| command.payload).collect())
    }

    async fn query(&mut self, query: Bytes) -> Result<Bytes, StateMachineError> {
        Ok(query)
    }

    async fn snapshot(&mut self) -> Result<Box<dyn raft_core::StateImage>, StateMachineError> {
        unreachable!("nobody asks for one")
    }

    async fn restore(
        &mut self,
        _: Box<dyn raft_core::SnapshotReader>,
    ) -> Result<(), StateMachineError> {
        unreachable!("there is none")
    }

    fn applied(&self) -> LogId {
        LogId::new(Term(1), Index(5))
    }
}

pub(crate) async fn start_with_machine_ahead(disk: SharedDisk) -> StartError {
    let (config, transport, log) = support::parts(disk);
    let started = Node::start(config, transport, Box::new(log), Box::new(Ahead)).await;
    started.unwrap_err()
}
