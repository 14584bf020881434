//! Goal: whatever is in a directory, opening it and reading what it says to hold never panics and
//! never takes more memory for a read than a file has bytes, or a window; and unless somebody
//! forged checksums, nothing is given out that was never written. Where the end of the log is
//! there, nothing that was acknowledged is lost without a word either: the log is whole, or is to
//! be filled again, or is refused.
//!
//! Each target runs over its corpus in `corpus/` and over inputs from seeds, and opens each
//! directory twice: damage is refused, and damage is repaired.
//! `FUZZ_INPUTS=1000000 cargo test -p raft-storage --release --test it fuzz` runs for longer.

mod mutation;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use raft_core::{Entry, LogStore, StorageError};
use raft_storage::WalLogStore;
use raft_storage::sim_disk::{Image, Random, SimDisk};

use crate::crash::{
    Model, Step, append, id, open, open_to_repair, overwrite, parts, vote, whole_or_refilling,
};
use mutation::{PAGE_BYTES, mutate};

/// The window that logs are read in. Nothing larger is asked for, but what a file really has.
const WINDOW_BYTES: usize = 1 << 20;
/// Inputs from seeds, unless `FUZZ_INPUTS` says how many.
const INPUTS: u64 = 1_500;

/// A directory with a log of three segments, a snapshot, and one that is being received.
struct Sound {
    image: Image,
    /// What the log is, and all entries that it ever was.
    model: Model,
    entries: Vec<Entry>,
    /// The newest segment, and where in it the record stands that vouches for all others.
    newest: PathBuf,
    end: usize,
}

static SOUND: LazyLock<Sound> = LazyLock::new(|| {
    let steps = vec![
        vote(1, 3),
        append(1, 1, &[20, 700]),
        append(1, 3, &[1_500, 60]),
        Step::Snapshot(id(1, 2)),
        Step::Compact(id(1, 2)),
        overwrite(2, 4, &[40, 50]),
        append(2, 6, &[1_600, 30]),
        vote(3, 1),
        append(3, 8, &[2_500]),
        vote(4, 2),
        append(4, 9, &[100, 9]),
        Step::ReceiveSome(id(3, 30), 3),
    ];
    let disk = SimDisk::new(&Image::with_dir(Path::new("/node")));
    let mut model = Model::default();
    steps.iter().for_each(|step| model.apply(step));
    let open_image = runtime().block_on(async {
        let (mut store, _) = open(&disk).expect("an empty disk can be opened");
        for step in &steps {
            step.run(&mut store).await.expect("nothing fails");
        }
        disk.seen()
    });
    let image = disk.seen();
    let mut segments = image.files.keys().filter(|path| is_segment(path));
    let newest = segments.next_back().expect("there is one").clone();
    let (before, after) = (&open_image.files[&newest], &image.files[&newest]);
    let end = before.iter().zip(after).position(|(a, b)| a != b);
    Sound {
        model,
        entries: steps.iter().flat_map(Step::entries).collect(),
        newest,
        end: end.expect("closing it writes a record"),
        image,
    }
});

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wal")
}

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.build().expect("a runtime can be made")
}

/// What may be said of a directory.
#[derive(Clone, Copy, Debug)]
struct Input {
    /// Every checksum that is right was made by the store.
    is_honest: bool,
    /// The end of the log is as it was, so nothing before it can be taken for torn.
    has_end: bool,
}

impl Input {
    fn of(image: &Image, is_honest: bool) -> Self {
        let sound = &*SOUND;
        let mut segments = image.files.iter().filter(|(path, _)| is_segment(path));
        let newest = segments.next_back();
        let has_end = newest.is_some_and(|(path, bytes)| {
            let as_it_was = &sound.image.files[&sound.newest];
            *path == sound.newest
                && bytes.len() == as_it_was.len()
                && bytes[..PAGE_BYTES] == as_it_was[..PAGE_BYTES]
                && bytes[sound.end..] == as_it_was[sound.end..]
        });
        Self { is_honest, has_end }
    }
}

/// Opens a directory and reads all of it.
async fn read_all(disk: &SimDisk, input: Input, repair: bool) -> Result<(), StorageError> {
    let (mut store, report) = if repair {
        open_to_repair(disk)?
    } else {
        open(disk)?
    };
    read_snapshot(&store, input.is_honest).await?;
    read_log(&mut store, input.is_honest).await?;
    if !(input.is_honest && input.has_end) {
        return Ok(());
    }
    let found = whole_or_refilling(&mut store).await;
    match &found {
        Ok(Ok(model)) => assert!(model.is_the_log_of(&SOUND.model), "entries are lost"),
        Ok(Err(log)) => {
            log.check(&SOUND.model, "refilling");
            // It says the same from now on, and is not repaired again.
            assert!(repair && report.repaired.is_some());
            drop(store);
            let (mut store, report) = open_to_repair(&disk.restart())?;
            assert_eq!(report.repaired, None);
            assert_eq!(whole_or_refilling(&mut store).await, found);
        }
        // Of the snapshots; the log was read.
        Err(_) => {}
    }
    Ok(())
}

