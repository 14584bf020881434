//! Snapshots between nodes of one process: parts go through a bounded channel, answers come back
//! through another.

use std::pin::pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use raft_core::{
    Envelope, IncomingSnapshot, NodeId, SendError, SnapshotDescriptor, SnapshotReader,
    SnapshotStream,
};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::network::{Node, Shared, gone};
use crate::inbox::TOO_MANY_OFFERS;
use crate::transfer::{self, Answer, Pipe, Stage};

/// Parts that have been sent and were not taken.
const PARTS_MAX: usize = 2;

/// Answers that were given and were not taken: one to the offer, one at the end.
const ANSWERS_MAX: usize = 2;

/// What goes from the sender to the receiver.
enum Piece {
    Part(u64, Bytes),
    End,
}

/// The two nodes of a transfer, in the lives in which it began.
#[derive(Clone)]
pub(super) struct Ends {
    pub(super) shared: Arc<Shared>,
    pub(super) from: NodeId,
    pub(super) sender: Arc<Node>,
    pub(super) to: NodeId,
    pub(super) receiver: Arc<Node>,
}

impl Ends {
    /// Whether the transfer can go on: both nodes live, and nothing is cut in either direction.
    fn check(&self) -> Result<(), SendError> {
        for (id, node) in [(self.from, &self.sender), (self.to, &self.receiver)] {
            if node.inbox.is_closed() {
                return Err(gone(id));
            }
        }
        let state = self.shared.lock();
        state.check_open(self.from, self.to)?;
        state.check_open(self.to, self.from)
    }

    /// Waits for `step`, but not longer than the transfer can go on.
    async fn wait<T>(&self, step: impl Future<Output = T>) -> Result<T, SendError> {
        let mut changes = self.shared.changes();
        let mut step = pin!(step);
        loop {
            self.check()?;
            tokio::select! {
                biased;
                done = &mut step => return Ok(done),
                _ = changes.changed() => {}
            }
        }
    }
}

/// Offers a snapshot, and sends what is asked for. The transfer ends with the future.
pub(super) async fn send(
    ends: Ends,
    envelope: Envelope,
    content: Box<dyn SnapshotReader>,
) -> Result<(), SendError> {
    let descriptor = transfer::offered(&envelope, &*content)?.clone();
    let (parts, incoming) = mpsc::channel(PARTS_MAX);
    let (answers, heard) = mpsc::channel(ANSWERS_MAX);
    let (to, receiver) = (ends.to, Arc::clone(&ends.receiver));
    let stream = Box::new(MemorySnapshotStream {
        ends: ends.clone(),
        descriptor: descriptor.clone(),
        parts: incoming,
        answers,
        stage: Stage::Offered,
    });
    receiver.has_heard(ends.from);
    let offer = IncomingSnapshot { envelope, stream };
    match receiver.sender.offers().try_send(offer) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => {
            let why = TOO_MANY_OFFERS.to_owned();
            return Err(SendError::Refused { to, why });
        }
        Err(TrySendError::Closed(_)) => return Err(gone(to)),
    }
    let mut pipe = MemoryPipe { ends, parts, heard };
    transfer::send(&mut pipe, to, &descriptor, content).await
}

struct MemoryPipe {
    ends: Ends,
    parts: mpsc::Sender<Piece>,
    heard: mpsc::Receiver<Answer>,
}

impl MemoryPipe {
    /// The receiver's side of the transfer is gone, with its node or without.
    fn dropped(&self) -> SendError {
        self.ends.check().err().unwrap_or_else(|| {
            let why = "it dropped the snapshot without a word".to_owned();
            let to = self.ends.to;
            SendError::Refused { to, why }
        })
    }

    async fn push(&mut self, piece: Piece) -> Result<(), SendError> {
        let sent = self.ends.wait(self.parts.send(piece)).await?;
        if sent.is_ok() {
            return Ok(());
        }
        let to = self.ends.to;
        match self.heard.try_recv() {
            Ok(Answer::Refused(why)) => Err(SendError::Refused { to, why }),
            _ => Err(self.dropped()),
        }
    }
}

impl Pipe for MemoryPipe {
    async fn answer(&mut self) -> Result<Answer, SendError> {
        let answer = self.ends.wait(self.heard.recv()).await?;
        answer.ok_or_else(|| self.dropped())
    }

    fn early_answer(&mut self) -> Option<Answer> {
        self.heard.try_recv().ok()
    }

    async fn part(&mut self, number: u64, part: Bytes) -> Result<(), SendError> {
        let (shared, from, to) = (Arc::clone(&self.ends.shared), self.ends.from, self.ends.to);
        let delay = shared.lock().fate_of_part(from, to)?;
        if !delay.is_zero() {
            self.ends.wait(tokio::time::sleep(delay)).await?;
        }
        let bytes = part.len();
        self.push(Piece::Part(number, part)).await?;
        self.ends.wait(shared.snapshot_rate.pay(bytes)).await
    }

    async fn end(&mut self) -> Result<(), SendError> {
        self.push(Piece::End).await
    }

    async fn last_answer(&mut self) -> Result<Answer, SendError> {
        self.answer().await
    }
}

struct MemorySnapshotStream {
    ends: Ends,
    descriptor: SnapshotDescriptor,
    parts: mpsc::Receiver<Piece>,
    answers: mpsc::Sender<Answer>,
    stage: Stage,
}

impl MemorySnapshotStream {
    fn sender_gone(&self) -> SendError {
        let (to, why) = (self.ends.from, "it gave the snapshot up".to_owned());
        SendError::Unreachable { to, why }
    }

    fn say(&self, answer: Answer) -> Result<(), SendError> {
        self.ends.check()?;
        let said = self.answers.try_send(answer);
        said.map_err(|_closed| self.sender_gone())
    }
}

#[async_trait]
impl SnapshotStream for MemorySnapshotStream {
    async fn accept(&mut self, first_part: u64) -> Result<(), SendError> {
        self.stage.accept(&self.descriptor, first_part)?;
        self.say(Answer::From(first_part))
    }

    async fn next_part(&mut self) -> Result<Option<Bytes>, SendError> {
        let Some(order) = self.stage.order()? else {
            return Ok(None);
        };
        match self.ends.wait(self.parts.recv()).await? {
            Some(Piece::Part(number, part)) => {
                order.part(number, part.len())?;
                Ok(Some(part))
            }
            Some(Piece::End) => {
                order.end()?;
                self.stage = Stage::Ended;
                Ok(None)
            }
            None => Err(self.sender_gone()),
        }
    }

    async fn finish(self: Box<Self>, outcome: Result<(), String>) {
        let answer = match outcome {
            Ok(()) => Answer::Stored,
            Err(why) => Answer::Refused(why),
        };
        if let Err(error) = self.say(answer) {
            tracing::debug!(%error, "a snapshot's sender was not answered");
        }
    }
}
