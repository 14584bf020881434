//! What a node wants done, while it is being collected: the effects, and the write that is still
//! open.

use crate::entry::Entry;
use crate::log_store::AppendBatch;
use crate::message::Envelope;
use crate::protocol::effects::{Effects, LogStart, Write};
use crate::types::{HardState, Index, LogId};

#[derive(Debug)]
pub(crate) struct Outbox {
    effects: Effects,
    log_start: Option<LogStart>,
    batch: AppendBatch,
    promises: Vec<Envelope>,
    /// The number that the open write will have.
    number: u64,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            effects: Effects::default(),
            log_start: None,
            batch: AppendBatch::default(),
            promises: Vec::new(),
            number: 1,
        }
    }

    /// Everything but the writes.
    pub(crate) fn effects(&mut self) -> &mut Effects {
        &mut self.effects
    }

    /// The number of the write that is being collected.
    pub(crate) fn open_write(&self) -> u64 {
        self.number
    }

    /// Ends the open write if there is anything in it. `last` is the log's end after it.
    pub(crate) fn close_write(&mut self, last: LogId) {
        if self.log_start.is_none() && self.batch.is_empty() && self.promises.is_empty() {
            return;
        }
        self.effects.writes.push(Write {
            number: self.number,
            log_start: self.log_start.take(),
            batch: std::mem::take(&mut self.batch),
            last,
            promises: std::mem::take(&mut self.promises),
        });
        self.number += 1;
    }

    pub(crate) fn write_hard_state(&mut self, hard_state: HardState) {
        self.batch.hard_state = Some(hard_state);
    }

    pub(crate) fn write_truncation(&mut self, from: Index) {
        assert!(self.batch.entries.is_empty(), "a truncation begins a write");
        self.batch.truncate_from = Some(from);
    }

    pub(crate) fn write_log_start(&mut self, log_start: LogStart) {
        let is_first = self.log_start.is_none() && self.batch.is_empty();
        assert!(is_first, "a new beginning of the log begins a write");
        self.log_start = Some(log_start);
    }

    pub(crate) fn write_entry(&mut self, entry: Entry) {
        self.batch.entries.push(entry);
    }

    /// A message that leaves after everything written so far is durable.
    pub(crate) fn promise(&mut self, envelope: Envelope) {
        self.promises.push(envelope);
    }

    pub(crate) fn send(&mut self, envelope: Envelope) {
        self.effects.send.push(envelope);
    }

    pub(crate) fn take(&mut self, last: LogId) -> Effects {
        self.close_write(last);
        std::mem::take(&mut self.effects)
    }
}
