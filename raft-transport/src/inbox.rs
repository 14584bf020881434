//! What has arrived at a node and was not taken yet: one bounded queue per lane, and one for
//! snapshots that are offered.

use std::sync::atomic::{AtomicBool, Ordering};

use raft_core::{Envelope, Incoming, IncomingSnapshot};
use tokio::sync::{Mutex, Notify, mpsc};

/// Snapshots that are offered and were not taken; above it they are refused. A node takes one at a
/// time.
pub(crate) const OFFERS_MAX: usize = 4;

/// What the sender of a snapshot hears when there are more.
pub(crate) const TOO_MANY_OFFERS: &str = "too many snapshots are offered at a time";

/// Room in the queues of messages, in envelopes.
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
    offers: mpsc::Sender<IncomingSnapshot>,
}

impl InboxSender {
    pub(crate) fn lane(&self, envelope: &Envelope) -> &mpsc::Sender<Envelope> {
        if envelope.message.is_bulk() {
            &self.bulk
        } else {
            &self.control
        }
    }

    pub(crate) fn offers(&self) -> &mpsc::Sender<IncomingSnapshot> {
        &self.offers
    }
}

/// The side that takes out: control first, entries last.
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
    offers: mpsc::Receiver<IncomingSnapshot>,
}

impl Inbox {
    pub(crate) fn new(size: InboxSize) -> (InboxSender, Self) {
        let (control_sender, control) = mpsc::channel(size.control);
        let (bulk_sender, bulk) = mpsc::channel(size.bulk);
        let (offers_sender, offers) = mpsc::channel(OFFERS_MAX);
        let sender = InboxSender {
            control: control_sender,
            bulk: bulk_sender,
            offers: offers_sender,
        };
        let lanes = Lanes {
            control,
            bulk,
            offers,
        };
        let inbox = Self {
            lanes: Mutex::new(lanes),
            closed: AtomicBool::new(false),
            closing: Notify::new(),
        };
        (sender, inbox)
    }

    /// What comes next; `None` once closed. May be cancelled.
    pub(crate) async fn recv(&self) -> Option<Incoming> {
        let mut lanes = tokio::select! {
            biased;
            () = self.closed() => return None,
            lanes = self.lanes.lock() => lanes,
        };
        let Lanes {
            control,
            bulk,
            offers,
        } = &mut *lanes;
        let next = tokio::select! {
            biased;
            () = self.closed() => None,
            envelope = control.recv() => envelope.map(Incoming::Message),
            offer = offers.recv() => offer.map(Incoming::Snapshot),
            envelope = bulk.recv() => envelope.map(Incoming::Message),
        };
        if next.is_none() {
            drop_offers(offers);
        }
        next
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
        // Who holds the lock is waiting in `recv`, and will find it closed.
        if let Ok(mut lanes) = self.lanes.try_lock() {
            drop_offers(&mut lanes.offers);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

/// Refuses what was not taken; an offer keeps its sender waiting.
fn drop_offers(offers: &mut mpsc::Receiver<IncomingSnapshot>) {
    offers.close();
    while offers.try_recv().is_ok() {}
}
