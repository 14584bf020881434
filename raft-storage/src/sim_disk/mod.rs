//! A disk in memory for tests: it remembers what is durable and what is not, and loses, refuses,
//! lies and stalls on command. The same calls with the same seed give the same disk.
//!
//! ```text
//! write, rename, ... --> what readers see --sync, sync_dir--> what is durable
//!        |                       |
//!        +--> recording          +--power cut--> any legal mixture of both, sector by sector
//! ```
//!
//! What is legal is in `docs/disk-format.md`, "What is assumed": sectors and lengths in any order,
//! the names of one directory in the order of their changes, a torn sector changes no byte that
//! was not written.

mod cuts;
mod faults;
mod file;
mod image;
mod operation;
mod random;
mod replay;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::files::{Disk, FileHandle, FileSystem, LockGuard};
use faults::Faults;
use file::Fate;
use tree::{Node, Tree};

pub use cuts::{Cuts, NameOrder};
pub use file::SECTOR_BYTES;
pub use image::Image;
pub use operation::{FileId, Operation};
pub use random::Random;
pub use replay::Replay;

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    tree: Tree,
    faults: Faults,
    recording: Option<Vec<Operation>>,
    locked: BTreeSet<FileId>,
    /// Handles of each file.
    open: BTreeMap<FileId, usize>,
    /// Whether syncs wait, and how many do.
    syncs_are_held: bool,
    syncs_waiting: usize,
    /// Whether work may go on in the background.
    has_background: bool,
    /// Bytes of the largest read that was tried.
    largest_read: usize,
}

impl SimDisk {
    /// A disk on which this is durable, and nothing else there.
    #[must_use]
    pub fn new(image: &Image) -> Self {
        Self::over(Tree::of(image))
    }

    fn over(tree: Tree) -> Self {
        let state = State {
            tree,
            faults: Faults::default(),
            recording: None,
            locked: BTreeSet::new(),
            open: BTreeMap::new(),
            syncs_are_held: false,
            syncs_waiting: 0,
            has_background: false,
            largest_read: 0,
        };
        let shared = Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// The same, and every operation is recorded from now on.
    #[must_use]
    pub fn recorded(image: &Image) -> Self {
        let disk = Self::new(image);
        disk.state().recording = Some(Vec::new());
        disk
    }

    /// Lets what uses the disk work in the background. Which operation comes first is then up to
    /// the threads of the machine.
    #[must_use]
    pub fn with_background(self) -> Self {
        self.state().has_background = true;
        self
    }

    /// This disk, for a log or a snapshot store.
    #[must_use]
    pub fn disk(&self) -> Disk {
        Disk::over(Arc::new(self.clone()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// What was done so far, where it is recorded.
    #[must_use]
    pub fn recording(&self) -> Vec<Operation> {
        self.state().recording.clone().unwrap_or_default()
    }

    /// Puts a mark into the recording.
    pub fn mark(&self, mark: u64) {
        self.state().record(|| Operation::Mark(mark));
    }

    /// What readers see.
    #[must_use]
    pub fn seen(&self) -> Image {
        self.state().tree.seen()
    }

    /// Bytes of the largest read that was tried: so much memory was taken for it beforehand.
    #[must_use]
    pub fn largest_read(&self) -> usize {
        self.state().largest_read
    }

    /// Operations that changed something so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().tree.clock()
    }

    /// The process ends and another one begins: nothing is lost, locks are free. This disk does
    /// nothing any more; the answer goes on.
    #[must_use]
    pub fn restart(&self) -> Self {
        let mut state = self.state();
        state.faults.power_is_off = true;
        self.shared.changed.notify_all();
        Self::over(state.tree.clone())
    }

    /// The power goes and comes back: about `bound` of the disks that may be left, or all where
    /// there are not more. This disk does nothing any more.
    #[must_use]
    pub fn power_cuts(&self, order: NameOrder, bound: usize, random: &mut Random) -> Cuts {
        let mut state = self.state();
        state.faults.power_is_off = true;
        self.shared.changed.notify_all();
        cuts::cuts(&state.tree, order, bound, random)
    }

    /// One of the disks that may be left when the power goes, drawn. This disk does nothing any
    /// more; the answer goes on.
    #[must_use]
    pub fn power_cut(&self, random: &mut Random) -> Self {
        let mut images = self.power_cuts(NameOrder::AsMade, 8, random).images;
        let drawn = random.below(images.len());
        Self::new(&images.swap_remove(drawn))
    }

    /// Lets the operation after so many more fail, without effect, and none behind it. A sync of a
    /// file that fails has an effect: see [`SimDisk::fail_sync_after`].
    pub fn fail_after(&self, operations: usize, kind: ErrorKind) {
        self.state().faults.fail_after(operations, kind);
    }

    /// Lets the sync of a file after so many more fail. What it should have made durable is lost,
    /// but readers still see it, and the next sync says that all is well.
    pub fn fail_sync_after(&self, syncs: usize) {
        self.state().faults.fail_sync_after(syncs);
    }

    /// Lets the write after so many more never reach the disk; nobody is told.
    pub fn lose_write_after(&self, writes: usize) {
        self.state().faults.misfate_after(writes, Fate::Lost);
    }

    /// Lets the write after so many more reach the disk so many sectors too far on.
    pub fn misdirect_write_after(&self, writes: usize, sectors: u64) {
        let fate = Fate::Misdirected(sectors);
        self.state().faults.misfate_after(writes, fate);
    }

    /// Whether a failure that was asked for is still to come.
    #[must_use]
    pub fn will_fail(&self) -> bool {
        self.state().faults.are_to_come()
    }

    /// Bytes of files that fit on the disk; no limit unless told. A write that does not fit is done
    /// as far as it fits and answered with `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().faults.capacity = bytes;
    }

    /// Bytes of all files that have a name.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state().tree.used_bytes()
    }

    /// Changes bits of a byte of a file for good.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn rot(&self, path: &Path, offset: usize, mask: u8) -> io::Result<()> {
        let mut state = self.state();
        let file = state.tree.file_id(path)?;
        state.tree.file(file)?.rot(offset, mask);
        Ok(())
    }

