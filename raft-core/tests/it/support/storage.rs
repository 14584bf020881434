//! A log and a snapshot store in memory, with faults that a test switches on. What they hold
//! outlives the node.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use raft_core::{
    AppendBatch, Entry, HardState, Index, LoadedLog, LogId, LogReader, LogStore, LogUsage,
    SnapshotDescriptor, SnapshotHash, SnapshotMeta, SnapshotReader, SnapshotStore, SnapshotWriter,
    StorageError,
};

/// What a disk keeps when its node stops, and the faults that a test switches on.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) start: LogId,
    pub(crate) entries: Vec<Entry>,
    entry_bytes: u64,
    pub(crate) appends: u64,
    pub(crate) append_delay: Duration,
    pub(crate) reset_delay: Duration,
    pub(crate) fail_appends: bool,
    pub(crate) panic_appends: bool,
    pub(crate) fail_reads: bool,
    pub(crate) reads: u64,
    pub(crate) read_delay: Duration,
    /// Synced entries were lost; remembered until the log is as new as this.
    pub(crate) refill_to: Option<LogId>,
    /// There is no room for commands.
    pub(crate) is_short_of_room: bool,
    pub(crate) snapshots: Snapshots,
}

/// The same of snapshots.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    pub(crate) newest: Option<Content>,
    /// A transfer that was not finished.
    pub(crate) partial: Option<Content>,
    /// Neither a part nor a new snapshot has room.
    pub(crate) is_full: bool,
    pub(crate) fail_writes: bool,
    pub(crate) fail_reads: bool,
    pub(crate) write_delay: Duration,
    pub(crate) read_delay: Duration,
}

/// A snapshot, or the beginning of one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pub(crate) descriptor: SnapshotDescriptor,
    pub(crate) parts: Vec<Bytes>,
}

impl Content {
    /// A snapshot of these parts.
    pub(crate) fn new(meta: SnapshotMeta, parts: Vec<Bytes>) -> Self {
        let mut content = Self {
            parts,
            ..Self::default()
        };
        content.descriptor = content.describe(meta);
        content
    }

    fn describe(&self, meta: SnapshotMeta) -> SnapshotDescriptor {
        let mut hasher = DefaultHasher::new();
        self.parts.hash(&mut hasher);
        SnapshotDescriptor {
            meta,
            parts: self.parts.len() as u64,
            bytes: self.parts.iter().map(|part| part.len() as u64).sum(),
            hash: SnapshotHash(u128::from(hasher.finish())),
        }
    }
}

pub(crate) type SharedDisk = Arc<Mutex<Disk>>;

#[derive(Clone)]
pub(crate) struct TestLog {
    disk: SharedDisk,
    _token: Arc<()>,
}

impl TestLog {
    pub(crate) fn new(disk: SharedDisk, token: Arc<()>) -> Self {
        Self {
            disk,
            _token: token,
        }
    }
}

fn broken(operation: &'static str) -> StorageError {
    StorageError::Io {
        operation,
        path: "disk".to_owned(),
        message: "switched off by the test".to_owned(),
    }
}

impl Disk {
    fn count_bytes(&mut self) {
        self.entry_bytes = self.entries.iter().map(|e| e.encoded_len() as u64).sum();
    }

    fn last(&self) -> LogId {
        self.entries.last().map_or(self.start, Entry::id)
    }

    /// Loses the entries from this one on, although they were synced.
    pub(crate) fn damage(&mut self, from: Index) {
        self.refill_to = self.refill_to.max(Some(self.last()));
        self.entries.retain(|entry| entry.index() < from);
        self.count_bytes();
    }

    fn look_whether_whole(&mut self) {
        let last = self.last();
        self.refill_to.take_if(|to| last >= *to);
    }

    fn end(&self) -> u64 {
        self.start.index.0 + self.entries.len() as u64
    }
}

