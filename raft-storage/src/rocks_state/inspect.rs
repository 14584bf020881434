//! Looks at the state of a stopped node without changing anything: the database that counts is
//! opened for reading only, and every block of its files is checked. What the keys mean is the
//! state machine's business.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft_core::StorageError;
use rocksdb::{IteratorMode, ReadOptions};

use super::directory::{CURRENT, IMAGE, generation_of, read_current};
use super::options::StateOptions;
use super::view::StateView;
use crate::errors::damaged;
use crate::files::Disk;
use crate::inspection::{FileKind, FileReport, Finding, FindingKind, StateReport, list, name_of};
use crate::owner::WalOwner;

/// Reads all of the state in `dir` and says what is there, with a view of it where it can be read.
/// A directory that is missing holds none, and neither does one of a node that never applied
/// anything. Changes nothing. Blocks its thread.
///
/// # Errors
/// Where the directory cannot be listed.
pub fn inspect_state(
    dir: &Path,
    owner: &WalOwner,
    options: &StateOptions,
) -> Result<(StateReport, Option<Arc<StateView>>), StorageError> {
    let mut report = StateReport::default();
    if !Disk::default().is_dir(dir) {
        return Ok((report, None));
    }
    let current = read_current(dir);
    let counts = current.as_ref().ok().copied().flatten();
    let paths = list(&Disk::default(), dir)?;
    for path in &paths {
        report.look_at(path, counts)?;
    }
    let looked = current.and_then(|current| match current {
        Some(generation) => open(dir, generation, owner, options, &mut report).map(Some),
        None => missing(dir, &paths).map(|()| None),
    });
    let view = looked.unwrap_or_else(|error| {
        report.add(error, dir);
        None
    });
    Ok((report, view))
}

/// Without a file that says which database counts there may be the first one, unfinished.
fn missing(dir: &Path, paths: &[PathBuf]) -> Result<(), StorageError> {
    let later = |path: &&PathBuf| generation_of(&name_of(path)).is_some_and(|number| number > 1);
    match paths.iter().find(later) {
        None => Ok(()),
        Some(path) => {
            let name = name_of(path);
            let what = format!("nothing says whether {name} counts: the file is missing");
            Err(damaged(&dir.join(CURRENT), 0, what))
        }
    }
}

fn open(
    dir: &Path,
    generation: u64,
    owner: &WalOwner,
    options: &StateOptions,
    report: &mut StateReport,
) -> Result<Arc<StateView>, StorageError> {
    let database = dir.join(format!("gen-{generation}"));
    if !database.is_dir() {
        return Err(damaged(
            &database,
            0,
            "the directory of the state is missing",
        ));
    }
    let view = StateView::open_unchanged(&database, options)?;
    let (found, applied) = view.header()?;
    found.check(&database, owner)?;
    report.records = check_blocks(&view)?;
    report.applied = Some(applied);
    Ok(Arc::new(view))
}

/// Reads every key and value, with the checksum of every block; returns how many there are.
fn check_blocks(view: &StateView) -> Result<u64, StorageError> {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    options.fill_cache(false);
    let mut records = 0;
    for found in view.db().iterator_opt(IteratorMode::Start, options) {
        found.map_err(|error| view.error("read", &error))?;
        records += 1;
    }
    Ok(records)
}

impl StateReport {
    fn look_at(&mut self, path: &Path, counts: Option<u64>) -> Result<(), StorageError> {
        let disk = Disk::default();
        let name = name_of(path).into_owned();
        let generation = generation_of(&name);
        let is_left = name.starts_with(IMAGE)
            || name.ends_with(".new")
            || (generation.is_some() && generation != counts);
        if is_left {
            let what = "a state or an image that was not finished, or is not used any more";
            self.findings.push(Finding {
                path: path.to_owned(),
                offset: 0,
                what: what.to_owned(),
                kind: FindingKind::Leftover,
            });
        }
        if !disk.is_dir(path) {
            let kind = match &*name {
                "lock" => FileKind::Lock,
                _ if is_left => FileKind::Temporary,
                _ => FileKind::Database,
            };
            self.files
                .push(FileReport::new(&disk, path.to_owned(), kind)?);
            return Ok(());
        }
        for file in list(&disk, path)? {
            let kind = match &*name_of(&file) {
                _ if is_left => FileKind::Temporary,
                "LOCK" => FileKind::Lock,
                _ => FileKind::Database,
            };
            self.files.push(FileReport::new(&disk, file, kind)?);
        }
        Ok(())
    }
}
