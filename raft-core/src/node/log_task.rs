//! Owns the log store. Takes everything that is queued, makes it durable with one append, and only
//! then lets the promises in it leave: that order is the durability of the whole system, and it is in
//! one function below.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::entry::Entry;
use crate::error::StopReason;
use crate::log_store::{AppendBatch, LogReader, LogStore};
use crate::message::Envelope;
use crate::node::event::Event;
use crate::node::lifecycle::StopSignal;
use crate::node::metrics::{Metrics, microseconds};
use crate::node::peers::Peers;
use crate::protocol::{Persisted, Write};

/// Writes that may wait in the queue itself; more wait at the driver.
pub(crate) const LOG_QUEUE_WRITES_MAX: usize = 1024;

/// Encoded bytes of entries that are given to the store in one call. Beyond it a sync costs by its
/// bytes, and merging gains nothing more; a single larger write still goes alone.
const GROUP_BYTES_MAX: usize = 16 << 20;

/// The parts of the task.
pub(crate) struct LogTask {
    pub(crate) store: Box<dyn LogStore>,
    pub(crate) reader: Arc<dyn LogReader>,
    pub(crate) queue: mpsc::Receiver<Write>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: StopSignal,
}

impl LogTask {
    /// Runs until the node stops or the store fails. A stop waits for the append that is under way.
    pub(crate) async fn run(mut self) -> Result<(), StopReason> {
        let mut next = None;
        loop {
            let first = match next.take() {
                Some(write) if !self.stop.is_set() => write,
                Some(_) => return Ok(()),
                None => tokio::select! {
                    biased;
                    () = self.stop.wait() => return Ok(()),
                    write = self.queue.recv() => match write {
                        Some(write) => write,
                        None => return Ok(()),
                    },
                },
            };
            let group;
            (group, next) = collect(first, &mut self.queue);
            self.execute(group).await?;
        }
    }

    async fn execute(&mut self, group: Group) -> Result<(), StopReason> {
        if !group.batch.is_empty() {
            let entries = group.batch.entries.len() as u64;
            let started = Instant::now();
            let appended = self.store.append(group.batch).await;
            appended.map_err(StopReason::Storage)?;
            let took = microseconds(started.elapsed());
            self.metrics.append_longest_us.raise(took);
            self.metrics.appends.increment();
            self.metrics.entries_appended.add(entries);
            self.metrics.set_log_usage(self.reader.usage());
        }
        for promise in group.promises {
            self.peers.push(promise);
        }
        self.metrics.writes.add(group.writes);
        self.metrics.log_backlog_writes.subtract(group.writes);
        self.metrics.log_backlog_bytes.subtract(group.bytes as u64);
        // The driver is gone only when the node ends, which needs no news of this write.
        let _ = self.events.send(Event::Persisted(group.last)).await;
        Ok(())
    }
}

/// Encoded bytes of a write's entries: what the backlog is measured in.
pub(crate) fn write_bytes(write: &Write) -> usize {
    write.batch.entries.iter().map(Entry::encoded_len).sum()
}

/// Writes that become durable together.
#[derive(Debug)]
struct Group {
    batch: AppendBatch,
    promises: Vec<Envelope>,
    last: Persisted,
    writes: u64,
    bytes: usize,
}

/// Merges what is queued behind `first`; the write that begins the next group comes back too.
fn collect(first: Write, queue: &mut mpsc::Receiver<Write>) -> (Group, Option<Write>) {
    let mut group = Group::new(first);
    while let Ok(write) = queue.try_recv() {
        if !group.has_room_for(&write) {
            return (group, Some(write));
        }
        group.merge(write);
    }
    (group, None)
}

impl Group {
    fn new(write: Write) -> Self {
        Self {
            bytes: write_bytes(&write),
            last: persisted(&write),
            batch: write.batch,
            promises: write.promises,
            writes: 1,
        }
    }

    /// A hard state or a truncation begins a new group: a batch executes hard state, truncation,
    /// entries, which is the order of the writes only if the first write alone has the former two.
    fn has_room_for(&self, write: &Write) -> bool {
        write.batch.hard_state.is_none()
            && write.batch.truncate_from.is_none()
            && self.bytes + write_bytes(write) <= GROUP_BYTES_MAX
    }

    fn merge(&mut self, write: Write) {
        assert_eq!(
            write.number,
            self.last.number + 1,
            "writes come in the order of their numbers"
        );
        self.bytes += write_bytes(&write);
        self.last = persisted(&write);
        self.batch.entries.extend(write.batch.entries);
        self.promises.extend(write.promises);
        self.writes += 1;
    }
}

fn persisted(write: &Write) -> Persisted {
    Persisted {
        number: write.number,
        last: write.last,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::EntryKind;
    use crate::types::{HardState, Index, LogId, Term};
    use bytes::Bytes;

    fn write(number: u64, indexes: std::ops::Range<u64>) -> Write {
        let entry = |i| {
            let id = LogId::new(Term(1), Index(i));
            Entry::new(id, EntryKind::Command, Bytes::from_static(b"x"))
        };
        Write {
            number,
            last: LogId::new(Term(1), Index(indexes.end - 1)),
            batch: AppendBatch {
                entries: indexes.map(entry).collect(),
                ..AppendBatch::default()
            },
            promises: Vec::new(),
        }
    }

    fn groups(writes: Vec<Write>) -> Vec<Group> {
        let (sender, mut queue) = mpsc::channel(writes.len().max(1));
        for write in writes {
            sender.try_send(write).unwrap();
        }
        let mut groups = Vec::new();
        let mut next = queue.try_recv().ok();
        while let Some(first) = next {
            let (group, begun) = collect(first, &mut queue);
            groups.push(group);
            next = begun.or_else(|| queue.try_recv().ok());
        }
        groups
    }

    #[test]
    fn what_is_queued_becomes_one_append_and_only_the_last_write_is_reported() {
        let groups = groups(vec![write(1, 1..3), write(2, 3..3), write(3, 3..6)]);
        assert_eq!(groups.len(), 1);
        let entries = &groups[0].batch.entries;
        let indexes: Vec<u64> = entries.iter().map(|e| e.index().0).collect();
        assert_eq!(indexes, [1, 2, 3, 4, 5]);
        assert_eq!((groups[0].writes, groups[0].last.number), (3, 3));
        assert_eq!(groups[0].last.last, LogId::new(Term(1), Index(5)));
    }

    #[test]
    fn a_hard_state_or_a_truncation_begins_a_new_append() {
        let mut vote = write(2, 2..2);
        vote.batch.hard_state = Some(HardState::default());
        let mut cut = write(4, 2..3);
        cut.batch.truncate_from = Some(Index(2));
        let writes = vec![write(1, 1..2), vote, write(3, 2..4), cut, write(5, 3..4)];
        let groups = groups(writes);
        let writes: Vec<u64> = groups.iter().map(|group| group.writes).collect();
        assert_eq!(writes, [1, 2, 2]);
        assert!(groups[1].batch.hard_state.is_some());
        assert_eq!(groups[2].batch.truncate_from, Some(Index(2)));
    }

    #[test]
    fn a_group_ends_at_its_byte_limit() {
        let mut large = write(1, 1..2);
        let id = LogId::new(Term(1), Index(1));
        let payload = Bytes::from(vec![0; GROUP_BYTES_MAX]);
        large.batch.entries = vec![Entry::new(id, EntryKind::Command, payload)];
        let groups = groups(vec![large, write(2, 2..3), write(3, 3..4)]);
        let writes: Vec<u64> = groups.iter().map(|group| group.writes).collect();
        assert_eq!(writes, [1, 2]);
    }
}