#[async_trait]
impl LogStore for TestLog {
    async fn load(&mut self) -> Result<LoadedLog, StorageError> {
        let disk = self.disk.lock().unwrap();
        let (hard_state, start) = (disk.hard_state, disk.start);
        let found = LoadedLog::of_entries(hard_state, start, &disk.entries);
        Ok(LoadedLog {
            refill_to: disk.refill_to,
            ..found
        })
    }

    async fn append(&mut self, batch: AppendBatch) -> Result<(), StorageError> {
        let delay = self.disk.lock().unwrap().append_delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut disk = self.disk.lock().unwrap();
        if disk.fail_appends {
            return Err(broken("append"));
        }
        let must_panic = std::mem::take(&mut disk.panic_appends);
        if must_panic {
            drop(disk);
            panic!("the store panics");
        }
        if let Some(hard_state) = batch.hard_state {
            disk.hard_state = hard_state;
        }
        if let Some(index) = batch.truncate_from {
            disk.entries.retain(|entry| entry.index() < index);
            disk.count_bytes();
        }
        for entry in batch.entries {
            assert_eq!(entry.index().0, disk.end() + 1);
            disk.entry_bytes += entry.encoded_len() as u64;
            disk.entries.push(entry);
        }
        disk.appends += 1;
        disk.look_whether_whole();
        Ok(())
    }

    async fn compact(&mut self, to: LogId) -> Result<(), StorageError> {
        let mut disk = self.disk.lock().unwrap();
        let is_held = disk.entries.iter().any(|entry| entry.id() == to);
        assert!(is_held || to == disk.start, "{to} is not in the log");
        let newest = disk.snapshots.newest.as_ref().unwrap();
        assert!(newest.descriptor.meta.last.index >= to.index);
        disk.start = to;
        disk.entries.retain(|entry| entry.index() > to.index);
        disk.count_bytes();
        Ok(())
    }

    async fn reset(&mut self, to: LogId) -> Result<(), StorageError> {
        let delay = self.disk.lock().unwrap().reset_delay;
        tokio::time::sleep(delay).await;
        let mut disk = self.disk.lock().unwrap();
        let newest = disk.snapshots.newest.as_ref().unwrap();
        assert!(newest.descriptor.meta.last.index >= to.index);
        disk.start = to;
        disk.entries.clear();
        disk.count_bytes();
        disk.look_whether_whole();
        Ok(())
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        Arc::new(self.clone())
    }

    fn reader(&self) -> Arc<dyn LogReader> {
        Arc::new(self.clone())
    }
}

#[async_trait]
impl LogReader for TestLog {
    async fn read(
        &self,
        range: Range<Index>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let delay = self.disk.lock().unwrap().read_delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut disk = self.disk.lock().unwrap();
        disk.reads += 1;
        if disk.fail_reads {
            return Err(broken("read"));
        }
        let (first, last) = (disk.start.index.next(), Index(disk.end()));
        if range.start > last || range.start < first {
            let from = range.start;
            return Err(StorageError::OutOfRange { from, first, last });
        }
        let mut bytes = 0;
        let from = usize::try_from(range.start.0 - first.0).unwrap();
        let entries = disk.entries[from..].iter();
        Ok(entries
            .take_while(|entry| {
                bytes += entry.encoded_len();
                entry.index() < range.end && (bytes <= bytes_max || entry.index() == range.start)
            })
            .cloned()
            .collect())
    }

    fn usage(&self) -> LogUsage {
        let disk = self.disk.lock().unwrap();
        LogUsage {
            log_bytes: disk.entry_bytes,
            disk_bytes: 0,
            is_short_of_room: disk.is_short_of_room,
        }
    }
}

#[async_trait]
impl SnapshotStore for TestLog {
    fn latest(&self) -> Option<SnapshotDescriptor> {
        let disk = self.disk.lock().unwrap();
        let newest = disk.snapshots.newest.as_ref();
        newest.map(|content| content.descriptor.clone())
    }

