//! What has arrived at a node and was not taken yet: one bounded queue per lane.

use std::sync::atomic::{AtomicBool, Ordering};

use raft_core::Envelope;
use tokio::sync::{Mutex, Notify, mpsc};

/// Room in the two queues, in envelopes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InboxSize {
    pub(crate) control: usize,
    pub(crate) bulk: usize,
}

/// The side that puts in. A full lane makes only its own senders wait.
#[derive(Clone, Debug)]
pub(crate) struct InboxSender {
    control: mpsc::Sender<Envelope>,
    bulk: mpsc::Sender<Envelope>,
}

impl InboxSender {
    pub(crate) fn lane(&self, envelope: &Envelope) -> &mpsc::Sender<Envelope> {
        if envelope.message.is_bulk() {
            &self.bulk
        } else {
            &self.control
        }
    }
}

/// The side that takes out: control first.
#[derive(Debug)]
pub(crate) struct Inbox {
    lanes: Mutex<Lanes>,
    closed: AtomicBool,
    closing: Notify,
}

#[derive(Debug)]
struct Lanes {
    control: mpsc::Receiver<Envelope>,
    bulk: mpsc::Receiver<Envelope>,
}

impl Inbox {
    pub(crate) fn new(size: InboxSize) -> (InboxSender, Self) {
        let (control_sender, control) = mpsc::channel(size.control);
        let (bulk_sender, bulk) = mpsc::channel(size.bulk);
        let sender = InboxSender {
            control: control_sender,
            bulk: bulk_sender,
        };
        let inbox = Self {
            lanes: Mutex::new(Lanes { control, bulk }),
            closed: AtomicBool::new(false),
            closing: Notify::new(),
        };
        (sender, inbox)
    }

    /// The next envelope; `None` once closed. May be cancelled.
    pub(crate) async fn recv(&self) -> Option<Envelope> {
        let mut lanes = tokio::select! {
            biased;
            () = self.closed() => return None,
            lanes = self.lanes.lock() => lanes,
        };
        let Lanes { control, bulk } = &mut *lanes;
        tokio::select! {
            biased;
            () = self.closed() => None,
            envelope = control.recv() => envelope,
            envelope = bulk.recv() => envelope,
        }
    }

    /// Waits until the inbox is closed.
    pub(crate) async fn closed(&self) {
        // Registered before the flag is looked at, so that a close in between is not missed.
        let closing = self.closing.notified();
        if !self.is_closed() {
            closing.await;
        }
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.closing.notify_waiters();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}
