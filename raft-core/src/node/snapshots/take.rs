//! Writes images of this node's own state, one at a time, while the node goes on. A disk that is
//! full or refuses costs this snapshot and nothing else: nobody was told of it, and the log keeps
//! what it would have stood for. A store that is not what it should be ends the node.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::error::{StateMachineError, StopReason, StorageError};
use crate::node::event::Event;
use crate::node::lifecycle::StopSignal;
use crate::node::metrics::{Metrics, microseconds};
use crate::node::room::StateRoom;
use crate::node::snapshots::shelf::Shelf;
use crate::snapshot::{SNAPSHOT_PART_BYTES_MAX, SnapshotDescriptor, SnapshotMeta};
use crate::state_machine::StateImage;

/// Images that wait to be written. The protocol asks for one at a time.
pub(crate) const IMAGES_QUEUED_MAX: usize = 1;

/// An image that is to be written.
pub(crate) struct OwnImage {
    /// What it stands for.
    pub(crate) meta: SnapshotMeta,
    /// The state.
    pub(crate) image: Box<dyn StateImage>,
}

/// What joins the task to the others.
pub(crate) struct TakeLinks {
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) images: mpsc::Receiver<OwnImage>,
    pub(crate) room: StateRoom,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: StopSignal,
}

/// See the file.
pub(crate) struct TakeTask {
    links: TakeLinks,
}

impl TakeTask {
    /// A task that waits for its first image.
    pub(crate) fn new(links: TakeLinks) -> Self {
        Self { links }
    }

    /// Runs until the node stops or something fails. A stop waits for the part that is being
    /// written.
    pub(crate) async fn run(mut self) -> Result<(), StopReason> {
        loop {
            let image = tokio::select! {
                biased;
                () = self.links.stop.wait() => return Ok(()),
                image = self.links.images.recv() => match image {
                    Some(image) => image,
                    None => return Ok(()),
                },
            };
            let taken = self.take(image).await?;
            // The driver is gone only when the node ends, which needs no news of this.
            let _ = self.links.events.send(Event::SnapshotTaken(taken)).await;
        }
    }

    async fn take(&self, image: OwnImage) -> Result<Option<SnapshotDescriptor>, StopReason> {
        let metrics = &self.links.metrics;
        let started = Instant::now();
        let last = image.meta.last;
        let taken = match self.write(image).await {
            Ok(taken) => taken,
            Err(WriteError::Disk(error)) if is_bearable(&error) => {
                tracing::warn!(%last, %error, "no snapshot this time");
                None
            }
            Err(WriteError::NoRoom) => {
                tracing::warn!(%last, "no snapshot this time: it takes the room of the state");
                None
            }
            Err(WriteError::Disk(error)) => return Err(StopReason::Storage(error)),
            Err(WriteError::Image(error)) => return Err(StopReason::StateMachine(error)),
        };
        match &taken {
            Some(descriptor) => {
                metrics.snapshots_taken.increment();
                let took = microseconds(started.elapsed());
                metrics.snapshot_longest_us.raise(took);
                tracing::info!(%descriptor, "snapshot taken");
            }
            None => metrics.snapshots_failed.increment(),
        }
        Ok(taken)
    }

    async fn write(&self, own: OwnImage) -> Result<Option<SnapshotDescriptor>, WriteError> {
        let OwnImage { meta, mut image } = own;
        let mut writer = self.links.shelf.create(meta.clone()).await?;
        let mut stop = self.links.stop.clone();
        loop {
            let part = tokio::select! {
                biased;
                () = stop.wait() => return Ok(None),
                part = image.next_part() => part?,
            };
            let Some(part) = part else {
                break;
            };
            let bytes = part.len();
            if bytes > SNAPSHOT_PART_BYTES_MAX {
                let what = format!(
                    "a part of {bytes} bytes is above the limit of {SNAPSHOT_PART_BYTES_MAX}"
                );
                return Err(WriteError::Image(StateMachineError(what)));
            }
            if self.links.room.forbids_snapshots() {
                return Err(WriteError::NoRoom);
            }
            writer.write(part).await?;
            self.links.metrics.snapshot_bytes_taken.add(bytes as u64);
            // Neither an image in memory nor a store in memory ever waits.
            tokio::task::yield_now().await;
        }
        // What is in memory goes before the sync, which may take long.
        drop(image);
        Ok(self.links.shelf.finish_own(writer, &meta).await?)
    }
}

enum WriteError {
    Disk(StorageError),
    Image(StateMachineError),
    NoRoom,
}

impl From<StorageError> for WriteError {
    fn from(error: StorageError) -> Self {
        Self::Disk(error)
    }
}

impl From<StateMachineError> for WriteError {
    fn from(error: StateMachineError) -> Self {
        Self::Image(error)
    }
}

/// Whether only this snapshot is lost. Its file is given up and the next one begins with a new
/// file, so nothing rests on what a failed call has left behind.
fn is_bearable(error: &StorageError) -> bool {
    matches!(
        error,
        StorageError::Full { .. } | StorageError::Io { .. } | StorageError::NoSnapshot(_)
    )
}
