//! Reads a folder: one key per regular file. Links are not followed and pipes not opened, also
//! where one takes the place of a file between the listing and the reading.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use kv_client::limits::{VALUE_BYTES_MAX, check_key};
use rustix::fs::OFlags;
use walkdir::{DirEntry, WalkDir};

use super::feed::{Closed, Feeder};
use crate::key_path::key_of;
use crate::output::printable;

/// Feeds every file below `root`, in the order of names.
pub(super) fn feed(root: &Path, prefix: &[u8], feeder: &Feeder) {
    // An entry fails only where nobody wants any more, so there is nothing left to tell.
    let _ = WalkDir::new(root)
        .min_depth(1)
        .sort_by_file_name()
        .into_iter()
        .try_for_each(|entry| match entry {
            Ok(entry) => feed_entry(root, prefix, &entry, feeder),
            Err(error) => {
                let path = error.path().unwrap_or(root);
                let why = error
                    .io_error()
                    .map_or_else(|| error.to_string(), ToString::to_string);
                feeder.skipped(shown(root, path), why)
            }
        });
}

/// Counts the files below `root`.
pub(super) fn count(root: &Path) -> u64 {
    let files = WalkDir::new(root)
        .min_depth(1)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file());
    files.count() as u64
}

fn feed_entry(root: &Path, prefix: &[u8], entry: &DirEntry, feeder: &Feeder) -> Result<(), Closed> {
    let (path, kind) = (entry.path(), entry.file_type());
    if kind.is_dir() {
        return Ok(());
    }
    let name = shown(root, path);
    if !kind.is_file() {
        return feeder.left_out(name, kind_name(kind));
    }
    let relative = path.strip_prefix(root).unwrap_or(path);
    let Some(key) = key_of(prefix, relative) else {
        return feeder.skipped(name, "it has no plain relative path");
    };
    if let Err(error) = check_key(&key) {
        return feeder.skipped(name, error);
    }
    let (mut file, before) = match open(path) {
        Ok(opened) => opened,
        Err(error) => return feeder.skipped(name, error),
    };
    if !before.is_file() {
        return feeder.skipped(name, "it is no regular file any more");
    }
    let over = |bytes| format!("value of {bytes} bytes is over the limit of {VALUE_BYTES_MAX}");
    let size = match usize::try_from(before.len()) {
        Ok(size) if size <= VALUE_BYTES_MAX => size,
        _ => return feeder.skipped(name, over(before.len())),
    };
    let room = feeder.room(key.len() + size)?;
    match read_unchanged(&mut file, &before, size) {
        Ok(Some(value)) => feeder.item(key, value, room),
        Ok(None) => feeder.skipped(name, "it changed while it was read"),
        Err(error) => feeder.skipped(name, error),
    }
}

/// Opens without following a link and without waiting for the other end of a pipe.
fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.cast_signed())
        .open(path)?;
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

/// Reads a file to its end; none where it was changed meanwhile, as far as its size and time tell.
fn read_unchanged(file: &mut File, before: &Metadata, size: usize) -> io::Result<Option<Vec<u8>>> {
    let mut value = Vec::with_capacity(size + 1);
    file.take(size as u64 + 1).read_to_end(&mut value)?;
    let after = file.metadata()?;
    let modified = |metadata: &Metadata| (metadata.mtime(), metadata.mtime_nsec());
    let same =
        value.len() == size && after.len() == before.len() && modified(&after) == modified(before);
    Ok(same.then_some(value))
}

fn shown(root: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(root).unwrap_or(path);
    let relative = if relative.as_os_str().is_empty() {
        path
    } else {
        relative
    };
    printable(relative.as_os_str().as_bytes())
}

fn kind_name(kind: FileType) -> &'static str {
    if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}
