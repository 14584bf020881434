//! The thread that a durable store writes on, so that no sync ever holds up an async worker. The
//! changes that piled up while it worked, one of each group, become durable together. After a
//! failure it refuses everything.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use raft_core::{AppendBatch, GroupId, LogId, StorageError};
use tokio::sync::oneshot;

/// Changes that wait for the thread, at most. Each group has one under way, so this is also the
/// most groups that one thread serves.
pub(crate) const QUEUED_CHANGES_MAX: usize = 1024;

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
    group: GroupId,
    change: Change,
    done: Done,
}

type Done = oneshot::Sender<Outcome>;

/// The answer to a change that is under way.
pub(crate) type Pending = oneshot::Receiver<Outcome>;

/// What the thread is for.
pub(crate) trait BatchWriter: Send + 'static {
    /// Makes changes durable together: at least one, at most one of each group.
    fn write(&mut self, changes: &[(GroupId, Change)]) -> Outcome;

    /// After how long without a change `idle` is to be called. `None` where it need not be.
    fn idle_after(&self) -> Option<Duration> {
        None
    }

    /// Called when no change came for a while.
    fn idle(&mut self) -> Outcome {
        Ok(())
    }

    /// Called once, when no change will come any more.
    fn close(&mut self) -> Outcome {
        Ok(())
    }
}

/// The thread. Dropping it waits for what is being written.
#[derive(Debug)]
pub(crate) struct BatchThread {
    poison: Arc<Poison>,
    /// `None` only while being dropped.
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl BatchThread {
    /// Starts a thread that owns `writer`.
    pub(crate) fn start(
        name: &str,
        poison: Arc<Poison>,
        writer: impl BatchWriter,
    ) -> io::Result<Arc<Self>> {
        let (jobs, queue) = sync_channel(QUEUED_CHANGES_MAX);
        let served = Arc::clone(&poison);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || serve(&queue, &served, writer))?;
        Ok(Arc::new(Self {
            poison,
            jobs: Some(jobs),
            thread: Some(thread),
        }))
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

/// The thread as the store of one group sees it, which hands out one change at a time.
#[derive(Debug)]
pub(crate) struct BatchQueue {
    thread: Arc<BatchThread>,
    group: GroupId,
    /// The answer to a change that is not known to be done. Kept across a cancelled call, so that
    /// the next one learns how it ended.
    pending: Option<Pending>,
}

impl BatchQueue {
    /// There is one of each group at a time; `pending` is what the one before it left.
    pub(crate) fn new(thread: Arc<BatchThread>, group: GroupId, pending: Option<Pending>) -> Self {
        Self {
            thread,
            group,
            pending,
        }
    }

    /// What the next one of this group has to wait for.
    pub(crate) fn take_pending(&mut self) -> Option<Pending> {
        self.pending.take()
    }

    /// Waits until nothing of this group is being written.
    ///
    /// # Errors
    /// When the store has failed.
    pub(crate) async fn settle(&mut self) -> Outcome {
        if let Some(pending) = &mut self.pending {
            let outcome = pending.await;
            self.pending = None;
            outcome.unwrap_or_else(|_gone| {
                let poison = &self.thread.poison;
                poison.set("the thread that writes it ended".to_owned());
                Ok(())
            })?;
        }
        self.thread.poison.check()
    }

    /// Makes a change durable.
    ///
    /// # Errors
    /// What the writer answered, or that the store has failed before.
    pub(crate) async fn write(&mut self, change: Change) -> Outcome {
        self.settle().await?;
        let (done, pending) = oneshot::channel();
        self.pending = Some(pending);
        if let Some(jobs) = &self.thread.jobs {
            let group = self.group;
            // There is room, because the last change of each group is done. A thread that ended
            // drops `done`.
            drop(jobs.try_send(Job {
                group,
                change,
                done,
            }));
        }
        self.settle().await
    }
}

fn serve(queue: &Receiver<Job>, poison: &Poison, mut writer: impl BatchWriter) {
    let note = |outcome: Outcome| {
        if let Err(error) = &outcome {
            poison.set(error.to_string());
        }
        outcome
    };
    loop {
        let next = match writer.idle_after() {
            Some(pause) if poison.check().is_ok() => queue.recv_timeout(pause),
            _ => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(first) => {
                let (changes, done) = drain(first, queue);
                let outcome = note(poison.check().and_then(|()| writer.write(&changes)));
                for done in done {
                    // Whoever asked may have gone; the change counts all the same.
                    drop(done.send(outcome.clone()));
                }
            }
            Err(RecvTimeoutError::Timeout) => drop(note(writer.idle())),
            Err(RecvTimeoutError::Disconnected) => {
                drop(note(poison.check().and_then(|()| writer.close())));
                return;
            }
        }
    }
}

/// A change, and all that wait behind it.
fn drain(first: Job, queue: &Receiver<Job>) -> (Vec<(GroupId, Change)>, Vec<Done>) {
    std::iter::once(first)
        .chain(queue.try_iter().take(QUEUED_CHANGES_MAX - 1))
        .map(|job| ((job.group, job.change), job.done))
        .unzip()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Closure<F>(F);

    impl<F: FnMut(&Change) -> Outcome + Send + 'static> BatchWriter for Closure<F> {
        fn write(&mut self, changes: &[(GroupId, Change)]) -> Outcome {
            changes.iter().try_for_each(|(_, change)| self.0(change))
        }
    }

    const CHANGE: Change = Change::Reset(LogId::ZERO);

    fn start(write: impl FnMut(&Change) -> Outcome + Send + 'static) -> BatchQueue {
        let thread = BatchThread::start("test", Arc::default(), Closure(write)).unwrap();
        BatchQueue::new(thread, GroupId(0), None)
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
