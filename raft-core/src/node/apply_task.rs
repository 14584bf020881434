//! Works off, in the order in which it became true, what concerns the state machine: applies
//! committed entries and answers the waiter of each entry itself, answers queries as soon as enough
//! is applied, takes images, and restores snapshots.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::entry::Entry;
use crate::error::{ProposeError, StopReason, StorageError};
use crate::log_store::LogReader;
use crate::node::event::Event;
use crate::node::lifecycle::StopSignal;
use crate::node::machine::Machine;
use crate::node::metrics::Metrics;
use crate::node::page::{PAGE_BYTES_MAX, Page, check_read};
use crate::node::request::{HeldImage, ReadWaiter, StateImageAt};
use crate::node::room::StateRoom;
use crate::node::snapshots::{OwnImage, Shelf};
use crate::node::waiters::PlacedWaiter;
use crate::protocol::Apply;
use crate::snapshot::SnapshotMeta;
use crate::types::Index;

/// Items that may wait in the queue itself; more wait at the driver.
pub(crate) const APPLY_QUEUE_ITEMS_MAX: usize = 1024;

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
    /// Replace the state by that of this snapshot, which is on the disk.
    Restore(SnapshotMeta),
    /// Take an image of the state, which is just that of `last`, and let it be written.
    TakeSnapshot(SnapshotMeta),
}

/// The parts of the task, and where it stands.
pub(crate) struct ApplyTask {
    machine: Machine,
    reader: Arc<dyn LogReader>,
    shelf: Arc<Shelf>,
    links: ApplyLinks,
    /// The last entry applied, and the membership as of it.
    applied: SnapshotMeta,
    /// What the machine had applied when the node started. Behind that it is given nothing: its log
    /// may have lost entries that it kept.
    kept: Index,
    /// What was to be applied is gone, because a snapshot replaces the log. Nothing is applied
    /// until that is restored.
    is_void: bool,
    /// Entries behind `applied` that are not applied yet.
    page: Page,
    waiters: VecDeque<PlacedWaiter>,
    reads: BTreeMap<Index, Vec<ReadWaiter>>,
}

/// What joins the apply task to the others.
pub(crate) struct ApplyLinks {
    pub(crate) queue: mpsc::Receiver<ApplyItem>,
    /// Queries that do not wait for anything, straight from the handles.
    pub(crate) stale: mpsc::Receiver<ReadWaiter>,
    /// To the writer of own images.
    pub(crate) images: mpsc::Sender<OwnImage>,
    pub(crate) room: StateRoom,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: StopSignal,
}

