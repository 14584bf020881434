//! Owns the state machine. Applies committed entries in log order, answers the waiter of each entry
//! itself, and answers queries as soon as enough is applied.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::entry::{Entry, EntryKind};
use crate::error::{ProposeError, StateMachineError, StopReason, StorageError};
use crate::log_store::LogReader;
use crate::node::event::Event;
use crate::node::lifecycle::StopSignal;
use crate::node::metrics::{Metrics, microseconds};
use crate::node::request::{Committed, ReadWaiter};
use crate::node::waiters::PlacedWaiter;
use crate::protocol::Apply;
use crate::state_machine::{Command, StateMachine};
use crate::types::Index;

/// Items that may wait in the queue itself; more wait at the driver.
pub(crate) const APPLY_QUEUE_ITEMS_MAX: usize = 1024;

/// Encoded bytes of entries that are applied with one call, and that are read from the log at once. A
/// single larger entry still goes alone. Small enough that queries do not wait long.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// Stale queries that are answered between two pages.
const STALE_QUERIES_PER_PAGE_MAX: usize = 64;

/// What the driver hands over, in the order in which it became true.
#[derive(Debug)]
pub(crate) enum ApplyItem {
    /// Committed entries, and those who wait for some of them, in log order.
    Apply {
        /// The entries.
        range: Apply,
        /// Who waits.
        waiters: Vec<PlacedWaiter>,
    },
    /// Reads that may be answered once `index` is applied.
    Reads {
        /// See above.
        index: Index,
        /// Who waits.
        readers: Vec<ReadWaiter>,
    },
}

/// The parts of the task, and where it stands.
pub(crate) struct ApplyTask {
    machine: Box<dyn StateMachine>,
    reader: Arc<dyn LogReader>,
    links: ApplyLinks,
    /// The last entry applied.
    applied: Index,
    /// Entries behind `applied` that are not applied yet.
    page: Vec<Entry>,
    page_bytes: usize,
    waiters: VecDeque<PlacedWaiter>,
    reads: BTreeMap<Index, Vec<ReadWaiter>>,
}

/// What joins the apply task to the others.
pub(crate) struct ApplyLinks {
    pub(crate) queue: mpsc::Receiver<ApplyItem>,
    /// Queries that do not wait for anything, straight from the handles.
    pub(crate) stale: mpsc::Receiver<ReadWaiter>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: StopSignal,
}

impl ApplyTask {
    /// A task for a machine that starts with what it says it has applied.
    pub(crate) fn new(
        machine: Box<dyn StateMachine>,
        reader: Arc<dyn LogReader>,
        links: ApplyLinks,
    ) -> Self {
        Self {
            applied: machine.applied().index,
            machine,
            reader,
            links,
            page: Vec::new(),
            page_bytes: 0,
            waiters: VecDeque::new(),
            reads: BTreeMap::new(),
        }
    }

    /// Runs until the node stops or the machine fails. A stop waits for the call that is under way.
    pub(crate) async fn run(mut self) -> Result<(), StopReason> {
        loop {
            tokio::select! {
                biased;
                () = self.links.stop.wait() => return Ok(()),
                item = self.links.queue.recv() => match item {
                    Some(item) => self.take_all(item).await?,
                    None => return Ok(()),
                },
                Some(query) = self.links.stale.recv() => self.answer(query).await?,
            }
            self.answer_stale().await?;
        }
    }

    /// Takes in everything that is queued, a page at a time: a slow machine gets larger batches.
    async fn take_all(&mut self, first: ApplyItem) -> Result<(), StopReason> {
        let mut next = Some(first);
        while let Some(item) = next.take() {
            match item {
                ApplyItem::Apply { range, waiters } => self.take_range(range, waiters).await?,
                ApplyItem::Reads { index, readers } => {
                    self.reads.entry(index).or_default().extend(readers);
                }
            }
            if self.is_stopping() {
                return Ok(());
            }
            next = self.links.queue.try_recv().ok();
        }
        self.apply_page().await?;
        self.answer_reads().await
    }

    async fn take_range(
        &mut self,
        range: Apply,
        waiters: Vec<PlacedWaiter>,
    ) -> Result<(), StopReason> {
        let Apply { from, to, entries } = range;
        assert_eq!(
            from,
            self.taken().next(),
            "the ranges to apply have no gap and no overlap"
        );
        self.waiters.extend(waiters);
        let in_memory = entries.first().map_or(to.next(), Entry::index);
        while self.taken().next() < in_memory {
            let start = self.taken().next();
            let read = self.reader.read(start..in_memory, PAGE_BYTES_MAX).await;
            let cold = read.map_err(StopReason::Storage)?;
            for entry in check_read(start, in_memory, cold)? {
                self.push(entry).await?;
            }
            if self.is_stopping() {
                return Ok(());
            }
        }
        for entry in entries {
            self.push(entry).await?;
        }
        assert_eq!(self.taken(), to, "the entries to apply reach their end");
        Ok(())
    }

