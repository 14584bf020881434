//! How a node ends: the first cause wins, every task is ended and joined, and only then the node
//! counts as stopped. Never a half-alive node.

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use crate::error::StopReason;
use crate::transport::Transport;

/// How long a transport may take to close; then it is dropped as it is.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

/// The task whose orderly end is the end of the node.
pub(crate) const DRIVER: &str = "driver";

/// Tasks that were asked for while the node runs and are not started yet. The supervisor does
/// nothing else, so this is never many.
const STARTING_TASKS_MAX: usize = 64;

type Task = Pin<Box<dyn Future<Output = Result<(), StopReason>> + Send>>;

/// How a task is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// At its next await: it owns nothing that could be left half done.
    Abort,
    /// By itself, when it sees the stop signal: it owns a store or a machine, whose current call is
    /// finished first.
    Signal,
}

/// The handles' side of a node's life.
#[derive(Debug)]
pub(crate) struct LifeWatch {
    shutdown: watch::Sender<bool>,
    cause: watch::Receiver<Option<StopReason>>,
    stopped: watch::Receiver<Option<StopReason>>,
}

/// Tells a task with [`Ending::Signal`] to end.
#[derive(Clone, Debug)]
pub(crate) struct StopSignal(watch::Receiver<bool>);

impl StopSignal {
    /// Waits until the node ends.
    pub(crate) async fn wait(&mut self) {
        // An error means that the supervisor is gone, and with it the node.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Whether the node ends.
    pub(crate) fn is_set(&self) -> bool {
        *self.0.borrow()
    }
}

/// Asks the supervisor for tasks while the node runs. They are ended as [`Ending::Abort`].
#[derive(Clone)]
pub(crate) struct Spawner(mpsc::Sender<(&'static str, Task)>);

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spawner")
    }
}

impl Spawner {
    /// Asks for a task. Whether there was room to ask, and a node to run it.
    pub(crate) fn try_spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), StopReason>> + Send + 'static,
    ) -> bool {
        self.0.try_send((name, Box::pin(task))).is_ok()
    }
}

/// A task that was started and has not been joined.
#[derive(Debug)]
struct Running {
    name: &'static str,
    handle: AbortHandle,
    ending: Ending,
}

/// Owns the tasks of a node.
#[derive(Debug)]
pub(crate) struct Supervisor {
    tasks: JoinSet<Result<(), StopReason>>,
    running: Vec<Running>,
    spawner: Spawner,
    starting: mpsc::Receiver<(&'static str, Task)>,
    stop: watch::Sender<bool>,
    shutdown: watch::Receiver<bool>,
    cause: watch::Sender<Option<StopReason>>,
    stopped: watch::Sender<Option<StopReason>>,
}

/// A supervisor without tasks, and the other side of it.
pub(crate) fn new() -> (Supervisor, LifeWatch) {
    let (shutdown, shutdown_asked) = watch::channel(false);
    let (cause, cause_seen) = watch::channel(None);
    let (stopped, stopped_seen) = watch::channel(None);
    let (starting, starting_asked) = mpsc::channel(STARTING_TASKS_MAX);
    let supervisor = Supervisor {
        tasks: JoinSet::new(),
        running: Vec::new(),
        spawner: Spawner(starting),
        starting: starting_asked,
        stop: watch::Sender::new(false),
        shutdown: shutdown_asked,
        cause,
        stopped,
    };
    let life = LifeWatch {
        shutdown,
        cause: cause_seen,
        stopped: stopped_seen,
    };
    (supervisor, life)
}

impl LifeWatch {
    /// Asks the node to end.
    pub(crate) fn ask_shutdown(&self) {
        self.shutdown.send_replace(true);
    }

    /// Why the node ends, as soon as that is known.
    pub(crate) async fn cause(&self) -> StopReason {
        wait_for_reason(self.cause.clone()).await
    }

    /// Why the node ended, after its last task was joined.
    pub(crate) async fn stopped(&self) -> StopReason {
        wait_for_reason(self.stopped.clone()).await
    }
}

async fn wait_for_reason(mut receiver: watch::Receiver<Option<StopReason>>) -> StopReason {
    match receiver.wait_for(Option::is_some).await {
        Ok(reason) => reason.clone().unwrap_or(StopReason::Shutdown),
        // The runtime itself was shut down and took the supervisor with it.
        Err(_) => StopReason::Shutdown,
    }
}

impl Supervisor {
    /// The signal that tasks with [`Ending::Signal`] watch.
    pub(crate) fn stop_signal(&self) -> StopSignal {
        StopSignal(self.stop.subscribe())
    }

    /// Starts tasks later.
    pub(crate) fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }

    /// Starts a task.
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        ending: Ending,
        task: impl Future<Output = Result<(), StopReason>> + Send + 'static,
    ) {
        let handle = self.tasks.spawn(task);
        self.running.push(Running {
            name,
            handle,
            ending,
        });
    }

    /// Waits for the first cause to end, then ends and joins everything.
    pub(crate) async fn run(mut self, transport: Arc<dyn Transport>) {
        let reason = self.first_cause().await;
        tracing::info!(%reason, "node stops");
        self.cause.send_replace(Some(reason.clone()));
        self.stop.send_replace(true);
        for task in &self.running {
            if task.ending == Ending::Abort {
                task.handle.abort();
            }
        }
        // What was asked for too late is dropped here, before the node counts as stopped.
        self.starting.close();
        while self.starting.try_recv().is_ok() {}
        self.tasks.spawn(async move {
            let closed = tokio::time::timeout(CLOSE_TIME_MAX, transport.close()).await;
            if closed.is_err() {
                tracing::warn!("the transport did not close in time");
            }
            Ok(())
        });
        while self.tasks.join_next().await.is_some() {}
        self.stopped.send_replace(Some(reason));
    }

    async fn first_cause(&mut self) -> StopReason {
        let mut asked = self.shutdown.clone();
        loop {
            // A task that ended before the shutdown was asked for is the first cause.
            tokio::select! {
                biased;
                ended = self.tasks.join_next_with_id() => {
                    let Some(ended) = ended else {
                        return StopReason::Shutdown;
                    };
                    if let Some(reason) = self.cause_of(ended) {
                        return reason;
                    }
                }
                Some((name, task)) = self.starting.recv() => {
                    self.spawn(name, Ending::Abort, task);
                }
                () = wait_for_true(&mut asked) => return StopReason::Shutdown,
            }
        }
    }

    fn cause_of(
        &mut self,
        ended: Result<(Id, Result<(), StopReason>), JoinError>,
    ) -> Option<StopReason> {
        match ended {
            Ok((_, Err(reason))) => Some(reason),
            // The driver ends by itself when the last handle is gone. Any other task that ends
            // without an error has done its work, or saw that the driver is gone; the driver's own
            // end is the cause.
            Ok((id, Ok(()))) => (self.forget(id) == DRIVER).then_some(StopReason::Shutdown),
            Err(error) => {
                let task = self.forget(error.id());
                let panic = error.try_into_panic().ok()?;
                Some(StopReason::Panicked {
                    task,
                    message: panic_message(panic.as_ref()),
                })
            }
        }
    }

    /// The name of a task that has ended.
    fn forget(&mut self, id: Id) -> &'static str {
        let found = self.running.iter().position(|task| task.handle.id() == id);
        found.map_or("unknown", |at| self.running.swap_remove(at).name)
    }
}

/// Waits for ever when nobody can set it any more: the end of the last handle ends the driver.
async fn wait_for_true(flag: &mut watch::Receiver<bool>) {
    if flag.wait_for(|value| *value).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "no message".to_owned()
    }
}
