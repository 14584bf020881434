//! The state machine of the raft suites: it keeps every command that it was given, as the course's
//! applier does.

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft_core::{
    Command, Index, LogId, SnapshotReader, StateImage, StateMachine, StateMachineError, Term,
};
use sim::{Machine, MachineFactory};

use super::parts::{Parts, all_parts};

/// Commands in one part of a snapshot.
const COMMANDS_PER_PART: usize = 1_000;

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

impl Recorder {
    fn record(&mut self, command: Command) {
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
}

/// Commands as a part of a snapshot: term, index, length and payload of each.
fn written_down(commands: &[Command]) -> Bytes {
    let mut part = BytesMut::new();
    for Command { id, payload } in commands {
        part.put_u64(id.term.0);
        part.put_u64(id.index.0);
        part.put_u32(payload.len().try_into().expect("below 4 GiB"));
        part.put_slice(payload);
    }
    part.freeze()
}

/// The reverse of [`written_down`].
fn read_back(mut part: Bytes) -> Vec<Command> {
    let mut commands = Vec::new();
    while part.has_remaining() {
        let id = LogId::new(Term(part.get_u64()), Index(part.get_u64()));
        let length = part.get_u32();
        let payload = part.split_to(length as usize);
        commands.push(Command { id, payload });
    }
    commands
}

#[async_trait]
impl StateMachine for Recorder {
    async fn apply(&mut self, batch: Vec<Command>) -> Result<Vec<Bytes>, StateMachineError> {
        let replies = vec![Bytes::new(); batch.len()];
        for command in batch {
            self.record(command);
        }
        Ok(replies)
    }

    async fn query(&mut self, _query: Bytes) -> Result<Bytes, StateMachineError> {
        Ok(Bytes::copy_from_slice(&self.digest.to_be_bytes()))
    }

    async fn snapshot(&mut self) -> Result<Box<dyn StateImage>, StateMachineError> {
        let parts = self.commands.chunks(COMMANDS_PER_PART).map(written_down);
        Ok(Box::new(parts.collect::<Parts>()))
    }

    async fn restore(&mut self, from: Box<dyn SnapshotReader>) -> Result<(), StateMachineError> {
        let mut read = Self::default();
        for part in all_parts(from).await? {
            for command in read_back(part) {
                read.record(command);
            }
        }
        *self = read;
        Ok(())
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
