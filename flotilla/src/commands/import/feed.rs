//! What flows from the thread that reads to the task that puts, and the bounds on it. What counts
//! is what has been read and not yet been put, wherever it is at the moment.

use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Keys that have been read and not yet been put.
pub(super) const INFLIGHT_KEYS_MAX: usize = 256;

/// Bytes of keys and values that have been read and not yet been put. Room for many of the largest
/// values, so that one of them does not hold up everything.
pub(super) const INFLIGHT_BYTES_MAX: usize = 32 << 20;

/// Reports that wait to be looked at: one for each key on the way, and as many about skipped ones.
const REPORTS_MAX: usize = 2 * INFLIGHT_KEYS_MAX;

/// Something that the reader found.
pub(super) enum Fed {
    /// A key to put.
    Item(Item),
    /// Something that should have become a key and cannot.
    Skipped(Noted),
    /// Something that does not become a key: a symbolic link, a pipe, a device.
    LeftOut(Noted),
    /// How many bytes of the source have been read.
    Position(u64),
}

/// A key to put, and its share of the bounds.
pub(super) struct Item {
    /// The key.
    pub(super) key: Bytes,
    /// Its value.
    pub(super) value: Bytes,
    /// Given back when the item is dropped.
    _room: Room,
}

/// A name and what is to be said about it.
pub(super) struct Noted {
    /// The path, key or line, printable.
    pub(super) name: String,
    /// The reason.
    pub(super) why: String,
}

/// A share of the bounds.
pub(super) struct Room {
    _count: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

/// The receiving end was closed: nobody wants any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Closed;

/// The reader's end.
pub(super) struct Feeder {
    sender: mpsc::Sender<Fed>,
    count: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    runtime: Handle,
}

/// The end of the task that puts. Closes the bounds when it is dropped, so that the reader, which
/// may be waiting for room, learns of it.
pub(super) struct FedReceiver {
    receiver: mpsc::Receiver<Fed>,
    count: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// Makes the two ends. To be called in the runtime that the puts run in.
pub(super) fn feeding() -> (Feeder, FedReceiver) {
    let (sender, receiver) = mpsc::channel(REPORTS_MAX);
    let count = Arc::new(Semaphore::new(INFLIGHT_KEYS_MAX));
    let bytes = Arc::new(Semaphore::new(INFLIGHT_BYTES_MAX));
    let feeder = Feeder {
        sender,
        count: Arc::clone(&count),
        bytes: Arc::clone(&bytes),
        runtime: Handle::current(),
    };
    let receiver = FedReceiver {
        receiver,
        count,
        bytes,
    };
    (feeder, receiver)
}

impl Feeder {
    /// Waits until there is room for a key and value of this size in all. One that is larger than
    /// everything takes everything.
    pub(super) fn room(&self, bytes: usize) -> Result<Room, Closed> {
        let bytes = bytes.min(INFLIGHT_BYTES_MAX);
        let weight = u32::try_from(bytes).expect("the bound on bytes fits 32 bits");
        self.runtime.block_on(async {
            let count = Arc::clone(&self.count).acquire_owned().await;
            let bytes = Arc::clone(&self.bytes).acquire_many_owned(weight).await;
            match (count, bytes) {
                (Ok(_count), Ok(_bytes)) => Ok(Room { _count, _bytes }),
                _ => Err(Closed),
            }
        })
    }

    /// Hands a key on.
    pub(super) fn item(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        room: Room,
    ) -> Result<(), Closed> {
        let (key, value) = (key.into(), value.into());
        let _room = room;
        self.send(Fed::Item(Item { key, value, _room }))
    }

    /// Tells that something cannot become a key.
    pub(super) fn skipped(&self, name: String, why: impl ToString) -> Result<(), Closed> {
        let why = why.to_string();
        self.send(Fed::Skipped(Noted { name, why }))
    }

    /// Tells that something is not meant to become a key.
    pub(super) fn left_out(&self, name: String, why: impl ToString) -> Result<(), Closed> {
        let why = why.to_string();
        self.send(Fed::LeftOut(Noted { name, why }))
    }

    /// Tells how far the source has been read.
    pub(super) fn position(&self, bytes: u64) -> Result<(), Closed> {
        self.send(Fed::Position(bytes))
    }

    fn send(&self, fed: Fed) -> Result<(), Closed> {
        self.sender.blocking_send(fed).map_err(|_| Closed)
    }
}

impl FedReceiver {
    /// The next thing that was found; none when the source is at its end.
    pub(super) async fn next(&mut self) -> Option<Fed> {
        self.receiver.recv().await
    }
}

impl Drop for FedReceiver {
    fn drop(&mut self) {
        self.count.close();
        self.bytes.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reader_that_waits_for_room_learns_that_nobody_wants_more() {
        let (feeder, receiver) = feeding();
        let (full, is_full) = tokio::sync::oneshot::channel();
        let reader = tokio::task::spawn_blocking(move || {
            let _all = feeder.room(INFLIGHT_BYTES_MAX + 1).expect("there is room");
            full.send(()).expect("the test waits");
            feeder.room(1).err()
        });
        is_full.await.expect("sent");
        drop(receiver);
        assert_eq!(reader.await.expect("no panic"), Some(Closed));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn room_comes_back_when_an_item_is_dropped() {
        let (feeder, mut receiver) = feeding();
        let reader = tokio::task::spawn_blocking(move || {
            for _ in 0..4 * INFLIGHT_KEYS_MAX {
                let room = feeder.room(INFLIGHT_BYTES_MAX / 2)?;
                feeder.item("key", "value", room)?;
            }
            Ok::<_, Closed>(())
        });
        let mut items = 0;
        while let Some(fed) = receiver.next().await {
            assert!(matches!(fed, Fed::Item(_)));
            items += 1;
        }
        assert_eq!(items, 4 * INFLIGHT_KEYS_MAX);
        assert_eq!(reader.await.expect("no panic"), Ok(()));
    }
}