    /// The last entry that is applied or in the page.
    fn taken(&self) -> Index {
        self.page.last().map_or(self.applied, Entry::index)
    }

    async fn push(&mut self, entry: Entry) -> Result<(), StopReason> {
        assert_eq!(
            entry.index(),
            self.taken().next(),
            "entries are applied one after the other"
        );
        self.page_bytes += entry.encoded_len();
        self.page.push(entry);
        if self.page_bytes >= PAGE_BYTES_MAX {
            self.apply_page().await?;
            self.answer_reads().await?;
            self.answer_stale().await?;
        }
        Ok(())
    }

    async fn apply_page(&mut self) -> Result<(), StopReason> {
        let page = std::mem::take(&mut self.page);
        self.page_bytes = 0;
        let Some(last) = page.last().map(Entry::index) else {
            return Ok(());
        };
        let commands: Vec<Command> = page.iter().filter_map(command).collect();
        let replies = self.apply_commands(commands).await?;
        self.applied = last;
        self.answer_waiters(&page, replies);
        // The driver is gone only when the node ends, which needs no news of this page.
        let _ = self.links.events.send(Event::Applied(last)).await;
        Ok(())
    }

    async fn apply_commands(&mut self, commands: Vec<Command>) -> Result<Vec<Bytes>, StopReason> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let count = commands.len();
        let started = Instant::now();
        let applied = self.machine.apply(commands).await;
        let replies = applied.map_err(StopReason::StateMachine)?;
        let metrics = &self.links.metrics;
        metrics
            .apply_longest_us
            .raise(microseconds(started.elapsed()));
        metrics.apply_batches.increment();
        metrics.commands_applied.add(count as u64);
        if replies.len() != count {
            let what = format!("{} replies to {count} commands", replies.len());
            return Err(StopReason::StateMachine(StateMachineError(what)));
        }
        Ok(replies)
    }

    fn answer_waiters(&mut self, page: &[Entry], replies: Vec<Bytes>) {
        let mut replies = replies.into_iter();
        for entry in page {
            let reply = match entry.kind() {
                EntryKind::Command => replies.next(),
                EntryKind::Noop => None,
            };
            let waits = |(id, _): &mut PlacedWaiter| id.index <= entry.index();
            while let Some((id, waiter)) = self.waiters.pop_front_if(waits) {
                waiter.answer(match &reply {
                    Some(reply) if id == entry.id() => Ok(Committed {
                        id,
                        reply: reply.clone(),
                    }),
                    // Another leader put another entry here.
                    _ => Err(ProposeError::Unknown),
                });
            }
        }
    }

    async fn answer_reads(&mut self) -> Result<(), StopReason> {
        while let Some(ready) = self.reads.first_entry()
            && *ready.key() <= self.applied
        {
            for query in ready.remove() {
                self.answer(query).await?;
            }
        }
        Ok(())
    }

    async fn answer_stale(&mut self) -> Result<(), StopReason> {
        for _ in 0..STALE_QUERIES_PER_PAGE_MAX {
            match self.links.stale.try_recv() {
                Ok(query) => self.answer(query).await?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    async fn answer(&mut self, query: ReadWaiter) -> Result<(), StopReason> {
        if query.is_abandoned() {
            return Ok(());
        }
        self.links.metrics.queries.increment();
        let answer = self.machine.query(query.query.clone()).await;
        let answer = answer.map_err(StopReason::StateMachine)?;
        query.answer(Ok(answer));
        Ok(())
    }

    fn is_stopping(&self) -> bool {
        self.links.stop.is_set()
    }
}

fn command(entry: &Entry) -> Option<Command> {
    match entry.kind() {
        EntryKind::Command => Some(Command {
            id: entry.id(),
            payload: entry.payload().clone(),
        }),
        EntryKind::Noop => None,
    }
}

/// A reader belongs to the user, so what it gives is checked and not trusted.
fn check_read(start: Index, end: Index, entries: Vec<Entry>) -> Result<Vec<Entry>, StopReason> {
    let mut expected = start;
    for entry in &entries {
        if entry.index() != expected || expected >= end {
            return Err(bad_read(expected, &format!("gave {}", entry.id())));
        }
        expected = expected.next();
    }
    if expected == start {
        return Err(bad_read(start, "gave nothing"));
    }
    Ok(entries)
}

fn bad_read(index: Index, what: &str) -> StopReason {
    StopReason::Storage(StorageError::Damaged {
        path: "log reader".to_owned(),
        offset: index.0,
        what: format!("read of entry {index} {what}"),
    })
}
