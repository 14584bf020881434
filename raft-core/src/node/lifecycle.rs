//! How a node ends: the first cause wins, every task is ended and joined, and only then the node
//! counts as stopped. Never a half-alive node.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use crate::error::StopReason;
use crate::transport::Transport;

/// How long a transport may take to close; then it is dropped as it is.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);

/// The task whose orderly end is the end of the node.
pub(crate) const DRIVER: &str = "driver";

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

/// Owns the tasks of a node.
#[derive(Debug)]
pub(crate) struct Supervisor {
    tasks: JoinSet<Result<(), StopReason>>,
    names: Vec<(Id, &'static str)>,
    aborts: Vec<AbortHandle>,
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
    let supervisor = Supervisor {
        tasks: JoinSet::new(),
        names: Vec::new(),
        aborts: Vec::new(),
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

    /// Starts a task.
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        ending: Ending,
        task: impl Future<Output = Result<(), StopReason>> + Send + 'static,
    ) {
        let handle = self.tasks.spawn(task);
        self.names.push((handle.id(), name));
        if ending == Ending::Abort {
            self.aborts.push(handle);
        }
    }

    /// Waits for the first cause to end, then ends and joins everything.
    pub(crate) async fn run(mut self, transport: Arc<dyn Transport>) {
        let reason = self.first_cause().await;
        tracing::info!(%reason, "node stops");
        self.cause.send_replace(Some(reason.clone()));
        self.stop.send_replace(true);
        for task in &self.aborts {
            task.abort();
        }
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
                () = wait_for_true(&mut asked) => return StopReason::Shutdown,
            }
        }
    }

    fn cause_of(
        &self,
        ended: Result<(Id, Result<(), StopReason>), JoinError>,
    ) -> Option<StopReason> {
        match ended {
            Ok((_, Err(reason))) => Some(reason),
            // The driver ends by itself when the last handle is gone. Any other task that ends
            // without an error saw that the driver is gone; the driver's own end is the cause.
            Ok((id, Ok(()))) => (self.name(id) == DRIVER).then_some(StopReason::Shutdown),
            Err(error) => {
                let task = self.name(error.id());
                let panic = error.try_into_panic().ok()?;
                Some(StopReason::Panicked {
                    task,
                    message: panic_message(panic.as_ref()),
                })
            }
        }
    }

    fn name(&self, id: Id) -> &'static str {
        let found = self.names.iter().find(|(known, _)| *known == id);
        found.map_or("unknown", |(_, name)| name)
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
