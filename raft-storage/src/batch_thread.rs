//! The thread that a durable store writes on: one change at a time, so that no sync ever holds up
//! an async worker. After a failure it refuses everything.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use raft_core::{AppendBatch, LogId, StorageError};
use tokio::sync::oneshot;

/// Why a store takes nothing any more. Set once, never taken back.
#[derive(Debug, Default)]
pub(crate) struct Poison(OnceLock<String>);

impl Poison {
    pub(crate) fn set(&self, why: String) {
        tracing::error!(why, "the log store failed and takes nothing any more");
        self.0.get_or_init(|| why);
    }

    pub(crate) fn check(&self) -> Result<(), StorageError> {
        match self.0.get() {
            Some(why) => Err(StorageError::Poisoned(why.clone())),
            None => Ok(()),
        }
    }
}

/// How a change ended.
pub(crate) type Outcome = Result<(), StorageError>;

/// What is to be made durable.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Append(AppendBatch),
    /// Entries up to this one go; the log holds it.
    Compact(LogId),
    /// All entries go.
    Reset(LogId),
}

/// One change, and where to say that it is durable.
#[derive(Debug)]
struct Job {
    change: Change,
    done: oneshot::Sender<Outcome>,
}

/// What the thread is for.
pub(crate) trait BatchWriter: Send + 'static {
    /// Makes a change durable.
    fn write(&mut self, change: &Change) -> Outcome;

    /// Called once after each change when no other came for a while, and before the thread ends.
    fn idle(&mut self) -> Outcome {
        Ok(())
    }

    /// How long a while is; `None` where `idle` need not be called.
    fn idle_after(&self) -> Option<Duration> {
        None
    }
}

/// The thread, as its store sees it. Dropping it waits for the change that is being written.
#[derive(Debug)]
pub(crate) struct BatchThread {
    poison: Arc<Poison>,
    /// Room for one change: the store hands out one at a time. `None` only while being dropped.
    jobs: Option<SyncSender<Job>>,
    /// The answer to a change that is not known to be done. Kept across a cancelled call, so that
    /// the next one learns how it ended.
    pending: Option<oneshot::Receiver<Outcome>>,
    thread: Option<JoinHandle<()>>,
}

impl BatchThread {
    /// Starts a thread that owns `writer`.
    pub(crate) fn start(
        name: &str,
        poison: Arc<Poison>,
        writer: impl BatchWriter,
    ) -> io::Result<Self> {
        let (jobs, queue) = sync_channel(1);
        let served = Arc::clone(&poison);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || serve(&queue, &served, writer))?;
        Ok(Self {
            poison,
            jobs: Some(jobs),
            pending: None,
            thread: Some(thread),
        })
    }

    /// Waits until nothing is being written.
    ///
    /// # Errors
    /// When the store has failed.
    pub(crate) async fn settle(&mut self) -> Outcome {
        if let Some(pending) = &mut self.pending {
            let outcome = pending.await;
            self.pending = None;
            outcome.unwrap_or_else(|_gone| {
                self.poison
                    .set("the thread that writes it ended".to_owned());
                Ok(())
            })?;
        }
        self.poison.check()
    }

    /// Makes a change durable.
    ///
    /// # Errors
    /// What the writer answered, or that the store has failed before.
    pub(crate) async fn write(&mut self, change: Change) -> Outcome {
        self.settle().await?;
        let (done, pending) = oneshot::channel();
        self.pending = Some(pending);
        if let Some(jobs) = &self.jobs {
            // There is room, because the last change is done. A thread that ended drops `done`.
            drop(jobs.try_send(Job { change, done }));
        }
        self.settle().await
    }
}

fn serve(queue: &Receiver<Job>, poison: &Poison, mut writer: impl BatchWriter) {
    let note = |outcome: &Outcome| {
        if let Err(error) = outcome {
            poison.set(error.to_string());
        }
    };
    let mut idle_is_due = true;
    loop {
        let next = match writer.idle_after().filter(|_| idle_is_due) {
            Some(pause) => queue.recv_timeout(pause),
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(job) => {
                let outcome = poison.check().and_then(|()| writer.write(&job.change));
                note(&outcome);
                // Whoever asked may have gone; the change counts all the same.
                drop(job.done.send(outcome));
                idle_is_due = true;
            }
            Err(ended) => {
                if std::mem::take(&mut idle_is_due) && writer.idle_after().is_some() {
                    note(&poison.check().and_then(|()| writer.idle()));
                }
                if ended == RecvTimeoutError::Disconnected {
                    return;
                }
            }
        }
    }
}

impl Drop for BatchThread {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // Had it panicked, whoever waited would know by now.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Closure<F>(F);

    impl<F: FnMut(&Change) -> Outcome + Send + 'static> BatchWriter for Closure<F> {
        fn write(&mut self, change: &Change) -> Outcome {
            self.0(change)
        }
    }

    const CHANGE: Change = Change::Reset(LogId::ZERO);

    fn start(write: impl FnMut(&Change) -> Outcome + Send + 'static) -> BatchThread {
        BatchThread::start("test", Arc::default(), Closure(write)).unwrap()
    }

    #[tokio::test]
    async fn a_failure_is_final() {
        let mut calls = 0;
        let mut thread = start(move |_| {
            calls += 1;
            match calls {
                2 => Err(StorageError::Poisoned("made to fail".to_owned())),
                _ => Ok(()),
            }
        });
        assert!(thread.write(CHANGE).await.is_ok());
        for _ in 0..3 {
            let refused = thread.write(CHANGE).await.unwrap_err();
            assert!(refused.to_string().contains("made to fail"), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_panic_of_the_thread_is_a_failure() {
        let mut thread = start(|_| panic!("made to panic"));
        for _ in 0..2 {
            let refused = thread.write(CHANGE).await.unwrap_err();
            assert!(refused.to_string().contains("ended"), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_cancelled_change_is_finished_before_the_next_one() {
        let (go, wait) = mpsc::channel::<()>();
        let (said, written) = mpsc::channel();
        let mut thread = start(move |change| {
            wait.recv().unwrap();
            said.send(format!("{change:?}")).unwrap();
            Ok(())
        });
        let change = |index: u64| Change::Compact(LogId::new(1.into(), index.into()));
        {
            let cancelled = thread.write(change(1));
            let mut cancelled = std::pin::pin!(cancelled);
            let poll = std::future::poll_fn(|context| {
                std::task::Poll::Ready(cancelled.as_mut().poll(context).is_pending())
            });
            assert!(poll.await);
        }
        go.send(()).unwrap();
        go.send(()).unwrap();
        thread.write(change(2)).await.unwrap();
        let order: Vec<_> = written.try_iter().collect();
        assert_eq!(order, [1, 2].map(|index| format!("{:?}", change(index))));
    }
}
