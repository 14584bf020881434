//! The stores as their users see them.

mod conformance;
mod golden;
#[cfg(feature = "rocksdb")]
mod rocks;
mod wal;
