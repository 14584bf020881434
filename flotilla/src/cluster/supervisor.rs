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
    /// It was stopped for good.
    Retired,
}

/// What a node's task is told to do.
enum Order {
    /// End the process without a warning.
    Kill,
    /// Stop the process, and start no other.
    Retire,
}

/// A node that the supervisor was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// The node.
    pub(crate) id: u64,
    /// What its directory was formatted with.
    pub(crate) incarnation: u64,
    /// It runs, or will again.
    pub(crate) runs: bool,
}

struct Kept {
    id: u64,
    incarnation: u64,
    orders: mpsc::Sender<Order>,
    pid: watch::Receiver<Option<u32>>,
}

/// The nodes of a cluster. Dropped, it kills them.
pub(crate) struct Supervisor {
    nodes: Vec<Kept>,
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    /// Does not keep the events open: they end with the last node.
    events: mpsc::WeakSender<Event>,
    restart: bool,
}

impl Supervisor {
    /// Starts all nodes. The events end when no node runs any more and none will.
    pub(crate) fn start(nodes: Vec<NodeCommand>, restart: bool) -> (Self, mpsc::Receiver<Event>) {
        let (events, received) = mpsc::channel(EVENTS_MAX);
        let (stop, _) = watch::channel(false);
        let mut supervisor = Self {
            nodes: Vec::new(),
            tasks: JoinSet::new(),
            stop,
            events: events.downgrade(),
            restart,
        };
        for command in nodes {
            supervisor.keep(command, events.clone());
        }
        (supervisor, received)
    }

    /// Starts a further node, or another one in the place of one that has ended. Nothing happens
    /// where no node runs any more.
    pub(crate) fn adopt(&mut self, command: NodeCommand) {
        if let Some(events) = self.events.upgrade() {
            self.forget(command.id);
            self.keep(command, events);
        }
    }

    fn keep(&mut self, command: NodeCommand, events: mpsc::Sender<Event>) {
        let (orders, taken) = mpsc::channel(ORDERS_MAX);
        let (pid, seen) = watch::channel(None);
        self.nodes.push(Kept {
            id: command.id,
            incarnation: command.incarnation,
            orders,
            pid: seen,
        });
        let keeper = Keeper {
            command,
            policy: RestartPolicy::new(self.restart),
            orders: taken,
            stop: self.stop.subscribe(),
            events,
            pid,
        };
        self.tasks.spawn(keeper.keep());
    }

    /// All nodes, also those that have ended and are not started again.
    pub(crate) fn known(&self) -> Vec<Known> {
        let known = self.nodes.iter().map(|node| Known {
            id: node.id,
            incarnation: node.incarnation,
            // The task of a node takes orders as long as it keeps the node.
            runs: !node.orders.is_closed(),
        });
        known.collect()
    }

    /// Knows nothing any more of a node that has ended.
    pub(crate) fn forget(&mut self, id: u64) {
        self.nodes.retain(|node| node.id != id);
    }

    /// Stops a node for good. Returns at once; an event tells when its process is gone.
    pub(crate) fn retire(&self, id: u64) {
        if let Some(node) = self.node(id) {
            // Full or closed: it is being killed or has ended, and is looked at again later.
            let _ = node.orders.try_send(Order::Retire);
        }
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

    /// Waits for the end of the process; none when it was stopped, and no other is wanted.
    async fn run(&mut self, mut process: NodeProcess) -> Option<Ending> {
        loop {
            tokio::select! {
                ending = process.ended() => return Some(ending),
                Some(order) = self.orders.recv() => match order {
                    Order::Kill => process.kill(),
                    Order::Retire => {
                        process.stop().await;
                        self.tell(What::Retired).await;
                        return None;
                    }
                },
                () = told_to_stop(&mut self.stop) => {
                    process.stop().await;
                    return None;
                }
            }
        }
    }

    /// Waits before the next start; whether it is not wanted any more.
    async fn stopped_within(&mut self, pause: Duration) -> bool {
        let over = sleep(pause);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return false,
                Some(order) = self.orders.recv() => match order {
                    Order::Kill => {}
                    Order::Retire => {
                        self.tell(What::Retired).await;
                        return true;
                    }
                },
                () = told_to_stop(&mut self.stop) => return true,
            }
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
