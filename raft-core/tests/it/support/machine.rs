//! A state machine that keeps every command, with faults that a test switches on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use raft_core::{
    Command, Index, LogId, RoomLeft, RoomWatch, SnapshotReader, StateImage, StateMachine,
    StateMachineError,
};

/// What a machine did, and the faults that a test switches on.
#[derive(Debug, Default)]
pub(crate) struct Deeds {
    /// All commands that are part of the state, however they came into it.
    pub(crate) commands: Vec<(Index, Bytes)>,
    /// The state is on a disk of its own, with the last command that is part of it.
    pub(crate) is_durable: bool,
    pub(crate) applied: LogId,
    pub(crate) apply_delay: Duration,
    pub(crate) images: u64,
    pub(crate) restores: u64,
    /// Before each part.
    pub(crate) image_delay: Duration,
    pub(crate) panic_images: bool,
    pub(crate) restore_delay: Duration,
    /// What the disk of the state has left; `None`: it needs none.
    pub(crate) room_left: Option<RoomLeft>,
    pub(crate) free_bytes: Option<u64>,
}

/// The disk of a state.
struct StateDisk(SharedDeeds);

impl RoomWatch for StateDisk {
    fn room_left(&self) -> RoomLeft {
        self.0.lock().unwrap().room_left.unwrap_or(RoomLeft::Enough)
    }

    fn has_room_for(&self, bytes: u64) -> bool {
        let deeds = self.0.lock().unwrap();
        bytes <= deeds.free_bytes.unwrap_or(u64::MAX)
    }
}

pub(crate) type SharedDeeds = Arc<Mutex<Deeds>>;

/// Replies to a command with how many it has applied, and to every query with the last command. The
/// commands `fail` and `panic` do what they say. Its image has one part for each command.
pub(crate) struct TestMachine {
    deeds: SharedDeeds,
    _token: Arc<()>,
}

impl TestMachine {
    pub(crate) fn new(deeds: SharedDeeds, token: Arc<()>) -> Self {
        Self {
            deeds,
            _token: token,
        }
    }
}

#[async_trait]
impl StateMachine for TestMachine {
    async fn apply(&mut self, batch: Vec<Command>) -> Result<Vec<Bytes>, StateMachineError> {
        let delay = self.deeds.lock().unwrap().apply_delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut replies = Vec::new();
        for command in batch {
            match &command.payload[..] {
                b"fail" => return Err(StateMachineError("told to fail".to_owned())),
                b"panic" => panic!("told to panic"),
                _ => {}
            }
            let mut deeds = self.deeds.lock().unwrap();
            deeds.applied = command.id;
            deeds.commands.push((command.index(), command.payload));
            replies.push(Bytes::from(deeds.commands.len().to_string()));
        }
        Ok(replies)
    }

    async fn query(&mut self, query: Bytes) -> Result<Bytes, StateMachineError> {
        if &query[..] == b"fail" {
            return Err(StateMachineError("told to fail".to_owned()));
        }
        let deeds = self.deeds.lock().unwrap();
        let last = deeds.commands.last();
        Ok(last.map(|(_, payload)| payload.clone()).unwrap_or_default())
    }

    async fn snapshot(&mut self) -> Result<Box<dyn StateImage>, StateMachineError> {
        let mut deeds = self.deeds.lock().unwrap();
        deeds.images += 1;
        Ok(Box::new(TestImage {
            deeds: Arc::clone(&self.deeds),
            commands: deeds.commands.clone(),
            next: 0,
        }))
    }

    async fn restore(
        &mut self,
        mut snapshot: Box<dyn SnapshotReader>,
    ) -> Result<(), StateMachineError> {
        let mut commands = Vec::new();
        let failed = |error: raft_core::StorageError| StateMachineError(error.to_string());
        while let Some(mut part) = snapshot.next_part().await.map_err(failed)? {
            let delay = self.deeds.lock().unwrap().restore_delay;
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            commands.push((Index(part.get_u64()), part));
        }
        let mut deeds = self.deeds.lock().unwrap();
        deeds.restores += 1;
        deeds.applied = snapshot.descriptor().meta.last;
        deeds.commands = commands;
        Ok(())
    }

    fn applied(&self) -> LogId {
        let deeds = self.deeds.lock().unwrap();
        if deeds.is_durable {
            deeds.applied
        } else {
            LogId::ZERO
        }
    }

    fn room(&self) -> Option<Arc<dyn RoomWatch>> {
        Some(Arc::new(StateDisk(Arc::clone(&self.deeds))))
    }
}

struct TestImage {
    deeds: SharedDeeds,
    commands: Vec<(Index, Bytes)>,
    next: usize,
}

#[async_trait]
impl StateImage for TestImage {
    async fn next_part(&mut self) -> Result<Option<Bytes>, StateMachineError> {
        let (delay, must_panic) = {
            let deeds = self.deeds.lock().unwrap();
            (deeds.image_delay, deeds.panic_images)
        };
        assert!(!must_panic, "the image panics");
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let Some((index, payload)) = self.commands.get(self.next) else {
            return Ok(None);
        };
        self.next += 1;
        let mut part = BytesMut::new();
        part.put_u64(index.0);
        part.put_slice(payload);
        Ok(Some(part.freeze()))
    }
}
