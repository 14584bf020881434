//! How `files` tells the probe of the tests what it is about to do. What becomes of that is in
//! `probe`.

use std::path::Path;

/// What is about to happen, for the probe of the tests.
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "only the probe of the tests reads it")
)]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Note<'a> {
    Create(&'a Path),
    Write(&'a Path, u64, &'a [u8]),
    SetLength(&'a Path, u64),
    Sync(&'a Path),
    Rename(&'a Path, &'a Path),
    Remove(&'a Path),
    SyncDir,
}
