//! The state machine of the raft suites: it keeps every command that it was given, as the course's
//! applier does.

use async_trait::async_trait;
use bytes::Bytes;
use raft_core::{Command, LogId, SnapshotReader, StateImage, StateMachine, StateMachineError};
use sim::{Machine, MachineFactory};

/// All commands, in order.
#[derive(Clone, Debug, Default)]
struct Recorder {
    commands: Vec<Command>,
    digest: u64,
}

/// Makes empty recorders.
pub(crate) fn recorders() -> MachineFactory {
    Box::new(|| Box::<Recorder>::default())
}

#[async_trait]
impl StateMachine for Recorder {
    async fn apply(&mut self, batch: Vec<Command>) -> Result<Vec<Bytes>, StateMachineError> {
        let replies = vec![Bytes::new(); batch.len()];
        for command in batch {
            let newest = self.commands.last().map_or(LogId::ZERO, |last| last.id);
            assert!(
                command.id.index > newest.index && command.id.term >= newest.term,
                "{} comes after {newest}",
                command.id
            );
            for byte in command.payload.iter().take(16) {
                self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
            }
            self.commands.push(command);
        }
        Ok(replies)
    }

    async fn query(&mut self, _query: Bytes) -> Result<Bytes, StateMachineError> {
        Ok(Bytes::copy_from_slice(&self.digest.to_be_bytes()))
    }

    async fn snapshot(&mut self) -> Result<Box<dyn StateImage>, StateMachineError> {
        Err(StateMachineError("the simulator copies it".to_owned()))
    }

    async fn restore(&mut self, _: Box<dyn SnapshotReader>) -> Result<(), StateMachineError> {
        Err(StateMachineError("the simulator copies it".to_owned()))
    }

    fn applied(&self) -> LogId {
        LogId::ZERO
    }
}

impl Machine for Recorder {
    fn digest(&self) -> u64 {
        self.digest
    }

    fn image(&self) -> Box<dyn Machine> {
        Box::new(self.clone())
    }
}
