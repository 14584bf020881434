//! The stores as their users see them.

mod conformance;
mod crash;
mod golden;
#[cfg(feature = "rocksdb")]
mod rocks;
mod wal;
