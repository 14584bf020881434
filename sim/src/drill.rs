//! Clusters that are broken on purpose, one for each way in which a run can fail: an alarm that
//! nobody ever heard may be disconnected. `sim --seed N --drill KIND` runs one.

use std::cell::Cell;

use async_trait::async_trait;
use bytes::Bytes;
use clap::ValueEnum;
use kv_service::state_machine::KvStateMachine;
use raft_core::{Command, LogId, SnapshotReader, StateImage, StateMachine, StateMachineError};

use crate::machine::Machine;
use crate::options::Options;
use crate::world::{MachineFactory, World};

/// Commands that a broken machine applies before it shows.
const SOUND_COMMANDS: u64 = 20;

/// Longest election deadlines that one message takes.
const DEADLINES_PER_MESSAGE: u64 = 20;

/// How a run is to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Drill {
    /// A state machine panics
    Crash,
    /// Replicas answer differently
    Safety,
    /// Every message takes longer than an election, so nobody ever leads
    Liveness,
}

impl Drill {
    /// What a seed draws, for three nodes, with one part that makes the run fail.
    #[must_use]
    pub fn world(self, mut options: Options) -> World {
        options.nodes = 3;
        let defect: Box<dyn Fn() -> Defect> = match self {
            Self::Crash => Box::new(|| Defect::Panics),
            Self::Safety => {
                let made = Cell::new(0_u64);
                Box::new(move || {
                    made.set(made.get() + 1);
                    Defect::Answers(made.get())
                })
            }
            Self::Liveness => {
                let late = options.election() * DEADLINES_PER_MESSAGE;
                options.network.delay_min = late;
                options.network.delay_max = late;
                return World::new(options);
            }
        };
        let machines: MachineFactory = Box::new(move || {
            Box::new(Broken {
                machine: KvStateMachine::new(),
                applied: 0,
                defect: defect(),
            })
        });
        World::with_machines(options, machines)
    }
}

/// What is wrong with a machine.
#[derive(Clone, Copy, Debug)]
enum Defect {
    Panics,
    /// It answers with this, and no two machines do so with the same.
    Answers(u64),
}

/// The key-value machine, until its defect shows.
#[derive(Clone, Debug)]
struct Broken {
    machine: KvStateMachine,
    applied: u64,
    defect: Defect,
}

#[async_trait]
impl StateMachine for Broken {
    async fn apply(&mut self, batch: Vec<Command>) -> Result<Vec<Bytes>, StateMachineError> {
        self.applied += batch.len() as u64;
        let mut replies = self.machine.apply(batch).await?;
        if self.applied > SOUND_COMMANDS {
            match self.defect {
                Defect::Panics => panic!("a drill: a state machine panics"),
                Defect::Answers(number) => replies.fill(Bytes::from(number.to_string())),
            }
        }
        Ok(replies)
    }

    async fn query(&mut self, query: Bytes) -> Result<Bytes, StateMachineError> {
        self.machine.query(query).await
    }

    async fn snapshot(&mut self) -> Result<Box<dyn StateImage>, StateMachineError> {
        self.machine.snapshot().await
    }

    async fn restore(&mut self, from: Box<dyn SnapshotReader>) -> Result<(), StateMachineError> {
        self.machine.restore(from).await
    }

    fn applied(&self) -> LogId {
        self.machine.applied()
    }
}

impl Machine for Broken {
    fn digest(&self) -> u64 {
        Machine::digest(&self.machine)
    }

    fn image(&self) -> Box<dyn Machine> {
        Box::new(self.clone())
    }
}
