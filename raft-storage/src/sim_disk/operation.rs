//! What is done to a disk, as values: they are recorded, and done again to another one.

use std::path::PathBuf;

/// A file, whatever its name. Numbers are given in the order of creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

/// One change of a disk, or a mark that a test set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A directory was created in one that was there.
    CreateDir(PathBuf),
    /// A file was created, or emptied where it was there.
    Create(PathBuf),
    /// Bytes were written at an offset.
    Write(FileId, u64, Vec<u8>),
    /// A file was cut, or made longer with zeros.
    SetLength(FileId, u64),
    /// A file was synced.
    Sync(FileId),
    /// The first name became the second one.
    Rename(PathBuf, PathBuf),
    /// A name was removed.
    Remove(PathBuf),
    /// The names in a directory were synced.
    SyncDir(PathBuf),
    /// A test noted something: how much was acknowledged, say.
    Mark(u64),
}
