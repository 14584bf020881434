//! The file of one snapshot: the same for those that a node keeps, and for those that an operator
//! saves, carries away and verifies. The byte tables are in `docs/disk-format.md`. Which snapshots
//! a node keeps, and when they go, is in `crate::snapshots`.
//!
//! Everything here blocks its thread.

mod content;
mod format;
mod partial;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use content::SnapshotHasher;
pub use format::SnapshotOrigin;
pub use reader::{SnapshotFileReader, verify};
pub use writer::SnapshotFileWriter;

pub(crate) use content::{check_announced, check_part_size};
pub(crate) use partial::PartialFile;
pub(crate) use reader::{PartPosition, SnapshotFile};
