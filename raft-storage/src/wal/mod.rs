//! The log store over files: one thread writes for all groups, one sync for what waits, readers
//! beside it. The format, the recovery steps and what is assumed of the disk are in
//! `docs/disk-format.md`.
//!
//! ```text
//! append() --Job--> writer thread --> active segment --sync--> index --> reader
//!                        |                                       ^
//!                        +-- spare thread (zeros ahead)          +-- recovery, when opened
//! ```

mod active;
mod aside;
mod cut;
mod engine;
mod index;
pub(crate) mod inspect;
mod opening;
mod options;
mod placed;
mod promises;
mod reader;
mod record;
mod recovery;
mod repair;
mod replay;
mod room;
mod run;
mod salvage;
mod scan;
mod sealed;
mod segment;
mod shared;
mod slots;
mod spare;
mod staging;
mod store;
mod straggler;
#[cfg(test)]
mod tests;
mod walk;
mod writer;

pub use engine::WalEngine;
pub use options::{LogRepair, RecoveryReport, TailCut, WalOptions};
pub use store::WalLogStore;
