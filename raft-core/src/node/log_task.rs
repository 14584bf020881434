//! Owns the log store. Takes everything that is queued, makes it durable with one append, and only
//! then lets the promises in it leave: that order is the durability of the whole system, and it is
//! in one function below.

use std::sync::Arc;
use std::time::Duration;

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
use crate::node::room::StateRoom;
use crate::protocol::{LogStart, Persisted, Write};

/// Writes that may wait in the queue itself; more wait at the driver.
pub(crate) const LOG_QUEUE_WRITES_MAX: usize = 1024;

/// Encoded bytes of entries that are given to the store in one call. Beyond it a sync costs by its
/// bytes, and merging gains nothing more; a single larger write still goes alone.
const GROUP_BYTES_MAX: usize = 16 << 20;

/// How often a store that is short of room is asked whether it has room again.
const ROOM_POLL_PERIOD: Duration = Duration::from_millis(500);

/// The parts of the task.
pub(crate) struct LogTask {
    pub(crate) store: Box<dyn LogStore>,
    pub(crate) reader: Arc<dyn LogReader>,
    pub(crate) room: StateRoom,
    /// Whether the driver knows that there is no room for commands.
    pub(crate) is_short: bool,
    /// When the store was asked last how much it takes.
    pub(crate) looked_at: Instant,
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
            let looks_next = self.looks_next();
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
                    () = tokio::time::sleep_until(looks_next), if self.is_short => {
                        self.look_at_usage().await;
                        continue;
                    }
                },
            };
            let group;
            (group, next) = collect(first, &mut self.queue);
            self.execute(group).await?;
            // Promises that need no append keep the queue busy, and bring no news of the store.
            if self.is_short && Instant::now() >= self.looks_next() {
                self.look_at_usage().await;
            }
        }
    }

    async fn execute(&mut self, group: Group) -> Result<(), StopReason> {
        if let Some(start) = group.log_start {
            self.begin_log(start).await?;
        }
        if !group.batch.is_empty() {
            let entries = group.batch.entries.len() as u64;
            let started = Instant::now();
            let appended = self.store.append(group.batch).await;
            appended.map_err(StopReason::Storage)?;
            let took = microseconds(started.elapsed());
            self.metrics.append_longest_us.raise(took);
            self.metrics.appends.increment();
            self.metrics.entries_appended.add(entries);
            self.look_at_usage().await;
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

    async fn begin_log(&mut self, start: LogStart) -> Result<(), StopReason> {
        let started = Instant::now();
        let begun = match start {
            LogStart::Compact(to) => self.store.compact(to).await,
            LogStart::Reset(to) => self.store.reset(to).await,
        };
        begun.map_err(StopReason::Storage)?;
        let metrics = &self.metrics;
        match start {
            LogStart::Compact(_) => metrics.compactions.increment(),
            LogStart::Reset(_) => metrics.log_resets.increment(),
        }
        let took = microseconds(started.elapsed());
        metrics.compaction_longest_us.raise(took);
        self.look_at_usage().await;
        Ok(())
    }

    fn looks_next(&self) -> Instant {
        self.looked_at + ROOM_POLL_PERIOD
    }

    /// Keeps how much the log takes, and tells the driver when room begins or ceases to be short.
    async fn look_at_usage(&mut self) {
        self.looked_at = Instant::now();
        let usage = self.reader.usage();
        let is_short = usage.is_short_of_room || self.room.is_short();
        self.metrics.set_log_usage(usage);
        if is_short != self.is_short {
            self.is_short = is_short;
            let _ = self.events.send(Event::Room(self.is_short)).await;
        }
    }
}

/// Encoded bytes of a write's entries: what the backlog is measured in.
pub(crate) fn write_bytes(write: &Write) -> usize {
    write.batch.entries.iter().map(Entry::encoded_len).sum()
}

/// Writes that become durable together.
#[derive(Debug)]
struct Group {
    log_start: Option<LogStart>,
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
            log_start: write.log_start,
            batch: write.batch,
            promises: write.promises,
            writes: 1,
        }
    }

    /// A new beginning of the log, a hard state or a truncation begins a new group: a group
    /// executes them in this order and before all entries, which is the order of the writes only if
    /// the first write alone has them.
    fn has_room_for(&self, write: &Write) -> bool {
        write.log_start.is_none()
            && write.batch.hard_state.is_none()
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

    fn write(number: u64, indexes: Range<u64>) -> Write {
        let entry = |i| {
            let id = LogId::new(Term(1), Index(i));
            Entry::new(id, EntryKind::Command, Bytes::from_static(b"x"))
        };
        Write {
            number,
            log_start: None,
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

    use crate::config::Limits;
    use crate::error::StorageError;
    use crate::log_store::{LoadedLog, LogUsage};
    use crate::message::{AppendReply, Message};
    use crate::node::lifecycle;
    use crate::transport::{SendError, Transport};
    use crate::types::{ClusterId, GroupId, Incarnation, NodeId};
    use async_trait::async_trait;
    use std::ops::Range;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;
    use tokio::time::sleep;

    const SYNC: Duration = Duration::from_secs(2);

    /// Takes [`SYNC`] for an append, of virtual time, and keeps what it was told to do.
    #[derive(Clone, Default)]
    struct SlowStore {
        fails: Arc<AtomicBool>,
        deeds: Arc<Mutex<Vec<String>>>,
    }

    impl SlowStore {
        fn did(&self, what: String) {
            self.deeds.lock().unwrap().push(what);
        }
    }

    #[async_trait]
    impl LogStore for SlowStore {
        async fn load(&mut self) -> Result<LoadedLog, StorageError> {
            Ok(LoadedLog::default())
        }

        async fn append(&mut self, batch: AppendBatch) -> Result<(), StorageError> {
            assert!(!batch.is_empty(), "an empty batch needs no call");
            sleep(SYNC).await;
            if self.fails.load(Ordering::Relaxed) {
                return Err(StorageError::Poisoned("test".to_owned()));
            }
            self.did(format!("append {}", batch.entries.len()));
            Ok(())
        }

        async fn compact(&mut self, to: LogId) -> Result<(), StorageError> {
            self.did(format!("compact {to}"));
            Ok(())
        }

        async fn reset(&mut self, to: LogId) -> Result<(), StorageError> {
            self.did(format!("reset {to}"));
            Ok(())
        }

        fn snapshots(&self) -> Arc<dyn crate::snapshot::SnapshotStore> {
            Arc::new(crate::snapshot::NoSnapshots)
        }

        fn reader(&self) -> Arc<dyn LogReader> {
            Arc::new(self.clone())
        }
    }

    #[async_trait]
    impl LogReader for SlowStore {
        async fn read(&self, _: Range<Index>, _: usize) -> Result<Vec<Entry>, StorageError> {
            Ok(Vec::new())
        }

        fn usage(&self) -> LogUsage {
            LogUsage::default()
        }
    }

    /// Keeps the acks that left.
    #[derive(Default)]
    struct Recorder {
        acks: Mutex<Vec<u64>>,
    }

    #[async_trait]
    impl Transport for Recorder {
        async fn send(&self, _: NodeId, envelope: Envelope) -> Result<(), SendError> {
            if let Message::AppendReply(AppendReply::Accepted { matched }) = envelope.message {
                self.acks.lock().unwrap().push(matched.0);
            }
            Ok(())
        }

        async fn send_snapshot(
            &self,
            _: NodeId,
            _: Envelope,
            _: Box<dyn crate::snapshot::SnapshotReader>,
        ) -> Result<(), SendError> {
            unreachable!("no snapshot is sent")
        }

        fn set_members(&self, _: NodeId, _: &crate::membership::Membership) {}

        async fn recv(&self) -> Option<crate::transport::Incoming> {
            None
        }

        async fn close(&self) {}
    }

    fn promising(mut write: Write) -> Write {
        let matched = write.last.index;
        write.promises.push(Envelope {
            cluster: ClusterId::default(),
            group: GroupId(1),
            from: NodeId(1),
            from_incarnation: Incarnation(1),
            to: NodeId(2),
            to_incarnation: Incarnation(2),
            term: Term(1),
            message: Message::AppendReply(AppendReply::Accepted { matched }),
        });
        write
    }

    struct Bench {
        writes: mpsc::Sender<Write>,
        events: mpsc::Receiver<Event>,
        recorder: Arc<Recorder>,
        task: tokio::task::JoinHandle<Result<(), StopReason>>,
        _life: lifecycle::LifeWatch,
    }

    impl Bench {
        fn new(store: SlowStore) -> Self {
            let (mut supervisor, _life) = lifecycle::new();
            let (writes, queue) = mpsc::channel(16);
            let (sender, events) = mpsc::channel(16);
            let metrics = Arc::new(Metrics::default());
            let recorder = Arc::new(Recorder::default());
            let transport = Arc::clone(&recorder) as Arc<dyn Transport>;
            let spawner = supervisor.spawner();
            let limits = Limits::default();
            let counts = Arc::clone(&metrics);
            let peers = Peers::new(&limits, transport, spawner, sender.clone(), counts);
            let peers = Arc::new(peers);
            let task = LogTask {
                is_short: false,
                looked_at: Instant::now(),
                room: StateRoom::default(),
                reader: store.reader(),
                store: Box::new(store),
                queue,
                peers,
                events: sender,
                metrics,
                stop: supervisor.stop_signal(),
            };
            // For the lane that the acks leave by.
            let idle = std::future::pending();
            supervisor.spawn("idle", lifecycle::Ending::Abort, idle);
            let transport = Arc::clone(&recorder) as Arc<dyn Transport>;
            tokio::spawn(supervisor.run(transport));
            Self {
                writes,
                events,
                recorder,
                task: tokio::spawn(task.run()),
                _life,
            }
        }

        /// Hands over as the driver does.
        fn push(&self, write: Write) {
            self.writes.try_send(write).unwrap();
        }

        fn acks(&self) -> Vec<u64> {
            self.recorder.acks.lock().unwrap().clone()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_promise_leaves_before_its_write_and_all_earlier_ones_are_durable() {
        let mut bench = Bench::new(SlowStore::default());
        bench.push(promising(write(1, 1..3)));
        sleep(SYNC / 2).await;
        // A repeated append, whose entries are still on their way to the disk.
        bench.push(promising(write(2, 3..3)));
        bench.push(promising(write(3, 3..4)));
        sleep(SYNC / 4).await;
        assert_eq!(bench.acks(), [0; 0], "the first sync is under way");
        sleep(SYNC / 2).await;
        assert_eq!(bench.acks(), [2], "the second sync is under way");
        sleep(SYNC).await;
        assert_eq!(bench.acks(), [2, 2, 3]);
        let mut persisted = Vec::new();
        while let Ok(Event::Persisted(last)) = bench.events.try_recv() {
            persisted.push(last.number);
        }
        assert_eq!(persisted, [1, 3], "once per append");
    }

    #[tokio::test(start_paused = true)]
    async fn a_promise_without_anything_to_write_leaves_at_once_and_in_order() {
        let mut bench = Bench::new(SlowStore::default());
        bench.push(promising(write(1, 1..1)));
        let event = bench.events.recv().await;
        assert!(matches!(event, Some(Event::Persisted(p)) if p.number == 1));
        sleep(SYNC / 100).await;
        assert_eq!(bench.acks(), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_append_ends_the_task_and_nothing_that_it_promised_leaves() {
        let store = SlowStore::default();
        store.fails.store(true, Ordering::Relaxed);
        let mut bench = Bench::new(store);
        bench.push(promising(write(1, 1..3)));
        bench.push(promising(write(2, 3..3)));
        let ended = (&mut bench.task).await.unwrap();
        assert!(matches!(ended, Err(StopReason::Storage(_))));
        sleep(SYNC).await;
        assert_eq!(bench.acks(), [0; 0]);
        assert!(bench.events.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_beginning_of_the_log_keeps_its_place_between_the_writes() {
        let store = SlowStore::default();
        let mut bench = Bench::new(store.clone());
        let id = |index| LogId::new(Term(1), Index(index));
        let mut compact = promising(write(3, 4..4));
        compact.log_start = Some(LogStart::Compact(id(2)));
        let mut reset = promising(write(5, 10..10));
        reset.log_start = Some(LogStart::Reset(id(9)));
        let writes = [
            write(1, 1..3),
            write(2, 3..4),
            compact,
            write(4, 4..6),
            reset,
            write(6, 10..11),
        ];
        for write in writes {
            bench.push(write);
        }
        let mut persisted = Vec::new();
        while persisted.last() != Some(&6) {
            match bench.events.recv().await {
                Some(Event::Persisted(last)) => persisted.push(last.number),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(persisted, [2, 4, 6]);
        let deeds = store.deeds.lock().unwrap().clone();
        let expected = [
            "append 3",
            "compact 2@1",
            "append 2",
            "reset 9@1",
            "append 1",
        ];
        assert_eq!(deeds, expected);
        sleep(SYNC / 100).await;
        assert_eq!(bench.acks(), [3, 9]);
    }
}
