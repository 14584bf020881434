//! The driver's end of a bounded queue to one executor. The driver may not wait, so what does not
//! fit stays here, in order, until the executor reports progress.
//!
//! The backlog is bounded by what the protocol lets be under way: bytes that are uncommitted, in
//! flight, or handed to the state machine.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// See the file.
#[derive(Debug)]
pub(crate) struct HandOff<T> {
    queue: mpsc::Sender<T>,
    backlog: VecDeque<T>,
}

impl<T> HandOff<T> {
    /// The sending end of `queue`.
    pub(crate) fn new(queue: mpsc::Sender<T>) -> Self {
        Self {
            queue,
            backlog: VecDeque::new(),
        }
    }

    /// Hands `item` over behind all earlier ones.
    pub(crate) fn push(&mut self, item: T) {
        if !self.backlog.is_empty() {
            self.backlog.push_back(item);
            return;
        }
        if let Some(item) = self.try_send(item) {
            self.backlog.push_back(item);
        }
    }

    /// Moves the backlog as far as there is room.
    pub(crate) fn flush(&mut self) {
        while let Some(item) = self.backlog.pop_front() {
            if let Some(item) = self.try_send(item) {
                self.backlog.push_front(item);
                return;
            }
        }
    }

    /// Items that did not fit.
    #[cfg(test)]
    fn backlog_len(&self) -> usize {
        self.backlog.len()
    }

    /// The item itself when there is no room. When the executor has ended the node is about to end
    /// too, and the item is dropped; a waiter in it learns that the node stopped.
    fn try_send(&self, item: T) -> Option<T> {
        match self.queue.try_send(item) {
            Ok(()) | Err(TrySendError::Closed(_)) => None,
            Err(TrySendError::Full(item)) => Some(item),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_waits_and_nothing_overtakes_it() {
        let (sender, mut receiver) = mpsc::channel(2);
        let mut handoff = HandOff::new(sender);
        for item in 0..5 {
            handoff.push(item);
        }
        assert_eq!(handoff.backlog_len(), 3);
        let mut received = vec![receiver.try_recv().unwrap()];
        handoff.push(5);
        handoff.flush();
        while let Ok(item) = receiver.try_recv() {
            received.push(item);
            handoff.flush();
        }
        assert_eq!(received, [0, 1, 2, 3, 4, 5]);
        assert_eq!(handoff.backlog_len(), 0);
    }

    #[test]
    fn an_executor_that_ended_is_no_error_here() {
        let (sender, receiver) = mpsc::channel(1);
        let mut handoff = HandOff::new(sender);
        drop(receiver);
        handoff.push(1);
        assert_eq!(handoff.backlog_len(), 0);
    }
}
