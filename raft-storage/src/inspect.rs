//! What a stopped node has on its disk, read to the last byte without changing one: the log, by the
//! same recovery that opens it, and the snapshots. Whoever calls this keeps the node from running.

pub use crate::inspection::{
    FileKind, FileReport, Finding, FindingKind, LogReport, SegmentReport, SnapshotsReport,
    StateReport,
};
#[cfg(feature = "rocksdb")]
pub use crate::rocks::inspect::inspect_rocks;
#[cfg(feature = "rocksdb")]
pub use crate::rocks_state::inspect::inspect_state;
pub use crate::snapshots::inspect::inspect_snapshots;
pub use crate::wal::inspect::inspect_wal;
