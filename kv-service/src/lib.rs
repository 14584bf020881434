//! The replicated key-value store as a server: its state machine, the sessions of its clients, the
//! handling of their requests, and the composition of a node from its configuration.
//!
//! - [`state_machine`] is what is replicated, with [`store`] and [`sessions`].
//! - `config` reads `node.toml`; `init` makes a cluster on the disk, with `certificates` and
//!   formatted data directories (`identity`).
//! - `compose` joins all of it to a running node that serves clients.
//!
//! Only [`state_machine`], [`store`] and [`sessions`] are there without the feature `server`, which
//! is on by default.

#[cfg(feature = "server")]
mod admin;
#[cfg(feature = "server")]
pub mod backup;
#[cfg(feature = "server")]
pub mod certificates;
#[cfg(feature = "server")]
mod cluster_files;
#[cfg(feature = "server")]
pub mod compose;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
mod config_file;
#[cfg(all(test, feature = "server"))]
mod conformance;
mod digest;
#[cfg(feature = "rocksdb")]
pub mod durable;
#[cfg(feature = "server")]
mod files;
#[cfg(feature = "server")]
mod handler;
#[cfg(feature = "server")]
pub mod identity;
#[cfg(feature = "server")]
mod identity_error;
mod image;
#[cfg(feature = "server")]
pub mod init;
#[cfg(feature = "server")]
mod init_error;
#[cfg(feature = "server")]
pub mod inspect;
#[cfg(feature = "server")]
mod join;
#[cfg(feature = "server")]
mod kinds;
#[cfg(feature = "server")]
mod making;
#[cfg(feature = "server")]
mod plan;
mod replicated;
#[cfg(feature = "server")]
pub mod restore;
#[cfg(feature = "server")]
mod server;
pub mod sessions;
#[cfg(feature = "server")]
mod start_error;
#[cfg(feature = "server")]
mod state_facts;
pub mod state_machine;
#[cfg(feature = "server")]
mod stopped;
pub mod store;
#[cfg(feature = "server")]
mod stream;

#[cfg(feature = "server")]
pub use files::FileError;
#[cfg(feature = "server")]
pub use server::{CLOSE_BUSY, CLOSE_INTERNAL, CLOSE_VIOLATION};
#[cfg(feature = "server")]
pub use stream::{REQUEST_FRAME, RESPONSE_FRAME};
