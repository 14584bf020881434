//! The state machine as the apply task calls it: each call is measured, and what it gives is
//! checked, because the machine belongs to the user.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use crate::error::{StateMachineError, StopReason};
use crate::node::lifecycle::StopSignal;
use crate::node::metrics::{Metrics, microseconds};
use crate::node::snapshots::WatchedReader;
use crate::snapshot::SnapshotReader;
use crate::state_machine::{Command, StateImage, StateMachine};

/// See the file.
pub(crate) struct Machine {
    inner: Box<dyn StateMachine>,
    metrics: Arc<Metrics>,
}

impl Machine {
    /// A machine that is measured.
    pub(crate) fn new(inner: Box<dyn StateMachine>, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }

    /// One reply for each command.
    pub(crate) async fn apply(&mut self, commands: Vec<Command>) -> Result<Vec<Bytes>, StopReason> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let count = commands.len();
        let started = Instant::now();
        let applied = self.inner.apply(commands).await;
        let replies = applied.map_err(StopReason::StateMachine)?;
        let took = microseconds(started.elapsed());
        self.metrics.apply_longest_us.raise(took);
        self.metrics.apply_batches.increment();
        self.metrics.commands_applied.add(count as u64);
        if replies.len() != count {
            let what = format!("{} replies to {count} commands", replies.len());
            return Err(StopReason::StateMachine(StateMachineError(what)));
        }
        Ok(replies)
    }

    /// The answer to a question.
    pub(crate) async fn query(&mut self, query: Bytes) -> Result<Bytes, StopReason> {
        self.metrics.queries.increment();
        let answer = self.inner.query(query).await;
        answer.map_err(StopReason::StateMachine)
    }

    /// The state as it is.
    pub(crate) async fn image(&mut self) -> Result<Box<dyn StateImage>, StopReason> {
        self.inner
            .snapshot()
            .await
            .map_err(StopReason::StateMachine)
    }

    /// Replaces the state. A store that fails meanwhile is named as the cause. A node that stops
    /// does not wait for the rest of the snapshot: the state is gone anyway.
    pub(crate) async fn restore(
        &mut self,
        content: Box<dyn SnapshotReader>,
        stop: StopSignal,
    ) -> Result<(), StopReason> {
        let started = Instant::now();
        let (content, failure) = WatchedReader::new(content);
        let restored = self.inner.restore(Box::new(content.until(stop))).await;
        if let Some(error) = failure.take() {
            return Err(StopReason::Storage(error));
        }
        restored.map_err(StopReason::StateMachine)?;
        let took = microseconds(started.elapsed());
        self.metrics.restore_longest_us.raise(took);
        Ok(())
    }
}
