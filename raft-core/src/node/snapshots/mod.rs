//! Snapshots as files: `take` writes images of this node's own state, `send` sends snapshots to
//! followers that lag too far, `receive` takes one from a leader. What the three share is in
//! `shelf`; when a snapshot is taken, sent or installed is the protocol's business.

mod reader;
mod receive;
mod send;
mod shelf;
mod take;

pub(crate) use reader::WatchedReader;
pub(crate) use receive::{Identity, OFFERS_MAX, ReceiveLinks, ReceiveTask};
pub(crate) use send::{SendLinks, Senders};
pub(crate) use shelf::{InstallRoom, Shelf};
pub(crate) use take::{IMAGES_QUEUED_MAX, OwnImage, TakeLinks, TakeTask};