impl ApplyTask {
    /// A task for a machine whose state is that of `applied`, or of a later entry, which is `kept`
    /// then.
    pub(crate) fn new(
        machine: Machine,
        (applied, kept): (SnapshotMeta, Index),
        reader: Arc<dyn LogReader>,
        shelf: Arc<Shelf>,
        links: ApplyLinks,
    ) -> Self {
        Self {
            applied,
            kept,
            machine,
            reader,
            shelf,
            links,
            is_void: false,
            page: Page::default(),
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
                ApplyItem::Restore(meta) => self.restore(meta).await?,
                ApplyItem::TakeSnapshot(meta) => self.take_snapshot(meta).await?,
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
        self.waiters.extend(waiters);
        if self.is_void {
            return Ok(());
        }
        assert_eq!(
            from,
            self.taken().next(),
            "the ranges to apply have no gap and no overlap"
        );
        let in_memory = entries.first().map_or(to.next(), Entry::index);
        while self.taken().next() < in_memory {
            let start = self.taken().next();
            let cold = match self.reader.read(start..in_memory, PAGE_BYTES_MAX).await {
                Ok(cold) => cold,
                Err(StorageError::OutOfRange { .. }) if self.shelf.is_replaced(start) => {
                    self.is_void = true;
                    return Ok(());
                }
                Err(error) => return Err(StopReason::Storage(error)),
            };
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
        self.page.last().unwrap_or(self.applied.last).index
    }

    async fn push(&mut self, entry: Entry) -> Result<(), StopReason> {
        assert_eq!(
            entry.index(),
            self.taken().next(),
            "entries are applied one after the other"
        );
        if self.page.push(entry) {
            self.apply_page().await?;
            self.answer_reads().await?;
            self.answer_stale().await?;
        }
        Ok(())
    }

    async fn apply_page(&mut self) -> Result<(), StopReason> {
        let page = std::mem::take(&mut self.page);
        let Some(last) = page.last() else {
            return Ok(());
        };
        let replies = self.machine.apply(page.commands_behind(self.kept)).await?;
        self.applied.last = last;
        if let Some(membership) = page.membership()? {
            self.applied.membership = membership;
        }
        page.answer(self.kept, replies, &mut self.waiters);
        self.report_applied().await;
        Ok(())
    }

    async fn report_applied(&mut self) {
        let index = self.applied.last.index;
        // The driver is gone only when the node ends, which needs no news of this.
        let _ = self.links.events.send(Event::Applied(index)).await;
    }

    /// What was handed over before is applied first: it is committed, and its waiters get their
    /// answers.
    async fn restore(&mut self, meta: SnapshotMeta) -> Result<(), StopReason> {
        self.apply_page().await?;
        assert!(
            meta.last.index >= self.applied.last.index,
            "a snapshot never takes the state back"
        );
        if meta.last.index > self.kept {
            let content = self.shelf.open(meta.last).await;
            let content = content.map_err(StopReason::Storage)?;
            tracing::info!(last = %meta.last, "the state is restored from a snapshot");
            let stop = self.links.stop.clone();
            self.machine.restore(content, stop).await?;
            self.links.metrics.snapshots_installed.increment();
        }
        let waits = |(id, _): &mut PlacedWaiter| id.index <= meta.last.index;
        while let Some((_, waiter)) = self.waiters.pop_front_if(waits) {
            // Whether its entry is part of the snapshot, and what the reply was, nobody can say.
            waiter.answer(Err(ProposeError::Unknown));
        }
        self.applied = meta;
        self.is_void = false;
        self.report_applied().await;
        self.answer_reads().await
    }

    async fn take_snapshot(&mut self, meta: SnapshotMeta) -> Result<(), StopReason> {
        self.apply_page().await?;
        self.answer_reads().await?;
        if self.is_void {
            let _ = self.links.events.send(Event::SnapshotTaken(None)).await;
            return Ok(());
        }
        assert_eq!(
            meta.last, self.applied.last,
            "a snapshot stands for just what is applied"
        );
        // It stands beside the last one until it is whole, and will be about as large.
        let bytes = self.shelf.latest_bytes();
        if self.links.room.forbids_snapshots() || !self.links.room.takes(bytes) {
            tracing::warn!(last = %meta.last, "no snapshot this time: the disk has no room for it");
            self.links.metrics.snapshots_failed.increment();
            let _ = self.links.events.send(Event::SnapshotTaken(None)).await;
            return Ok(());
        }
        let image = self.machine.image().await?;
        let sent = self.links.images.try_send(OwnImage { meta, image });
        assert!(
            sent.is_ok() || self.links.images.is_closed(),
            "one own snapshot at a time"
        );
        Ok(())
    }

    async fn answer_reads(&mut self) -> Result<(), StopReason> {
        while let Some(ready) = self.reads.first_entry()
            && *ready.key() <= self.applied.last.index
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

    async fn answer(&mut self, reader: ReadWaiter) -> Result<(), StopReason> {
        if reader.is_abandoned() {
            return Ok(());
        }
        match reader {
            ReadWaiter::Query { query, waiter } => {
                let answer = self.machine.query(query).await?;
                waiter.answer(Ok(answer));
            }
            ReadWaiter::Image { waiter, room } => {
                let image = self.machine.image().await?;
                waiter.answer(Ok(StateImageAt {
                    meta: self.applied.clone(),
                    image: Box::new(HeldImage::new(image, room)),
                }));
            }
        }
        Ok(())
    }

    fn is_stopping(&self) -> bool {
        self.links.stop.is_set()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::EntryKind;
    use crate::error::StateMachineError;
    use crate::log_store::LogUsage;
    use crate::node::budget::Budget;
    use crate::node::lifecycle;
    use crate::node::request::{Committed, ProposeWaiter, Waiter};
    use crate::state_machine::{Command, StateMachine};
    use crate::types::{LogId, Term};
    use async_trait::async_trait;
    use bytes::Bytes;
    use std::ops::Range;
    use std::sync::Mutex;
    use tokio::sync::oneshot;

    type Answer = oneshot::Receiver<Result<Committed, ProposeError>>;

    fn entry(term: u64, index: u64, payload_bytes: usize) -> Entry {
        let id = LogId::new(Term(term), Index(index));
        let payload = Bytes::from(vec![b'x'; payload_bytes]);
        Entry::new(id, EntryKind::Command, payload)
    }

    /// A log in memory; `shift` makes it give the wrong entries.
    struct Log {
        entries: Vec<Entry>,
        shift: usize,
        reads: Mutex<usize>,
    }

    #[async_trait]
    impl LogReader for Log {
        async fn read(
            &self,
            range: Range<Index>,
            bytes_max: usize,
        ) -> Result<Vec<Entry>, StorageError> {
            *self.reads.lock().unwrap() += 1;
            let first = usize::try_from(range.start.0 - 1).unwrap() + self.shift;
            let end = usize::try_from(range.end.0 - 1).unwrap() + self.shift;
            let mut bytes = 0;
            let fits = |entry: &&Entry| {
                let is_first = bytes == 0;
                bytes += entry.encoded_len();
                is_first || bytes <= bytes_max
            };
            Ok(self.entries[first..end.min(self.entries.len())]
                .iter()
                .take_while(fits)
                .cloned()
                .collect())
        }

        fn usage(&self) -> LogUsage {
            LogUsage::default()
        }
    }

    /// Replies with the index of each command and keeps the sizes of its batches.
    #[derive(Clone, Default)]
    struct TestMachine {
        batches: Arc<Mutex<Vec<usize>>>,
        forgets_a_reply: bool,
    }

    #[async_trait]
    impl StateMachine for TestMachine {
        async fn apply(&mut self, batch: Vec<Command>) -> Result<Vec<Bytes>, StateMachineError> {
            self.batches.lock().unwrap().push(batch.len());
            let skipped = usize::from(self.forgets_a_reply);
            let reply = |command: &Command| Bytes::from(command.index().to_string());
            Ok(batch.iter().skip(skipped).map(reply).collect())
        }

        async fn query(&mut self, query: Bytes) -> Result<Bytes, StateMachineError> {
            Ok(query)
        }

        async fn snapshot(
            &mut self,
        ) -> Result<Box<dyn crate::state_machine::StateImage>, StateMachineError> {
            unreachable!("nobody asks for one")
        }

        async fn restore(
            &mut self,
            _: Box<dyn crate::snapshot::SnapshotReader>,
        ) -> Result<(), StateMachineError> {
            unreachable!("there is none")
        }

        fn applied(&self) -> LogId {
            LogId::ZERO
        }
    }

    struct Bench {
        items: mpsc::Sender<ApplyItem>,
        events: mpsc::Receiver<Event>,
        task: tokio::task::JoinHandle<Result<(), StopReason>>,
        reader: Arc<Log>,
        _stale: mpsc::Sender<ReadWaiter>,
        _images: mpsc::Receiver<OwnImage>,
        _supervisor: lifecycle::Supervisor,
    }

    fn bench(machine: TestMachine, log: Vec<Entry>, shift: usize) -> Bench {
        let (supervisor, _life) = lifecycle::new();
        let (items, queue) = mpsc::channel(100);
        let (_stale, stale) = mpsc::channel(10);
        let (sender, events) = mpsc::channel(100);
        let reader = Arc::new(Log {
            entries: log,
            shift,
            reads: Mutex::new(0),
        });
        let (images, _images) = mpsc::channel(1);
        let shared = Arc::clone(&reader) as Arc<dyn LogReader>;
        let links = ApplyLinks {
            queue,
            stale,
            images,
            room: StateRoom::default(),
            events: sender,
            metrics: Arc::default(),
            stop: supervisor.stop_signal(),
        };
        let machine = Machine::new(Box::new(machine), Arc::clone(&links.metrics));
        let shelf = Arc::new(Shelf::new(Arc::new(crate::snapshot::NoSnapshots)));
        let task = ApplyTask::new(
            machine,
            (SnapshotMeta::default(), Index(0)),
            shared,
            shelf,
            links,
        );
        Bench {
            items,
            events,
            task: tokio::spawn(task.run()),
            reader,
            _stale,
            _images,
            _supervisor: supervisor,
        }
    }

    fn waiter(term: u64, index: u64) -> (PlacedWaiter, Answer) {
        let budget = Budget::new("test_max", 2);
        let claims = [budget.claim(1).unwrap(), budget.claim(1).unwrap()];
        let (reply, answer) = oneshot::channel();
        let id = LogId::new(Term(term), Index(index));
        ((id, ProposeWaiter::new(reply, claims)), answer)
    }

    fn apply(from: u64, to: u64, entries: Vec<Entry>, waiters: Vec<PlacedWaiter>) -> ApplyItem {
        let (from, to) = (Index(from), Index(to));
        let range = Apply { from, to, entries };
        ApplyItem::Apply { range, waiters }
    }

    async fn applied_through(bench: &mut Bench, to: u64) {
        loop {
            match bench.events.recv().await {
                Some(Event::Applied(index)) if index == Index(to) => return,
                Some(Event::Applied(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn small_ranges_that_queued_up_are_one_batch_without_the_no_ops() {
        let machine = TestMachine::default();
        let mut bench = bench(machine.clone(), Vec::new(), 0);
        let id = LogId::new(Term(1), Index(1));
        let noop = Entry::new(id, EntryKind::Noop, Bytes::new());
        bench
            .items
            .try_send(apply(1, 1, vec![noop], vec![]))
            .unwrap();
        for index in 2..=9 {
            let item = apply(index, index, vec![entry(1, index, 10)], vec![]);
            bench.items.try_send(item).unwrap();
        }
        applied_through(&mut bench, 9).await;
        assert_eq!(*machine.batches.lock().unwrap(), [8]);
    }

    #[tokio::test]
    async fn what_is_not_in_memory_is_read_and_applied_in_pages() {
        let machine = TestMachine::default();
        let log: Vec<Entry> = (1..=40).map(|i| entry(1, i, 100_000)).collect();
        let mut bench = bench(machine.clone(), log, 0);
        let in_memory = vec![entry(1, 41, 10), entry(1, 42, 10)];
        let item = apply(1, 42, in_memory, vec![]);
        bench.items.try_send(item).unwrap();
        applied_through(&mut bench, 42).await;
        let batches = machine.batches.lock().unwrap().clone();
        assert_eq!(batches.iter().sum::<usize>(), 42);
        assert!(batches.iter().all(|count| *count <= 11), "{batches:?}");
        assert!(*bench.reader.reads.lock().unwrap() >= 4);
    }

    #[tokio::test]
    async fn a_waiter_is_answered_by_its_own_entry_only() {
        let bench = bench(TestMachine::default(), Vec::new(), 0);
        let (overwritten, lost) = waiter(1, 1);
        let (placed, kept) = waiter(2, 2);
        let entries = vec![entry(2, 1, 10), entry(2, 2, 10)];
        let item = apply(1, 2, entries, vec![overwritten, placed]);
        bench.items.try_send(item).unwrap();
        assert_eq!(lost.await.unwrap(), Err(ProposeError::Unknown));
        let committed = kept.await.unwrap().unwrap();
        assert_eq!(committed.id, LogId::new(Term(2), Index(2)));
        assert_eq!(committed.reply, "2");
    }

    #[tokio::test]
    async fn a_read_waits_for_its_index() {
        let bench = bench(TestMachine::default(), Vec::new(), 0);
        let budget = Budget::new("test_max", 1);
        let (reply, mut answer) = oneshot::channel();
        let waiter = Waiter::new(reply, [budget.claim(1).unwrap()]);
        let query = "q".into();
        let reader = ReadWaiter::Query { query, waiter };
        let index = Index(2);
        let readers = vec![reader];
        let item = ApplyItem::Reads { index, readers };
        bench.items.send(item).await.unwrap();
        let first = apply(1, 1, vec![entry(1, 1, 10)], vec![]);
        bench.items.send(first).await.unwrap();
        while bench.items.capacity() < bench.items.max_capacity() {
            tokio::task::yield_now().await;
        }
        assert!(answer.try_recv().is_err(), "index 2 is not applied");
        let second = apply(2, 2, vec![entry(1, 2, 10)], vec![]);
        bench.items.send(second).await.unwrap();
        assert_eq!(answer.await.unwrap().unwrap(), "q");
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_machine_that_forgets_a_reply_stops_the_node() {
        let machine = TestMachine {
            forgets_a_reply: true,
            ..TestMachine::default()
        };
        let bench = bench(machine, Vec::new(), 0);
        let (placed, answer) = waiter(1, 1);
        let item = apply(1, 1, vec![entry(1, 1, 10)], vec![placed]);
        bench.items.try_send(item).unwrap();
        let ended = bench.task.await.unwrap();
        assert!(matches!(ended, Err(StopReason::StateMachine(_))));
        assert!(
            answer.await.is_err(),
            "its client learns that the node stopped"
        );
    }

    #[tokio::test]
    async fn a_reader_that_gives_other_entries_stops_the_node_with_an_error() {
        let log: Vec<Entry> = (1..=5).map(|i| entry(1, i, 10)).collect();
        let bench = bench(TestMachine::default(), log, 1);
        bench.items.try_send(apply(1, 3, vec![], vec![])).unwrap();
        let ended = bench.task.await.unwrap();
        assert!(matches!(ended, Err(StopReason::Storage(_))));
    }

    #[tokio::test]
    #[should_panic(expected = "no gap")]
    async fn a_gap_in_what_is_to_be_applied_is_a_bug() {
        let bench = bench(TestMachine::default(), Vec::new(), 0);
        let item = apply(2, 2, vec![entry(1, 2, 10)], vec![]);
        bench.items.try_send(item).unwrap();
        let ended = bench.task.await.unwrap_err();
        std::panic::resume_unwind(ended.into_panic());
    }
}
