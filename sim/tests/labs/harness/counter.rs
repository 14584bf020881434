//! The replicated counter of section 6: increments and decrements that answer with what the counter
//! is afterwards.

use async_trait::async_trait;
use bytes::Bytes;
use raft_core::{Command, LogId, SnapshotReader, StateImage, StateMachine, StateMachineError};
use sim::{Machine, MachineFactory};

use super::parts::{Parts, all_parts};

/// Adds one.
pub(crate) const INCREMENT: &[u8] = b"inc";

/// Takes one away.
pub(crate) const DECREMENT: &[u8] = b"dec";

/// The machine.
#[derive(Clone, Debug, Default)]
struct Counter {
    value: i64,
}

/// Makes counters that are zero.
pub(crate) fn counters() -> MachineFactory {
    Box::new(|| Box::<Counter>::default())
}

/// What a reply says.
pub(crate) fn value_of(reply: &[u8]) -> i64 {
    let bytes = reply
        .try_into()
        .expect("a counter answers with eight bytes");
    i64::from_be_bytes(bytes)
}

#[async_trait]
impl StateMachine for Counter {
    async fn apply(&mut self, batch: Vec<Command>) -> Result<Vec<Bytes>, StateMachineError> {
        let mut replies = Vec::with_capacity(batch.len());
        for command in batch {
            match &command.payload[..] {
                INCREMENT => self.value += 1,
                DECREMENT => self.value -= 1,
                other => return Err(StateMachineError(format!("{other:?} was never submitted"))),
            }
            replies.push(Bytes::copy_from_slice(&self.value.to_be_bytes()));
        }
        Ok(replies)
    }

    async fn query(&mut self, _query: Bytes) -> Result<Bytes, StateMachineError> {
        Ok(Bytes::copy_from_slice(&self.value.to_be_bytes()))
    }

    async fn snapshot(&mut self) -> Result<Box<dyn StateImage>, StateMachineError> {
        let value = Bytes::copy_from_slice(&self.value.to_be_bytes());
        Ok(Box::new(Parts::from_iter([value])))
    }

    async fn restore(&mut self, from: Box<dyn SnapshotReader>) -> Result<(), StateMachineError> {
        let parts = all_parts(from).await?;
        self.value = value_of(&parts.concat());
        Ok(())
    }

    fn applied(&self) -> LogId {
        LogId::ZERO
    }
}

impl Machine for Counter {
    /// The value itself.
    fn digest(&self) -> u64 {
        self.value.cast_unsigned()
    }

    fn image(&self) -> Box<dyn Machine> {
        Box::new(self.clone())
    }
}
