//! What a process leaves behind that is killed, without killing one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Copies a directory that a store has open to `to`, which is not there yet, as of one moment.
///
/// A database makes and removes files on threads of its own, so a copy counts only where nothing
/// changed while it was made. What its process had written and not synced is in it: to lose that as
/// well takes a disk that loses its power.
///
/// # Panics
/// When `to` cannot be removed before another attempt.
pub fn copy_as_if_killed(from: &Path, to: &Path) {
    loop {
        let before = files_below(from).ok();
        let copied = before.as_ref().map(|files| copy_files(files, from, to));
        if matches!(copied, Some(Ok(()))) && before == files_below(from).ok() {
            return;
        }
        if to.exists() {
            fs::remove_dir_all(to).expect("a copy can be removed");
        }
    }
}

/// Every file below a directory, with its length, and every directory, by paths from there.
///
/// # Errors
/// What the system answers; also where something went while it was looked at.
pub fn files_below(dir: &Path) -> io::Result<BTreeMap<PathBuf, Option<u64>>> {
    files(dir, Path::new(""))
}

fn files(dir: &Path, below: &Path) -> io::Result<BTreeMap<PathBuf, Option<u64>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            found.extend(files(dir, &path)?);
            found.insert(path, None);
        } else {
            found.insert(path, Some(entry.metadata()?.len()));
        }
    }
    Ok(found)
}

fn copy_files(files: &BTreeMap<PathBuf, Option<u64>>, from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    // A directory comes before what is in it.
    for (path, length) in files {
        match length {
            None => fs::create_dir_all(to.join(path))?,
            Some(_) => fs::copy(from.join(path), to.join(path)).map(|_| ())?,
        }
    }
    Ok(())
}