    /// Whether syncs of files wait until told otherwise.
    pub fn hold_syncs(&self, hold: bool) {
        self.state().syncs_are_held = hold;
        self.shared.changed.notify_all();
    }

    /// Syncs that wait.
    #[must_use]
    pub fn syncs_waiting(&self) -> usize {
        self.state().syncs_waiting
    }

    /// Does and records an operation on names.
    fn change(
        &self,
        change: impl FnOnce(&mut Tree) -> io::Result<()>,
        operation: impl FnOnce() -> Operation,
    ) -> io::Result<()> {
        let mut state = self.state();
        state.faults.operation()?;
        change(&mut state.tree)?;
        state.record(operation);
        Ok(())
    }

    fn handle(&self, state: &mut State, file: FileId) -> Box<dyn FileHandle> {
        *state.open.entry(file).or_default() += 1;
        let shared = Arc::clone(&self.shared);
        Box::new(SimHandle { shared, file })
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic is a failed test; what the disk holds is right operation by operation.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn record(&mut self, operation: impl FnOnce() -> Operation) {
        if let Some(recording) = &mut self.recording {
            recording.push(operation());
        }
    }

    /// How many of the bytes that would make a file this long fit.
    fn room(&mut self, file: FileId, length: u64) -> io::Result<u64> {
        let held = self.tree.file(file)?.cache().len() as u64;
        let Some(capacity) = self.faults.capacity else {
            return Ok(length);
        };
        let free = capacity.saturating_sub(self.tree.used_bytes());
        Ok(length.min(held + free).max(held.min(length)))
    }
}

impl FileSystem for SimDisk {
    fn free_bytes(&self, _dir: &Path) -> Option<u64> {
        let state = self.state();
        let capacity = state.faults.capacity?;
        Some(capacity.saturating_sub(state.tree.used_bytes()))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        let mut state = self.state();
        state.faults.operation()?;
        let file = state.tree.create(path)?;
        state.record(|| Operation::Create(path.to_owned()));
        Ok(self.handle(&mut state, file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        let mut state = self.state();
        state.faults.check_power()?;
        let file = state.tree.file_id(path)?;
        Ok(self.handle(&mut state, file))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        self.open(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.state().tree.node(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn is_dir(&self, path: &Path) -> bool {
        matches!(self.state().tree.node(path), Ok(Node::Dir(_)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state();
        state.faults.check_power()?;
        state.tree.list(dir)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let operation = || Operation::CreateDir(path.to_owned());
        self.change(|tree| tree.create_dir(path), operation)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let operation = || Operation::Rename(from.to_owned(), to.to_owned());
        self.change(|tree| tree.rename(from, to), operation)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let operation = || Operation::Remove(path.to_owned());
        self.change(|tree| tree.remove(path), operation)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let operation = || Operation::SyncDir(dir.to_owned());
        self.change(|tree| tree.sync_dir(dir), operation)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        let mut state = self.state();
        state.faults.check_power()?;
        if !matches!(state.tree.node(path), Ok(Node::File(_))) {
            state.tree.create(path)?;
            state.record(|| Operation::Create(path.to_owned()));
        }
        let file = state.tree.file_id(path)?;
        if !state.locked.insert(file) {
            return Err(ErrorKind::WouldBlock.into());
        }
        let shared = Arc::clone(&self.shared);
        Ok(Box::new(SimLock { shared, file }))
    }

    fn works_in_turn(&self) -> bool {
        !self.state().has_background
    }
}

#[derive(Debug)]
struct SimLock {
    shared: Arc<Shared>,
    file: FileId,
}

impl LockGuard for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.shared.state().locked.remove(&self.file);
    }
}

/// An open file.
#[derive(Debug)]
struct SimHandle {
    shared: Arc<Shared>,
    file: FileId,
}

impl SimHandle {
    /// The state, once syncs may go on.
    fn state_for_sync(&self) -> MutexGuard<'_, State> {
        let mut state = self.shared.state();
        state.syncs_waiting += 1;
        self.shared.changed.notify_all();
        while state.syncs_are_held && !state.faults.power_is_off {
            let woken = self.shared.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        state.syncs_waiting -= 1;
        state
    }
}

impl FileHandle for SimHandle {
    fn length(&self) -> io::Result<u64> {
        let mut state = self.shared.state();
        state.faults.check_power()?;
        Ok(state.tree.file(self.file)?.cache().len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.shared.state();
        state.faults.check_power()?;
        state.largest_read = state.largest_read.max(bytes.len());
        let held = state.tree.file(self.file)?.cache();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let to = from.saturating_add(bytes.len());
        let found = held.get(from..to).ok_or(ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(found);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.shared.state();
        state.faults.operation()?;
        let end = offset + bytes.len() as u64;
        let fits = state.room(self.file, end)?;
        let count = usize::try_from(fits.saturating_sub(offset)).unwrap_or(usize::MAX);
        let written = &bytes[..bytes.len().min(count)];
        let fate = state.faults.write();
        state.tree.write(self.file, offset, written, fate)?;
        state.record(|| Operation::Write(self.file, offset, written.to_vec()));
        if written.len() < bytes.len() {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.shared.state();
        state.faults.operation()?;
        if state.room(self.file, bytes)? < bytes {
            return Err(ErrorKind::StorageFull.into());
        }
        state.tree.set_length(self.file, bytes)?;
        state.record(|| Operation::SetLength(self.file, bytes));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state_for_sync();
        state.faults.check_power()?;
        let counted = state.faults.operation().and_then(|()| state.faults.sync());
        if let Err(error) = counted {
            state.tree.file(self.file)?.fail_sync();
            return Err(error);
        }
        state.tree.file(self.file)?.sync();
        state.record(|| Operation::Sync(self.file));
        Ok(())
    }

    fn drop_cache(&self) -> io::Result<()> {
        let mut state = self.shared.state();
        state.faults.check_power()?;
        state.tree.file(self.file)?.drop_cache();
        Ok(())
    }
}

impl Drop for SimHandle {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        let state = &mut *state;
        let left = state.open.entry(self.file).or_default();
        *left = left.saturating_sub(1);
        if *left == 0 {
            state.open.remove(&self.file);
            state.tree.forget(self.file);
        }
    }
}