async fn read_snapshot(store: &WalLogStore, is_honest: bool) -> Result<(), StorageError> {
    let snapshots = store.snapshots();
    if let Some(latest) = snapshots.latest() {
        let mut reader = snapshots.open(latest.meta.last).await?;
        let mut read = Vec::new();
        while let Some(part) = reader.next_part().await? {
            read.push(part);
        }
        assert!(
            !is_honest || read == parts(latest.meta.last),
            "a part was never written"
        );
    }
    Ok(())
}

async fn read_log(store: &mut WalLogStore, is_honest: bool) -> Result<(), StorageError> {
    let loaded = store.load().await?;
    let reader = store.reader();
    let mut next = loaded.start.index.next();
    while next <= loaded.last.index {
        let entries = reader.read(next..loaded.last.index.next(), 1).await?;
        for entry in entries {
            assert_eq!(entry.index(), next);
            assert!(
                !is_honest || SOUND.entries.contains(&entry),
                "{} was never written",
                entry.id()
            );
            next = next.next();
        }
    }
    Ok(())
}

/// One directory: it is refused, or what it holds can be read or is refused.
fn judge(image: &Image, is_honest: bool) {
    let input = Input::of(image, is_honest);
    let longest = image.files.values().map(Vec::len).max().unwrap_or(0);
    for repair in [false, true] {
        let disk = SimDisk::new(image);
        if let Err(error) = runtime().block_on(read_all(&disk, input, repair)) {
            assert!(!matches!(error, StorageError::Poisoned(_)), "{error}");
            assert!(!error.to_string().is_empty());
        }
        let limit = longest.max(WINDOW_BYTES);
        assert!(
            disk.largest_read() <= limit,
            "{} bytes were asked for",
            disk.largest_read()
        );
    }
}

/// A valid directory with changes.
fn changed_directory(input: &[u8]) {
    let mut image = SOUND.image.clone();
    let is_honest = mutate(&mut image, input);
    judge(&image, is_honest);
}

/// A file of a valid directory is the front of itself, and then anything.
fn raw_file(input: &[u8]) {
    let [which, high, low, bytes @ ..] = input else {
        return;
    };
    let mut image = SOUND.image.clone();
    let file = image
        .files
        .values_mut()
        .nth(usize::from(*which) % SOUND.image.files.len());
    let file = file.expect("there are as many");
    let keep = (usize::from(*high) << 8 | usize::from(*low)) % (file.len() + 1);
    let whole = file.len();
    file.truncate(keep);
    file.extend_from_slice(bytes);
    if which & 0x80 != 0 {
        file.resize(whole, 0);
    }
    judge(&image, true);
}

/// Runs a target over its corpus, then over inputs from seeds.
fn run(name: &str, target: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/fuzz/corpus")
        .join(name);
    let mut paths: Vec<PathBuf> = fs::read_dir(&corpus)
        .unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
        .map(|found| found.expect("it can be listed").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        println!("{}", path.display());
        target(&fs::read(&path).expect("it can be read"));
    }
    let told = std::env::var("FUZZ_INPUTS").ok();
    let inputs = told
        .and_then(|inputs| inputs.parse().ok())
        .unwrap_or(INPUTS);
    for seed in 0..inputs {
        let mut random = Random::new(seed);
        // Mostly few changes: many of them are refused at the first one.
        let longest = [24, 24, 200, 3_000][random.below(4)];
        let length = 1 + random.below(longest);
        let input: Vec<u8> = (0..length)
            .map(|_| random.number().to_le_bytes()[0])
            .collect();
        let caught = std::panic::catch_unwind(|| target(&input));
        assert!(
            caught.is_ok(),
            "{name}: seed {seed}, {} bytes of input",
            input.len()
        );
    }
}

#[test]
fn fuzz_changed_directories() {
    run("changed", changed_directory);
}

#[test]
fn fuzz_raw_files() {
    run("raw", raw_file);
}

/// The sound directory is what the model says, or the targets judge nothing.
#[test]
fn the_sound_directory_is_sound() {
    let disk = SimDisk::new(&SOUND.image);
    let input = Input::of(&SOUND.image, true);
    assert!(input.has_end);
    runtime().block_on(async {
        read_all(&disk, input, false).await.unwrap();
        let (mut store, _) = open(&disk.restart()).unwrap();
        let found = whole_or_refilling(&mut store).await.unwrap();
        assert!(found.unwrap().is_the_log_of(&SOUND.model));
    });
    let names = SOUND.image.files.keys();
    assert!(names.clone().any(|path| path.ends_with("incoming")));
    assert!(SOUND.image.files.len() > 4);
    assert_eq!(names.filter(|path| is_segment(path)).count(), 3);
}
