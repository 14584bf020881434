//! The stores as their users see them.

mod conformance;
mod crash;
mod full_disk;
mod fuzz;
mod golden;
mod inspect;
mod old_formats;
#[cfg(feature = "rocksdb")]
mod rocks;
mod wal;
