//! Goal: whatever is in a directory, opening it and reading what it says to hold never panics and
//! never takes more memory for a read than a file has bytes, or a window; and unless somebody
//! forged checksums, nothing is given out that was never written.
//!
//! Each target runs over its corpus in `corpus/` and over inputs from seeds.
//! `FUZZ_INPUTS=1000000 cargo test -p raft-storage --release --test it fuzz` runs for longer.

mod mutation;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use raft_core::{LogStore, StorageError};
use raft_storage::sim_disk::{Image, Random, SimDisk};

use crate::crash::{Model, Step, append, id, open, overwrite, parts, vote};
use mutation::mutate;

/// The window that logs are read in. Nothing larger is asked for, but what a file really has.
const WINDOW_BYTES: usize = 1 << 20;
/// Inputs from seeds, unless `FUZZ_INPUTS` says how many.
const INPUTS: u64 = 1_500;

/// A directory with a log of three segments, a snapshot, and one that is being received.
static SOUND: LazyLock<(Image, Vec<Step>)> = LazyLock::new(|| {
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
        append(3, 9, &[100, 9]),
        Step::ReceiveSome(id(3, 30), 3),
    ];
    let disk = SimDisk::new(&Image::with_dir(Path::new("/node")));
    runtime().block_on(async {
        let (mut store, _) = open(&disk).expect("an empty disk can be opened");
        for step in &steps {
            step.run(&mut store).await.expect("nothing fails");
        }
    });
    (disk.seen(), steps)
});

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.build().expect("a runtime can be made")
}

/// Opens a directory and reads all of it.
async fn read_all(disk: &SimDisk, is_honest: bool) -> Result<(), StorageError> {
    let written: Vec<_> = SOUND.1.iter().flat_map(Step::entries).collect();
    let (mut store, _) = open(disk)?;
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
    let loaded = store.load().await?;
    let reader = store.reader();
    let mut next = loaded.start.index.next();
    while next <= loaded.last.index {
        let entries = reader.read(next..loaded.last.index.next(), 1).await?;
        for entry in entries {
            assert_eq!(entry.index(), next);
            assert!(
                !is_honest || written.contains(&entry),
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
    let disk = SimDisk::new(image);
    let longest = image.files.values().map(Vec::len).max().unwrap_or(0);
    if let Err(error) = runtime().block_on(read_all(&disk, is_honest)) {
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

/// A valid directory with changes.
fn changed_directory(input: &[u8]) {
    let mut image = SOUND.0.clone();
    let is_honest = mutate(&mut image, input);
    judge(&image, is_honest);
}

/// A file of a valid directory is the front of itself, and then anything.
fn raw_file(input: &[u8]) {
    let [which, high, low, bytes @ ..] = input else {
        return;
    };
    let mut image = SOUND.0.clone();
    let file = image
        .files
        .values_mut()
        .nth(usize::from(*which) % SOUND.0.files.len());
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
    let mut model = Model::default();
    SOUND.1.iter().for_each(|step| model.apply(step));
    let disk = SimDisk::new(&SOUND.0);
    runtime().block_on(async {
        read_all(&disk, true).await.unwrap();
        let (mut store, _) = open(&disk.restart()).unwrap();
        assert_eq!(store.load().await.unwrap().last, model.last());
    });
    assert!(SOUND.0.files.keys().any(|path| path.ends_with("incoming")));
    assert!(SOUND.0.files.len() > 4);
}
