//! What goes wrong on a simulated disk, and when.

use std::io::{self, ErrorKind};

use super::file::Fate;

/// Failures that are still to come, and limits.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// Operations until one fails, and how.
    fail: Option<(usize, ErrorKind)>,
    /// Syncs of files until one fails.
    fail_sync: Option<usize>,
    /// Writes until one has another fate.
    misfate: Option<(usize, Fate)>,
    /// Bytes that fit on the disk.
    pub(super) capacity: Option<u64>,
    /// From now on nothing works.
    pub(super) power_is_off: bool,
}

impl Faults {
    pub(super) fn fail_after(&mut self, operations: usize, kind: ErrorKind) {
        self.fail = Some((operations, kind));
    }

    pub(super) fn fail_sync_after(&mut self, syncs: usize) {
        self.fail_sync = Some(syncs);
    }

    pub(super) fn misfate_after(&mut self, writes: usize, fate: Fate) {
        self.misfate = Some((writes, fate));
    }

    pub(super) fn are_to_come(&self) -> bool {
        self.fail.is_some() || self.fail_sync.is_some() || self.misfate.is_some()
    }

    pub(super) fn check_power(&self) -> io::Result<()> {
        if self.power_is_off {
            return Err(io::Error::other("the power of the simulated disk is off"));
        }
        Ok(())
    }

    /// Counts an operation that changes something.
    pub(super) fn operation(&mut self) -> io::Result<()> {
        self.check_power()?;
        let Some((left, kind)) = self.fail else {
            return Ok(());
        };
        self.fail = left.checked_sub(1).map(|left| (left, kind));
        match left {
            0 => Err(io::Error::new(kind, "the simulated disk was told to fail")),
            _ => Ok(()),
        }
    }

    /// Counts a sync of a file.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let Some(left) = self.fail_sync else {
            return Ok(());
        };
        self.fail_sync = left.checked_sub(1);
        match left {
            0 => Err(io::Error::other(
                "the simulated disk was told to fail a sync",
            )),
            _ => Ok(()),
        }
    }

    /// Counts a write: what becomes of it.
    pub(super) fn write(&mut self) -> Fate {
        let Some((left, fate)) = self.misfate else {
            return Fate::Kept;
        };
        self.misfate = left.checked_sub(1).map(|left| (left, fate));
        if left == 0 { fate } else { Fate::Kept }
    }
}
