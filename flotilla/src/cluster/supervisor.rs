//! Keeps the nodes of a cluster running: one task per node, which starts it, waits for its end and
//! does about it what `restart` decides. What happens is told as events.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::child::{NodeCommand, NodeProcess};
use super::restart::{Decision, Ending, RestartPolicy};

/// Events that wait to be looked at; a node waits with its next one while they are not.
const EVENTS_MAX: usize = 64;

/// Orders to one node that wait to be carried out.
const ORDERS_MAX: usize = 1;

/// Something happened to a node.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// The node.
    pub(crate) id: u64,
    /// What.
    pub(crate) what: What,
}

/// What happened to a node.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// It runs, as this process.
    Started(u32),
    /// It could not be started at all.
    NotStarted(String),
    /// It ended without having been asked to.
    Ended {
        /// How.
        ending: Ending,
        /// What it said last.
        last_words: Option<String>,
        /// What is done about it.
        decision: Decision,
    },
}

/// What a node's task is told to do.
enum Order {
    /// End the process without a warning.
    Kill,
}

struct Kept {
    id: u64,
    orders: mpsc::Sender<Order>,
    pid: watch::Receiver<Option<u32>>,
}

/// The nodes of a cluster. Dropped, it kills them.
pub(crate) struct Supervisor {
    nodes: Vec<Kept>,
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Supervisor {
    /// Starts all nodes. The events end when no node runs any more and none will.
    pub(crate) fn start(nodes: Vec<NodeCommand>, restart: bool) -> (Self, mpsc::Receiver<Event>) {
        let (events, received) = mpsc::channel(EVENTS_MAX);
        let (stop, _) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut kept = Vec::new();
        for command in nodes {
            let (orders, taken) = mpsc::channel(ORDERS_MAX);
            let (pid, seen) = watch::channel(None);
            kept.push(Kept {
                id: command.id,
                orders,
                pid: seen,
            });
            let keeper = Keeper {
                command,
                policy: RestartPolicy::new(restart),
                orders: taken,
                stop: stop.subscribe(),
                events: events.clone(),
                pid,
            };
            tasks.spawn(keeper.keep());
        }
        let supervisor = Self {
            nodes: kept,
            tasks,
            stop,
        };
        (supervisor, received)
    }

    /// Kills a node, and returns when its process is gone. It is started again as after any other
    /// signal.
    pub(crate) async fn kill(&self, id: u64) {
        let Some(node) = self.node(id) else { return };
        let mut pid = node.pid.clone();
        let before = *pid.borrow_and_update();
        if before.is_none() || node.orders.send(Order::Kill).await.is_err() {
            return;
        }
        // Fails where the node's task has ended, and then so has the process.
        let _ = pid.wait_for(|now| *now != before).await;
    }

    /// Stops all nodes and waits until their processes are gone.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }

    fn node(&self, id: u64) -> Option<&Kept> {
        self.nodes.iter().find(|node| node.id == id)
    }
}

/// The task of one node.
struct Keeper {
    command: NodeCommand,
    policy: RestartPolicy,
    orders: mpsc::Receiver<Order>,
    stop: watch::Receiver<bool>,
    events: mpsc::Sender<Event>,
    pid: watch::Sender<Option<u32>>,
}

impl Keeper {
    async fn keep(mut self) {
        loop {
            let process = match self.command.start() {
                Ok(process) => process,
                Err(error) => return self.tell(What::NotStarted(error.to_string())).await,
            };
            let started = Instant::now();
            self.pid.send_replace(process.pid());
            self.tell(What::Started(process.pid().unwrap_or(0))).await;
            let Some(ending) = self.run(process).await else {
                return;
            };
            self.pid.send_replace(None);
            let decision = self.policy.ended(ending, started, Instant::now());
            let last_words = self.command.last_words();
            self.tell(What::Ended {
                ending,
                last_words,
                decision,
            })
            .await;
            let Decision::After(pause) = decision else {
                return;
            };
            if self.stopped_within(pause).await {
                return;
            }
        }
    }

    /// Waits for the end of the process; none when it was stopped because all are.
    async fn run(&mut self, mut process: NodeProcess) -> Option<Ending> {
        loop {
            tokio::select! {
                ending = process.ended() => return Some(ending),
                Some(Order::Kill) = self.orders.recv() => process.kill(),
                () = told_to_stop(&mut self.stop) => {
                    process.stop().await;
                    return None;
                }
            }
        }
    }

    async fn stopped_within(&mut self, pause: Duration) -> bool {
        tokio::select! {
            () = sleep(pause) => false,
            () = told_to_stop(&mut self.stop) => true,
        }
    }

    async fn tell(&self, what: What) {
        let id = self.command.id;
        // Nobody listens any more when everything is being stopped.
        let _ = self.events.send(Event { id, what }).await;
    }
}

/// Also when the supervisor is gone.
async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
