//! A state machine that costs nothing, so that a bench measures replication.

use async_trait::async_trait;
use bytes::Bytes;
use raft_core::{Command, LogId, StateMachine, StateMachineError};

#[derive(Debug, Default)]
pub(crate) struct Counter(u64);

#[async_trait]
impl StateMachine for Counter {
    async fn apply(&mut self, batch: Vec<Command>) -> Result<Vec<Bytes>, StateMachineError> {
        self.0 += batch.len() as u64;
        Ok(vec![Bytes::new(); batch.len()])
    }

    async fn query(&mut self, _query: Bytes) -> Result<Bytes, StateMachineError> {
        Ok(Bytes::copy_from_slice(&self.0.to_le_bytes()))
    }

    fn applied(&self) -> LogId {
        LogId::ZERO
    }
}
