//! Reads old entries for followers that lag, beside the log task. At most one question per follower
//! waits; a newer one replaces it, because the older one is of a term or a place that nobody wants
//! any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, mpsc};

use crate::error::{StopReason, StorageError};
use crate::log_store::LogReader;
use crate::node::event::Event;
use crate::node::metrics::Metrics;
use crate::protocol::{Load, Loaded};
use crate::types::NodeId;

/// What is to be read, one entry per follower.
#[derive(Debug, Default)]
pub(crate) struct LoadQueue {
    wanted: Mutex<BTreeMap<NodeId, Load>>,
    filled: Notify,
}

impl LoadQueue {
    /// Asks for entries. Never waits.
    pub(crate) fn push(&self, load: Load) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        wanted.insert(load.peer, load);
        drop(wanted);
        self.filled.notify_one();
    }

    async fn pop(&self) -> Load {
        loop {
            let first = {
                let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
                wanted.pop_first()
            };
            match first {
                Some((_, load)) => return load,
                None => self.filled.notified().await,
            }
        }
    }
}

/// Answers questions until it is aborted or the log turns out to be damaged.
pub(crate) async fn run(
    queue: Arc<LoadQueue>,
    reader: Arc<dyn LogReader>,
    events: mpsc::Sender<Event>,
    metrics: Arc<Metrics>,
) -> Result<(), StopReason> {
    loop {
        let load = queue.pop().await;
        metrics.loads.increment();
        let range = load.from..load.to.next();
        let event = match reader.read(range, load.bytes_max).await {
            Ok(entries) => Event::Loaded(Loaded {
                peer: load.peer,
                term: load.term,
                entries: checked(load, entries)?,
            }),
            // Whether that is an error depends on who leads by now; the driver knows.
            Err(error @ StorageError::OutOfRange { .. }) => Event::NotLoaded { load, error },
            Err(error) => return Err(StopReason::Storage(error)),
        };
        if events.send(event).await.is_err() {
            return Ok(());
        }
    }
}

fn checked(load: Load, entries: Vec<crate::Entry>) -> Result<Vec<crate::Entry>, StopReason> {
    match entries.first() {
        Some(first) if first.index() == load.from => Ok(entries),
        other => Err(StopReason::Storage(StorageError::Damaged {
            path: "log reader".to_owned(),
            offset: load.from.0,
            what: match other {
                Some(entry) => format!("read of {} gave {}", load.from, entry.id()),
                None => format!("read of {} gave nothing", load.from),
            },
        })),
    }
}
