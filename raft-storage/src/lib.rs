//! Log stores for `raft-core`, to choose from per deployment:
//!
//! - [`MemoryLogStore`] keeps nothing across a restart: for tests and one-process use;
//! - [`WalLogStore`] keeps the log in segment files of its own: one sync per batch, the default;
//! - `RocksLogStore` (feature `rocksdb`) keeps it in RocksDB.
//!
//! Beside them, `rocks_state` (feature `rocksdb`) is where a state machine keeps what does not fit
//! into memory.
//!
//! Each keeps its snapshots as well: in memory, or in files in a directory beside the log, whose
//! format is [`snapshot_file`]. All three pass the suite in `conformance` (feature `conformance`),
//! which is there for other implementations as well. The bytes on the disk are described in
//! `docs/disk-format.md`.

mod batch_thread;
mod blocking;
#[cfg(feature = "conformance")]
pub mod conformance;
mod errors;
mod files;
mod hard_state;
pub mod inspect;
mod inspection;
mod memberships;
mod memory;
mod memory_snapshots;
mod outline;
mod owner;
#[cfg(feature = "rocksdb")]
mod rocks;
#[cfg(feature = "rocksdb")]
mod rocks_errors;
#[cfg(feature = "rocksdb")]
pub mod rocks_state;
#[cfg(any(test, feature = "sim-disk"))]
pub mod sim_disk;
pub mod snapshot_file;
mod snapshots;
mod wal;

pub use files::Disk;
#[cfg(feature = "sim-disk")]
pub use files::{FileHandle, FileSystem, LockGuard};
pub use memory::MemoryLogStore;
pub use owner::WalOwner;
#[cfg(feature = "rocksdb")]
pub use rocks::RocksLogStore;
pub use wal::{LogRepair, RecoveryReport, TailCut, WalEngine, WalLogStore, WalOptions};
