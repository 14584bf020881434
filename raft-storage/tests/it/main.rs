//! The stores as their users see them.

mod conformance;
mod crash;
mod fuzz;
mod golden;
#[cfg(feature = "rocksdb")]
mod rocks;
mod wal;
