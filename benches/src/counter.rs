//! A state machine that costs nothing, so that a bench measures replication.

use async_trait::async_trait;
use bytes::Bytes;
use raft_core::{Command, LogId, SnapshotReader, StateImage, StateMachine, StateMachineError};

#[derive(Debug, Default)]
pub(crate) struct Counter(u64);

/// The counter at one moment, in one part.
struct Image(Option<u64>);

#[async_trait]
impl StateImage for Image {
    async fn next_part(&mut self) -> Result<Option<Bytes>, StateMachineError> {
        let part = self.0.take();
        Ok(part.map(|count| Bytes::copy_from_slice(&count.to_le_bytes())))
    }
}

#[async_trait]
impl StateMachine for Counter {
    async fn apply(&mut self, batch: Vec<Command>) -> Result<Vec<Bytes>, StateMachineError> {
        self.0 += batch.len() as u64;
        Ok(vec![Bytes::new(); batch.len()])
    }

    async fn query(&mut self, _query: Bytes) -> Result<Bytes, StateMachineError> {
        Ok(Bytes::copy_from_slice(&self.0.to_le_bytes()))
    }

    async fn snapshot(&mut self) -> Result<Box<dyn StateImage>, StateMachineError> {
        Ok(Box::new(Image(Some(self.0))))
    }

    async fn restore(
        &mut self,
        mut snapshot: Box<dyn SnapshotReader>,
    ) -> Result<(), StateMachineError> {
        let part = snapshot.next_part().await;
        let part = part.map_err(|error| StateMachineError(error.to_string()))?;
        let bytes = part.as_deref().and_then(|part| part.try_into().ok());
        let bytes = bytes.ok_or_else(|| StateMachineError("no counter".to_owned()))?;
        self.0 = u64::from_le_bytes(bytes);
        Ok(())
    }

    fn applied(&self) -> LogId {
        LogId::ZERO
    }
}
