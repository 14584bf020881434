//! Stands between a log and its files in tests. It fails the operation that it is told to fail, and
//! it records all of them, so that every disk that a power cut could have left can be made from the
//! record.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Disk;
use super::file_system::{FileHandle, FileSystem, LockGuard};
use super::machine::Machine;

/// Bytes that a disk writes whole.
const SECTOR_BYTES: usize = 512;

/// The files of a directory, by name.
pub(crate) type Image = BTreeMap<PathBuf, Vec<u8>>;

/// A directory in memory where that is possible: tests ask what is stored, not how fast.
pub(crate) fn memory_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    dir.expect("a scratch directory can be made")
}

/// Records, and fails on command.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    state: Mutex<State>,
    syncs: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<PathBuf, usize>,
    files: usize,
    trace: Vec<Event>,
    fail: Option<(usize, io::ErrorKind)>,
}

/// One operation, or a mark that the test set.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Create(PathBuf, usize),
    Write(usize, u64, Vec<u8>),
    SetLength(usize, u64),
    Sync(usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncDir,
    /// So many batches are acknowledged.
    Acknowledged(usize),
}

impl Probe {
    /// A probe of a directory that holds these files, all of them durable.
    pub(crate) fn of(base: &Image) -> Self {
        let names: BTreeMap<_, _> = base.keys().cloned().zip(0..).collect();
        let state = State {
            files: names.len(),
            names,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            ..Self::default()
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the operation that comes after `operations` more fail, and none behind it.
    pub(crate) fn fail_after(&self, operations: usize, kind: io::ErrorKind) {
        self.state().fail = Some((operations, kind));
    }

    /// Syncs of files wait as long as this is held.
    pub(crate) fn hold_syncs(&self) -> MutexGuard<'_, ()> {
        self.syncs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a failure is still to come.
    pub(crate) fn will_fail(&self) -> bool {
        self.state().fail.is_some()
    }

    pub(crate) fn acknowledge(&self, batches: usize) {
        self.state().trace.push(Event::Acknowledged(batches));
    }

    pub(crate) fn trace(&self) -> Vec<Event> {
        self.state().trace.clone()
    }

    fn note(&self, event: impl FnOnce(&mut State) -> Event) -> io::Result<()> {
        let mut state = self.state();
        if let Some((operations, kind)) = state.fail {
            if operations == 0 {
                state.fail = None;
                return Err(io::Error::from(kind));
            }
            state.fail = Some((operations - 1, kind));
        }
        let event = event(&mut state);
        state.trace.push(event);
        Ok(())
    }
}

fn name(path: &Path) -> PathBuf {
    PathBuf::from(path.file_name().expect("files have names"))
}

impl State {
    fn create(&mut self, path: &Path) -> Event {
        let file = self.files;
        self.files += 1;
        self.names.insert(name(path), file);
        Event::Create(name(path), file)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> Event {
        let file = self.names.remove(&name(from)).expect("it was created");
        self.names.insert(name(to), file);
        Event::Rename(name(from), name(to))
    }

    fn remove(&mut self, path: &Path) -> Event {
        self.names.remove(&name(path));
        Event::Remove(name(path))
    }
}

/// The machine's files, seen by a probe.
#[derive(Debug)]
struct Probed {
    probe: Arc<Probe>,
    machine: Machine,
}

#[derive(Debug)]
struct ProbedFile {
    probe: Arc<Probe>,
    file: Box<dyn FileHandle>,
    /// What the trace calls it; none where it was there before and is only read.
    number: Option<usize>,
}

/// The machine's disk, seen by a probe where there is one.
pub(crate) fn disk(probe: Option<&Arc<Probe>>) -> Disk {
    match probe {
        Some(probe) => Disk::over(Arc::new(Probed {
            probe: Arc::clone(probe),
            machine: Machine,
        })),
        None => Disk::default(),
    }
}

impl Probed {
    fn file(&self, path: &Path, file: Box<dyn FileHandle>) -> Box<dyn FileHandle> {
        let number = self.probe.state().names.get(&name(path)).copied();
        let probe = Arc::clone(&self.probe);
        Box::new(ProbedFile {
            probe,
            file,
            number,
        })
    }
}

impl FileSystem for Probed {
    fn create(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        self.probe.note(|state| state.create(path))?;
        Ok(self.file(path, self.machine.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        Ok(self.file(path, self.machine.open(path)?))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Box<dyn FileHandle>> {
        self.machine.open_to_read(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.machine.exists(path)
    }

    fn is_dir(&self, path: &Path) -> bool {
        self.machine.is_dir(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.machine.list(dir)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.machine.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.probe.note(|state| state.rename(from, to))?;
        self.machine.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.probe.note(|state| state.remove(path))?;
        self.machine.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.probe.note(|_| Event::SyncDir)?;
        self.machine.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        self.machine.lock(path)
    }
}

impl ProbedFile {
    fn number(&self) -> usize {
        self.number.expect("what is written was created")
    }
}

impl FileHandle for ProbedFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let event = Event::Write(self.number(), offset, bytes.to_vec());
        self.probe.note(|_| event)?;
        self.file.write_at(bytes, offset)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        let event = Event::SetLength(self.number(), bytes);
        self.probe.note(|_| event)?;
        self.file.set_length(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        let event = Event::Sync(self.number());
        drop(self.probe.hold_syncs());
        self.probe.note(|_| event)?;
        self.file.sync()
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.file.drop_cache()
    }
}

/// A disk that forgets what was not synced when the power goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct PowerCut {
    files: Vec<PendingFile>,
    names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<Event>,
    /// Batches that were acknowledged.
    pub(crate) acknowledged: usize,
}

#[derive(Clone, Debug, Default)]
struct PendingFile {
    synced: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Clone, Debug)]
enum Pending {
    Write(u64, Vec<u8>),
    Length(usize),
}

impl PowerCut {
    pub(crate) fn new(base: Image) -> Self {
        let mut disk = Self::default();
        for (name, synced) in base {
            disk.names.insert(name, disk.files.len());
            disk.files.push(PendingFile {
                synced,
                pending: Vec::new(),
            });
        }
        disk
    }

    /// One more operation happens.
    pub(crate) fn advance(&mut self, event: &Event) {
        match event {
            Event::Create(_, file) => {
                assert_eq!(*file, self.files.len());
                self.files.push(PendingFile::default());
                self.pending_names.push(event.clone());
            }
            Event::Write(file, offset, bytes) => {
                let write = Pending::Write(*offset, bytes.clone());
                self.files[*file].pending.push(write);
            }
            Event::SetLength(file, bytes) => {
                let bytes = usize::try_from(*bytes).expect("test files are small");
                self.files[*file].pending.push(Pending::Length(bytes));
            }
            Event::Sync(file) => {
                let PendingFile { synced, pending } = &mut self.files[*file];
                for change in pending.drain(..) {
                    match change {
                        Pending::Write(offset, bytes) => overwrite(synced, offset, &bytes),
                        Pending::Length(bytes) => synced.resize(bytes, 0),
                    }
                }
            }
            Event::Rename(..) | Event::Remove(_) => self.pending_names.push(event.clone()),
            Event::SyncDir => {
                for event in std::mem::take(&mut self.pending_names) {
                    rename(&mut self.names, &event);
                }
            }
            Event::Acknowledged(batches) => self.acknowledged = *batches,
        }
    }

    /// What the disk holds if the power goes now. `choose(n)` gives a number below `n`: it decides
    /// which of the unsynced sectors and names had been written. Names go in their order, sectors
    /// in any.
    pub(crate) fn image(&self, mut choose: impl FnMut(usize) -> usize) -> Image {
        let mut names = self.names.clone();
        let kept_names = choose(self.pending_names.len() + 1);
        for event in &self.pending_names[..kept_names] {
            rename(&mut names, event);
        }
        // None, all, or a part of the sectors.
        let mode = choose(4);
        names
            .into_iter()
            .map(|(name, file)| {
                let PendingFile { synced, pending } = &self.files[file];
                let mut bytes = synced.clone();
                let mut is_kept = || mode == 1 || (mode >= 2 && choose(2) == 0);
                for change in pending {
                    let (offset, written) = match change {
                        Pending::Write(offset, written) => (*offset, written),
                        Pending::Length(length) => {
                            if is_kept() {
                                bytes.resize(*length, 0);
                            }
                            continue;
                        }
                    };
                    let mut at = offset;
                    for sector in sectors(offset, written) {
                        if is_kept() {
                            overwrite(&mut bytes, at, sector);
                        }
                        at += sector.len() as u64;
                    }
                }
                (name, bytes)
            })
            .collect()
    }
}

fn rename(names: &mut BTreeMap<PathBuf, usize>, event: &Event) {
    match event {
        Event::Create(name, file) => {
            names.insert(name.clone(), *file);
        }
        Event::Rename(from, to) => {
            let file = names.remove(from).expect("names change in their order");
            names.insert(to.clone(), file);
        }
        Event::Remove(name) => {
            names.remove(name);
        }
        _ => unreachable!("only names are pending here"),
    }
}

fn overwrite(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let from = usize::try_from(offset).expect("test files are small");
    let to = from + bytes.len();
    if file.len() < to {
        file.resize(to, 0);
    }
    file[from..to].copy_from_slice(bytes);
}

/// A write in pieces that end where sectors end.
fn sectors(offset: u64, bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let into = usize::try_from(offset % SECTOR_BYTES as u64).expect("less than a sector");
    let first = (SECTOR_BYTES - into).min(bytes.len());
    let (first, rest) = bytes.split_at(first);
    std::iter::once(first).chain(rest.chunks(SECTOR_BYTES))
}