    async fn create(&self, meta: SnapshotMeta) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        Ok(Box::new(TestWriter {
            log: self.clone(),
            meta,
            content: Content::default(),
            announced: None,
        }))
    }

    async fn receive(
        &self,
        descriptor: SnapshotDescriptor,
    ) -> Result<Box<dyn SnapshotWriter>, StorageError> {
        let partial = self.disk.lock().unwrap().snapshots.partial.take();
        let same = partial.filter(|content| content.descriptor == descriptor);
        let meta = descriptor.meta.clone();
        let fresh = || Content {
            descriptor: descriptor.clone(),
            parts: Vec::new(),
        };
        Ok(Box::new(TestWriter {
            log: self.clone(),
            meta,
            content: same.unwrap_or_else(fresh),
            announced: Some(descriptor),
        }))
    }

    async fn open(&self, last: LogId) -> Result<Box<dyn SnapshotReader>, StorageError> {
        let disk = self.disk.lock().unwrap();
        let newest = disk.snapshots.newest.as_ref();
        let content = newest.filter(|content| content.descriptor.meta.last == last);
        let content = content.ok_or(StorageError::NoSnapshot(last))?.clone();
        Ok(Box::new(TestReader {
            log: self.clone(),
            content,
            next: 0,
        }))
    }
}

struct TestWriter {
    log: TestLog,
    meta: SnapshotMeta,
    content: Content,
    announced: Option<SnapshotDescriptor>,
}

impl Drop for TestWriter {
    fn drop(&mut self) {
        if self.announced.is_some() {
            let content = std::mem::take(&mut self.content);
            self.log.disk.lock().unwrap().snapshots.partial = Some(content);
        }
    }
}

#[async_trait]
impl SnapshotWriter for TestWriter {
    fn parts(&self) -> u64 {
        self.content.parts.len() as u64
    }

    async fn write(&mut self, part: Bytes) -> Result<(), StorageError> {
        let delay = self.log.disk.lock().unwrap().snapshots.write_delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let disk = self.log.disk.lock().unwrap();
        if disk.snapshots.is_full {
            let path = "disk".to_owned();
            let operation = "write";
            return Err(StorageError::Full { operation, path });
        }
        if disk.snapshots.fail_writes {
            return Err(broken("write"));
        }
        self.content.parts.push(part);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<SnapshotDescriptor, StorageError> {
        let descriptor = self.content.describe(self.meta.clone());
        let announced = self.announced.take();
        if announced.is_some_and(|announced| announced != descriptor) {
            return Err(StorageError::SnapshotMismatch {
                path: "disk".to_owned(),
                what: descriptor.to_string(),
            });
        }
        let mut disk = self.log.disk.lock().unwrap();
        self.content.descriptor = descriptor.clone();
        let end = |content: &Content| content.descriptor.meta.last.index;
        if disk.snapshots.newest.as_ref().map(end) < Some(end(&self.content)) {
            disk.snapshots.newest = Some(std::mem::take(&mut self.content));
        }
        Ok(descriptor)
    }
}

struct TestReader {
    log: TestLog,
    content: Content,
    next: usize,
}

#[async_trait]
impl SnapshotReader for TestReader {
    fn descriptor(&self) -> &SnapshotDescriptor {
        &self.content.descriptor
    }

    async fn seek(&mut self, part: u64) -> Result<(), StorageError> {
        self.next = usize::try_from(part).unwrap();
        Ok(())
    }

    async fn next_part(&mut self) -> Result<Option<Bytes>, StorageError> {
        let (delay, fails) = {
            let disk = self.log.disk.lock().unwrap();
            (disk.snapshots.read_delay, disk.snapshots.fail_reads)
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if fails {
            return Err(broken("read"));
        }
        let part = self.content.parts.get(self.next).cloned();
        self.next += 1;
        Ok(part)
    }
}
